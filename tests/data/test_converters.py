import collections
import re
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.streams.alignment_converter import AlignmentConverter
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.data.streams.layouts import Prompts
from ilm_jax.errors import UserError
from ilm_jax.objectives.alignment_kinds import KINDS

BOS, EOS, CLS = 3, 1, 4
IDS = types.SimpleNamespace(pad_id=0, bos_id=BOS, cls_id=CLS)
NO_BOS = types.SimpleNamespace(pad_id=9, bos_id=None, cls_id=99)


def rows(block, local):
    return np.asarray(local) + {"toy/item": 100, "toy/user": 500, "film/item": 1000}[block]


def example(inputs, targets, slots=(), bounds=(), content=None, catalogue="toy"):
    return {
        "key": "k",
        "catalogue": catalogue,
        "inputs": np.array(inputs, np.int32),
        "targets": np.array(targets, np.int32),
        "targets_content": np.array(content or [1] * len(targets), np.int32),
        "slots": np.array(slots, np.int32),
        "history_bounds": np.array(bounds, np.int32),
    }


# user slot, then three elements of an id (2 tokens), a slot and a comma; then a question.
HISTORY = example(
    [50, -2, 51, 10, 11, -1, 9, 20, 21, -1, 9, 30, 31, -1, 60, 61],
    [40, 41, EOS],
    slots=[7, 1, 2, 3],
    bounds=[3, 7, 11, 14],
)


def convert(given, inputs, targets=4, queries=2, entities=4, tokenizer=IDS, **options):
    lengths = {"inputs": inputs, "targets": targets}
    converter = PromptConverter(
        lengths, tokenizer, num_queries=queries, max_entities=entities, rows=rows, **options
    )
    return {name: array[0].tolist() for name, array in converter([given]).items()}, converter


def test_a_row_reads_bos_inputs_targets():
    given = example([50, -1, 51], [40, 41, EOS], slots=[5], content=[1, 0, 0])
    batch, _ = convert(given, inputs=5, entities=2)
    assert batch == {
        "tokens": [BOS, 50, 0, 0, 51, 40, 41, 0, 0],
        "targets": [50, 0, 0, 51, 40, 41, EOS, 0, 0],
        "loss_weights": [0, 0, 0, 0, 1, 1, 1, 0, 0],
        "content_weights": [0, 0, 0, 0, 1, 0, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 5, 6, 0, 0],
        "segment_ids": [1, 1, 1, 1, 1, 1, 1, 0, 0],
        "slot_entity": [-1, -1, 0, 0, -1, -1, -1, -1, -1],
        "slot_query": [-1, -1, 0, 1, -1, -1, -1, -1, -1],
        "entities": [105, -1],
        "example_index": 0,
    }


PARTS = st.lists(st.one_of(st.integers(10, 90), st.sampled_from([-1, -2])), max_size=14)
WORDS = st.lists(st.integers(10, 90), min_size=1, max_size=5)


@st.composite
def prompts(draw):
    """An example with a history that may be longer than its row, of one of two catalogues."""
    parts, item = draw(PARTS), draw(st.booleans())
    borders = sorted(draw(st.lists(st.integers(0, len(parts)), max_size=5)))
    catalogue = "toy" if -2 in parts else draw(st.sampled_from(["toy", "film"]))
    slots = range(sum(part < 0 for part in parts))
    targets = [-1] * item + draw(WORDS)
    found = example(parts, targets, slots, borders, catalogue=catalogue)
    return {**found, "target_item": 3, "task": draw(st.sampled_from(["asks", "tells"]))}


@given(
    st.lists(st.one_of(st.none(), prompts()), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([0.0, 0.5]),
    st.integers(6, 24),
)
@settings(deadline=None, max_examples=100)
def test_a_row_is_the_same_alone_and_among_others(examples, bos, history_weight, room):
    def made_by(given):
        converter = PromptConverter(
            {"inputs": room, "targets": 4},
            IDS if bos else NO_BOS,
            num_queries=2,
            max_entities=5,
            rows=rows,
            truncate_targets=True,
            items=ItemTargets(frozenset({"asks"}), 6, history_weight),
            word_begins=np.arange(100) % 3 == 0,
        )
        return converter(given), converter.prompts(given), converter.counts

    alone, counts = [], collections.Counter()
    for one in examples:
        try:
            *batches, cut = made_by([one])
        except UserError as error:  # no more history can be dropped
            with pytest.raises(UserError, match=re.escape(str(error))):
                made_by([one, None])
            return
        alone.append(batches)
        counts += cut
    *together, cut = made_by(examples)
    assert cut == counts
    for number, batches in enumerate(alone):
        for batch, whole in zip(batches, together, strict=True):
            assert batch.keys() == whole.keys()
            for name in batch.keys() - {"example_index"}:
                assert batch[name][0].tolist() == whole[name][number].tolist(), name


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"slots": np.array([5, 6])}, "inputs have 1 slots, and `slots` 2"),
        ({"slots": np.zeros(0, int)}, "inputs have 1 slots, and `slots` 0"),
        ({"targets_content": np.ones(1)}, "2 targets, and 1 targets_content"),
        ("catalogue", "has slots, and no `catalogue`"),
    ],
)
def test_an_example_that_contradicts_itself_is_named_and_spoils_no_other(wrong, said):
    odd = {**example([50, -1], [40, EOS], slots=[5]), "key": "odd"}
    if isinstance(wrong, str):
        del odd[wrong]
    else:
        odd |= wrong
    fine = example([50, -1], [40, EOS], slots=[7])
    with pytest.raises(UserError, match=f"example 'odd'.*{said}"):
        convert_all([fine, odd, fine])


