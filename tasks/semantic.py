"""OpenP5's tasks with items named by semantic ids: codes of their vectors, see `item_codes`."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import NEXT_ITEM, RANKING
from ilm_jax.tasks.openp5 import GIVEN, MENTIONS, NextItem, OpenP5Spec

Shown = Literal["seen", "unseen"]


@dataclasses.dataclass(frozen=True)
class BySemanticIds:
    """Fixes how a task names items."""

    def __call__(self, settings: TaskSettings) -> Mapping[str, Any]:
        """What is fixed."""
        del settings
        return {"item_index": "semantic"}


FAMILY = TaskFamily(
    "semantic",
    tuple(
        OpenP5Spec(
            family="semantic",
            task=f"{kind}_semantic" + "_unseen" * (shown == "unseen"),
            version=1,
            make=NextItem,
            answer="items",
            settings=(*NEXT_ITEM, "prompt_file", "bare_history"),
            fixes=BySemanticIds(),
            mentions=MENTIONS[kind],
            metrics=RANKING,
            what=f"{GIVEN[kind]} (semantic ids, {shown} prompts) | id of the next item | "
            "OpenP5, TIGER",
            kind=kind,
            prompts=shown,
        )
        for kind, shown in itertools.product(GIVEN, get_args(Shown))
    ),
    mixtures={"openp5_semantic": tuple(f"{kind}_semantic" for kind in GIVEN)},
)
