"""The 24 item tasks and the user profile after ELM (Tennenholtz et al. 2024), in our own words.

The paper's prompts are not public, nor is its list of tasks confirmed beyond a few names: names and
arities here are the best known to us. `PROMPTS` is what a model reads in training; `INSTRUCTIONS`
is what a language model is asked when it writes the targets (`ilm generate`).
"""

import dataclasses
from collections.abc import Sequence

from ilm_jax.data.examples import templates


@dataclasses.dataclass(frozen=True)
class ElmTask:
    """One of the tasks.

    Attributes:
      items: how many items its prompt names: 1, or 2.
      neighbour: the second item is the nearest neighbour of the first.
      prompts: templates; brackets go with a mention that is "none".
      instruction: what to ask a language model that knows the items' facts.
    """

    items: int
    prompts: tuple[str, ...]
    instruction: str
    neighbour: bool = False


def _one(instruction: str, *prompts: str) -> ElmTask:
    return ElmTask(1, prompts, instruction)


def _two(instruction: str, *prompts: str, neighbour: bool = False) -> ElmTask:
    return ElmTask(2, prompts, instruction, neighbour)


TASKS: dict[str, ElmTask] = {
    "summary": _one(
        "Sum the item up in two or three sentences.",
        "Sum up this item[: {item}].",
        "What is this item[ {item}] in short?",
    ),
    "positive_review": _one(
        "Write a short review by somebody who liked the item.",
        "Review this item[: {item}] as someone who liked it.",
        "Write a warm review of the item[ {item}].",
    ),
    "negative_review": _one(
        "Write a short review by somebody who did not like the item.",
        "Review this item[: {item}] as someone who disliked it.",
        "Write an unfavourable review of the item[ {item}].",
    ),
    "neutral_review": _one(
        "Write a short, balanced review that weighs good and bad.",
        "Review this item[: {item}] without taking sides.",
        "Weigh up the item[ {item}] in a balanced review.",
    ),
    "positive_characteristics": _one(
        "Name five things that speak for the item, one short phrase each.",
        "Name five strengths of this item[: {item}].",
        "What speaks for the item[ {item}]?",
    ),
    "negative_characteristics": _one(
        "Name five things that speak against the item, one short phrase each.",
        "Name five weaknesses of this item[: {item}].",
        "What speaks against the item[ {item}]?",
    ),
    "long_description": ElmTask(
        1,
        templates.DESCRIPTION,
        "Describe the item at length for somebody who does not know it: five to eight sentences.",
    ),
    "funnier": _one(
        "Imagine a funnier version of the item and describe it.",
        "Imagine this item[: {item}] were funnier. Describe it.",
        "Turn the item[ {item}] into something to laugh about.",
    ),
    "sadder": _one(
        "Imagine a sadder version of the item and describe it.",
        "Imagine this item[: {item}] were sadder. Describe it.",
        "Turn the item[ {item}] into something sorrowful.",
    ),
    "scarier": _one(
        "Imagine a scarier version of the item and describe it.",
        "Imagine this item[: {item}] were scarier. Describe it.",
        "Turn the item[ {item}] into something frightening.",
    ),
    "improve": _one(
        "Say what would make the item better, and why.",
        "How could this item[: {item}] be better?",
        "Suggest improvements to the item[ {item}].",
    ),
    "viewer": _one(
        "Describe the person whom the item suits best.",
        "Whom does this item[: {item}] suit?",
        "Describe the typical friend of the item[ {item}].",
    ),
    "pitch": _one(
        "Pitch the item to somebody who decides about money, in three sentences.",
        "Pitch this item[: {item}].",
        "Present the item[ {item}] to someone who might fund it.",
    ),
    "criticize": _one(
        "Criticise the item as an expert would, with reasons.",
        "Criticise this item[: {item}].",
        "As an expert, find fault with the item[ {item}].",
    ),
    "convince_1": _one(
        "Convince a friend in a few words to try the item.",
        "Talk a friend into this item[: {item}].",
        "In a few words, win me over to the item[ {item}].",
    ),
    "convince_2": _one(
        "Convince a doubtful reader, at length and with arguments, to try the item.",
        "Argue at length for this item[: {item}].",
        "Someone doubts the item[ {item}]. Convince them.",
    ),
    "convince_3": _one(
        "Convince somebody by what others who know the item say.",
        "Persuade with what others say of this item[: {item}].",
        "Let other people's opinion speak for the item[ {item}].",
    ),
    "dissuade_1": _one(
        "Talk a friend out of the item in a few words.",
        "Talk a friend out of this item[: {item}].",
        "In a few words, warn me off the item[ {item}].",
    ),
    "dissuade_2": _one(
        "Argue at length that a reader should not take the item.",
        "Argue at length against this item[: {item}].",
        "Someone wants the item[ {item}]. Change their mind.",
    ),
    "similarities": _two(
        "Say what the two items have in common.",
        "What do these two items[, {first} and {second},] share?",
        "Name what is alike in two items[: {first}, {second}].",
    ),
    "interpolation": _two(
        "Describe an item that would lie halfway between the two.",
        "Describe what lies between two items[, {first} and {second}].",
        "Blend two items[: {first}, {second}]. What comes out?",
    ),
    "why_like_nn": _two(
        "The second item is close to the first. Say why somebody who likes the first will like it.",
        "Why will a friend of one item[, {first},] like its neighbour[ {second}]?",
        "Someone likes an item[ {first}]. Why also the one next to it[, {second}]?",
        neighbour=True,
    ),
    "diff_than_nn": _two(
        "The second item is close to the first. Say how they differ.",
        "How does an item[, {first},] differ from its neighbour[ {second}]?",
        "Tell an item[ {first}] apart from the one next to it[, {second}].",
        neighbour=True,
    ),
    "common_with_nn": _two(
        "The second item is close to the first. Say what they have in common.",
        "What does an item[, {first},] share with its neighbour[ {second}]?",
        "An item[ {first}] and the one next to it[, {second}]: what unites them?",
        neighbour=True,
    ),
}
USER_PROFILE = "user_profile"
PROFILE_PROMPTS = (
    "Describe the taste[ of {user}].",
    "What kind of person, by their choices, is this[: {user}]?",
    "Write a profile of the customer[ {user}].",
)
PROFILE_INSTRUCTION = "Describe the taste of somebody who chose these items, in a short paragraph."


def instruction(task: str, facts: Sequence[str]) -> str:
    """What to ask a language model for a target.

    Args:
      task: a key of `TASKS`, or `USER_PROFILE`.
      facts: a paragraph about each item (or each choice of the user), in the prompt's order.
    """
    return around(PROFILE_INSTRUCTION if task == USER_PROFILE else TASKS[task].instruction, facts)


def around(ask: str, facts: Sequence[str]) -> str:
    """A question to a language model, behind a paragraph about each item."""
    names = ("First item", "Second item") if len(facts) == 2 else ("Item",) * len(facts)
    lines = [f"{name}: {fact}" for name, fact in zip(names, facts, strict=True)]
    end = "Use these facts alone, add none, and answer with the text only."
    return "\n".join([*lines, "", ask, end])
