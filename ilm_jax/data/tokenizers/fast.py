"""Tokenizers described by a tokenizer.json, run by the `tokenizers` library.

Byte-level BPE (Llama 3, Qwen), BERT's WordPiece (also from its vocab.txt), and the tokenizer.json
of SentencePiece models (Gemma 3). What such a file says of padding, truncation and special tokens
around a text is not used: rows are built elsewhere.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool

from ilm_jax.data.tokenizers.chat_template import template_of
from ilm_jax.data.tokenizers.protocol import Span, Special
from ilm_jax.data.tokenizers.stated import CONFIG, Roles, Stated, generation_of
from ilm_jax.data.tokenizers.word_marks import word_begins
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json
from ilm_jax.strict_json import parse_object

FAST, VOCAB = "tokenizer.json", "vocab.txt"
_BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "eos": "[SEP]"}
# Unicode's White_Space, which `tokenizers` splits at; Python's \s has four characters more.
_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
Spec = dict[str, Any]


class FastTokenizer:
    """A tokenizer.json; see `Tokenizer` for the attributes."""

    space_leads = True
    chat = None

    def __init__(
        self,
        spec: str,
        roles: Roles,
        config: bytes,
        stops: tuple[int, ...] = (),
        where: str = "the tokenizer",
    ) -> None:
        """Takes the JSON text, the special ids, the tokenizer_config.json that says them, the ids
        that end a text (eos alone by default), and where all of it lies, for messages.
        """
        self._spec, self.roles, self._config = spec, roles, config
        self.pad_id, self.eos_id, self.unk_id = roles.pad, roles.eos, roles.unk
        self.bos_id, self.cls_id, self.dec_id = roles.bos, roles.cls, roles.dec
        self.vocab_size, self.text_vocab_size = roles.size, roles.text_size
        self.least_vocab_size = roles.least_size
        self.stop_ids = stops or (roles.eos,)
        self.template = template_of(config, where)
        self._where = where
        parsed = json.loads(spec)
        self._special = {token["id"] for token in _special(parsed)}
        self._special |= {roles.pad, roles.eos, roles.bos, roles.unk, roles.cls, roles.dec}
        bare = without_prefix(parsed)
        self._prefixes = bare != parsed
        self._full = _build(parsed)
        self._bare = _build(bare) if self._prefixes else self._full
        # Whether the space that opens a text is lost without a prefix (T5 splits at spaces).
        self._strips = (
            self._prefixes and _encode(self._bare, " a")[0] == _encode(self._bare, "a")[0]
        )
        digest = hashlib.sha256(spec.encode()).hexdigest()
        self.fingerprint = sha256_json([FAST, digest, dataclasses.asdict(roles)])

    def __reduce__(self) -> tuple:
        return FastTokenizer, (self._spec, self.roles, self._config, self.stop_ids, self._where)

    @functools.cached_property
    def specials(self) -> Mapping[str, Special]:
        """See `Tokenizer`."""
        return {
            token["content"]: Special(
                token["id"], bool(token.get("lstrip")), bool(token.get("rstrip"))
            )
            for token in _special(json.loads(self._spec))
        }

    @functools.cached_property
    def prefixes_after_special(self) -> bool:
        """See `Tokenizer`: as the library does behind the first of them."""
        if not self._prefixes or not self.specials:
            return False
        parsed = json.loads(self._spec)
        library = tokenizers.Tokenizer.from_str(json.dumps({**parsed, "post_processor": None}))
        opening = next(iter(self.specials))
        ids = library.encode(f"{opening}a", add_special_tokens=False).ids
        return ids[1:] == _encode(self._full, "a")[0]

    @functools.cached_property
    def word_begins(self) -> Bool[np.ndarray, " ids"]:
        """See `Tokenizer`."""
        pieces = [self._full.id_to_token(number) or "" for number in range(self.vocab_size)]
        return word_begins(pieces, self.vocab_size, self._where)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """See `Tokenizer.encode`."""
        return self.encode_with_spans(text, continues=continues)[0]

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], list[Span]]:
        """See `Tokenizer.encode_with_spans`."""
        if not continues:
            return _encode(self._full, text)
        # One that strips puts its prefix in front of every word, and only the first word of this
        # text does without: the space behind it is another word's prefix.
        space = _SPACE.search(text) if self._strips else None
        cut = space.start() if space else len(text)
        ids, spans = _encode(self._bare, text[:cut])
        more, further = _encode(self._full, text[cut:])
        return ids + more, spans + [(start + cut, end + cut) for start, end in further]

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """See `Tokenizer.decode`."""
        plain = [int(token) for token in ids]
        if min(plain, default=0) < 0:
            raise ValueError(f"id {min(plain)} is no token's")
        seen = [t for t in plain if t < self.text_vocab_size and t not in self._special]
        decoder = self._bare if continues else self._full
        return decoder.decode(seen, skip_special_tokens=True)

    def save(self, path: str | os.PathLike) -> None:
        """See `Tokenizer.save`."""
        files = {FAST: self._spec.encode(), CONFIG: self._config}
        for name, data in (files | generation_of(self.stop_ids)).items():
            with atomic_write(pathlib.Path(path) / name, "wb") as stream:
                stream.write(data)


def _encode(tokenizer: tokenizers.Tokenizer, text: str) -> tuple[list[int], list[Span]]:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


def _build(spec: Spec) -> tokenizers.Tokenizer:
    """What encodes: without padding and truncation, special tokens in a text words like any."""
    plain = {**spec, "truncation": None, "padding": None, "post_processor": None}
    if spec["model"].get("type") == "Unigram":
        # Its pieces match wherever they are spelled: special ones get names that no text spells.
        hidden = {token["content"] for token in _special(spec)}
        pieces = spec["model"]["vocab"]
        plain["model"] = spec["model"] | {
            "vocab": [
                [f"\U0010ffff{number}" if piece in hidden else piece, score]
                for number, (piece, score) in enumerate(pieces)
            ]
        }
        plain["added_tokens"] = [t for t in spec["added_tokens"] if t not in _special(spec)]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(plain))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _special(spec: Spec) -> list[Spec]:
    return [token for token in spec.get("added_tokens") or () if token.get("special")]


def without_prefix(spec: Spec) -> Spec:
    """The same tokenizer without the space that it puts in front of a text."""
    spec = copy.deepcopy(spec)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        spec[part] = _without(spec.get(part), part)
    return spec


def _without(step: Spec | None, part: str) -> Spec | None:
    if step is None:
        return None
    kind = step["type"]
    if kind == "Sequence":
        key = next(name for name in step if name != "type")
        steps = [kept for inner in step[key] if (kept := _without(inner, part)) is not None]
        return {**step, key: steps}
    if (kind == "Prepend" and part == "normalizer") or (kind == "Strip" and part == "decoder"):
        return None
    if kind == "Metaspace":
        changed = {"prepend_scheme": "never"}
        if "add_prefix_space" in step:
            changed["add_prefix_space"] = False  # type: ignore[assignment]
        return {**step, **changed}
    if kind == "ByteLevel" and part == "pre_tokenizer":
        return {**step, "add_prefix_space": False}
    return step


def from_json(data: bytes, said: Stated) -> FastTokenizer:
    """A tokenizer.json with what the files beside it say.

    Raises:
      UserError: if it is none, or no end token is known.
    """
    spec = parse_object(data, f"{said.where}: {FAST}")
    try:
        return _from_spec(spec, said)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UserError(f"{said.where}: {FAST} describes no tokenizer ({error!r})") from error


def _from_spec(spec: Spec, said: Stated) -> FastTokenizer:
    _as_configured(spec, said)
    tokenizer = _parsed(spec, said)
    _check_added(spec, tokenizer, said)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    size = max(vocabulary.values(), default=-1) + 1
    defaults: dict[str, int | None] = {}
    if spec["model"].get("type") == "WordPiece":
        defaults = {role: tokenizer.token_to_id(token) for role, token in _BERT_TOKENS.items()}
        separator = said.id("sep", tokenizer.token_to_id)
        defaults["eos"] = defaults["eos"] if separator is None else separator
    if unk := spec["model"].get("unk_token"):
        defaults["unk"] = tokenizer.token_to_id(unk)
    template = tokenizer.encode("", add_special_tokens=True).ids
    bos = said.id("bos", tokenizer.token_to_id)
    opens = template[0] if template and template[0] in (bos, *_openers(tokenizer)) else None
    special = {token["id"] for token in _special(spec)}
    plain = [number for number in vocabulary.values() if number not in special]
    reachable = max(plain, default=-1) + 1
    roles = said.roles(
        tokenizer.token_to_id, size, reachable=reachable, defaults=defaults, opens=opens
    )
    config = said.config_of(roles, lambda number: str(tokenizer.id_to_token(number)))
    # The library's own text, so that a saved one has the same fingerprint.
    stops = said.stops(roles.eos, size)
    text = json.dumps(spec, ensure_ascii=False)
    return FastTokenizer(text, roles, config, stops, said.where)


def _parsed(spec: Spec, said: Stated) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(spec))
    except BaseException as error:
        # The library raises bare Exceptions, and its panics are not even that.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{said.where}: {FAST} describes no tokenizer ({reason})") from error


def _check_added(spec: Spec, tokenizer: tokenizers.Tokenizer, said: Stated) -> None:
    """Raises UserError where a token has one id in one file, or place, and another in the next."""
    stated = [(token["content"], token["id"], FAST) for token in spec.get("added_tokens") or ()]
    stated += [(token, number, CONFIG) for token, number in said.added.items()]
    for token, number, file in stated:
        found = tokenizer.token_to_id(token)
        if found not in (None, number):
            raise UserError(
                f"{said.where}: {file} gives {token!r} the id {number}, and the vocabulary of "
                f"{FAST} {found}: are they of one model?"
            )


def _openers(tokenizer: tokenizers.Tokenizer) -> list[int]:
    """Ids of the usual names of a token that opens a text, for a file that stands alone."""
    names = ("<|begin_of_text|>", "<bos>", "<s>")
    return [found for name in names if (found := tokenizer.token_to_id(name)) is not None]


def _as_configured(spec: Spec, said: Stated) -> None:
    """BERT's folders say how to normalise twice; tokenizer_config.json has the last word."""
    normalizer = spec.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return
    names = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    for theirs, ours in names.items():
        if theirs in said.config:
            normalizer[ours] = said.config[theirs]


def from_vocab(data: bytes, said: Stated) -> FastTokenizer:
    """BERT's vocab.txt: one piece a line; lower-cased unless tokenizer_config.json says otherwise.

    Raises:
      UserError: if it is no such file.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{said.where}: {VOCAB} is not UTF-8 ({error})") from error
    vocabulary = {piece.rstrip("\r"): number for number, piece in enumerate(lines) if piece}
    missing = [token for token in _BERT_TOKENS.values() if token not in vocabulary]
    if missing:
        raise UserError(f"{said.where}: {VOCAB} lacks {', '.join(missing)}: is it BERT's?")
    special = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    spec = {
        "version": "1.0",
        "added_tokens": [
            {"id": vocabulary[token], "content": token, "special": True, **special}
            for token in sorted(
                {*_BERT_TOKENS.values(), "[MASK]"} & set(vocabulary), key=vocabulary.__getitem__
            )
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    return from_json(json.dumps(spec).encode(), said)
