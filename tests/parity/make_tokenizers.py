"""Makes goldens/tokenizers.tar.xz: small tokenizers of every published kind, and ids of references.

    python tests/parity/make_tokenizers.py

needs transformers. The models are trained here, with the options of the published ones (which
cannot be passed on), on generated strings. Per case the archive holds the files as published and
ids.npz: what `transformers` gives for 1,000 other strings, and for SentencePiece models also what
the `sentencepiece` library gives. The two disagree on some strings; see test_tokenizers.py.
"""

import io
import json
import pathlib
import string
import tarfile
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers

from tests.data.odd_strings import odd_strings

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "tokenizers.tar.xz"
# Published models know every digit and letter.
CORPUS = odd_strings(4000, seed=99) + 20 * list(string.digits + string.ascii_letters)
STRINGS = odd_strings(1000, seed=0)
# How a text is cut before merging: Llama 3's and Qwen 2's published patterns differ in digits.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "character_coverage": 0.99,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
}
PIECES: dict[str, dict[str, Any]] = {
    "t5": {
        "model_type": "unigram",
        "vocab_size": 700,
        "character_coverage": 0.9995,
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
    },
    "llama2": {**LLAMA, "vocab_size": 900},
    "gemma": {
        **LLAMA,
        "vocab_size": 900,
        "add_dummy_prefix": False,
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "eos_piece": "<eos>",
        "bos_piece": "<bos>",
        "user_defined_symbols": [
            "<mask>",
            "<start_of_turn>",
            "<end_of_turn>",
            *("\n" * k for k in range(1, 6)),
            *("▁" * k for k in range(2, 9)),
            "<h1>",
            "</h1>",
        ],
    },
}
CONFIGS: dict[str, dict[str, Any]] = {
    "t5": {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 100,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    },
    "llama2": {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "legacy": False,
    },
    "gemma": {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    },
    "llama3": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
    },
    "qwen2": {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    },
    "bert": {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
    "bert_cased": {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
}


def train_pieces(folder: pathlib.Path, name: str, options: dict[str, Any]) -> None:
    """A SentencePiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    file = "spiece.model" if name == "t5" else "tokenizer.model"
    (folder / file).write_bytes(model.getvalue())


def train_byte_level(folder: pathlib.Path, digits: str, special: list[str]) -> None:
    """A tokenizer.json of byte-level BPE; the first special token of Llama 3 opens a text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=not digits == ""))
    pattern = tokenizers.Regex(PATTERN.replace("DIGITS", digits))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(special)
    bytes_alone = processors.ByteLevel(trim_offsets=False)
    if digits:
        opener = special[0]
        template = processors.TemplateProcessing(
            single=f"{opener} $A", special_tokens=[(opener, tokenizer.token_to_id(opener))]
        )
        tokenizer.post_processor = processors.Sequence([bytes_alone, template])
    else:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.post_processor = bytes_alone
    tokenizer.save(str(folder / "tokenizer.json"))


def train_wordpiece(folder: pathlib.Path, lowercase: bool) -> None:
    """BERT's vocab.txt."""
    tokenizer = tokenizers.BertWordPieceTokenizer(lowercase=lowercase)
    tokenizer.train_from_iterator(
        CORPUS, vocab_size=900, min_frequency=2, limit_alphabet=200, show_progress=False
    )
    tokenizer.save_model(str(folder))


def write_fast(root: pathlib.Path) -> None:
    """tokenizer.json of the SentencePiece models, as their published folders hold them."""
    for name, kind in (("t5", "T5"), ("llama2", "Llama"), ("gemma", "Gemma")):
        slow = getattr(transformers, f"{kind}Tokenizer").from_pretrained(root / name)
        spec = json.loads(slow.backend_tokenizer.to_str())
        if name == "t5":  # the compiled form of these rules takes 300 kB
            spec["normalizer"] = {"type": "NFKC"}
        if name == "llama2":  # as published: older than the class that transformers has now
            replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
            prepend = {"type": "Prepend", "prepend": "▁"}
            spec["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
            spec["pre_tokenizer"] = None
        folder = root / f"{name}_fast"
        folder.mkdir()
        text = json.dumps(spec, ensure_ascii=False)
        (folder / "tokenizer.json").write_text(text)
        write_config(folder, {**CONFIGS[name], "tokenizer_class": "PreTrainedTokenizerFast"})


def write_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """tokenizer_config.json."""
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def flat(name: str, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Ragged rows as values and lengths."""
    values = np.array([token for row in rows for token in row], np.int16)
    return {name: values, f"{name}_lengths": np.array([len(row) for row in rows], np.int16)}


def reference(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """What the references give for STRINGS."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = getattr(transformers, config["tokenizer_class"]).from_pretrained(folder)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in STRINGS]
    again = [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in ids]
    found = {
        **flat("ids", ids),
        "round_trip": np.array([a == b for a, b in zip(again, STRINGS, strict=True)]),
        "opens": np.array(tokenizer.encode(""), np.int16),
        "transformers": np.array(transformers.__version__),
    }
    for file in folder.glob("*.model"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        found |= flat("pieces", [processor.encode(text) for text in STRINGS])
    return found


def main() -> None:
    """Writes the archive."""
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for name, config in CONFIGS.items():
            (root / name).mkdir()
            write_config(root / name, config)
        for name, options in PIECES.items():
            train_pieces(root / name, name, options)
        train_byte_level(
            root / "llama3", "{1,3}", ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
        )
        train_byte_level(root / "qwen2", "", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        train_wordpiece(root / "bert", lowercase=True)
        train_wordpiece(root / "bert_cased", lowercase=False)
        write_fast(root)
        for folder in sorted(root.iterdir()):
            np.savez(folder / "ids.npz", **reference(folder))
        with tarfile.open(GOLDEN, "w:xz", preset=9) as archive:
            for file in sorted(root.rglob("*")):
                if file.is_file():
                    entry = tarfile.TarInfo(str(file.relative_to(root)))
                    entry.size = file.stat().st_size
                    archive.addfile(entry, io.BytesIO(file.read_bytes()))
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes, transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
