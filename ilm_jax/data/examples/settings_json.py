"""Task settings as JSON: shared ones by their names, a family's own under the family's name.

{"history": 20, "split": {"held_out_items": 0.1}, "knowledge": {"candidates": 50}}
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ilm_jax.data.examples.task_families import TASK_FAMILIES, family_of
from ilm_jax.data.examples.task_settings import TaskSettings, filled
from ilm_jax.errors import UserError


def settings_from(values: Mapping[str, Any]) -> TaskSettings:
    """Settings from plain values, such as parsed JSON.

    Raises:
      UserError: for an unknown name or a value of another type.
    """
    owned = {name: value for name, value in values.items() if name in TASK_FAMILIES}
    shared = {name: value for name, value in values.items() if name not in owned}
    also = f"; of families: {', '.join(TASK_FAMILIES)}"
    settings = filled(TaskSettings(), shared, "task setting", also)
    for family, value in owned.items():
        if not isinstance(value, Mapping):
            raise UserError(f"task setting {family}={value!r}: give an object of its settings")
        own = TASK_FAMILIES[family].settings()
        settings = settings.with_family(filled(own, value, f"setting of {family}"))
    return settings


def settings_json(settings: TaskSettings) -> str:
    """JSON of all settings, as `--settings` takes it.

    Raises:
      UserError: for settings of a family that is not registered.
    """
    plain = dataclasses.asdict(settings.replace(families=()))
    del plain["families"]
    for own in settings.families:
        plain[family_of(type(own))] = dataclasses.asdict(own)
    return json.dumps(plain, sort_keys=True)
