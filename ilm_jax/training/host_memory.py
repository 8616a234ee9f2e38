"""Keeps freed memory in a small process: on CPU each step frees and takes the same large buffers.

glibc gives large buffers back to the kernel when they are freed, so every step maps and zeroes
them anew. Kept, they are at hand; but a heap of large and small pieces has holes, and may grow to
several times what is in use. So memory is kept only by a process that `keep_freed_memory` allows
to, after its programs have run, and while their peak is small beside what the machine has or would
fit with all of the heap's holes.
"""

import ctypes
import os
import pathlib
import resource
import sys
import time

import jax

from ilm_jax.training import huge_pages

# glibc's mallopt parameters (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
# -1 trims never; any other threshold is an int, less than what large steps free at once.
_KEPT = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
# As glibc's own thresholds are once it has seen large buffers.
_GIVEN_BACK = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
# Memory is kept while the peak is below this share of what the process may use, whatever its holes,
SHARE = 1 / 4
# or the peak and the holes together are below this one.
SHARE_WITH_HOLES = 4 / 5
# Seconds between two looks at the holes, which take milliseconds.
PERIOD = 1.0
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class _Heap(ctypes.Structure):
    """What glibc's mallinfo2 tells, in bytes but for the numbers of blocks (malloc.h)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]


class HostMemory:
    """Whether freed memory is kept, for this process."""

    _libc: ctypes.CDLL  # once it is allowed

    def __init__(self) -> None:
        """Nothing is kept until it is allowed."""
        self.kept = False
        self._allowed = False
        self._moved = False
        self._due = 0.0
        self._available = 0

    def allow(self) -> bool:
        """Allows it; call before JAX starts its threads. Returns whether it can take effect."""
        try:
            self._libc = _glibc()
            self._allowed = self._set(((_ARENA_MAX, 1),))
        except (AttributeError, OSError):
            return False
        self._available = available()
        return self._allowed

    def settle(self) -> None:
        """Called between runs of programs that ran before; keeps memory while that is safe."""
        if not self._allowed:
            return
        most, now = peak(), time.monotonic()
        if most >= SHARE * self._available and now >= self._due:
            self._due = now + PERIOD
            if most + self._holes() >= SHARE_WITH_HOLES * self._available:
                self.give_back()
                self._allowed = False
                return
        if not self.kept:
            self.kept = self._keep(most)

    def give_back(self) -> None:
        """Gives back what is free; called before a program runs for the first time."""
        if self.kept:
            self._set(_GIVEN_BACK)
            self._libc.malloc_trim(0)
            self.kept = False

    def _holes(self) -> int:
        """Bytes of the heap that are free but not at its end, where any new buffer fits.

        All there is where glibc, before 2.33, does not say.
        """
        if not hasattr(self._libc, "mallinfo2"):
            return self._available
        heap = self._libc.mallinfo2()
        return heap.fordblks - heap.keepcost

    def _keep(self, most: int) -> bool:
        """Keeps memory, in huge pages: all that is held, and as much room again."""
        # Once: what is made later lies in huge pages from the start.
        if not self._moved and jax.default_backend() == "cpu":
            huge_pages.collapse(self._libc)
            self._moved = True
        kept = self._set(_KEPT)
        if start := self._libc.malloc(most):
            huge_pages.advise(self._libc, start, start + most)
            self._libc.free(start)
        return kept

    def _set(self, settings: tuple[tuple[int, int], ...]) -> bool:
        set_one = self._libc.mallopt
        return all([set_one(*setting) for setting in settings])


def _glibc() -> ctypes.CDLL:
    """The C library with the functions' types; AttributeError if it is not glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _Heap
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    return libc


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
