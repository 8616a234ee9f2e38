"""The templates of prompts, in our own words, and the reader of OpenP5's template file.

A template names places in braces: `{item}`, `{history}`, `{user}`, `{dataset}`. What stands in
square brackets is left out when the mention inside is "none"; what follows a bar takes its place.
"""

import functools
import os
import re

from ilm_jax.data.formats import raw_lines
from ilm_jax.errors import UserError

DESCRIPTION = (
    "Describe this item[: {item}].",
    "Say in a few sentences what this item is like[: {item}].",
    "Somebody asks about an item[: {item}]. Write its description.",
    "Introduce the item[ {item}] to a person who has never met it.",
    "Item[ {item}]. What is there to know about it?",
)
# Ten templates train; the eleventh is met in evaluation only (OpenP5's seen and unseen prompts).
SEQUENTIAL_SEEN = (
    "[{user}|Somebody] chose on {dataset}, oldest first:{history}. The next choice is",
    "Choices[ of {user}] on {dataset} so far, in order of time:{history}. Up next:",
    "What comes[ for {user}] on {dataset} after these:{history}? Most likely",
    "{dataset} history[ of {user}]:{history}. Predict what follows:",
    "Given the {dataset} choices{history}[, made by {user}], the one to recommend now is",
    "On {dataset}[, {user}|, somebody] went from one item to another:{history}. Then came",
    "Continue this {dataset} list[ of {user}]:{history}. Continuation:",
    "Past picks[ by {user}], {dataset}:{history}. A fitting recommendation is",
    "Having taken{history} from {dataset}[, {user}|, somebody] will want",
    "Complete the {dataset} log[ of {user}]:{history}, and now",
)
SEQUENTIAL_UNSEEN = (
    "Which {dataset} item would you bet on[ for {user}] once{history} are done with? My bet:",
)
STRAIGHTFORWARD_SEEN = (
    "What should [{user}|somebody] get from {dataset} next? Answer:",
    "Recommend one {dataset} item[ to {user}]:",
    "A {dataset} item that suits[ {user}] is",
    "Find something on {dataset}[ for {user}]. Found:",
    "[{user}|Somebody] opens {dataset} and wants a suggestion, which is",
    "The best {dataset} item to show[ {user}] now:",
    "Pick from {dataset}[ on behalf of {user}]:",
    "If {dataset} offered just one item[ to {user}], it would be",
    "Next {dataset} purchase[ of {user}], as far as one can tell:",
    "Guess what [{user}|somebody] takes from {dataset} after today:",
)
STRAIGHTFORWARD_UNSEEN = (
    "Out of all of {dataset}, name the item [{user}|anybody] would thank you for:",
)
OURS = {
    ("sequential", "seen"): SEQUENTIAL_SEEN,
    ("sequential", "unseen"): SEQUENTIAL_UNSEEN,
    ("straightforward", "seen"): STRAIGHTFORWARD_SEEN,
    ("straightforward", "unseen"): STRAIGHTFORWARD_UNSEEN,
}
# A history and nothing else, see `PromptSettings.bare_history`.
BARE = "[{user}]{history}"
_OUTPUT = re.compile(r"\{dataset\} \{target\}")
_PLACES = {"dataset", "user_id", "history", "target"}


def recommendation(task: str, prompts: str, prompt_file: str = "") -> tuple[str, ...]:
    """Templates of "sequential" or "straightforward", "seen" or "unseen".

    Args:
      task: which of OpenP5's tasks.
      prompts: which of its templates.
      prompt_file: a file in OpenP5's format to read instead of ours.

    Raises:
      UserError: as `read_openp5`, or if the file has no such template.
    """
    if not prompt_file:
        return OURS[task, prompts]
    found = read_openp5(prompt_file, os.stat(prompt_file).st_mtime_ns).get((task, prompts))
    if not found:
        raise UserError(f"{prompt_file}: no line '{task}; {prompts}; …'; add one")
    return found


@functools.lru_cache(maxsize=8)
def read_openp5(path: str | os.PathLike, stamp: int = 0) -> dict[tuple[str, str], tuple[str, ...]]:
    """Templates of a file as OpenP5 publishes them: `task; seen|unseen; input; output` per line.

    There `{user_id}` is a number behind "user_", `{history}` the items, and the output is
    `{dataset} {target}`. `user_{user_id}` becomes our `{user}`.

    Args:
      path: the file.
      stamp: anything that changes with the file; the answer is remembered for it.

    Raises:
      UserError: with file and line, for anything else.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, line in raw_lines.lines(path):
        if not line.strip():
            continue
        task, prompts, given, output, *rest = [*map(str.strip, line.split(";")), "", "", ""][:5]
        if any(rest) or line.count(";") != 3:
            raw_lines.fail(
                path,
                number,
                f"{line.count(';') + 1} fields instead of 4",
                "a line is 'task; seen; input; output'",
            )
        if (task, prompts) not in OURS:
            raw_lines.fail(
                path,
                number,
                f"{task!r}; {prompts!r}",
                "there are sequential and straightforward, seen and unseen",
            )
        if not _OUTPUT.fullmatch(output):
            raw_lines.fail(path, number, f"output {output!r}", "it is '{dataset} {target}'")
        _check_places(path, number, task, given)
        given = given.replace("user_{user_id}", "{user}").replace("{user_id}", "{user}")
        found[task, prompts] = (*found.get((task, prompts), ()), given)
    return found


def _check_places(path: str | os.PathLike, number: int, task: str, given: str) -> None:
    places = set(re.findall(r"\{(\w*)\}", given))
    wrong = sorted(places - _PLACES | (places & {"target"}))
    if wrong or re.sub(r"\{\w+\}", "", given).strip("{}") != re.sub(r"\{\w+\}", "", given):
        raw_lines.fail(
            path,
            number,
            f"places {sorted(places)} in the input",
            "it may name {dataset}, {user_id} and {history}",
        )
    if ("history" in places) != (task == "sequential"):
        raw_lines.fail(
            path,
            number,
            f"a {task} input with {{history}}: {'history' in places}",
            "sequential inputs name {history}, straightforward ones do not",
        )
    if re.search(r"[\[\]]", given):
        raw_lines.fail(path, number, "square brackets in the input", "leave them out")
