"""MODEL_DIR/last_run.json: that a run is finished, and of which recipe and inputs.

Finished is a record that matches what is asked for, never the presence of a file: a sweep or a
study skips a run only if the same bindings and the same inputs made it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from ilm_jax import __version__
from ilm_jax.checkpoints.record import show
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, folder_path, is_there

FILE = "last_run.json"
# Bindings that say where things are put, and where inputs lie: those are compared by content.
PLACES = frozenset({"MODEL_DIR", "CACHE_DIR", "TOPOLOGY"})
INPUTS = frozenset({"DATA_DIR", "CF_TABLE", "LM_FROM", "QFORMER_FROM", "TOKENIZER"})
Bindings = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Standing:
    """State of a run's folder.

    Attributes:
      state: "absent", "begun", "finished", or "other": made by another recipe or from other inputs.
      why: what differs, where it is "other".
    """

    state: str
    why: str = ""


def write(
    model_dir: str,
    *,
    seconds: float,
    step: int,
    validation: Mapping[str, float],
    recipe: Bindings,
    inputs: Mapping[str, str],
) -> None:
    """Says that the run is finished.

    Args:
      model_dir: the run's folder.
      seconds: of the process that finished it.
      step: the last.
      validation: metrics of the validation at the best checkpoint that is kept, else of the last.
      recipe: the operative configuration.
      inputs: {what: identity} of all that it was made from (`Run.inputs`).
    """
    facts = {
        "seconds": seconds,
        "step": step,
        "validation": dict(validation),
        "version": __version__,
        "inputs": dict(inputs),
        "recipe": dict(recipe),
    }
    with atomic_write(folder_path(model_dir) / FILE) as stream:
        json.dump(facts, stream, indent=1)


def read(model_dir: str) -> dict[str, Any] | None:
    """The record that `write` wrote; None if the run is not finished.

    Raises:
      UserError: if the file cannot be read.
    """
    path = folder_path(model_dir) / FILE
    if not is_there(path):
        return None
    try:
        found = json.loads(path.read_text())
        return {"validation": {}, "seconds": 0.0, **found}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error


def standing(
    model_dir: str,
    recipe: Bindings,
    inputs: Mapping[str, str] | None,
    parse: Callable[[str], Bindings],
) -> Standing:
    """Compares what lies in a folder with what is asked for.

    Args:
      model_dir: the folder.
      recipe: the operative configuration that is asked for.
      inputs: of the run that is asked for; None where they cannot be told here.
      parse: reads the text of config.gin.
    """
    found, wanted = read(model_dir), dict(recipe)
    config = folder_path(model_dir) / "config.gin"
    if found is None:
        if not is_there(config):
            return Standing("absent")
        # Going on, the run itself compares its inputs.
        changed = _changed(parse(config.read_text()), wanted, inputs=False)
        return Standing("other", changed) if changed else Standing("begun")
    if "recipe" not in found:
        return Standing("other", "it does not say what made it")
    changed = _changed(found["recipe"], wanted, inputs=inputs is None)
    changed = changed or _changed(found["inputs"], inputs or found["inputs"])
    if not changed and found["version"] != __version__:
        changed = f"version {found['version']}, now {__version__}"
    return Standing("other", changed) if changed else Standing("finished")


def _changed(found: Mapping[str, Any], wanted: Mapping[str, Any], *, inputs: bool = True) -> str:
    """What differs, in words; without `inputs` it does not matter where they lie."""
    names = [
        name
        for name in {**found, **wanted}
        if found.get(name) != wanted.get(name)
        and name not in PLACES
        and (inputs or name not in INPUTS)
    ]
    # A macro says it in the words of whoever asks; what reads it follows.
    names.sort(key=lambda name: "." in name)
    return show({n: (found.get(n, "nothing"), wanted.get(n, "nothing")) for n in names}, 3)
