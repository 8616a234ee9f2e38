"""Which checkpoints are compared, and kept, by what was recorded with them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orbax.checkpoint.checkpoint_managers import preservation_policy


def loss_of(metrics: Mapping[str, float] | None) -> float:
    """The validation loss that checkpoints are compared by; infinite without a finite one."""
    loss = (metrics or {}).get("loss", math.inf)
    return loss if math.isfinite(loss) else math.inf


@dataclasses.dataclass
class LastGood(preservation_policy.PreservationPolicy):
    """Keeps the newest checkpoint that is good."""

    is_good: Callable[[int], bool]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """One flag for each checkpoint, oldest first."""
        good = [one.step for one in checkpoints if self.is_good(one.step)]
        return [one.step in good[-1:] for one in checkpoints]
