"""The language model of a folder, whole: a published one, a run's with what it was frozen from."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax.checkpoints.checkpoints import shorten
from ilm_jax.checkpoints.fingerprints import checksum, digest
from ilm_jax.checkpoints.identity import identity
from ilm_jax.checkpoints.layout import disk_names, is_stacked
from ilm_jax.checkpoints.published.configs import CONFIGS, rebuild
from ilm_jax.checkpoints.published.entries import Entry, with_int8, with_lora_merged
from ilm_jax.checkpoints.published.sources import Opened, open_source
from ilm_jax.errors import UserError
from ilm_jax.models.language_model import LanguageModelConfig
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.freezing import matches
from ilm_jax.sharding.state import Variable, describe_variables


def open_language_model(path: str, step: int | str = "best") -> Opened:
    """The language model of a folder: of a run, with what it was frozen from and merged adapters.

    Raises:
      UserError: if the folder holds none, a tensor is missing or would be left out, or the weights
        that a run froze are no longer those that it names.
    """
    opened = open_source(path, "lm", step)
    configs = dict(opened.configs)
    if "lm" not in configs or configs["lm"][0] not in CONFIGS:
        kind = configs["lm"][0] if "lm" in configs else "a checkpoint that names no model"
        raise UserError(f"{opened.where} is no language model: it holds {kind}")
    kind, fields = configs["lm"]
    if opened.lacking or opened.left_over:
        lacking = [f"{entry} ({tensor})" for entry, tensor in opened.lacking.items()]
        raise UserError(
            f"{opened.where} does not fit its config.json: restored {len(opened.entries)}; fresh "
            f"{len(lacking)} {lacking[:4]}; unused {len(opened.left_over)} {opened.left_over[:4]}; "
            f"{_remedy(opened, fields)}"
        )
    frozen = _frozen(opened)
    notes = [*opened.notes, *_check_frozen(opened, frozen)]
    entries = {n: e for n, e in (frozen | opened.entries).items() if n.startswith("lm/")}
    merged = with_lora_merged(entries, float(fields.get("lora_alpha", 16.0)), opened.where)
    plain = {**fields, "lora_rank": 0, "quantized": False}
    _check_entries(opened, merged, plain)
    return dataclasses.replace(opened, entries=merged, configs={"lm": (kind, plain)}, notes=notes)


def _remedy(opened: Opened, fields: Mapping[str, Any]) -> str:
    heads = {"lm/head/embedding"}
    if set(opened.lacking) == heads and not opened.left_over:
        return (
            "config.json gives the output layer a table of its own: download it too, or say "
            "tie_word_embeddings=true there if the model's card does"
        )
    return "is it the whole download of one model?"


def _frozen(opened: Opened) -> dict[str, Entry]:
    """What a run's checkpoint names and does not hold; the first source that has an entry wins."""
    found: dict[str, Entry] = {}
    for init in opened.meta.get("init", []):
        base = open_source(init["path"], init.get("top", "lm"), init["step"])
        for name, entry in base.entries.items():
            if name not in opened.entries and matches(name, init["parameters"]):
                found.setdefault(name, entry)
    return found


def _check_frozen(opened: Opened, frozen: Mapping[str, Entry]) -> list[str]:
    """Raises UserError if frozen weights are not those of the run; returns what cannot be said."""
    stated = opened.meta.get("frozen")
    if stated is None or "init" not in opened.meta:
        return []
    names, variables = _layout(rebuild(*opened.configs["lm"]))
    wanted = {name: variables[path].dtype for path in variables for name in names[path]}
    others = [n for n in frozen if not n.startswith("lm/")]
    held = with_int8(frozen, [name for name in wanted if name not in opened.entries])
    kept = {n: held[n] for n in wanted if n in held and n not in opened.entries}
    drawn = {name: opened.entries[name] for name in opened.drawn}
    checksums = {}
    for name, entry in {**kept, **drawn}.items():
        value = entry.read(dtype=wanted[name] if name in kept else None)
        checksums[name] = (value.shape, value.dtype, checksum(value))
    if digest(checksums) == stated or (others and _same_sources(opened)):
        return []
    if others and "made_from" not in opened.meta:
        return [
            f"{opened.where}: its frozen weights are not of the language model alone, and are not "
            "compared with those that it was trained with"
        ]
    paths = ", ".join(sorted({init["path"] for init in opened.meta["init"]})) or "no folder"
    raise UserError(
        f"the weights in {paths} are not those that {opened.where} froze: restore them, or train "
        "again"
    )


def _same_sources(opened: Opened) -> bool:
    """Whether a run's sources, of which not all tensors are read here, are what they were."""
    sources = (opened.meta.get("made_from") or {}).get("init", [])
    return bool(sources) and all(
        source["identity"] == identity(source["path"], source["step"]) for source in sources
    )


@functools.lru_cache(maxsize=16)
def _layout(config: LanguageModelConfig) -> tuple[dict[str, list[str]], dict[str, Variable]]:
    """({path: entries on disk}, {path: Variable}) of a language model by itself."""
    variables = describe_variables(LanguageModelling(config))
    return disk_names(variables), variables


def _check_entries(opened: Opened, entries: Mapping[str, Entry], plain: Mapping[str, Any]) -> None:
    """Raises UserError unless there is what the configuration asks for, in its shapes."""
    names, variables = _layout(rebuild(opened.configs["lm"][0], plain))
    wanted = {
        name: variable.shape[1:] if is_stacked(path, names) else variable.shape
        for path, variable in variables.items()
        for name in names[path]
    }
    fresh = [name for name in wanted if name not in entries]
    unused = [name for name in entries if name not in wanted]
    others = [
        f"{name}: stored {tuple(entry.shape)}, config.json says {tuple(wanted[name])}"
        for name, entry in entries.items()
        if name in wanted and tuple(entry.shape) != tuple(wanted[name])
    ]
    if fresh or unused or others:
        raise UserError(
            f"{opened.where} does not fit its config.json: restored "
            f"{len(wanted) - len(fresh) - len(others)}; {_list('fresh', fresh)}; "
            f"{_list('unused', unused)}; {_list('other shapes', others)}; is config.json of this "
            "model?"
        )


def _list(what: str, names: Sequence[str]) -> str:
    return f"{what} {len(names)} {shorten(names)}"
