"""Masked language modelling of items' texts, as questions (knowledge.py)."""

import functools

import numpy as np

from ilm_jax.data.catalogue.splits import FOLDS
from ilm_jax.data.examples.gaps import with_gaps, words_of
from ilm_jax.data.examples.prompts import Segment
from ilm_jax.tasks.histories import Mentions
from ilm_jax.tasks.knowledge_settings import GAP, KnowledgeSettings
from ilm_jax.tasks.prompted import Prompted, PromptTask


class MaskedWords(PromptTask):
    """An item's text with gaps in, the missing words out."""

    wording = (
        "Some words about a {dataset} item are missing: {text} In order, they are:",
        "Restore the gaps. {text} Gaps:",
        "What stood where the blanks are? {text} Answer:",
    )

    @functools.cached_property
    def own(self) -> KnowledgeSettings:
        """The family's settings."""
        return self.settings.of(KnowledgeSettings)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Item rows of the split's fold whose text has two words, and variant."""
        texts = self.splits.catalogue.texts
        rows = [row for row in self.splits.items_in(FOLDS[split]) if len(words_of(texts[row])) > 1]
        return self.with_variants(split, row=np.array(rows, np.int32))

    def mentions(self, row: int) -> Mentions:
        """Mentions of the template beside the text: none."""
        del row
        return {}

    def render(self, split: str, row: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw, text = catalogue.item_ids[row], catalogue.texts[row]
        keys = (self.settings.seed, self.spec.version, self.spec.task, raw, variant)
        shown, hidden = with_gaps(text, catalogue.content[row], self.own.mask_share, keys, GAP)
        template = self.template(len(self.wording), split, variant, raw)
        mentions = {"text": [Segment(0, shown)], **self.mentions(row)}
        return Prompted(
            key=f"{raw}#{variant}",
            user="",
            template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(self.wording[template], mentions),
            target_text=" ".join(hidden),
            target_item=row,
        )


class MaskedWordsOfItem(MaskedWords):
    """The same, of an item that is named as histories name it: what its name stands for.

    Without the name the task says nothing of the item itself, unless the text happens to.
    """

    wording = (
        "Some words about {item} of {dataset} are missing: {text} In order, they are:",
        "Restore the gaps. {item}: {text} Gaps:",
        "What stood where the blanks are? {item} is this: {text} Answer:",
    )

    def mentions(self, row: int) -> Mentions:
        """The item; without words if it is held out."""
        mention = self.renderer.history_mention
        return {"item": self.renderer.mention_item(row, mention, not self.renderer.held_out(row))}
