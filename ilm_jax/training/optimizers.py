"""Optimizers on flat parameter dictionaries: schedules, clipping, decay masks."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ilm_jax.checks import BelowOne, Count, Number, Positive, Share, Weight, check
from ilm_jax.errors import UserError

# Biases, norms, temperatures and learned queries carry no weight decay (BLIP-2's rule: none for
# one-dimensional parameters).
NO_DECAY = (r"(^|/)bias$", r"(^|/)scale$", r"norm", r"temperature", r"(^|/)queries/")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or SGD with warm-up, a decay schedule and global-norm clipping.

    Attributes:
      name: "adamw" or "sgd".
      learning_rate: peak, reached after `warmup_steps`.
      schedule: "cosine", "linear" or "constant" after the warm-up.
      warmup_steps: linear warm-up from 0.
      warmup_share: of the steps up to the schedule's end, rounded down, in the place of
        `warmup_steps`.
      end_fraction: the schedule ends at this fraction of the peak.
      decay_steps: step at which the schedule ends, warm-up included; the rate stays there after it.
        None: the run's number of steps when it was started, also where it later goes on for more.
      weight_decay: decoupled; not applied to paths that match `no_decay`.
      eps_hat: of adamw: eps is added to the root of the second moment before its bias is corrected
        (the epsilon-hat of Kingma and Ba 2015, section 2; so does the AdamW of transformers up to
        version 4); else after it.
      clip_norm: global norm to which gradients are clipped; 0 for none.

    Raises:
      UserError: for a warm-up that is given twice.
    """

    name: str = "adamw"
    learning_rate: Positive = 1e-3
    schedule: str = "cosine"
    warmup_steps: Number = 0
    warmup_share: Share = 0.0
    end_fraction: Share = 0.1
    decay_steps: Count | None = None
    b1: BelowOne = 0.9
    b2: BelowOne = 0.98
    eps: Positive = 1e-8
    eps_hat: bool = False
    weight_decay: Weight = 0.05
    clip_norm: Weight = 1.0
    no_decay: tuple[str, ...] = NO_DECAY

    def __post_init__(self) -> None:
        check(self)
        if self.warmup_steps and self.warmup_share:
            raise UserError(
                f"OptimizerConfig.warmup_steps = {self.warmup_steps} and warmup_share = "
                f"{self.warmup_share}: give one of the two"
            )

    def learning_rate_at(self, total_steps: int) -> optax.Schedule:
        """The schedule as a function of the step."""
        peak, end = self.learning_rate, self.learning_rate * self.end_fraction
        last = self.decay_steps or total_steps
        warmup_steps = self.warmup_steps or int(last * self.warmup_share)
        decay_steps = max(1, last - warmup_steps)
        after = {
            "cosine": lambda: optax.cosine_decay_schedule(peak, decay_steps, self.end_fraction),
            "linear": lambda: optax.linear_schedule(peak, end, decay_steps),
            "constant": lambda: optax.constant_schedule(peak),
        }
        if self.schedule not in after:
            raise UserError(
                f"OptimizerConfig.schedule = {self.schedule!r}: choose one of {sorted(after)}"
            )
        warmup = optax.linear_schedule(0.0, peak, max(1, warmup_steps))
        if not warmup_steps:
            return after[self.schedule]()
        return optax.join_schedules([warmup, after[self.schedule]()], [warmup_steps])

    def started(self, total_steps: int, before: int | None = None) -> "OptimizerConfig":
        """With the end of the schedule settled, for a run that starts or, `before` given, goes on.

        Args:
          total_steps: of the run, as it is asked for now.
          before: `decay_steps` that it was settled to when it was started.
        """
        return dataclasses.replace(self, decay_steps=self.decay_steps or before or total_steps)

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """The optax transformation, for parameters {path: array} or nested in dictionaries."""
        rate = self.learning_rate_at(total_steps)
        if self.name == "adamw":
            update = optax.adamw(
                rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay, mask=self.decays
            )
            if self.eps_hat:
                update = optax.chain(
                    scale_by_adam_hat(self.b1, self.b2, self.eps),
                    optax.add_decayed_weights(self.weight_decay, self.decays),
                    optax.scale_by_learning_rate(rate),
                )
        elif self.name == "sgd":
            update = optax.sgd(rate)
        else:
            raise UserError(f"OptimizerConfig.name = {self.name!r}: choose adamw or sgd")
        clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
        return optax.chain(clip, update)

    def decays(self, params: PyTree[Array]) -> PyTree[bool]:
        """Which parameters carry weight decay."""
        patterns = [re.compile(pattern) for pattern in self.no_decay]

        def decays(keys: tuple[jax.tree_util.DictKey, ...], _: jax.Array) -> bool:
            """Whether weight decay applies to the leaf of this path."""
            path = "/".join(key.key for key in keys)
            return not any(pattern.search(path) for pattern in patterns)

        return jax.tree_util.tree_map_with_path(decays, params)


def scale_by_adam_hat(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam with epsilon-hat: c m / (sqrt(v) + eps), c = sqrt(1 - b2^t) / (1 - b1^t).

    The state is that of `optax.scale_by_adam`.
    """

    def update(
        grads: PyTree[Array], state: optax.ScaleByAdamState, params: PyTree[Array] | None = None
    ) -> tuple[PyTree[Array], optax.ScaleByAdamState]:
        """The direction of a step, and the moments."""
        del params
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        found = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
        return found, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def global_norm(tree: dict[str, jax.Array]) -> jax.Array:
    """Euclidean norm over all leaves, in float32."""
    return optax.tree.norm(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree))
