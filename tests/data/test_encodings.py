"""Raw files are read in the encoding that their bytes show, and none is taken for another."""

import pytest

from ilm_jax.data.formats import encodings, notes, raw_lines
from ilm_jax.data.sources import custom, movielens
from ilm_jax.errors import UserError

TITLES = ["Cité Perdue", "Señor Ñandú", "Plain", "Über Nö"]
INTER = "user,item,timestamp\n" + "".join(f"u,i{k},{k}\n" for k in range(4))
ITEMS = "id,title\n" + "".join(f"i{k},{title}\n" for k, title in enumerate(TITLES))


def folder(path, items=ITEMS, codec="utf-8", name="items.csv", gin=""):
    (path / "interactions.csv").write_text(INTER)
    (path / name).write_bytes(items if isinstance(items, bytes) else items.encode(codec))
    if gin:
        (path / "columns.gin").write_text(gin)
    return path


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("utf-8", []),
        ("utf-8-sig", []),
        ("utf-16", ["items.csv: read as UTF-16, by its byte order mark"]),
        ("utf-32", ["items.csv: read as UTF-32, by its byte order mark"]),
        ("cp1252", ["items.csv: not UTF-8, so read as Windows-1252 (line 2: 'i0,Cité Perdue')"]),
    ],
)
def test_titles_are_right_in_every_encoding_and_an_unusual_one_is_said(tmp_path, codec, said):
    found = custom.read(folder(tmp_path, codec=codec))
    assert found.titles == TITLES
    assert found.extras.get("notes", []) == said


@pytest.mark.parametrize("codec", ["latin-1", "utf-8", "utf-16"])
@pytest.mark.parametrize("release", ["1m", "100k"])
def test_older_movielens_is_read_in_the_encoding_that_it_is_in(tmp_path, release, codec, raw_files):
    path = raw_files.older(tmp_path, release) / movielens.RELEASES[release].movies
    published = movielens.source_hashes(release, tmp_path)
    path.write_bytes(path.read_bytes().decode("latin-1").encode(codec))
    found = movielens.read(release, tmp_path)
    assert found.titles[2] == "Café"
    named = [note for note in found.extras["notes"] if path.name in note]
    assert len(named) == (codec != "latin-1")
    # A catalogue that was made when the encoding was assumed is not taken for this one.
    sources = movielens.source_hashes(release, tmp_path)
    assert set(sources) - set(published) == (
        set() if codec == "latin-1" else {f"encoding of {path.name}"}
    )


WRONG = [
    # Half of the file in another encoding than the rest.
    (ITEMS.encode() + "i9,Façade\n".encode("cp1252"), "csv:6: not UTF-8 at byte 6 .* line 2 is"),
    ("id,title\ni0,Привет, мир\n".replace(",", ";").encode("cp1251"), "csv:2: .*not Western"),
    ("id,title\ni0,電影世界\n".encode("gbk"), "csv:2: "),
    ("id,title\ni0,こんにちは\n".encode("shift_jis"), "csv:2: "),
    (b"id,title\ni0,A\x81B\n", "csv:2: bytes that are neither UTF-8 nor Windows-1252"),
    (b"id,title\ni0,A\ni1,\0B\n", "csv:3: a NUL character"),
    (ITEMS.encode("utf-16-le"), "csv:1: a NUL character"),
    (ITEMS.encode("utf-16")[:-3], "csv:"),
    (ITEMS.encode() + b"\xef\xbb\xbfi9,B\n", "csv:6: a byte order mark within the file"),
    (b"\x1f\x8b\x08\x00rest", "csv:1: a gzip file, not text; unpack"),
    (b"PK\x03\x04rest", "csv:1: a zip archive"),
    (b"PAR1rest", "csv:1: a parquet file"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=range(len(WRONG)))
def test_what_fits_no_encoding_or_two_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        custom.read(folder(tmp_path, content))


@pytest.mark.parametrize(("codec", "title"), [("cp1251", "Привет"), ("cp1250", "Řeka")])
def test_an_encoding_that_is_named_is_obeyed(tmp_path, codec, title):
    gin = f'Columns.encoding = "{codec}"\n'
    found = custom.read(
        folder(
            tmp_path,
            ITEMS.replace(TITLES[0], title).replace(TITLES[1], "A").replace(TITLES[3], "B"),
            codec,
            gin=gin,
        )
    )
    assert found.titles[0] == title
    (tmp_path / "columns.gin").write_text('Columns.encoding = "cp99999"\n')
    with pytest.raises(UserError, match="columns.gin: no encoding 'cp99999'"):
        custom.read(tmp_path)


@pytest.mark.parametrize("name", ["items.jsonl", "user_sequence.txt", "columns.gin"])
def test_forms_that_are_utf_8_by_definition_take_nothing_else(tmp_path, name):
    line = {"items.jsonl": '{"id": "é"}', "user_sequence.txt": "u é"}.get(name, 'user = "é"')
    (tmp_path / name).write_bytes(f"{line}\n".encode("latin-1"))
    with pytest.raises(UserError, match=f"{name}:1: not utf-8 at byte"):
        list(raw_lines.lines(tmp_path / name))
    (tmp_path / name).write_bytes(f"{line}\n".encode("utf-16"))
    with notes.collected() as said:
        assert list(raw_lines.lines(tmp_path / name)) == [(1, line)]
    assert len(said) == 1


def test_an_escape_that_is_no_character_is_refused(tmp_path):
    for escape, message in ((r"\ud83d", "half a character"), (r"\u0000", "a NUL character")):
        content = f'{{"id": "i0", "title": "a{escape}"}}\n'
        with pytest.raises(UserError, match=f"jsonl:1: .*{message}"):
            custom.read(folder(tmp_path, content, name="items.jsonl"))


def test_text_that_was_spoilt_before_is_counted(tmp_path):
    spoilt = ITEMS.replace("Plain", "CitÃ©").replace("Über", "\ufffdber")
    said = custom.read(folder(tmp_path, spoilt)).extras["notes"]
    assert [note.split(" hold")[0] for note in said] == ["1 of 4 titles"] * 2 + ["1 of 4 texts"] * 2


def test_ascii_alone_needs_no_second_look(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n" * 10)
    assert encodings.decide(tmp_path / "a.csv", encodings.WESTERN) == "utf-8"
