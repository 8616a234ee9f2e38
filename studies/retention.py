"""What a language model keeps of its language: frozen, with low-rank updates, and all trained.

Each row of `ROWS` trains a published language model on the written texts of a dataset's items, as
real_texts.py does, with the same steps: `frozen` the reader alone, `lora` low-rank updates beside
it, `text-full` all of the model (without items). Before and after, the model reads passages that
have nothing to do with items: the topics of Python's own reference, which this Python brings
(`pydoc_data.topics`), or --passages FILE. Their nll is compared passage by passage with the
untrained model's. Another Python has other words in its reference: what was measured stands, and
rows that are missing are refused until all are measured with one. Receipts:
studies/receipts/retention.

    python studies/retention.py --data_dir DIR --texts_file DIR/descriptions.json
                                [--rows frozen lora text-full] [--model_dir runs/retention]
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import pydoc_data.topics
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

import few_texts
import jax
import jax.numpy as jnp
import numpy as np
import real_texts
import receipts
from exiting import exit_code
from few_texts import Cell
from jaxtyping import Array, PyTree
from real_texts import RealTexts
from receipts import Receipt
from study import READER_ROWS

from ilm_jax.checkpoints.identity import identity
from ilm_jax.checkpoints.language_models import load_language_model
from ilm_jax.data.tokenizers import Tokenizer, open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.language import token_nll
from ilm_jax.metrics.intervals import compare, mean_interval
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs.opening import load_trained, run_of_folder

FOLDER = receipts.FOLDER / "retention"
METRIC, BEFORE = "passage_nll", "before"
# Tokens of a passage: what is shorter is left out, what is longer cut.
LENGTH = 128
# Row -> (row of real_texts.py, further recipes, learning rate).
ROWS: Mapping[str, tuple[str, Sequence[str], float]] = {
    "frozen": ("ilm-rand", (), 3e-3),
    "lora": ("ilm-rand", ("runs/stage2_lora.gin",), 3e-3),
    "text-full": ("text-full", (), 1e-4),
}
TEXT_FULL = "lm/stage2_text_full.gin"


@dataclasses.dataclass(frozen=True)
class Retention(RealTexts):
    """One dataset and language model.

    Attributes:
      passages: texts that have nothing to do with items.
      asked: whether they were asked for by name.
    """

    receipts: pathlib.Path = FOLDER
    passages: Sequence[str] = ()
    asked: bool = False
    rows: ClassVar[Mapping[str, tuple[str, bool]]] = {
        name: (plain, False) for name, (plain, *_) in ROWS.items()
    }

    @property
    def recipes(self) -> Mapping[str, str | None]:
        """See `Study`."""
        return {**super().recipes, "text-full": TEXT_FULL}

    def recipes_of(self, row: str) -> list[str]:
        """See `Study`; `row` is one of these rows."""
        plain, more, _ = ROWS[row]
        return [*super().recipes_of(plain), *more]

    def train_cell(self, cell: Cell, rate: float) -> list[str]:
        """See `FewTexts`."""
        bindings = {**self.texts_alone(rate), few_texts.TRAIN_ITEMS: cell.texts}
        sources = {"CF_TABLE": str(self.table)} if ROWS[cell.row][0] in READER_ROWS else {}
        where = few_texts.place(cell, rate)
        recipes = self.recipes_of(cell.row)
        return self.train(where, *recipes, LM_FROM=str(self.lm), **sources, **bindings)

    def made_from(self, cell: Cell, rate: float) -> dict[str, str]:
        """See `FewTexts`."""
        return {**super().made_from(cell, rate), **self.read}

    @property
    def read(self) -> dict[str, str]:
        """What passages are: those of the untrained model's receipt, if nothing else was asked."""
        first = receipts.read(self.receipts, self.name(BEFORE))
        if first is not None and not self.asked:
            return {name: first.made_from.get(name, "") for name in ("passages", "length")}
        return {"passages": self.digest, "length": str(LENGTH)}

    @property
    def digest(self) -> str:
        """Of the passages."""
        return hashlib.sha256("\0".join(self.passages).encode()).hexdigest()[:16]

    def further_metrics(self, run: pathlib.Path) -> dict[str, MetricValues]:
        """See `FewTexts`."""
        return {METRIC: after(self, run)}

    def check_passages(self) -> None:
        """Raises UserError if what there is was measured with other passages than these."""
        if self.read["passages"] != self.digest:
            raise UserError(
                f"{self.receipts} holds receipts of other passages (another Python's reference): "
                "delete them all to measure anew, or run this with that Python"
            )


