"""A dataset's name leads to its catalogue, made again exactly when its source changed."""

import dataclasses
import functools
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import movielens, prepare, toy
from ilm_jax.data.sources.registry import DATASETS
from ilm_jax.errors import UserError
from ilm_jax.files import default_cache_dir

NO_TENSORFLOW = """
import sys
import ilm_jax.data.sources.prepare
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "jax")]
"""


def refuse(*_, **__):
    raise AssertionError("nothing was to be prepared")


def test_importing_prepare_imports_no_tensorflow():
    subprocess.run([sys.executable, "-c", NO_TENSORFLOW], check=True)


@pytest.mark.parametrize("name", ["toi", "toy/", "toy/world0", "toy/world-1", "movielens", "toy/3"])
def test_an_unknown_dataset_lists_the_known_ones(name, tmp_path):
    with pytest.raises(UserError, match="no dataset .*toy/world1.*movielens/25m"):
        prepare.load_catalogue(name, cache_dir=tmp_path)


def test_cache_folder_defaults_to_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ILM_CACHE", str(tmp_path))
    assert prepare.catalogue_dir("toy/world2") == tmp_path / "catalogues/toy_world2"
    assert prepare.catalogue_dir("toy", "/elsewhere") == pathlib.Path("/elsewhere/catalogues/toy")
    monkeypatch.delenv("ILM_CACHE")
    assert default_cache_dir() == pathlib.Path.home() / ".cache/ilm_jax"


def test_a_generated_dataset_refuses_raw_files(tmp_path):
    with pytest.raises(UserError, match="leave data_dir out"):
        prepare.load_catalogue("toy", data_dir=tmp_path, cache_dir=tmp_path)


