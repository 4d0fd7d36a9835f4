"""What the allocator of the C library and Python's collector keep, and how rarely they look.

At a million items a change makes and drops arrays of megabytes. By default glibc soon takes such
arrays from its heap, where what is dropped stays with the process; here they are mapped, and gone
when they are dropped. On other systems nothing is done.
"""

import ctypes
import gc
import sys
from functools import cache
from typing import Any

MAPPED_FROM = 2 << 20
"""Bytes from which on an array is mapped; masks of a million items, made in every request, are
smaller and come from the heap."""
ARENAS = 2
COLLECTOR_THRESHOLDS = (50_000, 20, 50)
"""With Python's own, the collector walks all objects 500 times while the service is loaded."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


@cache
def _library() -> Any:
    """Return the C library, if it is one that has these functions."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def tame() -> None:
    """Let large arrays be mapped, and few threads have a heap of their own; call it early."""
    library = _library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)
        library.mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return to the system what was dropped: after something large was built."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def collect_rarely() -> None:
    """Let the collector look less often; call it before much is loaded, for that stays."""
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def keep() -> None:
    """Let the collector never walk again what exists now; call it when all is loaded."""
    gc.collect()
    gc.freeze()
