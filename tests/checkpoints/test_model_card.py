"""A card shows the figures that there are, and why others are not there."""

from ilm_jax.checkpoints.model_card import CardFacts, write_card


def test_figures_without_a_value_or_bounds_do_not_stop_a_card():
    evaluation = {
        "figures": {"nll": 0.5, "hr@10": None},
        "intervals": {"nll": {"low": None, "high": None, "units": 1}},
        "not_available": {"bleu": "not available (no reference)"},
    }
    lines = write_card(CardFacts(name="m", dataset="toy", evaluation=evaluation)).splitlines()
    assert "| nll | 0.5000 |  | 1 |" in lines
    assert "| bleu | not available (no reference) | | |" in lines
    assert not any("hr@10" in line for line in lines)
