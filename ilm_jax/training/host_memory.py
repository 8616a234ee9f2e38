"""Keeps freed memory in the process: on CPU each step frees and takes the same large buffers."""

import ctypes

# glibc's mallopt parameters (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc not to return freed buffers to the kernel; call before JAX starts its threads.

    Otherwise every step maps, zeroes and unmaps its buffers anew: the tiny recipes ran at half
    the speed on two cores. Elsewhere than on glibc it does nothing.

    Returns:
      Whether it took effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1))
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings])
