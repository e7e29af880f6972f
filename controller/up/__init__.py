"""The whole system on one machine: its processes, a tour through it, and a view of it."""
