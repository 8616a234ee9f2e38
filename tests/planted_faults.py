"""Plants slips in the library, one at a time, and says which of them the tests notice.

    python -m tests.planted_faults                        # all of tests/planted, about an hour
    python -m tests.planted_faults --only=training        # an area
    python -m tests.planted_faults --only='top_p|packed'  # slips by name, a regular expression
    python -m tests.planted_faults --list

A test suite is only as good as the mistakes that it would notice. Every entry of `tests/planted` is
a slip (text of a file that stands there once, and what stands there instead) with the tests that
are meant to notice it. Each is planted in a temporary copy of the tree, never in the tree itself;
the tests must pass in the copy as it is, and fail with the slip: "caught" or "survived" (or
"broken", if nothing ran). Whoever changes what a test looks at runs the slips of that area;
whoever mends a mistake that no test noticed adds it, with the test that does. A survivor is a test
to write.

Results are kept in --results as they come, and a slip is not planted again until its file or its
tests have changed, so that a run that was cut off goes on where it was. Exits with 1 if a slip
survived.
"""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence

from tests.planted import Fault

ROOT = pathlib.Path(__file__).parents[1]
AREAS = (
    "training",
    "records",
    "objectives",
    "models",
    "decoding",
    "cf",
    "data",
    "streams",
    "texts",
    "evaluation",
)
TREE = (
    "ilm_jax",
    "tasks",
    "gin",
    "launch",
    "studies",
    "tests",
    "setup.py",
    "pyproject.toml",
    "README.md",
)
TIMEOUT = 900
CAUGHT, SURVIVED, BROKEN, SOUND = "caught", "survived", "broken", "sound"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a slip: caught, survived or broken, in how many seconds, by which test."""

    area: str
    name: str
    verdict: str
    seconds: float
    by: str


def chosen(only: str) -> list[tuple[str, Fault]]:
    """(area, slip) of all whose area is `only`, or whose name or file it is found in."""
    found = []
    for area in AREAS:
        for fault in importlib.import_module(f"tests.planted.{area}").FAULTS:
            named = re.search(only, fault.name) or only == fault.file
            if only == area or (only not in AREAS and named):
                found.append((area, fault))
    return found


def check(faults: Sequence[tuple[str, Fault]]) -> None:
    """Every old text stands in its file exactly once, and differs from the new one."""
    wrong = []
    for _, fault in faults:
        times = (ROOT / fault.file).read_text().count(fault.old)
        if times != 1 or fault.old == fault.new:
            wrong.append(f"{fault.name}: {fault.file} holds {fault.old!r} {times} times, not once")
    if wrong:
        sys.exit("\n".join(wrong))


def copy_tree(to: pathlib.Path) -> None:
    """The tree as it stands, importable in front of whatever is installed."""
    skip = shutil.ignore_patterns("__pycache__", "goldens")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=skip)
        else:
            shutil.copy(source, to / name)
    (to / "tests/parity/goldens").symlink_to(ROOT / "tests/parity/goldens")
    for name in ("tasks", "gin"):  # as setup.py maps them
        (to / "ilm_jax" / name).symlink_to(to / name)


def run_tests(tree: pathlib.Path, words: str) -> tuple[int, str]:
    """(pytest's exit code, its output), in a copy of the tree."""
    cache = tempfile.gettempdir() + "/planted_faults_compiled"  # programs are the same but for one
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *shlex.split(words)],
            cwd=tree,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        return 124, str(error)
    return done.returncode, done.stdout


def files_of(words: str) -> list[pathlib.Path]:
    """The test files that pytest's words name."""
    return [ROOT / word.split("::")[0] for word in shlex.split(words) if word.endswith(".py")]