def passage_nll(
    lm: object, params: PyTree[Array], ids: Sequence[Sequence[int]], rows: int = 4
) -> MetricValues:
    """nll of each passage's tokens but the first, in nats, summed.

    Args:
      lm: a decoder (`ilm_jax.models.decoder`).
      params: its weights.
      ids: tokens of passages, all as long.
      rows: passages that are read at a time.
    """

    @jax.jit
    def read(params: PyTree[Array], tokens: Array) -> Array:
        bound = lm.bind({"params": params})  # type: ignore[attr-defined]
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        states = bound(bound.embed(tokens), places, jnp.ones_like(tokens))
        return token_nll(bound.logits(states[:, :-1]), tokens[:, 1:]).sum(1)

    tokens = np.asarray(ids, np.int32)
    starts = range(0, len(tokens), rows)
    padded = np.concatenate([tokens, np.repeat(tokens[-1:], -len(tokens) % rows, 0)])
    sums = np.concatenate([read(params, padded[start : start + rows]) for start in starts])
    sums = sums.astype(np.float64)
    count = np.full(len(tokens), tokens.shape[1] - 1.0)
    index = np.arange(len(tokens))
    return MetricValues(METRIC, "passages", index, sums[: len(tokens)], count, False)


def tokenized(tokenizer: Tokenizer, passages: Sequence[str]) -> list[list[int]]:
    """The first `LENGTH` tokens of every passage that has so many.

    Raises:
      UserError: if none has.
    """
    found = [ids[:LENGTH] for ids in map(tokenizer.encode, passages) if len(ids) >= LENGTH]
    if not found:
        raise UserError(f"no passage has {LENGTH} tokens: give longer ones (--passages)")
    return found


def before(study: Retention) -> MetricValues:
    """`passage_nll` of the published model as it stands."""
    tokenizer = open_tokenizer_at(study.source)
    model = load_language_model(study.source, tokenizer, "float32")
    ids = tokenized(tokenizer, study.passages)
    return passage_nll(model.objective.model.lm, model.params["lm"], ids)


def after(study: Retention, row: pathlib.Path) -> MetricValues:
    """`passage_nll` of a run's language model."""
    trained = load_trained(run_of_folder(row))
    ids = tokenized(trained.tokenizer, study.passages)
    return passage_nll(trained.objective.model.lm, trained.params["lm"], ids)  # type: ignore[attr-defined]


def measure(study: Retention, rows: Sequence[str]) -> dict[str, Receipt]:
    """Receipts by row; "before" is the published model's. What has none is run.

    Raises:
      UserError: as `few_texts.measure`, and if what there is was measured with other passages.
    """
    name = study.name(BEFORE)
    made_from = {"language model": identity(study.source), **study.read}
    first = receipts.standing(study.receipts, name, made_from)
    if first is None:
        first = Receipt(name, made_from, receipts.commit(), 0.0, [], {METRIC: before(study)})
        receipts.write(study.receipts, first)
    found = {BEFORE: first}
    for row in rows:
        cell, rate = Cell(0, row), ROWS[row][2]
        if few_texts.kept(study, cell, rate) is None:
            study.check_passages()
            few_texts.run(study, [cell], {str(cell): rate})
        receipt = few_texts.kept(study, cell, rate)
        assert receipt is not None
        found[row] = receipt
    return found


def report(found: Mapping[str, Receipt]) -> str:
    """A line for each row: perplexity of the passages, and what training changed."""
    lines = []
    first = found[BEFORE].metrics[METRIC]
    for row, receipt in found.items():
        own = receipt.metrics[METRIC]
        lines.append(f"{row:10} perplexity of passages {math.exp(own.mean):.2f}")
        if row != BEFORE:
            texts = receipt.metrics["nll_content"]
            described = mean_interval(texts.values, texts.weights)
            lines[-1] += f", nll_content of test items' texts {described}"
            lines.append(f"  {compare(row, own.values, BEFORE, first.values, own.weights)}")
    return "\n".join(lines)


def passages_of(file: str | None) -> tuple[str, ...]:
    """Passages of a JSON list, or the topics of Python's reference.

    Raises:
      UserError: if the file is none.
    """
    if file is None:
        return tuple(text for _, text in sorted(pydoc_data.topics.topics.items()))
    try:
        found = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise ValueError("no list of texts")
    except (OSError, ValueError) as error:
        raise UserError(f"--passages={file}: {error}") from error
    return tuple(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = real_texts.parser_of("retention.py", __doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--passages", help="JSON: list of texts")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)

    def run() -> None:
        words = real_texts.words_of(flags, flags.seed)
        study = Retention(**words, passages=passages_of(flags.passages), asked=bool(flags.passages))
        print("\n" + report(measure(study, flags.rows)))

    return exit_code(run, "retention.py")


if __name__ == "__main__":
    sys.exit(main())
