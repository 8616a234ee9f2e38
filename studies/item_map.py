"""What a Q-Former makes of item vectors: a map of items, and whose neighbours are alike.

Fits item vectors and trains stage 1 on one dataset, then looks at every item's vector, at what an
untrained Q-Former makes of it, and at what the same Q-Former makes of it after stage 1: its first
two principal components, the share of its ten nearest neighbours (by cosine) that have its first
category, and how many directions the outputs have (participation ratio of their covariance). What
is found goes into studies/receipts/item_map/DATASET.json, with the positions of `SHOWN` items.

    python studies/item_map.py --dataset custom --data_dir DIR [--model_dir runs/item_map]
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
import receipts
import scheduling
from exiting import exit_code
from study import Study, plan

from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.data.catalogue.splits import TRAIN
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write
from ilm_jax.locks import one_writer
from ilm_jax.models.applying import applied
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.runs.opening import run_of_folder
from ilm_jax.runs.run import Run
from ilm_jax.sharding.state import describe_variables, initialise, nested

NEIGHBOURS, SHOWN, CATEGORIES = 10, 900, 7
FOLDER = receipts.FOLDER / "item_map"
VIEWS = ("vectors", "untrained", "stage 1")


@dataclasses.dataclass(frozen=True)
class View:
    """Items as one reader gives them.

    Attributes:
      places: first two principal components, [items, 2].
      explained: share of the variance that these hold.
      alike: share of neighbours that have an item's first category, for each item.
      directions: participation ratio of the covariance.
    """

    places: np.ndarray
    explained: float
    alike: np.ndarray
    directions: float


def view(outputs: np.ndarray, categories: np.ndarray) -> View:
    """Looks at outputs [items, width] of items with these categories."""
    centred = outputs.astype(np.float64) - outputs.mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    variance = spread**2
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return View(
        centred @ axes[:2].T,
        float(variance[:2].sum() / variance.sum()),
        (categories[nearest] == categories[:, None]).mean(1),
        float(variance.sum() ** 2 / (variance**2).sum()),
    )


def by_chance(categories: np.ndarray) -> float:
    """Share of other items that have an item's category."""
    counts = np.array(list(Counter(categories.tolist()).values()))
    return float((counts * (counts - 1)).sum() / (len(categories) * (len(categories) - 1)))


