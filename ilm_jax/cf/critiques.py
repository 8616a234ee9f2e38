"""Critiques as vectors, for sequential models: what was wished before an item was chosen.

A critique is encoded as the items' texts are (text_vectors.py), in the space that the texts of
training items span. Critiques that led to held-out items are not trained on: they carry the
item's words. Nor are written ones that name what is held out.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32

from ilm_jax.cf.text_vectors import TextConfig, TextSpace, space
from ilm_jax.checks import BelowOne, Count, InputFile, Seed, check
from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples.narratives import Narratives
from ilm_jax.data.formats import notes
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CritiqueConfig:
    """How a sequential model reads critiques.

    Attributes:
      dim: length of their vectors.
      hidden: share of the training critiques that an epoch leaves out, drawn anew for each, so that
        a history without one is read as well.
      texts_file, similar, seed: of the critiques, as `RegenSettings` and the tasks have them.

    Raises:
      UserError: for a value that makes no sense.
    """

    dim: Count = 64
    hidden: BelowOne = 0.5
    texts_file: InputFile = ""
    similar: Count = 1
    seed: Seed = 0

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Critiques:
    """The critiques of a catalogue's purchases.

    Attributes:
      texts: of purchases, [user, position] to the critique that led there.
      space: in which they are encoded.
      scale: by which vectors are multiplied, so that training critiques have mean square 1.
      vectors: of training's different critiques; row 0, of none, is zero.
      of: for every training interaction, by user and in time order, the row of its critique.
    """

    texts: dict[tuple[int, int], str]
    space: TextSpace
    scale: float
    vectors: Float32[np.ndarray, "critiques dim"]
    of: Int32[np.ndarray, " interactions"]

    @classmethod
    def make(cls, splits: Splits, config: CritiqueConfig) -> "Critiques":
        """Of a catalogue.

        Raises:
          UserError: if no training purchase has a critique.
        """
        told = Narratives(
            splits, texts_file=config.texts_file, similar=config.similar, seed=config.seed
        )
        catalogue, texts = splits.catalogue, {}
        for user in range(catalogue.num_users):
            for position in range(1, len(catalogue.sequence(user))):
                found = told.about("critique", user, position)
                if found is not None:
                    texts[user, position] = found[0]
        rows, of = _of_training(splits, told, texts)
        if not rows:
            raise UserError(
                f"{catalogue.name} has no critique of a training purchase: give "
                "CritiqueConfig.texts_file, or leave critiques out"
            )
        encoded = space(splits, TextConfig(config.dim, seed=config.seed))
        vectors = encoded.encode(list(rows))
        size = float(np.sqrt(np.mean(np.square(vectors))))
        scale = 1 / size if size else 1.0
        none = np.zeros((1, config.dim), np.float32)
        return cls(
            texts,
            encoded,
            scale,
            np.concatenate([none, vectors * scale]).astype(np.float32),
            of,
        )

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts dim"]:
        """Vectors of critiques, whether training had them or not; zero for ""."""
        return (self.space.encode(texts) * self.scale).astype(np.float32)

    def before(self, splits: Splits, fold_position: int) -> list[str]:
        """Every user's critique of the item at a place counted from the end (-1: test's target,
        -2: validation's); "" where there is none.
        """
        lengths = np.diff(splits.catalogue.offsets).tolist()
        return [
            self.texts.get((user, length + fold_position), "")
            for user, length in enumerate(lengths)
        ]


def _of_training(
    splits: Splits, told: Narratives, texts: dict[tuple[int, int], str]
) -> tuple[dict[str, int], Int32[np.ndarray, " interactions"]]:
    """(row of every different critique that trains, from 1; row for every training interaction)."""
    rows: dict[str, int] = {}
    of: list[int] = []
    withheld = 0
    for user in range(splits.catalogue.num_users):
        sequence = splits.train_sequence(user)
        places = np.arange(len(sequence))
        may_train = told.may_train("critique", np.full_like(places, user), places).tolist()
        for position, item in enumerate(sequence.tolist()):
            text = texts.get((user, position))
            open_ = text is not None and splits.item_fold[item] == TRAIN
            withheld += open_ and not may_train[position]
            shown = open_ and may_train[position]
            of.append(rows.setdefault(str(text), len(rows) + 1) if shown else 0)
    what = "name what is held out, or are of an item that its user has again held back"
    notes.count(int(withheld), len(texts), f"critiques do not train: they {what}")
    return rows, np.array(of, np.int32)
