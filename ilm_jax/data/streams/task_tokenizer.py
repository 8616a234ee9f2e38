"""The tokenizer of a dataset's tasks: the one that the settings name, or one that is trained here.

TensorFlow-free: a training process makes its own where none has been made yet.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Protocol, cast

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import Splits, make_splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.task_families import spec_named
from ilm_jax.data.examples.task_keys import effective, tokenizer_path
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.tokenizers import OwnTokenizer, Tokenizer, extended, formatted, open_tokenizer_at
from ilm_jax.data.tokenizers.losses import of_catalogue
from ilm_jax.files import atomic_write, default_cache_dir, sha256_json
from ilm_jax.locks import taking_turns

StrPath = str | os.PathLike
NOTE = "cache: note: "
CORPUS = "corpus/text"


class Corpus(Protocol):
    """What a tokenizer is trained on: the examples of the task that CORPUS names."""

    def tokenizer_strings(self) -> Iterator[str]:
        """The texts, in a fixed order."""


def cache_folder(cache_dir: StrPath | None) -> pathlib.Path:
    """The folder of prepared data; None means `default_cache_dir()`."""
    return default_cache_dir() if cache_dir is None else pathlib.Path(cache_dir).expanduser()


def train_tokenizer(splits: Splits, settings: TaskSettings) -> OwnTokenizer:
    """The tokenizer of a dataset: trained on the training corpus, the same bytes every time."""
    spec = spec_named(CORPUS)
    corpus = cast(Corpus, spec.make(splits, effective(spec, settings), spec=spec))
    return OwnTokenizer.train(
        corpus.tokenizer_strings(),
        settings.vocab_size,
        model_type=settings.model_type,
        whole=item_index.vocabulary(settings),
    )


def ensure_tokenizer(
    dataset: str,
    settings: TaskSettings,
    catalogue: Catalogue,
    cache_dir: StrPath | None = None,
    splits: Splits | None = None,
) -> Tokenizer:
    """The tokenizer of a dataset's tasks, trained and saved first if absent.

    What it cannot say of the items' titles and texts is noted on stderr.

    Args:
      dataset, settings: of the tasks.
      catalogue: of the dataset.
      cache_dir: None means `default_cache_dir()`.
      splits: of the catalogue, if the caller has them.

    Raises:
      UserError: if a tokenizer that the settings name is absent, or a model file is damaged.
    """
    path = tokenizer_path(dataset, settings, catalogue.fingerprint, cache_folder(cache_dir))
    if not settings.tokenizer and not path.exists():
        with taking_turns(path.with_suffix(".lock")):
            if not path.exists():  # no other process was faster
                trained = train_tokenizer(
                    splits or make_splits(catalogue, settings.split), settings
                )
                trained.save(path)
                line = f"cache: {path.name}: {trained.vocab_size} pieces"
                print(line, file=sys.stderr, flush=True)
    tokenizer = laid_out(path, settings)
    for note in _losses(tokenizer, catalogue, cache_folder(cache_dir)):
        print(f"{NOTE}{note}", file=sys.stderr, flush=True)
    return tokenizer


def _losses(tokenizer: Tokenizer, catalogue: Catalogue, cache: pathlib.Path) -> list[str]:
    """What the tokenizer cannot say of the catalogue; looked for once, which takes seconds."""
    key = sha256_json([tokenizer.fingerprint, catalogue.fingerprint])[:12]
    file = cache / "tokenizers" / f"lost-{key}.txt"
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        pass
    found = of_catalogue(tokenizer, catalogue.titles, catalogue.texts)
    notes = [losses.described() for losses in found if losses.lost]
    with contextlib.suppress(OSError), atomic_write(file) as stream:  # a cache to read alone
        stream.write("".join(f"{note}\n" for note in notes))
    return notes


def open_tokenizer(
    dataset: str,
    settings: TaskSettings,
    catalogue: Catalogue,
    cache_dir: StrPath | None = None,
) -> Tokenizer:
    """The tokenizer of a dataset's tasks, with the words and the layout that the settings ask for.

    Raises:
      UserError: if it is absent: no task has been read or cached with these settings; or as
        `laid_out`.
    """
    return laid_out(
        tokenizer_path(dataset, settings, catalogue.fingerprint, cache_folder(cache_dir)), settings
    )


def laid_out(path: StrPath, settings: TaskSettings) -> Tokenizer:
    """The tokenizer of a path with the words appended that ids need, and the layout of prompts.

    Raises:
      UserError: as `open_tokenizer_at`, `vocabulary` and `formatted`.
    """
    vocabulary = item_index.vocabulary(settings, settings.new_tokens)
    tokenizer = extended(open_tokenizer_at(path), vocabulary)
    return formatted(tokenizer, settings.prompt_format, settings.system_text)
