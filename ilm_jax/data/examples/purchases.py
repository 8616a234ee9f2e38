"""Prompts of LUMEN: what was bought, what is wished, and what comes next (Su et al. 2025, REGEN).

A critique steers from one purchase to the next, in the customer's own words. The last one stands
behind the history; an earlier one, where it is shown, before the item that it led to. Tasks and
conversations render by this one class, so that a model is asked as it was trained. Wording ours.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated

from ilm_jax.checks import Choice, check
from ilm_jax.data.examples.prompts import PromptRenderer, Rendered, Segment
from ilm_jax.errors import UserError

WORDING = (
    "Purchases[ of {user}] on {dataset}:{history}.[ Now they say: {critique}] Next, and why:",
    "[{user}|Somebody] bought{history} on {dataset}.[ The wish is: {critique}] An item and its "
    "reason:",
    "{dataset} basket, oldest first:{history}.[ Request: {critique}] Recommended, and what for:",
)
NARRATIVES = ("purchase_reason", "endorsement")
NO_ITEM = "a critique steers from an item to the next, and there is no item before {!r}: {}"


@dataclasses.dataclass(frozen=True)
class LumenSettings:
    """Settings of LUMEN's tasks alone; critiques and narratives are REGEN's (`RegenSettings`).

    Attributes:
      narrative: what is said of the item: "purchase_reason" or "endorsement".
      past_critiques: earlier critiques stand in the history, before the items that they led to.

    Raises:
      SettingError: for a value that makes no sense.
    """

    narrative: Annotated[str, Choice(NARRATIVES)] = "purchase_reason"
    past_critiques: bool = False

    def __post_init__(self) -> None:
        check(self)


class PurchasePrompts:
    """Renders histories with critiques as prompts.

    Attributes:
      renderer: mentions items and users.
      past: whether earlier critiques are shown, before the items that they led to.
    """

    def __init__(self, renderer: PromptRenderer, *, past: bool = False) -> None:
        """Of one catalogue and setting."""
        self.renderer, self.past = renderer, past

    def prompt(
        self,
        history: Sequence[int],
        critiques: Mapping[int, str] | None = None,
        *,
        user: Sequence[Segment] = (),
        template: int = 0,
    ) -> Rendered:
        """The prompt that asks for the next item and what speaks for it.

        Args:
          history: rows of the items, oldest first.
          critiques: what was wished before the item at a place of the history; at
            `len(history)`: before the one that is asked for.
          user: mention of the user.
          template: number of the wording.

        Raises:
          UserError: for a critique without an item before it.
        """
        wishes = dict(critiques or {})
        for place, words in wishes.items():
            if not 1 <= place <= len(history):
                raise UserError(NO_ITEM.format(words, "name an item before it"))
        last = wishes.pop(len(history), "")
        elements = self.renderer.history(list(history))
        for place, words in wishes.items() if self.past else ():
            # What stands before an item in its own element goes with it where prompts are cut.
            elements[place] = [Segment(0, f" (wanted: {words})"), *elements[place]]
        mentions = {
            "user": list(user),
            "critique": [Segment(0, last)] if last else [],
        }
        return self.renderer.fill(WORDING[template], mentions, elements)
