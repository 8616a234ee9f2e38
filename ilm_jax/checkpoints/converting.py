"""From any folder of parameters to ours, and back to Hugging Face's form; a tensor at a time."""

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from ilm_jax import __version__
from ilm_jax.checkpoints.fingerprints import checksum, digest
from ilm_jax.checkpoints.model_card import CardFacts, write_card
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.orbax_checkpoint import stored_dtype, write_checkpoint
from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.companions import (
    CONVERSION,
    config_beside,
    config_of,
    provenance,
    tokenizer_beside,
)
from ilm_jax.checkpoints.published.entries import Entry
from ilm_jax.checkpoints.published.hugging_face import write_folder
from ilm_jax.checkpoints.published.sources import ADAPTER, Opened, open_source
from ilm_jax.data.tokenizers import conflicting_specials, holds_tokenizer, open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir
from ilm_jax.safetensors_files import Tensor
from ilm_jax.sharding.freezing import matches

Progress = Callable[[str, int], None]
# Parts of a language model that no published layout knows.
BESIDE = {
    "new_tokens": "new tokens beside its base's vocabulary",
    "word_embedding": "whole-word embeddings",
}


def to_frozen(
    source: str,
    model_dir: str,
    dtype: str,
    step: int | str = "best",
    write_recipe: Callable[[pathlib.Path, Opened, str], None] = lambda *_: None,
    progress: Callable[[int], Progress] = lambda total: lambda name, size: None,
) -> str:
    """Writes the framework's frozen checkpoint of a language model.

    Args:
      source: what `open_source` opens.
      model_dir: to be made, whole or not at all.
      dtype: of floating-point numbers.
      step: of a run's checkpoint.
      write_recipe: (folder, what was opened, fingerprint) -> None; adds what goes with it.
      progress: given the total of bytes, what is called with every name and its bytes.

    Returns:
      The fingerprint, equal to that of a run which freezes this model in this type.
    """
    opened = open_language_model(source, step)
    _say(opened)
    sizes = {
        n: int(np.prod(e.shape)) * stored_dtype(e, dtype).itemsize
        for n, e in opened.entries.items()
    }
    report = progress(sum(sizes.values()))
    checksums: dict[str, tuple[tuple[int, ...], np.dtype, int]] = {}

    def seen(name: str, value: np.ndarray) -> None:
        """Notes the checksum of an entry as it is written, and reports its bytes."""
        checksums[name] = (value.shape, value.dtype, checksum(value))
        report(name, sizes[name])

    refuse_existing(model_dir)
    with atomic_dir(model_dir) as folder:
        meta = {"version": __version__, "configs": opened.configs}
        if tokenizer := tokenizer_of(source, opened.meta.get("tokenizer")):
            meta["tokenizer"] = tokenizer
        if lineage := _lineage(opened):
            meta["made_from"] = lineage
        write_checkpoint(folder, opened.entries, np.dtype(dtype), meta, seen)
        fingerprint = digest(checksums)
        for name, data in (tokenizer_beside(source) | config_beside(source)).items():
            (folder / name).write_bytes(data)
        facts = {
            **provenance(source),
            "opened": opened.where,
            "model_type": opened.meta.get("model_type"),
            "dtype": dtype,
            "fingerprint": fingerprint,
            "parameters": sum(int(np.prod(entry.shape)) for entry in opened.entries.values()),
            "version": __version__,
            "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        (folder / CONVERSION).write_text(json.dumps(facts, indent=1) + "\n")
        write_recipe(folder, opened, fingerprint)
    return fingerprint


def to_hugging_face(
    source: str,
    model_dir: str,
    dtype: str | None = None,
    step: int | str = "best",
    progress: Callable[[int], Progress] = lambda total: lambda name, size: None,
) -> None:
    """Writes a run's language model, adapters merged, in the layout that its base was published in.

    Args:
      source: a run, or what `ilm convert` made of a published model.
      model_dir: to be made.
      dtype: of the tensors; None: as the base stores them.
      step: of the run's checkpoint.
      progress: as in `to_frozen`.

    Its config.json says beside that what the model has seen (`made_from`), for our runs.

    Raises:
      UserError: if the base was not published by a known family.
    """
    opened = open_language_model(source, step)
    _say(opened)
    base = _base(opened, source)
    config = None if base is None else config_of(base)
    if base is None or config is None:
        raise UserError(
            f"{source} has no published base with a config.json, so no layout to be written in; "
            "--to=frozen writes the framework's own"
        )
    for part, what in BESIDE.items():
        if any(name.startswith(f"lm/{part}/") for name in opened.entries):
            raise UserError(
                f"{source} has {what}, which its base's layout has no place for: --to=adapter or "
                "--to=frozen keeps them"
            )
    family = families.find(config["model_type"])
    tied = opened.configs["lm"][1]["tie_embeddings"]
    layout = family.config(config)
    if layout.tie_embeddings != tied:
        layout, config = dataclasses.replace(layout, tie_embeddings=tied), _tied(config, tied)
    tensors: dict[str, Tensor] = {}
    for name, rule in family.rules(layout).items():
        if rule.plus_row or rule.shape:
            raise UserError(f"{config['model_type']}: {rule.source} cannot be written back")
        entry = opened.entries[f"lm/{name}"]
        tensors[rule.source] = _outward(entry, rule.transposed, dtype or entry.dtype)
    sizes = {n: int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for n, t in tensors.items()}
    report = progress(sum(sizes.values()))
    refuse_existing(model_dir)
    kept = {k: v for k, v in config.items() if k not in ("torch_dtype", "dtype", "made_from")}
    if lineage := _lineage(opened):
        kept["made_from"] = lineage
    write_folder(
        model_dir, tensors, kept, tokenizer_beside(base), progress=lambda n: report(n, sizes[n])
    )


def to_adapter(
    source: str,
    model_dir: str,
    step: int | str = "best",
    tokenizer: Callable[[pathlib.Path], None] | None = None,
    facts: CardFacts | None = None,
) -> None:
    """Writes what a run trained as a Hugging-Face-style folder, which `open_source` reads again.

    Args:
      source: the run's MODEL_DIR.
      model_dir: to be made.
      step: of its checkpoint.
      tokenizer: saves the run's tokenizer into a folder, where its base has no files of one.
      facts: for the model card, beside what the checkpoint itself says.

    Raises:
      UserError: if the folder is no run.
    """
    opened = open_source(source, step=step)
    if "init" not in opened.meta:
        raise UserError(f"{source} is no run: an adapter is what a run trained")
    base = _base(opened, source)
    origin = provenance(base) if base else {}
    name = origin.get("name")
    fingerprint = opened.meta.get("frozen")
    config: dict[str, Any] = {
        "model_type": ADAPTER,
        "library": f"ilm_jax {__version__}",
        "configs": opened.configs,
        "base_model": {**origin, "name": name, "fingerprint": fingerprint},
        **{key: opened.meta[key] for key in ("made_from", "tokenizer") if key in opened.meta},
        **({"drawn": drawn} if (drawn := sorted(opened.drawn)) else {}),
    }
    facts = dataclasses.replace(
        facts or CardFacts(),
        name=pathlib.Path(model_dir).name,
        base=name,
        origin=origin,
        fingerprint=fingerprint,
        run=opened.where,
        evaluation=_evaluation(source, opened.where),
        parameters=sum(int(np.prod(entry.shape)) for entry in opened.entries.values()),
    )
    copies = tokenizer_beside(base) if base else {}
    recipe = pathlib.Path(source) / "config.gin"
    facts = dataclasses.replace(facts, recipe=recipe.read_text() if recipe.is_file() else "")
    refuse_existing(model_dir)
    with atomic_dir(model_dir) as folder:
        tensors = {n: Tensor(e.shape, e.dtype, e.read) for n, e in opened.entries.items()}
        write_folder(folder, tensors, config, copies, {"README.md": write_card(facts)})
        if recipe.is_file():
            (folder / "config.gin").write_text(facts.recipe)
        if tokenizer is not None and not copies:
            tokenizer(folder)


def refuse_existing(model_dir: str | pathlib.Path) -> None:
    """Raises UserError for a folder that holds something."""
    folder = pathlib.Path(model_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists: name a new folder, or delete it")


def tokenizer_of(folder: str | os.PathLike, stated: str | None = None) -> str | None:
    """Fingerprint of a model's tokenizer; None where it has none with it.

    Args:
      folder: of the model, or its name or GGUF file.
      stated: the fingerprint that the model's checkpoint says, if it says one.

    Raises:
      UserError: for a tokenizer that cannot be read, or is another one than is stated.
    """
    if not holds_tokenizer(folder):
        return stated
    tokenizer = open_tokenizer_at(folder)
    for line in conflicting_specials(tokenizer, folder):
        print(line, file=sys.stderr, flush=True)
    found = tokenizer.fingerprint
    if stated not in (None, found):
        raise UserError(
            f"{folder} holds another tokenizer than its model was made with: put the files of that "
            "one there"
        )
    return found


def _lineage(opened: Opened) -> dict[str, Any]:
    """What a language model was made from that another may not be where it is taken."""
    there = opened.meta.get("made_from") or {}
    return {name: there[name] for name in ("data", "tokenizer", "new_tokens") if name in there}


def _tied(config: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    """A config.json that says whether input and output share a table."""
    changed = {**config, "tie_word_embeddings": tied}
    if "text_config" in config:
        changed["text_config"] = {**config["text_config"], "tie_word_embeddings": tied}
    return changed


def _say(opened: Opened) -> None:
    for note in opened.notes:
        print(note, file=sys.stderr, flush=True)


def _base(opened: Opened, source: str) -> str | None:
    """Where a run's language model came from; the source itself if it is no run."""
    for init in opened.meta.get("init", []):
        if matches("lm/", init["parameters"]):
            return str(init["path"])
    return None if "init" in opened.meta else source


def _outward(entry: Entry, transposed: bool, dtype: DTypeLike) -> Tensor:
    shape = entry.shape[::-1] if transposed else entry.shape

    def read() -> np.ndarray:
        """The entry in the published layout and type."""
        value = entry.read(dtype=np.dtype(dtype))
        return value.T if transposed else value

    return Tensor(shape, np.dtype(dtype), read)


def _evaluation(run: str, where: str) -> Mapping[str, Any]:
    """The run's evaluation, if it has one of the checkpoint that `where` names."""
    file = pathlib.Path(run) / "evaluation" / "evaluation.json"
    if not file.is_file():
        return {}
    try:
        found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        step = found.get("step")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}): evaluate again, or remove it") from error
    if step is None or f"(step {step})" in where:
        return found
    print(f"{file} is of step {step}: the card of {where} has no figures", file=sys.stderr)
    return {}
