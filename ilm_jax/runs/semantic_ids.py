"""From vectors of items to a file of their codes: the root of the recipes runs/codes*.gin."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from ilm_jax.cf import residual_kmeans, semantic_ids
from ilm_jax.cf.interactions import catalogue_from_sequences
from ilm_jax.cf.quantizer import Quantizer, directions, standardisation
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.checks import Choice, Count, Seed, check
from ilm_jax.data.catalogue.splits import TRAIN, SplitConfig, Splits, make_splits
from ilm_jax.data.examples.item_codes import MOST_LEVELS, ItemCodes
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.files import default_cache_dir

Vectors = Float32[np.ndarray, "items dim"]


@runtime_checkable
class QuantizerConfig(Protocol):
    """A way to make codebooks, of one's own or as below."""

    @property
    def levels(self) -> Sequence[int]:
        """Codes of each level, coarse to fine."""

    def record(self) -> dict[str, Any]:
        """Its settings as plain values, for the file of codes."""

    def fit(self, vectors: Vectors, reading: Quantizer) -> Quantizer:
        """Codebooks of standardised vectors.

        Args:
          vectors: of the items that they are made from.
          reading: how vectors are standardised, still without codebooks.

        Raises:
          UserError: for levels that cannot be.
        """


Method = Annotated[QuantizerConfig, "such as @semantic_ids.ResidualKMeans()"]


@dataclasses.dataclass(frozen=True)
class ResidualKMeans:
    """Residual k-means, see `cf.residual_kmeans`.

    Attributes:
      levels: codes of each level.
      iterations: of each level's Lloyd at most.
      seed: of the first centroids.
    """

    levels: tuple[Count, ...] = (256, 256, 256)
    iterations: Count = 50
    seed: Seed = 0

    def __post_init__(self) -> None:
        check(self)

    def record(self) -> dict[str, Any]:
        """See `QuantizerConfig.record`."""
        return dataclasses.asdict(self)

    def fit(self, vectors: Vectors, reading: Quantizer) -> Quantizer:
        """See `QuantizerConfig.fit`."""
        books = residual_kmeans.fit(vectors, self.levels, self.seed, self.iterations)
        return dataclasses.replace(reading, codebooks=tuple(books))


