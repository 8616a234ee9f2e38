"""From raw files to a catalogue: CPU seconds and peak memory beside reading the bytes twice.

    python -m tests.benchmarks.bench_catalogue movielens [--interactions 25000095] [--folder DIR]
    python -m tests.benchmarks.bench_catalogue custom --interactions 100000000 --items 5000000
    python -m tests.benchmarks.bench_catalogue cf [--folder DIR]
    python -m tests.benchmarks.bench_catalogue engines [--interactions 5000000]

Files are generated in the folder, unless they are there. A process of its own then prepares the
dataset and splits it (`prepared`); another one maps the snapshot and splits it (`opened`). Seconds
are those that the process was computing, reading and writing, on however many cores. `cf` reads the
snapshot of MovieLens' files for a fit, of which iALS makes an epoch; mapped files count in peaks.
`engines` measures what cuts text ids into columns and numbers them: Arrow, and Polars and DuckDB
where they are installed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

USERS, ITEMS, PAIRS = 162_541, 59_047, 25_000_095

# In a process of its own: a child's peak is never below what its parent has.
GENERATED = """
import pathlib, sys
from tests.benchmarks import generated_files
form, folder, *sizes = sys.argv[1:]
getattr(generated_files, form)(pathlib.Path(folder), *map(int, sizes))
"""
PREPARED = """
import sys
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.sources.prepare import load_catalogue
name, folder, cache = sys.argv[1:]
print(make_splits(load_catalogue(name, data_dir=folder, cache_dir=cache)).report())
"""
CF = """
import sys, time
from ilm_jax.cf import evaluation, ials
from ilm_jax.cf.interactions import train_interactions
from ilm_jax.data.catalogue.splits import VALID, make_splits
from ilm_jax.data.sources.prepare import load_catalogue
def say(what, work):
    start = time.process_time()
    found = work()
    said = open("/proc/self/status").read()
    peak, now = (int(said.split(name)[1].split()[0]) / 2**20 for name in ("VmHWM:", "RssAnon:"))
    spent = time.process_time() - start
    print(f"{what:22} {spent:6.1f} CPU-s, peak {peak:.2f} GiB, {now:.2f} not mapped", flush=True)
    return found
splits = say("opened", lambda: make_splits(load_catalogue("movielens/25m", cache_dir=sys.argv[1])))
train = say("training interactions", lambda: train_interactions(splits))
say("turned around", train.transposed)
say("held back", lambda: evaluation.held_back(splits, VALID))
config = ials.IALSConfig(dim=16, epochs=1, solver="cg")
say("an epoch of iALS", lambda: ials.fit_interactions(train, config))
"""
ARROW = """
import pathlib, sys
from ilm_jax.data.formats import columnar
path = pathlib.Path(sys.argv[1])
texts = [columnar.Texts() for _ in range(3)]
for batch in columnar.batches(path, ",", 4, range(4), header=True):
    for column, cells in zip(texts, batch.columns):
        column.append(cells)
    columnar.whole_numbers(batch.column(3))
print(*(len(column.coded().values) for column in texts))
"""
POLARS = """
import sys
import polars as pl
whole = pl.scan_csv(sys.argv[1], infer_schema=False, quote_char=None, empty_string_is_null=False)
names = ["user_id", "parent_asin", "rating"]
cells = [pl.col(name).cast(pl.Categorical) for name in names] + [pl.col("timestamp").cast(pl.Int64)]
found = whole.select(cells).collect(engine="streaming")
print(*(found[name].n_unique() for name in names))
"""
DUCKDB = """
import sys, tempfile
import duckdb
with tempfile.TemporaryDirectory() as place:
    base = duckdb.connect(f"{place}/base")
    base.execute("set enable_progress_bar=false")
    names = ("user_id", "parent_asin", "rating", "timestamp")
    kinds = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    base.execute(f"create table r as select * from read_csv('{sys.argv[1]}', header=true, "
                 f"auto_detect=false, delim=',', quote='', escape='', columns={{{kinds}}})")
    for name in names[:3]:
        base.execute(f"create table {name}s as select {name} as raw, row_number() over (order by f)"
                     f" as code from (select {name}, min(rowid) f from r group by {name})")
    joins = " ".join(f"join {name}s on r.{name} = {name}s.raw" for name in names[:3])
    codes = ", ".join(f"{name}s.code" for name in names[:3])
    base.execute(f"create table c as select {codes}, cast(timestamp as bigint) from r {joins}")
    print(base.execute("select count(*) from c").fetchone())
