"""Installing: uv is told what pip is set to, and pip stays where uv cannot do it."""

import subprocess
import sys

import pytest

from launch import install

LISTED = """\
:env:.find-links='/wheels/a /wheels/b'
:env:.timeout='9'
global.cert='/etc/ca.crt'
global.constraint='/etc/constraints.txt'
global.extra-index-url='https://one/simple\\nhttps://two/simple'
global.find-links='/elsewhere'
global.index-url='https://global/simple'
install.index-url='https://mirror/simple'
freeze.timeout='10'
"""


def test_uv_hears_where_packages_come_from_and_what_bounds_them():
    words, variables = install.for_uv(install.settings(LISTED.splitlines()))
    said = list(zip(words[::2], words[1::2], strict=True))
    assert sorted(said) == [
        ("--constraint", "/etc/constraints.txt"),
        ("--default-index", "https://mirror/simple"),
        ("--find-links", "/wheels/a"),
        ("--find-links", "/wheels/b"),
        ("--index", "https://one/simple"),
        ("--index", "https://two/simple"),
        ("--index-strategy", "unsafe-best-match"),
    ]
    assert variables == {"SSL_CERT_FILE": "/etc/ca.crt"}


@pytest.mark.parametrize("setting", ["proxy", "no-index", "client-cert", "no-binary", "target"])
def test_a_setting_that_uv_is_not_told_leaves_it_to_pip(setting):
    assert install.for_uv({setting: "x"}) is None


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A uv and a pip that write down what they are asked; the exit codes are files beside."""
    for name in ("uv", "pip"):
        file = tmp_path / name
        file.write_text(
            f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/calls\nexit $(cat {file}.code)\n'
        )
        file.chmod(0o755)
        (tmp_path / f"{name}.code").write_text("0")
    monkeypatch.setattr(install, "PIP", [str(tmp_path / "pip")])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


@pytest.mark.parametrize(
    ("uv", "pip", "asked", "code"),
    [
        pytest.param("0", "0", ["pip config", "uv pip"], 0, id="uv does it"),
        pytest.param("2", "0", ["pip config", "uv pip", "pip install"], 0, id="uv cannot"),
        pytest.param(None, "0", ["pip install"], 0, id="no uv"),
        pytest.param("2", "3", ["pip config", "pip install"], 3, id="neither can"),
    ],
)
def test_pip_is_asked_for_what_uv_did_not_do(recorded, monkeypatch, uv, pip, asked, code):
    (recorded / "pip.code").write_text(pip)
    if uv is None:
        (recorded / "uv").unlink()
        monkeypatch.setattr(install.shutil, "which", lambda name: None)
    else:
        (recorded / "uv.code").write_text(uv)
    assert install.main(["--no-deps", "one==1"]) == code
    calls = (recorded / "calls").read_text().splitlines()
    assert [" ".join(call.split()[:2]) for call in calls] == asked
    assert all(call.endswith("--no-deps one==1") for call in calls if "install" in call)


def test_the_settings_of_this_pip_are_read():
    listed = subprocess.run(
        [*install.PIP, "config", "list"], capture_output=True, text=True, check=True
    )
    lines = listed.stdout.splitlines()
    named = {line.partition("=")[0].rpartition(".")[::2] for line in lines}
    wanted = {name for section, name in named if section in ("global", "install", ":env:")}
    assert install.settings(lines).keys() == wanted
