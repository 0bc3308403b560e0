"""How a process gets its memory: what is freed stays with it.

glibc gives a freed block of some hundred kilobytes back to the system at once, so that the next tensor of that size is
made of pages that the kernel has to find and clear. A step of training or of a search makes the same sizes again and
again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>

LARGEST_KEPT = 32 * 2**20
"""Bytes of a block; larger ones are mapped and given back one by one. glibc allows no more."""

MOST_FREE = 2**30
"""Bytes that may lie free at the end of the heap before they are given back."""

VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""By which a user tells glibc's allocator what to do."""


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees for what it makes next.

    False if nothing is changed: its C library knows no such settings, or the user has some of his own.
    """
    if any(name in os.environ for name in VARIABLES):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, MOST_FREE))
    return False
