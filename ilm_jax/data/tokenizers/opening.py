"""From a path to a tokenizer: which kind lies there, and what is missing if none does."""

import functools
import os
import pathlib
from collections.abc import Iterable, Mapping

import sentencepiece

from ilm_jax.data.tokenizers import fast, from_gguf, pieces, stated
from ilm_jax.data.tokenizers.extended import without_new_tokens
from ilm_jax.data.tokenizers.own import OwnTokenizer, is_own
from ilm_jax.data.tokenizers.protocol import Tokenizer
from ilm_jax.errors import UserError
from ilm_jax.pretrained import resolve
from ilm_jax.pretrained.gguf_file import is_gguf, open_gguf
from ilm_jax.pretrained.resolving import nothing_at

PIECES_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.model")


def holds_tokenizer(source: str | os.PathLike) -> bool:
    """Whether a model's folder, or GGUF file, has what a tokenizer is read from."""
    place = pathlib.Path(resolve(source))
    if is_gguf(place):
        return f"{from_gguf.KEY}.model" in open_gguf(place).metadata
    names = (*PIECES_FILES, fast.FAST, fast.VOCAB)
    return any((place / name).is_file() for name in names)


def open_tokenizer_at(path: str | os.PathLike) -> Tokenizer:
    """Reads a tokenizer.

    Args:
      path: a folder as published with a model, or one file: a SentencePiece model, a
        tokenizer.json, a vocab.txt or a GGUF file; or the name of one (pkg://…, hf://…). The JSON
        files beside it say which tokens are special. Of a folder with both, the SentencePiece model
        is read where that is what the model was trained with (T5, Llama 2, Mistral, Gemma).

    Raises:
      UserError: if nothing is there, or nothing that can be read.
    """
    path = pathlib.Path(resolve(path))
    if not path.suffix and not path.exists():
        raise nothing_at(path)
    if is_gguf(path):
        files = {path}
    elif path.is_dir():
        files = {path / name for name in (*PIECES_FILES, fast.FAST, fast.VOCAB)}
    else:
        files = {path}
    if not is_gguf(path):
        folder = path if path.is_dir() else path.parent
        files |= {folder / name for name in (*stated.JSON_FILES, *stated.TEMPLATES)}
    stamps = [(file, file.stat()) for file in sorted(files) if file.is_file()]
    return _opened(path, tuple((file, s.st_size, s.st_mtime_ns) for file, s in stamps))


def save_in(tokenizer: Tokenizer, folder: str | os.PathLike) -> None:
    """Writes a tokenizer into a model's folder, so that `open_tokenizer_at(folder)` finds it."""
    tokenizer = without_new_tokens(tokenizer)  # which are the run's, and not the model's
    own = isinstance(tokenizer, OwnTokenizer)  # one file, which gets the name that is looked for
    tokenizer.save(pathlib.Path(folder) / PIECES_FILES[0] if own else folder)


def stop_ids(tokenizer: Tokenizer, folders: Iterable[str | os.PathLike]) -> tuple[int, ...]:
    """Ids that end what a language model writes.

    Args:
      tokenizer: the model's; its own stop ids come first.
      folders: that the model was read from, each of which may hold a generation_config.json.

    Raises:
      UserError: for an id that the tokenizer lacks.
    """
    found = list(tokenizer.stop_ids)
    for folder in folders:
        if data := _beside(folder, [stated.GENERATION]):
            said = stated.Stated(data, str(folder))
            found += said.stops(tokenizer.eos_id, tokenizer.vocab_size)
    return tuple(dict.fromkeys(found))


