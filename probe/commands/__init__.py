"""What the prober's commands do, behind their faces in `probe.cli`."""