def test_a_missing_raw_file_is_found_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_prepare", refuse)
    with pytest.raises(UserError, match="ratings.csv: no such file; --data_dir is the folder"):
        prepare.load_catalogue("movielens/25m", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def snapshot(tmp_path, raw_files):
    raw, cache = tmp_path / "raw", tmp_path / "cache"
    raw.mkdir()
    catalogue = movielens.read("latest_small", raw_files.csv(raw))
    path = prepare.catalogue_dir("movielens/latest_small", cache)
    hashes = movielens.source_hashes("latest_small", raw)
    catalogue.save(path, {"builder": movielens.VERSION} | hashes)
    return raw, cache, catalogue


def test_a_snapshot_of_the_same_files_is_loaded_as_it_is(snapshot, monkeypatch):
    raw, cache, catalogue = snapshot
    monkeypatch.setattr(prepare, "_prepare", refuse)
    for data_dir in (raw, None):
        found = prepare.load_catalogue("movielens/latest_small", data_dir=data_dir, cache_dir=cache)
        assert found.fingerprint == catalogue.fingerprint


@pytest.mark.parametrize("change", ["tags.csv", "version", "header"])
def test_a_changed_source_asks_for_preparation(snapshot, monkeypatch, change):
    raw, cache, _ = snapshot
    path = prepare.catalogue_dir("movielens/latest_small", cache)
    if change == "version":
        newer = dataclasses.replace(DATASETS["movielens"], version="1.0.1")
        monkeypatch.setitem(DATASETS._entries, "movielens", newer)
    elif change == "header":
        header = json.loads((path / "catalogue.json").read_text())
        (path / "catalogue.json").write_text(json.dumps(header | {"format": "older"}))
    else:
        with open(raw / change, "a") as stream:
            stream.write("5,13,odd,9\n")
    assert not prepare.is_fresh("movielens/latest_small", raw, path)


def test_every_dataset_is_kept_as_it_is_read(tmp_path, monkeypatch, raw_files, capsys):
    names = ["toy/world3", *(f"movielens/{release}" for release in movielens.RELEASES)]
    wanted = {"toy/world3": toy.make_world(3).fingerprint}
    for name in names[1:]:
        folder, release = tmp_path / "raw" / name, name.split("/")[1]
        folder.mkdir(parents=True)
        older = release in ("1m", "100k")
        raw_files.older(folder, release) if older else raw_files.csv(folder)
        wanted[name] = movielens.read(release, folder).fingerprint
    for name in ("custom", "custom/mine", "openp5/beauty"):
        folder = tmp_path / "raw" / name
        folder.mkdir(parents=True, exist_ok=True)
        # Nine users of seven items each, every item seven times: a 5-core.
        lines = [
            " ".join(map(str, [user, *((user + k) % 9 for k in range(7))])) for user in range(9)
        ]
        (folder / "user_sequence.txt").write_text("".join(line + "\n" for line in lines))
        wanted[name] = DATASETS[name.split("/")[0]].read(folder, name).fingerprint
        names.append(name)
    folders = {name: None if "toy" in name else tmp_path / "raw" / name for name in names}
    for name, folder in folders.items():
        prepare.load_catalogue(name, data_dir=folder, cache_dir=tmp_path)
    assert "published with" in capsys.readouterr().err  # notes are said once
    monkeypatch.setattr(prepare, "_prepare", refuse)
    for name, folder in folders.items():
        found = prepare.load_catalogue(name, data_dir=folder, cache_dir=tmp_path)
        assert found.fingerprint == wanted[name]
    assert not capsys.readouterr().err


def small_folder(path, shift):
    path.mkdir()
    rows = [f"u{u} i{shift} i{shift + 1} i{shift + 2}\n" for u in range(4)]
    (path / "user_sequence.txt").write_text("".join(rows))
    return path


@pytest.mark.parametrize("moment", ["after preparing", "before mapping", "while mapping"])
def test_of_two_folders_in_one_cache_each_process_has_its_own(tmp_path, monkeypatch, moment):
    """Another process puts its snapshot in the place of the first one's at the worst moment."""
    mine, other = small_folder(tmp_path / "mine", 0), small_folder(tmp_path / "other", 100)
    where = {"cache_dir": tmp_path / "cache"}
    map_snapshot = Catalogue.load
    turns = []

    def replace():
        if not turns:
            turns.append(
                threading.Thread(target=prepare.prepare, args=("custom", other, where["cache_dir"]))
            )
            turns[0].start()
            turns[0].join(0.5)  # who waits for the lock is left waiting

    def load(path, **options):
        if moment != "while mapping":
            replace()
            return map_snapshot(path, **options)
        if not turns:
            replace()
            raise UserError("a file that is no longer there")
        return map_snapshot(path, **options)

    if moment != "after preparing":
        prepare.prepare("custom", mine, **where)
    monkeypatch.setattr(Catalogue, "load", load)
    found = prepare.load_catalogue("custom", data_dir=mine, **where)
    turns[0].join()
    assert list(found.item_ids) == ["i0", "i1", "i2"]
    ended = prepare.load_catalogue("custom", data_dir=other, **where)
    assert list(ended.item_ids) == ["i100", "i101", "i102"]


def test_a_malformed_row_is_reported_and_leaves_nothing_then_mends(tmp_path, raw_files):
    raw, cache = tmp_path / "raw", tmp_path / "cache"
    raw.mkdir()
    name = "movielens/latest_small"
    raw_files.csv(raw, ratings=["7,10,four,90"])
    with pytest.raises(UserError) as caught:
        prepare.load_catalogue(name, data_dir=raw, cache_dir=cache)
    assert str(caught.value).startswith(f"{raw}/ratings.csv:2: rating 'four'")
    assert "\n" not in str(caught.value)
    assert not prepare.catalogue_dir(name, cache).exists()
    found = prepare.load_catalogue(name, data_dir=raw_files.csv(raw), cache_dir=cache)
    assert isinstance(found, Catalogue)
    assert found.num_items == 3


def test_without_a_folder_a_dataset_that_is_not_published_asks_for_one(tmp_path):
    with pytest.raises(UserError, match="custom is read from a folder .*give it as --data_dir"):
        prepare.load_catalogue("custom", cache_dir=tmp_path)


@pytest.fixture
def from_site(monkeypatch):
    """Has MovieLens 100K fetched from a site of the test's."""

    def point(site):
        release = dataclasses.replace(movielens.RELEASES["100k"], url=f"{site}/ml-100k.zip")
        monkeypatch.setitem(movielens.RELEASES, "100k", release)

    return point


def test_without_a_network_the_remedy_is_a_folder(tmp_path, from_site):
    from_site("http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        prepare.load_catalogue("movielens/100k", cache_dir=tmp_path)
    assert str(caught.value).startswith("http://127.0.0.1:9/ml-100k.zip: download failed")
    assert str(caught.value).endswith("give its folder as --data_dir")


def test_with_a_network_the_published_archive_is_fetched_once(tmp_path, raw_files, from_site):
    (tmp_path / "site/ml-100k").mkdir(parents=True)
    raw, cache = raw_files.older(tmp_path / "site/ml-100k", "100k"), tmp_path / "cache"
    shutil.make_archive(str(tmp_path / "site/ml-100k"), "zip", tmp_path / "site", "ml-100k")
    archive = tmp_path / "site/ml-100k.zip"
    handler = functools.partial(SilentHandler, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        from_site(f"http://127.0.0.1:{server.server_port}")
        whole = archive.read_bytes()
        archive.write_bytes(whole[:-40])
        with pytest.raises(UserError, match="download failed"):
            prepare.load_catalogue("movielens/100k", cache_dir=cache)
        archive.write_bytes(whole)
        found = prepare.load_catalogue("movielens/100k", cache_dir=cache)
        server.shutdown()
    assert found.fingerprint == movielens.read("100k", raw).fingerprint
    path = prepare.catalogue_dir("movielens/100k", cache)
    assert prepare.is_fresh("movielens/100k", raw, path)  # the same files by hand are the same
    (path / "catalogue.json").unlink()
    prepare.load_catalogue("movielens/100k", cache_dir=cache)  # from what was fetched


AS_TFDS = """
import dataclasses, json, sys
import numpy as np
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import prepare
from ilm_jax.data.sources.tfds_builder import tfds_builder
from tests.data.small_catalogue import small_catalogue
cache = sys.argv[1]
sources = {"builder": prepare.source_of("toy").version}
catalogue = dataclasses.replace(small_catalogue(), version="1.0.0")
catalogue.save(prepare.catalogue_dir("toy", cache), sources)
builder = tfds_builder("toy", cache_dir=cache)
builder.download_and_prepare()
wanted = prepare.load_catalogue("toy", cache_dir=cache)
items, users = (list(builder.as_data_source(split)) for split in ("items", "users"))
assert [item["row"] for item in items] == list(range(wanted.num_items))
for name, theirs in (("item_ids", "id"), ("titles", "title"), ("texts", "text")):
    assert getattr(wanted, name) == [item[theirs].decode() for item in items]
assert wanted.content == [
    list(map(tuple, np.asarray(item["content"]).tolist())) for item in items
]
assert wanted.user_ids == [user["id"].decode() for user in users]
for row, user in enumerate(users):
    part = slice(*wanted.offsets[row : row + 2])
    for name in ("items", "ratings", "timestamps"):
        ours = getattr(wanted, name)[part]
        assert np.asarray(user[name], ours.dtype).tobytes() == ours.tobytes()
(whole,) = builder.as_data_source("catalogue")
assert json.loads(whole["text"]) == {"extras": wanted.extras, "ties": wanted.ties}
"""


@pytest.mark.slow
def test_the_tfds_builder_writes_the_snapshot(tmp_path):
    subprocess.run([sys.executable, "-c", AS_TFDS, tmp_path], check=True)


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
