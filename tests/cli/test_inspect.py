"""`ilm inspect` shows what a dataset holds, and validates a folder before anything else."""

import re

import pytest

from ilm_jax.cli import inspect, inspect_tasks
from ilm_jax.cli import main as cli
from ilm_jax.data.examples.task_families import task_specs
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.sources import custom, toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams.task_tokenizer import ensure_tokenizer
from ilm_jax.data.streams.tasks_on_disk import open_tasks
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    small_catalogue().save(catalogue_dir("toy", folder), {"builder": toy.VERSION})
    return folder


def shown(capsys, *words):
    capsys.readouterr()
    assert inspect.main(words) == 0
    return capsys.readouterr().out


def test_tasks_and_mixtures_with_sizes_and_rates(cache, capsys):
    printed = shown(capsys, "--dataset=toy", f"--cache_dir={cache}")
    for spec in task_specs().values():
        assert spec.name("toy") in printed
    assert "60 items" in printed and "2 users without targets" in printed
    (line,) = [row for row in printed.splitlines() if row.startswith("openp5_random ")]
    assert "sequential_random 0.500, straightforward_random 0.500" in line
    (line,) = [row for row in printed.splitlines() if row.startswith("knowledge_toy_rating ")]
    assert line.split()[1:4] == ["0", "0", "0"]  # nothing is rated


def test_of_many_interactions_only_arithmetic_counts_and_full_counts_all(
    cache, capsys, monkeypatch
):
    words = "--dataset=toy", f"--cache_dir={cache}"
    everything = shown(capsys, *words)
    assert "–" not in everything and everything.count("    in:  ") == 2  # two samples
    monkeypatch.setattr(inspect_tasks, "MANY", 10)
    printed = shown(capsys, *words)
    for name, spec in task_specs().items():
        (line,) = [row for row in printed.splitlines() if row.startswith(f"{spec.name('toy')} ")]
        assert (line.split()[1] == "–") == (not spec.counted), name
    assert "counted by --full" in printed and "–" in printed
    told = [line for line in shown(capsys, *words, "--full").splitlines() if "/s made" not in line]
    assert told == [line for line in everything.splitlines() if "/s made" not in line]


def test_full_measures_every_example_of_a_task(cache, capsys):
    words = ["--dataset=toy", f"--cache_dir={cache}", "--task=sequential_slot", "--full"]
    with pytest.raises(UserError, match="no tokenizer yet, so no lengths"):
        inspect.main(words)
    catalogue = small_catalogue()
    ensure_tokenizer("toy", TaskSettings(), catalogue, cache)
    lines = shown(capsys, *words).splitlines()
    for split in SPLITS:
        (task,) = open_tasks(
            "toy", TaskSettings(), ["sequential_slot"], split, cache_dir=cache, catalogue=catalogue
        ).values()
        lengths = [len(example["inputs"]) for example in task]
        (line,) = [line for line in lines if line.startswith(f"{split} ")]
        assert line.split()[1:4] == [
            str(len(task)),
            str(max(lengths)),
            f"({sum(lengths) / len(lengths):.1f})",
        ]


@pytest.mark.parametrize("task", ["sequential_slot", "similarities", "ranking", "item_item"])
def test_examples_of_a_task_with_slots_visible(cache, capsys, task):
    words = ["--dataset=toy", f"--cache_dir={cache}", f"--task={task}", "--num=2"]
    printed = shown(capsys, *words, "--split=validation")
    assert printed.startswith(f"{task}, validation: ")
    printed = printed.replace("<pad> ‹item› </s>", "")  # in the title of one item
    assert ("‹item›" in printed) == (task in ("sequential_slot", "similarities"))
    assert printed.count("    in:  ") == (0 if task == "item_item" else 2)


def test_a_folder_of_ones_own_is_validated_first(tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = [" ".join(f"{k}" for k in [f"u{u}", *range(u % 3, u % 3 + 6)]) for u in range(9)]
    (folder / "user_sequence.txt").write_text("".join(line + "\n" for line in lines))
    words = ["--dataset=custom", f"--data_dir={folder}", f"--cache_dir={tmp_path}"]
    printed = shown(capsys, *words, '--settings={"split": {"held_out_items": 0.0}}')
    assert "interactions  " in printed and "items go by their ids" in printed
    assert "no timestamps; the order of the file" in printed and "custom item_" in printed
    (folder / "user_sequence.txt").write_text("u1 1 2\nu1 3\n")
    with pytest.raises(UserError, match="user_sequence.txt:2: user 'u1' was given in line 1"):
        custom.read(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("interactions.csv", "user,item,timestamp\nu,a,yesterday\n", r"csv:2: timestamp 'yest"),
        ("interactions.csv", "customer,item,timestamp\nu,a,1\n", r"csv:1: no column for the user"),
        ("interactions.csv", "", r"csv:1: no interactions in the file"),
        ("interactions.csv", "user,item,timestamp\nu,zz,1\n", r"csv:2: item 'zz' is not in the"),
        ("interactions.csv", "user,item,timestamp\nu,a,1\nu,a,2\n", "no user has 3 interactions"),
        ("items.csv", "id,title\na,A\na,B\n", r"csv:3: item id 'a' was given in line 2"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_of_it_is_kept(
    tmp_path, capsys, name, content, message
):
    folder, cache = tmp_path / "mine", tmp_path / "cache"
    folder.mkdir()
    (folder / "items.csv").write_text("id,title\n" + "".join(f"{k},{k}\n" for k in "abc"))
    (folder / "interactions.csv").write_text(
        "user,item,timestamp\n" + "".join(f"u,{k},1\n" for k in "abc")
    )
    (folder / name).write_text(content)
    words = [
        "inspect",
        "--dataset=custom",
        f"--data_dir={folder}",
        f"--cache_dir={cache}",
        '--settings={"split": {"held_out_items": 0.0}}',
    ]
    assert cli.main(words) == 2
    begun, *lines = [line for line in capsys.readouterr().err.splitlines() if line]
    if not begun.startswith("preparing custom into"):  # columns are looked at before
        lines.insert(0, begun)
    assert len(lines) == 1 and re.match(rf"ilm: error: .*{message}", lines[0]), lines
    # A catalogue that no task can be made of is one all the same.
    assert any(cache.rglob("catalogue.json")) == ("no user has 3" in message)


def test_it_says_which_column_is_read_as_what(tmp_path):
    (tmp_path / "interactions.tsv").write_text("User\tmovieId\twhen\tdevice\nu\ta\t1\tphone\n")
    (tmp_path / "items.jsonl").write_text('{"asin": "a", "name": "A", "brand": "B", "price": 1}\n')
    (tmp_path / "columns.gin").write_text(
        'Columns.timestamp = "when"\nColumns.attributes = ["brand"]\n'
    )
    printed = inspect.recognised(str(tmp_path))
    assert "user = User, item = movieId, timestamp = when; not read: device" in printed
    assert "id = asin, title = name, brand = brand; not read: price" in printed


def test_wrong_words_are_one_line(cache):
    base = ["--dataset=toy", f"--cache_dir={cache}"]
    for words, message in (
        (["--split=valid"], "no split 'valid'"),
        (["--task=sumary"], "near it: summary"),
        (["--task=rating"], "split 'train' has no examples"),
    ):
        with pytest.raises(UserError, match=message):
            inspect.main([*base, *words])
