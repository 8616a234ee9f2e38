"""The doctor finds what is wrong and says what to do; it says nothing is wrong where nothing is."""

import importlib.metadata
import os
import re
import stat

import pytest

from ilm_jax.cli import doctor, installed
from ilm_jax.cli.main import main
from ilm_jax.errors import UserError
from ilm_jax.sharding.processes import ProcessConfig


def run(capsys, *words):
    code = main(["doctor", *words])
    return code, capsys.readouterr().out.splitlines()


def test_versions_and_devices_are_listed(capsys, tmp_path):
    code, lines = run(capsys, f"--folders={tmp_path}/new")
    assert code == 0 and not (tmp_path / "new").exists()
    assert any(line.startswith("ok    jax ") for line in lines)
    assert any("8 x cpu (8 here), process 0 of 1" in line for line in lines)
    assert any(f"{tmp_path}/new can be written to" in line for line in lines)


def test_every_package_of_the_extras_is_listed_with_what_it_is_for():
    found = [str(line) for line in installed.versions()]
    asked = importlib.metadata.requires("ilm_jax")
    extras = [line for line in asked if re.search(r"extra == .(gguf|wandb|mlflow|eval)", line)]
    for name in ["gguf", "wandb", "mlflow", *(re.match(r"[\w-]+", line)[0] for line in extras)]:
        (line,) = [line for line in found if re.match(rf"(ok  |note)  {name} ", line)]
        assert "(for " in line and ("is not installed" not in line or ": pip install " in line)


def test_a_package_that_is_not_there_is_told_with_its_remedy(monkeypatch):
    there = {"tensorflow-cpu": "2.0", "jax": "0.11.1", "jaxlib": "0.10.2", "numpy": "2.1"}
    monkeypatch.setattr(installed, "version_of", there.get)
    found = [str(line) for line in installed.versions()]
    assert "ok    tensorflow-cpu 2.0 (for preparing data)" in found
    assert "fail  flax is not installed: pip install flax" in found
    assert "fail  sentencepiece is not installed: pip install 'sentencepiece'" in found
    assert not any(" numpy " in line for line in found)
    remedy = "pip install 'ilm_jax[gguf]'"
    (line,) = [line for line in found if line.startswith("note  gguf is not installed (for ")]
    assert line.endswith(remedy)
    assert "fail  jax 0.11.1 with jaxlib 0.10.2: pip install jaxlib==0.11.1" in found


@pytest.mark.parametrize(("kept", "there"), [(True, False), (False, False), (False, True)])
def test_sources_that_are_compiled_at_every_start_are_told(monkeypatch, tmp_path, kept, there):
    compiled = tmp_path / "jax.pyc"
    if there:
        compiled.touch()
    monkeypatch.setattr("importlib.util.cache_from_source", lambda path: str(compiled))
    monkeypatch.setattr("sys.dont_write_bytecode", not kept)
    told = [str(one) for one in doctor.environment() if "no compiled modules" in str(one)]
    assert bool(told) == (not kept and not there)
    assert all("unset PYTHONDONTWRITEBYTECODE" in line for line in told)


def test_a_mesh_that_does_not_fit_is_told_with_a_remedy(capsys, tmp_path):
    recipe = ["--gin_file=tiny/stage0.gin", f"--gin.MODEL_DIR={tmp_path}"]
    assert run(capsys, *recipe)[0] == 0
    code, lines = run(capsys, *recipe, "--gin.partitioning.MeshConfig.fsdp=3")
    (line,) = [line for line in lines if line.startswith("fail")]
    assert code == 1 and "fsdp=3" in line and "set partitioning.MeshConfig.data = -1" in line
    code, lines = run(capsys, *recipe, "--gin.BATCH_SIZE=12")
    assert code == 1 and any("set BATCH_SIZE to a multiple of 8" in line for line in lines)


def test_the_recipes_pod_is_compared_with_what_is_here(capsys, tmp_path):
    words = ["--gin_file=pods/gemma2_2b_v5e_16.gin", f"--gin.MODEL_DIR={tmp_path}"]
    code, lines = run(capsys, *words, "--gin.CF_TABLE=/no/table")
    assert code == 1
    assert any("for v5e:4x4 (16 chips), here are 8 devices" in line for line in lines)
    assert any(line.startswith("fail  /no/table is not there: `ilm fit_cf`") for line in lines)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_leave_is_told(tmp_path):
    tmp_path.chmod(stat.S_IRUSR)
    (finding,) = doctor.folder_fit(str(tmp_path / "inside"))
    assert finding.state == "fail" and finding.remedy


def test_a_file_in_a_folders_place_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = doctor.folder_fit(str(tmp_path / "file" / "inside"))
    assert finding.state == "fail" and "cannot be written to" in finding.text


def test_one_process_on_a_pod_of_several_hosts_is_told(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "one,two")
    (finding,) = [f for f in doctor.environment() if f.state == "fail"]
    assert "--multiprocess" in finding.remedy


def test_half_an_address_is_an_error():
    with pytest.raises(UserError, match="JAX_PROCESS_ID must all be"):
        ProcessConfig().start(False, {"JAX_COORDINATOR_ADDRESS": "localhost:1"})
    ProcessConfig().start(False, {})
