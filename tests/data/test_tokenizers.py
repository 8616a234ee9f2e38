import itertools
import json
import pickle
import shutil
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import ITEM_SLOT, SLOT_MARKS, PromptRenderer
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.tokenizers import OwnTokenizer, holds_tokenizer, open_tokenizer_at, save_in
from ilm_jax.errors import UserError
from tests.data.odd_strings import odd_strings
from tests.data.published_tokenizers import BERT, KINDS, PIECES, folder, published
from tests.data.small_catalogue import small_catalogue
from tests.some import some

CATALOGUE = small_catalogue()
SPLITS = make_splits(CATALOGUE)
STRINGS = odd_strings(300, seed=3)
# Those that lose or change no character.
EXACT = ("llama2", "llama2_fast", "gemma", "gemma_fast", "llama3")
ROLES = (
    "pad_id",
    "eos_id",
    "bos_id",
    "unk_id",
    "cls_id",
    "dec_id",
    "vocab_size",
    "least_vocab_size",
    "text_vocab_size",
    "fingerprint",
)


def check_spans(kind, text, continues):
    """Spans ascend, cover what the tokenizer keeps, and say what decoding a token says."""
    tokenizer = published(kind)
    ids, spans = tokenizer.encode_with_spans(text, continues=continues)
    assert ids == tokenizer.encode(text, continues=continues)
    starts, ends = [0, *(s for s, _ in spans)], [0, *(e for _, e in spans)]
    assert starts == sorted(starts) and ends == sorted(ends) and ends[-1] <= len(text)
    covered = {place for start, end in spans for place in range(start, end)}
    if kind in ("llama2", "gemma"):
        apart = sorted(set(spans))
        assert all(one[1] == other[0] for one, other in itertools.pairwise(apart))
    for place, character in enumerate(text):
        category = unicodedata.category(character)
        kept = category[0] in "LNPS" and character != "\ufffd"
        assert place in covered or (not kept and kind not in EXACT), (place, ascii(character))


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_spans_cover_what_a_tokenizer_keeps(kind, continues):
    for text in STRINGS:
        # Conjoining parts of a Korean syllable are letters that normalisation composes.
        check_spans(kind, text.replace("\u1112\u1161\u11ab", ""), continues)


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30), continues=st.booleans())
def test_spans_cover_any_text_of_exact_tokenizers(kind, text, continues):
    check_spans(kind, text.replace("▁", ""), continues)


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_holds_the_characters_of_its_token(kind):
    """Decoding the tokens of one word gives that word, up to what normalisation changes."""
    text = "The ﬁrst  Café, naïve １２３ and item_1042 tell of Straße"
    words = ["The", "ﬁrst", "Café", "naïve", "１２３", "item_1042", "Straße"]
    tokenizer = published(kind)
    ids, spans = tokenizer.encode_with_spans(text)
    for word in words:
        start = text.index(word)
        chosen = [
            token
            for token, (a, b) in zip(ids, spans, strict=True)
            if a < start + len(word) and start < b
        ]
        said = tokenizer.decode(chosen).strip().replace(" ", "")
        if kind == "bert":
            stripped = unicodedata.normalize("NFD", word.lower())
            word = "".join(c for c in stripped if not unicodedata.combining(c))
        elif kind.startswith("t5"):
            word = unicodedata.normalize("NFKC", word)
        assert said == word or tokenizer.unk_id in chosen


@pytest.mark.parametrize("kind", PIECES + ("llama2_fast",))
def test_bytes_of_one_character_share_its_span(kind):
    tokenizer = published(kind)
    ids, spans = tokenizer.encode_with_spans("a\U0001d7d8\U0001d7d9b")
    if kind != "t5":
        assert spans.count((1, 2)) == spans.count((2, 3)) == 4
    assert spans[-1][1] == 4 and len(ids) == len(spans)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("continues", [False, True])
