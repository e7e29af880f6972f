"""When each replica is probed: decided here, without a clock of its own."""
