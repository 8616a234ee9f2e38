"""Rotary positions and the ways in which published models stretch them to longer texts."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.checks import Count, Positive, check
from ilm_jax.errors import UserError

KINDS = ("linear", "llama3")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Lower frequencies, for texts longer than those of pre-training.

    "linear" divides all of them by `factor` (Chen et al. 2023, arXiv 2306.15595). "llama3" divides
    the slow ones, keeps the fast ones, and goes from one to the other in between (Llama 3.1,
    arXiv 2407.21783; formula as in its released code): with t = turns during `original_length`
    positions, a frequency f becomes f / factor where t < low_freq_factor, f where
    t > high_freq_factor, and s f + (1 - s) f / factor between, s rising linearly with t.

    Attributes:
      kind: "linear" or "llama3".
      factor: how many times longer.
      low_freq_factor, high_freq_factor, original_length: of "llama3".

    Raises:
      UserError: for another kind.
    """

    kind: str
    factor: Positive
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_length: Count = 8192

    def __post_init__(self) -> None:
        """Checks the kind."""
        check(self)
        if self.kind not in KINDS:
            raise UserError(f'RopeScaling.kind="{self.kind}" is not one of {", ".join(KINDS)}')
        low, high = self.low_freq_factor, self.high_freq_factor
        if low >= high:
            raise UserError(
                f"RopeScaling.low_freq_factor={low}, high_freq_factor={high}: give a higher one"
            )

    def of(self, frequencies: Float[Array, " half"]) -> Float[Array, " half"]:
        """Scaled frequencies, in radians per position."""
        slow = frequencies / self.factor
        if self.kind == "linear":
            return slow
        turns = self.original_length * frequencies / (2 * math.pi)
        span = self.high_freq_factor - self.low_freq_factor
        share = jnp.clip((turns - self.low_freq_factor) / span, 0, 1)
        return share * frequencies + (1 - share) * slow


def rotary(
    x: Float[Array, "batch length heads dim"],
    positions: Int[Array, "batch length"],
    theta: float,
    scaling: RopeScaling | None = None,
) -> Float[Array, "batch length heads dim"]:
    """Rotates halves of every head by position (RoPE, Su et al. 2021, arXiv 2104.09864).

    Dimension i is paired with i + dim/2 (the layout of Llama, Gemma and Qwen checkpoints) and
    turned by positions * theta^(-2i/dim) radians (less if `scaling` says so), in float32.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None:
        frequencies = scaling.of(frequencies)
    angles = positions.astype(jnp.float32)[..., None, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [left * cos - right * sin, right * cos + left * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
