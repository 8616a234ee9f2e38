"""Where stage 1 pays on real texts: few_texts.py through a published language model.

The data are a folder of one's own with a written text for each item ({item id: text}); stage 1
reads the items' metadata, as the paper's does, and stage 2 the written texts, cut at `TARGETS`
tokens.

Rows are those of few_texts.py, an MLP, and those without stage 1 that take as many steps more as it
costs (`longer`); every row has the learning rate that is best on the validation items of seed 0.
Vectors, stage 1 and stage 2 have the seed; the items, their split and the language model are the
same for all. Receipts: studies/receipts/real_texts.

    python studies/real_texts.py --data_dir DIR --texts_file DIR/descriptions.json
                                 [--seeds 0 1 2] [--texts 0] [--rows mlp ilm-rand …]
                                 [--model_dir runs/real_texts]
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import few_texts
import few_texts_report
import published
import receipts
import scheduling
from exiting import exit_code
from few_texts import Cell, FewTexts
from published import PublishedStudy

from ilm_jax.checkpoints.identity import identity
from ilm_jax.data.catalogue.splits import TRAIN, make_splits
from ilm_jax.data.formats.text_records import read_texts
from ilm_jax.tasks.elm24_texts import ARITY, ItemTexts

STEPS, EVERY = 200, 50
# Stage 1 takes 400 steps of .48 core seconds, which are 60 of stage 2's of 3.2.
MORE, LONGER = "-longer", 260
# Tokens of a written text, and of metadata.
TARGETS, METADATA = 32, 48
SHAPE = "models/decoder_tiny.gin"
FOLDER = receipts.FOLDER / "real_texts"
TEXTS_FILE = "elm24.Elm24Settings.texts_file"
# So many of the test items' texts are measured.
SCORED = (*few_texts.MEASURED, "--texts=256")
# MovieLens 1M's of gin/runs/cf_ml1m.gin, with fewer dimensions.
VECTORS = ("--dim=64", "--alpha=1", "--regularisation=0.0025", "--epochs=8")


@dataclasses.dataclass(frozen=True)
class RealTexts(PublishedStudy, FewTexts):
    """One seed.

    Attributes:
      texts_file: written texts of items.
    """

    receipts: pathlib.Path = FOLDER
    texts_file: str = ""
    rows: ClassVar[Mapping[str, tuple[str, bool]]] = {
        "mlp": ("mlp", False),
        **few_texts.ROWS,
        f"ilm-rand{MORE}": ("ilm-rand", False),
        f"ilm-rand-frozen{MORE}": ("ilm-rand", True),
    }
    grid: ClassVar[Sequence[float]] = (3e-3, 1e-2)
    scored: ClassVar[Sequence[str]] = SCORED

    @functools.cached_property
    def inputs(self) -> int:
        """See `PublishedStudy`: prompts as they stand, without a chat template."""
        return published.prompt_length(self.source, chat=False)

    def cf_flags(self) -> list[str]:
        """See `Study`."""
        return list(VECTORS)

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`: stage 1 reads titles and genres, which are short."""
        if stage != "stage1":
            return {}
        return {
            "LEARNING_RATE": 1e-3,
            "TRAIN_STEPS": 400,
            "TASK_FEATURE_LENGTHS": {"text": METADATA},
            "qformer.QFormerConfig.max_text_length": METADATA,
            "dataset_config.DatasetConfig.truncate_targets": True,
        }

    def recipes_of(self, row: str) -> list[str]:
        """See `Study`: rows are those of gin/lm, eight texts a step that share none."""
        first, *others = super().recipes_of(row)
        return [first, "lm/long.gin", *others]

    @property
    def all_texts(self) -> int:
        """See `FewTexts`: texts of training items, those that name held-out items left out."""
        splits = make_splits(self.catalogue)
        told = ItemTexts(splits, self.texts_file, "long_description").told
        return sum(all(splits.item_fold[row] == TRAIN for row in rows) for rows in told)

    @property
    def files(self) -> Sequence[pathlib.Path]:
        """See `Study`."""
        return [pathlib.Path(self.texts_file)]

    def name(self, cell: Cell | str) -> str:
        """See `FewTexts`; the language model's name follows the data's."""
        data = pathlib.Path(self.data_dir or "").resolve().name
        return f"{published.folder_name(data, self.source)}_seed{self.seed}_{cell}"

    def texts_alone(self, rate: float) -> dict[str, object]:
        """See `FewTexts`."""
        every = min(EVERY, self.most_steps or EVERY)
        return {
            **few_texts.stage_two(rate, every),
            "TRAIN_STEPS": STEPS,
            "TASK_FEATURE_LENGTHS": {"inputs": self.inputs, "targets": TARGETS},
            "trainer.TrainerConfig.eval_batches": 16,
            TEXTS_FILE: self.texts_file,
        }

    def own(self, row: str) -> dict[str, object]:
        """See `FewTexts`."""
        return {"TRAIN_STEPS": LONGER} if row.endswith(MORE) else {}

    def rated_as(self, row: str) -> str:
        """See `FewTexts`."""
        return row.removesuffix(MORE)

    def commands(self, cell: Cell, rate: float) -> dict[str, list[str]]:
        """See `FewTexts`.

        The shape that `ilm convert` writes is not there before it has run: another stands for it,
        and `made_from` has the identity of the weights; and that of the texts, wherever they lie.
        """
        found = super().commands(cell, rate)
        del found["stage 0"]
        shape, texts = f"--gin_file={self.lm}/model.gin", f"--gin.{TEXTS_FILE}="
        row = [word for word in found["row"] if not word.startswith(texts)]
        found["row"] = [f"--gin_file={SHAPE}" if word == shape else word for word in row]
        return found

    def made_from(self, cell: Cell, rate: float) -> dict[str, str]:
        """See `FewTexts`."""
        return {
            **super().made_from(cell, rate),
            "vectors": " ".join(self.cf_flags()),
            "language model": identity(self.source),
            "texts": identity(self.texts_file),
            "measured": " ".join(self.scored),
        }


