"""`ilm infer --lm=…`: answers of a language model by itself, without a run and a catalogue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.serving.requests import Request

# Of a run's prompts alone.
_OF_A_RUN = ("model_dir", "task", "mention")
LENGTH = 1024


def main(values: flags.FlagValues, bindings: Sequence[str]) -> int:
    """Answers the prompts of --input; returns the exit code.

    Raises:
      UserError: for flags of a run, or as reading model and prompts.
    """
    from ilm_jax.checkpoints.identity import identity
    from ilm_jax.cli import opening
    from ilm_jax.data.tokenizers import record_of
    from ilm_jax.errors import UserError
    from ilm_jax.serving import corpus_writing, requests
    from ilm_jax.serving.answer_writing import write_answers

    wrong = [f"--{name}" for name in _OF_A_RUN if getattr(values, name)]
    wrong += ["--answer=items"] * (values.answer == "items") + [*bindings][:1]
    if wrong or not values.input or not values.output:
        raise UserError(
            "ilm infer --lm=MODEL takes --input=FILE and --output=FILE, for texts"
            + (f", and no {wrong[0]}" if wrong else "")
        )
    opening.check_decoding(values)
    length = values.max_prompt_length or LENGTH
    # A slip in the prompts shows before weights are read.
    tokenizer = opening.tokenizer_of_model(values)
    prompts = requests.PromptFile(values.input, requests.PlainWriter(tokenizer, length))
    total, _ = requests.count(prompts)
    model, stops = opening.load_model(values, tokenizer)
    answerer = corpus_writing.writer_of_model(model, length, values.batch_size)
    config = opening.decoding(values, stops, tokenizer.pad_id)
    settings = {
        "model": values.lm,
        "weights": identity(values.lm),
        "tokenizer": tokenizer.fingerprint,
        "prompts": record_of(tokenizer),
        "dtype": values.dtype,
        "source": values.input,
        "decoding": opening.plain(config),
    }

    def answer(batch: "Sequence[Request]") -> list[dict[str, Any]]:
        """One record per request of the batch."""
        return answerer.texts(batch, config)

    new, there = write_answers(
        answerer, prompts, answer, values.output, settings, values.batch_size, total
    )
    print(f"wrote {values.output}: {new} answers, {there} were there")
    return 0
