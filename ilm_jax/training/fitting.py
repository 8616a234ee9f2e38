"""Memory that a compiled step needs: said before it runs, for nothing can be said after.

A device that lacks memory raises an error. A host that lacks it ends the process without a word, so
what a step on CPU needs is compared with what there is as soon as it is compiled.
"""

from collections.abc import Mapping

import jax

from ilm_jax.objectives.objective import Objective
from ilm_jax.training import host_memory
from ilm_jax.training.pacing import IN_FLIGHT

ADVICE = (
    "lower BATCH_SIZE or TASK_FEATURE_LENGTHS, set remat = 'full' in the model's configuration (a "
    "step takes a third longer), or, in stages 0 and 2, TrainerConfig.microbatches"
)
# Steps with temporaries from here on take so long that the host need not run ahead of them.
LARGE = 256 * 2**20
CUT = {
    "history": "lost the oldest of their history",
    "targets": "the end of their answer",
    "text": "the end of their text",
}
# Share of padding from which on it is mentioned.
MOST_PADDING = 0.25


def temporaries(program: jax.stages.Compiled) -> int:
    """Bytes that a compiled program takes while it runs; 0 where its compiler does not say."""
    found = program.memory_analysis()
    return 0 if found is None else found.temp_size_in_bytes


def steps_in_flight(needed: int) -> int:
    """Number of steps that may be under way; each holds its temporaries from its dispatch on."""
    return 1 if _on_host() and needed > LARGE else IN_FLIGHT


def shortage(needed: int) -> str | None:
    """A line for people where steps that need so many bytes will not fit; None where they will."""
    if not _on_host():
        return None
    held, most = host_memory.held(), host_memory.available()
    if held + needed <= most:
        return None
    return (
        f"warning: a step needs {needed / 2**30:.1f} GiB beside the {held / 2**30:.1f} that are "
        f"held, and there are {most / 2**30:.1f}: the system may end this process without a word; "
        f"{ADVICE}"
    )


def padding_note(shares: list[tuple[str, float]]) -> str | None:
    """A line for people where rows of prompts are mostly padding; else None.

    Args:
      shares: (kind of batch, share of its positions that are not padding) of some steps.
    """
    real = [share for _, share in shares]
    padding = 1 - sum(real) / len(real)
    if padding <= MOST_PADDING:
        return None
    return (
        f"note: {padding:.0%} of the positions are padding: shorter TASK_FEATURE_LENGTHS, or "
        "examples that share rows (PACK), save that share of the time"
    )


def cut_note(cut: Mapping[str, int]) -> str | None:
    """A line for people where examples were cut to fit their rows; else None.

    Args:
      cut: how many, by what of them was cut (`Feed.counts`).
    """
    parts = [f"{count:,} {CUT.get(what, what)}" for what, count in sorted(cut.items()) if count]
    if not parts:
        return None
    return (
        f"note: to fit their rows, examples were cut: {' and '.join(parts)} (metrics.jsonl counts "
        "on); longer TASK_FEATURE_LENGTHS keep them whole"
    )


def type_note(objective: Objective) -> str | None:
    """A line for people where a type that saves time elsewhere costs it here; else None."""
    if not _on_host():
        return None
    for name, config in objective.configs.items():
        if getattr(config, "dtype", None) == "bfloat16":
            return (
                f"note: {name} computes in bfloat16, which saves no time on CPUs: steps are no "
                "faster than in float32 (bind dtype = 'float32'); numbers are those of a TPU"
            )
    return None


def _on_host() -> bool:
    return jax.default_backend() == "cpu"
