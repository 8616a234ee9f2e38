"""The tasks that there are: family, name, features, and the settings each depends on."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from ilm_jax.errors import UserError

# What a model is to answer, see `TaskSpec.answer`.
Answer = Literal["items", "text", "rating", "item_and_text", "pairs", "none"]


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One kind of task.

    Attributes:
      family: prefix of the name, after the source of the task.
      task: rest of the name.
      version: raised whenever the examples of unchanged settings change.
      features: (name, kind) of every cached feature; kind is "ints" (rank 1), "int" or "text".
      settings: the fields of TaskSettings that its examples depend on.
      metrics: names of the figures that evaluation reports.
      fixed: (field, value) of TaskSettings that make the task what it is, whatever is set; a value
        "=name" is that of another field.
      slots: (field of TaskSettings that says how something is mentioned, how often at most); the
        number may be the name of a field.
      what: input, target and paper, for lists of tasks.
      answer: what a model is to answer, by which evaluation chooses its measures: "items" (a ranked
        list of the catalogue's), "text", "rating" (a number), "item_and_text" (an item's name and
        what is said of it, in one text), "pairs" (nothing is said: rows of the embedding table
        and, in one kind, a text are aligned) or "none" (plain text to be modelled, no prompt).
    """

    family: str
    task: str
    version: int
    features: tuple[tuple[str, str], ...]
    settings: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    slots: tuple[tuple[str, int | str], ...] = ()
    what: str = ""
    answer: Answer = dataclasses.field(kw_only=True)

    def name(self, dataset: str) -> str:
        """Registered name for a dataset, such as "elm24_toy_world3_long_description"."""
        return f"{self.family}_{dataset.replace('/', '_')}_{self.task}"


PROMPT_FEATURES = (
    ("key", "text"), ("user", "text"), ("template", "text"), ("target_text", "text"),
    ("inputs", "ints"), ("targets", "ints"), ("targets_content", "ints"), ("slots", "ints"),
    ("history_bounds", "ints"), ("target_item", "int"),
)  # fmt: skip
RANKING = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10")
_RENDERING = ("text_only", "variants", "seed")
_INDEX = ("item_index", "index_order", "cluster_tokens", "cluster_split")
_DESCRIPTION = ("mention_description", "elm_texts_file", *_RENDERING)
_RECOMMENDATION = (
    "mention_history", "mention_user", "target", "history", "prompts", "prompt_file", *_INDEX,
    *_RENDERING,
)  # fmt: skip
_CORPUS = tuple(sorted({*_DESCRIPTION, *_RECOMMENDATION} - {"text_only", "prompts"}))


def _alignment() -> list[TaskSpec]:
    key, row = ("key", "text"), ("row", "int")
    return [
        TaskSpec("align", "item_text", 1, (key, row, ("text", "ints")), (),
                 what="item vector | its text | ILM stage 1", answer="pairs"),
        TaskSpec("align", "item_item", 1, (key, row, ("other", "int")), ("pair_distance",),
                 what="item vector | an item of the same user soon after | ILM stage 1",
                 answer="pairs"),
        TaskSpec("align", "user_item", 1, (key, ("user", "int"), row), (),
                 what="user vector | an item of the user | ILM stage 1", answer="pairs"),
    ]  # fmt: skip


# How OpenP5's tasks name items, by the end of the task's name.
INDEXINGS: dict[str, tuple[tuple[str, Any], ...]] = {
    "random": (("item_index", "random"),),
    "sequential": (("item_index", "sequential"),),
    "collaborative": (("item_index", "collaborative"),),
    "title": (("item_index", "random"), ("mention_history", "title"), ("target", "title")),
    "slot": (
        ("item_index", "random"), ("mention_history", "slot"), ("mention_user", "slot"),
        ("target", "id"),
    ),
}  # fmt: skip


def _openp5() -> list[TaskSpec]:
    inputs = {"sequential": "user, history", "straightforward": "user"}
    slots: tuple[tuple[str, int | str], ...] = (("mention_history", "history"), ("mention_user", 1))
    specs = []
    for task, given in inputs.items():
        for indexing, fixed in INDEXINGS.items():
            for prompts, suffix in (("seen", ""), ("unseen", "_unseen")):
                target = "title of the next item" if indexing == "title" else "id of the next item"
                specs.append(TaskSpec(
                    "openp5", f"{task}_{indexing}{suffix}", 3 if indexing == "title" else 2,
                    PROMPT_FEATURES, _RECOMMENDATION,
                    RANKING, (*fixed, ("prompts", prompts)),
                    slots if task == "sequential" else slots[1:],
                    f"{given} ({indexing} ids, {prompts} prompts) | {target} | OpenP5",
                    answer="items",
                ))  # fmt: skip
    return specs


_ONE_ITEM = (
    "summary", "positive_review", "negative_review", "neutral_review", "positive_characteristics",
    "negative_characteristics", "long_description", "funnier", "sadder", "scarier", "improve",
    "viewer", "pitch", "criticize", "convince_1", "convince_2", "convince_3", "dissuade_1",
    "dissuade_2",
)  # fmt: skip
_TWO_ITEMS = ("similarities", "interpolation", "why_like_nn", "diff_than_nn", "common_with_nn")
WRITTEN_FEATURES = (*PROMPT_FEATURES, ("source", "text"))
_LANGUAGE = ("nll", "nll_content")


