"""Do critiques help, and are narratives true? LUMEN and the hybrid on toy worlds.

    python studies/lumen.py --lm_from=runs/toy/stage0 --tokenizer=CACHE/tokenizers/toy-….model

For every world (its number is the seed, too): iALS vectors, LUMEN through the given language model,
and SASRec that reads critiques; NDCG@10 on test purchases that a critique led to, with it and
without, seen items left out; narratives of either beside the item's title. What is there already in
--folder is read. Worlds share their words, so one language model serves all.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
from exiting import exit_code
from study import toy_world

from ilm_jax import open_run
from ilm_jax.cli import main as cli
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.evaluation.measures.narratives import Marked
from ilm_jax.evaluation.reports import results
from ilm_jax.files import atomic_write
from ilm_jax.metrics import lists, texts
from ilm_jax.metrics.intervals import compare, mean_interval
from ilm_jax.metrics.ranking import ndcg
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.sequential import SequentialFit
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.hybrid import Hybrid
from ilm_jax.training.host_memory import keep_freed_memory

WITH, WITHOUT = "purchase_critique", "purchase_uncritiqued"
TEXTS = ("rougeL", "true_words", "semantic")
NARRATIVES = 300  # that are written, a fixed sample
BATCH = 60


class World:
    """One world's runs.

    Attributes:
      number: of the world; the seed too.
      dataset: its name.
      folder: of its runs.
    """

    def __init__(self, number: int, folder: pathlib.Path, words: argparse.Namespace) -> None:
        self.number, self._words = number, words
        self.dataset = toy_world(number)
        self.folder = folder / f"world{number}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def lumen(self) -> dict[str, Any]:
        """Values by metric, trained and evaluated if they are not there."""
        table, run = self.folder / "cf.safetensors", self.folder / "lumen"
        if not table.exists():
            ran("fit_cf", f"--dataset={self.dataset}", f"--seed={self.number}", f"--output={table}")
        if not (run / "evaluation" / results.SUMMARY).exists():
            files = [f"--gin_file={name}" for name in self._words.recipes]
            ran(
                "train",
                *files,
                f"--gin.DATASET={self.dataset}",
                f"--gin.SEED={self.number}",
                f"--gin.LM_FROM={self._words.lm_from}",
                f"--gin.TOKENIZER={self._words.tokenizer}",
                f"--gin.CF_TABLE={table}",
                f"--gin.MODEL_DIR={run}",
                *(f"--gin.{binding}" for binding in self._words.bind),
            )
            tasks = (f"--tasks={WITH},{WITHOUT}", f"--texts={NARRATIVES}")
            ran("evaluate", f"--model_dir={run}", *tasks, "--exclude_seen")
        stored = results.read(run).metrics
        return {name: metric.values.tolist() for name, metric in stored.items()}

    def hybrid(self) -> dict[str, Any]:
        """The same of SASRec that reads critiques, with LUMEN's language model behind it."""
        kept = self.folder / "hybrid.json"
        if not kept.exists():
            found = self._hybrid()
            with atomic_write(kept) as stream:
                json.dump(found, stream)
        return json.loads(kept.read_text())

    def _hybrid(self) -> dict[str, Any]:
        bindings = [
            f"fitting.FitCF.dataset='{self.dataset}'",
            f"fitting.FitCF.model_dir='{self.folder}/sasrec'",
            f"SEED={self.number}",
        ]
        recipe = gin_config.build(FitCF, ["runs/sasrec_critiques.gin"], bindings)
        opened = open_run(self.folder / "lumen")
        trained = opened.model
        splits = make_splits(opened.catalogue, recipe.split)
        fit = recipe.trained(splits)
        assert isinstance(fit, SequentialFit)
        fit.fit()
        stream = trained.task(WITH, "test").feed.stream
        examples = [stream[number] for number in range(stream.len_epoch)]
        rows = {raw: user for user, raw in enumerate(splits.catalogue.user_ids)}
        users = [rows[example["user"]] for example in examples]
        histories = [splits.catalogue.sequence(user)[:-1].tolist() for user in users]
        assert fit.critiques is not None
        said = fit.critiques.before(splits, -1)
        wishes = [said[user] for user in users]
        targets = [np.array([example["target_item"]]) for example in examples]
        values: dict[str, Any] = {}
        for name, words in ((WITH, wishes), (WITHOUT, [""] * len(users))):
            found = fit.recommend(histories, 10, critiques=words)
            ranks = lists.ranks_of(found, targets)[:, 0]
            values[f"{name}/ndcg@10"] = ndcg(ranks, 10).tolist()
        narrator = Answerer.of_trained(trained)
        hybrid = Hybrid(fit, narrator)
        config = DecodingConfig(40, tuple(trained.stop_ids), trained.tokenizer.pad_id)
        answers = []
        for first in range(0, min(NARRATIVES, len(users)), BATCH):
            part = slice(first, first + BATCH)
            answers += hybrid.recommend(histories[part], wishes[part], 1, config)
        wanted = [example["target_text"] for example in examples[: len(answers)]]
        picked = [splits.catalogue.item_row[answer["items"][0]["id"]] for answer in answers]
        marked = Marked(splits.catalogue)
        for way, written in (
            ("", [answer["text"] for answer in answers]),
            ("title/", [splits.catalogue.titles[row] for row in picked]),
        ):
            values[f"{WITH}/{way}true_words"] = marked.truth(written, picked).tolist()
            rouge = texts.rouge(written, wanted)
            if rouge is not None:
                values[f"{WITH}/{way}rougeL"] = rouge["rougeL"].tolist()
        return values


