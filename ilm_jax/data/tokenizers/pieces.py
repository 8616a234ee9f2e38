"""Published SentencePiece models: T5, Llama 2, Mistral, Gemma.

The `sentencepiece` library itself encodes, as it did when these models were trained; this file adds
the special ids, the seams (see `Tokenizer.encode`) and the spans. Tokens that were added behind the
model's own (T5's 100 sentinels) have ids, and no text encodes to them.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import sentencepiece
from jaxtyping import Bool
from sentencepiece import sentencepiece_model_pb2, sentencepiece_pb2

from ilm_jax.data.tokenizers.chat_template import template_of
from ilm_jax.data.tokenizers.protocol import Span, Special
from ilm_jax.data.tokenizers.stated import CONFIG, Roles, Stated, generation_of
from ilm_jax.data.tokenizers.word_marks import word_begins
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json

# By tokenizer_class, where the model file alone decides the ids; "" where none is stated.
CLASSES = ("", "T5", "Llama", "CodeLlama", "Gemma")
MODEL = "tokenizer.model"
T5_SENTINELS = 100
# Kinds of pieces: never matched in a text, and matched wherever they are spelled.
_CONTROL, _USER_DEFINED = 3, 4
# The generated modules build their classes when they are imported, unseen by type checkers.
_MODEL: Any = vars(sentencepiece_model_pb2)["ModelProto"]
_TEXT: Any = vars(sentencepiece_pb2)["SentencePieceText"]


class PiecesTokenizer:
    """A SentencePiece model of somebody else's; see `Tokenizer`.

    Attributes:
      sentinels: T5's <extra_id_0>, <extra_id_1>, …, whose ids count down from the last.
    """

    space_leads = True
    chat = None

    def __init__(
        self,
        model: bytes,
        roles: Roles,
        sentinels: int,
        config: bytes,
        stops: tuple[int, ...] = (),
        hidden: tuple[int, ...] = (),
        where: str = "the tokenizer",
    ) -> None:
        """Takes what the files say.

        Args:
          model: its bytes.
          roles: the special ids.
          sentinels: T5's.
          config: the tokenizer_config.json that says the special ids.
          stops: ids that end a text; eos alone by default.
          hidden: user-defined symbols that no text encodes to.
          where: all of it lies, for messages.
        """
        self.model, self.roles, self._config = model, roles, config
        self.stop_ids, self._hidden = stops or (roles.eos,), hidden
        self.template, self._where = template_of(config, where), where
        self.pad_id, self.eos_id, self.unk_id = roles.pad, roles.eos, roles.unk
        self.bos_id, self.cls_id, self.dec_id = roles.bos, roles.cls, roles.dec
        self.vocab_size, self.text_vocab_size = roles.size, roles.text_size
        self.least_vocab_size = roles.least_size
        self.sentinels = tuple(roles.size - 1 - k for k in range(sentinels))
        proto = _MODEL.FromString(model)
        for number in hidden:
            proto.pieces[number].type = _CONTROL
        plain = proto.SerializeToString() if hidden else model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=plain)
        normalizer = proto.normalizer_spec
        self._strips = normalizer.remove_extra_whitespaces
        self._prefixes = normalizer.add_dummy_prefix
        normalizer.add_dummy_prefix = False
        bare = proto.SerializeToString() if self._prefixes else plain
        self._bare = sentencepiece.SentencePieceProcessor(model_proto=bare)
        settings = [dataclasses.asdict(roles), sentinels, *([list(hidden)] if hidden else [])]
        self.fingerprint = sha256_json([MODEL, hashlib.sha256(model).hexdigest(), settings])

    def __reduce__(self) -> tuple:
        return PiecesTokenizer, (
            self.model,
            self.roles,
            len(self.sentinels),
            self._config,
            self.stop_ids,
            self._hidden,
            self._where,
        )

    @functools.cached_property
    def specials(self) -> Mapping[str, Special]:
        """See `Tokenizer`: control pieces, and what was added behind the model's own."""
        library = self._processor
        controls = [n for n in range(library.get_piece_size()) if library.is_control(n)]
        found = {library.id_to_piece(number): Special(number) for number in controls}
        for number, token in json.loads(self._config).get("added_tokens_decoder", {}).items():
            if isinstance(token, dict) and token.get("special"):
                strips = bool(token.get("lstrip")), bool(token.get("rstrip"))
                found[token["content"]] = Special(int(number), *strips)
        return found

    @property
    def prefixes_after_special(self) -> bool:
        """See `Tokenizer`: so they do unless tokenizer_config.json says that it is not legacy."""
        return self._prefixes and bool(json.loads(self._config).get("legacy", True))

    @functools.cached_property
    def word_begins(self) -> Bool[np.ndarray, " ids"]:
        """See `Tokenizer`."""
        count = min(self._processor.get_piece_size(), self.vocab_size)
        pieces = [self._processor.id_to_piece(number) for number in range(count)]
        return word_begins(pieces, self.vocab_size, self._where)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """See `Tokenizer.encode`."""
        return self._encoder(text, continues).encode(text)

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], list[Span]]:
        """See `Tokenizer.encode_with_spans`."""
        encoder: Any = self._encoder(text, continues)
        proto = _TEXT.FromString(encoder.encode(text, out_type="serialized_proto"))
        # Offsets count bytes of UTF-8; a byte in the middle of a character counts for it.
        ends = itertools.accumulate(len(character.encode()) for character in text)
        character_of = [0]
        for number, end in enumerate(ends):
            character_of += [number] * (end - len(character_of)) + [number + 1]
        ids, spans = [], []
        for piece in proto.pieces:
            start, end = character_of[piece.begin], character_of[piece.end]
            letters = piece.piece.strip("▁").strip() and not self._processor.is_byte(piece.id)
            if letters and not text[start:end].strip():
                # The first part of a character that became several letters: the library gives
                # the character to the last of them.
                end = min(end + 1, len(text))
            ids.append(piece.id)
            spans.append((start, end))
        return ids, self._share_characters(ids, spans)

    def _share_characters(self, ids: list[int], spans: list[Span]) -> list[Span]:
        """Byte pieces: the library gives the character to the last of them, the rest are empty."""
        shared, run = [], None
        for token, span in zip(reversed(ids), reversed(spans), strict=True):
            if not self._processor.is_byte(token):
                run = None
            elif span[0] < span[1] or run is None:
                run = span
            shared.append(run or span)
        return shared[::-1]

    def _encoder(self, text: str, continues: bool) -> sentencepiece.SentencePieceProcessor:
        if not continues or not self._prefixes:
            return self._processor
        # A normaliser that strips would lose the space that opens a text behind another one; the
        # dummy prefix puts it back.
        return self._processor if self._strips and text[:1].isspace() else self._bare

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """See `Tokenizer.decode`."""
        plain = [int(token) for token in ids]
        limit = self._processor.get_piece_size()
        if min(plain, default=0) < 0:
            raise ValueError(f"id {min(plain)} is no token's")
        special = {self.pad_id, self.eos_id, self.bos_id, self.cls_id, self.dec_id}
        control = self._processor.is_control
        seen = [t for t in plain if t < limit and t not in special and not control(t)]
        text = self._processor.decode(seen)
        # The library takes the first space for the dummy prefix.
        if continues and self._prefixes and seen:
            text = " " * self._processor.id_to_piece(seen[0]).startswith("▁") + text
        return text

    def save(self, path: str | os.PathLike) -> None:
        """See `Tokenizer.save`."""
        files = {MODEL: self.model, CONFIG: self._config}
        for name, data in (files | generation_of(self.stop_ids)).items():
            with atomic_write(pathlib.Path(path) / name, "wb") as stream:
                stream.write(data)


