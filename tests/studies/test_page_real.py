"""Sections of written texts, of language that is kept, and of single settings."""

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics.values import MetricValues

ITEMS = 60


@pytest.fixture
def page(script):
    return script("page_real")


@pytest.fixture
def write(script, tmp_path):
    """Writes a receipt whose nll_content has a mean, of items of some data."""
    receipts = script("receipts")

    def one(folder, name, mean, data="items", metrics=("nll_content", "worth_content")):
        rng = np.random.default_rng(len(name))
        tokens = np.full(ITEMS, 6.0)
        noise = rng.normal(0, 0.05, ITEMS)
        values = tokens * (mean + noise - noise.mean())
        found = {
            metric: MetricValues(metric, "items", np.arange(ITEMS), values, tokens, False)
            for metric in metrics
        }
        made_from = {"data": data} if data else {}
        receipt = receipts.Receipt(name, made_from, "", 1.0, [(20, mean)], found)
        receipts.write(tmp_path / folder, receipt)

    return one


def test_two_rows_are_compared_on_the_seeds_of_both(page, write, tmp_path):
    assert page.real_section(tmp_path) == ""
    for seed, shift in ((0, 0.0), (1, 0.1), (2, 0.5)):
        for row, mean in (("mlp", 2.0), ("ilm-rand", 2.2), ("ilm", 2.1)):
            if (seed, row) not in ((2, "ilm"), (0, "mlp"), (1, "mlp")):
                write("real_texts", f"films_lm_seed{seed}_all_{row}", mean + shift)
    text = page.real_section(tmp_path)
    assert "films_lm, texts: all" in text and text.index(">MLP<") < text.index(">Q-Former, no st")
    assert "<td>2.200, 2.300, 2.700</td>" in text and "<td>2.100, 2.200</td>" in text
    # Of the two seeds that both have: no more items than there are, and no third seed.
    line = text[text.index("Q-Former, stage 1 less Q-Former, no stage 1") :]
    assert ">-0.100 [" in line and "; over 2 seeds p = " in line[: line.index("</tr>")]
    line = text[text.index("Q-Former, no stage 1 less MLP") :]
    assert ">+0.200 [" in line and "; one seed" in line[: line.index("</tr>")]
    assert "what rounding alone does" in text.lower()


def test_language_is_compared_with_the_model_as_it_was_published(page, write, tmp_path):
    assert page.retention_section(tmp_path) == ""
    metric = page.retention.METRIC
    write("retention", "films_lm_seed0_before", 2.0, "", (metric,))
    write("retention", "films_lm_seed0_all_text-full", 2.5, metrics=(metric, "nll_content"))
    text = page.retention_section(tmp_path)
    assert "<td>as published</td><td>7.3" in text and "text-full less as published" in text
    assert "<td>text-full: all of the model</td><td>12." in text and "lora" not in text
    write("retention", "films_lm_seed0_all_lora", 2.5, metrics=("nll_content",))
    with pytest.raises(UserError, match=r"lora\.json is of other passages"):
        page.retention_section(tmp_path)


def test_settings_are_compared_with_the_base_in_worlds_that_have_all(page, write, tmp_path):
    assert page.ablations_section(tmp_path) == ""
    for world in range(3):
        at = f"toy_world{world}_seed{world}" if world else "toy_seed0"
        for name, mean in (("trained-base", 1.7), ("trained-queries-1", 1.9), ("fresh-base", 1.7)):
            write("ablations", f"{at}_{name}", mean + 0.01 * world, at)
    text = page.ablations_section(tmp_path)
    assert text.count("<svg") == 1 and "queries-1: +0.2" in text
    assert "3 worlds" in text and "; over 3 worlds p = " in text
    assert "computations" not in text
    for number, row in enumerate({str(row) for pair in page.ablations.EQUAL for row in pair}):
        write("ablations", f"toy_seed0_{row}", 1.7 + 0.01 * number, "toy_seed0")
    text = page.ablations_section(tmp_path)
    assert "on 1 worlds" in text and "trained-base less fresh-longer-.003" in text
