"""The real TPU compiler on small recipes: figures, shardings, and words where nothing fits."""

import json
import re

import pytest

from ilm_jax.cli.main import main

pytest.importorskip("libtpu")

SMALL = [
    "--gin_file=tiny/stage2_ilm_rand.gin",
    "--topology=v5e:2x2",
    "--table_rows=1000",
    "--gin.decoder.DecoderConfig.vocab_size=512",
    "--gin.qformer.QFormerConfig.vocab_size=64",
    "--gin.qformer.QFormerConfig.cf_dim=16",
    "--gin.decoder.DecoderConfig.num_layers=4",
    "--gin.decoder.DecoderConfig.embed_dim=128",
    "--gin.decoder.DecoderConfig.mlp_dim=256",
    "--gin.partitioning.MeshConfig.fsdp=4",
    "--gin.partitioning.MeshConfig.data=1",
]


@pytest.mark.slow
def test_a_steps_figures(tmp_path, capfd):
    file = tmp_path / "small.json"
    assert main(["precompile", *SMALL, "--only=train", f"--output={file}"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"train prompt: [\d.]+ of 15\.75 GiB per chip", out)
    (program,) = json.loads(file.read_text())["programs"]
    # Loops multiplied out, the compiled products are close to those that are needed.
    needed, compiled = program["flops"]["needed"], program["flops"]["compiled"]
    assert 0.9 * needed < compiled < 1.3 * needed
    assert program["shardings_kept"]
    assert not any("whole stack" in warning for warning in program["warnings"])
    gathers = {c["operation"]: c["runs"] for c in program["collectives"]}
    assert gathers["all-gather"] >= 4  # of every layer's weights, one layer at a time
    assert (
        program["hbm"]["allocated"] <= program["hbm"]["peak"] < 15.75 * 2**30
        and 0 < program["mfu_bound"] <= 1
    )
    assert main(["precompile", f"--table={tmp_path}"]) == 0
    assert "| tiny/stage2_ilm_rand | v5e:2x2 | train prompt | 64 |" in capfd.readouterr().out


def test_a_model_that_cannot_fit_is_told_by_how_much(capfd):
    words = [
        "--gin_file=pods/gemma2_27b_v5p_128.gin",
        "--topology=v5e:4x4",
        "--only=train",
        "--gin.partitioning.MeshConfig.fsdp=1",
    ]
    assert main(["precompile", *words]) == 1
    out = capfd.readouterr().out
    assert "DOES NOT FIT: 51.49 GiB per chip, 35.74 GiB more than its 15.75" in out
    assert "partitioning.MeshConfig.fsdp" in out and "int8" in out


def test_a_mesh_that_is_not_the_pods_is_told(capsys):
    assert main(["precompile", *SMALL[:-2], "--gin.partitioning.MeshConfig.fsdp=8"]) == 2
    assert "devices and there are 4" in capsys.readouterr().err
