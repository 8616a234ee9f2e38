"""From vectors to codes: standardisation, an encoder if there is one, and a codebook a level.

What residual k-means (residual_kmeans.py) and an RQ-VAE (objectives/quantization.py) give alike,
as NumPy arrays: further vectors get their codes without either.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32

from ilm_jax.cf import residual_kmeans
from ilm_jax.errors import UserError

Layer = tuple[Float32[np.ndarray, "in out"], Float32[np.ndarray, " out"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Quantizer:
    """Gives vectors their codes.

    Attributes:
      center, scale: a vector x is read as (x - center) / scale.
      widths: of the kinds of vectors that stand side by side in x, each first divided by its
        length; none where lengths count.
      codebooks: of each level.
      layers: (kernel, bias) of the encoder's layers, with ReLU between them; none for k-means.
    """

    center: Float32[np.ndarray, " dim"]
    scale: Float32[np.ndarray, " dim"]
    codebooks: tuple[Float32[np.ndarray, "size width"], ...]
    layers: tuple[Layer, ...] = ()
    widths: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return tuple(len(book) for book in self.codebooks)

    def standardised(
        self, vectors: Float32[np.ndarray, "items dim"], known: Bool[np.ndarray, "items dim"]
    ) -> Float32[np.ndarray, "items dim"]:
        """The vectors as the codebooks or the encoder read them; entries that are not known: 0.

        Raises:
          UserError: for vectors of another width.
        """
        if vectors.shape[1] != len(self.center):
            raise UserError(
                f"vectors of width {vectors.shape[1]}, and the codes were made from vectors of "
                f"width {len(self.center)}: give the tables that they were made from"
            )
        read = directions(vectors, self.widths)
        return np.where(known, (read - self.center) / self.scale, 0).astype(np.float32)

    def latents(
        self, standardised: Float32[np.ndarray, "items dim"]
    ) -> Float32[np.ndarray, "items width"]:
        """What is quantised: the encoder's output, or the vectors themselves."""
        x = standardised
        for number, (kernel, bias) in enumerate(self.layers):
            x = x @ kernel + bias
            x = np.maximum(x, 0) if number < len(self.layers) - 1 else x
        return x.astype(np.float32)

    def quantise(
        self, latents: Float32[np.ndarray, "items width"]
    ) -> tuple[Int32[np.ndarray, "items levels"], list[float]]:
        """(codes, the share of the latents' squares that is left behind each level)."""
        residual, codes, left = latents, [], []
        total = max(float(np.square(latents, dtype=np.float64).sum()), 1e-30)
        for book in self.codebooks:
            codes.append(residual_kmeans.nearest(residual, book)[0])
            residual = residual - book[codes[-1]]
            left.append(float(np.square(residual, dtype=np.float64).sum()) / total)
        return np.stack(codes, 1).astype(np.int32), left

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, as a file of codes holds it."""
        widths = np.array(self.widths, np.int32)
        found = {"center": self.center, "scale": self.scale, "widths": widths}
        for level, book in enumerate(self.codebooks):
            found[f"codebook_{level:02d}"] = book
        for number, (kernel, bias) in enumerate(self.layers):
            found |= {f"encoder_{number:02d}/kernel": kernel, f"encoder_{number:02d}/bias": bias}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Quantizer":
        """The inverse of `arrays`.

        Raises:
          UserError: if a part is missing.
        """
        books = [arrays[name] for name in sorted(arrays) if name.startswith("codebook_")]
        kernels = [name for name in sorted(arrays) if name.endswith("/kernel")]
        try:
            layers = [(arrays[n], arrays[n.replace("/kernel", "/bias")]) for n in kernels]
            widths = tuple(arrays["widths"].tolist())
            return cls(arrays["center"], arrays["scale"], tuple(books), tuple(layers), widths)
        except KeyError as error:
            raise UserError(f"codes without {error} cannot give new items codes") from error


def directions(
    vectors: Float32[np.ndarray, "items dim"], widths: Sequence[int]
) -> Float32[np.ndarray, "items dim"]:
    """The vectors, of which parts of these widths are divided by their lengths; 0 stays 0."""
    parts = np.split(vectors, np.cumsum(widths), axis=1)
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    divided = [
        part / np.where(length > 0, length, 1) if number < len(widths) else part
        for number, (part, length) in enumerate(zip(parts, lengths, strict=True))
    ]
    return np.concatenate(divided, axis=1).astype(np.float32)


def standardisation(
    parts: Sequence[Float32[np.ndarray, "items dim"]], fitted: Sequence[Bool[np.ndarray, " items"]]
) -> tuple[Float32[np.ndarray, " dim"], Float32[np.ndarray, " dim"]]:
    """(center, scale) of vectors that stand side by side.

    Every part is centred, and divided by one number so that its rows' squared lengths have the
    mean 1: parts count alike whatever their width.

    Args:
      parts: vectors of all items, of each kind.
      fitted: the rows of each that count.
    """
    centers, scales = [], []
    for vectors, rows in zip(parts, fitted, strict=True):
        center = vectors[rows].mean(0, dtype=np.float64)
        square = np.square(vectors[rows] - center).sum(1).mean()
        scale = np.sqrt(square) if square > 0 else 1.0
        centers.append(center)
        scales.append(np.full(vectors.shape[1], scale))
    return np.concatenate(centers).astype(np.float32), np.concatenate(scales).astype(np.float32)