"""


def process(program: str, *words: str) -> tuple[float, float, float]:
    """(CPU seconds, seconds, peak of resident memory in GiB) of a Python program."""
    start = time.monotonic()
    running = subprocess.Popen([sys.executable, "-c", program, *words])
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"a process exited {running.returncode}")
    spent = used.ru_utime + used.ru_stime
    return spent, time.monotonic() - start, used.ru_maxrss / 2**20


def bytes_twice(folder: pathlib.Path) -> float:
    """CPU seconds of reading every raw file twice."""
    start = time.process_time()
    for path in [*folder.iterdir()] * 2:
        with open(path, "rb", buffering=0) as stream:
            while stream.read(1 << 22):
                pass
    return time.process_time() - start


def prepared(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """Raw files to a catalogue, and the catalogue opened again."""
    name = "movielens/25m" if arguments.what == "movielens" else "custom"
    floor = bytes_twice(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        words = name, str(folder), cache
        print(
            f"raw files       {size / 2**30:8.2f} GiB, read twice in {floor:.1f} CPU-s", flush=True
        )
        spent, wall, peak = process(PREPARED, *words)
        print(f"prepared        {spent:8.1f} CPU-s, {wall:.1f} s, peak {peak:.2f} GiB")
        print(f"beyond reading  {spent - floor:8.1f} CPU-s", flush=True)
        again, again_wall, again_peak = process(PREPARED, *words)
    print(f"opened          {again:8.1f} CPU-s, {again_wall:.1f} s, peak {again_peak:.2f} GiB")
    found = {"benchmark": f"catalogue_{arguments.what}", "peer": "reading the bytes twice"}
    figures = {"ours_s": spent, "peer_s": floor, "ratio": floor / spent, "floor_s": floor}
    figures |= {"wall_s": wall, "peak_gib": peak, "opened_s": again}
    print(json.dumps(found | {key: round(value, 4) for key, value in figures.items()}))


def collaborative(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """A fit that reads a snapshot."""
    del arguments
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        process(PREPARED, "movielens/25m", str(folder), cache)
        process(CF, cache)


def engines(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """Text cells to columns of numbers."""
    file = str(folder / "interactions.csv")
    for engine, program in (("pyarrow", ARROW), ("polars", POLARS), ("duckdb", DUCKDB)):
        empty = subprocess.run([sys.executable, "-c", f"import {engine}"], capture_output=True)
        if empty.returncode:
            print(f"{engine:8} is not installed")
            continue
        begun = process(f"import {engine}")[0]
        spent, _, peak = process(program, file)
        each = 1e6 * (spent - begun) / arguments.interactions
        print(f"{engine:8} {spent - begun:6.1f} CPU-s, {each:.2f} µs a row, peak {peak:.2f} GiB")


def main() -> None:
    """Parses the words and measures."""
    parser = argparse.ArgumentParser(
        prog="bench_catalogue", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("movielens", "custom", "cf", "engines"))
    parser.add_argument("--interactions", type=int, default=PAIRS)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--users", type=int, help="default: as many a user as MovieLens 25M has")
    parser.add_argument("--folder", type=pathlib.Path, help="of the raw files; kept")
    arguments = parser.parse_args()
    users = arguments.users or max(1, arguments.interactions * USERS // PAIRS)
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or pathlib.Path(place) / "raw"
        if not folder.is_dir():
            form = "movielens" if arguments.what in ("movielens", "cf") else "custom"
            sizes = users, arguments.items, arguments.interactions
            process(GENERATED, form, str(folder), *map(str, sizes))
        print(
            f"{arguments.what}: {arguments.interactions:,} interactions of {users:,} users and "
            f"{arguments.items:,} items",
            flush=True,
        )
        {"engines": engines, "cf": collaborative}.get(arguments.what, prepared)(arguments, folder)


if __name__ == "__main__":
    main()
