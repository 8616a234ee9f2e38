"""Which kind of batch each step takes, and where every stream stands: the data state is numbers."""

import dataclasses
from collections.abc import Mapping

from ilm_jax.checks import Number, check
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A cycle of batch kinds, spread as evenly as the shares allow.

    Attributes:
      shares: {kind: steps per cycle}, e.g. {"item_text": 2, "item_item": 1}.
    """

    shares: Mapping[str, Number]

    def __post_init__(self) -> None:
        check(self)

    @property
    def cycle(self) -> tuple[str, ...]:
        """The kinds of one cycle, in order.

        Raises:
          UserError: if a share is not a whole number of at least 0, or all are 0.
        """
        for kind, share in self.shares.items():
            if not isinstance(share, int) or share < 0:
                raise UserError(f"schedule share of {kind!r} is {share!r}: give whole numbers >= 0")
        total = sum(self.shares.values())
        if not total:
            raise UserError("the schedule has no steps: give at least one kind a share above 0")
        taken = dict.fromkeys(self.shares, 0)
        cycle = []
        for step in range(1, total + 1):
            # The kind that lags most behind its share; ties go to the first named.
            kind = max(self.shares, key=lambda k: self.shares[k] * step / total - taken[k])
            taken[kind] += 1
            cycle.append(kind)
        return tuple(cycle)

    def kind_at(self, step: int) -> str:
        """The kind of step `step`."""
        cycle = self.cycle
        return cycle[step % len(cycle)]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds with a share above 0, in the order named."""
        return tuple(kind for kind, share in self.shares.items() if share)


@dataclasses.dataclass(frozen=True)
class Positions:
    """The next example of every stream. A checkpoint stores this; resuming seeks in O(1).

    Counting examples, not batches, keeps a changed batch size or process count legal.
    """

    next_example: Mapping[str, int]

    def advance(self, kind: str, examples: int) -> "Positions":
        """The positions after a batch of `kind`."""
        return Positions({**self.next_example, kind: self.next_example.get(kind, 0) + examples})
