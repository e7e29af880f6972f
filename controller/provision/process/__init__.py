"""Replicas as processes of this machine: a keeper for each, and what the controller knows of it."""
