"""Published models into frozen checkpoints, and runs back out, with their recipes' facts."""

import os
import pathlib
import sys
from collections.abc import Callable

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.model_card import CardFacts
from ilm_jax.checkpoints.published.sources import Opened
from ilm_jax.data.tokenizers import holds_tokenizer, save_in
from ilm_jax.errors import UserError
from ilm_jax.locks import one_writer
from ilm_jax.runs.model_gin import model_gin
from ilm_jax.runs.opening import run_of_folder

# Hears how many bytes there are, and gives what hears of each tensor.
OnTotal = Callable[[int], Callable[[str, int], None]]
FORMS = ("frozen", "adapter", "hugging_face")


def _unseen(total: int) -> Callable[[str, int], None]:
    del total
    return lambda name, size: None


def convert(
    source: str | os.PathLike,
    model_dir: str | os.PathLike,
    *,
    to: str = "frozen",
    dtype: str | None = None,
    step: int | str = "best",
    on_total: OnTotal = _unseen,
) -> str:
    """Makes a folder of a model in another form.

        ilm_jax.convert("published/llama", "frozen/llama")

    Args:
      source: a published model (a folder of Hugging Face safetensors or of T5X, a GGUF file, or a
        name: pkg://…, hf://…, gs://…), or a run's folder.
      model_dir: the folder to be made.
      to: "frozen": a language model as a checkpoint, for LM_FROM, with its bindings in model.gin;
        "adapter": what a run trained, in a Hugging-Face-style folder with a model card;
        "hugging_face": a run's language model in its base's layout, low-rank updates merged.
      dtype: of the weights written; None: bfloat16 for "frozen", else as they are.
      step: of a run: a step, "best" or "last".
      on_total: hears how far it is.

    Returns:
      The fingerprint of a "frozen" model; "" for other forms.

    Raises:
      UserError: for a source that cannot be read, or a folder that is there already.
    """
    source, out = os.fspath(source), os.fspath(model_dir)
    if to not in FORMS:
        raise UserError(f"to={to!r}: give one of {', '.join(FORMS)}")
    if to == "adapter" and dtype:
        raise UserError("--to=adapter keeps the bits that were trained: leave --dtype out")
    converting.refuse_existing(out)
    run = pathlib.Path(source)
    with one_writer(out, "ilm convert", beside=True):
        if to == "adapter":
            converting.to_adapter(source, out, step, _tokenizer_saver(run), _facts(run))
        elif to == "hugging_face":
            converting.to_hugging_face(source, out, dtype, step, on_total)
        else:
            recipe = _write_recipe(source, dtype or "bfloat16")
            kind = dtype or "bfloat16"
            return converting.to_frozen(source, out, kind, step, recipe, on_total)
    return ""


def _write_recipe(source: str, dtype: str) -> Callable[[pathlib.Path, Opened, str], None]:
    def write(folder: pathlib.Path, opened: Opened, fingerprint: str) -> None:
        """Writes model.gin, which names the model's sizes and where its tokenizer is."""
        kind, fields = opened.configs["lm"]
        comment = f"{source}, fingerprint {fingerprint}: name it after a stage-2 recipe."
        if pathlib.Path(source, "config.gin").is_file():  # a run has its tokenizer in the cache
            _tokenizer_saver(pathlib.Path(source))(folder)
        tokenizer = "%LM_FROM" if holds_tokenizer(folder) else None
        if tokenizer is None and opened.config is not None:
            # One that is trained on the dataset would give this model the ids of other words.
            tokenizer = "%gin.REQUIRED"
            print(
                f"{opened.where} holds no tokenizer: name it to each run by --gin.TOKENIZER=…",
                file=sys.stderr,
            )
        text = model_gin(kind, fields, dtype, comment, tokenizer)
        (folder / "model.gin").write_text(text)

    return write


def _facts(run: pathlib.Path) -> CardFacts:
    """What the run's recipe says of its data."""
    recipe = run_of_folder(run)
    return CardFacts(dataset=recipe.dataset.dataset, tasks=recipe.dataset.rates)


def _tokenizer_saver(run: pathlib.Path) -> Callable[[pathlib.Path], None]:
    return lambda folder: save_in(run_of_folder(run).tokenizer, folder)
