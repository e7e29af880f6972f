"""fleetpulse's prober: which replicas of the fleet can serve, right now."""
