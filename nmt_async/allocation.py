"""How a process gets its memory: what is freed stays with it.

glibc gives a freed block of some hundred kilobytes back to the system at once, so that the next tensor of that size is
made of pages that the kernel has to find and clear. A step of training or of a search makes the same sizes again and
again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>

LARGEST_KEPT = 32 * 2**20
"""Bytes of a block; larger ones are mapped and given back one by one. glibc allows no more."""

MOST_FREE = 2**30
"""Bytes that may lie free at the end of the heap before they are given back."""

SMALLEST_APART = 4 * 2**20
"""Bytes of a block that `blocks_apart` maps by itself."""

VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""By which a user tells glibc's allocator what to do."""


_kept = False


def keep_freed_memory() -> bool:
    """From now on this process, and what it forks, keeps what it frees for what it makes next.

    False if nothing is changed: its C library knows no such settings, or the user has some of his own.
    """
    global _kept
    if any(name in os.environ for name in VARIABLES):
        return False
    _kept = _set(_M_MMAP_THRESHOLD, LARGEST_KEPT) and _set(_M_TRIM_THRESHOLD, MOST_FREE)
    return _kept


@contextlib.contextmanager
def blocks_apart() -> Iterator[None]:
    """A large block that is made within lies on new pages, also where freed memory is kept: what nobody writes of it
    takes no memory, and it is given back when it is freed.
    """
    apart = _kept and _set(_M_MMAP_THRESHOLD, SMALLEST_APART)
    try:
        yield
    finally:
        if apart:
            _set(_M_MMAP_THRESHOLD, LARGEST_KEPT)


def _set(parameter: int, value: int) -> bool:
    """Tells glibc's allocator; False where the C library knows no such settings."""
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    return False
