"""Opens a folder of parameters by what it holds: our checkpoints, Hugging Face's, T5X's.

Whatever it is, what comes out are entries under our names (see entries.py), with the tensors that
no entry needs and the entries whose tensor is not there.
"""

import dataclasses
import importlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.copies import settle
from ilm_jax.checkpoints.published.entries import Entry, Source, from_rule, from_source
from ilm_jax.checkpoints.published.families import options
from ilm_jax.checkpoints.published.families import qformer as into_qformer
from ilm_jax.checkpoints.published.families.agreeing import check_names
from ilm_jax.checkpoints.published.hugging_face import Index, SafetensorsFolder
from ilm_jax.checkpoints.published.rules import C, Family
from ilm_jax.checkpoints.published.shards import ADAPTERS, CONFIG, INDEX, SINGLE, refuse_pickles
from ilm_jax.checks import Dataclass
from ilm_jax.errors import UserError
from ilm_jax.models.qformer_layers import QFormerConfig
from ilm_jax.objectives.objective import Objective
from ilm_jax.pretrained import resolve
from ilm_jax.pretrained.gguf_file import is_gguf
from ilm_jax.pretrained.resolving import nothing_at
from ilm_jax.strict_json import parse_object

# config.json's model_type of what `ilm convert --to=adapter` writes.
ADAPTER = "ilm_jax_adapter"


