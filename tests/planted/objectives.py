"""Slips in the losses."""

from tests.planted import Fault

_ITC = "tests/objectives/test_contrastive.py -k equal_the_formula"
_TIES = "tests/objectives/test_contrastive.py -k ties"
_DRAWN = "tests/objectives/test_contrastive.py -k never_positives"
_APART = "tests/objectives/test_contrastive.py -k apart"
_TEXTS = "tests/parity/test_stage_one_losses.py -k equal_their_formulas"
_PAIRS = "tests/parity/test_stage_one_losses.py -k pair_losses"
_SMOOTHED = "tests/parity/test_stage_one_losses.py -k label_smoothing"
_MATCHING = "tests/objectives/test_matching.py"
_VOCABULARY = "tests/objectives/test_vocabulary_loss.py"
_NEW_WORDS = "tests/objectives/test_vocabulary_loss_of_new_words.py"
_RANKING = "tests/objectives/test_ranking.py"
_LANGUAGE = "tests/objectives/test_language.py"
_HEAD = "tests/objectives/test_item_head.py"

FAULTS = (
    Fault(
        "a positive needs both ids",
        "ilm_jax/objectives/contrastive.py",
        "all_left_ids[columns][None]) | (",
        "all_left_ids[columns][None]) & (",
        _ITC,
    ),
    Fault(
        "similarity is the mean over queries",
        "ilm_jax/objectives/contrastive.py",
        "pairs.max(axis=(1, 3))",
        "pairs.mean(axis=(1, 3))",
        _ITC,
    ),
    Fault(
        "smoothing is spread over the positives' number",
        "ilm_jax/objectives/contrastive.py",
        "smoothing * everything / size",
        "smoothing * everything / count",
        _ITC,
    ),
    Fault(
        "a log-sum-exp forgets what it took off",
        "ilm_jax/objectives/contrastive.py",
        "jnp.log(row.sum) + row.max",
        "jnp.log(row.sum)",
        _ITC,
    ),
    Fault(
        "a row that ties with a wrong answer is wrong",
        "ilm_jax/objectives/contrastive.py",
        "row.best_positive >= row.best_negative",
        "row.best_positive > row.best_negative",
        _TIES,
    ),
    Fault(
        "wrong answers may be right ones of equal id",
        "ilm_jax/objectives/contrastive.py",
        "noisy = jnp.where(same, NEGATIVE, jax",
        "noisy = jnp.where(False, NEGATIVE, jax",
        _DRAWN,
    ),
    Fault(
        "both directions share their noise",
        "ilm_jax/objectives/contrastive.py",
        "_column_statistics(sim, same, noisy[1],",
        "_column_statistics(sim, same, noisy[0],",
        _APART,
    ),
    Fault(
        "pairs are not smoothed as asked",
        "ilm_jax/objectives/alignment_kinds.py",
        'at.batch["others"],\n        label_smoothing=at.objective.label_smoothing,\n',
        'at.batch["others"],\n',
        _SMOOTHED,
    ),
    Fault(
        "captions are not smoothed as asked",
        "ilm_jax/objectives/alignment_kinds.py",
        "text, at.model.config.pad_id, weights.label_smoothing)",
        "text, at.model.config.pad_id)",
        _SMOOTHED,
    ),
    Fault(
        "wrong items and wrong texts change places",
        "ilm_jax/objectives/alignment_kinds.py",
        "itc.negative_left, itc.negative_right)",
        "itc.negative_right, itc.negative_left)",
        _TEXTS,
    ),
    Fault(
        "users' pairs have the items' temperature",
        "ilm_jax/objectives/alignment.py",
        "applied(self.temperatures, logs, kind)",
        'applied(self.temperatures, logs, "item_item")',
        _PAIRS,
    ),
    Fault(
        "row 0 is no wrong item",
        "ilm_jax/objectives/matching.py",
        "negative_left >= 0,",
        "negative_left > 0,",
        _MATCHING,
    ),
    Fault(
        "a wrong text counts as a match",
        "ilm_jax/objectives/matching.py",
        "jnp.array([1, 0, 0])",
        "jnp.array([1, 0, 1])",
        _MATCHING,
    ),
    Fault(
        "padding is a target of captions",
        "ilm_jax/objectives/generation.py",
        "(labels != pad_id).astype(jnp.float32)",
        "jnp.ones(labels.shape)",
        _TEXTS,
    ),
    Fault(
        "smoothing takes nothing from the label",
        "ilm_jax/objectives/vocabulary_block.py",
        "chosen = (1 - terms.label_smoothing) * _at_label(part)",
        "chosen = _at_label(part)",
        _VOCABULARY,
    ),
    Fault(
        "a weight of zero lets NaN through",
        "ilm_jax/objectives/generation.py",
        "jnp.where(weights > 0, values * weights, 0).sum()",
        "(values * weights).sum()",
        _LANGUAGE,
    ),
    Fault(
        "cross-entropy is taken in the factors' type",
        "ilm_jax/objectives/vocabulary_block.py",
        "jnp.einsum, preferred_element_type=jnp.float32)",
        "jnp.einsum)",
        _VOCABULARY,
    ),
    Fault(
        "smoothing takes nothing from the label's gradient",
        "ilm_jax/objectives/vocabulary_block.py",
        "jnp.where(_is_label(part), 1 - terms.label_smoothing, 0)",
        "jnp.where(_is_label(part), 1, 0)",
        _VOCABULARY,
    ),
    Fault(
        "every device takes the words of the first",
        "ilm_jax/objectives/vocabulary_block.py",
        "(jax.lax.axis_index(words) if words else 0)",
        "0",
        _VOCABULARY,
    ),
    Fault(
        "devices keep the table's gradient of their rows",
        "ilm_jax/objectives/vocabulary_loss.py",
        "jax.tree.map(functools.partial(joined, axes=rows), sums)",
        "sums",
        _VOCABULARY,
    ),
    Fault(
        "a label of other words has the last word's logit",
        "ilm_jax/objectives/vocabulary_block.py",
        "jnp.where((part.label >= 0) & (part.label < words), found, 0)",
        "found",
        _VOCABULARY,
    ),
    Fault(
        "smoothing counts table words whose ids are new words'",
        "ilm_jax/objectives/vocabulary_block.py",
        "jnp.where(part.logits == NEVER, 0, part.logits) if part.gaps else part.logits",
        "part.logits",
        _NEW_WORDS,
    ),
    Fault(
        "a new word is a word of the table too",
        "ilm_jax/objectives/vocabulary_block.py",
        "jnp.where(is_new, -1, labels - first)",
        "labels - first",
        _NEW_WORDS,
    ),
    Fault(
        "a gradient through each loss is lost",
        "ilm_jax/objectives/vocabulary_loss.py",
        "found = jax.tree.map(jnp.add, found, more)",
        "pass",
        _VOCABULARY,
    ),
    Fault(
        "content is weighed as all targets are",
        "ilm_jax/objectives/heads.py",
        '"nll_content": weighted(losses.each, content)',
        '"nll_content": weighted(losses.each, weights)',
        _LANGUAGE,
    ),
    Fault(
        "a window begins with the prompt",
        "ilm_jax/objectives/language.py",
        "jnp.argsort(weights <= 0, axis=1, stable=True)",
        "jnp.argsort(weights > 0, axis=1, stable=True)",
        _LANGUAGE,
    ),
    Fault(
        "BPR's sign",
        "ilm_jax/objectives/ranking.py",
        "(scored.candidates - scored.positive[:, None]).astype",
        "(scored.positive[:, None] - scored.candidates).astype",
        _RANKING,
    ),
    Fault(
        "logQ is added",
        "ilm_jax/objectives/ranking.py",
        "scored.candidates.astype(jnp.float32) - log_expected",
        "scored.candidates.astype(jnp.float32) + log_expected",
        _RANKING,
    ),
    Fault(
        "a mean over what was drawn, not over what counts",
        "ilm_jax/objectives/ranking.py",
        "jnp.maximum(chosen.sum(1), 1)",
        "chosen.shape[1]",
        _RANKING,
    ),
    Fault(
        "a tie does not count against the positive",
        "ilm_jax/objectives/ranking.py",
        "scored.candidates >= positive)",
        "scored.candidates > positive)",
        "tests/objectives/test_ranking.py -k ties",
    ),
    Fault(
        "a negative at the margin violates it",
        "ilm_jax/objectives/ranking.py",
        "scored.candidates > 0)",
        "scored.candidates >= 0)",
        "tests/objectives/test_ranking.py -k margin",
    ),
    Fault(
        "the candidate itself is among those drawn",
        "ilm_jax/objectives/ranking.py",
        "((negatives - 1) / jnp.maximum(scored.drawn - 1, 1))",
        "(negatives / jnp.maximum(scored.drawn, 1))",
        _RANKING,
    ),
    Fault(
        "all items of a history count as what the prompt asks for",
        "ilm_jax/objectives/item_head.py",
        'batch.get("item_weights", ',
        'batch.get("no_weights", ',
        f"{_HEAD} -k weights_of_the_batch",
    ),
    Fault(
        "an item without a vector is a candidate",
        "ilm_jax/objectives/item_head.py",
        "(given != 0).any(-1), bias, NOWHERE",
        "(given == given).any(-1), bias, NOWHERE",
        _HEAD + " -k catalogue_and_its_items",
    ),
    Fault(
        "biases are those of the first catalogue",
        "ilm_jax/objectives/item_head.py",
        "return sum(block.rows for block in before)",
        "return 0 * len(before)",
        _HEAD + " -k catalogue_and_its_items",
    ),
    Fault(
        "a target without a vector counts",
        "ilm_jax/objectives/item_head.py",
        "jnp.where(inside & there, share",
        "jnp.where(inside & inside, share",
        _HEAD + " -k counts_in_no_sum",
    ),
    Fault(
        "users are multiplied by the temperature",
        "ilm_jax/objectives/item_head.py",
        'jnp.exp(-own["log_temperature"]',
        'jnp.exp(own["log_temperature"]',
        _HEAD + " -k catalogue_and_its_items",
    ),
    Fault(
        "sampled candidates are not corrected",
        "ilm_jax/objectives/item_losses.py",
        "Known(wanted, shared, log_expected, weights)",
        "Known(wanted, shared, 0 * log_expected, weights)",
        _HEAD + " -k expectation",
    ),
    Fault(
        "a target is its own negative",
        "ilm_jax/objectives/item_losses.py",
        "valid & (chosen != wanted[:, None])",
        "valid & (chosen != wanted[:, None] - 99)",
        _HEAD + " -k expectation",
    ),
    Fault(
        "an example counts by its tokens",
        "ilm_jax/objectives/heads.py",
        "weights / jnp.maximum(sums, 1e-8)",
        "weights / jnp.mean(jnp.maximum(sums, 1e-8))",
        "tests/training/test_openp5.py -k arithmetic",
    ),
    Fault(
        "rows count in the place of their examples",
        "ilm_jax/objectives/heads.py",
        "same = segment_ids[:, :, None] == segment_ids[:, None, :]",
        "same = jnp.ones((*segment_ids.shape, segment_ids.shape[1]), bool)",
        "tests/training/test_openp5.py -k apart",
    ),
)
