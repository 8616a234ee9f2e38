"""The protocol of language models' configurations, decoder-only or encoder-decoder."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ilm_jax.checks import Dataclass

if TYPE_CHECKING:
    from ilm_jax.models.decoder import Decoder
    from ilm_jax.models.t5 import T5


@runtime_checkable
class LanguageModelConfig(Dataclass, Protocol):
    """Sizes of a language model; a dataclass that builds its module.

    Its fields `vocab_size` and `param_dtype` can be replaced.
    """

    @property
    def vocab_size(self) -> int:
        """Rows of the token table; 0: the tokenizer's number."""

    @property
    def embed_dim(self) -> int:
        """Width of token vectors and hidden states."""

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder the targets alone."""

    @property
    def word_rows(self) -> int:
        """Rows of whole-word embeddings, which prompts then need `word_ids` for; 0: none."""

    def build(self) -> "Decoder | T5":
        """The module."""
