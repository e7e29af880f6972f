"""fleetpulse's control plane: from what the prober says to what traffic does."""
