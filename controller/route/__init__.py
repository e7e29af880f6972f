"""What is decided for single routes: their health, their warm-up, their eviction, their targets."""
