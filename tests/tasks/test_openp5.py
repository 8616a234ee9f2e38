"""OpenP5's tasks: templates seen and unseen, ids by index, the published template format."""

import re

import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples import templates
from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT, dataset_word
from ilm_jax.data.examples.task_families import TASK_FAMILIES, spec_named
from ilm_jax.data.examples.task_keys import naming, plain_settings, task_key
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.streams.task_tokenizer import train_tokenizer
from ilm_jax.data.tokenizers import OwnTokenizer
from ilm_jax.errors import UserError
from ilm_jax.tasks.corpus import corpus_text
from tests.data.small_catalogue import small_catalogue, words_of
from tests.some import some
from tests.tasks.making import made_by

CATALOGUE = small_catalogue()
SETTINGS = TaskSettings(history=20, variants=3, cluster_tokens=8, cluster_split=3)
SPLIT = make_splits(CATALOGUE, SETTINGS.split)
TASKS = TASK_FAMILIES["openp5"].specs
ROW = {raw: row for row, raw in enumerate(CATALOGUE.user_ids)}


def rendered(task, split, settings=SETTINGS):
    (examples,) = made_by([task], SPLIT, settings)
    index = examples.index(split)
    rows = zip(*(column.tolist() for column in index.values()), strict=True)
    return [examples.render(split, **dict(zip(index, row, strict=True))) for row in rows]


def test_there_are_ten_seen_templates_and_an_unseen_one_of_each_task():
    for task in ("sequential", "straightforward"):
        seen, unseen = templates.OURS[task, "seen"], templates.OURS[task, "unseen"]
        assert (len(set(seen)), len(unseen)) == (10, 1) and not set(seen) & set(unseen)
        assert all("{dataset}" in text for text in (*seen, *unseen))
        assert all(("{history}" in text) == (task == "sequential") for text in (*seen, *unseen))


@pytest.mark.parametrize("spec", TASKS, ids=[spec.task for spec in TASKS])
def test_every_task_gives_the_item_at_the_target_and_only_what_came_before(spec):
    for split in SPLITS:
        examples = rendered(spec.task, split)
        assert bool(examples) != (split == "train" and spec.task.endswith("unseen"))
        for example in examples:
            user, position = example.key.split("#")[0].split("@")
            sequence = CATALOGUE.sequence(ROW[user]).tolist()
            assert sequence[int(position)] == example.target_item
            assert int(position) < len(SPLIT.train_sequence(ROW[user])) or split != "train"
            named = [s.row for s in example.prompt.segments if s.kind == -1]
            history = sequence[max(0, int(position) - 20) : int(position)]
            assert named in ([], history)
            assert "toy" in example.prompt.text


def test_targets_are_the_dataset_and_the_id():
    for indexing in ("random", "sequential", "collaborative"):
        for example in some(rendered(f"straightforward_{indexing}", "test")):
            assert re.fullmatch(r"toy item_(\d+|(<CI\d+>)+)", example.target_text)
    titles = {example.target_text for example in rendered("sequential_title", "test")}
    known = set(SPLIT.items_in(0).tolist())
    assert {CATALOGUE.titles[row] for row in known} & titles
    for row in some(set(range(CATALOGUE.num_items)) - known):
        assert not any(words_of(CATALOGUE, row)[0] in title for title in titles)


def test_the_name_decides_the_index_whatever_is_set():
    settings = SETTINGS.replace(item_index="collaborative")
    assert rendered("sequential_random", "test", settings) == rendered("sequential_random", "test")
    keys = {
        task_key(spec_named(f"sequential_{name}"), SETTINGS, "", "")
        for name in ("random", "sequential", "collaborative")
    }
    assert len(keys) == 3


def test_datasets_go_by_one_word():
    names = ["toy", "toy/world3", "movielens/1m", "movielens/latest_small", "openp5/ml1m", "custom"]
    words = ["toy", "toyworld3", "ml1m", "mllatestsmall", "ml1m", "custom"]
    assert list(map(dataset_word, names)) == words


def test_cluster_tokens_are_pieces_of_a_tokenizer_trained_for_them():
    settings = SETTINGS.replace(item_index="collaborative", variants=1)
    tokenizer = train_tokenizer(SPLIT, settings)
    (examples,) = made_by(["sequential_collaborative"], SPLIT, settings)
    name = examples.renderer.item_id(3)
    numbers = re.findall(r"<CI\d+>", name)
    assert [tokenizer.decode([t]) for t in tokenizer.encode("".join(numbers))] == numbers
    assert tokenizer.decode(tokenizer.encode(f"toy {name}, ")) == f"toy {name}, "
    assert any("<CI" in text for text in corpus_text(SPLIT, settings).strings("train"))
    assert not any("<CI" in text for text in corpus_text(SPLIT, SETTINGS).strings("train"))


