"""A whole evaluation: it resumes, repeats nothing, refuses old results, and names missing data sets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clm_detour.__main__ import main
from clm_detour.config.loading import load_evaluation
from clm_detour.config.schema import FineTuning
from clm_detour.config.shipped import CONFIGS
from clm_detour.evaluate.command import evaluate_models, windows_of
from clm_detour.evaluate.finetune.experiment import limit_documents
from clm_detour.evaluate.finetune.run import write_predictions
from clm_detour.evaluate.probes import probe, probe_models
from clm_detour.evaluate.read_tasks import read_tasks
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.evaluate.tables import score_table
from clm_detour.evaluate.tasks import SPLITS
from clm_detour.evaluate.tasks import TASKS as TASKS_OF_THE_REGISTRY
from clm_detour.evaluate.tasks.left_out import count_unread_in_runs
from clm_detour.evaluate.tasks.task import Document, Entity, Task
from clm_detour.records.evaluation import Summary
from clm_detour.records.store import read
from clm_detour.utils.errors import UserError

EVAL = CONFIGS / "eval"
TASKS = ["SampleEntities", "SampleVerdict"]


def fine_tuning(**changes) -> FineTuning:
    return FineTuning(
        **{"tasks": TASKS, "seeds": [1, 2], "documents": 12, "protocol": {"epochs": 1}, **changes}
    )


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(folder: Path) -> dict[str, bytes]:
    """All that the scores of an evaluation are, without times and dates."""
    found = {}
    for path in sorted(folder.glob("*/*/[0-9].json")):
        record = json.loads(path.read_text())
        kept = {
            key: value
            for key, value in record.items()
            if key not in ("seconds", "finished", "environment", "threads")
        }
        found[str(path.relative_to(folder))] = json.dumps(kept).encode()
    for path in sorted(folder.glob("*/*/*.jsonl")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def models(encoders) -> dict[str, str]:
    return {"ours": encoders["modernbert"], "other": encoders["bert"]}


@pytest.fixture(scope="module")
def evaluated(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, *evaluate_models(fine_tuning(), models, folder, "made")


def test_it_leaves_a_record_and_the_answers_of_every_run_and_a_table_of_all(evaluated):
    folder, summary, made = evaluated
    assert made == 8
    assert len(records(folder)) == 16
    record = json.loads((folder / "ours" / "SampleVerdict" / "1.json").read_text())
    assert record["score"] == record["scores"]["test"]["macro_f1"]
    assert len(record["rounds"]) == 1
    answers = (folder / "ours" / "SampleVerdict" / "1.predictions.jsonl").read_text().splitlines()
    assert len(answers) == record["documents"]["test"] == 12
    assert summary == read(Summary, folder / "summary.json")
    assert summary.scores["ours"]["SampleVerdict"].seeds["1"] == pytest.approx(100 * record["score"])
    assert {path.name for path in folder.glob("*.*")} == {
        "summary.json",
        "table.md",
        "table.tex",
        "table.csv",
        "left_out.csv",
        "differences.png",
    }


def test_predictions_hold_what_the_data_set_says_beside_the_answer_and_no_text(evaluated):
    folder, _, _ = evaluated
    verdicts, entities = (
        lines_of(folder / "ours" / task / "1.predictions.jsonl") for task in reversed(TASKS)
    )
    gold = {task: limit_documents(SAMPLE_TASKS[task].read(Path()).splits, 12)["test"] for task in TASKS}
    assert [set(line) for line in verdicts] == [{"id", "labels", "gold_labels"}] * 12
    assert [(line["id"], line["gold_labels"]) for line in verdicts] == [
        (one.id, list(one.labels)) for one in gold["SampleVerdict"]
    ]
    assert [set(line) for line in entities] == [{"id", "entities", "gold_entities"}] * 12
    assert [line["gold_entities"] for line in entities] == [
        [[one.start, one.end, one.label] for one in document.entities] for document in gold["SampleEntities"]
    ]
    right = sum(line["labels"] == line["gold_labels"] for line in verdicts)
    record = json.loads((folder / "ours" / "SampleVerdict" / "1.json").read_text())
    assert record["scores"]["test"]["accuracy"] == pytest.approx(right / 12)


def test_what_is_left_out_stands_wherever_the_scores_do(models, tmp_path, capsys):
    text = "the right lung was examined " * 20
    for split, name in (("train", "a"), ("dev", "b"), ("test", "c")):
        (tmp_path / "mine" / split).mkdir(parents=True)
        for number in range(3):
            path = tmp_path / "mine" / split / f"{name}{number}"
            path.with_suffix(".txt").write_text(text)
            path.with_suffix(".ann").write_text(
                "T1\tOrgan 4 14\tright lung\nT2\tSide 4 9\tright\nT3\tOrgan 11 13\tun\n"
                "T4\tNote 0 3\tthe\nT5\tOrgan 39 41\tun\n"
            )
        lines = [json.dumps({"text": text, "label": "ab"[n % 2]}) for n in range(2)]
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / f"{split}.jsonl").write_text("\n".join(lines))
    brat = {"form": "brat", "kind": "entities", "overlaps": "longest", "rename": {"Note": None}}
    settings = fine_tuning(
        tasks=["mine", "cut"],
        data=str(tmp_path),
        own_tasks={"mine": brat, "cut": {"form": "jsonl", "kind": "single_label"}},
        seeds=[1],
        documents=2,
        protocol={"epochs": 1, "max_tokens": 60},
    )
    summary, _ = evaluate_models(settings, models, tmp_path / "run", "made")
    mine = {
        f"{split} {what}": count
        for split in SPLITS
        for what, count in (
            ("documents by the limit", 1),
            ("annotations by rename", 2),
            ("annotations by overlap", 4),
            ("entities that its words cannot say exactly", 2),
        )
    }
    found = {task.name: task.left_out for task in summary.tasks}
    assert found["mine"] == mine
    assert found["cut"] == {f"{split} texts cut at 60 tokens": 2 for split in SPLITS}
    record = json.loads((tmp_path / "run" / "ours" / "mine" / "1.json").read_text())
    assert record["left_out"] == mine
    sentence = "cut leaves out: train texts cut at 60 tokens 2, validation texts cut at 60 tokens 2"
    assert sentence in (tmp_path / "run" / "table.md").read_text()
    assert any(note.startswith(sentence) for note in score_table(summary).notes)
    assert "mine,test annotations by overlap,4\n" in (tmp_path / "run" / "left_out.csv").read_text()


def test_a_count_that_differs_between_models_names_its_model():
    def record(model: str, cut: int) -> dict:
        return {
            "model": model,
            "score": 0.5,
            "counts": {"test": {"documents_cut": cut}},
            "protocol": {"max_tokens": 9},
        }

    assert count_unread_in_runs([record("a", 2), record("b", 2)]) == {"test texts cut at 9 tokens": 2}
    assert count_unread_in_runs([record("a", 2), record("b", 0)]) == {"test texts cut at 9 tokens (a)": 2}


def test_gold_entities_in_several_pieces_are_written_with_their_pieces(tmp_path):
    gold = Document("7#1", "lung and skin cancer", entities=(Entity("D", 0, 20, ((0, 4), (14, 20))),))
    answer = replace(gold, entities=(Entity("D", 9, 20),))
    write_predictions(tmp_path / "1.predictions.jsonl", "nested_entities", [gold], [answer])
    assert lines_of(tmp_path / "1.predictions.jsonl") == [
        {"id": "7#1", "entities": [[9, 20, "D"]], "gold_entities": [[0, 20, "D", [[0, 4], [14, 20]]]]}
    ]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
@pytest.mark.parametrize("kind", ["entities", "multi_label"])
def test_a_task_in_which_there_is_nothing_to_find_is_refused_before_any_run(models, tmp_path, split, kind):
    for name in ("train", "dev", "test"):
        found = not name.startswith(split)
        rows = {
            "entities": f"{name}\t{'B-Drug' if found else 'O'}\n",
            "multi_label": json.dumps({"text": name, "label": ["a"] if found else []}),
        }
        (tmp_path / "mine").mkdir(exist_ok=True)
        suffix = "txt" if kind == "entities" else "jsonl"
        (tmp_path / "mine" / f"{name}.{suffix}").write_text(rows[kind])
    form = "conll" if kind == "entities" else "jsonl"
    settings = fine_tuning(
        tasks=["SampleVerdict", "mine"], data=str(tmp_path), own_tasks={"mine": {"form": form, "kind": kind}}
    )
    with pytest.raises(
        UserError, match=rf"No document of the {'validation' if split == 'dev' else split} split of mine has"
    ):
        evaluate_models(settings, {"ours": models["ours"]}, tmp_path / "run", "made")
    assert not (tmp_path / "run").exists()


def test_what_is_finished_is_not_repeated_and_what_is_lost_comes_again_bit_for_bit(evaluated, models):
    folder, _, _ = evaluated
    before = records(folder)
    lost = folder / "other" / "SampleEntities" / "2.json"
    lost.unlink()
    others = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/[0-9].json")}
    assert evaluate_models(fine_tuning(), models, folder, "made")[1] == 1
    assert records(folder) == before
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert evaluate_models(fine_tuning(), models, folder, "made")[1] == 0


def test_another_test_of_the_same_scores_needs_no_run(evaluated, models):
    folder, before, _ = evaluated
    summary, made = evaluate_models(fine_tuning(paper_bootstrap=True), models, folder, "made")
    assert made == 0
    assert summary.scores == before.scores
    assert before.comparisons[0].paper_bootstrap is None
    assert 0 < summary.comparisons[0].paper_bootstrap.p <= 1
    assert read(Summary, folder / "summary.json") == summary


def test_results_made_with_other_settings_are_not_taken(evaluated, models, encoders):
    folder, _, _ = evaluated
    with pytest.raises(UserError, match=r"protocol.epochs was 1, is now 2"):
        evaluate_models(fine_tuning(protocol={"epochs": 2}), models, folder, "made")
    with pytest.raises(UserError, match="data was"):
        evaluate_models(fine_tuning(documents=13), models, folder, "made")
    with pytest.raises(UserError, match="model was"):
        evaluate_models(fine_tuning(), {**models, "ours": encoders["roberta"]}, folder, "made")


def test_more_seeds_and_models_are_added_to_what_there_is(evaluated, models, encoders):
    folder, _, _ = evaluated
    settings = fine_tuning(tasks=["SampleVerdict"], seeds=[2, 3])
    summary, made = evaluate_models(settings, {**models, "third": encoders["roberta"]}, folder, "made")
    assert made == 4
    assert list(summary.scores["third"]["SampleVerdict"].seeds) == ["2", "3"]


@pytest.mark.slow
def test_several_processes_give_the_scores_of_one(evaluated, models, tmp_path):
    folder, _, _ = evaluated
    settings = fine_tuning(tasks=["SampleVerdict"], seeds=[1], jobs=2)
    assert evaluate_models(settings, models, tmp_path, "made")[1] == 2
    assert {name: records(folder)[name] for name in records(tmp_path)} == records(tmp_path)


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_a_run_that_diverges_stands_in_the_table_with_what_it_scored_and_is_named(
    models, tmp_path, metric, capsys
):
    for split in ("train", "dev", "test"):
        rows = [json.dumps({"text": f"word {n}", "label": "ab"[n % 2]}) for n in range(4)]
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{split}.jsonl").write_text("\n".join(rows))
    settings = fine_tuning(
        tasks=["mine", "SampleVerdict"],
        data=str(tmp_path),
        own_tasks={"mine": {"form": "jsonl", "kind": "single_label", "metric": metric}},
        seeds=[1],
        protocols={"mine": {"learning_rate": 1e38, "epochs": 2, "batch_size": 2}},
    )
    summary, made = evaluate_models(settings, {"ours": models["other"]}, tmp_path / "run", "made")
    assert made == 2
    if metric == "accuracy":
        assert summary.scores["ours"]["mine"].mean == 50
    else:  # there is no AUROC of answers that are not finite, and no number stands for it
        assert json.loads((tmp_path / "run" / "ours" / "mine" / "1.json").read_text())["score"] is None
        assert "mine" not in summary.scores["ours"]
        assert summary.tasks[0].left_out == {"runs without a score": 1}
    assert "ours on mine, seed 1: training at 1e+38 diverged" in capsys.readouterr().err


def test_a_learning_rate_grid_takes_the_best_on_validation(models, tmp_path):
    settings = fine_tuning(
        tasks=["SampleVerdict"], seeds=[1], learning_rates=[1e-9, 3e-3], protocol={"epochs": 3}
    )
    evaluate_models(settings, {"ours": models["ours"]}, tmp_path, "made")
    record = json.loads((tmp_path / "ours" / "SampleVerdict" / "1.json").read_text())
    best = {
        rate: max(r["validation"]["macro_f1"] for r in record["rounds"] if r["learning_rate"] == rate)
        for rate in (1e-9, 3e-3)
    }
    assert record["best"]["learning_rate"] == max(best, key=best.__getitem__)
    assert record["scores"]["validation"]["macro_f1"] == max(best.values())


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_to_the_same_scores(
    evaluated, models, tmp_path, monkeypatch, capsys
):
    folder, _, _ = evaluated
    config = tmp_path / "eval.yaml"
    config.write_text(
        f"name: made\nrun_dir: {tmp_path}/run\ntasks: [{', '.join(TASKS)}]\nseeds: [1, 2]\n"
        "documents: 12\nprotocol: {epochs: 1}\n"
    )
    words = [f"--model={name}={path}" for name, path in models.items()]
    program = "from clm_detour.__main__ import main; main()"
    command = [sys.executable, "-c", program, "evaluate", str(config), *words]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while (
        running.poll() is None and len(list((tmp_path / "run").glob("*/*/*.json"))) < 7
    ):  # settings, and three runs
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = len(list((tmp_path / "run").glob("*/*/[0-9].json")))
    assert 0 < done < 8
    monkeypatch.setattr(sys, "argv", ["clm-detour", *command[3:]])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert not left.value.code
    assert f"{8 - done} runs done" in err
    assert "ours - other" in out
    assert records(tmp_path / "run") == {
        name: text for name, text in records(folder).items() if "third" not in name and "/3." not in name
    }


def test_missing_data_sets_are_named_and_left_out(models, tmp_path):
    found, missing = read_tasks(fine_tuning(tasks=["SampleVerdict", "GAD"], data=str(tmp_path)))
    assert [task.name for task, _ in found] == ["SampleVerdict"]
    assert "no folder GAD" in missing["GAD"]
    with pytest.raises(
        UserError, match=r"None of the tasks is there \(GAD\); set data \(evaluate\.tasks\.data in a recipe\)"
    ):
        read_tasks(fine_tuning(tasks=["GAD"]))
    with pytest.raises(UserError, match="did you mean GAD"):
        read_tasks(fine_tuning(tasks=["GADD"]))


def test_a_length_in_epochs_replaces_one_in_steps_and_the_tasks_own_that_of_all(tmp_path):
    (tmp_path / "a").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "a" / f"{split}.tsv").write_text("aspirin\tB-Drug\n")
    own = {"form": "conll", "kind": "nested_entities", "disjoint": False}

    def length(protocol: dict, own_protocol: dict, described: dict | None = None) -> tuple[int, int | None]:
        settings = fine_tuning(
            tasks=["a"],
            data=str(tmp_path),
            own_tasks={"a": {**own, "protocol": described or {}}},
            protocol=protocol,
            protocols={"a": own_protocol},
        )
        [(task, _)], _ = read_tasks(settings)
        return task.protocol.epochs, task.protocol.steps

    assert length({}, {})[1] == 4000
    assert length({"epochs": 3}, {}) == (3, None)
    assert length({"steps": 50}, {"epochs": 3}) == (3, None)
    assert length({"epochs": 3}, {"steps": 50})[1] == 50
    assert length({}, {}, described={"epochs": 3}) == (3, None)


@pytest.mark.parametrize(("name", "count"), [("en", 11), ("fr", 8)])
def test_the_shipped_evaluations_name_the_papers_tasks(name, count):
    loaded = load_evaluation(EVAL / f"{name}.yaml", ["data=somewhere"], ["base=answerdotai/ModernBERT-base"])
    assert len(loaded.tasks) == count
    assert set(loaded.tasks) <= set(TASKS_OF_THE_REGISTRY)
    assert loaded.models == {"base": "answerdotai/ModernBERT-base"}


WRONG = {
    "unknown key": ("sedes=[1]", "did you mean seeds?"),
    "unknown protocol key": ("protocol.epoch=1", "did you mean protocol.epochs?"),
    "unknown task in a protocol": ("protocols.GADD.epochs=1", "did you mean GAD?"),
    "unknown task in a group": ("groups.mine=[GADD]", "did you mean GAD?"),
    "a protocol's value of another kind": ("protocol.epochs=many", "'many'"),
    "no epochs": ("protocol.epochs=0", "too small"),
    "a seed twice": ("seeds=[1,1]", "twice"),
    "unknown pooling": ("pooling=max", "cls, mean"),
    "no jobs": ("jobs=0", "use an integer of 1 or more"),
    "an empty bound of equivalence": ("equivalence_points=0", "use a number above 0 and below 100"),
}


@pytest.mark.parametrize(("override", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_an_evaluation_is_one_sentence(override, said):
    with pytest.raises(UserError) as error:
        load_evaluation(EVAL / "en.yaml", [override], ["base=x"])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_evaluation_without_models(tmp_path):
    with pytest.raises(UserError, match="add --model name=path"):
        load_evaluation(EVAL / "en.yaml")
    with pytest.raises(UserError, match="not of the form name=path"):
        load_evaluation(EVAL / "en.yaml", (), ["base"])


@pytest.mark.parametrize("name", TASKS)
def test_the_sample_tasks_are_the_same_every_time_and_no_text_is_in_two_splits(name):
    task = SAMPLE_TASKS[name]
    splits = task.read(Path()).splits
    assert splits == task.read.__wrapped__(Path()).splits
    texts = {split: {document.text for document in splits[split]} for split in SPLITS}
    assert all(len(splits[split]) > 50 for split in SPLITS)
    assert len(set.union(*texts.values())) >= 0.95 * sum(map(len, splits.values()))
    for document in splits["train"]:
        assert all(document.text[e.start : e.end].strip() for e in document.entities)
        assert set(document.labels) | {e.label for e in document.entities} <= set(task.labels)


def test_probes_tell_a_trained_model_from_a_random_one_and_do_not_change(encoders, trained_encoder):
    found = probe_models([encoders["modernbert"], trained_encoder], None, None, 60)
    random, trained = (found[path]["scores"] for path in (encoders["modernbert"], trained_encoder))
    assert trained["masked"] > random["masked"] + 3
    assert set(random) == {"masked", *TASKS}
    assert probe_models([trained_encoder], None, None, 60)[trained_encoder]["scores"] == trained


PROBED = Task("mine", "en", "entities", ("Drug",), "micro_f1", lambda folder: {})
WITHOUT = Document("1", "a b")
WITH = Document("2", "a b", entities=(Entity("Drug", 0, 1),))


@pytest.mark.parametrize(
    ("changes", "train", "test", "said"),
    [
        ({}, WITHOUT, WITH, "0 classes of text or entity"),
        ({}, WITH, WITHOUT, "its test documents 0 examples"),
        ({"kind": "single_label"}, Document("3", "a", labels=("x",)), WITH, "1 classes of text or entity"),
    ],
)
def test_documents_that_are_not_enough_for_a_probe_are_said(encoders, changes, train, test, said):
    task = replace(PROBED, **changes)
    with pytest.raises(UserError, match=rf"^mine cannot be probed: .*{said}"):
        probe(encoders["bert"], [(task, {"train": [train], "validation": [], "test": [test]})], 60)


@pytest.fixture(scope="module")
def trained_encoder(encoders, tmp_path_factory) -> str:
    """The tiny ModernBERT after some steps of masked language modelling on sample texts."""
    import torch
    from transformers import AutoTokenizer

    from clm_detour.data.tokenizer import copy_tokenizer
    from clm_detour.model import ModernBertForPretraining
    from sample_corpus.documents import generate

    network = ModernBertForPretraining.from_pretrained(encoders["modernbert"]).train()
    tokenizer = AutoTokenizer.from_pretrained(encoders["modernbert"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for made in generate("abstracts", 60, seed=1):
        ids = torch.tensor([tokenizer(made["text"])["input_ids"]])
        hidden = torch.rand(ids.shape) < 0.2
        inputs, labels = torch.where(hidden, tokenizer.mask_token_id, ids), torch.where(hidden, ids, -100)
        network(inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("trained") / "model"
    network.save_pretrained(folder)
    copy_tokenizer(encoders["modernbert"], folder)
    return str(folder)


def test_texts_in_windows_are_one_sentence_a_task_that_names_models_if_they_differ():
    def record(model, task, windowed):
        counts = {"train": {"documents_in_windows": windowed}, "test": {}}
        documents, protocol = {"train": 9, "test": 3}, {"max_tokens": 64}
        return {"model": model, "task": task, "counts": counts, "documents": documents, "protocol": protocol}

    records = [record(model, "A", 5) for model in ("ours", "other")] * 2
    records += [record("ours", "B", 2), record("other", "B", 0)]
    assert list(windows_of(records, ["ours", "other"])) == [
        "A: 5 of 12 texts are longer than 64 tokens and are read in overlapping windows.",
        "B: 2 of 12 texts are longer than 64 tokens and are read in overlapping windows (ours).",
    ]
