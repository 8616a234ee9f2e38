"""Why something is made again although the like of it is there: what differs, in words.

What was prepared with other settings, from other files or by another version is never read in the
place of what is asked for; whoever waits for it a second time wants to know the reason.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any


def changed_sources(found: Mapping[str, str], wanted: Mapping[str, str], *, whole: bool) -> str:
    """Differences between the sources of a stored catalogue and those of now.

    Args:
      found: of the stored one.
      wanted: of now.
      whole: whether `wanted` names all files, so that any other that was read is gone.
    """
    words = []
    for name, value in wanted.items():
        if name == "builder" and found.get(name) != value:
            words.append(f"its builder was {found.get(name, 'another')}, now {value}")
        elif name not in found:
            words.append(f"{name} is new")
        elif found[name] != value:
            words.append(f"{name} has changed")
    if whole:
        words += [f"{name} is gone" for name in found if name not in wanted]
    return ", ".join(words)


def nearest_cache(folder: pathlib.Path, info: Mapping[str, Any]) -> str:
    """How the most similar cache of a task differs from the one that is asked for.

    Args:
      folder: <cache_dir>/tasks/<task>-<key>, where the cache would lie.
      info: what info.json of its split "train" will hold.

    Returns:
      "" if no other cache of the task is there.
    """
    best: list[str] | None = None
    prefix = folder.name.rpartition("-")[0]
    for file in sorted(folder.parent.glob(f"{prefix}-*/train/info.json")):
        if file.parent.parent == folder or file.parent.parent.name.rpartition("-")[0] != prefix:
            continue
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            # Runs want a task both with its slots and in words alone: neither stands for the other.
            if found["settings"].get("text_only") != info["settings"].get("text_only"):
                continue
            words = _differences(found, info)
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue  # of another format; no help in saying so
        if best is None or len(words) < len(best):
            best = words
    return ", ".join(best or [])


def _differences(found: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    words = []
    if found["version"] != info["version"]:
        words.append(f"version {found['version']}, now {info['version']}")
    if found["sources"]["catalogue"] != info["sources"]["catalogue"]:
        words.append("other interactions or items")
    for name, value in info["settings"].items():
        if found["settings"].get(name) != value:
            words.append(f"{name} {_short(found['settings'].get(name))}, now {_short(value)}")
    if found["tokenizer"]["fingerprint"] != info["tokenizer"]["fingerprint"]:
        words.append("another tokenizer")
    plain = {"format": "plain"}  # what caches without a word on it hold
    for name, value in info.get("prompts", plain).items():
        before = found.get("prompts", plain).get(name, "none")
        if before != value:
            words.append(f"prompts' {name} {_short(before)}, now {_short(value)}")
    return words or ["another format"]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
