"""Makes glibc give the memory of pictures back to the system.

By default glibc has up to eight heaps for each core, and after the first large buffers it takes later ones from these
heaps, too. Threads that draw pictures of some megabytes then leave each heap as large as its largest picture.
"""

import ctypes

#: Options of mallopt(3).
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
#: Buffers of this size have memory of their own, which their end returns.
_OWN_MEMORY_BYTES = 256 * 1024
_HEAPS = 2


def limit_heap() -> None:
    """Limit the heaps of this process, where the C library is glibc. Call it before the threads start."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, _HEAPS)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MEMORY_BYTES)
