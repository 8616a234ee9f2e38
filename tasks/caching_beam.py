"""Caching on Apache Beam: a runner's workers write the parts that are missing (extra `beam`).

Parts are pure functions of a plan (caching.py), each is written under another name and renamed when
it is whole, so a bundle that a runner tries again changes nothing: nothing is lost or doubled when
workers die. What was written stays when a job fails, and the next one does the rest.

Workers find catalogue and tokenizer in CACHE_DIR and write their parts there, if they share it with
this machine. If not, a folder that both reach stands between, such as gs://BUCKET/x: catalogue and
tokenizer are copied into it, and parts out of it.
"""

import contextlib
import logging
import multiprocessing
import os
import pathlib
import re
import shlex
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ilm_jax import user_modules
from ilm_jax.data.streams import task_cache
from ilm_jax.errors import UserError
from ilm_jax.tasks.caching import Caching, Part, Plan, write_part

try:
    import apache_beam as beam
    from apache_beam.metrics import Metrics, MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineState

    from ilm_jax.tasks import beam_files
except ImportError as error:
    raise UserError(
        f"--beam_runner needs Apache Beam ({error}): pip install 'ilm_jax[beam]'"
    ) from error

NAMESPACE = "ilm_cache"
# Beam's DirectRunner first looks for a newer runner on the network; this is the one it falls back
# to, which obeys --direct_num_workers and --direct_running_mode.
LOCAL = {"DirectRunner": "FnApiRunner"}
SECONDS = 2.0
LOOKS = 5  # at which a worker is missing before it counts as killed: at the end they go first


class Work(NamedTuple):
    """What a job does: parts of a plan, over the folder `between` if it is not ""."""

    plan: Plan
    parts: tuple[Part, ...]
    runner: str
    options: tuple[str, ...]
    between: str = ""


class WriteParts(beam.DoFn):
    """Writes parts; counts parts, examples and bytes. `present`: a folder to be named in."""

    def __init__(self, plan: Plan, between: str, present: str = "") -> None:
        self._plan, self._between, self._present = plan, between, present
        self._count = {
            name: Metrics.counter(NAMESPACE, name) for name in ("parts", "examples", "bytes")
        }

    def setup(self) -> None:
        """Says that this process is at work."""
        if self._present:
            pathlib.Path(self._present, str(os.getpid())).touch()

    def process(self, element: tuple[Any, ...]) -> Iterator[int]:
        """Writes one part and yields its number of examples."""
        part, plan = Part(*element), self._plan
        if self._between:
            plan = beam_files.local_plan(plan, self._between)
        examples = write_part(plan, part)
        if self._between:
            beam_files.upload_part(plan, part, self._between)
        size = beam_files.files_of(plan, part)[0].stat().st_size
        for name, count in (("parts", 1), ("examples", examples), ("bytes", size)):
            self._count[name].inc(count)
        yield examples


def run(caching: Caching, plan: Plan, runner: str, options: str, between: str = "") -> None:
    """Has a runner's workers write what is missing.

    Args:
      caching: the plan's caches here.
      plan: what is cached.
      runner: name of a Beam runner.
      options: its options, as on a command line.
      between: folder that this machine and the workers share; "": CACHE_DIR.

    Raises:
      UserError: if Beam, the runner or an option is unknown; for what a worker found wrong; if the
        job fails. Parts that are written stay.
    """
    jobs = plan.jobs()
    if between:
        beam_files.fetch(caching, plan, caching.missing(jobs), between)
    parts = caching.missing(jobs)
    if not parts:
        return
    if between:
        beam_files.share_inputs(caching, plan, between)
    work = Work(plan, tuple(parts), runner, tuple(shlex.split(options)), between)
    _options(work)
    total = sum(part.stop - part.start for part in parts)
    shown = task_cache.Progress(pathlib.Path(plan.dataset) / runner, total)
    counts = _run_local(work, caching, shown) if runner in LOCAL else _submit(work, shown)
    if between:
        beam_files.fetch(caching, plan, parts, between)
    lost = len(caching.missing(jobs))
    if lost:
        raise UserError(
            f"{runner} ended and {lost} of {len(parts)} parts are not in {caching.cache_dir}: "
            "do its workers see this folder? Else name one that they share with --beam_dir"
        )
    shown.done(total)
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    print(f"{runner}: {told}", flush=True)


