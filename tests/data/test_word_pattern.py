"""Words keep their marks, and text without marks is cut as `\\w` cuts it."""

import random
import re
import unicodedata

from ilm_jax.data.catalogue.word_pattern import letters, word

PLAIN = "Don't un-known U.S.A. 3.5 a_b _x — «кот» 映画2013 été 안녕 ٣ x"


def test_marks_are_part_of_words():
    assert word().findall("शांत फ़िल्म") == ["शांत", "फ़िल्म"]
    assert word().findall("เงียบ") == ["เงียบ"]
    decomposed = unicodedata.normalize("NFD", "été à l’île")
    assert [unicodedata.normalize("NFC", w) for w in letters().findall(decomposed)] == [
        "été",
        "à",
        "l",
        "île",
    ]


def test_other_text_is_cut_as_before():
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choice(PLAIN) for _ in range(40))
        assert word().findall(text) == re.findall(r"\w+", text)
        assert letters().findall(text) == re.findall(r"[^\W_]+", text)
        joined = re.findall(r"\w+(?:[.'’-]\w+)*", text)
        assert word(".'’-").findall(text) == joined
