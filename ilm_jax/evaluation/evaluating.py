"""From what was measured to figures and files: the body of `ilm evaluate`."""

import os
import pathlib
from typing import Any

import jax

from ilm_jax.data.prompt_tokens import PromptTokenizer, target_tokens
from ilm_jax.data.prompts import PromptRenderer
from ilm_jax.evaluation import card, results, run_files, seqio_files, texts
from ilm_jax.evaluation.figures import Figure
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measure import (
    CHOICES,
    DESCRIPTIONS,
    Trained,
    histories,
    measure_language,
    measure_ranking,
    measure_texts,
)
from ilm_jax.evaluation.measures import Generated, colliding
from ilm_jax.evaluation.results import Evaluation
from ilm_jax.evaluation.semantic import REMEDY, Encode, semantic_consistency


def language_figures(found: LanguageResult) -> list[Figure]:
    """nll and nll_content per token; the latter where any token carries information."""
    pairs = {
        "nll": (found.nll_sum, found.tokens),
        "nll_content": (found.content_nll_sum, found.content_tokens),
    }
    return [
        Figure(name, "held-out texts", found.index, values, tokens)
        for name, (values, tokens) in pairs.items()
        if tokens.sum()
    ]


def text_figures(
    found: Generated, encoder: Encode | None
) -> tuple[list[Figure], dict[str, str], dict[str, float]]:
    """(exact match, ROUGE, BLEU and semantic consistency, what is missing and why, the rest)."""
    missing: dict[str, str] = {}
    figures = {"exact_match": texts.exact_match(found.predictions, found.targets)}
    rouges = texts.rouge(found.predictions, found.targets)
    counts = texts.bleu_counts(found.predictions, found.targets)
    meaning = semantic_consistency(encoder, found.predictions, found.targets)
    totals = {"ended": found.ended}
    if rouges is None:
        missing |= dict.fromkeys(texts.ROUGES, f"{texts.NOT_AVAILABLE} ({texts.REMEDY})")
    else:
        figures |= rouges
    if counts is None:
        missing["bleu"] = f"{texts.NOT_AVAILABLE} ({texts.REMEDY})"
    else:
        figures["bleu"] = counts
    if meaning is None:
        missing["semantic"] = f"{texts.NOT_AVAILABLE} ({REMEDY}, or --encoder=FOLDER)"
    else:
        figures["semantic_cosine"] = meaning.cosines
        if meaning.score is not None:
            totals["semantic_floor"] = meaning.floor
            span = meaning.ceiling - meaning.floor
            figures["semantic"] = (meaning.cosines - meaning.floor) / span
    unit = "generated texts"
    return [Figure(n, unit, found.index, v) for n, v in figures.items()], missing, totals


def evaluate(
    trained: Trained,
    output: str | os.PathLike,
    *,
    split: str = "test",
    users: int | None = None,
    beams: int = 10,
    exclude_seen: bool = False,
    ranking: bool = True,
    generation: bool = True,
    texts_written: int | None = None,
    encoder: Encode | None = None,
) -> dict[str, Any]:
    """Measures a run and writes a folder (see `results`); returns evaluation.json's record.

    Every process takes part in measuring, the first one writes.

    Args:
      trained: the run.
      output: the folder.
      split: "test" or "validation".
      users: size of the fixed sample that is ranked; None for all.
      beams: length of the ranked lists.
      exclude_seen: a user's earlier choices are no candidates.
      ranking, generation: whether to rank, and to have descriptions written.
      texts_written: size of the fixed sample of items that are described; None for all.
      encoder: of sentences, for semantic consistency; None: not available.
    """
    language = measure_language(trained, split=split)
    described = trained.dataset(DESCRIPTIONS, split).specs()[0].name(trained.run.dataset.dataset)
    found = Evaluation(
        language_figures(language),
        protocol={
            **card.interactions_card(trained.run.splits.report()),
            "nll": card.language_card(task=described, split=split, texts=len(language.index)),
        },
    )
    if ranking:
        found += _ranking(trained, pathlib.Path(output), split, users, beams, exclude_seen)
    if generation:
        found += _generation(
            trained, pathlib.Path(output), split, described, encoder, texts_written
        )
    if jax.process_index():
        return {}
    return results.write(
        output, found,
        model_dir=str(trained.run.model_dir), step=trained.step,
        trainable_params=trained.trainable_params, frozen_params=trained.frozen_params,
        ceiling=results.ceiling(trained, language) if split == "test" else None,
    )  # fmt: skip


def _ranking(
    trained: Trained,
    output: pathlib.Path,
    split: str,
    users: int | None,
    beams: int,
    exclude_seen: bool,
) -> Evaluation:
    splits = trained.run.splits
    ranked = measure_ranking(trained, users, beams, split, exclude_seen)
    feed = trained.feed(CHOICES, split)
    raw = [feed.stream[int(i)]["user"] for i in ranked.index]
    totals = ranked.totals()
    prompts = PromptRenderer(splits, trained.dataset(CHOICES, split).settings)
    if not jax.process_index():
        run_files.write_ranks(output, ranked, raw, splits.catalogue.item_ids)
    protocol = card.ranking_card(
        task=trained.dataset(CHOICES, split).specs()[0].name(trained.run.dataset.dataset),
        split=split, users=len(ranked.index), users_total=feed.len_epoch,
        items=splits.catalogue.num_items, beams=beams, excludes_history=exclude_seen,
        history=trained.run.dataset.settings.history,
        found={name: totals.pop(name) for name in ("valid_ids", "repeated_ids")}
        | {"colliding_ids": colliding(target_tokens(prompts, trained.run.tokenizer))},
    )  # fmt: skip
    figures = ranked.figures(splits.train_counts(), histories(splits, feed, ranked.index, split))
    return Evaluation(figures, totals, {"ranking": protocol})


def _generation(
    trained: Trained,
    output: pathlib.Path,
    split: str,
    task: str,
    encoder: Encode | None,
    number: int | None,
) -> Evaluation:
    found = measure_texts(trained, split=split, texts=number)
    figures, missing, totals = text_figures(found, encoder)
    if not jax.process_index():
        words = PromptTokenizer(trained.run.tokenizer).decode_prompt
        asked = [seqio_files.asked(example, words) for example in found.examples]
        seqio_files.write_answers(
            output, task, trained.step, asked, found.targets, prediction=found.predictions
        )
    protocol = card.texts_card(
        task=task, split=split, texts=len(found.targets),
        length=trained.run.dataset.task_feature_lengths["targets"],
        encoder=getattr(encoder, "name", "given") if encoder else texts.NOT_AVAILABLE,
    )  # fmt: skip
    return Evaluation(figures, totals, {"texts": protocol}, missing)
