"""Tokenizers: our own, and those of published models; free of TensorFlow.

    kind                     files                            rows start with   pad
    ours                     one .model file (own.py)         <s>               <pad>
    T5                       spiece.model                     nothing           <pad>
    Llama 2, Mistral         tokenizer.model                  <s>               stated, or eos
    Gemma                    tokenizer.model                  <bos>             <pad>
    Llama 3                  tokenizer.json                   bos               stated, or eos
    Qwen                     tokenizer.json                   nothing           stated, or eos
    BERT                     tokenizer.json or vocab.txt      nothing           [PAD]

What a model's files leave open is decided so:

- `bos_id` is the token with which the published tokenizer opens every text. A token that is only
  named "bos" (Qwen's config.json, GPT-2) opens nothing, and rows start as they did in training.
- `pad_id` is the stated one, or eos. That is safe because no loss and no attention looks at a
  token's value: language-model rows carry segment ids and loss weights, and the texts of stage 1
  hold no eos of their own.
- `cls_id` and `dec_id` open a text and a caption in stage 1, where the Q-Former has a token table
  of its own. Where a vocabulary lacks them (all but BERT's [CLS]) they are appended behind it, as
  BLIP-2 appends [DEC] to BERT: `text_vocab_size` counts them, `vocab_size` does not, and no
  language model ever reads them. So every tokenizer serves every stage.
- No text encodes to a special id: "</s>" in an item's description is four characters. Symbols that
  a SentencePiece model declares as user-defined (Gemma's HTML tags) are matched, as the model's own
  library does, but for those that tokenizer_config.json calls special (Gemma's turn marks).
- A model whose files have a chat template reads prompts as turns of a conversation (`formatted`,
  PROMPT_FORMAT): chat.py says how, and that words stay words in it.
- Words that a task's ids need are appended behind all of these ids (`extended`): no other id
  changes, and a language model has rows of its own for them (models/new_tokens.py).
- `stop_ids`, with which a model ends what it writes, are eos_id and the eos_token_id of
  generation_config.json (without one, of config.json, as in `transformers`): one id or a list.
  Files that name two tokens for one role, two ids for one token or an id that is none are refused.
"""

from ilm_jax.data.tokenizers.chat_tokenizer import chat_of, formatted, record_of, without_chat
from ilm_jax.data.tokenizers.extended import (
    extended,
    new_tokens,
    record_of_new,
    without_new_tokens,
)
from ilm_jax.data.tokenizers.opening import (
    conflicting_specials,
    has_chat_template,
    holds_tokenizer,
    open_tokenizer_at,
    save_in,
    stop_ids,
    tokenizer_files,
)
from ilm_jax.data.tokenizers.own import OwnTokenizer
from ilm_jax.data.tokenizers.protocol import Tokenizer

__all__ = [
    "OwnTokenizer",
    "Tokenizer",
    "chat_of",
    "conflicting_specials",
    "extended",
    "formatted",
    "has_chat_template",
    "holds_tokenizer",
    "new_tokens",
    "open_tokenizer_at",
    "record_of",
    "record_of_new",
    "save_in",
    "stop_ids",
    "tokenizer_files",
    "without_chat",
    "without_new_tokens",
]
