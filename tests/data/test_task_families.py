"""A family never takes another's place in silence, and names that two share are written in full."""

import dataclasses

import pytest

from ilm_jax.checks import InputFile
from ilm_jax.data.examples import task_families
from ilm_jax.data.examples.task_families import (
    TASK_FAMILIES,
    TaskFamily,
    find_spec,
    find_specs,
    has_task,
    mixtures,
    register_task_family,
    spec_named,
    task_specs,
)
from ilm_jax.data.examples.task_keys import effective, plain_settings
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.mixtures import rates_of
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Own:
    depth: int = 2
    listed: InputFile = ""


@dataclasses.dataclass(frozen=True)
class NoDefault:
    depth: int


def spec(task="ranking", family="mine", **more):
    return dataclasses.replace(spec_named("knowledge/ranking"), family=family, task=task, **more)


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(TASK_FAMILIES, "_entries", dict(TASK_FAMILIES._entries))
    monkeypatch.setattr(task_families.user_modules, "_noted", {})


def test_a_short_name_of_two_families_is_written_in_full():
    assert find_spec("toy", "ranking") is spec_named("knowledge/ranking")
    register_task_family(TaskFamily("mine", (spec(), spec("depth")), Own, {"mine": ("ranking",)}))
    with pytest.raises(UserError, match="write knowledge/ranking or mine/ranking") as error:
        DatasetConfig("ranking").rates  # noqa: B018 - a property that resolves names
    assert "2 task families have a task 'ranking'" in str(error.value)
    for name in ("mine/ranking", "mine_toy_ranking"):
        assert find_spec("toy", name).family == "mine" and has_task("toy", name)
    assert find_spec("toy", "knowledge_toy_ranking").family == "knowledge"
    assert find_spec("toy", "depth").full == "mine/depth"
    both = DatasetConfig({"knowledge/ranking": 1.0, "mine/ranking": 2.0}).rates
    assert both == {"knowledge_toy_ranking": 1.0, "mine_toy_ranking": 2.0}
    # A mixture's names are of its own family.
    assert rates_of("mine") == {"mine/ranking": None} and "knowledge/ranking" in rates_of(
        "knowledge"
    )
    assert [s.full for s in find_specs("toy", ["mine", "depth"])] == ["mine/ranking", "mine/depth"]


def test_what_stands_first_is_never_replaced():
    before = task_specs()
    with pytest.raises(UserError, match="there is a task family 'knowledge' already"):
        register_task_family(TaskFamily("knowledge", (spec(family="knowledge"),)))
    assert task_specs() == before
    register_task_family(TaskFamily("mine", (spec(),), mixtures={"regen": ("ranking",)}))
    with pytest.raises(UserError, match="two task families have a mixture 'regen'"):
        mixtures()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TaskFamily("Mine", ()), "a name of a-z"),
        (lambda: TaskFamily("history", ()), "a setting is called so"),
        (lambda: TaskFamily("mine", (spec(), spec())), "two tasks 'ranking'"),
        (lambda: TaskFamily("mine", (spec_named("bpr"),)), "holds knowledge/bpr"),
        (lambda: TaskFamily("mine", (spec(),), mixtures={"m": ("no",)}), "names 'no': no task"),
        (
            lambda: register_task_family(TaskFamily("mine", (), NoDefault)),
            "every setting a default",
        ),
    ],
)
def test_a_family_that_does_not_fit_is_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_task_reads_all_of_its_family_unless_it_says_what(tmp_path):
    (tmp_path / "list.txt").write_text("a")
    settings = TaskSettings(families=(Own(3, str(tmp_path / "list.txt")),))
    with pytest.raises(UserError, match="no task family has settings of the class Own"):
        effective(spec_named("bpr"), settings)
    register_task_family(
        TaskFamily("mine", (spec(settings=None), spec("b", settings=("seed",))), Own)
    )
    plain = plain_settings(spec_named("mine/ranking"), settings)
    assert plain["mine.depth"] == 3 and len(plain["mine.listed"]) == 64
    assert {"history", "target", "seed", "split"} <= set(plain)
    assert set(plain_settings(spec_named("mine/b"), settings)) == {"seed", "split"}
    register_task_family(TaskFamily("odd", (spec("c", "odd", settings=("odd.dept",)),), Own))
    with pytest.raises(UserError, match="odd/c reads the setting 'odd.dept', which does not exist"):
        effective(spec_named("c"), settings)


def test_settings_of_a_family_are_given_once():
    with pytest.raises(UserError, match="holds Own twice"):
        TaskSettings(families=(Own(), Own(3)))
    with pytest.raises(UserError, match="give the settings of task families"):
        TaskSettings(families=("knowledge",))
