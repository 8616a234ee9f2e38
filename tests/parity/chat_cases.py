"""Conversations, and small tokenizers with templates in the shape of five published families.

The templates are written for these tests. Without the library: make_chat.py, which needs
transformers alone, reads this file too.
"""

import json
import pathlib
import random
import shutil
import tarfile
import tempfile

GOLDENS = pathlib.Path(__file__).parent / "goldens"
ARCHIVE = GOLDENS / "tokenizers.tar.xz"
CHATML = """\
{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou are a helper of this test.<|im_end|>\\n' -}}
    {% endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' -}}
{% endif %}
"""
HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
    {{- message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
TURNS = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{ raise_exception('out of turn') }}
{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
INST = """\
{%- set ns = namespace(system='') %}
{%- if messages[0].role == 'system' %}
    {%- set ns.system = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- bos_token ~ '[INST] ' ~ (ns.system if loop.first else '') ~ message.content.strip() }}
        {{- ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ message.content | trim ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}"""
BARS = """\
{% for message in messages %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
# name: (kind of tokenizer, template, special tokens that it lacks, whether they take the white
# space behind them along)
CASES = {
    "chatml": ("qwen2", CHATML, (), False),
    "headers": ("llama3", HEADERS, ("<|start_header_id|>", "<|end_header_id|>"), False),
    "turns": ("gemma_fast", TURNS, (), False),
    "inst": ("llama2_fast", INST, (), False),
    "bars": ("qwen2", BARS, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), True),
}
SYSTEMLESS = ("turns",)
SAID = (
    "Hello",
    "What is the capital of France?",
    "  a space before and one behind ",
    "Describe this item: item_1042.",
    "line one\nline two\n\nline four",
    "naïve café, 日本語 and русский; 12345.678",
    "a title: 'Blue Hill (1999)', $5 {braces} <tags> [INST",
    "\n\tindented",
    "ok.",
    "1, 2, 3",
    'quotes "double" and `ticks` | pipes < > &amp;',
    "🙂 emoji 👩‍👩‍👧 joined",
    "x" * 70,
    "trailing newline\n",
)


def conversations(system: bool) -> list[list[dict[str, str]]]:
    """50 conversations, each with an answer that follows it; some with words of the system."""
    draw = random.Random(7)
    found = []
    for number in range(50):
        turns = 2 * draw.randrange(4) + 2
        opening = [("system", draw.choice(SAID[:6]))] if system and number % 3 == 0 else []
        spoken = [(("user", "assistant")[k % 2], draw.choice(SAID)) for k in range(turns)]
        found.append([{"role": r, "content": c} for r, c in [*opening, *spoken]])
    return found


def write_folder(name: str, root: pathlib.Path) -> pathlib.Path:
    """The folder of a case: a small tokenizer with the case's template."""
    kind, template, missing, strips = CASES[name]
    with tempfile.TemporaryDirectory() as unpacked, tarfile.open(ARCHIVE) as archive:
        # Pythons before 3.11.4 have no filters.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(unpacked, **safely)
        shutil.copytree(pathlib.Path(unpacked) / kind, root / name)
    folder = root / name
    (folder / "ids.npz").unlink()
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text())
    added = spec["added_tokens"]
    size = max([token["id"] for token in added] + list(spec["model"]["vocab"].values())) + 1
    for number, token in enumerate(missing, size):
        plain = dict.fromkeys(("single_word", "lstrip", "normalized"), False)
        added.append({"id": number, "content": token, **plain, "rstrip": strips, "special": True})
    for token in added:  # as published: marks of turns are special
        token["special"] |= token["content"] in ("<start_of_turn>", "<end_of_turn>")
    file.write_text(json.dumps(spec, ensure_ascii=False))
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps({**config, "chat_template": template}))
    return folder
