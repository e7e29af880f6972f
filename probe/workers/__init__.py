"""Several workers as one prober."""
