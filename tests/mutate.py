"""Damages thousands of inputs of every kind and says how each was taken.

    python -m tests.mutate [--count 10000] [--seed 0] [--only raw/csv model/header own/table]

Raw data files (raw/…), published and converted models (model/…) and what ilm_jax itself writes
(own/…) are damaged by a seed and read. Right is: read as an independent slow reader reads it, or
refused in one line. A crash, a hang of more than a minute and a silent change are faults, each
printed with its seed; any makes the exit code 1. The suite draws a smaller number of each.
"""

import argparse
import collections
import contextlib
import io
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.errors import UserError
from tests.checkpoints import judging, mutating
from tests.damage import KINDS, outcome
from tests.data import damaged_files as raw

PATIENCE = 60  # seconds
# Reading one of them takes as long as a hundred lines of raw data.
SHARES = {"raw": 3.0, "model": 1.0, "own": 1.0, "own/checkpoint": 0.3, "model/own": 0.3}
Mutant = Callable[[int], str]


def raw_reader(name: str, folder: pathlib.Path) -> Mutant:
    """Mutants of one raw format; see tests/data/damaged_files.py."""

    def mutant(seed: int) -> str:
        raw.DRAW = np.random.default_rng(seed)
        return raw.outcome(name, folder, list(raw.MUTATIONS)[seed % len(raw.MUTATIONS)])

    return mutant


def model_folder(kind: str, folder: pathlib.Path) -> Mutant:
    """Mutants of a model's folder; see tests/checkpoints/mutating.py."""
    judging.make(kind, folder / "whole")
    whole = None
    if kind in ("t5x", "own"):
        entries = open_language_model(str(folder / "whole")).entries
        whole = {name: entry.read() for name, entry in entries.items()}

    def mutant(seed: int) -> str:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            shutil.copytree(folder / "whole", copy := pathlib.Path(place) / "mutant")
            mutating.MUTATORS[kind](copy, np.random.default_rng(seed))
            return judging.outcome(kind, copy, whole)

    return mutant


def own_files(name: str, folder: pathlib.Path) -> Mutant:
    """Mutants of what we write; see tests/damage.py."""
    kind = KINDS[name]
    kind.make(folder / "whole")
    whole = kind.read(folder / "whole")

    def mutant(seed: int) -> str:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            shutil.copytree(folder / "whole", copy := pathlib.Path(place) / "mutant")
            kind.damage(copy, np.random.default_rng(seed))
            return outcome(kind, copy, whole)

    return mutant


MAKERS = {
    **{f"raw/{name}": (raw_reader, name) for name in raw.READERS},
    **{f"model/{name}": (model_folder, name) for name in mutating.MUTATORS},
    **{f"own/{name}": (own_files, name) for name in KINDS},
}


def counts(names: Sequence[str], total: int) -> dict[str, int]:
    """How many mutants of each kind, together at least `total`."""
    shares = {n: SHARES.get(n, SHARES[n.partition("/")[0]]) for n in names}
    whole = sum(shares.values())
    return {name: int(np.ceil(total * share / whole)) for name, share in shares.items()}


def _late(*_: object) -> None:
    raise TimeoutError(f"nothing within {PATIENCE} s")


def run(name: str, count: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """({"read", "refused", "fault": how many}, a line for every fault)."""
    tally: collections.Counter[str] = collections.Counter()
    faults = []
    make, what = MAKERS[name]
    with tempfile.TemporaryDirectory(prefix="ilm-mutants-") as place:
        mutant = make(what, pathlib.Path(place))
        for number in range(seed, seed + count):
            signal.alarm(PATIENCE)
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # notes on what was read
                    tally[mutant(number)] += 1
            except (Exception, UserError) as error:  # noqa: B014, BLE001 - the very thing looked for
                tally["fault"] += 1
                said = " ".join(str(error).split())[:200]
                faults.append(f"  {name}, seed {number}: {type(error).__name__}: {said}")
            finally:
                signal.alarm(0)
    return tally, faults


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all kinds; 1 if anything was taken wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="mutants in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first mutant of each kind")
    parser.add_argument("--only", nargs="+", choices=sorted(MAKERS), default=sorted(MAKERS))
    flags = parser.parse_args(argv)
    signal.signal(signal.SIGALRM, _late)
    all_of_them: collections.Counter[str] = collections.Counter()
    for name, count in counts(flags.only, flags.count).items():
        begin = time.monotonic()
        tally, said = run(name, count, flags.seed)
        all_of_them += tally
        print(
            f"{name:20} {tally['read']:6} read {tally['refused']:6} refused {tally['fault']:4} "
            f"faults  {time.monotonic() - begin:5.0f} s",
            flush=True,
        )
        print("\n".join(said[:5]), end="\n" if said else "", flush=True)
    read, refused, faults = (all_of_them[name] for name in ("read", "refused", "fault"))
    print(
        f"{read + refused + faults} mutants: {read} read right, {refused} refused in one line, "
        f"{faults} faults"
    )
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
