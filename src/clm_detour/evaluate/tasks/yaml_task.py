"""Build a task from YAML: the registered tasks in `library/`, and the `own_tasks` of an evaluation.

form: tsv
kind: single_label
labels: ["no", "yes"]
text: sentence
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, PlainValidator

from clm_detour.config.protocols import Kind, Protocol, changed, default
from clm_detour.config.validation import validate
from clm_detour.config.values import Fraction, PositiveInt, check_distinct
from clm_detour.evaluate.formats.bigbio import BigBio
from clm_detour.evaluate.formats.biocreative import BioCreative
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.conll import Conll
from clm_detour.evaluate.formats.format import Format
from clm_detour.evaluate.formats.hub import Hub
from clm_detour.evaluate.formats.i2b2 import I2b2
from clm_detour.evaluate.formats.meddialog import MedDialog
from clm_detour.evaluate.formats.phenotype import Phenotype
from clm_detour.evaluate.formats.physionet import PhysioNet
from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.reading import Overlaps, Reader
from clm_detour.evaluate.tasks.task import METRICS, Task
from clm_detour.utils.rules import one_of, require, unknown_key

FORMATS: dict[str, type[Format]] = {
    "conll": Conll,
    "brat": Brat,
    "i2b2": I2b2,
    "bigbio": BigBio,
    "tsv": Table,
    "csv": Table,
    "jsonl": Table,
    "parquet": Table,
    "table": Table,
    "hub": Hub,
    "biocreative": BioCreative,
    "meddialog": MedDialog,
    "phenotype": Phenotype,
    "physionet": PhysioNet,
}
TABLE_FORMATS = ("tsv", "csv", "jsonl", "parquet")  # `table` is any of them
UNUSED_KEYS = {  # fields of a format's class that it does not use
    "jsonl": ("quoted",),
    "parquet": ("quoted",),
    "hub": ("files", "document", "split", "quoted", "numbered_flags"),
}
KIND_OF_KEYS = {"overlaps": "entities", "most_frequent": "multi_label", "negative": "single_label"}


def parse_label(value: Any) -> str:
    """Return a label, which may be written as a number.

    Raises:
        ValueError: If it is neither a string nor a number.
    """
    if isinstance(value, bool):
        raise ValueError(
            f"{str(value).lower()} is not a label; YAML reads yes, no, on and off without quotes as true "
            "and false, so put the labels in quotes."
        )
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a label; use a string.")
    return str(value)


Label = Annotated[str, PlainValidator(parse_label)]


@dataclass
class TaskSettings:
    """The keys of a task that do not belong to its format; those of a format are the fields of its class."""

    form: str  # a key of FORMATS
    kind: Kind
    # Entity types or classes, in a fixed order. Empty: all labels of the data.
    labels: Annotated[list[Label], AfterValidator(check_distinct)] = field(default_factory=list)
    language: str = "en"
    metric: str = "micro_f1"  # the score in the tables
    folder: str | list[str] | None = None  # in the folder of all tasks; null: the task's name
    # Other formats of the data set, each a section with `form` and its keys.
    alternatives: list[dict[str, Any]] = field(default_factory=list)
    # Label in the files -> label of the task, or null to leave it out.
    rename: dict[str, Label | None] = field(default_factory=dict)
    overlaps: Overlaps = "error"  # entities: what to do if they overlap
    held_out: dict[str, Fraction] = field(default_factory=dict)  # split -> share of train that becomes it
    most_frequent: PositiveInt | None = None  # multi_label: number of labels that are kept
    negative: Label | None = None  # single_label: the class that stands for none of the others
    disjoint: bool = True  # no document may be in two splits
    protocol: dict[str, Any] = field(default_factory=dict)  # changes to the paper's for the language and kind
    published: dict[str, int] = field(default_factory=dict)  # counts to compare with, like train.documents
    licence: str = ""
    obtain: str = ""  # a sentence that says where to get the data set


# The keys of a protocol, none of which has a default, because defaults depend on the language and kind.
ProtocolChanges: type = make_dataclass(
    "ProtocolChanges",
    [(name, kind | None, None) for name, kind in get_type_hints(Protocol, include_extras=True).items()],
)


def keys_of(form: str) -> list[str]:
    """Return the keys that a format understands."""
    unused = ("format", *UNUSED_KEYS.get(form, ()))  # `format` is set by `form`
    return [one.name for one in fields(FORMATS[form]) if one.name not in unused]


TASK_KEYS = [one.name for one in fields(TaskSettings)]
FORMAT_KEYS = list(dict.fromkeys(key for form in FORMATS for key in keys_of(form)))


def from_yaml(name: str, mapping: Mapping[str, Any]) -> Task:
    """Build a task from its section of a YAML file.

    Args:
        mapping: Plain values by the names in `TaskSettings` and the fields of the format.

    Raises:
        UserError: If something is wrong; the message is one sentence about the first mistake.
    """
    where = f"tasks.{name}"
    require(isinstance(mapping, Mapping), f"{where} is a section of `key: value` pairs, not {mapping!r}.")
    check_known(mapping, [*TASK_KEYS, *FORMAT_KEYS], where)
    settings = validate(TaskSettings, {key: mapping[key] for key in mapping if key in TASK_KEYS}, where)
    one_of(settings.form, FORMATS, f"{where}.form")
    keys = {key: mapping[key] for key in mapping if key not in TASK_KEYS}
    check_keys_matter(settings, mapping, where)
    check_labels(settings, where)
    check_held_out(settings.held_out, f"{where}.held_out")
    formats = [build_format(settings.form, keys, settings.kind, where)]
    formats += [
        build_alternative(section, settings.kind, f"{where}.alternatives[{number}]")
        for number, section in enumerate(settings.alternatives)
    ]
    folders = settings.folder if isinstance(settings.folder, list) else [settings.folder]
    reader = Reader(
        name,
        settings.kind,
        tuple(settings.labels),
        tuple(formats),
        settings.rename,
        settings.overlaps,
        settings.held_out,
        settings.most_frequent,
    )
    return Task(
        name,
        settings.language,
        settings.kind,
        tuple(settings.labels),
        settings.metric,
        reader,
        folders=tuple(folder for folder in folders if folder is not None),
        elsewhere=settings.form == "hub",
        negative=settings.negative,
        protocol=build_protocol(settings, f"{where}.protocol"),
        published=settings.published,
        licence=settings.licence,
        obtain=settings.obtain,
        disjoint=settings.disjoint,
    )


def build_alternative(section: Mapping[str, Any], kind: Kind, where: str) -> Format:
    """Return the format of an entry of `alternatives`."""
    check_known(section, ["form", *FORMAT_KEYS], where)
    require("form" in section, f"{where}.form is not set; write it into the config.")
    one_of(section["form"], [form for form in FORMATS if form != "hub"], f"{where}.form")
    return build_format(section["form"], {key: section[key] for key in section if key != "form"}, kind, where)


def build_format(form: str, given: Mapping[str, Any], kind: Kind, where: str) -> Format:
    """Return a format with the keys that are set for it, if it gives what the kind of task needs."""
    for key in given:
        require(key in keys_of(form), f"{where}.{key} has no effect on the form {form}; remove it.")
    values = dict(given)
    if form in TABLE_FORMATS:
        names = [f"{{split}}.{form}", f"{{split}}-*.{form}"]
        values = {"format": form, "files": [*names, *(f"data/{name}" for name in names)], **values}
    built = validate(FORMATS[form], values, where)
    needs = "entities" if kind in ("entities", "nested_entities") else "labels"
    gives = content_of(built)
    require(
        gives == needs,
        f"{where}: the form {form} with these keys gives {gives}, but the kind {kind} needs {needs}. "
        "Entities come from conll, brat, i2b2, bigbio and, with `words`, hub; labels from tables, hub and, "
        "with `codes`, brat.",
    )
    return built


def content_of(built: Format) -> str:
    """Return whether a format gives "entities" or "labels"."""
    if isinstance(built, Brat):
        return "labels" if built.codes else "entities"
    if isinstance(built, Hub):
        return "entities" if built.words is not None else "labels"
    return "entities" if isinstance(built, (Conll, I2b2, BigBio, PhysioNet)) else "labels"


def build_protocol(settings: TaskSettings, where: str) -> Protocol:
    """Return the paper's protocol for the language and kind, with the changes of the task."""
    checked = vars(validate(ProtocolChanges, settings.protocol, where))
    changes = {key: value for key, value in checked.items() if value is not None}
    return changed(default(settings.language, settings.kind), changes)


