"""An autoencoder whose latent vectors are sums of codebook entries, one of each level (RQ-VAE).

Lee et al. 2022 (arXiv 2203.01941, section 3.1); of items' vectors, Rajput et al. 2023 (TIGER,
arXiv 2305.05065, section 3.1), whose encoder is an MLP with ReLU.
"""

from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.models.layers import Dense, make_param


class Quantised(NamedTuple):
    """A latent vector's codes.

    Attributes:
      codes: of each level.
      residuals: what each level quantises; the first is the latent vector itself.
      entries: of the codebooks that were chosen.
    """

    codes: Int[Array, "levels rows"]
    residuals: Float[Array, "levels rows width"]
    entries: Float[Array, "levels rows width"]


class ResidualQuantizer(nn.Module):
    """Encoder, codebooks and decoder; float32.

    Attributes:
      dim: width of the vectors.
      sizes: entries of each level's codebook.
      width: of the latent vectors.
      hidden: widths of the encoder's hidden layers; the decoder's are these in turn.
    """

    dim: int
    sizes: tuple[int, ...]
    width: int
    hidden: tuple[int, ...]

    def setup(self) -> None:
        """Names the parts."""
        axes, he = (None, "mlp"), nn.initializers.he_normal()

        def layers(widths: tuple[int, ...]) -> list[Dense]:
            """An MLP's layers."""
            last = len(widths) - 1
            return [
                Dense(w, axes if k < last else (None, None), use_bias=True, kernel_init=he)
                for k, w in enumerate(widths)
            ]

        self.encoder = layers((*self.hidden, self.width))
        self.decoder = layers((*self.hidden[::-1], self.dim))
        unit = nn.initializers.normal(1.0)
        self.codebooks = [
            make_param(self, f"codebook_{level:02d}", unit, (size, self.width), (None, None))
            for level, size in enumerate(self.sizes)
        ]

    def encode(self, x: Float[Array, "rows dim"]) -> Float[Array, "rows width"]:
        """Latent vectors."""
        return _mlp(self.encoder, x)

    def decode(self, z: Float[Array, "rows width"]) -> Float[Array, "rows dim"]:
        """Vectors of latent ones."""
        return _mlp(self.decoder, z)

    def quantise(self, z: Float[Array, "rows width"]) -> Quantised:
        """Codes level by level; residuals have gradients of z alone."""
        codes, residuals, entries = [], [], []
        for book in self.codebooks:
            codes.append(nearest(z, book))
            residuals.append(z)
            entries.append(book[codes[-1]])
            z = z - jax.lax.stop_gradient(entries[-1])
        return Quantised(jnp.stack(codes), jnp.stack(residuals), jnp.stack(entries))

    def __call__(self, x: Float[Array, "rows dim"]) -> tuple[Float[Array, "rows dim"], Quantised]:
        """(reconstructions, codes); gradients go straight through the choice of codes."""
        z = self.encode(x)
        found = self.quantise(z)
        through = z + jax.lax.stop_gradient(found.entries.sum(0) - z)
        return self.decode(through), found


def nearest(z: Float[Array, "rows width"], book: Float[Array, "size width"]) -> Int[Array, " rows"]:
    """The nearest entry of every vector; the first of equal ones."""
    z, book = jax.lax.stop_gradient((z, book))
    return jnp.argmin(jnp.square(book).sum(1) - 2 * z @ book.T, axis=1)


def lloyd(z: Float[Array, "rows width"], size: int, steps: int = 10) -> Float[Array, "size width"]:
    """Centroids of vectors, from rows that lie evenly among them in the order of their lengths."""
    order = jnp.argsort(jnp.square(z).sum(1))
    # Where there are fewer vectors than centroids, those beyond are a little apart.
    place = jnp.linspace(0, len(z) - 1, size).astype(int)
    apart = 1 + 1e-3 * (jnp.arange(size) % 7)[:, None]

    def step(_: int, centroids: Array) -> Array:
        """One step of Lloyd's algorithm; empty clusters stay."""
        chosen = jax.nn.one_hot(nearest(z, centroids), size, dtype=jnp.float32)
        counts = chosen.sum(0)[:, None]
        return jnp.where(counts > 0, chosen.T @ z / jnp.maximum(counts, 1), centroids)

    return cast(Array, jax.lax.fori_loop(0, steps, step, z[order][place] * apart))


def revived(
    residuals: Float[Array, "rows width"], book: Float[Array, "size width"]
) -> Float[Array, "size width"]:
    """The codebook; entries that no vector chooses become the vectors farthest from theirs."""
    codes = nearest(residuals, book)
    distances = jnp.square(residuals - book[codes]).sum(1)
    dead = jnp.zeros(len(book), jnp.int32).at[codes].add(1) == 0
    far = jax.lax.top_k(distances, min(len(book), len(residuals)))[1]
    # The k-th dead entry takes the k-th farthest vector.
    rank = jnp.minimum(jnp.cumsum(dead) - 1, len(far) - 1)
    return jnp.where(dead[:, None], residuals[far[rank]], book)


def _mlp(layers: list[Dense], x: Float[Array, "rows in"]) -> Float[Array, "rows out"]:
    for layer in layers[:-1]:
        x = nn.relu(layer(x))
    return layers[-1](x)
