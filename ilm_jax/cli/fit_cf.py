"""`ilm fit_cf`: fits collaborative vectors for every item and user of a dataset.

Reads training interactions only, and prints how well the vectors rank the validation targets over
the whole catalogue, beside popularity.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from ilm_jax.cli.words import DATASET, parse_flags, split_bindings

if TYPE_CHECKING:
    from ilm_jax.cf.evaluation import CFResult
    from ilm_jax.cf.ials import IALSConfig
    from ilm_jax.cf.table import EmbeddingTable
    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.runs.fitting import FitCF

# What found the defaults of the flags is in runs/cf.gin.

_MODEL_DIR = (
    "Folder of the checkpoints and metrics of a method that is trained step by step "
    "(runs/cf_sampled.gin): a fit that was killed goes on from there, to the same table bit for "
    "bit. Without it only the table is written, and a fit that was killed starts anew."
)

# What recipes call the flags that say how iALS is fitted; other methods have names of their own.
_IN_RECIPES = {
    "held_out_items": "HELD_OUT_ITEMS",
    "seed": "SEED",
    "split_seed": "splits.SplitConfig.seed",
    **{
        name: f"ials.IALSConfig.{name}"
        for name in ("dim", "epochs", "alpha", "regularisation", "nu")
    },
}


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        **DATASET,
        "item_vectors": (None, "Ready-made vectors (.npy, .safetensors) to take instead of a fit."),
        "user_vectors": (None, "The same for users (default: means of their training items)."),
        "extends": (None, "Table of iALS that stays; items and users that joined are solved for."),
        "output": (None, "File to write (default: CACHE_DIR/tables/DATASET.safetensors)."),
        "model_dir": (None, _MODEL_DIR),
        "sequences": (None, "Instead of raw files: lines of `user item item …`, oldest first."),
    }
    for name, (file, text) in texts.items():
        flags.DEFINE_string(name, file, text, flag_values=values)
    lists = {
        "gin_file": "Recipe, such as runs/cf_ml1m.gin; then the flags below it do not count.",
        "gin_search_paths": "Folders in which recipes are looked for.",
    }
    for name, text in lists.items():
        flags.DEFINE_multi_string(name, [], text, flag_values=values)
    integers = {
        "dim": (32, 1, "Length of the vectors."),
        "epochs": (16, 1, "Alternations."),
        "seed": (0, 0, "Of the first item vectors."),
        "split_seed": (0, 0, "Of the hash that splits the items."),
    }
    for name, (number, least, text) in integers.items():
        flags.DEFINE_integer(name, number, text, lower_bound=least, flag_values=values)
    floats = {
        "alpha": (0.1, "Weight of every pair, observed or not."),
        "regularisation": (0.01, "L2 weight, scaled by frequency."),
        "nu": (1.0, "Exponent of the frequency scaling."),
        "held_out_items": (0.1, "Share of the items in each held-out fold."),
    }
    for name, (weight, text) in floats.items():
        flags.DEFINE_float(name, weight, text, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    With --gin_file (and --gin.NAME=VALUE) a recipe says everything, `runs/cf_ml1m.gin` for one;
    without, the flags do.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.locks import one_writer

    bindings, rest = split_bindings(argv)
    values = _flags()
    parse_flags(values, "fit_cf", rest)

    from ilm_jax.runs.tables import table_path

    fitting = _from_recipe(values, bindings) if values.gin_file else _from_flags(values, bindings)
    output = table_path(fitting)

    splits = fitting.splits()
    print(_describe(splits), flush=True)
    with one_writer(output, "ilm fit_cf", beside=True):  # also sees early that it can be written
        if values.item_vectors:
            from ilm_jax.cf.given_vectors import given_table

            table = given_table(splits, values.item_vectors, values.user_vectors or "")
        elif values.extends:
            from ilm_jax.cf.folding import extended_table

            table = extended_table(splits, values.extends)
        else:
            table = fitting.fit(splits, _progress(fitting.most_epochs), _config_text(values))
        table.save(output)
    cf, popularity = measure(splits, table)
    print(results_table(cf, popularity, _title(table)))
    cold = f"{int(table.item_cold.sum())} items, {int(table.user_cold.sum())} users"
    print(f"cold (no training interaction, vector zero): {cold}")
    print(f"wrote {output}")
    return 0


def _config_text(values: flags.FlagValues) -> str:
    from ilm_jax.runs import gin_config

    return gin_config.operative_config() if values.gin_file else ""


def _title(table: "EmbeddingTable") -> str:
    names = {"ials": "iALS"}
    return f"CF ({names.get(table.settings['method'], table.settings['method'])})"


def _from_flags(values: flags.FlagValues, bindings: list[str]) -> "FitCF":
    from ilm_jax.data.catalogue.splits import SplitConfig
    from ilm_jax.errors import UserError
    from ilm_jax.runs.fitting import FitCF

    if bindings:
        raise UserError(f"--gin.{bindings[0]} needs a recipe: add --gin_file=runs/cf.gin")
    if values.user_vectors and not values.item_vectors:
        raise UserError("--user_vectors alone: give the items' as well, --item_vectors=FILE")
    given = next((name for name in ("item_vectors", "extends") if values[name].value), "")
    unread = [name for name in (*_FIT, "extends") if values[name].present and name != given]
    if given and unread:
        raise UserError(f"--{given} and --{unread[0]}: nothing is fitted; leave one out")
    return FitCF(
        dataset=values.dataset,
        data_dir=values.data_dir,
        cache_dir=values.cache_dir,
        sequences=values.sequences,
        output=values.output,
        model_dir=values.model_dir or "",
        methods=(_config(values),),
        split=SplitConfig(values.held_out_items, values.split_seed),
    )


def _from_recipe(values: flags.FlagValues, bindings: list[str]) -> "FitCF":
    from ilm_jax.errors import UserError
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.fitting import FitCF

    given = [
        name
        for name in values
        if values[name].present and name not in ("gin_file", "gin_search_paths", *_DATA)
    ]
    if given:
        instead = "leave one out"
        if name := _IN_RECIPES.get(given[0]):
            instead = f"bind it by its name there, --gin.{name}={values[given[0]].value}"
        raise UserError(f"--{given[0]} and a recipe: {instead}")
    named = [
        f"fitting.FitCF.{name}={values[name].value!r}" for name in _DATA if values[name].present
    ]
    return gin_config.build(FitCF, values.gin_file, [*named, *bindings], values.gin_search_paths)


_DATA = ("dataset", "data_dir", "cache_dir", "sequences", "output", "model_dir")
_FIT = ("dim", "epochs", "seed", "alpha", "regularisation", "nu")


def measure(splits: "Splits", table: "EmbeddingTable") -> tuple["CFResult", "CFResult"]:
    """Ranks of the validation targets by the table's vectors, and by popularity."""
    from ilm_jax.cf import evaluation
    from ilm_jax.cf.popularity import popularity_scorer

    vectors = evaluation.vector_scorer(table.user, table.item)
    popular = popularity_scorer(splits.train_counts())
    return evaluation.evaluate(vectors, splits), evaluation.evaluate(popular, splits)


