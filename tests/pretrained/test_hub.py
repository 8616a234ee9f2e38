"""hf://owner/name: from the cache, or from a hub; what a hub refuses is one line."""

import pathlib

import huggingface_hub.constants as constants
import numpy as np
import pytest

from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from ilm_jax.pretrained import hub, resolve
from tests.checkpoints.published import LLAMA, publish
from tests.pretrained.hub_server import COMMIT, serving


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.download.cache_clear()
    yield tmp_path / "hub"
    hub.download.cache_clear()


@pytest.fixture
def online(monkeypatch):
    """Asks the server at an address."""

    def ask(address):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_HOME"):
            monkeypatch.setattr(constants, name, address, raising=False)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return ask


def test_a_model_in_the_cache_needs_no_network(cache):
    root = cache / "models--owner--name"
    tensors = publish(root / "snapshots" / COMMIT, LLAMA)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for name in ("hf://owner/name", f"hf://owner/name@{COMMIT}"):
        assert resolve(name) == str(root / "snapshots" / COMMIT)
    entry = open_source("hf://owner/name").entries["lm/embedding/embedding"]
    np.testing.assert_array_equal(entry.read(), tensors["model.embed_tokens.weight"])
    with pytest.raises(UserError, match="hf://owner/other: tried the cache .*, which lacks it"):
        resolve("hf://owner/other")


def test_weights_and_the_tokenizers_files_are_fetched_and_no_pickles(online):
    files = {"config.json": b"{}", "model.safetensors": b"x", "pytorch_model.bin": b"no"}
    files |= {"tokenizer.model": b"t", "onnx_model.onnx": b"no", "a.gguf": b"G"}
    with serving(files) as (address, asked):
        online(address)
        folder = pathlib.Path(resolve("hf://owner/name"))
        names = {file.name for file in folder.iterdir()}
        assert names == {"config.json", "model.safetensors", "tokenizer.model"}
        before = len(asked)
        assert resolve("hf://owner/name") == str(folder) and len(asked) == before
        assert pathlib.Path(resolve("hf://owner/name/a.gguf@v1")).read_bytes() == b"G"
    assert not any("pytorch_model.bin" in line or ".onnx" in line for line in asked)


def test_a_download_goes_on_where_it_was_cut_off(online, monkeypatch):
    data = bytes(range(256)) * 40
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with serving({"model.safetensors": data, "config.json": b"{}"}, cut=4000) as (address, asked):
        online(address)
        folder = pathlib.Path(resolve("hf://owner/name"))
    assert (folder / "model.safetensors").read_bytes() == data
    assert any("from 4000" in line for line in asked), asked


REFUSED = {
    "hf://owner/other": "no such repository, or a private one without HF_TOKEN: 404",
    "hf://owner/name@other": "no revision 'other' there: 404",
    "hf://owner": "write hf://owner/name",
    "hf://owner/name/b.gguf": "the hub says: 404",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_hub_refuses_is_one_line(online, name):
    with serving({"config.json": b"{}"}) as (address, _):
        online(address)
        with pytest.raises(UserError, match=REFUSED[name]) as told:
            resolve(name)
    assert "\n" not in str(told.value)


def test_a_gated_model_says_where_to_accept_its_terms(online):
    with serving({"config.json": b"{}"}, gated=True) as (address, _):
        online(address)
        with pytest.raises(UserError, match="is gated: accept its terms at https://.*403") as told:
            resolve("hf://owner/name")
    assert "\n" not in str(told.value)
