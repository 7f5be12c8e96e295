"""The page's building blocks. Whatever goes into a template is escaped there, unless a template made it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    anchor: str
    title: str
    body: Markup


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates beside this file."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template's text."""
    return Markup(templates().get_template(template).render(**values))


def join(*parts: Markup | None) -> Markup:
    """Blocks one under another; None stands for nothing."""
    return Markup("\n").join(part for part in parts if part)


def paragraph(text: str | Markup, kind: str = "") -> Markup:
    """A paragraph; `kind` is its class."""
    opening = Markup('<p class="{}">').format(kind) if kind else Markup("<p>")
    return opening + Markup("{}</p>").format(text)


def heading(text: str) -> Markup:
    """A heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def key(slot: str, name: str) -> Markup:
    """A name with its colour."""
    return Markup('<span class="key {}"></span>{}').format(slot, name)


def figure(svg: Markup, title: str, caption: str | Markup = "") -> Markup:
    """A drawing under its title."""
    return render("figure.html", svg=svg, title=title, caption=caption)


def side_by_side(*figures: Markup) -> Markup:
    """Figures in a row where there is room, else one under another."""
    return Markup('<div class="figures">{}</div>').format(join(*figures))
