"""A task family of one's own, in one file: which of a user's last choices came first?

Adds the family "memory": its setting, templates and answers; nothing of the package is touched.
`ilm cache_tasks --import=examples/own_task.py --tasks=memory` knows it, and so does a recipe that
says `import own_task`. Caches it for the toy world and prints two examples: a minute or two.

    python examples/own_task.py [--cache_dir DIR]
"""

import argparse
import dataclasses

import ilm_jax
from ilm_jax.checks import Count, check
from ilm_jax.data import draws
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import Segment
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import RANKING, TaskSpec
from ilm_jax.data.streams.tasks_on_disk import open_tasks, open_tokenizer
from ilm_jax.tasks.histories import HistoryTask


@dataclasses.dataclass(frozen=True)
class MemorySettings:
    """What the family alone reads; in a recipe `own_task.MemorySettings.shown = 4`."""

    shown: Count = 3

    def __post_init__(self) -> None:
        check(self)


class First(HistoryTask):
    """The last choices before a position in a drawn order in, the one that came first out."""

    wording = (
        "A {dataset} customer chose, in some order:{history}. The first of them was",
        "Which of these {dataset} items was chosen before the others?{history}. It was",
    )

    def _shown(self, user: int, position: int) -> list[int]:
        count = self.settings.of(MemorySettings).shown
        return self.splits.catalogue.sequence(user)[max(0, position - count) : position].tolist()

    def target(self, user: int, position: int) -> int:
        return self._shown(user, position)[0]

    def elements(self, user: int, position: int) -> list[list[Segment]]:
        # Drawn by hash of what the example is: the same in every process.
        keys = (self.settings.seed, "memory", self.splits.catalogue.user_ids[user], position)
        rows = self._shown(user, position)
        return self.renderer.history(sorted(rows, key=lambda row: draws.uniform(*keys, row)))


FIRST = TaskSpec(
    family="memory",
    task="first",
    version=1,
    make=First,
    answer="items",
    metrics=RANKING,
    mentions=lambda settings: [(settings.mention_history, settings.of(MemorySettings).shown)],
    what="last choices, shuffled | the first of them | ours",
)
ilm_jax.register_task_family(TaskFamily("memory", (FIRST,), MemorySettings))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache_dir", help="of prepared data (default: ~/.cache/ilm_jax)")
    cache = parser.parse_args().cache_dir
    settings = TaskSettings(mention_history="id", families=(MemorySettings(shown=4),))
    (task,) = open_tasks("toy", settings, ["memory/first"], "train", cache_dir=cache).values()
    catalogue = ilm_jax.load_catalogue("toy", cache_dir=cache)
    words = PromptTokenizer(open_tokenizer("toy", settings, catalogue, cache))
    for example in (task[len(task) // 3], task[len(task) // 2]):
        print(words.decode_prompt(example["inputs"]), "->", example["target_text"])