def _elm24() -> list[TaskSpec]:
    specs = []
    for task in (*_ONE_ITEM, *_TWO_ITEMS):
        two = task in _TWO_ITEMS
        neighbour = ("elm_neighbours",) if task.endswith("_nn") else ()
        second = "its neighbour" if neighbour else "another"
        specs.append(TaskSpec(
            "elm24", task, 2, WRITTEN_FEATURES,
            (*_DESCRIPTION, *neighbour), _LANGUAGE, (), (("mention_description", 1 + two),),
            f"{f'an item and {second}' if two else 'an item'} | {task.replace('_', ' ')} | ELM",
            answer="text",
        ))  # fmt: skip
    profile = TaskSpec(
        "elm24", "user_profile", 2, WRITTEN_FEATURES, ("elm_texts_file", *_RENDERING), _LANGUAGE,
        (("mention_user", "slot"),), (("mention_user", 1),), "a user | their taste | ELM",
        answer="text",
    )  # fmt: skip
    return [*specs, profile]


_KNOWLEDGE = ("mention_knowledge", "history", *_RENDERING)
_NEGATIVES = ("negatives_may_be_held_out",)
_LISTS = (*_NEGATIVES, "candidates", "candidates_file")
# (input | target, further settings, what is mentioned beside the history, metrics, answer)
_KNOWLEDGE_TASKS: dict[str, tuple[str, tuple[str, ...], int | str, tuple[str, ...], Answer]] = {
    "mim": ("choices with one hidden | its title", (), 0, RANKING, "items"),
    "mlm": ("an item's text with gaps | the missing words", ("mask_share",), 0, ("nll",), "text"),
    "bpr": ("history, two items | the chosen one's title", _NEGATIVES, 2, ("exact_match",), "text"),
    "retrieval": ("history in titles | title of the next item", (), 0, RANKING, "items"),
    "ranking": (
        "history, candidates | title of the next item",
        _LISTS,
        "candidates",
        RANKING,
        "items",
    ),
    "rating": ("history with ratings, an item | its rating", (), 1, ("rmse", "mae"), "rating"),
}
_AS_MENTIONED = (
    ("mention_user", "none"), ("mention_history", "=mention_knowledge"), ("target", "title"),
)  # fmt: skip


def _knowledge() -> list[TaskSpec]:
    specs = []
    for task, (what, more, beside, metrics, answer) in _KNOWLEDGE_TASKS.items():
        features = PROMPT_FEATURES + ((("candidates", "ints"),) if task == "ranking" else ())
        slots = (("mention_knowledge", "history"), ("mention_knowledge", beside))
        specs.append(TaskSpec(
            "knowledge", task, 2, features, _KNOWLEDGE + more, metrics, _AS_MENTIONED,
            () if task == "mlm" else slots, f"{what} | Cao et al.", answer=answer,
        ))  # fmt: skip
    return specs


_REGEN_TASKS: dict[str, tuple[Answer, str]] = {
    "next_item": ("items", "history | id of the next item"),
    "next_item_critique": ("items", "history, critique | id of the next item"),
    "joint": ("item_and_text", "history | id of the next item, and the reason"),
    "joint_critique": ("item_and_text", "history, critique | id of the next item, and the reason"),
    "purchase_reason": ("text", "history, item | why it was bought"),
    "endorsement": ("text", "history, item | what speaks for it"),
    "user_summary": ("text", "history | what the user is like"),
}


def _regen() -> list[TaskSpec]:
    settings = tuple(name for name in _RECOMMENDATION if name not in ("prompts", "prompt_file"))
    specs = []
    for task, (answer, what) in _REGEN_TASKS.items():
        metrics = RANKING if answer == "items" else _LANGUAGE
        slots = (("mention_history", "history"), ("mention_history", 1), ("mention_user", 1))
        specs.append(TaskSpec(
            "regen", task, 2, WRITTEN_FEATURES, (*settings, "regen_texts_file", "regen_similar"),
            metrics, (), slots, f"{what} | REGEN", answer=answer,
        ))  # fmt: skip
    return specs


def _corpus() -> list[TaskSpec]:
    settings = (*_CORPUS, "corpus_sequential_examples", "corpus_word_variants")
    return [
        TaskSpec("corpus", "text", 4, PROMPT_FEATURES, settings, ("nll",),
                 what="- | item texts and text-only renderings | stage 0, ours", answer="none"),
    ]  # fmt: skip


SPECS: dict[str, TaskSpec] = {
    spec.task: spec
    for spec in (*_alignment(), *_elm24(), *_openp5(), *_knowledge(), *_regen(), *_corpus())
}
# What `ilm cache_tasks` prepares unless told otherwise: the tasks of the shipped recipes.
DEFAULT_TASKS = (
    "item_text", "item_item", "user_item", "long_description", "sequential_random", "text",
)  # fmt: skip


def task_names(dataset: str) -> dict[str, TaskSpec]:
    """All tasks of a dataset by registered name."""
    return {spec.name(dataset): spec for spec in SPECS.values()}


def find_spec(dataset: str, name: str) -> TaskSpec:
    """The task called `name` by its registered or its short name ("item_text").

    Raises:
      UserError: if the dataset has no such task.
    """
    import difflib

    known = task_names(dataset)
    if name in SPECS:
        return SPECS[name]
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *SPECS], n=3) or list(DEFAULT_TASKS)
        raise UserError(
            f"no task {name!r} of dataset {dataset!r}; near it: {', '.join(near)}; "
            "`ilm inspect` lists all"
        )
    return known[name]


def find_specs(dataset: str, names: Sequence[str]) -> list[TaskSpec]:
    """The tasks of these names; the name of a family ("openp5") stands for all of its tasks.

    Raises:
      UserError: if the dataset has no such task.
    """
    families = {spec.family for spec in SPECS.values()}
    specs: dict[str, TaskSpec] = {}
    for name in names:
        found = [s for s in SPECS.values() if s.family == name] if name in families else []
        specs |= {spec.task: spec for spec in found or [find_spec(dataset, name)]}
    return list(specs.values())
