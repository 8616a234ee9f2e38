"""A built wheel holds recipes and tasks, runs anywhere, and says so where a checkout shadows it."""

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = ("ilm_jax", "gin", "tasks", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy, since building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel") / "checkout"
    folder.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout):
    """The wheel that pip builds from it."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            checkout.parent,
            checkout,
        ],
        check=True,
    )
    (path,) = checkout.parent.glob("ilm_jax-*.whl")
    return path


@pytest.fixture(scope="module")
def ilm(checkout, wheel):
    """Runs `python -m ilm_jax …` in a folder, in an environment that has the wheel installed."""
    environment = checkout.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # What it depends on, without the editable install of this checkout: a path that stands in a
    # .pth file has its own .pth files ignored.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*words, cwd):
        command = [environment / "bin/python", "-m", "ilm_jax", *words]
        return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)

    return run


def test_a_wheel_holds_every_recipe_and_task_under_the_packages_name(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"ilm_jax/gin/{p.relative_to(ROOT / 'gin')}" for p in ROOT.glob("gin/**/*.gin")}
    tasks = {f"ilm_jax/tasks/{p.name}" for p in ROOT.glob("tasks/*.py")}
    assert recipes and tasks and recipes | tasks <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ilm_jax"}


def test_a_wheel_is_typed_and_a_package_index_takes_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert "ilm_jax/py.typed" in archive.namelist()
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist: ")]
    assert len(required) > 20
    assert not [line for line in required if "@" in line or "://" in line], "no direct URL"


def test_a_wheel_finds_its_recipes_from_any_folder(ilm, tmp_path):
    result = ilm("train", "--gin_file=tiny/stage0.gin", cwd=tmp_path)
    assert result.returncode == 2
    assert "MODEL_DIR" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_wheel_run_from_inside_a_checkout_says_what_shadows_it(ilm, checkout):
    result = ilm("train", "--help", cwd=checkout)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "shadowed by the checkout" in line and "pip install -e ." in line
