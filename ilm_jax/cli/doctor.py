"""`ilm doctor`: what is installed, what can be used, and what to do about the rest."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from ilm_jax.cli.findings import Finding
from ilm_jax.cli.installed import versions

if TYPE_CHECKING:
    from ilm_jax.runs.run import Run


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "Also check a recipe: whether its mesh and batch fit, and its folders.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "gin_search_paths", [], "Folders in which recipes are looked for.", flag_values=values
    )
    flags.DEFINE_list(
        "folders", [], "Further folders that must be readable and writable.", flag_values=values
    )
    flags.DEFINE_bool(
        "multiprocess", False, "As of `ilm train`: join the processes of a pod.", flag_values=values
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns 0, or 1 if something fails.

    Raises:
      UserError: for wrong flags, or a recipe that cannot be read.
    """
    from ilm_jax.cli import words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "doctor", rest)

    from ilm_jax.sharding.processes import ProcessConfig

    run = None
    if values.gin_file:
        from ilm_jax.runs import gin_config
        from ilm_jax.runs.run import Run

        run = gin_config.build(Run, values.gin_file, bindings, values.gin_search_paths, unnamed="")
    (run.processes if run else ProcessConfig()).start(values.multiprocess)
    found = [*versions(), *devices(), *environment()]
    if run is not None:
        found += [*mesh_fit(run), *run_folders(run)]
    found += [one for folder in values.folders for one in folder_fit(folder)]
    print("\n".join(map(str, found)))
    return int(any(one.state == "fail" for one in found))


def devices() -> Iterator[Finding]:
    """What JAX sees, and whether all processes see each other."""
    import jax

    try:
        seen = jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        yield Finding(
            "fail", f"JAX finds no device ({reason})", "JAX_PLATFORMS=cpu runs on the processor"
        )
        return
    kind = seen[0].device_kind
    yield Finding(
        "ok",
        f"{len(seen)} x {kind} ({len(jax.local_devices())} here), process "
        f"{jax.process_index()} of {jax.process_count()}",
    )
    from ilm_jax.training.chips import GIB, of_kind

    chip = of_kind(kind)
    if chip:
        yield Finding(
            "ok",
            f"per chip {chip.hbm_bytes / GIB:.0f} GiB, {chip.flops / 1e12:.0f} TFLOP/s in bfloat16",
        )


def environment() -> Iterator[Finding]:
    """Variables that are often wrong, and TPUs that JAX does not use."""
    import glob
    import importlib.util
    import os
    import sys

    import jax

    platform = jax.default_backend()
    if platform != "tpu" and (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):
        yield Finding(
            "note",
            f"this machine has accelerators and JAX uses the {platform}",
            "unset JAX_PLATFORMS, pip install 'jax[tpu]', and end who holds them "
            "(sudo lsof /dev/accel* /dev/vfio/*)",
        )
    hosts = [h for h in os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if h]
    if len(hosts) > 1 and jax.process_count() == 1:
        yield Finding(
            "fail",
            f"one process on a pod of {len(hosts)} hosts",
            "start the same command on all of them with --multiprocess (launch/tpu_pod.py does)",
        )
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        yield Finding("note", "XLA_FLAGS asks for virtual CPU devices")
    if sys.dont_write_bytecode and not os.path.exists(
        importlib.util.cache_from_source(jax.__file__)
    ):
        yield Finding(
            "note",
            "no compiled modules: every command compiles the sources of its packages for seconds",
            "unset PYTHONDONTWRITEBYTECODE, or python -m compileall -q "
            + os.path.dirname(os.path.dirname(jax.__file__)),
        )
    if kept := getattr(jax.config, "jax_compilation_cache_dir", None):
        yield Finding("ok", f"compiled programs are kept in {kept}")
    else:
        yield Finding(
            "note",
            "compiled programs are not kept: every start compiles them anew",
            "make ILM_CACHE writable, or set JAX_COMPILATION_CACHE_DIR",
        )
    if os.environ.get("JAX_ENABLE_X64", "").lower() in ("1", "true"):
        yield Finding(
            "fail",
            "JAX_ENABLE_X64 is set: every float literal becomes float64",
            "unset JAX_ENABLE_X64",
        )


def mesh_fit(run: "Run") -> Iterator[Finding]:
    """Whether the recipe's mesh and batch fit the devices."""
    import jax

    from ilm_jax.errors import UserError

    try:
        shape = dict(run.partitioner.mesh.shape)
        run.partitioner.batch_sharding(run.trainer.batch_size)
    except UserError as error:
        text, _, remedy = str(error).rpartition(": ")
        yield Finding("fail", text or str(error), remedy if text else "")
    else:
        yield Finding("ok", f"mesh {shape}, batch {run.trainer.batch_size}")
    if run.topology:
        from ilm_jax.compilation.topology import Topology

        chips = Topology.parse(run.topology).chips
        if chips != jax.device_count():
            yield Finding(
                "note",
                f"the recipe is for {run.topology} ({chips} chips), here are "
                f"{jax.device_count()} devices",
            )


def run_folders(run: "Run") -> Iterator[Finding]:
    """The recipe's folders and files, as far as they are named."""
    import pathlib

    if run.model_dir:
        yield from folder_fit(run.model_dir)
    sources = [source.path for source in run.trainer.init]
    for path in [p for p in (*run.cf_table.split(","), *sources) if p and "://" not in p]:
        if pathlib.Path(path).exists():
            yield Finding("ok", f"{path} is there")
        else:
            yield Finding(
                "fail",
                f"{path} is not there",
                "`ilm fit_cf`, `ilm convert` or an earlier stage makes it",
            )


def folder_fit(folder: str) -> Iterator[Finding]:
    """Whether a folder can be written to and read from, and the room that is left."""
    import os
    import pathlib
    import shutil

    if "://" in folder:
        yield from _bucket_fit(folder)
        return
    path = pathlib.Path(folder)
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.R_OK | os.X_OK):
        yield Finding(
            "fail",
            f"{folder} cannot be written to ({there} forbids it)",
            "name another folder, or change its owner or mode",
        )
        return
    free = shutil.disk_usage(there).free / 2**30
    if free < 1:
        yield Finding(
            "fail",
            f"{folder}: {free:.2f} GiB free",
            "make room, or lower CheckpointConfig.keep_last",
        )
    else:
        yield Finding("ok", f"{folder} can be written to, {free:.0f} GiB free")


def _bucket_fit(folder: str) -> Iterator[Finding]:
    import os

    from etils import epath

    probe = epath.Path(folder) / f".ilm-doctor-{os.getpid()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("here")
        probe.unlink()
    except Exception as error:  # noqa: BLE001 - each kind of storage has errors of its own
        reason = " ".join(str(error).split())[:160]
        yield Finding(
            "fail",
            f"{folder} cannot be written to ({reason})",
            "pip install gcsfs, and log in: gcloud auth application-default login, or "
            "give the TPU's service account storage.objectAdmin",
        )
    else:
        yield Finding("ok", f"{folder} can be written to")
