"""Uses data of one's own: from two CSV files to a recommendation and a description.

Adds nothing to the package. Writes a shop of 120 customers and 60 products into a folder, which
stands for yours, and trains the three stages for some steps: about 4 minutes on two CPU cores, and
too short for good answers.

    python examples/own_data.py [FOLDER] [--steps=200]
"""

import argparse
import csv
import pathlib
import random
import tempfile
from typing import Any

import ilm_jax


def write_shop(folder: pathlib.Path) -> None:
    """interactions.csv and items.csv; a custom dataset's columns can also have other names."""
    draw = random.Random(0)
    kinds, uses = ("lamp", "chair", "shelf", "mug"), ("reading", "the kitchen", "a small room")
    with (folder / "items.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["item", "title", "text"])
        for n in range(60):
            kind, use = kinds[n % 4], uses[n % 3]
            rows.writerow([f"p{n}", f"{kind} {n}", f"A {kind} for {use}, model {n}."])
    with (folder / "interactions.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["user", "item", "time"])
        for user in range(120):  # every customer buys one kind, mostly
            for time in range(8):
                item = 4 * draw.randrange(15) + (user % 4 if draw.random() < 0.9 else time % 4)
                rows.writerow([f"c{user}", f"p{item}", 1_700_000_000 + 86_400 * time])


def main(folder: pathlib.Path, steps: int) -> None:
    """From raw files to answers, by the names of `ilm_jax` alone."""
    shop, runs = folder / "shop", folder / "runs"
    shop.mkdir(parents=True, exist_ok=True)
    write_shop(shop)
    where: dict[str, Any] = {
        "DATASET": "custom/shop",
        "DATA_DIR": shop,
        "CACHE_DIR": folder / "cache",
    }
    where |= {"TRAIN_STEPS": steps, "HELD_OUT_ITEMS": 0.1}
    table = folder / "cf.safetensors"
    ilm_jax.fit_cf("custom/shop", data_dir=shop, cache_dir=where["CACHE_DIR"], output=table)
    ilm_jax.train("tiny/stage0.gin", MODEL_DIR=runs / "lm", **where)
    ilm_jax.train("tiny/stage1.gin", MODEL_DIR=runs / "qformer", CF_TABLE=table, **where)
    sources: dict[str, Any] = {
        "CF_TABLE": table,
        "LM_FROM": runs / "lm",
        "QFORMER_FROM": runs / "qformer",
    }
    ilm_jax.train("tiny/stage2_ilm.gin", MODEL_DIR=runs / "ilm", **sources, **where)
    run = ilm_jax.open_run(runs / "ilm")
    for item in run.recommend("c7", count=3):
        print(f"{item.title} [{item.id}]  log p {item.score:.2f}")
    print(run.describe("p11"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=200)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(words.folder or pathlib.Path(temporary), words.steps)
