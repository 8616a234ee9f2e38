import json
import subprocess
import sys

import pytest

from ilm_jax.cli import cache_tasks
from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_families import find_specs
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.layouts import Prompts
from ilm_jax.data.streams.tasks_on_disk import missing_tasks, open_tasks, open_tokenizer
from ilm_jax.errors import UserError
from ilm_jax.objectives.alignment_kinds import KINDS
from ilm_jax.tasks.caching import Caching
from tests.data.cached_toy import CACHED, cached_toy, prepared_toy, toy_world, with_catalogue

ON_DEMAND = """
import sys
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.objectives.alignment_kinds import KINDS
config = DatasetConfig("item_text", cache_dir=sys.argv[1], use_cached=True)
feed = config.build(lambda block, local: local, layout=KINDS["item_text"].layout)
assert feed.rows([0, 1])["text"].shape == (2, 64)
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "seqio")]
"""


def rows(block, local):
    return local + (2048 if block == "toy/user" else 0)


def test_info_says_what_was_made_and_from_what():
    names = [spec.name("toy") for spec in find_specs("toy", CACHED)]
    tokenizer = open_tokenizer("toy", TaskSettings(), toy_world(), cached_toy())
    for split in SPLITS:
        tasks = open_tasks(
            "toy",
            TaskSettings(),
            names,
            split,
            cache_dir=cached_toy(),
            catalogue=toy_world(),
            use_cached=True,
        )
        assert list(tasks) == names
        for name, task in tasks.items():
            info = task.info
            assert (info["task"], info["split"], info["dataset"]) == (name, split, "toy")
            assert info["tokenizer"]["fingerprint"] == tokenizer.fingerprint
            assert info["sources"]["catalogue"] == toy_world().fingerprint
            assert info["settings"]["split"]["held_out_items"] == 0.1
            assert task.path.parent.name == f"{name}-{info['key'][:12]}"
    assert "nll_content" in tasks["elm24_toy_long_description"].info["metrics"]
    assert tasks["elm24_toy_long_description"].info["truncations"] == {}


def test_what_is_cached_is_not_made_again(monkeypatch):
    monkeypatch.setattr(Caching, "write", None)
    where = ["--dataset=toy", f"--cache_dir={cached_toy()}", f"--tasks={','.join(CACHED)}"]
    cache_tasks.main([*where, "--nowith_text_only"])
    missing = missing_tasks("toy", TaskSettings(), CACHED, toy_world(), cached_toy())
    assert not missing
    other = TaskSettings(history=3)
    # The corpus, so the tokenizer, so all that holds tokens depends on the history.
    assert missing_tasks("toy", other, ["item_text"], toy_world(), cached_toy())


def test_the_table_shows_every_task_and_split(capsys):
    cached_toy()
    capsys.readouterr()
    base = ["--dataset=toy", f"--cache_dir={cached_toy()}"]
    every = [f"--tasks={','.join(CACHED)}", "--nowith_text_only"]
    for flags, times in ((every, 3), (["--tasks=long_description"], 6)):
        cache_tasks.main([*base, *flags])
        printed = capsys.readouterr().out
        name = "elm24_toy_long_description"
        assert len([line for line in printed.splitlines() if line.startswith(name)]) == times
    assert "openp5" not in printed


@pytest.mark.parametrize(
    ("task", "lengths", "queries"),
    [
        ({"sequential_random": 1, "long_description": None}, {"inputs": 180, "targets": 40}, 8),
        ("text", {"inputs": 0, "targets": 128}, 1),
        ("item_text", {"text": 64}, 1),
        ("item_item", {}, 1),
        ("user_item", {}, 1),
    ],
)
def test_a_configuration_becomes_batches(task, lengths, queries):
    config = DatasetConfig(task, lengths, cache_dir=prepared_toy())
    pairs = isinstance(task, str) and task in KINDS
    layout = KINDS[task].layout if pairs else Prompts(queries)
    feed = config.build(rows, layout=layout, catalogue=toy_world())
    batch = feed.rows(range(10, 14))
    again = config.build(rows, layout=layout, catalogue=toy_world()).rows([13, 10])
    assert all((again[name] == batch[name][[3, 0]]).all() for name in batch)
    assert not feed.converter.counts


