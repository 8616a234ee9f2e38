"""The settings that a task reads, and the path of its cache.

A training process computes from these where a cache lies; `tasks/` computes from the same what to
write there.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from ilm_jax.checks import Dataclass, InputFile, hints_of
from ilm_jax.data.examples.task_families import TASK_FAMILIES, family_of, spec_named
from ilm_jax.data.examples.task_settings import FamilySettings, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file, sha256_json
from ilm_jax.pretrained import resolve

CACHE_FORMAT = "ilm_jax.task_cache/1"
# Settings of the tokenizer, which a key names by what they come to, and what holds other settings:
# no task reads them by name.
_TOKENIZER = (
    "vocab_size",
    "model_type",
    "tokenizer",
    "new_tokens",
    "prompt_format",
    "system_text",
)
_NOT_READ = (*_TOKENIZER, "families", "split")
# Settings that came later: keys say nothing of them where they have their default, so that caches
# that were made without them are still read.
_LATER = {
    "item_codes": "",
    "bare_history": False,
    "knowledge.answer": "title",
    "elm24.train_items": 0,
    "corpus.elm_tasks": (),
}


# Which written texts train (see `telling`); raised when that changes, so that no cache of what does
# not train any more is read.
_TOLD = 2


def reads(spec: TaskSpec) -> tuple[str, ...]:
    """Names of all settings that the task depends on, the split aside, see `TaskSpec.settings`.

    Raises:
      UserError: if its spec names a setting that does not exist.
    """
    shared = [f.name for f in dataclasses.fields(TaskSettings) if f.name not in _NOT_READ]
    own = [f.name for f in dataclasses.fields(TASK_FAMILIES[spec.family].settings)]
    if spec.settings is None:
        return (*shared, *(f"{spec.family}.{name}" for name in own))
    for name in spec.settings:
        family, _, field = name.rpartition(".")
        known = (
            {f.name for f in dataclasses.fields(TASK_FAMILIES[family].settings)}
            if family
            else (shared)
        )
        if field not in known:
            raise UserError(f"task {spec.full} reads the setting {name!r}, which does not exist")
    return spec.settings


def effective(spec: TaskSpec, settings: TaskSettings) -> TaskSettings:
    """The settings as the task reads them.

    What makes the task what it is is fixed, and all that it does not name is at its default.

    Raises:
      UserError: as `reads`, or for settings of a family that is not registered.
    """
    for own in settings.families:
        family_of(type(own))
    names = reads(spec)
    kept = {name: getattr(settings, name) for name in names if "." not in name}
    families: list[FamilySettings] = []
    for family in dict.fromkeys(name.partition(".")[0] for name in names if "." in name):
        kind: Any = TASK_FAMILIES[family].settings
        own = settings.of(kind)
        fields = [name.partition(".")[2] for name in names if name.startswith(f"{family}.")]
        families.append(kind(**{field: getattr(own, field) for field in fields}))
    read = TaskSettings(**kept, split=settings.split, families=tuple(families))
    return read.replace(**spec.fixes(read))


def naming(spec: TaskSpec, settings: TaskSettings) -> TaskSettings:
    """The settings by which the task's prompts and answers name items; others stay as they are.

    But a bare history, which is a form of sequential tasks alone.
    """
    named = settings.replace(**spec.fixes(settings))
    return named.replace(bare_history=named.bare_history and "bare_history" in reads(spec))


def slots_at_most(spec: TaskSpec, settings: TaskSettings) -> int:
    """Slots that one prompt of the task can have under these settings."""
    settings = effective(spec, settings)
    if settings.text_only:
        return 0
    return sum(times * ("slot" in mention.split("+")) for mention, times in spec.mentions(settings))


def plain_settings(spec: TaskSpec, settings: TaskSettings) -> dict[str, Any]:
    """The settings that a task depends on, as plain values; of a file, its SHA-256.

    Raises:
      UserError: if a file that the settings name is absent.
    """
    return dict(sorted(_plain(spec, effective(spec, settings))))


def _plain(spec: TaskSpec, read: TaskSettings) -> Iterator[tuple[str, object]]:
    yield "split", dataclasses.asdict(read.split)
    for name in reads(spec):
        family, _, field = name.rpartition(".")
        owner: Dataclass = read.of(TASK_FAMILIES[family].settings) if family else read
        value = getattr(owner, field)
        if name in _LATER and value == _LATER[name]:
            continue
        of_file = hints_of(type(owner))[field] == InputFile and value
        yield name, _file_hash(name, value) if of_file else value
        if of_file and field == "texts_file":
            yield "texts_told", _TOLD


def _file_hash(name: str, path: str) -> str:
    try:
        return sha256_file(pathlib.Path(path).expanduser())
    except OSError as error:
        raise UserError(f"task setting {name}={path!r}: {error.strerror}") from error


def tokenizer_key(settings: TaskSettings, catalogue_fingerprint: str) -> str:
    """Hex key of the tokenizer that these settings train on a catalogue."""
    corpus = spec_named("corpus/text")
    trained = {"vocab_size": settings.vocab_size, "model_type": settings.model_type}
    read = plain_settings(corpus, settings)
    return sha256_json([CACHE_FORMAT, corpus.version, read, trained, catalogue_fingerprint])


def tokenizer_path(
    dataset: str, settings: TaskSettings, catalogue_fingerprint: str, cache_dir: str | pathlib.Path
) -> pathlib.Path:
    """Path of a dataset's tokenizer: as the settings name it, or in the cache."""
    if settings.tokenizer:
        return pathlib.Path(resolve(settings.tokenizer))
    key = tokenizer_key(settings, catalogue_fingerprint)[:12]
    return pathlib.Path(cache_dir) / "tokenizers" / f"{dataset.replace('/', '_')}-{key}.model"


def has_prompts(spec: TaskSpec) -> bool:
    """Whether the task's examples are prompts, which a chat format lays out."""
    return spec.answer not in ("pairs", "none")


def task_key(
    spec: TaskSpec,
    settings: TaskSettings,
    catalogue_fingerprint: str,
    tokenizer_fingerprint: str,
    chat_fingerprint: str = "",
) -> str:
    """Hex key of one task's cache: it changes with anything that its bytes depend on.

    Args:
      spec, settings: of the task.
      catalogue_fingerprint, tokenizer_fingerprint: of what it reads.
      chat_fingerprint: of the chat format (`tokenizers.chat_of`); "" where prompts are plain text.
    """
    uses_text = any(name in ("text", "targets") for name, _ in spec.features)
    return sha256_json(
        [
            CACHE_FORMAT,
            spec.family,
            spec.task,
            spec.version,
            spec.features,
            plain_settings(spec, settings),
            catalogue_fingerprint,
            tokenizer_fingerprint if uses_text else "",
            *([chat_fingerprint] if chat_fingerprint and has_prompts(spec) else []),
        ]
    )


def task_path(
    name: str, key: str, cache_dir: str | pathlib.Path, split: str | None = None
) -> pathlib.Path:
    """Folder of a task's cache, or of one split of it."""
    folder = pathlib.Path(cache_dir) / "tasks" / f"{name}-{key[:12]}"
    return folder / split if split else folder
