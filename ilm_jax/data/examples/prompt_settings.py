"""Settings of the wording of prompts and answers: mentions, ids, templates."""

import dataclasses
from typing import Annotated, Any, Self

from ilm_jax.checks import Choice, Count, InputFile, Seed, check
from ilm_jax.errors import UserError

MENTIONS = (
    "slot",
    "id",
    "title",
    "none",
    "id+slot",
    "slot+id",
    "title+slot",
    "slot+title",
    "id+title",
    "title+id",
)
_NAMED = tuple(mention for mention in MENTIONS if mention != "none")
ITEM_INDEXES = ("random", "sequential", "collaborative", "semantic")
USER_MENTIONS = ("none", "id", "slot", "id+slot", "slot+id")

# Ways to name an item where it must be named, and where it may be left out.
Named = Annotated[str, Choice(_NAMED)]
Mention = Annotated[str, Choice(MENTIONS)]


@dataclasses.dataclass(frozen=True)
class PromptSettings:
    """Settings of a `PromptRenderer`.

    Attributes:
      mention_description: how the prompt of a description names its item, one of MENTIONS.
      mention_history: how the items of a history are named.
      mention_user: how a prompt names its user ("none": not at all), one of USER_MENTIONS.
      target: "id" or "title" of the next item. A held-out item is always named by its id.
      item_index: how an item's id is found: "random" (by hash), "sequential" (order of first
        training interaction), "collaborative" (clusters of training co-occurrence) or "semantic"
        (codes of `item_codes`). OpenP5's tasks fix it, each its own.
      index_order: of the users that "sequential" walks: "original", "short2long" or "long2short".
      cluster_tokens: "collaborative": different cluster tokens, OpenP5's k.
      cluster_split: "collaborative": parts of each cluster, OpenP5's N.
      item_codes: "semantic": file of `ilm semantic_ids`.
      history: at most so many items before the target (OpenP5: 20).
      prompt_file: file of templates in OpenP5's format that ask for the next item; "": ours.
      bare_history: the prompt of a sequential task is its history alone, behind the user if that
        is named: slots side by side, as a sequential model reads it. Without effect under
        text_only, which leaves no slots.
      text_only: every slot mention falls back to words: description to "none", history to "id"
        (what remains of a combination is kept), user to "id".
      seed: of the random item and user numbers, and of a task's draws.

    Raises:
      UserError: for a value that makes no sense.
    """

    mention_description: Mention = "slot"
    mention_history: Named = "id+slot"
    mention_user: Annotated[str, Choice(USER_MENTIONS)] = "id"
    target: Annotated[str, Choice(("id", "title"))] = "id"
    item_index: Annotated[str, Choice(ITEM_INDEXES)] = "random"
    index_order: Annotated[str, Choice(("original", "short2long", "long2short"))] = "original"
    cluster_tokens: Count = 200
    cluster_split: Count = 20
    item_codes: InputFile = ""
    history: Count = 10
    prompt_file: InputFile = ""
    bare_history: bool = False
    text_only: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        check(self)
        if not 2 <= self.cluster_split <= self.cluster_tokens:
            raise UserError(
                f"task settings cluster_split={self.cluster_split}, "
                f"cluster_tokens={self.cluster_tokens}: give 2 <= cluster_split <= cluster_tokens"
            )

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)
