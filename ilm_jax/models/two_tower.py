"""Scorers whose score is <user vector, item vector>, so that their vectors make a table.

Plain matrix factorization (`user_tower="id"`), or a user tower that reads the user's history and
can therefore serve users whom training never saw (`user_tower="history"`).
"""

from typing import cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

MULTIPLE = 256
"""Tables are filled up to a multiple of so many rows, so that the devices of any usual mesh can
share them. The rows that fill up are zero; nothing reads them, so that they stay so."""


class TwoTower(nn.Module):
    """Two towers over one dot product.

    Attributes:
      num_users, num_items: rows of the two tables.
      dim: length of the vectors.
      user_tower: "id", a vector for each user; "history", the mean of the input vectors of the
        items in the user's history.
      hidden: widths of an MLP (ReLU) on top of both towers; none if empty.
      init_stddev: of table entries, divided by sqrt(dim).
    """

    num_users: int
    num_items: int
    dim: int
    user_tower: str = "id"
    hidden: tuple[int, ...] = ()
    init_stddev: float = 0.1

    def setup(self) -> None:
        """Tables, and the MLPs if there are any."""
        if self.user_tower not in ("id", "history"):
            raise ValueError(f"user_tower={self.user_tower!r}; choose 'id' or 'history'")
        normal = nn.initializers.normal(self.init_stddev / self.dim**0.5)

        def table(key: Array, rows: int) -> Float32[Array, "filled dim"]:
            """Normal rows, filled up with zeros to a multiple that meshes divide."""
            return jnp.pad(normal(key, (rows, self.dim)), ((0, -rows % MULTIPLE), (0, 0)))

        users = self.num_users if self.user_tower == "id" else self.num_items
        split = nn.with_logical_partitioning(table, ("rows", None))
        self.user_table = cast(Array, self.param("user_table", split, users))
        self.item_table = cast(Array, self.param("item_table", split, self.num_items))
        if self.hidden:
            widths = (*self.hidden, self.dim)
            self.user_layers = [nn.Dense(width) for width in widths]
            self.item_layers = [nn.Dense(width) for width in widths]

    def users(
        self, users: Int[Array, " batch"], histories: Int[Array, "batch length"] | None = None
    ) -> Float32[Array, "batch dim"]:
        """Vectors of users; `histories` (padded with num_items) are read by the history tower."""
        if self.user_tower == "id":
            return self._top(self.user_table[users], "user")
        assert histories is not None, "the history tower reads histories"
        real: Bool[Array, "batch length"] = histories < self.num_items
        rows = jnp.where(real, histories, len(self.user_table))  # not a row that fills up
        read = self.user_table.at[rows].get(mode="fill", fill_value=0.0)
        mean = read.sum(1) / jnp.maximum(real.sum(1, keepdims=True), 1)
        return self._top(mean, "user")

    def items(self, items: Int[Array, " batch"]) -> Float32[Array, "batch dim"]:
        """Vectors of items."""
        return self._top(self.item_table[items], "item")

    def __call__(
        self,
        users: Int[Array, " batch"],
        items: Int[Array, " batch"],
        histories: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, " batch"]:
        """Score of each (user, item) pair."""
        return jnp.sum(self.users(users, histories) * self.items(items), axis=-1)

    def _top(self, vectors: Float32[Array, "batch dim"], side: str) -> Float32[Array, "batch dim"]:
        if not self.hidden:
            return vectors
        layers = self.user_layers if side == "user" else self.item_layers
        for layer in layers[:-1]:
            vectors = nn.relu(layer(vectors))
        return layers[-1](vectors)
