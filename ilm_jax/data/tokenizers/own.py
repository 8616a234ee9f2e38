"""Our tokenizer: SentencePiece without normalisation, so that text survives a round trip.

Digits are single pieces, unknown characters fall back to their UTF-8 bytes, and no dummy prefix is
added. One exception to the round trip: SentencePiece writes spaces as U+2581, so that character in
a text comes back as a space. TensorFlow-free; `tasks/common.py` wraps tokenizers for SeqIO.
"""

import functools
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import sentencepiece
from jaxtyping import Bool

from ilm_jax.data.tokenizers.protocol import Span, Special
from ilm_jax.data.tokenizers.word_marks import word_begins
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write

PAD, EOS, UNK, BOS, CLS, DEC = range(6)
# Six ids above and one piece for each byte value; the rest is learned.
RESERVED = 6 + 256
SMALLEST = RESERVED + 64
SPECIAL_PIECES = ["<pad>", "</s>", "<unk>", "<s>", "<cls>", "<dec>"]


def is_own(processor: sentencepiece.SentencePieceProcessor) -> bool:
    """Whether the model is one that `OwnTokenizer.train` made."""
    count = min(len(SPECIAL_PIECES), processor.get_piece_size())
    return [processor.id_to_piece(i) for i in range(count)] == SPECIAL_PIECES


class OwnTokenizer:
    """A SentencePiece model of ours and its fingerprint; see `Tokenizer` for the attributes.

    Attributes:
      pad_id, eos_id, unk_id, bos_id, cls_id, dec_id: fixed ids 0 to 5; no text encodes to any.
      fingerprint: hex SHA-256 of the model's bytes.
    """

    pad_id: int = PAD
    eos_id: int = EOS
    unk_id: int | None = UNK
    bos_id: int | None = BOS
    cls_id: int = CLS
    dec_id: int = DEC
    stop_ids: tuple[int, ...] = (EOS,)
    space_leads = False
    template = chat = None
    specials: Mapping[str, Special] = {}
    prefixes_after_special = False

    def __init__(self, model: bytes) -> None:
        """Reads a serialised SentencePiece model.

        Raises:
          ValueError: if its first ids are not ours.
        """
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        if not is_own(self._processor):
            raise ValueError(f"ids 0 to 5 are not {', '.join(SPECIAL_PIECES)}")
        self.model = model
        self.vocab_size = self._processor.get_piece_size()
        self.least_vocab_size = self.text_vocab_size = self.vocab_size
        self.fingerprint = hashlib.sha256(model).hexdigest()

    def __reduce__(self) -> tuple:
        return OwnTokenizer, (self.model,)

    @functools.cached_property
    def word_begins(self) -> Bool[np.ndarray, " ids"]:
        """See `Tokenizer`; a row's first word, before which no space stands, has no mark."""
        pieces = [self._processor.id_to_piece(number) for number in range(self.vocab_size)]
        return word_begins(pieces, self.vocab_size, "the tokenizer of the dataset")

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Token ids of `text`, without bos or eos; the same wherever it stands."""
        return self._processor.encode(text)

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], list[Span]]:
        """Token ids and, per token, the [start, end) span of Unicode characters it stands for.

        The byte pieces of one character all carry that character's span.
        """
        ids = self.encode(text)
        lengths = [self._lengths[token] for token in ids]
        if min(lengths, default=0) > 0 and sum(lengths) == len(text):  # no byte pieces
            ends = list(itertools.accumulate(lengths))
            return ids, list(zip([0, *ends[:-1]], ends, strict=True))
        spans, position, missing = [], 0, 0
        for length in lengths:
            if length > 0:
                spans.append((position, position + length))
                position += length
                continue
            # A byte piece: a lead byte opens a character, continuation bytes close it.
            missing = missing - 1 if missing else _CONTINUATIONS[-length]
            spans.append((position, position + 1))
            if not missing:
                position += 1
        if position != len(text):
            raise AssertionError(f"spans cover {position} of {len(text)} characters of {text!r}")
        return ids, spans

    @functools.cached_property
    def _lengths(self) -> list[int]:
        """Characters of every piece; minus the byte value for byte pieces, 0 for special ids.

        Byte 0 and the special ids share the value 0; no special id occurs in encoded text.
        """
        processor = self._processor
        lengths = []
        for token in range(self.vocab_size):
            piece = processor.id_to_piece(token)
            if processor.is_byte(token):
                lengths.append(-int(piece[1:-1], 16))
            else:
                lengths.append(0 if processor.is_control(token) else len(piece))
        lengths[UNK] = 0
        return lengths

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """See `Tokenizer.decode`; special ids are 0 to 5."""
        plain = np.asarray(list(ids), np.int64)
        if len(plain) and plain.min() < 0:
            raise ValueError(f"id {plain.min()} is no token's")
        return self._processor.decode(plain[(plain > DEC) & (plain < self.vocab_size)].tolist())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model file atomically."""
        with atomic_write(path, "wb") as stream:
            stream.write(self.model)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int = 2048,
        path: str | os.PathLike | None = None,
        model_type: str = "bpe",
        whole: Sequence[str] = (),
    ) -> "OwnTokenizer":
        """Trains on `texts` in their order; the same texts give the same bytes.

        Args:
          texts: training strings.
          vocab_size: upper limit; a corpus with too few different pieces gives fewer.
          path: where to save the model, if anywhere.
          model_type: "unigram" or "bpe".
          whole: strings that are one piece each wherever they occur; they come on top of
            `vocab_size`.

        Raises:
          UserError: if vocab_size is too small, the model type is unknown or there is no text.
        """
        if vocab_size < SMALLEST:
            raise UserError(
                f"vocab_size={vocab_size}: special and byte pieces take {RESERVED}; "
                f"give at least {SMALLEST}"
            )
        if model_type not in ("unigram", "bpe"):
            raise UserError(f"model_type={model_type!r}: give 'unigram' or 'bpe'")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                vocab_size=vocab_size + len(whole),
                user_defined_symbols=list(whole),
                model_type=model_type,
                hard_vocab_limit=False,
                split_digits=True,
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                max_sentence_length=1 << 20,
                input_sentence_size=0,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNK,
                bos_id=BOS,
                control_symbols=["<cls>", "<dec>"],
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise UserError(f"cannot train a tokenizer: {error}; give it more text") from error
        tokenizer = cls(model.getvalue())
        if path is not None:
            tokenizer.save(path)
        return tokenizer


# Continuation bytes that follow each byte value in UTF-8.
_CONTINUATIONS = [0] * 0xC0 + [1] * 0x20 + [2] * 0x10 + [3] * 0x10