@dataclasses.dataclass(frozen=True)
class Opened:
    """A folder's parameters under our names.

    Attributes:
      where: for messages.
      source: of the tensors.
      entries: {name on disk, top key included: Entry}.
      left_over: tensors that no entry needs.
      lacking: {entry: its tensor, which is not there}.
      configs: {top key: (name of the configuration's class, its fields)} where known.
      config: the configuration itself where a published family gave one.
      meta: JSON of our own checkpoints; the config.json of others'.
      notes: lines for a person, of what was found and not taken as it stands.
    """

    where: str
    source: Source
    entries: dict[str, Entry]
    left_over: list[str] = dataclasses.field(default_factory=list)
    lacking: dict[str, str] = dataclasses.field(default_factory=dict)
    configs: dict[str, tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    config: Dataclass | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def drawn(self) -> frozenset[str]:
        """Entries of a run that it drew and froze; the others of a run are what it trained."""
        found = self.meta.get("drawn")
        return frozenset(self.entries).intersection(
            map(str, found) if isinstance(found, list) else ()
        )


def open_source(
    path: str, top: str = "lm", step: int | str = "best", target: Dataclass | None = None
) -> Opened:
    """Opens a model's parameters.

    Args:
      path: MODEL_DIR of a run or of `ilm convert`, a folder of a published model, a GGUF file, or
        the name of one of these (pkg://…, hf://…, gs://…: see `ilm_jax.pretrained`).
      top: the top key that a published model's entries take.
      step: of a run's checkpoint.
      target: configuration of the model that shall take the weights; needed where they may come
        from another kind of model: a Q-Former's, of BERT or BLIP-2.

    Raises:
      UserError: for a folder that is none of these, or is broken.
    """
    path = resolve(path)
    folder = pathlib.Path(path)
    if (folder / "checkpoints").is_dir():
        return _open_run(path, step)
    if is_gguf(path):
        return _open_gguf(path, top, target)
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        return _open_hugging_face(path, top, target)
    if _holds_t5x(folder):
        return _open_t5x(path, top)
    if not folder.is_dir():
        raise nothing_at(path)
    if any((folder / name).is_file() for name in ADAPTERS):
        raise UserError(
            f"{path} holds an adapter alone ({ADAPTERS[0]}): merge it into its base where it was "
            "made (in Python with peft: merge_and_unload), and give the merged model's folder"
        )
    if any(folder.glob("consolidated*.safetensors")):
        raise UserError(
            f"{path} holds its weights as consolidated*.safetensors, under their maker's own "
            f"names: download {SINGLE} or the shards of {INDEX}"
        )
    refuse_pickles(folder)
    raise UserError(
        f"{path} holds no parameters: neither checkpoints/ (a run's MODEL_DIR) nor {SINGLE} "
        f"or {INDEX} (Hugging Face) nor a msgpack file checkpoint (T5X)"
    )


def is_adapter(path: str) -> bool:
    """Whether a folder is one of `ilm convert --to=adapter`."""
    file = pathlib.Path(resolve(path)) / CONFIG
    if not file.is_file() or (file.parent / "checkpoints").is_dir():
        return False
    return parse_object(file.read_bytes(), str(file)).get("model_type") == ADAPTER


def describe(config: Dataclass) -> tuple[str, dict[str, Any]]:
    """(class name, fields as JSON gives them back) of a configuration."""
    return type(config).__name__, json.loads(json.dumps(dataclasses.asdict(config), default=str))


def describe_objective(objective: Objective) -> dict[str, tuple[str, dict[str, Any]]]:
    """{top key: description} of the models that an objective trains."""
    return {top: describe(config) for top, config in objective.configs.items()}


def from_family(source: Source, family: Family[C], config: C, top: str) -> Opened:
    """The entries that a family's rules make of a source's tensors.

    Raises:
      UserError: for tensors that should be equal and are not, see copies.py.
    """
    notes = list(source.notes)
    _check_depth(source, config)
    settled = settle(source, family, config)
    config, held = settled.config, settled.held
    renamed = _Renamed(source, held)
    entries: dict[str, Entry] = {}
    lacking: dict[str, str] = {}
    used: set[str] = set()
    for name, rule in family.rules(config).items():
        tensors = [tensor for tensor in (rule.source, rule.plus_row) if tensor]
        used.update(tensors)
        absent = [tensor for tensor in tensors if tensor not in held]
        if absent:
            lacking[f"{top}/{name}"] = absent[0]
        else:
            entries[f"{top}/{name}"] = from_rule(rule, renamed, cheap=source.cheap_rows)

    def known(name: str) -> bool:
        """Whether the family knows the tensor and has no use for it."""
        return any(re.search(p, n) for p in family.unused for n in (name, held[name]))

    spare = {name: there for name, there in held.items() if name not in used}
    parts = [there for name, there in spare.items() if known(name)]
    if parts:
        notes.append(
            f"{source.where}: {len(parts)} tensors are of parts that are not read here: "
            f"{_shortened(parts)}"
        )
    left_over = [there for name, there in spare.items() if not known(name)]
    configs = {top: describe(config)} if dataclasses.is_dataclass(config) else {}
    return Opened(
        source.where,
        source,
        entries,
        left_over,
        lacking,
        configs,
        config,
        notes=[*notes, *settled.notes],
    )


def _check_depth(source: Source, config: object) -> None:
    """Raises UserError for more layers than tensors, before there is a rule for each of them."""
    layers = max(getattr(config, name, None) or 0 for name in ("num_layers", "num_decoder_layers"))
    held = len(source.names())
    if layers > held:
        raise UserError(
            f"{source.where}: config.json says {layers} layers, and there are {held} tensors: is "
            "it this model's?"
        )


def _shortened(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


@dataclasses.dataclass(frozen=True)
class _Renamed:
    """A source whose tensors are called as a family's rules call them."""

    source: Source
    held: Mapping[str, str]

    @property
    def where(self) -> str:
        """The source's, for messages."""
        return self.source.where

    @property
    def cheap_rows(self) -> bool:
        """The source's: renaming changes no layout."""
        return self.source.cheap_rows

    @property
    def notes(self) -> Sequence[str]:
        """The source's."""
        return self.source.notes

    def names(self) -> list[str]:
        """As the family calls them."""
        return list(self.held)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the tensor that the family calls so."""
        return self.source.shape(self.held[name])

    def dtype(self, name: str) -> np.dtype:
        """Of the tensor that the family calls so."""
        return self.source.dtype(self.held[name])

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """From the tensor that the family calls so."""
        return self.source.read(self.held[name], index)


def _open_run(path: str, step: int | str) -> Opened:
    # Imported here: orbax takes a second, and other folders do without.
    module = importlib.import_module("ilm_jax.checkpoints.orbax_checkpoint")
    source = module.OrbaxCheckpoint(path, step)
    steps = {name: source.rows_together(name) for name in source.names()}
    entries = {
        name: from_source(source, name, cheap_axis=None if step is None else 0, step=step)
        for name, step in steps.items()
    }
    configs = {top: tuple(value) for top, value in source.meta.get("configs", {}).items()}
    return Opened(source.where, source, entries, configs=configs, meta=source.meta)


def _open_hugging_face(path: str, top: str, target: Dataclass | None) -> Opened:
    source = SafetensorsFolder(path)
    model_type = source.config.get("model_type")
    if model_type is None:
        raise UserError(f"{path} lacks a config.json with a model_type: which model is it?")
    if model_type == ADAPTER:
        entries = {name: from_source(source, name, cheap_axis=0) for name in source.names()}
        configs = {key: tuple(value) for key, value in source.config.get("configs", {}).items()}
        return Opened(source.where, source, entries, configs=configs, meta=source.config)
    family, config = _family_of(path, source.config, target)
    opened = from_family(source, family, config, top)
    notes = [f"{path}: {line}" for line in options.carried(source.config)]
    return dataclasses.replace(opened, meta=source.config, notes=[*opened.notes, *notes])


def _family_of(
    path: str, said: Mapping[str, Any], target: Dataclass | None
) -> tuple[Family[Any], Dataclass]:
    """(the family of a config.json, our configuration); see `open_source` for `target`."""
    model_type = said["model_type"]
    try:
        if not isinstance(model_type, str):
            raise UserError(f"config.json says model_type={model_type!r}: it is a name")
        if isinstance(target, QFormerConfig):
            family = into_qformer.family_for(said, target)
        else:
            family = families.find(model_type)
        check_names(said)
        return family, family.config(said)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}: config.json describes no {model_type} model ({error})") from error


def _open_gguf(path: str, top: str, target: Dataclass | None) -> Opened:
    # Imported here, as are others that not every folder needs.
    module = importlib.import_module("ilm_jax.checkpoints.published.gguf_source")
    source = module.GGUFSource(path)
    family, config = _family_of(path, source.config, target)
    opened = from_family(source, family, config, top)
    return dataclasses.replace(opened, meta=source.config)


def _holds_t5x(folder: pathlib.Path) -> bool:
    return (folder / "checkpoint").is_file() or any(folder.glob("checkpoint_*/checkpoint"))


def _open_t5x(path: str, top: str) -> Opened:
    # Imported here: other folders do without its msgpack and TensorStore.
    module = importlib.import_module("ilm_jax.checkpoints.published.t5x_checkpoint")
    family = importlib.import_module("ilm_jax.checkpoints.published.families.t5x")
    source = module.T5XCheckpoint(path)
    return from_family(source, family.FAMILY, family.config(source), top)