def test_past_the_end_prompts_pad_and_pairs_start_over():
    finite = dict(split="validation", repeat=False, shuffle=False, cache_dir=prepared_toy())
    prompts = DatasetConfig("long_description", {"inputs": 16, "targets": 40}, **finite)
    feed = prompts.build(rows, catalogue=toy_world())
    last = feed.len_epoch - 1
    assert feed.rows([last, last + 1])["example_index"].tolist() == [last, -1]
    texts = DatasetConfig("item_text", **finite).build(
        rows, layout=KINDS["item_text"].layout, catalogue=toy_world()
    )
    batch = texts.rows([0, texts.len_epoch])
    assert batch["entities"][0] == batch["entities"][1]


def test_pairs_and_prompts_do_not_share_a_batch():
    mixed = DatasetConfig({"item_text": 1, "text": 1}, cache_dir=prepared_toy())
    with pytest.raises(UserError, match="cannot share a batch"):
        mixed.build(rows, catalogue=toy_world())
    with pytest.raises(
        UserError, match="text cannot share a batch of entities and text: .* no row"
    ):
        mixed.build(rows, layout=KINDS["item_text"].layout, catalogue=toy_world())
    with pytest.raises(UserError, match="names a task twice"):
        DatasetConfig({"item_text": 1, "align_toy_item_text": 1}).build(rows)


@pytest.mark.slow
def test_a_cache_is_made_on_demand_without_tensorflow_in_this_process(tmp_path):
    with_catalogue(tmp_path)
    command = [sys.executable, "-c", ON_DEMAND, str(tmp_path)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=300)
    assert not done.returncode, done.stderr
    assert "cache: align_toy_item_text" in done.stderr
    assert [path.name[:20] for path in (tmp_path / "tasks").iterdir() if path.is_dir()] == [
        "align_toy_item_text-"
    ]


def test_an_error_of_the_other_process_is_one_line_here(tmp_path):
    with_catalogue(tmp_path)
    (tmp_path / "bad.model").write_bytes(b"no model")
    settings = TaskSettings(tokenizer=str(tmp_path / "bad.model"))
    with pytest.raises(UserError, match="bad.model: not a SentencePiece model"):
        open_tasks("toy", settings, ["item_text"], "train", cache_dir=tmp_path, use_cached=True)


def test_an_empty_split_is_an_error_where_it_is_opened(tmp_path):
    overrides = {"split": {"held_out_items": 0}, "corpus": {"sequential_examples": 10}}
    cache_tasks.main(
        [
            "--dataset=toy",
            f"--cache_dir={with_catalogue(tmp_path)}",
            "--nowith_text_only",
            "--tasks=long_description",
            "--settings=" + json.dumps(overrides),
        ]
    )
    settings = settings_from(overrides)
    where = dict(cache_dir=tmp_path, catalogue=toy_world(), use_cached=True)
    (task,) = open_tasks("toy", settings, ["long_description"], "train", **where).values()
    assert len(task) == toy_world().num_items
    with pytest.raises(UserError, match="split 'validation' is empty .held_out_items=0.0"):
        open_tasks("toy", settings, ["long_description"], "validation", **where)
    with pytest.raises(UserError, match="no split 'valid'"):
        open_tasks("toy", settings, ["long_description"], "valid", **where)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks=item_txt"], "no task 'item_txt'"),
        (["--settings={"], "is not JSON"),
        (["--settings=[]"], "give an object"),
        (['--settings={"hist": 3}'], "task setting 'hist' does not exist"),
        (["--settings=" + json.dumps({"split": {"held_out_items": 0.7}})], "held_out_items=0.7"),
        (["--dataset=toys"], "no dataset 'toys'"),
        (["--cache=x"], "cache"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, flags, message):
    base = [f"--cache_dir={with_catalogue(tmp_path)}"]
    with pytest.raises(UserError, match=message):
        cache_tasks.main(base + flags)
    assert not (tmp_path / "tasks").exists() and not (tmp_path / "tokenizers").exists()


def test_help_needs_no_tensorflow():
    code = (
        "import sys\nfrom ilm_jax.cli import cache_tasks\n"
        "try:\n    cache_tasks.main(['--help'])\nexcept SystemExit as stop:\n"
        "    assert not stop.code\n"
        "assert not {'tensorflow', 'seqio', 'jax', 'grain'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert not done.returncode, done.stderr
    assert "--with_text_only" in done.stdout.replace("[no]", "")
