"""Every setting that a message, a docstring or a page names is there: a field, a flag or a macro.

A message that says `set Run.init` where no such thing is costs whoever reads it an hour. So all
strings of the package are read, with the pages: `Class.name`, `--gin.Class.name`, `--gin.MACRO`
and `--flag`.
"""

import ast
import functools
import importlib
import pathlib
import re

import pytest
from absl import flags

from ilm_jax import user_modules

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("ilm_jax", "tasks", "launch", "studies")
PAGES = (
    *("README.md", "CONTRIBUTING.md", "tasks/README.md", "launch/README.md"),
    "studies/cf_results.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))),
)
TOLD = r"(`|\b(?:set|bind|raise|lower|named in) |(?<![\w.@/-]))"
NAMED = re.compile(TOLD + r"([A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*)\.([a-z_]\w*)(?![\w./])")
BOUND = re.compile(r"--gin\.([\w./]*\w)")
FLAG = re.compile(r"(?<![\w-])--([a-z][\w-]++)(?!␣)")
# Flags of other programs that messages and pages name.
OTHERS = {
    "xla_force_host_platform_device_count",
    "xla_gpu_deterministic_ops",
    "help",
    "upgrade",
    "version",
    "break-system-packages",
    "no-deps",
    "force-reinstall",
    "user",
    "allow-existing",
    "python",
}
# Tensors and functions of others, and what a page shows as a mistake.
NO_SETTINGS = {
    "GenerationMixin._beam_search",
    "LayerNorm.beta",
    "LayerNorm.weight",
    "LayerNorm.gamma",
    "--gin.BATCH_SIZ",
    "--flag",
}
# Options of Apache Beam's runners.
BEAM = set(
    "direct_num_workers direct_running_mode environment_config environment_type flink_master "
    "max_num_workers parallelism project region runner sdk_container_image spark_master_url "
    "temp_location".split()
)
CSS = re.compile(r"var\(--[\w-]+\)|(?<![\w-])--[\w-]+\s*:")  # variables of a style sheet


def sources():
    return [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def strings(module):
    """(line, text) of all strings; what an f-string fills in is ␣."""
    inside = set()
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            parts = [p.value if isinstance(p, ast.Constant) else "␣" for p in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value


@functools.cache
def classes():
    """{class: its names: fields, properties, methods, with those of its bases}."""
    own, bases = {}, {}
    for path in sources():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ClassDef):
                continue
            names = own.setdefault(node.name, set())
            bases.setdefault(node.name, set()).update(
                ast.unparse(b).split(".")[-1] for b in node.bases
            )
            for part in ast.walk(node):
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    names.add(part.target.id)
                elif isinstance(part, ast.FunctionDef):
                    names.add(part.name)
                    names |= {a.arg for a in (*part.args.args, *part.args.kwonlyargs)}
                elif isinstance(part, ast.Assign):
                    names |= {t.id for t in part.targets if isinstance(t, ast.Name)}
                    names |= {t.attr for t in part.targets if isinstance(t, ast.Attribute)}

    def whole(name, seen=()):
        found = set(own.get(name, ()))
        for base in bases.get(name, set()) - {name, *seen}:
            found |= whole(base, (*seen, name))
        return found

    return {name: whole(name) for name in own}


@functools.cache
def functions():
    """{function: its parameters}, which gin may bind too."""
    found = {}
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                arguments = (*node.args.args, *node.args.kwonlyargs)
                found.setdefault(node.name, set()).update(a.arg for a in arguments)
    return found


@functools.cache
def macros():
    files = sorted((ROOT / "gin").rglob("*.gin"))
    text = "\n".join(path.read_text() for path in files)
    return set(re.findall(r"^([A-Z][A-Z0-9_]*)\s*=", text, re.M)) | set(
        re.findall(r"%([A-Z][A-Z0-9_]*)", text)
    )


@functools.cache
def known_flags():
    found = {*OTHERS, user_modules.FLAG}  # every verb takes that one
    for path in sorted((ROOT / "ilm_jax" / "cli").glob("*.py")):
        module = importlib.import_module(f"ilm_jax.cli.{path.stem}")
        if hasattr(module, "_flags"):
            values = module._flags()
            assert isinstance(values, flags.FlagValues)
            found |= set(values)
    text = "\n".join(p.read_text() for f in (*FOLDERS, "tests") for p in (ROOT / f).rglob("*.py"))
    found |= set(re.findall(r'add_argument\(\s*"--([\w-]+)"', text))
    shell = "\n".join(p.read_text() for p in (ROOT / "launch").glob("*.sh"))
    return found | set(re.findall(r"--([a-z][\w-]*)\)", shell))


def wrong(text):
    """What a text names and is not there."""
    if re.match(r"--(?!gin\.)\S*$", text):
        return []  # a word of a command to another program
    found = []
    for told, name, part in NAMED.findall(text):
        if name in classes():
            found += [f"{name}.{part}"] * (part not in classes()[name])
        elif told.strip():
            found.append(f"{name}.{part}")
    for bound in BOUND.findall(text):
        path = bound.split("/")[-1].split(".")
        if len(path) == 1:
            if path[0] not in macros() | {"NAME", "X"} and path[0].isupper():
                found.append(f"--gin.{bound}")
            continue
        holders = {**functions(), **classes()}
        if path[-2] in ("X",):
            continue
        if path[-2] not in holders or path[-1] not in holders[path[-2]]:
            found.append(f"--gin.{bound}")
    for flag in FLAG.findall(CSS.sub("", text)):
        name = flag.removeprefix("no")
        if not {flag, name} & (known_flags() | BEAM) and not flag.startswith("gin"):
            found.append(f"--{flag}")
    return [name for name in found if name not in NO_SETTINGS]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_setting_that_a_string_names_exists(folder):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in strings(tree(path))
        for name in wrong(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_exists(page):
    found = [
        f"{page}:{number}: {name}"
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1)
        for name in wrong(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("set TrainerConfig.batch_size", []),
        ("set TrainerConfig.batchsize = 3", ["TrainerConfig.batchsize"]),
        ("lower `Trainerconfig.batch_size`", ["Trainerconfig.batch_size"]),
        ("add --gin.TRAIN_STEPS=3 or --gin.partitioning.MeshConfig.fsdp=4", []),
        ("add --gin.TRAIN_STEP=3", ["--gin.TRAIN_STEP"]),
        ("--gin.train/DatasetConfig.sead=0", ["--gin.train/DatasetConfig.sead"]),
        ("ilm train --model_dirs=x, or --model_dir=x", ["--model_dirs"]),
    ],
)
def test_a_made_up_name_is_found(text, found):
    assert wrong(text) == found


def test_what_this_reads_is_not_nothing():
    named = [n for p in sources() for _, text in strings(tree(p)) for n in NAMED.findall(text)]
    assert sum(name in classes() for _, name, _ in named) > 40
    assert len(macros()) > 8 and len(known_flags()) > 60
