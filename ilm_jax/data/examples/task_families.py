"""The families of tasks: ours, and those that a user's module registers.

A task goes by its registered name ("knowledge_toy_ranking"), by family and task
("knowledge/ranking"), or, where no other family has one of the same name, by the task alone.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence

from ilm_jax import user_modules
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.errors import UserError
from ilm_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """Of a family that has none of its own."""


@dataclasses.dataclass(frozen=True)
class TaskFamily:
    """Tasks that belong together.

    Attributes:
      name: prefix of their registered names: small letters, digits and "_".
      specs: the tasks, all of different names.
      settings: frozen dataclass of the settings that they alone read, all with defaults.
      mixtures: {name: names of tasks} that recipes may name; the family's own name may be one.

    Raises:
      UserError: for names that do not fit.
    """

    name: str
    specs: tuple[TaskSpec, ...]
    settings: type = NoSettings
    mixtures: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise UserError(f"task family {self.name!r}: give a name of a-z, 0-9 and _")
        if self.name in {field.name for field in dataclasses.fields(TaskSettings)}:
            raise UserError(f"task family {self.name!r}: a setting is called so; rename the family")
        tasks = [spec.task for spec in self.specs]
        twice = sorted({task for task in tasks if tasks.count(task) > 1})
        if twice:
            raise UserError(f"task family {self.name} has two tasks {twice[0]!r}: rename one")
        for spec in self.specs:
            if spec.family != self.name:
                raise UserError(f"task family {self.name} holds {spec.full}: give its own tasks")
        for mixture, names in self.mixtures.items():
            absent = [name for name in names if name not in tasks]
            if absent:
                raise UserError(f"mixture {mixture} of {self.name} names {absent[0]!r}: no task")


TASK_FAMILIES: Registry[TaskFamily] = Registry("task family")
# What stands above the library is named by strings, and imported when it is asked for.
for _name, _module in {
    "align": "align",
    "elm24": "elm24",
    "openp5": "openp5",
    "semantic": "semantic",
    "knowledge": "knowledge",
    "regen": "regen",
    "lumen": "lumen",
    "corpus": "corpus",
}.items():
    TASK_FAMILIES.register(_name, f"ilm_jax.tasks.{_module}:FAMILY")
# What `ilm cache_tasks` prepares unless told otherwise: the tasks of the shipped recipes.
DEFAULT_TASKS = (
    "align/item_text",
    "align/item_item",
    "align/user_item",
    "elm24/long_description",
    "openp5/sequential_random",
    "corpus/text",
)


def register_task_family(family: TaskFamily) -> None:
    """Adds a family; a recipe that imports the calling module can name its tasks.

    Processes that cache tasks import the calling module, too.

    Raises:
      UserError: if there is a family of this name, or its settings have no defaults.
    """
    try:
        family.settings()
    except TypeError as error:
        raise UserError(
            f"{family.settings.__name__} of task family {family.name}: {error}; give every setting "
            "a default"
        ) from error
    TASK_FAMILIES.register(family.name, family)
    user_modules.note_caller()


def task_specs() -> dict[str, TaskSpec]:
    """All tasks by family and task, such as "knowledge/ranking"."""
    return {spec.full: spec for name in TASK_FAMILIES for spec in TASK_FAMILIES[name].specs}


def task_names(dataset: str) -> dict[str, TaskSpec]:
    """All tasks of a dataset by registered name."""
    return {spec.name(dataset): spec for spec in task_specs().values()}


def mixtures() -> dict[str, tuple[str, ...]]:
    """All mixtures by name: the tasks of each by family and task.

    Raises:
      UserError: if two families have one of the same name.
    """
    found: dict[str, tuple[str, ...]] = {}
    for family in map(TASK_FAMILIES.__getitem__, TASK_FAMILIES):
        for name, tasks in family.mixtures.items():
            if name in found:
                raise UserError(f"two task families have a mixture {name!r}: rename one")
            found[name] = tuple(f"{family.name}/{task}" for task in tasks)
    return found


def has_task(dataset: str, name: str) -> bool:
    """Whether `find_spec` finds this name, or finds it twice."""
    return name in task_names(dataset) or bool(_by_short_name(name))


def find_spec(dataset: str, name: str) -> TaskSpec:
    """The task of a name, see above.

    Raises:
      UserError: if the dataset has no such task, or several families have one.
    """
    return _by_registered_name(dataset, name) or spec_named(name, dataset)


def spec_named(name: str, dataset: str | None = None) -> TaskSpec:
    """The task called "ranking" or "knowledge/ranking".

    Raises:
      UserError: if there is none (of a dataset, if one is given), or several families have one.
    """
    found = _by_short_name(name)
    if len(found) > 1:
        full = " or ".join(spec.full for spec in found)
        raise UserError(f"{len(found)} task families have a task {name!r}: write {full}")
    if not found:
        specs = task_specs()
        known = [*(spec.task for spec in specs.values()), *specs]
        known += task_names(dataset) if dataset else []
        near = difflib.get_close_matches(name, known, n=3) or list(DEFAULT_TASKS)
        of = f" of dataset {dataset!r}" if dataset else ""
        raise UserError(
            f"no task {name!r}{of}; near it: {', '.join(near)}; `ilm inspect` lists all"
        )
    return found[0]


def _by_registered_name(dataset: str, name: str) -> TaskSpec | None:
    return task_names(dataset).get(name)


def _by_short_name(name: str) -> list[TaskSpec]:
    return [spec for full, spec in task_specs().items() if name in (full, spec.task)]


def find_specs(dataset: str, names: Sequence[str]) -> list[TaskSpec]:
    """The tasks of these names; the name of a family ("openp5") stands for all of its tasks.

    Raises:
      UserError: as `find_spec`.
    """
    specs: dict[str, TaskSpec] = {}
    for name in names:
        family = TASK_FAMILIES[name].specs if name in TASK_FAMILIES else ()
        specs |= {spec.full: spec for spec in family or [find_spec(dataset, name)]}
    return list(specs.values())


def family_of(settings: type) -> str:
    """The name of the family whose settings are of this class.

    Raises:
      UserError: if no family is known that has such settings.
    """
    for name in TASK_FAMILIES:
        if TASK_FAMILIES[name].settings is settings:
            return name
    raise UserError(
        f"no task family has settings of the class {settings.__name__}: register it, or leave them "
        "out of TaskSettings.families"
    )
