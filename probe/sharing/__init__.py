"""How probers on several hosts share the partitions among themselves."""
