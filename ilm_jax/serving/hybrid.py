"""The hybrid that LUMEN is held against: a sequential model picks, a language model narrates.

REGEN's (Su et al. 2025) has FLARE in the one place and Gemma 2B in the other; here it is any fit of
runs/sequential.py, and a run that learnt to speak behind an item (runs/lumen.gin).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ilm_jax.data.examples.mentions import example_of
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.runs.sequential import SequentialFit
from ilm_jax.serving.answering import Answerer, Row
from ilm_jax.serving.requests import Request


@dataclasses.dataclass(frozen=True, eq=False)
class Hybrid:
    """Picks and narrates.

    Attributes:
      picker: trained on the catalogue; with critiques, if it is to hear them.
      narrator: of the same catalogue.

    Raises:
      UserError: for a narrator that does not speak behind items, or of another catalogue.
    """

    picker: SequentialFit
    narrator: Answerer

    def __post_init__(self) -> None:
        purchases = self.narrator.purchases
        if purchases is None:
            raise UserError("the narrator did not learn to speak behind an item: runs/lumen.gin")
        theirs, mine = purchases.renderer.catalogue.num_items, self.picker.train.num_items
        if theirs != mine:
            raise UserError(
                f"the picker knows {mine} items and the narrator {theirs}: "
                "train both on one dataset"
            )

    def recommend(
        self,
        histories: Sequence[Sequence[int]],
        critiques: Sequence[str],
        count: int,
        config: DecodingConfig,
        *,
        exclude_seen: bool = True,
    ) -> list[Row]:
        """{"items": [{"id", "title"}, …], "text", "tokens", "stop"}: lists of the picker, and what
        the narrator says of the first; it reads the critique too.

        Args:
          histories: item rows, oldest first.
          critiques: what each wishes now, "" for nothing.
          count: length of the lists.
          config: how texts are written.
          exclude_seen: whether items of the history are no candidates.

        Raises:
          UserError: as `SequentialFit.recommend` and `Answerer.narratives`.
        """
        rows = [np.asarray(history, np.int32) for history in histories]
        lists = self.picker.recommend(rows, count, exclude_seen=exclude_seen, critiques=critiques)
        asked = [
            self._request(number, history, words)
            for number, (history, words) in enumerate(zip(histories, critiques, strict=True))
        ]
        first = [int(row) for row in lists[:, 0]]
        assert self.narrator.purchases is not None
        catalogue = self.narrator.purchases.renderer.catalogue
        return [
            {
                "items": [
                    {"id": catalogue.item_ids[row], "title": catalogue.titles[row]}
                    for row in items
                    if row >= 0
                ],
                **{name: text[name] for name in ("text", "tokens", "stop")},
            }
            for items, text in zip(
                lists.tolist(), self.narrator.narratives(asked, first, config), strict=True
            )
        ]

    def _request(self, number: int, history: Sequence[int], words: str) -> Request:
        """The narrator's prompt of its training."""
        purchases = self.narrator.purchases
        assert purchases is not None
        most = purchases.renderer.settings.history
        history = list(history)[-most:]
        prompt = purchases.prompt(history, {len(history): words} if words else {})
        tokens = PromptTokenizer(self.narrator.tokenizer).prompt(prompt)
        example = example_of(tokens, purchases.renderer.catalogue.name, f"history {number}")
        return Request(number, number, prompt.text, example)
