"""`python -m probe` is the prober daemon: the container's entry point."""

from probe.cli import probe

probe(prog_name="python -m probe")
