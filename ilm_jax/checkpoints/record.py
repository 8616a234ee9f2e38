"""The record of a run's inputs, in every checkpoint and in MODEL_DIR/made_from.json.

Whoever goes on with a run, or uses what it trained, compares what it is given with this record:
shapes alone would let another embedding table, tokenizer, mixture or learning rate through in
silence. Names in it are dotted paths, such as "optimizer.learning_rate".
"""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ilm_jax import __version__
from ilm_jax.errors import UserError

FILE = "made_from.json"
Record = Mapping[str, Any]
Changes = dict[str, tuple[object, object]]

# What may change when a run is gone on with. How a model is computed changes its rounding only;
# another validation makes its earlier figures, and with them the best checkpoint, less comparable.
MAY_CHANGE = (
    r"steps",
    r"batch\..*",
    r"code",
    r"optimizer\.decay_steps",
    r"init\.\d+\.path",
    r"objective(\..*)?\.(dtype|remat|scan_layers|attention_backend)",
    r"validation(\..*)?",
)
# What must be the same where a trained run is asked, measured or written out; and what may differ
# but shows in figures.
USED = (r"data(\..*)?", r"table", r"tokenizer", r"new_tokens(\..*)?", r"prompts\.(format|template)")
SHOWN = (r"train\..*\.settings\..*", r"prompts\.system")
# What changes with a catalogue that others have joined.
GROWN = (r"data(\..*)?", r"table", r"table_rows(\..*)?")
# What records that say nothing of a thing were made with.
_BEFORE: Record = {"prompts": {"format": "plain"}}
# The binding that a person would look at, by the first part of a name.
_BINDINGS = {
    "data": "DATASET, DATA_DIR, SplitConfig",
    "table": "CF_TABLE",
    "table_rows": "CF_TABLE",
    "tokenizer": "TOKENIZER",
    "new_tokens": "TaskSettings.new_tokens, item_codes",
    "prompts": "PROMPT_FORMAT or TaskSettings.prompt_format, SYSTEM_TEXT",
    "train": "MIXTURE_OR_TASK_NAME, DatasetConfig, TaskSettings",
    "schedule": "SCHEDULE",
    "frozen": "LM_FROM",
    "init": "TrainerConfig.init",
    "trains": "TrainerConfig.trainable",
    "seed": "SEED",
    "steps": "TRAIN_STEPS",
}
_ABSENT = "nothing"


def plain(value: object) -> Any:
    """A value as its JSON gives it back, so that what is here compares with what was stored."""
    return json.loads(json.dumps(value, default=str))


@functools.cache
def code_version() -> str:
    """The package's version and a digest of its sources, as they stand on this machine."""
    digest = hashlib.sha256()
    root = pathlib.Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def differences(found: Record, here: Record) -> Changes:
    """{dotted name: (there, here)} of all that two records do not agree on."""
    before = {name: value for name, value in _BEFORE.items() if name in here}
    return dict(_differing({**before, **found}, plain(here)))


def chosen(changes: Changes, patterns: Sequence[str]) -> Changes:
    """Those whose names match one of the patterns as a whole."""
    return {n: both for n, both in changes.items() if any(re.fullmatch(p, n) for p in patterns)}


def check_resume(found: Record | None, here: Record, model_dir: str) -> list[str]:
    """Compares a run that is gone on with to its record.

    Args:
      found: the checkpoint's record; None where it has none.
      here: the record of the run as it is now.
      model_dir: for messages.

    Returns:
      Lines that say what has changed.

    Raises:
      UserError: if something has changed that may not.
    """
    if found is None:
        return [f"warning: {model_dir} does not say what it was made from: nothing was compared"]
    changes = differences(found, here)
    allowed = chosen(changes, MAY_CHANGE)
    if "code" in changes:  # an older version knew fewer names
        allowed |= {name: both for name, both in changes.items() if both[0] == _ABSENT}
    refused = {name: both for name, both in changes.items() if name not in allowed}
    if refused:
        raise UserError(
            f"{model_dir} was made from something else: {show(refused)}. Give what it was made "
            f"from ({FILE} there says it), or start a new MODEL_DIR (from its weights, if you "
            "like: TrainerConfig.init)"
        )
    code = allowed.pop("code", None)
    lines = [f"changed since {model_dir} was started: {show(allowed)}"] if allowed else []
    if code:
        lines.append(f"warning: another version of the code: {code[0]}, now {code[1]}")
    return lines


def check_use(
    found: Record | None, here: Record, model_dir: str, joined: Sequence[str] = ()
) -> list[str]:
    """Compares what a trained run is used with to what it was trained with.

    Args:
      found: the checkpoint's record; None where it has none.
      here: the record of the run as it is now.
      model_dir: for messages.
      joined: what has joined the table behind the rows that were trained with, which are all
        there (`Run.keep_trained_rows`): then the data are those and more.

    Returns:
      Lines that name the differences that change results.

    Raises:
      UserError: if vectors, tokenizer or data are not those that it was trained with.
    """
    if found is None:
        return [f"warning: {model_dir} does not say what it was made from: nothing was compared"]
    changes = {n: both for n, both in differences(found, here).items() if both[0] != _ABSENT}
    lines = []
    if joined:
        grown = chosen(changes, GROWN)
        changes = {name: both for name, both in changes.items() if name not in grown}
        lines = [f"note: joined since {model_dir} was trained, with vectors: {', '.join(joined)}"]
    refused = chosen(changes, USED)
    if refused:
        raise UserError(
            f"{model_dir} was trained with something else: {show(refused)}. Give what it was "
            f"trained with ({FILE} there says it), or train again"
        )
    shown = chosen(changes, SHOWN)
    return [*lines, *([f"warning: differs from training: {show(shown)}"] if shown else [])]


def show(changes: Changes, limit: int = 4) -> str:
    """Changes for a one-line message, each with the binding that it comes from."""
    words, named = [], set()
    for name, (old, new) in list(changes.items())[:limit]:
        binding = _BINDINGS.get(name.split(".")[0], "")
        hint = f" ({binding})" if binding and binding not in named else ""
        named.add(binding)
        words.append(f"{name}{hint} {_short(old)}, now {_short(new)}")
    more = len(changes) - limit
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def _differing(
    found: object, here: object, name: str = ""
) -> Iterator[tuple[str, tuple[object, object]]]:
    """Down to the names that both have; what one of them lacks is one difference, however deep."""
    if isinstance(found, list) and isinstance(here, list) and len(found) == len(here):
        found, here = dict(enumerate(found)), dict(enumerate(here))
    if not (isinstance(found, Mapping) and isinstance(here, Mapping)):
        if found != here:
            yield name, (found, here)
        return
    for key in {**found, **here}:
        below = f"{name}.{key}" if name else str(key)
        yield from _differing(found.get(key, _ABSENT), here.get(key, _ABSENT), below)


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "present"
    text = value if isinstance(value, str) else json.dumps(value)
    text = text[:12] if re.fullmatch(r"[0-9a-f]{16,}", text) else text
    return text if len(text) <= 60 else f"{text[:60]}…"
