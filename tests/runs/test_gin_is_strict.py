"""Bindings that nothing reads are errors with a suggestion; gin alone accepts them in silence."""

import dataclasses
import sys
import types

import pytest

from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config


@dataclasses.dataclass
class Part:
    size: int = 1
    name: str = "x"


@dataclasses.dataclass
class Root:
    model_dir: str
    train: Part | None = None
    seed: int = 0


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    module = types.ModuleType("recipe_parts")
    for cls in (Part, Root):
        cls.__module__ = "recipe_parts"
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "recipe_parts", module)
    path = tmp_path / "run.gin"
    path.write_text(
        "from __gin__ import dynamic_registration\n"
        "import recipe_parts\n"
        "MODEL_DIR = %gin.REQUIRED\n"
        "BATCH_SIZE = 4\n"
        "recipe_parts.Root.model_dir = %MODEL_DIR\n"
        "recipe_parts.Root.train = @train/recipe_parts.Part()\n"
        "recipe_parts.Part.size = %BATCH_SIZE\n"
    )
    return str(path)


def build(recipe, *bindings):
    return gin_config.build(Root, [recipe], ["MODEL_DIR='/m'", *bindings])


def test_bindings_on_the_command_line_override_and_use_the_recipes_imports(recipe):
    root = build(recipe, "BATCH_SIZE=8", "train/recipe_parts.Part.name='y'")
    assert (root.model_dir, root.train) == ("/m", Part(8, "y"))


def test_bare_words_are_strings(recipe):
    root = gin_config.build(Root, [recipe], ["MODEL_DIR=/some/path"])
    assert root.model_dir == "/some/path"


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("BATCH_SIZ=3", "BATCH_SIZ.*did you mean 'BATCH_SIZE'"),
        ("trian/recipe_parts.Part.size=1", "trian/.*Part.size.*did you mean 'train'"),
        ("trian/X.y=1", "X"),
        ("recipe_parts.Root.sed=1", "sed"),
        ("recipe_parts.Roto.seed=1", "Roto"),
    ],
)
def test_a_misspelt_binding_is_one_line_that_names_it(recipe, binding, message):
    with pytest.raises(UserError, match=message) as error:
        build(recipe, binding)
    assert "\n" not in str(error.value)


def test_a_required_macro_without_a_value_is_named(recipe):
    with pytest.raises(UserError, match="MODEL_DIR has no value"):
        gin_config.build(Root, [recipe], [])


def test_a_missing_recipe_suggests_the_nearest(recipe):
    with pytest.raises(UserError, match="no recipe"):
        gin_config.build(Root, ["tiny/stage9.gin"], [])


def test_the_operative_config_builds_the_same_again(recipe, tmp_path):
    first = build(recipe, "BATCH_SIZE=8")
    again = tmp_path / "config.gin"
    again.write_text(gin_config.operative_config())
    assert gin_config.build(Root, [str(again)], []) == first


def test_a_folder_called_like_a_recipes_folder_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="MODEL_DIR has no value"):
        gin_config.build(Root, ["tiny/stage0.gin"], [])


def test_a_configurations_bindings_are_read_as_gin_reads_them():
    text = (
        "from __gin__ import dynamic_registration\nimport a.b\n# A remark = 3\nN = 1\n"
        "train/b.C.n = %N\nb.C.long = \\\n    'x = # y'\nb.C.rates = {'p': 2.0,\n  'q': @b.D()}\n"
    )
    assert gin_config.bindings_of(text) == {
        "N": "1",
        "train/b.C.n": "'%N'",
        "b.C.long": "'x = # y'",
        "b.C.rates": "{'p': 2.0, 'q': '@b.D()'}",
    }
    with pytest.raises(UserError, match="cannot read the configuration"):
        gin_config.bindings_of("b.C.n = (1,")


def test_a_recipe_with_an_open_bracket_is_one_line(recipe):
    # Pythons differ in which line they call the last.
    with open(recipe, "a") as stream:
        stream.write("recipe_parts.Root.seed = (1,\n")
    with pytest.raises(UserError, match="^a bracket or a quote is not closed by line [89]$"):
        build(recipe)


def test_two_modules_of_one_name_are_refused_and_an_alias_tells_them_apart(recipe, tmp_path):
    more = tmp_path / "more.gin"
    lines = "from __gin__ import dynamic_registration\nfrom ilm_jax.{} import {}\n"
    more.write_text(lines.format("objectives", "alignment"))
    other = tmp_path / "other.gin"
    other.write_text(lines.format("data.streams", "alignment_converter as alignment"))
    with pytest.raises(UserError, match="two modules as 'alignment'.*under another name"):
        gin_config.build(Root, [recipe, str(more), str(other)], ["MODEL_DIR=/m"])
    other.write_text(lines.format("data.streams", "alignment_converter"))
    assert gin_config.build(Root, [recipe, str(more), str(other)], ["MODEL_DIR=/m"]).seed == 0
