"""ilm_jax: training item-language models with JAX and Flax, TPU first.

The names below are imported when they are first used, so that `import ilm_jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ilm_jax.checkpoints.published.families import register_language_model_family
    from ilm_jax.data.examples.task_families import register_task_family
    from ilm_jax.data.sources.prepare import load_catalogue
    from ilm_jax.data.sources.registry import register_dataset
    from ilm_jax.decoding.generator import Generator
    from ilm_jax.metrics.registry import Metric, register_metric
    from ilm_jax.models.ilm import ItemLanguageModel
    from ilm_jax.objectives.alignment_kinds import register_alignment_kind
    from ilm_jax.runs.converting import convert
    from ilm_jax.runs.tables import fit_cf
    from ilm_jax.runs.training import train
    from ilm_jax.serving.opened import open_run
    from ilm_jax.training.writers import register_metric_writer

_FACE = {
    "Generator": "decoding.generator",
    "ItemLanguageModel": "models.ilm",
    "Metric": "metrics.registry",
    "convert": "runs.converting",
    "fit_cf": "runs.tables",
    "load_catalogue": "data.sources.prepare",
    "open_run": "serving.opened",
    "register_alignment_kind": "objectives.alignment_kinds",
    "register_dataset": "data.sources.registry",
    "register_language_model_family": "checkpoints.published.families",
    "register_metric": "metrics.registry",
    "register_metric_writer": "training.writers",
    "register_task_family": "data.examples.task_families",
    "train": "runs.training",
}
__all__ = [
    "Generator",
    "ItemLanguageModel",
    "Metric",
    "convert",
    "fit_cf",
    "load_catalogue",
    "open_run",
    "register_alignment_kind",
    "register_dataset",
    "register_language_model_family",
    "register_metric",
    "register_metric_writer",
    "register_task_family",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'ilm_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ilm_jax.{_FACE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