def key_of(what: object, paths: Iterable[pathlib.Path]) -> str:
    """Changes with what is asked and with what the files hold."""
    digest = hashlib.sha256(repr(what).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of_fault(fault: Fault) -> str:
    """Changes with the slip, the file it is planted in, and its tests."""
    return key_of(dataclasses.astuple(fault), (ROOT / fault.file, *files_of(fault.tests)))


def key_of_tests(words: str) -> str:
    """Changes with the tests and the whole library."""
    return key_of(words, (*sorted((ROOT / "ilm_jax").rglob("*.py")), *files_of(words)))


class Planter:
    """Copies of the tree in which slips are planted; one slip stands in each at a time."""

    def __init__(
        self, folder: pathlib.Path, copies: int, known: "Results", keys: Mapping[str, str]
    ) -> None:
        """Makes the copies; `keys` are those of the tests (`key_of_tests`)."""
        self._trees: queue.Queue[pathlib.Path] = queue.Queue()
        self._known, self._keys = known, keys
        for number in range(copies):
            copy_tree(folder / str(number))
            self._trees.put(folder / str(number))

    def plant(self, area: str, fault: Fault) -> Outcome:
        """Plants a slip, runs its tests, and takes it out again."""
        tree, start = self._trees.get(), time.monotonic()
        try:
            sound = self._keys[fault.tests]
            if sound not in self._known:
                code, output = run_tests(tree, fault.tests)
                if code:
                    return Outcome(area, fault.name, BROKEN, 0.0, f"without it: {_last(output)}")
                took = time.monotonic() - start
                self._known.add(sound, Outcome("", "", SOUND, took, fault.tests))
            start = time.monotonic()
            path = tree / fault.file
            before = path.read_text()
            path.write_text(before.replace(fault.old, fault.new))
            try:
                code, output = run_tests(tree, fault.tests)
            finally:
                path.write_text(before)
        finally:
            self._trees.put(tree)
        verdict = {0: SURVIVED, 1: CAUGHT}.get(code, BROKEN)
        failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+::\S+)", output, re.MULTILINE)
        by = failed[1] if failed and verdict == CAUGHT else ""
        by = _last(output) if verdict == BROKEN else by
        return Outcome(area, fault.name, verdict, time.monotonic() - start, by)


class Results:
    """Outcomes by key, kept in a file as they come."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads what the file holds."""
        self._path, self._found = path, {}
        if path.exists():
            for line in map(json.loads, path.read_text().splitlines()):
                key = line.pop("key")
                self._found[key] = Outcome(**line)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Outcome:
        return self._found[key]

    def add(self, key: str, outcome: Outcome) -> None:
        """Keeps an outcome; one that is broken is tried again."""
        if outcome.verdict != BROKEN:
            self._found[key] = outcome
            with self._path.open("a") as stream:
                stream.write(json.dumps({"key": key, **dataclasses.asdict(outcome)}) + "\n")


def _last(output: str) -> str:
    return (output.strip().splitlines() or ["no output"])[-1][:100]


def show(outcomes: Sequence[Outcome]) -> None:
    """The table, and how many of each kind there are."""
    names = max((len(one.name) for one in outcomes), default=0)
    for one in outcomes:
        print(
            f"{one.area:<10}  {one.name:<{names}}  {one.verdict:<8}  {one.seconds:5.0f} s  {one.by}"
        )
    counts = {v: sum(one.verdict == v for one in outcomes) for v in (CAUGHT, SURVIVED, BROKEN)}
    print(f"\n{len(outcomes)} slips: " + ", ".join(f"{n} {v}" for v, n in counts.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="an area, a file, or an expression of names")
    parser.add_argument("--jobs", type=int, default=1, help="slips planted side by side")
    parser.add_argument("--minutes", type=float, default=1e9, help="plant no more after so many")
    parser.add_argument("--list", action="store_true", help="print the slips alone")
    default = pathlib.Path(tempfile.gettempdir()) / "planted_faults.jsonl"
    parser.add_argument("--results", type=pathlib.Path, default=default, help="file of results")
    given = parser.parse_args(argv)
    faults = chosen(given.only)
    check(faults)
    if given.list:
        print("\n".join(f"{area:<10}  {fault.file:<40}  {fault.name}" for area, fault in faults))
        return 0
    known = Results(given.results)
    keys = {fault: key_of_fault(fault) for _, fault in faults}
    left = [(area, fault) for area, fault in faults if keys[fault] not in known]
    sound = {fault.tests: key_of_tests(fault.tests) for _, fault in left}
    end = time.monotonic() + 60 * given.minutes
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        planter = Planter(pathlib.Path(folder), max(1, min(given.jobs, len(left))), known, sound)

        def one(pair: tuple[str, Fault]) -> Outcome | None:
            if time.monotonic() > end:
                return None
            outcome = planter.plant(*pair)
            print(f"{outcome.verdict:<8}  {outcome.area}: {outcome.name}", flush=True)
            known.add(keys[pair[1]], outcome)
            return outcome

        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            broken = [o for o in pool.map(one, left) if o is not None and o.verdict == BROKEN]
    outcomes = [known[key] for key in keys.values() if key in known] + broken
    print()
    show(outcomes)
    return int(any(one.verdict != CAUGHT for one in outcomes) or len(outcomes) < len(faults))


if __name__ == "__main__":
    sys.exit(main())