def check_known(section: Mapping[str, Any], known: list[str], where: str) -> None:
    """Raise a UserError for the first key that is not known."""
    for key in section:
        require(key in known, unknown_key(str(key), f"{where}.", known))


def check_keys_matter(settings: TaskSettings, given: Mapping[str, Any], where: str) -> None:
    """Raise a UserError for the first key that has no effect on the kind of task or on its form."""
    for key, kind in KIND_OF_KEYS.items():
        require(
            key not in given or settings.kind == kind,
            f"{where}.{key} is for {kind} and has no effect on {settings.kind}; remove it.",
        )
    require(
        settings.form != "hub" or settings.folder is None,
        f"{where}.folder has no effect on the form hub; remove it.",
    )


def check_labels(settings: TaskSettings, where: str) -> None:
    """Check the metric and all keys that name labels."""
    one_of(settings.metric, METRICS[settings.kind], f"{where}.metric of {settings.kind}")
    require(
        settings.metric != "positive_f1" or settings.negative is not None,
        f"{where}.metric: positive_f1 needs `negative`, the class that it leaves out.",
    )
    if settings.labels:
        for label in filter(None, settings.rename.values()):
            one_of(label, settings.labels, f"{where}.rename")
        if settings.negative is not None:
            one_of(settings.negative, settings.labels, f"{where}.negative")


def check_held_out(shares: Mapping[str, float], where: str) -> None:
    """Check that the splits that are drawn from train leave something of it."""
    for split in shares:
        one_of(split, ("validation", "test"), where)
    require(sum(shares.values()) < 1, f"{where} leaves nothing for train.")