def convert_all(examples):
    lengths = {"inputs": 8, "targets": 4}
    return PromptConverter(lengths, IDS, num_queries=2, max_entities=4, rows=rows)(examples)


def test_a_corpus_text_is_all_target():
    batch, _ = convert(example([], [40, 41, EOS]), inputs=0, entities=0)
    assert batch["tokens"] == [BOS, 40, 41, 0]
    assert batch["targets"] == [40, 41, EOS, 0]
    assert batch["loss_weights"] == [1, 1, 1, 0]
    assert batch["entities"] == [-1]


def test_without_bos_a_row_starts_with_its_inputs():
    given = example([50, -1, 51], [40, 41, EOS], slots=[5], content=[1, 0, 0])
    batch, converter = convert(given, inputs=4, targets=3, tokenizer=NO_BOS)
    assert batch["tokens"] == [50, 9, 9, 51, 40, 41, 9]
    assert batch["targets"] == [9, 9, 51, 40, 41, EOS, 9]
    assert batch["loss_weights"] == [0, 0, 0, 1, 1, 1, 0]
    assert batch["content_weights"] == [0, 0, 0, 1, 0, 0, 0]
    assert batch["segment_ids"] == [1, 1, 1, 1, 1, 1, 0]
    assert batch["slot_query"] == [-1, 0, 1, -1, -1, -1, -1]
    prompt = converter.prompts([given])
    assert prompt["tokens"].tolist() == [[50, 9, 9, 51]] and prompt["lengths"].tolist() == [4]


def test_without_bos_nothing_predicts_the_first_token_of_a_text():
    batch, _ = convert(
        example([], [40, 41, EOS], content=[0, 1, 0]), inputs=0, entities=0, tokenizer=NO_BOS
    )
    assert batch["tokens"] == [40, 41, 9, 9]
    assert batch["targets"] == [41, EOS, 9, 9]
    assert batch["loss_weights"] == [1, 1, 0, 0] and batch["content_weights"] == [1, 0, 0, 0]
    assert batch["segment_ids"] == [1, 1, 0, 0]


def test_entities_are_in_the_order_of_their_slots():
    batch, converter = convert(HISTORY, inputs=20)
    assert batch["entities"] == [507, 101, 102, 103]
    assert [e for e in batch["slot_entity"] if e >= 0] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not converter.counts


@pytest.mark.parametrize("queries", [1, 2, 3])
@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_too_long_inputs_lose_whole_elements_oldest_first(queries, dropped):
    full = 16 + 4 * (queries - 1)
    room = full - dropped * (3 + queries)
    batch, converter = convert(HISTORY, inputs=room, queries=queries)
    kept = [50, 51] + [[10, 11, 9], [20, 21, 9], [30, 31]][dropped:] + [60, 61]
    flat = [t for part in kept for t in (part if isinstance(part, list) else [part])]
    assert [t for t in batch["tokens"][1 : room + 1] if t] == flat
    assert (
        batch["entities"] == [507, 101, 102, 103][:1] + [101, 102, 103][dropped:] + [-1] * dropped
    )
    assert converter.counts["history"] == (1 if dropped else 0)
    assert batch["slot_query"].count(queries - 1) == 4 - dropped


def test_more_slots_than_entities_also_lose_the_oldest():
    batch, _ = convert(HISTORY, inputs=20, entities=3)
    assert batch["entities"] == [507, 102, 103]


def test_what_cannot_be_dropped_is_an_error_that_names_the_example():
    for inputs, entities in ((9, 4), (20, 1)):
        with pytest.raises(UserError, match="example 'k'.*inputs take 20 positions and 4 slots"):
            convert(HISTORY, inputs=inputs, entities=entities)
    with pytest.raises(UserError, match="example 'k'"):
        convert(example([50] * 6, [EOS]), inputs=5)


def test_over_long_targets_are_an_error_unless_cut_and_counted():
    given = example([50], [40, 41, 42, 43, EOS])
    with pytest.raises(UserError, match="targets take 5 tokens.*truncate_targets=True"):
        convert(given, inputs=1)
    batch, converter = convert(given, inputs=1, truncate_targets=True)
    assert batch["targets"] == [50, 40, 41, 42, 43] and converter.counts == {"targets": 1}