def checked(file: str) -> str:
    """The name of a file of texts, which is read before anything is trained.

    Raises:
      UserError: if it is none.
    """
    read_texts(file, ARITY)
    return file


def words_of(flags: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Attributes of the study of one seed, as the words of the command line have it."""
    return {
        "dataset": "custom",
        "seed": seed,
        "folder": pathlib.Path(flags.model_dir) / f"seed{seed}",
        "data_dir": flags.data_dir,
        "cache_dir": flags.cache_dir,
        "jobs": flags.jobs or scheduling.default_jobs(),
        "source": published.named(flags.lm),
        "texts_file": checked(flags.texts_file),
    }


def parser_of(script: str, text: str | None) -> argparse.ArgumentParser:
    """A parser with the words of every study of written texts."""
    parser = argparse.ArgumentParser(
        prog=script, description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    folder = f"runs/{script.removesuffix('.py')}"
    parser.add_argument("--data_dir", required=True, help="folder of the raw files")
    parser.add_argument("--texts_file", required=True, help="{item id: text}, or JSON lines")
    parser.add_argument("--lm", default="smollm2", help="a published language model")
    parser.add_argument("--model_dir", default=folder, help="where everything is written")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--jobs", type=scheduling.jobs, help="steps that run side by side")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = parser_of("real_texts.py", __doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", nargs="+", type=int, default=[0], help="0: all")
    every = list(RealTexts.rows)
    parser.add_argument("--rows", nargs="+", choices=every, default=every)
    flags = parser.parse_args(argv)

    def run() -> None:
        studies = [RealTexts(**words_of(flags, seed)) for seed in flags.seeds]
        found = few_texts.measure(studies, flags.texts, rows=flags.rows)
        print("\n" + few_texts_report.table(found, studies[0].all_texts))

    return exit_code(run, "real_texts.py")


if __name__ == "__main__":
    sys.exit(main())