def _submit(
    work: Work, shown: task_cache.Progress | None = None, present: str = ""
) -> dict[str, int]:
    """Runs a job to its end; what its workers counted."""
    os.environ.update(user_modules.environment())
    with _named_errors(work.runner):
        runner = LOCAL.get(work.runner, work.runner)
        pipeline = beam.Pipeline(runner=runner, options=_options(work))
        (
            pipeline
            | "parts" >> beam.Create([tuple(part) for part in work.parts])
            | "spread" >> beam.Reshuffle()
            | "write" >> beam.ParDo(WriteParts(work.plan, work.between, present))
        )
        result = pipeline.run()
        _wait(result, shown)
        return _counts(result)


def _run_local(work: Work, caching: Caching, shown: task_cache.Progress) -> dict[str, int]:
    """A job of Beam's local runner, in a process of its own.

    That runner waits forever for a worker that was killed, so somebody else has to notice.
    """
    context = multiprocessing.get_context("spawn")
    jobs = work.plan.jobs()
    folders = {(p.job, p.split): caching.path(jobs[p.job], p.split) for p in work.parts}
    with tempfile.TemporaryDirectory(prefix="ilm-beam-") as present:
        told, telling = context.Pipe(duplex=False)
        process = context.Process(target=_local_job, args=(telling, work, present))
        process.start()
        telling.close()
        missed = 0
        try:
            while not told.poll(SECONDS):
                there = (p for p in work.parts if task_cache.has_part(folders[p[:2]], p.number))
                shown.show(sum(part.stop - part.start for part in there))
                missed = missed + 1 if len(_alive(present)) < len(os.listdir(present)) else 0
                if missed >= LOOKS:
                    raise EOFError
            answer = told.recv()
        except EOFError:
            raise UserError(
                f"a worker of the {work.runner} was killed (memory?); what was written stays: run "
                "this again"
            ) from None
        finally:
            # After a job's end these are gone, or going.
            for pid in _alive(present):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.join()
    if isinstance(answer, str):
        raise UserError(answer)
    return answer


def _local_job(telling: Connection, work: Work, present: str) -> None:
    """The process: tells what was counted, or what was wrong."""
    try:
        user_modules.load(work.plan.modules)
        telling.send(_submit(work, None, present))
    except UserError as error:
        telling.send(str(error))


def _alive(present: str) -> list[int]:
    """Processes that said that they are at work and are there."""
    found = []
    for name in os.listdir(present):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(name), 0)
            found.append(int(name))
    return found


def _options(work: Work) -> Any:
    """Beam's options; UserError for one that it does not know, which it would pass over."""
    words = list(work.options)
    for word in words:
        if word.startswith("--runner"):
            raise UserError(f"--beam_options: {word}: the runner is --beam_runner")
    try:
        found = PipelineOptions(words)
        known = found.get_all_options()
    except SystemExit as stop:  # argparse's way to refuse
        raise UserError(f"--beam_options={shlex.join(words)!r}: Beam cannot read it") from stop
    names = [match[1] for word in words if (match := re.match(r"--(?:no_)?(\w+)", word))]
    unknown = [name for name in names if name not in known and f"no_{name}" not in known]
    # Clusters have options of their own, which Beam passes on.
    if unknown and work.runner in LOCAL:
        raise UserError(f"--beam_options: Beam has no option --{unknown[0]} of the {work.runner}")
    return found


def _wait(result: Any, shown: task_cache.Progress | None) -> None:
    """Waits for the end of a job, showing its counters; local runners are there already."""
    while not PipelineState.is_terminal(result.state):
        if shown is not None:
            shown.show(_counts(result).get("examples", 0))
        time.sleep(SECONDS)
    state = result.wait_until_finish()
    if state not in (PipelineState.DONE, None):
        raise UserError(f"the job ended as {state}; what it had written stays, so run this again")


def _counts(result: Any) -> dict[str, int]:
    """The counters of the workers, committed or as far as they are known."""
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    return {
        entry.key.metric.name: int(entry.committed or entry.attempted or 0)
        for entry in found["counters"]
    }


@contextlib.contextmanager
def _named_errors(runner: str) -> Iterator[None]:
    """What a worker or the runner says, in one line."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = re.findall(r"ilm_jax\.errors\.UserError: (.*)", str(error))
        lines = str(error).strip().splitlines() or [type(error).__name__]
        what = told[-1] if told else f"{runner} failed: {lines[-1][:300]}"
        raise UserError(f"{what}; what was written stays: run this again") from error
