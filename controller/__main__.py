"""`python -m controller`: the daemon, as the container starts it."""

from controller.cli.daemon import controller

if __name__ == "__main__":
    controller()
