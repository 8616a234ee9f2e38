"""`ilm convert`: a published model into the framework's frozen checkpoint, and runs back out."""

import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.checkpoints.model_card import CardFacts
    from ilm_jax.checkpoints.published.sources import Opened

DTYPES = ("bfloat16", "float32", "float16")


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        "source": "Folder of a published model (Hugging Face safetensors, T5X) or of a run.",
        "model_dir": "Folder to be made.",
        "step": "Of a run: a step, 'best' (lowest validation loss) or 'last'. Default: best.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum(
        "to", "frozen", ["frozen", "adapter", "hugging_face"],
        "frozen: a language model as the framework's checkpoint, for LM_FROM, with its bindings in "
        "model.gin. adapter: what a run trained, as a Hugging-Face-style folder with a model card. "
        "hugging_face: a run's language model in its base's layout, low-rank updates merged.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum(
        "dtype", None, DTYPES,
        "Of the weights written (default: bfloat16 for frozen; hugging_face: as they are).",
        flag_values=values,
    )  # fmt: skip
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli import opening
    from ilm_jax.cli.words import parse_flags

    values = _flags()
    parse_flags(values, "convert", argv)

    from ilm_jax.errors import UserError

    if not values.source or not values.model_dir:
        raise UserError("name both folders: ilm convert --source=DIR --model_dir=OUT")
    if values.to == "adapter" and values.dtype:
        raise UserError("--to=adapter keeps the bits that were trained: leave --dtype out")

    from ilm_jax.checkpoints import converting
    from ilm_jax.locks import one_writer

    source, out = values.source, values.model_dir
    step = values.step or "best"
    converting.refuse_existing(out)
    opening.say_template(source)
    with one_writer(out, "ilm convert", beside=True):
        if values.to == "adapter":
            run = pathlib.Path(source)
            converting.to_adapter(source, out, step, _tokenizer_saver(run), _facts(run))
        elif values.to == "hugging_face":
            converting.to_hugging_face(source, out, values.dtype, step, _progress)
        else:
            fingerprint = converting.to_frozen(
                source,
                out,
                values.dtype or "bfloat16",
                step,
                _write_recipe(source, values.dtype),
                _progress,
            )
            print(f"fingerprint {fingerprint}")
            print(f"use it with --gin_file={out}/model.gin --gin.LM_FROM={out}")
    print(f"wrote {out}")
    return 0


def _write_recipe(source: str, dtype: str | None) -> Callable[[pathlib.Path, "Opened", str], None]:
    from ilm_jax.data.tokenizers import holds_tokenizer
    from ilm_jax.runs.model_gin import model_gin

    def write(folder: pathlib.Path, opened: "Opened", fingerprint: str) -> None:
        kind, fields = opened.configs["lm"]
        comment = f"{opened.where}, fingerprint {fingerprint}: name it after a stage-2 recipe."
        if pathlib.Path(source, "config.gin").is_file():  # a run has its tokenizer in the cache
            _tokenizer_saver(pathlib.Path(source))(folder)
        tokenizer = "%LM_FROM" if holds_tokenizer(folder) else None
        if tokenizer is None and opened.config is not None:
            # One that is trained on the dataset would give this model the ids of other words.
            tokenizer = "%gin.REQUIRED"
            print(f"{opened.where} holds no tokenizer: name it to each run by --gin.TOKENIZER=…")
        text = model_gin(kind, fields, dtype or "bfloat16", comment, tokenizer)
        (folder / "model.gin").write_text(text)

    return write


def _progress(total: int) -> Callable[[str, int], None]:
    """Prints share, speed and time left, at most twice a second."""
    start, done, shown = time.monotonic(), 0, 0.0

    def report(name: str, size: int) -> None:
        nonlocal done, shown
        done += size
        now = time.monotonic()
        if now - shown < 0.5 and done < total:
            return
        shown, spent = now, max(now - start, 1e-6)
        left = spent * (total - done) / max(done, 1)
        end = "\n" if done >= total else ""
        line = f"{done / total:4.0%} of {total / 1e6:,.1f} MB, {left:,.0f} s left: {name}"
        print(f"\r{line:<100.100}", end=end, file=sys.stderr, flush=True)

    return report


def _facts(run: pathlib.Path) -> "CardFacts":
    """What the run's recipe says of its data."""
    from ilm_jax.checkpoints.model_card import CardFacts
    from ilm_jax.errors import UserError
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.run import Run

    if not (run / "config.gin").is_file():
        raise UserError(f"{run} holds no config.gin: is it the MODEL_DIR of a run?")
    recipe = gin_config.build(Run, [str(run / "config.gin")], [f"MODEL_DIR={str(run)!r}"])
    return CardFacts(dataset=recipe.dataset.dataset, tasks=recipe.dataset.rates)


def _tokenizer_saver(run: pathlib.Path) -> Callable[[pathlib.Path], None]:
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.run import Run

    def save(folder: pathlib.Path) -> None:
        recipe = gin_config.build(Run, [str(run / "config.gin")], [f"MODEL_DIR={str(run)!r}"])
        own = getattr(recipe.tokenizer, "model", None)
        recipe.tokenizer.save(folder / "tokenizer.model" if own else folder)

    return save
