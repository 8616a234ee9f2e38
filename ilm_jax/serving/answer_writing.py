"""Answers to many prompts, written as they are found."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from ilm_jax import progress
from ilm_jax.errors import UserError
from ilm_jax.serving.answer_file import AnswerFile
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.requests import Request


def write_answers(
    answerer: Answerer,
    requests: Iterable[Request],
    answer: Callable[[Sequence[Request]], list[dict[str, Any]]],
    output: str,
    settings: Mapping[str, Any],
    batch_size: int,
    total: int,
) -> tuple[int, int]:
    """Answers what the file does not hold yet, batch by batch, and adds it there.

    Args:
      answerer: gives the prompts' shapes.
      requests: all of them.
      answer: the answers of a batch.
      output, settings: see `AnswerFile`.
      batch_size: prompts that are read at once.
      total: number of requests, for the bar.

    Returns:
      (answers now written, answers that were there).
    """
    new = 0
    with AnswerFile(output, lambda row: (row["id"], row["prompt"]), settings) as file:
        advance = progress.bar("answers", total, len(file.done))
        advance(0)
        left = (r for r in requests if not _is_done(file.done, r, output))
        for batch in answerer.batches(left, batch_size):
            named = zip(batch, answer(batch), strict=True)
            file.write({"id": r.id, "prompt": r.prompt, **found} for r, found in named)
            advance(len(batch))
            new += len(batch)
    return new, len(file.done)


def _is_done(done: Mapping[Hashable, str], request: Request, output: str) -> bool:
    before = done.get(request.id)
    if before is None:
        return False
    if before != request.prompt:
        raise UserError(
            f"{output} answers another prompt under the id {request.id!r}: name another output"
        )
    return True
