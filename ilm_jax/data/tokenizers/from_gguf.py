"""A GGUF file's vocabulary as the files of a published tokenizer: what `opening` reads as ever.

Byte-level BPE (Llama 3, Qwen, SmolLM2) becomes a tokenizer.json, pieces with scores (Llama 2,
Mistral, Gemma) a SentencePiece model. How a byte-level one cuts a text before it merges is no part
of the file: `tokenizer.ggml.pre` names it, and _CUTS has the named ones.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from ilm_jax.data.tokenizers import stated
from ilm_jax.errors import UserError
from ilm_jax.pretrained.gguf_file import GGUFFile

KEY = "tokenizer.ggml"
TEMPLATE = "tokenizer.chat_template"
# Kinds of tokens, numbered alike in GGUF and in SentencePiece.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_MODEL: Any = vars(sentencepiece_model_pb2)["ModelProto"]
# Tokens that end a turn, beside those that the file says: models name one end and write others.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>", "<|end|>")
# Tokens of a conversation's frame that some files keep as symbols to be matched in texts.
_FRAME = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _split(digits: str) -> dict[str, Any]:
    pattern = {"Regex": _WORDS.replace("DIGITS", digits)}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**_BYTES, "use_regex": False}]}


_LLAMA_3 = {"pre_tokenizer": _split("{1,3}"), "ignore_merges": True}
_SMOLLM = {
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTES],
    }
}
# By `tokenizer.ggml.pre`.
_CUTS: dict[str, dict[str, Any]] = {
    "gpt-2": {"pre_tokenizer": _BYTES},
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "qwen2": {"pre_tokenizer": _split(""), "normalizer": {"type": "NFC"}},
    "smollm": _SMOLLM,
}
# Of these, texts open with bos where the file does not say.
_OPENED = (_LLAMA_3,)


def tokenizer_files(file: GGUFFile) -> dict[str, bytes]:
    """{name: bytes} of the files that say the same as a GGUF file's metadata.

    tokenizer.json or tokenizer.model, tokenizer_config.json (with the chat template) and, where
    several tokens end a text, generation_config.json; {} for a file without a vocabulary.

    Raises:
      UserError: for a vocabulary of a kind, or with a way of cutting texts, that is not built.
    """
    if f"{KEY}.model" not in file.metadata:
        return {}
    try:
        return _tokenizer_files(file)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file.path}: its metadata describe no tokenizer ({error})") from error


def _tokenizer_files(file: GGUFFile) -> dict[str, bytes]:
    said = file.metadata
    tokens, kinds = _vocabulary(file)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for theirs, role in _ROLES.items():
        if (number := said.get(f"{KEY}.{theirs}_token_id")) is not None:
            config[f"{role}_token"] = _token(tokens, number, theirs, file.path)
    if said[f"{KEY}.model"] == "gpt2":
        files = {"tokenizer.json": _byte_level(file, tokens, kinds)}
        opened = any(_cut(file) is cut for cut in _OPENED)
    elif said[f"{KEY}.model"] == "llama":
        files = {"tokenizer.model": _pieces(file, tokens, kinds, config)}
        frame = [number for number, token in enumerate(tokens) if token in _FRAME]
        config["tokenizer_class"] = "LlamaTokenizer"
        config["added_tokens_decoder"] = {
            str(number): {"content": tokens[number], "special": True} for number in frame
        }
        opened = True
    else:
        raise UserError(
            f"{file.path}: its vocabulary is of the kind {said[f'{KEY}.model']!r}: built are gpt2 "
            "(byte-level BPE) and llama (SentencePiece); name a tokenizer of the model by TOKENIZER"
        )
    config["add_bos_token"] = bool(said.get(f"{KEY}.add_bos_token", opened))
    template = said.get(TEMPLATE)
    if isinstance(template, str) and template:
        config["chat_template"] = template
    files[stated.CONFIG] = _json(config)
    if ends := _ends(said, tokens, kinds):
        files[stated.GENERATION] = _json({"eos_token_id": ends})
    return files


_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}


def _vocabulary(file: GGUFFile) -> tuple[list[str], list[int]]:
    """(tokens, their kinds), without the unused ones at the end: rows that fill up the table."""
    tokens = file.metadata.get(f"{KEY}.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise UserError(f"{file.path} names a tokenizer and lists no tokens: name one by TOKENIZER")
    kinds = file.metadata.get(f"{KEY}.token_type") or [NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise UserError(f"{file.path} lists {len(tokens)} tokens and {len(kinds)} kinds of them")
    last = max((n for n, kind in enumerate(kinds) if kind != UNUSED), default=-1) + 1
    return tokens[:last], kinds[:last]


def _token(tokens: Sequence[str], number: object, what: str, path: str) -> str:
    if type(number) is not int or not 0 <= number < len(tokens):
        raise UserError(f"{path}: {KEY}.{what}_token_id is {number!r}, which is no token's")
    return tokens[number]


def _ends(said: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> list[int]:
    """Ids that end what the model writes, eos first; [] where eos is the only one."""
    named = [said.get(f"{KEY}.{role}_token_id") for role in ("eos", "eot", "eom")]
    numbers = [n for n in named if type(n) is int and 0 <= n < len(tokens)]
    numbers += [n for n, token in enumerate(tokens) if token in _ENDS and kinds[n] != NORMAL]
    found = list(dict.fromkeys(numbers))
    return found if len(found) > 1 else []


def _cut(file: GGUFFile) -> dict[str, Any]:
    name = file.metadata.get(f"{KEY}.pre")
    if name not in _CUTS:
        raise UserError(
            f"{file.path}: how its tokenizer cuts a text ({KEY}.pre = {name!r}) is not known here "
            f"({', '.join(_CUTS)}): name a tokenizer of the model by TOKENIZER"
        )
    return _CUTS[name]


def _byte_level(file: GGUFFile, tokens: Sequence[str], kinds: Sequence[int]) -> bytes:
    """A tokenizer.json."""
    cut = _cut(file)
    merges = file.metadata.get(f"{KEY}.merges")
    if not isinstance(merges, list):
        raise UserError(f"{file.path} has a byte-level vocabulary without merges")
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": number, "content": tokens[number], **plain, "special": kind == CONTROL}
        for number, kind in enumerate(kinds)
        if kind in (CONTROL, USER_DEFINED)
    ]
    return _json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": cut.get("normalizer"),
            "pre_tokenizer": cut["pre_tokenizer"],
            "post_processor": None,
            "decoder": _BYTES,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": cut.get("ignore_merges", False),
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": [merge.split(" ", 1) for merge in merges],
            },
        }
    )


def _pieces(
    file: GGUFFile, tokens: Sequence[str], kinds: Sequence[int], config: Mapping[str, Any]
) -> bytes:
    """A SentencePiece model."""
    said = file.metadata
    scores = said.get(f"{KEY}.scores")
    if not isinstance(scores, list) or len(scores) < len(tokens):
        raise UserError(f"{file.path} has a vocabulary of pieces without their scores")
    model = _MODEL()
    for token, score, kind in zip(tokens, scores, kinds, strict=False):
        model.pieces.add(piece=token, score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = 2  # BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = BYTE in kinds
    for role in ("unk", "bos", "eos", "pad"):
        if piece := config.get(f"{role}_token"):
            setattr(trainer, f"{role}_piece", piece)
            setattr(trainer, f"{role}_id", tokens.index(piece))
        else:
            setattr(trainer, f"{role}_id", -1)
    unknown = [number for number, kind in enumerate(kinds) if kind == UNKNOWN]
    if len(unknown) == 1:
        trainer.unk_id, trainer.unk_piece = unknown[0], tokens[unknown[0]]
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = bool(said.get(f"{KEY}.add_space_prefix", True))
    normalizer.remove_extra_whitespaces = bool(said.get(f"{KEY}.remove_extra_whitespaces", False))
    normalizer.escape_whitespaces = True
    return bytes(model.SerializeToString())


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
