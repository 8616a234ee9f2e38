"""Many runs that differ in a few gin bindings, from one command.

    python launch/sweep.py --folder runs/rates --gin_file=tiny/stage2_mlp.gin \\
        --grid 'LEARNING_RATE=1e-3|3e-3' --grid 'SEED=0|1' --gin.CF_TABLE=cf.safetensors …
    python launch/sweep.py --folder runs/rates --sweep=sweeps/rates.gin …

Every run has a folder of its own, named after its bindings. The same command again skips what is
finished, resumes what is half done and tries again what failed; a run that fails does not stop the
others. Ends with results.csv, results.md, results.png and the best run. `--launcher` puts a command
in front of each run, such as that of a pod:

    --launcher 'python launch/tpu_pod.py --name=sweep-{number} --zone=… --'
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

from ilm_jax.cli.words import split_bindings
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, expanded, trouble
from ilm_jax.locks import one_writer
from ilm_jax.runs import gin_config, sweep_results
from ilm_jax.runs.sweeps import Bindings, Sweep, parse_value
from ilm_jax.training import finished

sys.path.append(str(pathlib.Path(__file__).parent))  # where this is imported instead of run
from sweep_runner import Runner, train_words  # noqa: E402


def check_configs(
    folder: str, sweep: Sweep, runs: Mapping[str, Bindings], search: Sequence[str], *, here: bool
) -> dict[str, str]:
    """Builds every run's configuration, so that nothing starts if one of them cannot.

    Args:
      folder, sweep, runs, search: of the sweep.
      here: whether runs are made on this machine, so that their inputs can be looked at.

    Returns:
      {run: "absent", "begun" or "finished"}.

    Raises:
      UserError: for a binding that is wrong or that nothing reads, if two runs have the same
        operative configuration, and if the folder holds runs of another sweep.
    """
    from ilm_jax.runs.run import Run

    seen: dict[str, str] = {}
    states: dict[str, str] = {}
    for name, bindings in runs.items():
        words = train_words(sweep, bindings, "(same for all)")
        named, rest = split_bindings(words[1:])
        recipes = [word.removeprefix("--gin_file=") for word in rest]
        run = gin_config.build(Run, recipes, named, search)
        text = gin_config.operative_config()
        if text in seen:
            raise UserError(
                f"the runs {seen[text]} and {name} have the same configuration: what differs "
                "between them changes nothing"
            )
        seen[text] = name
        # Looking at the inputs opens the data, which takes seconds.
        inputs = run.inputs() if here and finished.read(f"{folder}/{name}") else None
        recipe = gin_config.bindings_of(text)
        found = finished.standing(f"{folder}/{name}", recipe, inputs, gin_config.bindings_of)
        if found.state == "other":
            raise UserError(
                f"{folder}/{name} was made by another sweep: {found.why}. Its results are not "
                "those of this one: name another --folder, or delete that run's folder"
            )
        states[name] = found.state
    return states


def run_sweep(
    folder: str, sweep: Sweep, *, jobs: int, launcher: str = "", search: Sequence[str] = ()
) -> int:
    """Runs all, then collects; returns 0, 1 if a run failed, 143 if it was stopped."""
    runs = sweep.expand()
    states = check_configs(folder, sweep, runs, search, here=not launcher)
    with one_writer(folder, "launch/sweep.py", on_sigterm=False):
        return _run_all(folder, sweep, runs, jobs, Runner(folder, sweep, launcher, search, states))


def _run_all(
    folder: str, sweep: Sweep, runs: Mapping[str, Bindings], jobs: int, runner: Runner
) -> int:
    if "://" not in folder:
        record = {"sweep": dataclasses.asdict(sweep), "runs": runs}
        with atomic_write(pathlib.Path(folder) / "sweep.json") as stream:
            json.dump(record, stream, indent=1, default=str)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.stop)
    print(f"sweep: {len(runs)} runs, {jobs} at a time, in {folder}", flush=True)
    states = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {
            pool.submit(runner.run, number, name, bindings): name
            for number, (name, bindings) in enumerate(runs.items())
        }
        for future in concurrent.futures.as_completed(waiting):
            name = waiting[future]
            states[name] = future.result()
            print(f"sweep: [{len(states)}/{len(runs)}] {name}: {states[name]}", flush=True)
    sweep_results.collect(folder, sweep, runs, states)
    if runner.stopped:
        print("sweep: stopped; the same command goes on", file=sys.stderr)
        return 143
    return int(any(state == "failed" for state in states.values()))


def _named(words: Sequence[str], what: str) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, values = word.partition("=")
        if not equals or not name or not values:
            raise UserError(f"--{what} {word}: write it as NAME=VALUE|VALUE")
        found[name] = values
    return found


def _read(flags: argparse.Namespace, fixed: Sequence[str], search: Sequence[str]) -> Sweep:
    """The sweep of the recipe, if one is named, with what the command line adds."""
    sweep = gin_config.build(Sweep, [flags.sweep], [], search) if flags.sweep else Sweep()
    bound = dict(binding.split("=", 1) for binding in fixed)
    grid = {
        n: [parse_value(v) for v in values.split("|")]
        for n, values in _named(flags.grid, "grid").items()
    }
    drawn = {
        n: [parse_value(v) for v in how.split("|")] if "|" in how else how
        for n, how in _named(flags.random, "random").items()
    }
    runs = [
        {n: parse_value(v) for n, v in _named(shlex.split(one), "run").items()} for one in flags.run
    ]
    return dataclasses.replace(
        sweep,
        gin_file=(*sweep.gin_file, *flags.gin_file),
        fixed={**sweep.fixed, **{n: parse_value(v) for n, v in bound.items()}},
        grid={**sweep.grid, **grid},
        runs=[*sweep.runs, *runs],
        random={**sweep.random, **drawn},
        draws=flags.draws or sweep.draws,
        metric=flags.metric or sweep.metric,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweep; 0 if all runs are finished, 1 if one failed, 2 for wrong input."""
    bindings, rest = split_bindings(list(sys.argv[1:] if argv is None else argv))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="of all runs; may be gs://… with pods")
    parser.add_argument("--sweep", help="a recipe of a sweep, such as sweeps/rates.gin")
    parser.add_argument("--gin_file", action="append", default=[], help="recipe of every run")
    parser.add_argument("--gin_search_paths", default="")
    parser.add_argument("--grid", action="append", default=[], help="NAME=VALUE|VALUE")
    parser.add_argument("--run", action="append", default=[], help="'NAME=VALUE NAME=VALUE'")
    parser.add_argument("--random", action="append", default=[], help="NAME=log(1e-4,1e-2)")
    parser.add_argument("--draws", type=int, default=0, help="of the random bindings")
    parser.add_argument("--metric", help="of the validation (default: loss)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--launcher", default="", help="command in front of each run")
    flags = parser.parse_args(rest)
    search = [path for path in flags.gin_search_paths.split(",") if path]
    try:
        sweep = _read(flags, bindings, search)
        return run_sweep(
            expanded(flags.folder),
            sweep,
            jobs=max(1, flags.jobs),
            launcher=flags.launcher,
            search=search,
        )
    except (UserError, OSError) as error:
        print(f"sweep: error: {trouble(error) or error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
