"""Huge pages for a process's large buffers (Linux, where the system lets a process ask for them).

A step on CPU walks gigabytes in pages of 4 KiB: each is mapped and cleared for itself, and needs an
entry of the TLB. Pages of 2 MiB are mapped at once; frozen steps of T5-small and of SmolLM2 take 10
and 5 % less time with them (docs/speed.md). Elsewhere than on Linux, and where they are off,
nothing happens.
"""

import ctypes
import pathlib
from collections.abc import Iterator

SIZE = 2 << 20
# Mappings below this size are left as they are.
LEAST = 8 << 20
# madvise(2): what is touched later, and what was touched before (from Linux 6.1 on; moves it).
_ADVISE, _COLLAPSE = 14, 25
_MAPS = pathlib.Path("/proc/self/maps")


def advise(libc: ctypes.CDLL, start: int, end: int) -> None:
    """Asks for huge pages where addresses from start to end are touched from now on."""
    _madvise(libc, start, end, _ADVISE)


def collapse(libc: ctypes.CDLL) -> None:
    """Moves what the process's large mappings hold into huge pages; a second for half a GiB."""
    for start, end in _large():
        advise(libc, start, end)
        _madvise(libc, start, end, _COLLAPSE)


def _madvise(libc: ctypes.CDLL, start: int, end: int, advice: int) -> None:
    first, last = -(-start // SIZE) * SIZE, end // SIZE * SIZE
    if last > first:
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), ctypes.c_int(advice))


def _large() -> Iterator[tuple[int, int]]:
    """(first, last) addresses of large private mappings that no file stands behind."""
    for line in _MAPS.read_text().splitlines() if _MAPS.is_file() else ():
        span, mode, _, _, inode, *name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in span.split("-"))
        ours = not name or name == ["[heap]"]
        if mode == "rw-p" and inode == "0" and ours and end - start >= LEAST:
            yield start, end
