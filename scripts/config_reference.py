"""Write docs/config.md from the dataclasses of a config: docstrings, annotations, defaults and comments."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clm_detour.config.annotations import bare_type, describe, fields_of, is_optional, members, shown
from clm_detour.config.protocols import Protocol
from clm_detour.config.schema import Config, Evaluation, FineTuning

TARGET = Path(__file__).parents[1] / "docs" / "config.md"
WIDTH = 110
INTRO = """
# Every key of a recipe

This page is made from `src/clm_detour/config/schema.py` by `python scripts/config_reference.py`.

- A file may start with `extends: other.yaml`, or a list of files, and wins over the files that it extends.
  A mixture keeps the shares of sources that the extending file does not name.
- `extends: quickstart` extends a config that comes with the library; `clm-detour configs` lists these.
- `key.sub=value` on the command line wins over all files.
- `${other.key}` stands for the value of another key.
- A value that starts with `~/` is a path in the home folder.
- Values are not converted: `true` is not 1, and `"1"` is not 1. Text that looks like a number needs quotes.
""".strip()


def reference() -> str:
    """Return the whole page."""
    sections = [*sections_of(Config, ""), *sections_of(Evaluation, "clm-detour evaluate")]
    above = [schema for _, schema in sections].index(FineTuning)
    sections.insert(above + 1, ("evaluate.tasks.protocol", Protocol))
    return "\n\n".join([INTRO, *(section(place, schema) for place, schema in sections)]) + "\n"


def sections_of(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield a dataclass and the dataclasses in its fields, each with its place in a config."""
    yield place, schema
    for name, annotation in fields_of(schema).items():
        child, below = section_in(annotation)
        if child is not None:
            yield from sections_of(child, ".".join(filter(None, (place, name, below))))


def section_in(annotation: Any) -> tuple[Any, str]:
    """Return the dataclass in an annotation, or None, and "NAME" if there can be several of it."""
    bare = bare_type(annotation)
    if typing.get_origin(bare) is dict and dataclasses.is_dataclass(typing.get_args(bare)[1]):
        return typing.get_args(bare)[1], "NAME"
    sections = (one for one in map(bare_type, members(annotation)) if dataclasses.is_dataclass(one))
    return next(sections, None), ""


def section(place: str, schema: Any) -> str:
    """Return the part of the page about one dataclass."""
    about = [wrap(" ".join(part.split())) for part in (inspect.getdoc(schema) or "").split("\n\n")]
    comments = comments_of(schema)
    own = [field for field in dataclasses.fields(schema) if field.name in comments]
    keys = [key(field, fields_of(schema)[field.name], comments[field.name], place) for field in own]
    return "\n\n".join([f"## {f'`{place}`' if place else 'Top level'}", *about, "\n".join(keys)])


def key(field: dataclasses.Field[Any], annotation: Any, comment: str, place: str) -> str:
    """Return the list item of one key."""
    child, below = section_in(annotation)
    if child is None:
        what = f"{describe(annotation)}; {default_of(field)}"
    else:
        target = ".".join(filter(None, (place, field.name, below)))
        anchor = "".join(letter for letter in target if letter.isalnum() or letter in "-_").lower()
        first = bare_type(annotation)
        either = "" if below or dataclasses.is_dataclass(first) else f"{describe(first)}, or "
        default = f"; {default_of(field)}" if is_optional(annotation) or either else ""
        what = f"{either}a section, see [`{target}`](#{anchor}){default}"
    sentence = comment and comment[0].upper() + comment[1:].rstrip(".") + "."
    return wrap(f"- **`{field.name}`** ({what}). {sentence}".rstrip(), "  ")


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return the default of a field as YAML has it."""
    if field.default_factory is not dataclasses.MISSING:
        return f"default: `{field.default_factory()}`"
    if field.default is dataclasses.MISSING:
        return "required"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"default: `{value if isinstance(value, str) else shown(value)}`"


def comments_of(schema: Any) -> dict[str, str]:
    """Return the comments of a dataclass's own fields, at the end of their line or above it."""
    source = textwrap.dedent(inspect.getsource(schema))
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if not isinstance(node, ast.AnnAssign):
            continue
        above: list[str] = []
        while (line := lines[node.lineno - 2 - len(above)].strip()).startswith("#"):
            above.insert(0, line.removeprefix("#").strip())
        rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()  # type: ignore[operator]
        found[ast.unparse(node.target)] = " ".join(above) or rest.strip().removeprefix("#").strip()
    return found


def wrap(text: str, indent: str = "") -> str:
    """Return text in lines of at most `WIDTH` characters."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
