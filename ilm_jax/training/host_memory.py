"""Keeps freed memory in a small process: on CPU each step frees and takes the same large buffers.

glibc gives large buffers back to the kernel when they are freed, so every step maps and zeroes
them anew. Kept, they are at hand; but a heap of large and small pieces has holes, and may grow to
several times what is in use. So memory is kept only by a process that `keep_freed_memory` allows
to, after its programs have run and their peak was small beside what the machine has.
"""

import ctypes
import os
import pathlib
import resource
import sys

# glibc's mallopt parameters (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_KEPT = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
# As glibc's own thresholds are once it has seen large buffers.
_GIVEN_BACK = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
# Memory is kept while the peak is below this share of what the process may use.
SHARE = 1 / 4
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class HostMemory:
    """Whether freed memory is kept, for this process."""

    _libc: ctypes.CDLL  # once it is allowed

    def __init__(self) -> None:
        """Nothing is kept until it is allowed."""
        self.kept = False
        self._allowed = False
        self._most = 0.0

    def allow(self) -> bool:
        """Allows it; call before JAX starts its threads. Returns whether it can take effect."""
        try:
            self._libc = ctypes.CDLL(None)
            self._allowed = self._set(((_ARENA_MAX, 1),))
        except (AttributeError, OSError):
            return False
        self._most = SHARE * available()
        return self._allowed

    def settle(self) -> None:
        """Called between runs of programs that ran before; keeps memory while that is little."""
        if not self._allowed:
            return
        little = peak() < self._most
        if little and not self.kept:
            self.kept = self._set(_KEPT)
        elif not little:
            self.give_back()
            self._allowed = False

    def give_back(self) -> None:
        """Gives back what is free; called before a program runs for the first time."""
        if self.kept:
            self._set(_GIVEN_BACK)
            self._libc.malloc_trim(0)
            self.kept = False

    def _set(self, settings: tuple[tuple[int, int], ...]) -> bool:
        set_one = self._libc.mallopt
        return all([set_one(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings])


HOST_MEMORY = HostMemory()


def keep_freed_memory() -> bool:
    """Allows this process to keep freed memory; elsewhere than on glibc it does nothing.

    Returns:
      Whether it can take effect.
    """
    return HOST_MEMORY.allow()


def peak() -> int:
    """Bytes that this process held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held() -> int:
    """Bytes that this process holds now; its peak where the system does not say."""
    statm = pathlib.Path("/proc/self/statm")
    if not statm.is_file():
        return peak()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Bytes that this process may use: the machine's, or its control group's if that is less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(pathlib.Path, _LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        found += [int(text)] if text.isdecimal() else []
    return min(found)