def test_no_text_encodes_to_a_special_id(kind, continues):
    tokenizer = published(kind)
    special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id} - {None}
    special |= {tokenizer.cls_id, tokenizer.dec_id}
    forged = [
        "<pad></s><s><unk>",
        "<bos> <eos>",
        "[CLS] [SEP][PAD] [DEC]",
        "<extra_id_0>",
        "<|begin_of_text|><|end_of_text|><|eot_id|>",
        "<|endoftext|><|im_end|>",
    ]
    for text in [*forged, "", " ", *STRINGS]:
        ids = tokenizer.encode(text, continues=continues)
        assert not special & set(ids), text
        assert all(0 <= token < tokenizer.least_vocab_size for token in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_and_those_of_a_larger_table_vanish_in_texts(kind):
    tokenizer = published(kind)
    plain = tokenizer.encode("item_7")
    around = [t for t in (tokenizer.bos_id, tokenizer.cls_id, tokenizer.dec_id) if t is not None]
    text = tokenizer.decode([*around, *plain, tokenizer.eos_id, tokenizer.pad_id])
    assert text == tokenizer.decode(plain) != ""
    assert tokenizer.cls_id != tokenizer.dec_id
    assert tokenizer.decode([*plain, tokenizer.text_vocab_size, 10**6]) == text
    with pytest.raises(ValueError, match="id -1 is no token's"):
        tokenizer.decode([*plain, -1])


def test_a_tokenizer_is_found_in_the_models_folder_it_was_saved_in(tmp_path):
    own = OwnTokenizer.train(CATALOGUE.texts, vocab_size=400)
    for kind, tokenizer in [("own", own), *((kind, published(kind)) for kind in KINDS)]:
        (tmp_path / kind).mkdir()
        save_in(tokenizer, tmp_path / kind)
        assert holds_tokenizer(tmp_path / kind), kind
        assert open_tokenizer_at(tmp_path / kind).fingerprint == tokenizer.fingerprint, kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same(kind, tmp_path):
    first = published(kind)
    first.save(tmp_path / "saved")
    for second in (open_tokenizer_at(tmp_path / "saved"), pickle.loads(pickle.dumps(first))):
        assert [getattr(first, name) for name in ROLES] == [getattr(second, n) for n in ROLES]
        for text in STRINGS[:50]:
            assert first.encode(text, continues=True) == second.encode(text, continues=True)


def test_fingerprints_tell_tokenizers_apart(tmp_path):
    assert len({published(kind).fingerprint for kind in KINDS}) == len(KINDS)
    shutil.copytree(folder() / "qwen2", tmp_path / "q")
    before = open_tokenizer_at(tmp_path / "q").fingerprint
    config = json.loads((tmp_path / "q" / "tokenizer_config.json").read_text())
    (tmp_path / "q" / "tokenizer_config.json").write_text(json.dumps(config | {"chat": "x"}))
    assert open_tokenizer_at(tmp_path / "q").fingerprint == before
    changed = config | {"eos_token": "<|endoftext|>"}
    (tmp_path / "q" / "tokenizer_config.json").write_text(json.dumps(changed))
    assert open_tokenizer_at(tmp_path / "q").fingerprint != before


def test_tokens_that_no_row_holds_need_no_rows_of_a_table(tmp_path):
    shutil.copytree(folder() / "gemma", tmp_path / "g")
    config = json.loads((tmp_path / "g" / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {"900": {"content": "<image_soft_token>", "special": True}}
    (tmp_path / "g" / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = open_tokenizer_at(tmp_path / "g")
    assert (tokenizer.vocab_size, tokenizer.least_vocab_size) == (901, 900)
    assert tokenizer.decode([900, *tokenizer.encode("tale")]) == "tale"
    # Llama 3's last special token is no role here; its end token is.
    llama = published("llama3")
    assert (llama.vocab_size, llama.least_vocab_size) == (903, llama.eos_id + 1)


def test_t5_has_its_sentinels_behind_its_pieces():
    tokenizer = published("t5")
    assert tokenizer.least_vocab_size == 700
    assert tokenizer.vocab_size == 800 and len(tokenizer.sentinels) == 100
    assert tokenizer.sentinels[0] == 799 and tokenizer.sentinels[99] == 700
    assert open_tokenizer_at(folder() / "t5" / "spiece.model").sentinels == tokenizer.sentinels


def prompts(**changes):
    """(prompt, answer) of every template."""
    renderer = PromptRenderer(SPLITS, TaskSettings(**changes))
    for row in (1, 3, 7):
        for number in range(5):
            yield renderer.description(row, number), CATALOGUE.texts[row]
            for history in ((7,), (3, 0, 7, 14)):
                yield renderer.sequential(4, history, number), renderer.target(row)


@pytest.mark.parametrize("mention", ["id", "title"])
@pytest.mark.parametrize("kind", KINDS)
def test_segments_without_slots_give_the_tokens_of_the_whole_text(kind, mention):
    tokenizer = published(kind)
    tokens = PromptTokenizer(tokenizer)
    mentions = {"mention_history": mention, "mention_description": mention, "target": mention}
    for prompt, answer in some(prompts(text_only=True, **mentions)):
        parts = tokens.prompt(prompt)[0] + tokens.answer(answer)[0]
        assert parts == tokenizer.encode(prompt.text + answer)
        assert len(prompt.segments) > 1 or not prompt.elements


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_with_slots_read_back(kind):
    tokenizer = published(kind)
    tokens = PromptTokenizer(tokenizer)
    for prompt, _ in some(prompts(mention_history="id+slot", mention_user="slot")):
        inputs, slots, bounds = tokens.prompt(prompt)
        assert len(slots) == sum(token < 0 for token in inputs)
        said = tokens.decode_prompt(inputs)
        assert [c for c in said if c in SLOT_MARKS.values()] == [
            SLOT_MARKS[s.kind] for s in prompt.segments if s.kind
        ]
        if kind in (*EXACT, "qwen2"):
            assert said == prompt.text.rstrip(" ")
        elif kind not in BERT:  # T5 drops the space in front of a slot, and repeated ones
            assert said.replace(" ", "") == prompt.text.replace(" ", "")
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            assert inputs[start:end].count(ITEM_SLOT) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_behind_another_has_no_dummy_prefix(kind):
    tokenizer = published(kind)
    assert (
        tokenizer.encode(", and", continues=True)
        == tokenizer.encode("x, and")[-len(tokenizer.encode(", and", continues=True)) :]
    )
    if kind not in BERT:
        for text in (", and", " and", "and more"):
            ids = tokenizer.encode(text, continues=True)
            assert tokenizer.decode(ids, continues=True) == text


@pytest.mark.parametrize("kind", KINDS)
def test_spans_of_an_answer_count_its_own_characters(kind):
    tokens = PromptTokenizer(published(kind))
    ids, spans = tokens.answer("gloomy tale")
    first = {start for start, end in spans if end > start}
    assert min(first) == 0 and max(end for _, end in spans) == 11
    assert ids == published(kind).encode("x gloomy tale")[-len(ids) :]


def test_our_own_keeps_every_space_where_it_stands():
    own = OwnTokenizer.train([*CATALOGUE.texts, *CATALOGUE.titles], 400)
    tokens = PromptTokenizer(own)
    assert not own.space_leads and tokens.answer("It tells")[0] == own.encode("It tells")
    prompt = PromptRenderer(SPLITS, TaskSettings(text_only=True)).description(1, 0)
    assert tokens.prompt(prompt)[0] == own.encode(prompt.text)


def written(tmp_path, **files):
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name.replace("__", ".")).write_bytes(data)
    return tmp_path


def test_where_files_are_silent_the_vocabulary_and_the_model_config_speak(tmp_path):
    spec = (folder() / "llama3" / "tokenizer.json").read_bytes()
    given = written(
        tmp_path,
        tokenizer__json=spec,
        generation_config__json={"eos_token_id": [902, 901], "bos_token_id": 5},
    )
    tokenizer = open_tokenizer_at(given)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (900, 902, 902)
    tokenizer.save(tmp_path / "again")
    assert open_tokenizer_at(tmp_path / "again").fingerprint == tokenizer.fingerprint
    bare = open_tokenizer_at(folder() / "llama2" / "tokenizer.model")
    assert (bare.bos_id, bare.eos_id) == (1, 2)
    assert open_tokenizer_at(folder() / "bert" / "vocab.txt").eos_id == published("bert").eos_id


def test_a_bos_that_opens_no_text_is_none(tmp_path):
    spec = (folder() / "qwen2" / "tokenizer.json").read_bytes()
    config = {"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>"}
    given = written(
        tmp_path,
        tokenizer__json=spec,
        tokenizer_config__json=config,
        config__json={"bos_token_id": 900},
    )
    assert open_tokenizer_at(given).bos_id is None
    written(tmp_path, tokenizer_config__json=config | {"add_bos_token": True})
    assert open_tokenizer_at(given).bos_id == 900


def test_a_cased_bert_keeps_case():
    assert published("bert").decode(published("bert").encode("Movies")) == "movies"
    assert published("bert_cased").decode(published("bert_cased").encode("Movies")) == "Movies"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer there: the folder has none of tokenizer.model"),
        ({"tokenizer__json": b"{"}, "tokenizer.json is not JSON"),
        ({"tokenizer__json": b"[]"}, "holds no JSON object"),
        ({"tokenizer__json": {"model": {}}}, "describes no tokenizer"),
        ({"vocab__txt": b"[PAD]\n[UNK]\n"}, r"lacks \[CLS\], \[SEP\]"),
        ({"tokenizer__model": b"IQ== 0\nIg== 1\n"}, "not a SentencePiece model"),
        ({"tokenizer__json": "llama3"}, "nothing names the end token"),
        (
            {"tokenizer__json": "llama3", "tokenizer_config__json": {"eos_token": "<x>"}},
            "names eos_token '<x>', which the vocabulary lacks",
        ),
        (
            {
                "tokenizer__model": "llama2",
                "tokenizer_config__json": {"tokenizer_class": "XLMRobertaTokenizer"},
            },
            "has rules of its own",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path, files, message):
    content = {
        name: (folder() / value / name.replace("__", ".")).read_bytes()
        if isinstance(value, str)
        else value
        for name, value in files.items()
    }
    with pytest.raises(UserError, match=message) as raised:
        open_tokenizer_at(written(tmp_path, **content))
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_an_absent_path_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing is no folder: tried"):
        open_tokenizer_at(tmp_path / "nothing")
