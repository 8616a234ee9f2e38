"""A model of the next item: item vectors, an encoder of sequences, and their inner products.

Items have the same vectors where they are read and where they are scored. With texts an item's
vector is e_i + W t_i, t_i the vector of its text. Ours, after FLARE (Hebert et al. 2024, arXiv
2409.11699), which adds a projection of what a language model makes of an item's text to its vector.
What was wished before the next item (a critique) is a further input, added to the item behind which
it was said: e_i + V c. FLARE encodes the critique apart and does not mask it; that its vector is
added to the item's, and is of the same words as the texts', is ours.
"""

from typing import ClassVar, Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from ilm_jax.checks import Dataclass
from ilm_jax.models.layers import Dense, Embed, normal_002, unit
from ilm_jax.models.two_tower import MULTIPLE


class Encoder(Protocol):
    """A module that reads sequences, such as `SASRec`."""

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"]:
        """States behind each item, of what has come until then in its segment.

        Args:
          x: vectors of items, oldest first.
          positions: in each segment, from 0.
          segment_ids: sequences that share a row; 0 is padding, which no item sees.
          deterministic: nothing is dropped.
        """


@runtime_checkable
class EncoderConfig(Dataclass, Protocol):
    """Configuration of an encoder, such as `SASRecConfig`; a dataclass of one's own will do.

    Attributes:
      name: of the method, in tables and reports.
    """

    name: ClassVar[str]

    @property
    def max_length(self) -> int:
        """Items that are read at most."""

    @property
    def embed_dim(self) -> int:
        """Width of item vectors and states."""

    @property
    def dtype(self) -> str:
        """Of the computation."""

    def build(self) -> Encoder:
        """The encoder, a module."""


class NextItemModel(nn.Module):
    """States behind the items of sequences, and vectors of items to multiply them with.

    Attributes:
      config: of the encoder.
      num_items: of the catalogue; the table is filled up to a multiple that meshes divide.
      text_dim: width of the texts' vectors; 0: items have none.
      wish_dim: width of the critiques' vectors; 0: none are read.
      normalised: states and item vectors have length 1.
    """

    config: EncoderConfig
    num_items: int
    text_dim: int = 0
    wish_dim: int = 0
    normalised: bool = False

    def setup(self) -> None:
        """Names the parts."""
        rows = self.num_items + -self.num_items % MULTIPLE
        self.item = Embed(rows, self.config.embed_dim)
        self.encoder = self.config.build()
        if self.text_dim:
            axes = ("cf", "embed")
            self.text = Dense(self.config.embed_dim, axes, kernel_init=normal_002)
        if self.wish_dim:
            self.wish = Dense(self.config.embed_dim, ("cf", "embed"), kernel_init=normal_002)

    def items(
        self, rows: Int[Array, "*batch"], texts: Float[Array, "items text"]
    ) -> Float32[Array, "*batch embed"]:
        """Vectors of items, before they are given length 1."""
        found = self.item(rows)
        if self.text_dim:
            found = found + self.text(jnp.take(texts, rows, axis=0, mode="clip"))
        return found

    def scoring(
        self, rows: Int[Array, "*batch"] | None, texts: Float[Array, "items text"]
    ) -> Float32[Array, "*batch embed"]:
        """Vectors that states are multiplied with; for None of the whole table, filled rows too."""
        if rows is not None:
            found = self.items(rows, texts)
        else:
            found = self.item.whole()
            if self.text_dim:
                given = self.text(texts)
                found = found + jnp.pad(given, ((0, len(found) - len(given)), (0, 0)))
        return unit(found) if self.normalised else found

    def __call__(
        self,
        items: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        texts: Float[Array, "items text"],
        deterministic: bool = True,
        wishes: Float[Array, "batch length wish"] | None = None,
    ) -> Float32[Array, "batch length embed"]:
        """States behind each item: of what has come until then, itself and what was wished behind
        it included; a wish of zeros is none.
        """
        read = self.items(items, texts)
        if wishes is not None:
            read = read + self.wish(wishes)
        states = self.encoder(read, positions, segment_ids, deterministic).astype(jnp.float32)
        return unit(states) if self.normalised else states
