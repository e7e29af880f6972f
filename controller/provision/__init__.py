"""Where replicas come from: one port, and an adapter for each thing that can run one."""
