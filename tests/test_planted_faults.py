"""The planted slips still have their place, and planting leaves the tree as it was."""

import collections
import dataclasses

import pytest

from tests import planted_faults
from tests.planted import Fault

SLIPS = planted_faults.chosen("")


def test_every_slip_has_a_name_of_its_own_a_place_and_tests_that_exist():
    """Who rewrites a line in which a slip is planted moves the slip along, in `tests/planted`."""
    planted_faults.check(SLIPS)
    names = collections.Counter(fault.name for _, fault in SLIPS)
    assert max(names.values()) == 1 and len(names) >= 45
    assert {area for area, _ in SLIPS} == set(planted_faults.AREAS)
    for _, fault in SLIPS:
        files = planted_faults.files_of(fault.tests)
        assert files and all(path.is_file() for path in files), fault.name


def test_a_slip_without_its_place_is_told():
    (_, fault), *_ = SLIPS
    with pytest.raises(SystemExit, match="0 times, not once"):
        planted_faults.check([("", dataclasses.replace(fault, old="no such text"))])


@pytest.mark.slow
def test_a_slip_is_caught_and_what_changes_nothing_survives(tmp_path):
    test = "tests/data/test_schedule.py -k cycle"
    path = "ilm_jax/data/streams/schedule.py"
    slips = {
        planted_faults.CAUGHT: Fault("a", path, "cycle[step %", "cycle[(step + 1) %", test),
        planted_faults.SURVIVED: Fault("b", path, "cycle[step %", "cycle[(step + 0) %", test),
        planted_faults.BROKEN: Fault("c", path, "import dataclasses\n", "import nothing\n", test),
    }
    before = (planted_faults.ROOT / path).read_text()
    known = planted_faults.Results(tmp_path / "results.jsonl")
    planter = planted_faults.Planter(tmp_path / "trees", 1, known, {test: "sound"})
    for verdict, fault in slips.items():
        assert planter.plant("training", fault).verdict == verdict
        assert (planted_faults.ROOT / path).read_text() == before
        assert (tmp_path / "trees/0" / path).read_text() == before
    assert "sound" in planted_faults.Results(tmp_path / "results.jsonl")
