"""Tasks of the user need only YAML and score the same in every standard format."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from clm_detour.__main__ import main
from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.read_tasks import read_tasks

SPLITS = {"train": 24, "dev": 8, "test": 8}
DRUGS = ("aspirin", "letrozole", "zolpidem tartrate")


def drug(number: int) -> str:
    return DRUGS[number % 3]


def text(split: str, number: int) -> str:
    return f"In {split} case {number} we gave {drug(number)} at night"


def label(number: int) -> str:
    return "long" if " " in drug(number) else "short"


def tagged(split: str, number: int) -> list[tuple[str, str]]:
    drugs = drug(number).split()
    tags = dict(zip(drugs, ["B-Drug", "I-Drug"], strict=False))
    return [(word, tags.get(word, "O")) for word in text(split, number).split()]


def write_all(data: Path) -> None:
    """Write the same documents in every format.

    Labels are written as TSV, JSON lines and a dataset; entities as CoNLL, BRAT and a dataset.
    """
    for name in ("tsv", "jsonl", "conll", "brat", "hub"):
        (data / name).mkdir(parents=True)
    for split, count in SPLITS.items():
        rows = [{"sentence": text(split, n), "class": label(n)} for n in range(count)]
        lines = ["sentence\tclass", *(f"{row['sentence']}\t{row['class']}" for row in rows)]
        (data / "tsv" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        (data / "jsonl" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = [tagged(split, n) for n in range(count)]
        sentences = ["".join(f"{word}\t{tag}\n" for word, tag in each) for each in words]
        (data / "conll" / f"{split}.tsv").write_text("\n".join(sentences))
        columns = {
            "sentence": [row["sentence"] for row in rows],
            "class": [row["class"] for row in rows],
            "tokens": [[word for word, _ in each] for each in words],
            "ner_tags": [[["O", "B-Drug", "I-Drug"].index(tag) for _, tag in each] for each in words],
        }
        pq.write_table(pa.table(columns), data / "hub" / f"{split}.parquet")
        (data / "brat" / split).mkdir()
        for n in range(count):
            start = text(split, n).index(drug(n))
            stem = data / "brat" / split / f"{split}{n:02}"
            stem.with_suffix(".txt").write_text(text(split, n))
            stem.with_suffix(".ann").write_text(f"T1\tDrug {start} {start + len(drug(n))}\t{drug(n)}\n")


def own_tasks(data: Path) -> dict[str, dict]:
    columns = {"text": "sentence", "label": "class"}
    labelled = {"kind": "single_label", "labels": ["long", "short"], **columns}
    entities = {"kind": "entities", "labels": ["Drug"]}
    dataset = {"path": str(data / "hub")}
    return {
        "tsv": {"form": "tsv", **labelled},
        "jsonl": {"form": "jsonl", **labelled},
        "dataset": {"form": "hub", **dataset, **labelled},
        "conll": {"form": "conll", **entities},
        "brat": {"form": "brat", **entities},
        "tagged-dataset": {
            "form": "hub",
            **dataset,
            **entities,
            "words": "tokens",
            "tag_names": ["O", "B-Drug", "I-Drug"],
        },
    }


@pytest.fixture(scope="module")
def evaluated(encoders, tmp_path_factory) -> Path:
    """Run `clm-detour evaluate` on all tasks and return its folder."""
    root = tmp_path_factory.mktemp("own")
    write_all(root / "data")
    tasks = own_tasks(root / "data")
    config = {
        "name": "mine",
        "run_dir": str(root / "run"),
        "data": str(root / "data"),
        "tasks": list(tasks),
        "own_tasks": tasks,
        "seeds": [1],
        "protocol": {"epochs": 8, "learning_rate": 3e-3, "batch_size": 4, "max_tokens": 64},
    }
    (root / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        words = ["evaluate", str(root / "mine.yaml"), f"--model=tiny={encoders['modernbert']}"]
        patch.setattr(sys, "argv", ["clm-detour", *words])
        with pytest.raises(SystemExit) as left:
            main()
    assert not left.value.code
    return root / "run"


def test_a_dataset_of_the_hub_needs_no_folder_of_tasks(tmp_path):
    write_all(tmp_path)
    dataset = own_tasks(tmp_path)["dataset"]
    for data in (None, str(tmp_path / "nowhere")):
        found, missing = read_tasks(FineTuning(tasks=["dataset"], own_tasks={"dataset": dataset}, data=data))
        assert [len(splits["train"]) for _, splits in found] == [24]
        assert not missing


@pytest.mark.parametrize(
    "names", [("tsv", "jsonl", "dataset"), ("conll", "brat", "tagged-dataset")], ids=["labels", "entities"]
)
def test_the_same_documents_score_the_same_in_every_format(evaluated, names):
    records = [json.loads((evaluated / "tiny" / name / "1.json").read_text()) for name in names]
    assert records[0]["documents"] == {"train": 24, "validation": 8, "test": 8}
    assert records[0]["score"] > 0.6
    for record in records[1:]:
        assert record["documents"] == records[0]["documents"]
        assert record["scores"] == records[0]["scores"]
        assert record["rounds"] == records[0]["rounds"]


def test_tasks_of_the_user_are_in_the_table(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    names = ["tsv", "jsonl", "dataset", "conll", "brat", "tagged-dataset"]
    assert [task["name"] for task in summary["tasks"]] == summary["groups"][0]["tasks"] == names
    assert "| tiny |" in (evaluated / "table.md").read_text()
