"""`ilm infer --lm=FILE.gguf`: a language model answers by itself, without a run or a catalogue."""

import json

import pytest

from ilm_jax.cli.infer import main
from ilm_jax.errors import UserError
from tests import gguf_files
from tests.checkpoints.published import LLAMA, weights
from tests.data.test_tokenizers_from_gguf import of_pieces


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    said = {n.removeprefix("tokenizer.ggml."): v for n, v in of_pieces("llama2").items()}
    config = {**LLAMA, "vocab_size": len(said["tokens"])}
    place = tmp_path_factory.mktemp("lm") / "small.gguf"
    return gguf_files.write(place, config, weights(config), vocabulary=said)


def test_every_prompt_of_a_file_is_answered(file, tmp_path):
    asked = [{"prompt": "Describe the sea."}, {"id": "b", "prompt": "Hello {item:1}"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = [f"--lm={file}", f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out.jsonl"]
    words += ["--max_new_tokens=4", "--batch_size=2", "--max_prompt_length=64", "--dtype=float32"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows if "prompt" in row] == [row["prompt"] for row in asked]
    assert all(isinstance(row["text"], str) for row in rows if "prompt" in row)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task=sequential_random"], "and no --task"),
        (["--input=a", "--output=b", "--answer=items"], "and no --answer=items"),
        (["--output=b"], "takes --input=FILE and --output=FILE"),
    ],
)
def test_what_only_a_run_can_answer_is_refused(file, words, message):
    with pytest.raises(UserError, match=message):
        main([f"--lm={file}", *words])