PUBLISHED = """sequential; seen; {dataset} user_{user_id} had {history} so ; {dataset} {target}
sequential; unseen; After {history} in {dataset} ; {dataset} {target}
straightforward; seen; {dataset} user_{user_id} wants; {dataset} {target}

straightforward; unseen; user_{user_id} of {dataset}; {dataset} {target}
"""


def test_a_file_in_the_published_format_replaces_our_templates(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text(PUBLISHED)
    settings = SETTINGS.replace(prompt_file=str(path), mention_history="id")
    for example in some(rendered("sequential_random", "train", settings)):
        assert re.fullmatch(
            r"Toy user_\d+ had item_\d+(, item_\d+)* so ",
            example.prompt.text.replace("toy user", "Toy user").replace("had  ", "had "),
        ), example.prompt.text
    (first, *_) = rendered("straightforward_random_unseen", "test", settings)
    assert re.fullmatch(r"user_\d+ of toy ", first.prompt.text, re.IGNORECASE)
    before = plain_settings(spec_named("sequential_random"), settings)
    path.write_text(PUBLISHED.replace("had", "took"))
    assert plain_settings(spec_named("sequential_random"), settings) != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sequential; seen; {history}", "3 fields instead of 4"),
        ("sequential; new; {history}; {dataset} {target}", "'new'"),
        ("sequential; seen; {history}; {target}", "output '{target}'"),
        ("sequential; seen; {dataset}; {dataset} {target}", "a sequential input"),
        ("straightforward; seen; {history}; {dataset} {target}", "a straightforward input"),
        ("sequential; seen; {history} {candidates}; {dataset} {target}", "may name"),
        ("sequential; seen; {history} [x]; {dataset} {target}", "square brackets"),
    ],
)
def test_a_wrong_template_is_refused_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "prompt.txt"
    path.write_text(PUBLISHED.split("\n")[0] + "\n" + line + "\n")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        templates.read_openp5(path)
    assert f"{path}:2: " in str(error.value)


def test_an_absent_file_of_templates_is_named():
    settings = SETTINGS.replace(prompt_file="/no/such/file")
    with pytest.raises(UserError, match="prompt_file='/no/such/file'"):
        plain_settings(spec_named("sequential_random"), settings)


def test_a_trained_tokenizer_without_clusters_is_as_before():
    texts = [*CATALOGUE.texts, "item_1001"]
    assert OwnTokenizer.train(texts, 500).model == OwnTokenizer.train(texts, 500, whole=()).model


def test_a_bare_history_is_its_slots_and_nothing_else():
    bare = SETTINGS.replace(bare_history=True, mention_history="slot", mention_user="none")
    for task, split in (("sequential_random", "train"), ("sequential_random_unseen", "test")):
        examples = rendered(task, split, bare)
        assert len(examples) == len(rendered(task, split, bare.replace(bare_history=False)))
        for example in examples:
            user, position = example.key.split("#")[0].split("@")
            before = CATALOGUE.sequence(ROW[user])[max(0, int(position) - 20) : int(position)]
            named = [(part.kind, part.text, part.row) for part in example.prompt.segments]
            assert named == [(ITEM_SLOT, "", row) for row in before]
            assert example.prompt.elements == tuple(range(len(before) + 1))
    (first, *_) = rendered("sequential_random", "test", bare.replace(mention_user="slot"))
    assert first.prompt.segments[0].kind == USER_SLOT
    # Without slots it is words, which need what stands between them.
    words = bare.replace(text_only=True)
    plain = words.replace(bare_history=False)
    assert rendered("sequential_random", "test", words) == rendered(
        "sequential_random", "test", plain
    )
    with pytest.raises(UserError, match='set mention_history="slot"'):
        rendered("sequential_random", "test", bare.replace(mention_history="id+slot"))


def test_a_bare_history_makes_another_cache_and_no_other_task_reads_it():
    bare = SETTINGS.replace(bare_history=True, mention_history="slot")
    plain = bare.replace(bare_history=False)
    for name, same in (("sequential_random", False), ("long_description", True)):
        spec = spec_named(name)
        assert (plain_settings(spec, bare) == plain_settings(spec, plain)) == same
        # Whoever writes prompts in a task's form does as its training did.
        assert naming(spec, bare).bare_history != same
    assert "bare_history" not in plain_settings(spec_named("sequential_random"), plain)
