"""Ties the life of a process to the one that started it, however that one ends.

Called first of all by programs of ours that another program of ours starts.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> bool:
    """Ask the kernel to kill us when the process `parent` dies; tell whether it still lives."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent
