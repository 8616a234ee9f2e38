"""The settings that tasks share; what one family alone reads stands in a class of its own.

A family's settings are a frozen dataclass of its module. They are given in `TaskSettings.families`,
in any order; a family that is not there has its defaults.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from ilm_jax.checks import Choice, Count
from ilm_jax.data.catalogue.splits import SplitConfig
from ilm_jax.data.examples.prompt_settings import PromptSettings
from ilm_jax.data.tokenizers.chat_tokenizer import PROMPT_FORMATS
from ilm_jax.errors import UserError

SPLITS = ("train", "validation", "test")


class FamilySettings(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=FamilySettings)


@dataclasses.dataclass(frozen=True)
class TaskSettings(PromptSettings):
    """Settings that decide the bytes of a task cache, beside the catalogue and the tokenizer.

    Attributes:
      variants: renderings of each training example, each with a template drawn by hash.
      vocab_size: upper limit for the trained tokenizer.
      model_type: "bpe" or "unigram"; of toy texts, whole words survive in the former only.
      tokenizer: folder, file or name of a tokenizer to use instead of a trained one (see
        `tokenizers.open_tokenizer_at`); "" trains.
      new_tokens: the item index whose words are appended behind the tokenizer's ids, so that each
        is one token whatever the tokenizer is: "semantic" (codes of `item_codes`), "collaborative"
        (clusters), or "" for none. A language model reads and says them by rows of its own:
        `LanguageModelling.new_tokens`.
      prompt_format: how prompts are laid out: "plain" text, "chat" (turns in the chat template of
        the tokenizer's model) or "auto" (chat where there is such a template).
      system_text: what the system says before every prompt, in a chat template; "" for nothing.
      split: both splits.
      families: settings of single families, such as `knowledge.KnowledgeSettings()`, at most one of
        each class, in any order; tuples of them are taken apart, since gin cannot join two.
    """

    variants: Count = 1
    vocab_size: Count = 2048
    model_type: Annotated[str, Choice(("bpe", "unigram"))] = "bpe"
    tokenizer: str = ""
    new_tokens: Annotated[str, Choice(("", "collaborative", "semantic"))] = ""
    prompt_format: Annotated[str, Choice(PROMPT_FORMATS)] = "auto"
    system_text: str = ""
    split: SplitConfig = SplitConfig()
    families: tuple[FamilySettings, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        flat = [own for one in self.families for own in (one if isinstance(one, tuple) else (one,))]
        flat.sort(key=lambda own: type(own).__name__)
        object.__setattr__(self, "families", tuple(flat))
        kinds = [type(own) for own in self.families]
        for own, kind in zip(self.families, kinds, strict=True):
            if not dataclasses.is_dataclass(own) or isinstance(own, type):
                raise UserError(
                    f"TaskSettings.families holds {own!r}: give the settings of task families, "
                    "such as @knowledge.KnowledgeSettings()"
                )
            if kinds.count(kind) > 1:
                raise UserError(f"TaskSettings.families holds {kind.__name__} twice: give it once")

    def of(self, kind: type[S]) -> S:
        """A family's settings: those that are given, else its defaults."""
        for own in self.families:
            if type(own) is kind:
                return own
        return kind()

    def with_family(self, own: FamilySettings) -> "TaskSettings":
        """A copy with these settings of their family."""
        rest = [known for known in self.families if type(known) is not type(own)]
        return self.replace(families=(*rest, own))


def filled(default: Any, values: Mapping[str, Any], what: str, also: str = "") -> Any:
    """A dataclass with fields from plain values, such as parsed JSON; mappings fill inner ones.

    Args:
      default: instance that has what is not given.
      values: by name of field.
      what: the fields are, for messages: "task setting".
      also: further names that messages list.

    Raises:
      UserError: for an unknown name or a value of another type.
    """
    known = {
        field.name: getattr(default, field.name)
        for field in dataclasses.fields(default)
        if field.name != "families"
    }
    changes = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{what} {name!r} does not exist; known: {', '.join(known)}{also}")
        now = known[name]
        if dataclasses.is_dataclass(now) and isinstance(value, Mapping):
            value = filled(now, value, f"{what} {name}.")
        elif isinstance(now, float) and type(value) is int:
            value = float(value)
        elif isinstance(now, tuple) and isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(now):
            raise UserError(f"{what} {name}={value!r}: give a {type(now).__name__}")
        changes[name] = value
    return dataclasses.replace(default, **changes)
