"""`ilm chat`: a conversation with a trained stage-2 model, or with any language model, in the
terminal or over a pipe.
"""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.catalogue import Catalogue
    from ilm_jax.decoding.config import DecodingConfig
    from ilm_jax.serving.conversation import Conversation
    from ilm_jax.serving.turns import Turns

HELP = """\
  /find WORDS           items whose title holds all these words
  /history add ID…      items that you chose, oldest first; a title in quotes will do
  /history              what was added, and what was asked for
  /user ID              speak as a user of the catalogue
  /recommend            recommend; an empty line does the same
  any other words       say what you want, or what is wrong with the last list: a new one follows
  /ask WORDS            anything, which is answered in words; {item:ID} mentions an item
  /clear                forget everything that was said
  /help, /quit"""
HELP_WORDS = """\
  any words             are answered
  /clear                forget everything that was said
  /help, /quit"""


def _flags() -> flags.FlagValues:
    from ilm_jax.cli import opening

    values = flags.FlagValues()
    opening.define_run(values)
    opening.define_model(values)
    opening.define_decoding(values, 48)
    flags.DEFINE_integer(
        "max_prompt_length",
        1024,
        "Of --lm: tokens of a conversation at most; of a longer one the oldest turns are not read.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "items", 3, "Items of a recommendation.", lower_bound=1, flag_values=values
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong flags; what is wrong in a line is answered, and the talk goes on.
    """
    from ilm_jax.cli import opening, words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "chat", rest)
    opening.check_decoding(values)
    if values.lm:
        return _with_model(values, bindings)

    from ilm_jax.errors import UserError

    if wrong := opening.flags_of_model(values):
        raise UserError(f"{', '.join(wrong)}: of --lm; a run has its own")
    run = opening.open_run(values.model_dir, bindings, "chat")

    from ilm_jax.serving.answering import Answerer
    from ilm_jax.serving.conversation import Conversation

    opening.say_template(run.tokenizer, *opening.folders_of(run))
    trained = opening.load(run, values.step)
    answerer = Answerer.of_trained(trained)
    config = opening.decoding(values, run.stop_ids, run.tokenizer.pad_id)
    conversation = Conversation(answerer, count=values.items, config=config)
    catalogue = run.catalogue
    print(f"{catalogue.num_items} items of {catalogue.name}; /help says what can be said")
    for line in talk(conversation, _lines()):
        print(line, flush=True)
    return 0


def _with_model(values: flags.FlagValues, bindings: Sequence[str]) -> int:
    """A conversation with a language model by itself."""
    from ilm_jax.cli import opening
    from ilm_jax.errors import UserError

    if values.model_dir or bindings:
        raise UserError("ilm chat takes --model_dir=RUN or --lm=MODEL, and gin bindings of a run")

    from ilm_jax.serving import corpus_writing
    from ilm_jax.serving.turns import Turns

    model, stops = opening.load_model(values)
    answerer = corpus_writing.writer_of_model(model, values.max_prompt_length, 1)
    config = opening.decoding(values, stops, model.tokenizer.pad_id)
    print("/help says what can be said")
    for line in talk_in_words(Turns(answerer), config, _lines()):
        print(line, flush=True)
    return 0


def talk_in_words(turns: "Turns", config: "DecodingConfig", lines: Iterable[str]) -> Iterator[str]:
    """Answers of a language model to the lines, until /quit or their end."""
    from ilm_jax.data.examples.prompt_tokens import spoken
    from ilm_jax.errors import UserError

    for line in map(str.strip, lines):
        if line in ("/quit", "/exit"):
            return
        if line == "/help":
            yield HELP_WORDS
        elif line == "/clear":
            turns.clear()
            yield "forgotten"
        elif line:
            try:
                yield turns.answer(spoken(line), config)
            except UserError as error:
                yield f"error: {error}"
            yield from _unread(turns)


def _unread(turns: "Turns") -> Iterator[str]:
    if turns.unread:
        yield f"(the first {turns.unread // 2} questions and answers no longer fit: not read)"


def talk(conversation: "Conversation", lines: Iterable[str]) -> Iterator[str]:
    """Answers to the lines, until /quit or their end."""
    from ilm_jax.errors import UserError

    for line in lines:
        line = line.strip()
        if line in ("/quit", "/exit"):
            return
        try:
            yield from _answer(conversation, line)
        except UserError as error:
            yield f"error: {error}"


def _answer(conversation: "Conversation", line: str) -> Iterator[str]:
    from ilm_jax.errors import UserError

    # Any space parts the words, U+3000 of Japanese keyboards too.
    verb, rest = [*line.split(maxsplit=1), "", ""][:2]
    catalogue = conversation.names.catalogue
    if verb == "/help":
        yield HELP
    elif verb == "/find":
        found = conversation.names.search(rest) if rest else []
        yield from (_item(catalogue, row) for row in found)
        if not found:
            yield "nothing found: /find WORDS of a title"
    elif verb == "/history":
        yield from _history(conversation, rest)
    elif verb == "/user":
        conversation.speak_as(rest)
        yield f"you are {rest}"
    elif verb == "/clear":
        conversation.clear()
        yield "forgotten"
    elif verb == "/ask":
        if not rest:
            raise UserError("/ask takes words")
        yield conversation.ask(rest)
        yield from _unread(conversation.turns)
    elif verb.startswith("/") and verb != "/recommend":
        raise UserError(f"no command {verb}; /help lists them")
    else:
        if line and verb != "/recommend":
            conversation.criticise(line)
        for place, item in enumerate(conversation.recommend(), 1):
            yield f"{place}. {item.title} [{item.id}]  log p {item.score:.2f}"
            yield f"   {item.explanation}"
        yield from _unread(conversation.turns)


def _history(conversation: "Conversation", rest: str) -> Iterator[str]:
    from ilm_jax.errors import UserError

    catalogue = conversation.names.catalogue
    verb, names = [*rest.split(maxsplit=1), "", ""][:2]
    if verb == "add":
        try:
            given = shlex.split(names)
        except ValueError as error:
            raise UserError(f"{names}: {error}; put titles in quotes") from error
        if not given:
            raise UserError("/history add takes ids, or titles in quotes")
        rows = conversation.add(given)
        yield from (f"added {_item(catalogue, row)}" for row in rows)
    elif verb:
        raise UserError(f"/history {verb}: there are /history and /history add ID…")
    else:
        yield from (_item(catalogue, row) for row in conversation.history)
        yield from (f"wanted: {words}" for words in conversation.critiques)
        if not conversation.history and not conversation.critiques:
            yield "nothing yet: /history add ID…"


def _item(catalogue: "Catalogue", row: int) -> str:
    return f"{catalogue.titles[row]} [{catalogue.item_ids[row]}]"


def _lines() -> Iterator[str]:
    """Of stdin, with a prompt where a person types."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line