def ran(*words: str) -> None:
    """Runs a verb of `ilm`; ends this program where it fails."""
    if code := cli.main(list(words)):
        sys.exit(code)


def told(name: str, values: dict[str, Any]) -> list[str]:
    """Lines of one model: both ways to rank, their paired test, and narratives beside titles."""
    one, two = (np.array(values[f"{task}/ndcg@10"]) for task in (WITH, WITHOUT))
    tested = compare("without critiques", two, "with critiques", one)
    lines = [f"{name}, {len(one)} purchases"]
    lines += [f"  NDCG@10 with critiques {mean_interval(one)}, without {mean_interval(two)}"]
    lines += [f"  {tested}"]
    for metric in TEXTS:
        text, title = values.get(f"{WITH}/{metric}"), values.get(f"{WITH}/title/{metric}")
        if text is not None and title is not None:
            known = np.isfinite(text) & np.isfinite(title)
            pair = np.array(title)[known], np.array(text)[known]
            lines += [f"  {metric}: {compare('titles', pair[0], 'narratives', pair[1])}"]
    return lines


def main() -> int:
    """Parses the words, trains what is not trained, and prints the table."""
    parser = argparse.ArgumentParser(
        prog="lumen.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lm_from", required=True, help="run of stage 0")
    parser.add_argument("--tokenizer", required=True, help="the one that it was trained with")
    parser.add_argument("--folder", default="runs/lumen", type=pathlib.Path)
    parser.add_argument("--worlds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipes", nargs="*", default=["tiny/stage2_mlp.gin", "tiny/lumen.gin"])
    parser.add_argument("--bind", nargs="*", default=[], help="NAME=VALUE of LUMEN's recipe")
    words = parser.parse_args()
    keep_freed_memory()
    pooled: dict[str, dict[str, list[float]]] = {"LUMEN": {}, "hybrid": {}}
    for number in words.worlds:
        world = World(number, words.folder, words)
        for name, values in (("LUMEN", world.lumen()), ("hybrid", world.hybrid())):
            print("\n".join(told(f"world {number}: {name}", values)), flush=True)
            for metric, of in values.items():
                pooled[name].setdefault(metric, []).extend(of)
    if len(words.worlds) > 1:
        for name, values in pooled.items():
            print("\n".join(told(f"all {len(words.worlds)} worlds: {name}", values)))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
