"""Mixtures by name: which tasks belong together, and at what rates.

A recipe names one ("openp5_random", see `task_families.mixtures`), or gives {task: rate} itself;
both can be overridden by one gin binding. Over several datasets the same names stand for the tasks
of each.
"""

from collections.abc import Mapping

from ilm_jax.data.examples.task_families import mixtures
from ilm_jax.errors import UserError


def rates_of(
    given: str | Mapping[str, float | None], rates_by: str = "size"
) -> dict[str, float | None]:
    """{task: rate} of a mixture's name, a task's name, or such a mapping.

    Args:
      given: as a recipe has it.
      rates_by: "size" leaves rates that are not given to the tasks' sizes, "equal" makes them 1.

    Raises:
      UserError: for another `rates_by`.
    """
    if rates_by not in ("size", "equal"):
        raise UserError(f"rates_by={rates_by!r}: give 'size' or 'equal'")
    if isinstance(given, str):
        given = dict.fromkeys(mixtures().get(given, (given,)))
    default = 1.0 if rates_by == "equal" else None
    return {name: default if rate is None else rate for name, rate in given.items()}
