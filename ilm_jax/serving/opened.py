"""A trained run that is ready to answer, as a notebook uses it."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.runs.opening import Bindings, load_trained, run_of_folder
from ilm_jax.runs.run import Run
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.conversation import Conversation


@dataclasses.dataclass(frozen=True)
class ScoredItem:
    """An item of a recommendation.

    Attributes:
      id, title: the catalogue's.
      score: log-probability of the item's string after the prompt, in nats.
    """

    id: str
    title: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedRun:
    """An opened run; weights and catalogue are opened when they are first needed.

    Attributes:
      run: the recipe.
      step: of the checkpoint: a number, "best" (lowest validation loss) or "last".
    """

    run: Run
    step: int | str = "best"

    @property
    def catalogue(self) -> Catalogue:
        """Items, users and interactions."""
        return self.run.catalogue

    @functools.cached_property
    def model(self) -> TrainedModel:
        """The model with its parameters."""
        return load_trained(self.run, self.step)

    def recommend(
        self,
        user: str | None = None,
        *,
        history: Sequence[str] = (),
        critique: str = "",
        count: int = 10,
    ) -> list[ScoredItem]:
        """The best items, none of them chosen before.

        Args:
          user: id of a user; without a `history`, what he or she chose is looked up.
          history: ids or titles of chosen items, oldest first.
          critique: what is wanted, in words.
          count: length of the list.

        Raises:
          UserError: for an unknown user or item, or a count beyond the catalogue.
        """
        asked = self._conversation(count)
        if user is not None:
            asked.speak_as(user, recall=not history)
        asked.add(history)
        if critique:
            asked.criticise(critique)
        return [ScoredItem(**item) for item in asked.rank()]

    def describe(self, item: str, **decoding: Any) -> str:
        """The model's text about an item, named by its id or title.

        Args:
          item: the item.
          **decoding: fields of `DecodingConfig`, such as max_new_tokens.

        Raises:
          UserError: for an unknown item.
        """
        asked = self._conversation(1, **decoding)
        return asked.describe([asked.names.item(item)])[0]

    def ask(self, prompt: str, **decoding: Any) -> str:
        """The answer to a prompt, which may mention {item:ID} and {user:ID}.

        Raises:
          UserError: for an unknown item or user, or a prompt that is too long.
        """
        (answer,) = self._answerer.texts(self._answerer.ask([prompt]), self._decoding(**decoding))
        return answer["text"]

    @functools.cached_property
    def _answerer(self) -> Answerer:
        return Answerer.of_trained(self.model)

    def _conversation(self, count: int, **decoding: Any) -> Conversation:
        return Conversation(self._answerer, count=count, config=self._decoding(**decoding))

    def _decoding(self, **fields: Any) -> DecodingConfig:
        ends = {"stop_ids": tuple(self.run.stop_ids), "pad_id": self.run.tokenizer.pad_id}
        return DecodingConfig(**{"max_new_tokens": 48, **ends, **fields})


def open_run(
    model_dir: str | os.PathLike, step: int | str = "best", bindings: Bindings = ()
) -> OpenedRun:
    """Opens what a run trained.

        run = ilm_jax.open_run("runs/ilm")
        run.recommend("u0007", count=5)

    Args:
      model_dir: its folder.
      step: a checkpoint's number, "best" or "last".
      bindings: that replace those of its config.gin, such as {"CACHE_DIR": "/data"}.

    Raises:
      UserError: if the folder is none of a run.
    """
    return OpenedRun(run_of_folder(model_dir, bindings), step)
