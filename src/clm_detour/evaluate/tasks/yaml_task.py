"""A task from YAML: a data set in a standard form needs no code.

tasks:
  mine: {form: tsv, kind: single_label, labels: ["no", "yes"], text: sentence}
  notes: {form: brat, kind: entities, labels: [Drug, Dose], overlaps: longest, held_out: {validation: 0.1, test: 0.2}}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, cast

from omegaconf import MISSING

from clm_detour.config import protocols
from clm_detour.config.protocols import Kind, Protocol
from clm_detour.config.validation import validate
from clm_detour.evaluate.formats.bigbio import BigBio
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.conll import Conll
from clm_detour.evaluate.formats.files import Pattern
from clm_detour.evaluate.formats.form import Files, Form
from clm_detour.evaluate.formats.hub import Hub
from clm_detour.evaluate.formats.i2b2 import I2b2
from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.reading import Reader
from clm_detour.evaluate.tasks.settings import TaskSettings
from clm_detour.evaluate.tasks.task import METRICS, SPLITS, Task
from clm_detour.utils.rules import one_of, require

TABLE = ("text", "label", "separator", "flags", "id", "document", "split")
FORMS: dict[str, tuple[Callable[..., Form], tuple[str, ...]]] = {  # and the settings that each understands
    "conll": (Conll, ("word", "tag", "label")),
    "brat": (Brat, ("codes", "part", "check_text")),
    "i2b2": (I2b2, ("attribute",)),
    "bigbio": (BigBio, ()),
    "tsv": (partial(Table, format="tsv"), (*TABLE, "quoted")),
    "csv": (partial(Table, format="csv"), (*TABLE, "quoted")),
    "jsonl": (partial(Table, format="jsonl"), TABLE),
    "parquet": (partial(Table, format="parquet"), TABLE),
    "hub": (
        Hub,
        (
            "path",
            "subset",
            "revision",
            "splits",
            "words",
            "tags",
            "tag_names",
            "text",
            "label",
            "separator",
            "flags",
            "id",
        ),
    ),
}
OF_FORMS = {key for _, keys in FORMS.values() for key in keys}
FOR_KINDS = {
    "overlaps": ("entities",),
    "most_frequent": ("multi_label",),
    "negative": ("single_label",),
}


def from_yaml(name: str, mapping: Mapping[str, Any]) -> Task:
    """A task from a section of an evaluation's YAML.

    Args:
        mapping: plain values, by the names in `TaskSettings`.

    Raises:
        UserError: one sentence for the first thing that is wrong.
    """
    where = f"tasks.{name}"
    require(isinstance(mapping, Mapping), f"{where} is a section of `key: value` pairs, not {mapping!r}.")
    settings = validate(TaskSettings, dict(mapping), where)
    for key in ("form", "kind", *(["path"] if settings.form == "hub" else [])):
        require(getattr(settings, key) != MISSING, f"{where}.{key} is not set; write it into the config.")
    check(where, settings, mapping)
    kind = cast(Kind, settings.kind)
    reader = Reader(
        name,
        kind,
        tuple(settings.labels),
        (form_of(where, settings, mapping),),
        rename=settings.rename,
        overlaps=settings.overlaps,  # type: ignore[arg-type]  # checked
        held_out=settings.held_out,
        most_frequent=settings.most_frequent,
    )
    return Task(
        name,
        settings.language,
        kind,
        tuple(settings.labels),
        settings.metric or "micro_f1",
        reader,
        folders=(settings.folder or name,),
        elsewhere=settings.form == "hub",
        negative=settings.negative,
        protocol=protocol_of(where, settings),
        published=settings.published,
        licence=settings.licence,
        obtain=settings.obtain,
        disjoint=settings.disjoint,
    )


def check(where: str, settings: TaskSettings, given: Mapping[str, Any]) -> None:
    """Values are possible, fit each other, and have an effect."""
    one_of(settings.form, FORMS, f"{where}.form")
    one_of(settings.kind, METRICS, f"{where}.kind")
    if settings.metric is not None:
        one_of(settings.metric, METRICS[cast(Kind, settings.kind)], f"{where}.metric of {settings.kind}")
        require(
            settings.metric != "positive_f1" or settings.negative is not None,
            f"{where}.metric: positive_f1 needs `negative`, the class that it leaves out.",
        )
    one_of(settings.overlaps, ("error", "longest", "last"), f"{where}.overlaps")
    for key in given:
        if key in OF_FORMS:
            require(
                key in FORMS[settings.form][1],
                f"{where}.{key} has no effect on the form {settings.form}; remove it.",
            )
        if key in FOR_KINDS:
            require(
                settings.kind in FOR_KINDS[key],
                f"{where}.{key} is for {FOR_KINDS[key][0]} and has no effect on {settings.kind}; remove it.",
            )
    require(
        len(set(settings.labels)) == len(settings.labels),
        f"{where}.labels names a label twice; remove one of them.",
    )
    check_form_fits(where, settings)
    for split, share in settings.held_out.items():
        one_of(split, ("validation", "test"), f"{where}.held_out")
        require(0 < share < 1, f"{where}.held_out.{split}: {share} is not a share of train between 0 and 1.")
    require(sum(settings.held_out.values()) < 1, f"{where}.held_out leaves nothing for train.")
    for label in settings.rename.values():
        if label is not None and settings.labels:
            one_of(label, settings.labels, f"{where}.rename")
    if settings.negative is not None and settings.labels:
        one_of(settings.negative, settings.labels, f"{where}.negative")


def check_form_fits(where: str, settings: TaskSettings) -> None:
    """Entities come from forms that have them, classes from the others."""
    entities = {
        "conll": True,
        "brat": not settings.codes,
        "i2b2": True,
        "bigbio": True,
        "hub": settings.words is not None,
    }
    wanted = settings.kind in ("entities", "nested_entities")
    require(
        entities.get(settings.form, False) == wanted,
        f"{where}: the form {settings.form} as set here gives {'labels' if wanted else 'entities'}, which the kind "
        f"{settings.kind} has none of; entities come from conll, brat, i2b2, bigbio and, with `words`, hub; labels from tables, "
        "hub and, with `codes`, brat.",
    )


def form_of(where: str, settings: TaskSettings, given: Mapping[str, Any]) -> Form:
    """The form with what is set for it."""
    make, keys = FORMS[settings.form]
    chosen: dict[str, Any] = {key: getattr(settings, key) for key in keys if key in given}
    if "separator" in chosen:
        separator = chosen.pop("separator")
        chosen["separate"] = lambda cell: [part.strip() for part in cell.split(separator) if part.strip()]
    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in chosen.items()}
    for key in ("files", "folder") if settings.form == "hub" else ():
        require(getattr(settings, key) is None, f"{where}.{key} has no effect on the form hub; remove it.")
    if settings.files is not None:
        chosen["files"] = files_of(where, settings.files)
    elif settings.form in ("tsv", "csv", "jsonl", "parquet"):
        names = (f"{{split}}.{settings.form}", f"{{split}}-*.{settings.form}")
        chosen["files"] = (*names, *(f"data/{name}" for name in names))
    return make(**chosen)


def files_of(where: str, files: Any) -> Files:
    """Globs."""
    if not isinstance(files, Mapping):
        return pattern_of(where, files)
    for split in files:
        one_of(str(split), SPLITS, f"{where}.files")
    return {str(split): pattern_of(where, value) for split, value in files.items()}


def pattern_of(where: str, value: Any) -> Pattern:
    """One glob, or several of which the first that finds something counts."""
    if isinstance(value, str):
        return value
    require(
        isinstance(value, list) and all(isinstance(one, str) for one in value),
        f"{where}.files: {value!r} is neither a glob like '{{split}}.tsv' nor a list of such.",
    )
    return tuple(value)


def protocol_of(where: str, settings: TaskSettings) -> Protocol:
    """The paper's for the language and kind, with what is set."""
    chosen = {one.name: getattr(settings.protocol, one.name) for one in fields(settings.protocol)}
    changes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in chosen.items()
        if value is not None
    }
    validate(Protocol, changes, f"{where}.protocol")
    return protocols.changed(protocols.default(settings.language, cast(Kind, settings.kind)), changes)
