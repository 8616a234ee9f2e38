"""Whether `transformers` computes with a folder of ours what goldens/smollm2.npz says.

    python -m tests.parity.read_smollm2 FOLDER

needs torch and transformers, and nothing of ilm_jax.  FOLDER is SmolLM2-135M-Instruct, converted
from its GGUF file and out again (`ilm convert --to=hugging_face`).  Everything is read by
transformers' own classes: ids of the tokenizer's strings, the chat template's prompts, logits of a
text, and the likeliest 24 tokens after every prompt.  Prints what was compared; exits with 1 where
something differs.
"""

import sys

import numpy as np

from tests.parity.make_smollm2 import GOLDEN, NEW, QUESTIONS, STRINGS

TOLERANCE = 5e-4


def main(folder: str) -> int:
    """Compares the folder with the goldens; returns the exit code."""
    import torch
    import transformers

    with np.load(GOLDEN) as arrays:
        golden = dict(arrays)
    ids = np.split(golden["ids"], np.cumsum(golden["ids_lengths"])[:-1])
    prompts = np.split(golden["prompts"], np.cumsum(golden["prompts_lengths"])[:-1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    equal = sum(encode(text) == row.tolist() for text, row in zip(STRINGS, ids, strict=True))
    asked = answered = 0
    with torch.no_grad():
        logits = model(torch.tensor(golden["text"][None].astype(np.int64))).logits[0]
        for question, prompt, answer in zip(QUESTIONS, prompts, golden["answers"], strict=True):
            shown = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            asked += encode(shown) == prompt.tolist()
            out = model.generate(
                torch.tensor(prompt[None].astype(np.int64)), max_new_tokens=NEW, do_sample=False
            )
            new = out[0, len(prompt) :].tolist()
            answered += new == answer[: len(new)].tolist() and set(answer[len(new) :]) <= {2}
    far = float(np.abs(logits[:, golden["columns"]].numpy() - golden["logits"]).max())
    total = float(np.abs(torch.logsumexp(logits, -1).numpy() - golden["total"]).max())
    print(f"transformers {transformers.__version__}, goldens by {golden['versions']}")
    print(f"strings with the same ids: {equal} of {len(STRINGS)}")
    print(f"prompts with the same ids: {asked} of {len(QUESTIONS)}")
    print(f"greedy texts that are the same: {answered} of {len(QUESTIONS)}")
    print(f"logits differ by at most {far:.1e}, their logsumexp by {total:.1e}")
    same = equal == len(STRINGS) and asked == answered == len(QUESTIONS)
    return int(not (same and far <= TOLERANCE and total <= TOLERANCE))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
