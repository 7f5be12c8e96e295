"""What may stand in a task's YAML: a comment a field, which other fields and forms it goes with. Values are checked in `yaml_task.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class ProtocolSettings:
    """How a model is fine-tuned; what is left out is as in the paper for the task's language and kind."""

    learning_rate: float | None = None
    head_learning_rate: float | None = None  # of the new layers, where it differs
    weight_decay: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    steps: int | None = None  # instead of epochs
    warmup: float | None = None  # share of the steps
    max_tokens: int | None = None
    positive_weight: bool | None = None  # multi_label: weigh a label's positives by negatives over positives
    seeds: list[int] | None = None


@dataclass
class TaskSettings:
    """A task in a standard form."""

    form: str = MISSING  # conll, brat, i2b2, bigbio, tsv, csv, jsonl, parquet, hub
    kind: str = MISSING  # entities, nested_entities, single_label, multi_label
    labels: list[str] = field(default_factory=list)  # in a fixed order; empty: those that the data has
    language: str = "en"
    metric: str | None = None  # which score stands in the table; null: micro_f1
    folder: str | None = None  # not hub: below the folder of all tasks; null: the task's name
    files: Any = None  # a glob with {split}, several, or one for each split
    text: str = "text"  # tables, hub: the column
    label: str = "label"  # tables, hub: the column of the label or the list of labels; conll: the type of a bare B and I
    separator: str | None = None  # tables: between the labels of a cell
    flags: list[str] = field(default_factory=list)  # tables: a column of 0 and 1 for each label
    id: str | None = None  # tables, hub: the column
    document: str | None = (
        None  # tables: a pattern; sentences whose ids have the same first group are one document
    )
    split: str | None = None  # tables: the column that says a record's split
    quoted: bool | None = None  # csv, tsv: cells may stand in double quotes; null: those of a csv may
    word: int = 0  # conll: its column
    tag: int = -1  # conll: its column
    codes: list[str] = field(default_factory=list)  # brat: kinds of notes that are labels of the document
    part: str | None = None  # brat: the type of annotation that marks each document in a longer text
    check_text: bool = True  # brat: an annotation's words must be those at its offsets
    attribute: str = "TYPE"  # i2b2: of a tag, that names its type
    path: str = MISSING  # hub: the dataset's id
    subset: str | None = None  # hub
    revision: str | None = None  # hub
    splits: dict[str, str] = field(default_factory=dict)  # hub: what it calls them
    words: str | None = None  # hub: the column of a sentence's words
    tags: str = "ner_tags"  # hub: the column of their tags
    tag_names: list[str] = field(default_factory=list)  # hub: of tags that are numbers
    rename: dict[str, str | None] = field(
        default_factory=dict
    )  # label in the files -> label of the task, null: none
    overlaps: str = "error"  # entities: error, longest, last
    held_out: dict[str, float] = field(default_factory=dict)  # split -> share of train that becomes it
    most_frequent: int | None = None  # multi_label: so many labels only
    negative: str | None = None  # single_label: the class that stands for none of the others
    disjoint: bool = True  # no document may be in two splits
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    published: dict[str, int] = field(default_factory=dict)  # counts to compare with, like train.documents
    licence: str = ""
    obtain: str = ""
