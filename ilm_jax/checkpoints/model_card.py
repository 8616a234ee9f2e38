"""The README.md of an exported folder: Hugging Face's model card, a YAML header before the text."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ilm_jax import __version__


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """The contents of a model card.

    Attributes:
      name: of the model.
      base: the frozen language model. fingerprint: of its weights.
      origin: of the base: "source", "licence", "sha256" {file: digest}, see `provenance`.
      run: folder and step that were exported. parameters: how many.
      dataset: that it was trained on. tasks: the mixture, {task: rate}.
      evaluation: the record of evaluation.json, or {}.
      recipe: text of config.gin.
    """

    name: str = ""
    base: str | None = None
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: str | None = None
    run: str = ""
    parameters: int = 0
    dataset: str = ""
    tasks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe: str = ""


def write_card(facts: CardFacts) -> str:
    """The card's text."""
    return "\n".join(["---", *_header(facts), "---", "", *_body(facts), ""])


def _header(facts: CardFacts) -> list[str]:
    """YAML, whose strings are JSON's."""
    lines = ["library_name: ilm_jax", "tags:", "- recommendation", "- item-language-model"]
    if facts.base:
        lines += [f"base_model: {json.dumps(facts.base)}", "base_model_relation: adapter"]
    if licence := facts.origin.get("licence"):
        lines.append(f"license: {json.dumps(licence)}")
    if facts.dataset:
        lines += ["datasets:", f"- {json.dumps(facts.dataset)}"]
    figures = _measured(facts)
    if not figures:
        return lines
    lines += ["model-index:", f"- name: {json.dumps(facts.name)}", "  results:", "  - task:"]
    lines += ["      type: text-generation", "    dataset:"]
    lines += [
        f"      name: {json.dumps(facts.dataset)}",
        f"      type: {json.dumps(facts.dataset)}",
    ]
    lines += ["    metrics:"]
    for name, value in figures.items():
        lines += [f"    - type: {json.dumps(name)}", f"      value: {float(value):.6g}"]
    return lines


def _body(facts: CardFacts) -> list[str]:
    lines = [
        f"# {facts.name}",
        "",
        f"What a run of ilm_jax {__version__} trained beside a frozen language model: "
        f"{facts.parameters:,} parameters under the framework's names in `model.safetensors`. "
        "`TrainerConfig.init` takes this folder as it takes a run's.",
        "",
        f"- base model: {facts.base or 'none; the whole model is here'}",
        *_origin(facts),
        f"- fingerprint of the frozen weights: {facts.fingerprint}",
        f"- dataset: {facts.dataset or 'unknown'}",
        f"- tasks: {', '.join(facts.tasks) or 'unknown'}",
        f"- exported from: {facts.run}",
    ]
    figures = _measured(facts)
    intervals = facts.evaluation.get("intervals", {})
    missing = facts.evaluation.get("not_available", {})
    if figures or missing:
        lines += ["", "## Evaluation", ""]
        lines += ["| figure | value | 95 % interval | of |", "|---|---|---|---|"]
        for name, value in figures.items():
            between = intervals.get(name, {})
            known = between.get("low") is not None and between.get("high") is not None
            shown = f"{between['low']:.4f} to {between['high']:.4f}" if known else ""
            lines.append(f"| {name} | {value:.4f} | {shown} | {between.get('units', '')} |")
        lines += [f"| {name} | {why} | | |" for name, why in missing.items()]
    if facts.recipe:
        lines += ["", "## Recipe", "", "`config.gin`:", "", "```", facts.recipe.strip(), "```"]
    return lines


def _origin(facts: CardFacts) -> list[str]:
    """Licence, source and hash of the base, as far as they are known."""
    if not facts.base:
        return []
    digests = facts.origin.get("sha256") or {}
    lines = [
        f"- licence of the base model: {facts.origin.get('licence') or 'not stated by its files'}",
        f"- source of the base model: {facts.origin.get('source') or 'unknown'}",
    ]
    return lines + [f"- SHA-256 of its {file}: `{digest}`" for file, digest in digests.items()]


def _measured(facts: CardFacts) -> dict[str, float]:
    """The figures that are numbers; one that is not is null in evaluation.json."""
    figures = facts.evaluation.get("figures", {})
    return {name: float(value) for name, value in figures.items() if value is not None}
