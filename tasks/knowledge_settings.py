"""Settings of the tasks of recommendation knowledge (knowledge.py)."""

import dataclasses
from typing import Annotated

from ilm_jax.checks import Choice, InputFile, Range, check
from ilm_jax.data.examples.prompt_settings import Named

# Stands in the place of what is hidden.
GAP = "___"


@dataclasses.dataclass(frozen=True)
class KnowledgeSettings:
    """Settings of these tasks alone.

    Attributes:
      mention: how prompts name items; held-out ones are always named by id.
      answer: how answers do: "title", or "id" (which ids, `TaskSettings.item_index` says).
      candidates: items to rank in "ranking", the right one included.
      candidates_file: of `ilm candidates`, or JSON lines {"user", "split", "candidates"} with raw
        ids, that fix the lists of validation and test; "": drawn by hash.
      negatives_may_be_held_out: whether a negative may be what its user chooses in a later split;
        else it is no item of the user's at all.
      mask_share: of an item's words that "mlm" and "mlm_item" hide.

    Raises:
      SettingError: for a value that makes no sense.
    """

    mention: Named = "title"
    answer: Annotated[str, Choice(("title", "id"))] = "title"
    candidates: Annotated[int, Range(2)] = 20
    candidates_file: InputFile = ""
    negatives_may_be_held_out: bool = False
    mask_share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.15

    def __post_init__(self) -> None:
        check(self)
