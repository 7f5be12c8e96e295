"""Fill the template of a recipe, recipe.yaml.jinja, which explains each choice in a comment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from clm_detour.config.schema import Source
from clm_detour.run.init.look import Found
from clm_detour.run.init.sizes import LITTLE, Sizes
from clm_detour.utils.progress import human

TOKENS = ("phase", "decay", "warmup", "checkpoint")  # numbers of tokens among the sizes


def recipe_text(
    path: Path, found: Mapping[str, Found], base: str, precision: str, sizes: Sizes, gpu: Sizes | None
) -> str:
    """Return the YAML of a recipe.

    Args:
        path: File that it is for.
        found: Sources by name.
        precision: Value of `train.precision`.
        sizes: Numbers for this machine.
        gpu: Numbers for a machine with a GPU, which comments name; None if this machine has one.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True).get_template(
        "recipe.yaml.jinja"
    )
    shown = shown_sizes(sizes)
    shown_gpu = shown if gpu is None else shown_sizes(gpu)
    tokens = sum(each.tokens for each in found.values())
    return template.render(
        path=path,
        name=path.stem,
        base=base,
        base_text=scalar(base),
        tokens=f"about {human(tokens)}",
        little=tokens < LITTLE,
        gpus=gpu is None,
        gpu=None if gpu is None else shown_gpu,
        sources=[described(name, each) for name, each in found.items()],
        mixture=flow(shares({name: each.tokens for name, each in found.items()})),
        bad=next((" ".join(str(each.bad).split()) for each in found.values() if each.bad is not None), None),
        sizes=sizes,
        value=lambda name: shown[name],
        on_a_gpu=lambda name: f" # on a GPU: {shown_gpu[name]}" if shown_gpu[name] != shown[name] else "",
        step=human(sizes.rows * sizes.row),
        limit=(gpu or sizes).limit,
        total=shown["total"],
        passes=shown["passes"],
        precision=precision,
    )


def shown_sizes(sizes: Sizes) -> dict[str, str]:
    """Return sizes as a config has them."""
    here = {field.name: getattr(sizes, field.name) for field in fields(sizes)}
    shown = {name: duration(value) if name in TOKENS else f"{value}" for name, value in here.items()}
    return {**shown, "total": duration(sizes.phase + sizes.decay), "passes": passes(sizes)}


def described(name: str, found: Found) -> dict[str, Any]:
    """Return what the recipe says of a source: its settings, and what was found."""
    source, usual = found.source, Source(path="")
    settings = {
        field.name: scalar(value)
        for field in fields(Source)
        if (value := getattr(source, field.name)) != getattr(usual, field.name)
    }
    about = "" if found.complete else "about "
    return {
        "name": name,
        "settings": settings,
        "documents": f"{about}{human(found.documents)}",
        "tokens": f"about {human(found.tokens)}",
    }


def shares(tokens: Mapping[str, int]) -> dict[str, float]:
    """Return shares in proportion to tokens, rounded so that they sum to 1."""
    total = sum(tokens.values())
    rounded = {name: max(round(count / total, 4), 0.0001) for name, count in tokens.items()}
    largest = max(rounded, key=lambda name: rounded[name])
    others = sum(share for name, share in rounded.items() if name != largest)
    return {**rounded, largest: round(1 - others, 4)}


def passes(sizes: Sizes) -> str:
    """Return the number of passes over the text in words."""
    return f"about {sizes.passes:.2g} passes" if sizes.passes >= 1.05 else f"{sizes.passes:.0%} of a pass"


def duration(tokens: int) -> str:
    """Return a number of tokens as a config has it, like 3.6Mtok."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if tokens >= size and tokens % (size // 1000) == 0:
            return f"{tokens / size:g}{unit}tok"
    return f"{tokens}tok"


def scalar(value: Any) -> str:
    """Return a value as YAML on one line; a `$` before a brace is text, and no reference to another key."""
    return json.dumps(value, ensure_ascii=False).replace("${", "\\\\${")


def flow(value: Any) -> str:
    """Return a dictionary as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()
