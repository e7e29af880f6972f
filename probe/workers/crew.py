"""One worker as its supervisor sees it: a process that is started, asked and ended.

Used by the supervisor alone. What passes between the two is in `probe.workers.worker`; a question
is answered within a bounded time or counts as not answered.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import anyio
import msgspec
from anyio.abc import Process, UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from probe.workers.gather import Gathering, Snapshot, decode
from probe.workers.worker import HEAD_BYTES, Post, framed

ANSWER_S: Final = 1.0
"""A worker that does not answer so soon is left out, and the answer says so."""
SILENT_S: Final = 10.0
"""One silent for so long does not come back by itself: /livez asks for a restart."""
UNANSWERED_MAX: Final = 100
"""Questions to one that does not answer; more would only fill its socket."""


class Worker:
    """One worker, through all its restarts; what it says goes to `gathering`."""

    def __init__(
        self, number: int, post: Post, gathering: Gathering, *, clock: Callable[[], float]
    ) -> None:
        self.number = number
        self._post = post
        self._gathering = gathering
        self._clock = clock
        self._process: Process | None = None
        self._stream: UNIXSocketStream | None = None
        self._snapshot: Snapshot | None = None
        self._asked = 0
        self._answered = 0
        self._news = anyio.Event()
        self._silent_since: float | None = None

    @property
    def process(self) -> Process | None:
        """The process, if it runs."""
        process = self._process
        return process if process is not None and process.returncode is None else None

    async def live(self) -> int:
        """Start the process and listen to it until it ends; return its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = process = await anyio.open_process(
                [
                    sys.executable,
                    "-m",
                    "probe.workers.worker",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=None,
                stderr=None,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the supervisor, who ends us in order
            )
        ours.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._asked = self._answered = 0
        self._stream = await UNIXSocketStream.from_socket(ours)
        try:
            async with self._stream, anyio.create_task_group() as group:
                group.start_soon(self._listen, self._stream)
                code = await process.wait()
                group.cancel_scope.cancel()
        finally:
            self._stream = self._snapshot = self._silent_since = None
            self._gathering.ended(self.number, now=self._clock())
        return code

    async def _listen(self, stream: UNIXSocketStream) -> None:
        """Tell the process what to do; then take its answers as they come."""
        received = BufferedByteReceiveStream(stream)
        try:
            await stream.send(framed(msgspec.json.encode(self._post)))
            while True:
                length = int.from_bytes(await received.receive_exactly(HEAD_BYTES))
                self._heard(decode(await received.receive_exactly(length)))
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            return  # it ends, and its exit code says how

    def _heard(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._silent_since = None
        self._gathering.heard(self.number, snapshot.reading, now=self._clock())
        self._answered += 1
        self._news.set()
        self._news = anyio.Event()

    async def ask(self) -> None:
        """Ask for its figures, and wait a bounded time for them."""
        stream = self._stream
        if stream is None:
            return
        with anyio.move_on_after(ANSWER_S) as patience:
            if self._asked - self._answered < UNANSWERED_MAX:
                self._asked += 1
                try:
                    await stream.send(b"?")
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
            wanted = self._asked
            while self._answered < wanted and self._stream is stream:
                await self._news.wait()
        if patience.cancelled_caught:
            self._gathering.silent(self.number)
            if self._silent_since is None:
                self._silent_since = self._clock()

    def dead(self) -> str | None:
        """Say why the whole should be restarted, if it should."""
        if self._silent_since is not None:
            silent_s = self._clock() - self._silent_since
            late = f"worker {self.number + 1} has not answered for {silent_s:.0f} s"
            return late if silent_s > SILENT_S else None
        return self._named(None if self._snapshot is None else self._snapshot.dead)

    def idle(self) -> str | None:
        """Say why it should not be counted on now, if it should not."""
        if self._silent_since is not None:
            return self._named("it does not answer")
        if self._snapshot is None:
            return self._named("it does not run yet")
        return self._named(self._snapshot.idle)

    def _named(self, trouble: str | None) -> str | None:
        return trouble and f"worker {self.number + 1}: {trouble}"