def conflicting_specials(tokenizer: Tokenizer, folder: str | os.PathLike) -> list[str]:
    """Lines for a person, where a model's files and its tokenizer's name other special tokens.

    Published folders do so; what is taken then is what these lines say.
    """
    base, lines = pathlib.Path(folder), []
    files = _beside(folder, stated.MODEL_CONFIGS)
    said = stated.Stated(files, str(folder))
    ends = next((name for name in files if said.ids(name, "eos")), None)
    for name in files:
        for role, own in (("eos", tokenizer.eos_id), ("bos", tokenizer.bos_id)):
            numbers = said.ids(name, role)
            if not numbers or own is None or own in numbers or (role == "eos" and name != ends):
                continue
            taken = "a text ends with any of them" if role == "eos" else f"{own} is taken"
            there = ", ".join(map(str, numbers))
            lines.append(
                f"{base / name} says {role}_token_id {there}, its tokenizer {own}: {taken}"
            )
    return lines


def has_chat_template(path: str | os.PathLike) -> bool:
    """Whether the files of a model or a tokenizer say how a conversation is laid out."""
    files = _beside(path, (stated.CONFIG, *stated.TEMPLATES))
    return bool(stated.Stated(files, str(path)).config.get("chat_template"))


def tokenizer_files(path: str | os.PathLike, names: Iterable[str]) -> dict[str, bytes]:
    """{name: bytes} of those of some files that lie beside a model, or that its GGUF file holds."""
    return _beside(path, names)


def _beside(path: str | os.PathLike, names: Iterable[str]) -> dict[str, bytes]:
    place = pathlib.Path(resolve(path))
    if is_gguf(place):
        held = from_gguf.tokenizer_files(open_gguf(place))
        return {name: held[name] for name in names if name in held}
    folder = place if place.is_dir() else place.parent
    return {name: _read(folder / name) for name in names if (folder / name).is_file()}


@functools.lru_cache(maxsize=8)
def _opened(path: pathlib.Path, stamps: tuple[tuple[pathlib.Path, int, int], ...]) -> Tokenizer:
    """Parsing a large one takes seconds, and every stream of a run asks for it."""
    if is_gguf(path):
        return _choose(from_gguf.tokenizer_files(open_gguf(path)), path)
    files = {file.name: _read(file) for file, *_ in stamps}
    if path.is_dir():
        return _choose(files, path)
    data = files[path.name] if path.name in files else _read(path)
    said = stated.Stated(files, str(path))
    if path.suffix == ".json":
        return fast.from_json(data, said)
    if path.suffix == ".txt":
        return fast.from_vocab(data, said)
    return _from_pieces(data, said)


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: no tokenizer ({error.strerror}); give the folder of a published model, or "
            "run ilm cache_tasks to train one"
        ) from None


def _choose(files: Mapping[str, bytes], folder: pathlib.Path) -> Tokenizer:
    said = stated.Stated(files, str(folder))
    models = [name for name in PIECES_FILES if name in files]
    known = said.tokenizer_class in pieces.CLASSES
    if models and known and not (fast.FAST in files and _processor(files[models[0]]) is None):
        return _from_pieces(files[models[0]], said)
    if fast.FAST in files:
        return fast.from_json(files[fast.FAST], said)
    if fast.VOCAB in files and not models:
        return fast.from_vocab(files[fast.VOCAB], said)
    if models:
        raise UserError(
            f"{folder}: {said.tokenizer_class}Tokenizer has rules of its own beside {models[0]}: "
            f"save it as {fast.FAST} with transformers' fast tokenizer"
        )
    wanted = ", ".join([*PIECES_FILES, fast.FAST, fast.VOCAB])
    raise UserError(f"{folder}: no tokenizer there: the folder has none of {wanted}")


def _from_pieces(model: bytes, said: stated.Stated) -> Tokenizer:
    processor = _processor(model)
    if processor is None:
        # Another file may be anything, such as a table that was named by mistake.
        ours = said.where.endswith(".model")
        delete = "delete it and run ilm cache_tasks if it was trained here, or " if ours else ""
        raise UserError(
            f"{said.where}: not a SentencePiece model; {delete}give the model's folder or its "
            f"{fast.FAST}"
        )
    return OwnTokenizer(model) if is_own(processor) else pieces.from_model(model, said)


def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor | None:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError):  # an empty file is a ValueError
        return None
