"""The template of a model's files that lays out a conversation as one text."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilm_jax.errors import UserError
from ilm_jax.files import sha256_json

# Names under which templates find the special tokens.
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


class Message(NamedTuple):
    """A message; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template and what it may name.

    Attributes:
      source: its text.
      tokens: special tokens by name, such as {"bos_token": "<s>"}, sorted by name.
      where: the folder or file that it comes from, for messages.
    """

    source: str
    tokens: tuple[tuple[str, str], ...] = ()
    where: str = "the tokenizer"

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what decides the text."""
        return sha256_json([self.source, self.tokens])

    def text(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The conversation as one text, special tokens spelled out.

        Reasoning is switched off where a template can do so (`enable_thinking`).

        Args:
          messages: in order.
          generation: the assistant's next answer follows.

        Raises:
          UserError: if the template is none, raises, or reaches for more than it is given.
        """
        from ilm_jax.data.tokenizers import template_sandbox  # Jinja, for chat alone

        said = [message._asdict() for message in messages]
        try:
            return template_sandbox.compiled(self.source).render(
                messages=said,
                add_generation_prompt=generation,
                tools=None,
                documents=None,
                enable_thinking=False,
                **dict(self.tokens),
            )
        except Exception as error:  # it is somebody's program: it may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{self.where}: its chat template fails ({reason}); correct it, or set "
                "PROMPT_FORMAT='plain'"
            ) from error


def template_of(config: bytes | Mapping[str, Any], where: str) -> ChatTemplate | None:
    """The template that a tokenizer_config.json says, if it says one.

    Args:
      config: the file, parsed or not.
      where: for messages.

    Raises:
      UserError: where several templates are named and none is the default.
    """
    said = config if isinstance(config, Mapping) else json.loads(config or b"{}")
    source = chosen(said.get("chat_template"), where)
    if not source:
        return None
    named = {name: said.get(name) for name in TOKENS}
    plain = {n: t.get("content") if isinstance(t, Mapping) else t for n, t in named.items()}
    tokens = tuple(sorted((n, t) for n, t in plain.items() if isinstance(t, str) and t))
    return ChatTemplate(source, tokens, where)


def chosen(given: Any, where: str) -> str | None:
    """One template of a field that holds a text, or several with their names.

    Raises:
      UserError: as `template_of`.
    """
    if not given or isinstance(given, str):
        return given or None
    named = given
    if isinstance(given, Sequence) and all(isinstance(one, Mapping) for one in given):
        named = {one.get("name"): one.get("template") for one in given}
    if not isinstance(named, Mapping) or not isinstance(named.get("default"), str):
        raise UserError(f"{where}: chat_template is neither a text nor has one named 'default'")
    return named["default"]
