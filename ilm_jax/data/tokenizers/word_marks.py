"""Which pieces begin a word: SentencePiece writes the space before one as a mark in front of it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ilm_jax.errors import UserError

MARK = "\u2581"


def word_begins(pieces: Sequence[str], ids: int, where: str) -> Bool[np.ndarray, " ids"]:
    """True at the ids whose pieces begin a word.

    Args:
      pieces: spelling of each id; ids behind them (added tokens) begin none.
      ids: number of ids.
      where: the tokenizer lies, for messages.

    Raises:
      UserError: if no piece bears the mark.
    """
    begins = np.zeros(ids, bool)
    begins[: len(pieces)] = [piece.startswith(MARK) for piece in pieces[:ids]]
    if not begins.any():
        raise UserError(
            f"{where}: no piece of this tokenizer marks where a word begins ({MARK!r}), so tokens "
            "have no word ids: name a SentencePiece tokenizer, such as T5's, by TOKENIZER, or set "
            "LanguageModelling.word_rows = 0"
        )
    return begins
