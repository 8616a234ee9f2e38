"""Names, settings and cache keys of the tasks, without TensorFlow.

A training process computes from these where a cache lies; `tasks/` computes from the same what to
write there.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from ilm_jax.checks import Choice, Count, Number, Range, Seed, check
from ilm_jax.data.catalogue.splits import SplitConfig
from ilm_jax.data.examples.task_specs import SPECS, TaskSpec, find_spec, task_names
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file, sha256_json

__all__ = [
    "CACHE_FORMAT", "MENTIONS", "SPECS", "SPLITS", "USER_MENTIONS", "TaskSettings", "TaskSpec",
    "effective", "find_spec", "plain_settings", "settings_from", "settings_json", "slots_at_most",
    "task_key", "task_names", "task_path", "tokenizer_key", "tokenizer_path",
]  # fmt: skip

CACHE_FORMAT = "ilm_jax.task_cache/1"
SPLITS = ("train", "validation", "test")
MENTIONS = (
    "slot", "id", "title", "none",
    "id+slot", "slot+id", "title+slot", "slot+title", "id+title", "title+id",
)  # fmt: skip
USER_MENTIONS = ("none", "id", "slot", "id+slot", "slot+id")


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """What decides the bytes of a task cache, beside the catalogue and the tokenizer.

    Attributes:
      mention_description: how the prompt of a description names its item, one of MENTIONS.
      mention_history: how the items of a history are named.
      mention_user: how a sequential prompt names its user ("none": not at all).
      target: "id" or "title" of the next item. A held-out item is always named by its id.
      history: at most so many items before the target (OpenP5: 20).
      item_index: how the number in an item's id is found: "random" (by hash), "sequential" (order
        of first training interaction) or "collaborative" (clusters of training co-occurrence).
        Tasks whose name ends in one of these fix it.
      index_order: of the users that "sequential" walks: "original", "short2long" or "long2short".
      cluster_tokens: "collaborative": different cluster tokens, OpenP5's k.
      cluster_split: "collaborative": parts of each cluster, OpenP5's N.
      prompts: "seen" templates train and measure; the "unseen" one only measures.
      prompt_file: file of templates in OpenP5's format to use instead of ours; "": ours.
      elm_texts_file: written targets of ELM's tasks (see `text_records`); tasks that it does not
        name, and all with "", have composed ones.
      elm_neighbours: where the neighbours of ELM's tasks are near, "cf" or "text".
      regen_texts_file: written critiques and narratives of REGEN's tasks (see `narratives`); "":
        the corpus' own, or composed ones.
      regen_similar: leading category levels that two neighbouring purchases share where a critique
        is composed.
      mention_knowledge: how the tasks of recommendation knowledge name items.
      candidates: items to rank in "ranking", the right one included.
      candidates_file: JSON lines {"user", "split", "candidates"} with raw ids, that fix the lists
        of validation and test; "": drawn by hash.
      negatives_may_be_held_out: whether a negative may be what its user chooses in a later split;
        else it is no item of the user's at all.
      mask_share: of an item's words that "mlm" hides.
      text_only: every slot mention falls back to words: description to "none", history to "id"
        (what remains of a combination is kept), user to "id".
      variants: renderings of each training example, each with a template drawn by hash.
      seed: of these draws and of the random item and user numbers.
      pair_distance: item-item pairs are interactions of one user at most so many steps apart.
      corpus_sequential_examples: at most so many sequential examples of each split enter the
        corpus, chosen by hash; 0 takes all.
      corpus_word_variants: renderings per training item in the corpus that name it by its content
        words, in several orders; 0 for none.
      vocab_size: upper limit for the trained tokenizer.
      model_type: "bpe" or "unigram"; of toy texts, whole words survive in the former only.
      tokenizer: folder or file of a tokenizer to use instead of a trained one (see
        `tokenizers.open_tokenizer_at`); "" trains.
      split: both splits.
    """

    mention_description: str = "slot"
    mention_history: str = "id+slot"
    mention_user: str = "id"
    target: str = "id"
    history: Count = 10
    item_index: str = "random"
    index_order: str = "original"
    cluster_tokens: Count = 200
    cluster_split: Count = 20
    prompts: str = "seen"
    prompt_file: str = ""
    elm_texts_file: str = ""
    elm_neighbours: str = "cf"
    regen_texts_file: str = ""
    regen_similar: Count = 1
    mention_knowledge: str = "title"
    candidates: Annotated[int, Range(2)] = 20
    candidates_file: str = ""
    negatives_may_be_held_out: bool = False
    mask_share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.15
    text_only: bool = False
    variants: Count = 1
    seed: Seed = 0
    pair_distance: Count = 1
    corpus_sequential_examples: Number = 10_000
    corpus_word_variants: Number = 4
    vocab_size: Count = 2048
    model_type: Annotated[str, Choice(("bpe", "unigram"))] = "bpe"
    tokenizer: str = ""
    split: SplitConfig = SplitConfig()

    def __post_init__(self) -> None:
        check(self)
        _choice("mention_description", self.mention_description, MENTIONS)
        named = [mention for mention in MENTIONS if mention != "none"]
        _choice("mention_history", self.mention_history, named)
        _choice("mention_knowledge", self.mention_knowledge, named)
        _choice("mention_user", self.mention_user, USER_MENTIONS)
        _choice("target", self.target, ("id", "title"))
        _choice("item_index", self.item_index, ("random", "sequential", "collaborative"))
        _choice("index_order", self.index_order, ("original", "short2long", "long2short"))
        _choice("elm_neighbours", self.elm_neighbours, ("cf", "text"))
        _choice("prompts", self.prompts, ("seen", "unseen"))
        if not 2 <= self.cluster_split <= self.cluster_tokens:
            raise UserError(
                f"task settings cluster_split={self.cluster_split}, "
                f"cluster_tokens={self.cluster_tokens}: give 2 <= cluster_split <= cluster_tokens"
            )
        for name in ("corpus_sequential_examples", "corpus_word_variants"):
            if getattr(self, name) < 0:
                raise UserError(f"task setting {name}={getattr(self, name)}: give at least 0")

    def replace(self, **changes: Any) -> "TaskSettings":
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)


def _choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"task setting {name}={value!r}: give one of {', '.join(choices)}")


def settings_from(overrides: Mapping[str, Any]) -> TaskSettings:
    """Settings from plain values, such as parsed JSON; `split` is a mapping.

    Raises:
      UserError: for an unknown name or a value of another type.
    """
    return _fill(TaskSettings(), dict(overrides), "task setting")


def _fill(default: Any, overrides: dict[str, Any], what: str) -> Any:
    known = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    changes = {}
    for name, value in overrides.items():
        if name not in known:
            raise UserError(f"{what} {name!r} does not exist; known: {', '.join(known)}")
        now = known[name]
        if dataclasses.is_dataclass(now) and isinstance(value, Mapping):
            value = _fill(now, dict(value), f"{what} {name}.")
        elif isinstance(now, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(now):
            raise UserError(f"{what} {name}={value!r}: give a {type(now).__name__}")
        changes[name] = value
    return dataclasses.replace(default, **changes)


def effective(spec: TaskSpec, settings: TaskSettings) -> TaskSettings:
    """The settings as the task reads them: with what makes it the task that it is."""
    changes = {}
    for name, value in spec.fixed:
        other = isinstance(value, str) and value.startswith("=")
        changes[name] = getattr(settings, value[1:]) if other else value
    return settings.replace(**changes) if changes else settings


def slots_at_most(spec: TaskSpec, settings: TaskSettings) -> int:
    """Slots that one prompt of the task can have under these settings."""
    settings = effective(spec, settings)
    if settings.text_only:
        return 0
    found = 0
    for field, times in spec.slots:
        count = getattr(settings, times) if isinstance(times, str) else times
        found += count * ("slot" in getattr(settings, field).split("+"))
    return found


def plain_settings(spec: TaskSpec, settings: TaskSettings) -> dict[str, Any]:
    """The settings that a task depends on, as plain values; of a file, its SHA-256.

    Raises:
      UserError: if a file that the settings name is absent.
    """
    plain = dataclasses.asdict(effective(spec, settings))
    chosen = {name: plain[name] for name in sorted({*spec.settings, "split"})}
    for name, path in chosen.items():
        if name.endswith("_file") and path:
            chosen[name] = _file_hash(name, path)
    return chosen


def _file_hash(name: str, path: str) -> str:
    try:
        return sha256_file(pathlib.Path(path).expanduser())
    except OSError as error:
        raise UserError(f"task setting {name}={path!r}: {error.strerror}") from error


def tokenizer_key(settings: TaskSettings, catalogue_fingerprint: str) -> str:
    """Hex key of the tokenizer that these settings train on a catalogue."""
    corpus = SPECS["text"]
    trained = {"vocab_size": settings.vocab_size, "model_type": settings.model_type}
    return sha256_json(
        [CACHE_FORMAT, corpus.version, plain_settings(corpus, settings), trained,
         catalogue_fingerprint]
    )  # fmt: skip


def tokenizer_path(
    dataset: str, settings: TaskSettings, catalogue_fingerprint: str, cache_dir: str | pathlib.Path
) -> pathlib.Path:
    """Where the tokenizer of a dataset lies: the path given in the settings, or in the cache."""
    if settings.tokenizer:
        return pathlib.Path(settings.tokenizer).expanduser()
    key = tokenizer_key(settings, catalogue_fingerprint)[:12]
    return pathlib.Path(cache_dir) / "tokenizers" / f"{dataset.replace('/', '_')}-{key}.model"


def task_key(
    spec: TaskSpec, settings: TaskSettings, catalogue_fingerprint: str, tokenizer_fingerprint: str
) -> str:
    """Hex key of one task's cache: it changes with anything that its bytes depend on."""
    uses_text = any(name in ("text", "targets") for name, _ in spec.features)
    return sha256_json(
        [CACHE_FORMAT, spec.family, spec.task, spec.version, spec.features,
         plain_settings(spec, settings), catalogue_fingerprint,
         tokenizer_fingerprint if uses_text else ""]
    )  # fmt: skip


def task_path(
    name: str, key: str, cache_dir: str | pathlib.Path, split: str | None = None
) -> pathlib.Path:
    """Folder of a task's cache, or of one split of it."""
    folder = pathlib.Path(cache_dir) / "tasks" / f"{name}-{key[:12]}"
    return folder / split if split else folder


def settings_json(settings: TaskSettings) -> str:
    """JSON of all settings, as `--settings` takes it."""
    return json.dumps(dataclasses.asdict(settings), sort_keys=True)
