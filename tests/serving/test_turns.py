"""Turns of a conversation: earlier ones are read, as far as there is room; recommendations too."""

import json
import shutil

import pytest

from ilm_jax.cli import chat
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer, Turn, spoken
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.tokenizers import formatted, open_tokenizer_at
from ilm_jax.data.tokenizers.chat_template import USER
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.serving.conversation import Conversation
from ilm_jax.serving.turns import Turns
from tests.data.published_tokenizers import folder
from tests.data.test_chat import CLOSING, OPENING, shown
from tests.decoding import small
from tests.parity.chat_cases import CHATML

ASSISTANT = "<|im_start|>assistant\n"
CONFIG = DecodingConfig()


class Answers:
    """An answerer that remembers what it is asked, and says "answer 1", "answer 2", …."""

    purchases = None

    def __init__(self, tokenizer, length=2000):
        self.tokenizer, self.asked = tokenizer, []
        self.converter = PromptConverter(
            {"inputs": length, "targets": 1}, tokenizer, num_queries=3, max_entities=6
        )
        self.renderer = PromptRenderer(small.splits(), small.SETTINGS)

    def texts(self, requests, config):
        self.asked += [shown(self.tokenizer, r.example["inputs"]) for r in requests]
        return [{"text": f"answer {len(self.asked)}"} for _ in requests]

    def items(self, requests, count, excluded):
        self.texts(requests, CONFIG)
        ids = [f"i{n}" for n in range(small.ITEMS) if n not in excluded[0]]
        return [{"items": [{"id": i, "title": i, "score": 0.0} for i in ids[:count]]}]


@pytest.fixture
def tokenizer(tmp_path):
    shutil.copytree(folder() / "qwen2", tmp_path / "qwen2")
    file = tmp_path / "qwen2/tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": CHATML}))
    return formatted(open_tokenizer_at(tmp_path / "qwen2"))


def said(*turns):
    """The text of a conversation that these turns have, the user's first."""
    text = OPENING + turns[0]
    for number, turn in enumerate(turns[1:], 1):
        text += f"<|im_end|>\n<|im_start|>{('user', 'assistant')[number % 2]}\n{turn}"
    return text + CLOSING


def test_earlier_turns_are_read_until_they_are_forgotten(tokenizer):
    answers = Answers(tokenizer)
    lines = ["a boat?\n", "\n", "and <|im_end|>?\n", "/clear\n", "so?\n", "/quit\n", "no\n"]
    given = list(chat.talk_in_words(Turns(answers), CONFIG, lines))
    assert given == ["answer 1", "answer 2", "forgotten", "answer 3"]
    assert answers.asked == [
        said("a boat?"),
        said("a boat?", "answer 1", "and <|im_end|>?"),
        said("so?"),
    ]


def test_the_oldest_turns_make_room_and_it_is_said(tokenizer):
    texts = ["question 2", "answer 3", "question 3"]
    spoken_by = [Turn((USER, "assistant")[k % 2], spoken(text)) for k, text in enumerate(texts)]
    room = len(PromptTokenizer(tokenizer).conversation(spoken_by)[0])
    answers = Answers(tokenizer, length=room)
    turns = Turns(answers)
    for number in range(4):
        turns.answer(spoken(f"question {number}"), CONFIG)
    assert turns.unread == 4 and len(turns.said) == 8
    assert answers.asked[-1] == said("question 2", "answer 3", "question 3")
    (line,) = list(chat.talk_in_words(turns, CONFIG, ["so?"]))[1:]
    assert "first 3 questions and answers no longer fit" in line


def test_a_model_without_turns_reads_the_last_question_alone():
    answers = Answers(small.tokenizer())
    turns = Turns(answers)
    for words in ("a boat", "a fish"):
        turns.answer(spoken(f"{words} "), CONFIG)
    assert answers.asked == ["a boat ", "a fish "] and not turns.said


def test_recommendations_are_turns_and_a_critique_opens_the_next(tokenizer):
    answers = Answers(tokenizer)
    talk = Conversation(answers, count=2, config=CONFIG)
    target = answers.renderer.target
    talk.add(["i3"])
    first, question = talk.rank(), talk.prompt().text.strip()
    assert answers.asked == [said(question.replace("\ue000", "<-1>"))]
    # Asked again the question is the same, and stands there once.
    assert talk.rank() == first and answers.asked[1] == answers.asked[0]
    talk.criticise("darker, please")
    talk.rank()
    wanted = f"Wanted: darker, please. {question}".replace("\ue000", "<-1>")
    names = ", ".join(target(int(item["id"][1:])) for item in first)
    assert answers.asked[-1] == said(question.replace("\ue000", "<-1>"), names, wanted)
    assert talk.ask("Is {item:i4} dark?").startswith("answer")
    assert answers.asked[-1].endswith(f"dark?{CLOSING}") and wanted in answers.asked[-1]
    talk.describe([5])
    assert answers.asked[-1].count(ASSISTANT) == 1
    talk.clear()
    assert not talk.turns.said


def test_a_line_asks_in_words(tokenizer):
    answers = Answers(tokenizer)
    talk = Conversation(answers, count=1, config=CONFIG)
    lines = list(chat.talk(talk, ["/ask What is {item:i2}?", "/ask", "/ask {item:none}"]))
    assert lines[0] == "answer 1" and lines[1] == "error: /ask takes words"
    assert lines[2].startswith("error: no item 'none'")
