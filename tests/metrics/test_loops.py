"""A loop is a loop in any script, and ordinary repetition is none."""

import pytest

from ilm_jax.metrics.loops import loop_of, loops
from ilm_jax.metrics.registry import METRICS

LONG = "it tells of a boat on a cold river and of the people who row it"


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("The film is good. The film is good. The film is good.", "the film is good"),
        ("A start. " + "very " * 9, "very"),
        (f"{LONG}. {LONG}.", LONG),
        ("1. A good film in 1942. 2. A good film in 1943. 3. A good film in 1944.", "a good"),
        ("この本は面白い。" * 3, "この本は面白い"),
    ],
)
def test_a_loop_is_found(text, loop):
    assert loop_of(text).startswith(" ".join(loop) if not loop.isascii() else loop)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No, no, no: very, very, very good.",
        "The film is good. The film is good.",
        LONG,
        "It is long and it is good and it is slow and it is loud and it is over.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
    ],
)
def test_what_people_write_is_none(text):
    assert loop_of(text) == ""


def test_it_is_a_metric_of_texts():
    assert loops([f"{LONG} {LONG}", LONG], ["a", "b"]).tolist() == [1, 0]
    assert METRICS["loops"].answer == "text" and METRICS["loops"].higher_is_better is False