def outputs_of(run: Run, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Each view's outputs of these items, queries side by side."""
    objective, tables = run.sized_objective, run.tables
    assert tables is not None
    model = QFormer(cast(QFormerConfig, objective.configs["qformer"]))
    (block,) = [name for name in tables.blocks if name.endswith("/item")]
    vectors = tables.vectors[tables.rows(block, rows)]
    variables, key = describe_variables(objective), jax.random.key(run.trainer.seed)
    fresh = initialise(objective, variables, list(variables), run.partitioner, key)
    sources = [InitFrom(run.model_dir)]
    trained, _ = load_sources(objective, variables, sources, (), run.partitioner, key)
    found = {"vectors": vectors}
    for name, params in (("untrained", fresh), ("stage 1", trained)):
        made = applied(model, nested(params)["qformer"], vectors)
        found[name] = np.asarray(made, np.float32).reshape(len(rows), -1)
    return found


def measured(study: Study) -> dict[str, Any]:
    """What is written of a study whose stage 1 is trained."""
    run = run_of_folder(study.folder / "stage1")
    catalogue, tables = study.catalogue, run.tables
    assert tables is not None
    known = np.array([bool(found) for found in catalogue.categories])
    cold = tables.cold[tables.rows(f"{catalogue.name}/item", np.arange(catalogue.num_items))]
    rows = np.flatnonzero(known & ~cold)
    if len(rows) <= NEIGHBOURS:
        raise UserError(f"{catalogue.name}: {len(rows)} items have a category and a vector")
    first = np.array([catalogue.categories[row][0] for row in rows.tolist()])
    views = {name: view(made, first) for name, made in outputs_of(run, rows).items()}
    held_out = run.splits.item_fold[rows] != TRAIN
    shown = np.random.default_rng(0).permutation(len(rows))[:SHOWN]
    common = [name for name, _ in Counter(first.tolist()).most_common(CATEGORIES)]
    return {
        "dataset": _named(study),
        "data": catalogue.fingerprint,
        "items": len(rows),
        "held_out": int(held_out.sum()),
        "by_chance": round(by_chance(first), 4),
        "categories": [*common, "other"],
        "titles": [catalogue.titles[row] for row in rows[shown].tolist()],
        "category": [common.index(c) if c in common else len(common) for c in first[shown]],
        "views": {name: _plain(found, shown, held_out) for name, found in views.items()},
    }


def _plain(found: View, shown: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    """A view as JSON; positions in thousandths of the farthest of all.

    Args:
      found: the view.
      shown: items whose positions are kept.
      held_out: which items' texts stage 1 did not read.
    """
    places = np.rint(1000 * found.places / np.abs(found.places).max()).astype(int)
    return {
        "explained": round(found.explained, 4),
        "alike": round(float(found.alike.mean()), 4),
        "alike_held_out": round(float(found.alike[held_out].mean()), 4) if held_out.any() else None,
        "directions": round(found.directions, 4),
        "places": places[shown].tolist(),
    }


def said(record: Mapping[str, Any]) -> str:
    """The figures, as text."""
    lines = [
        f"{record['items']} items of {record['dataset']}, {record['held_out']} of them held out; "
        f"of any two a share of {record['by_chance']:.3f} have the same first category"
    ]
    for name, found in record["views"].items():
        held_out = found["alike_held_out"]
        also = "" if held_out is None else f" (of held-out items {held_out:.3f})"
        lines.append(
            f"  {name:10} neighbours alike {found['alike']:.3f}{also}, directions "
            f"{found['directions']:.1f}, two components hold {found['explained']:.2f}"
        )
    return "\n".join(lines)


def file_of(study: Study, folder: pathlib.Path = FOLDER) -> pathlib.Path:
    """Where the map of a study's items lies."""
    return folder / f"{_named(study).replace('/', '_')}.json"


def _named(study: Study) -> str:
    """The dataset's name; data of one's own go by the name of their folder."""
    own = study.family == "custom" and study.data_dir
    return pathlib.Path(study.data_dir or "").name if own else study.dataset


def read(file: pathlib.Path) -> dict[str, Any]:
    """A map that was written.

    Raises:
      UserError: if the file is none.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not {"data", "items", "views", "titles", "category", "held_out"} <= record.keys():
            raise ValueError("parts are missing")
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{file} is no map of items ({error}): delete it to have it drawn"
        ) from error
    return record


def is_of(file: pathlib.Path, study: Study) -> bool:
    """Whether a file holds the map of these data, which are opened first."""
    data = study.data
    return file.exists() and read(file)["data"] == data


def run(study: Study, file: pathlib.Path) -> None:
    """Trains what is not trained, writes what is found, and says it."""
    steps = [step for step in plan(study, ["ilm"], False, until="stage1") if step[0] != "stage0"]
    with one_writer(study.folder, "studies/item_map.py"):
        scheduling.run_steps(study, steps)
    record = measured(study)
    with atomic_write(file) as stream:
        json.dump(record, stream, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        stream.write("\n")
    print("\n" + said(record))


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="item_map.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--model_dir", default="runs/item_map", help="where everything is written")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, help="what was found (default: above)")
    flags = parser.parse_args(argv)
    folder, places = pathlib.Path(flags.model_dir), (flags.data_dir, flags.cache_dir)
    study = Study(flags.dataset, flags.seed, folder, *places, jobs=scheduling.default_jobs())
    return exit_code(lambda: run(study, flags.output or file_of(study)), "item_map.py")


if __name__ == "__main__":
    sys.exit(main())