def results_table(cf: "CFResult", popularity: "CFResult", name_of_cf: str = "CF (iALS)") -> str:
    """Validation metrics of both with 95 % intervals, and the verdict of the paired test."""
    from ilm_jax.metrics.intervals import compare, mean_interval

    rows = [("", "Recall@20", "", "NDCG@10", "")]
    for name, result in ((name_of_cf, cf), ("popularity", popularity)):
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


def _describe(splits: "Splits") -> str:
    report = splits.report()
    return (
        f"{report['dataset']} {report['version']}: {report['users']} users, "
        f"{splits.catalogue.num_items} items, {report['train_interactions']} of "
        f"{report['interactions']} interactions train (leave-one-out; "
        f"{report['users_under_three_interactions']} users without targets, "
        f"{report['users_with_tied_last_two']} with a tie in their last two)"
    )


def _progress(epochs: int) -> Callable[[int, object, object], None]:
    """Says the epoch and the time left: in place on a terminal, else every few seconds."""
    start = time.monotonic()
    seen: dict[str, float] = {"first": start, "said": start}

    def on_epoch(done: int, user: object, item: object) -> None:
        """One line per epoch on a terminal, else at most every 5 seconds."""
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
        line = f"epoch {done}/{epochs}, {now - start:.1f} s{left}"
        end = "\n" if not live or done == epochs else ""
        print(f"\r{line:<60}" if live else line, end=end, flush=True)

    return on_epoch
