"""Characters that a vocabulary cannot say are counted, warned of and shown."""

import dataclasses

import pytest

from ilm_jax.cli import cache_tasks, inspect
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.tokenizers import OwnTokenizer
from ilm_jax.data.tokenizers.losses import count
from tests.data import published_tokenizers
from tests.data.small_catalogue import small_catalogue

RUNES = ["ᚠᛇᚻᛒᛦᚦ ᛖᛁᚱ", "plain words"]


@pytest.mark.parametrize("kind", ["t5", "t5_fast"])
def test_what_becomes_the_unknown_token_is_lost(kind):
    found = count(published_tokenizers.published(kind), RUNES, "titles")
    assert (found.lost, found.characters, found.lossy) == (9, 19, 1)
    assert "cannot say 47.4% of the characters of titles: 1 of 2 lose some" in found.described()
    assert "ᚠᛇᚻ" in found.described()


@pytest.mark.parametrize("kind", ["llama2", "llama3", "gemma", "bert"])
def test_plain_english_is_never_lost(kind):
    found = count(published_tokenizers.published(kind), ["the item tells a tale"], "titles")
    assert found.lost == 0 and "says every character" in found.described()


def test_bytes_say_everything_at_a_price_that_is_told():
    own = OwnTokenizer.train(["plain words of an item"] * 20, 330)
    found = count(own, RUNES, "titles")
    assert (found.lost, found.spelled) == (0, 9)
    assert "47.4% by bytes" in found.described()


def test_a_tokenizer_that_meets_titles_it_cannot_say_is_warned_of(tmp_path, capsys):
    catalogue: Catalogue = small_catalogue()
    titles = ["ᚠᛇᚻᛒᛦᚦ", *catalogue.titles[1:]]
    splits = make_splits(dataclasses.replace(catalogue, titles=titles), TaskSettings().split)
    settings = TaskSettings(tokenizer=str(published_tokenizers.folder() / "t5"))
    cache_tasks.ensure_tokenizer("toy", splits, settings, tmp_path)
    said = capsys.readouterr().err
    assert said.startswith("cache: note: the vocabulary cannot say") and "ᚠᛇᚻ" in said
    assert inspect.facts(splits)
