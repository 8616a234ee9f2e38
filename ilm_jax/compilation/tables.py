"""Reports of compiled programs: lines for a terminal, and the table of docs/pods-compiled.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax.training.chips import GIB

ADVICE = (
    "a larger fsdp axis (partitioning.MeshConfig.fsdp), remat = 'full', a smaller BATCH_SIZE, "
    "trainer.TrainerConfig.microbatches, or models/int8.gin"
)


def lines(record: Mapping[str, Any]) -> list[str]:
    """The report as lines for a terminal."""
    out = [
        f"{record['recipe']} on {record['topology']} ({record['chips']} chips), "
        f"batch {record['batch']}"
    ]
    for p in record["programs"]:
        hbm = p["hbm"]
        if not p["fits"]:
            over = (hbm["peak"] - hbm["room"]) / GIB
            out.append(
                f"  {p['program']}: DOES NOT FIT: {hbm['peak'] / GIB:.2f} GiB per chip, "
                f"{over:.2f} GiB more than its {hbm['room'] / GIB:.2f}: try {ADVICE}"
            )
            continue
        s, f = p["seconds"], p["flops"]
        out += [
            f"  {p['program']}: {hbm['peak'] / GIB:.2f} of {hbm['room'] / GIB:.2f} GiB per chip "
            f"(arguments {hbm['arguments'] / GIB:.2f}, temporaries {hbm['temporaries'] / GIB:.2f}, "
            f"output {hbm['output'] / GIB:.2f}, {hbm['aliased'] / GIB:.2f} of it in arguments' "
            f"place; in use at a time {hbm['live'] / GIB:.2f})",
            f"    FLOPs needed {f['needed']:.3g} (4N of frozen tokens {f['frozen_4n']:.3g}), "
            f"compiled {f['compiled']:.3g}",
            f"    at least {s['step'] * 1e3:.1f} ms per step, limit {p['limit']} (matmul "
            f"{s['matmul'] * 1e3:.1f}, HBM {s['hbm'] * 1e3:.1f}, ICI {s['ici'] * 1e3:.1f}, DCN "
            f"{s['dcn'] * 1e3:.1f}); MFU at most {p['mfu_bound']:.0%}",
            "    "
            + ", ".join(
                f"{c['operation']} {c['runs']} x, {c['bytes'] / GIB:.2f} GiB"
                for c in p["collectives"]
            ),
            f"    kernels: {', '.join(p['kernels']) or 'none'}",
        ]
        if not p["shardings_kept"]:
            out.append("    warning: parameters leave the step with other shardings")
        out += [f"    warning: {text}" for text in p["warnings"]]
    took = record["compiling"]
    out.append(
        f"  compiled in {took['seconds']:.0f} s ({took['cpu_seconds']:.0f} s of CPU), host "
        f"memory {took['host_peak_bytes'] / GIB:.1f} GiB"
    )
    if "hours" in record:
        out.append(
            f"  {record['steps']} steps: at least {record['hours']:.1f} hours, "
            f"{record['chip_hours']:.0f} chip-hours"
        )
    return out


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/pods-compiled.md: one row per compiled program."""
    head = (
        "recipe",
        "topology",
        "program",
        "rows",
        "HBM / chip",
        "PFLOPs",
        "collectives",
        "limit",
        "ms",
        "MFU ≤",
        "compiled in (CPU)",
        "host",
    )
    rows = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for record in records:
        took = record["compiling"]
        whole = [
            f"{took['seconds']:.0f} s ({took['cpu_seconds']:.0f} s)",
            f"{took['host_peak_bytes'] / GIB:.1f} GiB",
        ]
        for p in record["programs"]:
            hbm = p["hbm"]
            first = [
                record["recipe"],
                record["topology"],
                p["program"],
                f"{p['rows']:,}",
                f"{hbm['peak'] / GIB:.1f} / {hbm['room'] / GIB:.2f} GiB",
            ]
            if p["fits"]:
                total = sum(c["bytes"] for c in p["collectives"])
                rest = [
                    f"{p['flops']['needed'] / 1e15:.3g}",
                    f"{total / GIB:.1f} GiB",
                    p["limit"],
                    f"{p['seconds']['step'] * 1e3:.0f}",
                    f"{p['mfu_bound']:.0%}",
                ]
            else:
                rest = ["does not fit"] + [""] * 4
            rows.append("| " + " | ".join(first + rest + whole) + " |")
            whole = ["", ""]  # of the recipe, not of the program
    return "\n".join(rows) + "\n"
