"""Run the simulated fleet: `python -m controller.provision.fleet --socket PATH`.

Prints one line when it listens. Ends on SIGTERM or SIGINT; what starts it sees to it that it does
not stay behind.
"""

import argparse
import asyncio
import resource
import signal
import sys
from pathlib import Path

import uvloop

from controller.provision.fleet.control import Control, handlers
from controller.provision.fleet.fleet import Fleet

_READY = "listening"


def main() -> int:
    """Run until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m controller.provision.fleet")
    parser.add_argument("--socket", required=True, type=Path, help="unix socket to be told on")
    arguments = parser.parse_args()
    _allow_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(arguments.socket))
        except OSError as error:
            print(f"cannot listen on {arguments.socket}: {error}", file=sys.stderr)  # noqa: T201
            return 3
    arguments.socket.unlink(missing_ok=True)
    return 0


async def _serve(path: Path) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    fleet = Fleet(loop)
    table = handlers(fleet)
    server = await loop.create_unix_server(lambda: Control(table), str(path))
    try:
        print(_READY, flush=True)  # noqa: T201 - the parent waits for this line
        await stop.wait()
    finally:
        server.close()
        fleet.close()


def _allow_open_files() -> None:
    """Raise the soft limit to the hard one: each replica and each connection is a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