def from_model(model: bytes, said: Stated) -> PiecesTokenizer:
    """A published model with what the files beside it say.

    Raises:
      UserError: for a model that writes its spaces behind the words.
    """
    proto = _MODEL.FromString(model)
    if proto.trainer_spec.treat_whitespace_as_suffix:
        raise UserError(f"{said.where}: models with spaces behind the words are not supported")
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = processor.get_piece_size()
    added = said.added
    _check_added(processor, said)
    size = max([pieces, *(number + 1 for number in added.values())])
    sentinels = said.config.get("extra_ids", T5_SENTINELS * (said.tokenizer_class == "T5"))
    if type(sentinels) is not int or not 0 <= sentinels <= 10_000:
        raise UserError(f"{said.where}: {CONFIG} says extra_ids={sentinels!r}, which is no count")
    # Newer files list the sentinels among the added tokens, older ones only count them.
    size = max(size, pieces + sentinels)
    defaults = {
        role: number if number >= 0 else None
        for role, number in (
            ("pad", processor.pad_id()),
            ("eos", processor.eos_id()),
            ("bos", processor.bos_id()),
            ("unk", processor.unk_id()),
        )
    }

    def to_token(number: int) -> str:
        """Spelling of an id, added tokens included."""
        names = {number: token for token, number in added.items()}
        return names[number] if number in names else processor.id_to_piece(number)

    def to_id(token: str) -> int | None:
        """Id of a spelling; None where the vocabulary lacks it (SentencePiece says unk)."""
        number = processor.piece_to_id(token)
        known = processor.id_to_piece(number) == token
        return added.get(token, number if known else None)

    roles = said.roles(to_id, size, reachable=pieces, defaults=defaults, opens=defaults["bos"])
    # Gemma's turn marks are symbols to the library; what its tokenizer_config.json calls special is
    # for whoever writes a prompt, not for the texts in it.
    special = said.special
    hidden = tuple(
        number
        for number, piece in enumerate(proto.pieces)
        if piece.type == _USER_DEFINED and piece.piece in special
    )
    return PiecesTokenizer(
        model,
        roles,
        sentinels,
        said.config_of(roles, to_token),
        said.stops(roles.eos, size),
        hidden,
        said.where,
    )


def _check_added(processor: sentencepiece.SentencePieceProcessor, said: Stated) -> None:
    """Raises UserError if an added token has another id in the model."""
    for token, number in said.added.items():
        piece = processor.piece_to_id(token)
        if piece != number and processor.id_to_piece(piece) == token:
            raise UserError(
                f"{said.where}: {CONFIG} gives {token!r} the id {number}, and the model {piece}: "
                "are they of one model?"
            )