def test_several_catalogues_share_a_batch():
    converter = PromptConverter({"inputs": 3, "targets": 1}, IDS, max_entities=1, rows=rows)
    given = [example([-1], [EOS], [2], catalogue=name) for name in ("toy", "film", "toy")]
    assert converter(given)["entities"].tolist() == [[102], [1002], [102]]


def test_padding_rows_weigh_nothing_and_say_so():
    converter = PromptConverter({"inputs": 20, "targets": 3}, IDS, max_entities=4, rows=rows)
    batch = converter([HISTORY, None], [8, 9])
    assert batch["example_index"].tolist() == [8, -1]
    assert not batch["loss_weights"][1].any() and not batch["segment_ids"][1].any()
    assert (batch["entities"][1] == -1).all()


def test_prompts_stop_where_the_answer_begins():
    converter = PromptConverter(
        {"inputs": 22, "targets": 3}, IDS, num_queries=2, max_entities=4, rows=rows
    )
    whole, prompt = converter([HISTORY, None]), converter.prompts([HISTORY, None])
    assert prompt["lengths"].tolist() == [21, 0]
    for name in ("tokens", "slot_entity", "slot_query", "positions"):
        assert (prompt[name][0, :21] == whole[name][0, :21]).all()
    assert not prompt["tokens"][0, 21:].any() and prompt["tokens"].shape == (2, 23)
    assert "targets" not in prompt


def test_a_slot_without_a_table_is_an_error():
    with pytest.raises(UserError, match="no embedding table"):
        PromptConverter({"inputs": 20, "targets": 3}, IDS, max_entities=4)([HISTORY])
    with pytest.raises(UserError, match="task_feature_lengths"):
        PromptConverter({"inputs": 20}, IDS)


TEXTS = KINDS["item_text"].layout.columns


def test_pairs():
    pair = {"catalogue": "toy", "key": "k", "row": 1, "other": 2, "user": 3}

    def converted(kind):
        batch = AlignmentConverter(KINDS[kind].layout.columns, rows, IDS)([pair], [6])
        return {name: array.tolist() for name, array in batch.items()}

    assert converted("item_item") == {"entities": [101], "others": [102], "example_index": [6]}
    assert converted("user_item") == {"entities": [503], "others": [101], "example_index": [6]}
    with pytest.raises(UserError, match="no stage-1 kind 'item_user'; there are "):
        KINDS["item_user"]


def test_item_texts():
    given = {"catalogue": "toy", "key": "k", "row": 1, "text": np.array([7, 8, 9], np.int32)}
    batch = AlignmentConverter(TEXTS, rows, IDS, text_length=5)([given])
    assert batch["text"].tolist() == [[CLS, 7, 8, 9, 0]] and batch["entities"].tolist() == [101]
    with pytest.raises(UserError, match="text takes 4 tokens"):
        AlignmentConverter(TEXTS, rows, IDS, text_length=3)([given])
    cut = AlignmentConverter(TEXTS, rows, IDS, text_length=3, truncate_text=True)
    assert cut([given])["text"].tolist() == [[CLS, 7, 8]] and cut.counts == {"text": 1}


def test_an_encoder_is_told_of_places_that_hold_all_inputs_and_no_shared_row_is():
    converter = PromptConverter({"inputs": 5, "targets": 4}, NO_BOS, source=True)
    batch = converter(
        [example([10, 11, 12, 13, 14], [20, EOS]), example([10], [20, 21, EOS]), None]
    )
    assert batch["source"].tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    told = batch["loss_weights"] > 0
    last = [np.flatnonzero(row)[0] for row in told[:2]]  # the last token of the inputs
    assert last == [4, 0] and max(last) in batch["source"][0]
    dataset = DatasetConfig("long_description", {"inputs": 5, "targets": 4})
    assert Prompts(source=True).blank(dataset)["source"].shape == (1, 6)
    assert "source" not in Prompts(source=True).blank(dataset.replace(pack=4))
    assert "source" not in Prompts().blank(dataset)


@pytest.mark.parametrize(
    "inputs, changes, slots",
    [
        (200, {}, 20),  # as many as the settings can bring
        (60, {}, 8),  # 64 positions of 8 a slot
        (60, {"pack": 3}, 20),
        (200, {"pack": 3}, 25),  # of three examples, and 204 positions
        (60, {"max_entities": 30}, 30),
        (2, {}, 1),
    ],
)
def test_rows_have_as_many_slots_as_settings_bring_and_positions_allow(inputs, changes, slots):
    settings = TaskSettings(history=20, mention_history="slot", mention_user="none")
    lengths = {"inputs": inputs, "targets": 4}
    dataset = DatasetConfig("sequential_random", lengths, settings=settings, **changes)
    assert Prompts(num_queries=8).blank(dataset)["entities"].shape == (1, slots)
