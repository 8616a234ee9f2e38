"""Freed memory is kept where that is safe, in huge pages, and is not mapped anew by later steps."""

import mmap
import pathlib
import platform
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

from ilm_jax.training import host_memory, huge_pages
from ilm_jax.training.host_memory import HostMemory

GIB = 1 << 30
THP = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
# From 6.1 on Linux moves memory into huge pages when it is asked to.
KERNEL = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's memory")


class Machine:
    """A HostMemory on a machine of 8 GiB whose process has such a peak and such holes."""

    def __init__(self, monkeypatch):
        self.peak, self.holes, self.asked = GIB, 0, []
        monkeypatch.setattr(host_memory, "peak", lambda: self.peak)
        monkeypatch.setattr(host_memory, "available", lambda: 8 * GIB)
        monkeypatch.setattr(host_memory.huge_pages, "collapse", lambda libc: None)
        monkeypatch.setattr(host_memory, "PERIOD", 0.0)
        monkeypatch.setattr(HostMemory, "_holes", lambda _: self.holes)
        monkeypatch.setattr(HostMemory, "_set", lambda _, what: self.asked.append(what) or True)
        self.memory = HostMemory()

    def keeps(self, peak, holes=0):
        """Whether memory is kept once that was the process's peak."""
        self.peak, self.holes = peak, holes
        self.memory.settle()
        return self.memory.kept


def test_memory_is_kept_by_what_is_small_whatever_its_holes(monkeypatch):
    machine = Machine(monkeypatch)
    assert not machine.keeps(GIB), "nobody allowed it"
    machine.memory.allow()
    assert machine.keeps(GIB) and machine.keeps(GIB, 7 * GIB)
    assert len(machine.asked) == 2  # arenas; kept, once
    machine.memory.give_back()
    assert not machine.memory.kept
    assert machine.keeps(GIB)


def test_memory_is_kept_by_what_is_large_while_it_would_fit_with_its_holes(monkeypatch):
    machine = Machine(monkeypatch)
    machine.memory.allow()
    assert machine.keeps(5 * GIB) and machine.keeps(5 * GIB, GIB)
    assert not machine.keeps(5 * GIB, 2 * GIB)
    assert not machine.keeps(GIB), "given back for good"


def test_memory_is_given_back_for_good_by_what_nearly_fills_the_machine(monkeypatch):
    machine = Machine(monkeypatch)
    machine.memory.allow()
    assert machine.keeps(GIB)
    assert not machine.keeps(7 * GIB) and not machine.keeps(GIB)


@LINUX
def test_holes_are_what_is_free_below_the_heaps_end_and_all_where_glibc_does_not_say():
    memory = HostMemory()
    assert memory.allow() and 0 <= memory._holes() < host_memory.available()
    memory._libc = object()
    assert memory._holes() == host_memory.available()


def faults(gibibytes):
    """Minor faults of a process's third large buffer; runs in a process of its own."""
    memory = HostMemory()
    assert memory.allow()
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        buffer = np.ones(int(gibibytes * GIB / 4), np.float32)
        found = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        del buffer
        memory.settle()
    return found


# 2 GiB is where a trim threshold that is an int ends.
@pytest.mark.parametrize("gibibytes", [0.5, 2.25])
@LINUX
def test_a_large_buffer_is_taken_again_without_mapping_it_anew(gibibytes):
    code = f"from tests.training import test_host_memory as t; print(t.faults({gibibytes}))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) < gibibytes * 256  # its huge pages: so many, were it mapped anew


def huge():
    """KiB of this process in huge pages."""
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


@pytest.mark.skipif(
    not THP.is_file() or "[never]" in THP.read_text() or KERNEL < (6, 1),
    reason="this system moves nothing into huge pages",
)
def test_what_a_process_holds_is_moved_into_huge_pages_unchanged():
    # NumPy's own large arrays ask for huge pages already.
    held = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held[:] = bytes(range(256)) * (len(held) // 256)
    before = huge()
    huge_pages.collapse(host_memory._glibc())
    assert huge() - before > 32 << 10
    assert held[:] == bytes(range(256)) * (len(held) // 256)
