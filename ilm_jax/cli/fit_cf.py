"""`ilm fit_cf`: fits collaborative vectors for every item and user of a dataset.

Reads training interactions only, and prints how well the vectors rank the validation targets over
the whole catalogue, beside popularity.
"""

import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.cf.evaluation import CFResult
    from ilm_jax.cf.ials import IALSConfig
    from ilm_jax.cf.table import EmbeddingTable
    from ilm_jax.data.splits import Splits

# The defaults are one setting for both worlds that we measure on; validation Recall@20 / NDCG@10
# of a grid with 16 epochs, dim 32 (popularity: toy .0437 / .0111, latest_small .0574 / .0172;
# standard error of Recall@20 about .008 and .013):
#            alpha:  0.01         0.03         0.1          0.3          1
#   toy      reg 1e-3 .212 / .065  .240 / .085  .257 / .096  .269 / .096  .261 / .094
#            reg 3e-3 .214 / .068  .244 / .087  .259 / .096  .267 / .096  .262 / .090
#            reg 1e-2 .234 / .077  .245 / .090  .266 / .097  .267 / .093  .084 / .023
#            reg 3e-2 .254 / .085  .266 / .099  .258 / .091  .088 / .025  .049 / .013
#   latest_  reg 1e-3               .102 / .030  .112 / .035  .116 / .037  .125 / .037
#   small    reg 3e-3               .100 / .030  .115 / .035  .116 / .037  .115 / .036
#            reg 1e-2               .121 / .036  .115 / .038  .115 / .034  .077 / .021
#            reg 3e-2               .120 / .037  .107 / .028  .066 / .020  .054 / .014
# At the default, dim 16 and 64: toy .270 / .098 and .260 / .093, latest_small .118 / .029 and
# .123 / .037.


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        "dataset": ("toy", "Dataset, such as toy or movielens/latest_small."),
        "data_dir": (None, "Folder of the dataset's raw files."),
        "cache_dir": (None, "Folder of prepared data (default: $ILM_CACHE or ~/.cache/ilm_jax)."),
        "output": (None, "File to write (default: CACHE_DIR/tables/DATASET.safetensors)."),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    integers = {
        "dim": (32, 1, "Length of the vectors."),
        "epochs": (16, 1, "Alternations."),
        "seed": (0, 0, "Of the first item vectors."),
        "split_seed": (0, 0, "Of the hash that splits the items."),
    }
    for name, (default, least, text) in integers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=values)
    floats = {
        "alpha": (0.1, "Weight of every pair, observed or not."),
        "regularisation": (0.01, "L2 weight, scaled by frequency."),
        "nu": (1.0, "Exponent of the frequency scaling."),
        "held_out_items": (0.1, "Share of the items in each held-out fold."),
    }
    for name, (default, text) in floats.items():
        flags.DEFINE_float(name, default, text, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli.main import parse_flags
    from ilm_jax.data.prepare import default_cache_dir

    values = _flags()
    parse_flags(values, "fit_cf", argv)
    cache_dir = pathlib.Path(values.cache_dir or default_cache_dir()).expanduser()
    name = values.dataset.replace("/", "_")
    default = cache_dir / "tables" / f"{name}.safetensors"
    output = pathlib.Path(values.output or default).expanduser()
    config = _config(values)
    splits = _splits(values, cache_dir)

    print(_describe(splits), flush=True)
    table = fit_table(splits, config, _progress(config.epochs))
    table.save(output)
    cf, popularity = measure(splits, table)
    print(results_table(cf, popularity))
    cold = f"{int(table.item_cold.sum())} items, {int(table.user_cold.sum())} users"
    print(f"cold (no training interaction, vector zero): {cold}")
    print(f"wrote {output}")
    return 0


def fit_table(
    splits: "Splits", config: "IALSConfig", on_epoch: Callable[..., None] | None = None
) -> "EmbeddingTable":
    """Fits the training interactions of `splits`; see `ilm_jax.cf.ials.fit` for `on_epoch`.

    Raises:
      UserError: if the fit is not finite.
    """
    import dataclasses

    import numpy as np

    from ilm_jax.cf import ials
    from ilm_jax.cf.table import EmbeddingTable
    from ilm_jax.errors import UserError

    catalogue = splits.catalogue
    users, items = splits.train_interactions()
    sizes = catalogue.num_users, catalogue.num_items
    try:
        factors = ials.fit(users, items, *sizes, config, on_epoch)
    except ValueError as error:
        raise UserError(f"{catalogue.name}: {error}") from error
    return EmbeddingTable(
        catalogue=catalogue.name,
        item=factors.item,
        user=factors.user,
        item_cold=splits.train_counts() == 0,
        user_cold=np.bincount(users, minlength=catalogue.num_users) == 0,
        item_ids=list(catalogue.item_ids),
        user_ids=list(catalogue.user_ids),
        split_fingerprint=splits.fingerprint,
        settings={"method": "ials", **dataclasses.asdict(config)},
    )


def measure(splits: "Splits", table: "EmbeddingTable") -> tuple["CFResult", "CFResult"]:
    """Ranks of the validation targets by the table's vectors, and by popularity."""
    from ilm_jax.cf import evaluation
    from ilm_jax.cf.popularity import popularity_scorer

    vectors = evaluation.vector_scorer(table.user, table.item)
    popular = popularity_scorer(splits.train_counts())
    return evaluation.evaluate(vectors, splits), evaluation.evaluate(popular, splits)


def results_table(cf: "CFResult", popularity: "CFResult") -> str:
    """Validation figures of both with 95 % intervals, and the verdict of the paired test."""
    from ilm_jax.evaluation.intervals import compare, mean_interval

    rows = [("", "Recall@20", "", "NDCG@10", "")]
    for name, result in (("CF (iALS)", cf), ("popularity", popularity)):
        recall, ndcg = mean_interval(result.recall(20)), mean_interval(result.ndcg(10))
        cells = [(f"{v.mean:.4f}", f"[{v.low:.4f}, {v.high:.4f}]") for v in (recall, ndcg)]
        rows.append((name, *cells[0], *cells[1]))
    lines = [f"{a:<12}{b:>9} {c:<19}{d:>9} {e:<19}".rstrip() for a, b, c, d, e in rows]
    verdict = compare("popularity", popularity.recall(20), "CF", cf.recall(20))
    head = f"validation, full catalogue, {len(cf.ranks)} users"
    return "\n".join([head, *lines, f"Recall@20: {verdict}"])


def _config(values: flags.FlagValues) -> "IALSConfig":
    from ilm_jax.cf.ials import IALSConfig
    from ilm_jax.errors import UserError

    names = ("dim", "epochs", "alpha", "regularisation", "nu", "seed")
    try:
        return IALSConfig(**{name: getattr(values, name) for name in names})
    except ValueError as error:
        raise UserError(f"{error}; change the flag") from error


def _splits(values: flags.FlagValues, cache_dir: pathlib.Path) -> "Splits":
    from ilm_jax.data.prepare import load_catalogue
    from ilm_jax.data.splits import SplitConfig, make_splits

    catalogue = load_catalogue(values.dataset, data_dir=values.data_dir, cache_dir=str(cache_dir))
    return make_splits(catalogue, SplitConfig(values.held_out_items, values.split_seed))


def _describe(splits: "Splits") -> str:
    report = splits.report()
    return (
        f"{report['dataset']} {report['version']}: {report['users']} users, "
        f"{splits.catalogue.num_items} items, {report['train_interactions']} of "
        f"{report['interactions']} interactions train (leave-one-out; "
        f"{report['users_under_three_interactions']} users without targets, "
        f"{report['users_with_tied_last_two']} with a tie in their last two)"
    )


def _progress(epochs: int) -> Callable[[int, Any, Any], None]:
    """Says the epoch and the time left: in place on a terminal, else every few seconds."""
    start = time.monotonic()
    seen: dict[str, float] = {"first": start, "said": start}

    def on_epoch(done: int, user: Any, item: Any) -> None:
        item.block_until_ready()
        now = time.monotonic()
        if done == 1:
            seen["first"] = now
        live = sys.stdout.isatty()
        if not live and done < epochs and now - seen["said"] < 5:
            return
        seen["said"] = now
        # The first epoch compiles, so it says nothing about the others.
        pace = (now - seen["first"]) / max(1, done - 1)
        left = f", {pace * (epochs - done):.0f} s left" if 1 < done < epochs else ""
        line = f"iALS epoch {done}/{epochs}, {now - start:.1f} s{left}"
        end = "\n" if not live or done == epochs else ""
        print(f"\r{line:<60}" if live else line, end=end, flush=True)

    return on_epoch
