"""A compiled program's memory is what it takes, and whether it fits is judged by that."""

import types

import jax
import pytest

from ilm_jax.compilation import report
from ilm_jax.compilation.report import exceeded, hbm
from ilm_jax.compilation.tables import lines, markdown
from ilm_jax.compilation.topology import Topology
from ilm_jax.errors import UserError
from ilm_jax.training.chips import GIB, described


def analysis(**sizes):
    names = ("argument", "temp", "output", "alias", "generated_code")
    sizes = {f"{name}_size_in_bytes": int(sizes.get(name, 0) * GIB) for name in names} | {
        "peak_memory_in_bytes": int(sizes.get("live", 0) * GIB)
    }
    return types.SimpleNamespace(**sizes)


def test_the_larger_of_what_is_allocated_and_what_is_live_counts():
    holes = hbm(analysis(argument=1.5, temp=13, output=1.25, alias=1, live=12), 16 * GIB)
    assert holes["allocated"] == holes["peak"] == 14.75 * GIB and holes["live"] == 12 * GIB
    unseen = hbm(analysis(argument=1, temp=2, output=0.5, alias=0.5, live=4), 16 * GIB)
    assert unseen["allocated"] == 3 * GIB and unseen["peak"] == 4 * GIB


def test_both_figures_are_shown():
    memory = hbm(analysis(argument=1.5, temp=13, output=1.25, alias=1, live=12), 16 * GIB)
    program = {
        "program": "train prompt",
        "fits": True,
        "hbm": memory,
        "rows": 4,
        "limit": "HBM",
        "seconds": dict.fromkeys(("matmul", "hbm", "ici", "dcn", "step"), 1.0),
        "flops": dict.fromkeys(("needed", "frozen_4n", "compiled"), 1.0),
        "collectives": [],
        "compile_seconds": 1.0,
        "kernels": [],
        "mfu_bound": 0.5,
        "shardings_kept": True,
        "warnings": [],
    }
    record = {
        "recipe": "r",
        "topology": "v5e:4x4",
        "chips": 16,
        "batch": 4,
        "programs": [program] * 2,
        "compiling": {"seconds": 7.0, "cpu_seconds": 13.0, "host_peak_bytes": 2 * GIB},
    }
    shown = lines(record)[1]
    assert "14.75 of 16.00 GiB" in shown and "in use at a time 12.00" in shown
    assert "compiled in 7 s (13 s of CPU), host memory 2.0 GiB" in lines(record)[-1]
    table = markdown([record])
    assert "| 14.8 / 16.00 GiB |" in table and table.count("| 7 s (13 s) | 2.0 GiB |") == 1


@pytest.mark.parametrize(
    ("words", "peak", "room"),
    [
        ("Ran out of memory in memory space hbm. Used 40.25G of 15.75G hbm.", 40.25, 15.75),
        (
            "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (1.50T) exceeds available HBM (31.24G). HLO module: jit_step",
            1536,
            31.24,
        ),
    ],
)
def test_the_compilers_refusals_are_read(words, peak, room):
    assert exceeded(words) == {"peak": int(peak * GIB), "room": int(room * GIB)}
    assert exceeded("INTERNAL: something else of 3.00G") is None


def test_a_v4_chip_is_described_as_its_two_cores():
    assert described("v4", 2).flops * 2 == described("v4", 1).flops
    assert described("v5e", 1).hbm_bytes < 16 * GIB


@pytest.mark.parametrize("wrong", [None, ("jax 1 goes with libtpu==1.*, not 2", "pip install it")])
def test_a_compiler_that_fails_is_told_beside_its_version(wrong, monkeypatch):
    def fails():
        raise jax.errors.JaxRuntimeError("INTERNAL: async-update\ninstruction")

    monkeypatch.setattr(report, "mismatch", lambda: wrong)
    lowered = types.SimpleNamespace(compile=fails)
    program = types.SimpleNamespace(
        name="decode", rows=8, share=1.0, state=None, lower=lambda: lowered
    )
    topology = Topology.parse("v5e:2x2")
    with pytest.raises(UserError if wrong else jax.errors.JaxRuntimeError) as caught:
        report.compile_program(program, topology, [None] * topology.chips)
    if wrong:
        assert str(caught.value) == (
            "the TPU compiler fails on decode (INTERNAL: async-update instruction): "
            "jax 1 goes with libtpu==1.*, not 2: pip install it"
        )