@dataclasses.dataclass
class SemanticIds:
    """A file of codes: its data, its vectors and its method.

    Attributes:
      dataset, data_dir, cache_dir: see `load_catalogue`.
      sequences: instead, a file of "user item item …" lines; see `catalogue_from_sequences`.
      tables: files of `ilm fit_cf`, whose item vectors are quantised: collaborative ones, of texts,
        or several, which then stand side by side, each centred and of mean squared length 1.
      output: file to write; None: cache_dir/codes/<dataset>.safetensors.
      split: which interactions and texts the vectors may have seen.
      method: what makes the codebooks, from training items that have vectors. All others, held-out
        ones too, get their codes by their vectors; items without any, the code of the mean.
      normalise: "unit": of each kind of vectors the direction counts; "none": the length too, which
        in collaborative vectors grows with how often an item was chosen.
      collision_tokens: numbers of the last level at least; more where more items share a code.
      extends: a file of codes whose items keep theirs; new items get codes by their vectors, with
        its codebooks: nothing is fitted.

    Raises:
      UserError: for what cannot be.
    """

    dataset: str = "toy"
    data_dir: str | None = None
    cache_dir: str | os.PathLike | None = None
    sequences: str | None = None
    tables: Sequence[str] = ()
    output: str | None = None
    split: SplitConfig = SplitConfig()
    method: Method = ResidualKMeans()
    normalise: Annotated[str, Choice(("unit", "none"))] = "unit"
    collision_tokens: Count = 16
    extends: str = ""

    def __post_init__(self) -> None:
        check(self)
        if not self.tables:
            raise UserError("no vectors to make codes from: give --tables=FILE of `ilm fit_cf`")
        if not 0 < len(self.method.levels) < MOST_LEVELS:
            raise UserError(
                f"{len(self.method.levels)} levels: give from 1 to {MOST_LEVELS - 1}, and one "
                "more sets apart what collides"
            )

    @property
    def path(self) -> pathlib.Path:
        """Path of the file.

        Raises:
          UserError: if a folder lies there.
        """
        cache_dir = pathlib.Path(self.cache_dir or default_cache_dir()).expanduser()
        name = f"{self.dataset.replace('/', '_')}.safetensors"
        path = pathlib.Path(self.output or cache_dir / "codes" / name).expanduser()
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file, such as {path}.safetensors")
        return path

    def splits(self) -> Splits:
        """The catalogue, split."""
        if self.sequences:
            catalogue = catalogue_from_sequences(self.sequences, self.dataset)
        else:
            catalogue = load_catalogue(
                self.dataset, data_dir=self.data_dir, cache_dir=self.cache_dir
            )
        return make_splits(catalogue, self.split)

    def make(self, splits: Splits) -> ItemCodes:
        """The codes of all items.

        Raises:
          UserError: for tables of other data, too few items with vectors, or codes to be extended
            that do not fit.
        """
        tables = [EmbeddingTable.load(path, splits) for path in self.tables]
        vectors = np.concatenate([table.item for table in tables], axis=1)
        known = np.concatenate(
            [np.repeat(~table.item_cold[:, None], table.dim, axis=1) for table in tables], axis=1
        )
        cold = np.logical_not(known.any(axis=1))
        if self.extends:
            return self._extended(splits, tables, vectors, known)
        training = splits.item_fold == TRAIN
        fitted = [training & ~table.item_cold for table in tables]
        if not all(rows.any() for rows in fitted):
            raise UserError(f"{splits.catalogue.name}: no training item has a vector")
        widths = tuple(table.dim for table in tables) if self.normalise == "unit" else ()
        parts = [directions(table.item, widths and (table.dim,)) for table in tables]
        reading = Quantizer(*standardisation(parts, fitted), codebooks=(), widths=widths)
        rows = reading.standardised(vectors[training & ~cold], known[training & ~cold])
        quantizer = self.method.fit(rows, reading)
        codes, left = _quantised(quantizer, vectors, known)
        whole = semantic_ids.with_places(codes, splits.catalogue.item_ids)
        sizes = (*quantizer.sizes, semantic_ids.last_size(whole, self.collision_tokens))
        return self._codes(splits, tables, whole, sizes, quantizer, left, cold)

    def _extended(
        self,
        splits: Splits,
        tables: Sequence[EmbeddingTable],
        vectors: Vectors,
        known: Bool[np.ndarray, "items dim"],
    ) -> ItemCodes:
        """The codes of an earlier file, and new ones for the items that it lacks."""
        old = ItemCodes.load(self.extends)
        catalogue = splits.catalogue
        if old.catalogue != catalogue.name:
            raise UserError(f"{self.extends}: is of {old.catalogue}, not of {catalogue.name}")
        gone = set(old.item_ids) - set(catalogue.item_ids)
        if gone:
            raise UserError(
                f"{self.extends}: has codes of {len(gone)} items that {catalogue.name} lacks, such "
                f"as {min(gone)!r}: make the codes anew, without --extends"
            )
        quantizer = Quantizer.from_arrays(old.quantizer)
        codes, left = _quantised(quantizer, vectors, known)
        kept = dict(zip(old.item_ids, map(tuple, old.codes.tolist()), strict=True))
        whole = semantic_ids.with_places(codes, catalogue.item_ids, kept)
        semantic_ids.last_size(whole, 1, old.sizes[-1])
        cold = np.logical_not(known.any(axis=1))
        return self._codes(splits, tables, whole, old.sizes, quantizer, left, cold)

    def _codes(
        self,
        splits: Splits,
        tables: Sequence[EmbeddingTable],
        codes: np.ndarray,
        sizes: Sequence[int],
        quantizer: Quantizer,
        left: Sequence[float],
        cold: Bool[np.ndarray, " items"],
    ) -> ItemCodes:
        return ItemCodes(
            catalogue=splits.catalogue.name,
            item_ids=list(splits.catalogue.item_ids),
            codes=codes,
            sizes=tuple(map(int, sizes)),
            split_fingerprint=splits.fingerprint,
            quantizer=quantizer.arrays(),
            settings={
                "method": type(self.method).__name__,
                **self.method.record(),
                "normalise": self.normalise,
                "vectors": [table.settings for table in tables],
                "extended": bool(self.extends),
            },
            statistics=semantic_ids.statistics(codes, sizes, left, cold),
        )


def _quantised(
    quantizer: Quantizer, vectors: Vectors, known: Bool[np.ndarray, "items dim"]
) -> tuple[np.ndarray, list[float]]:
    return quantizer.quantise(quantizer.latents(quantizer.standardised(vectors, known)))
