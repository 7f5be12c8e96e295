"""Fine-tuning: every encoder learns every kind of task, with the same bits for the same seed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from clm_detour.config.protocols import Protocol
from clm_detour.evaluate.finetune import run, training
from clm_detour.evaluate.finetune.batch import Batch, EpochBatches
from clm_detour.evaluate.finetune.classifier import positive_weights
from clm_detour.evaluate.finetune.loop import FitSettings, make_optimizer, schedule_factor
from clm_detour.evaluate.finetune.task_model import make_examples, make_task_model
from clm_detour.evaluate.finetune.training import Trained, best_round, length_of, prepare, train
from clm_detour.evaluate.tasks.task import Document, Entity, Task
from clm_detour.measure.encoder import load_encoder, output_layer
from clm_detour.model.families import FAMILIES
from clm_detour.model.pretrained import longest_input, read_encoder_config
from clm_detour.utils.errors import UserError

PROTOCOL = Protocol(learning_rate=3e-3, epochs=6, batch_size=8, max_tokens=48)
DRUGS, ILLNESSES = ("aspirin", "letrozole", "tadalafil"), ("asthma", "gout", "migraine")


def entity_document(number: int, nested: bool = False) -> Document:
    drug, illness = DRUGS[number % 3], ILLNESSES[number // 3 % 3]
    text = f"We gave {drug} for {illness} in trial {number}."
    first, second = text.index(drug), text.index(illness)
    entities = [Entity("Drug", first, first + len(drug)), Entity("Illness", second, second + len(illness))]
    if nested:
        entities.append(Entity("Therapy", first, second + len(illness)))
    return Document(str(number), text, entities=tuple(sorted(entities, key=lambda e: (e.start, e.end))))


def label_document(number: int, several: bool) -> Document:
    drug, illness = number % 3, number // 3 % 3
    text = f"Patient {number} has {ILLNESSES[illness]} and takes {DRUGS[drug]}."
    labels = (("one", "two", "three")[drug], *(("ill",) if several and illness == 0 else ()))
    return Document(str(number), text, labels=labels)


MAKE = {
    "entities": (entity_document, ("Drug", "Illness")),
    "nested_entities": (lambda n: entity_document(n, nested=True), ("Drug", "Illness", "Therapy")),
    "single_label": (lambda n: label_document(n, several=False), ("one", "two", "three")),
    "multi_label": (lambda n: label_document(n, several=True), ("ill", "one", "three", "two")),
}


def make_task(kind: str, protocol: Protocol = PROTOCOL):
    make, labels = MAKE[kind]
    sizes = {"train": range(64), "validation": range(100, 118), "test": range(200, 218)}
    splits = {split: [make(n) for n in numbers] for split, numbers in sizes.items()}
    task = Task(f"made-{kind}", "en", kind, labels, "micro_f1", lambda folder: splits, protocol=protocol)
    return task, splits


def fine_tune(path: str, kind: str, seed: int = 42, protocol: Protocol = PROTOCOL, **options) -> Trained:
    task, splits = make_task(kind, protocol)
    prepared = prepare(task, splits, load_encoder(path)[1], protocol.max_tokens)
    return train(prepared, lambda: load_encoder(path)[0], protocol, seed, lambda *_: None, **options)


@pytest.fixture(scope="module")
def trained(encoders):
    longer = dataclasses.replace(PROTOCOL, epochs=12)
    protocols = {kind: PROTOCOL if "entities" in kind else longer for kind in MAKE}
    return {kind: fine_tune(encoders["modernbert"], kind, protocol=each) for kind, each in protocols.items()}


@pytest.mark.parametrize("kind", MAKE)
def test_every_kind_of_task_is_learned(trained, kind):
    assert trained[kind].scores["micro_f1"] > 0.9
    losses = [each["loss"] for each in trained[kind].rounds]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("kind", "encoder"), [("entities", "bert"), ("single_label", "roberta"), ("entities", "ernie")]
)
def test_other_encoders_learn_through_the_same_interface(encoders, kind, encoder):
    protocol = dataclasses.replace(PROTOCOL, epochs=12)
    assert fine_tune(encoders[encoder], kind, protocol=protocol).scores["micro_f1"] > 0.8


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(encoders, trained):
    protocol = dataclasses.replace(PROTOCOL, epochs=2)
    torch.manual_seed(5)  # what was drawn before does not matter
    one, same, other = (fine_tune(encoders["modernbert"], "entities", s, protocol) for s in (1, 1, 2))
    assert one == same
    assert [each["loss"] for each in one.rounds] != [each["loss"] for each in other.rounds]


def test_training_stops_when_patience_ends_and_answers_with_the_best_weights(encoders):
    protocol = dataclasses.replace(PROTOCOL, learning_rate=1e-9, epochs=6)
    stopped = fine_tune(encoders["modernbert"], "single_label", protocol=protocol, patience=2)
    assert len(stopped.rounds) == 3
    assert stopped.best is stopped.rounds[0]


def test_the_first_of_equally_good_rounds_is_the_best():
    assert best_round([{"validation": {"f1": score}} for score in (0.1, 0.7, 0.3, 0.7)], "f1") == 1


def test_rounds_without_the_score_come_last():
    assert best_round([{"validation": one} for one in ({}, {"auroc": 0.1}, {})], "auroc") == 1
    assert best_round([{"validation": {}}] * 2, "auroc") == 0


def test_auroc_cannot_be_the_score_of_a_test_split_of_one_class(encoders):
    task, splits = make_task("single_label")
    splits["test"] = [one for one in splits["test"] if one.labels == ("one",)]
    with pytest.raises(UserError, match="no AUROC; choose another metric"):
        prepare(dataclasses.replace(task, metric="auroc"), splits, load_encoder(encoders["bert"])[1], 48)


def test_auroc_of_two_classes_is_that_of_the_difference_of_their_logits(encoders, monkeypatch):
    answers = [[5.0, 4.0], [1.0, 2.0], [0.0, 0.5], [9.0, 9.2]]  # by the second alone the worst order
    task, splits = make_task("single_label", dataclasses.replace(PROTOCOL, epochs=1))
    labels = ("one", "two", "two", "one")
    few = [
        dataclasses.replace(one, labels=(label,))
        for one, label in zip(splits["test"][:4], labels, strict=True)
    ]
    splits = {"train": few, "validation": few, "test": few}
    task = dataclasses.replace(task, labels=("one", "two"), metric="auroc")
    prepared = prepare(task, splits, load_encoder(encoders["bert"])[1], 48)
    monkeypatch.setattr(training, "predict", lambda *_: answers)
    found = train(prepared, lambda: load_encoder(encoders["bert"])[0], task.protocol, 1, lambda *_: None)
    assert found.scores["auroc"] == 1


def test_a_run_given_in_steps_is_validated_twenty_times():
    steps, ends = length_of(dataclasses.replace(PROTOCOL, steps=4000), epoch_steps=1)
    assert (steps, len(ends), ends[-1]) == (4000, 20, 4000)
    assert length_of(dataclasses.replace(PROTOCOL, epochs=3), epoch_steps=5) == (15, [5, 10, 15])


def test_every_epoch_sees_every_example_once_in_another_order():
    batches = EpochBatches(list(range(20)), 8, seed=1, device=torch.device("cpu"))
    first, again, second = ([x for b in batches.epoch(e) for x in b.examples] for e in (0, 0, 1))
    assert first == again != second
    assert sorted(first) == sorted(second) == list(range(20))


@pytest.mark.parametrize("encoder", ["bert", "ernie"])
@pytest.mark.parametrize("kind", ["entities", "single_label", "multi_label"])
def test_loss_and_gradients_are_those_of_transformers_own_classifier(encoders, kind, encoder):
    task, splits = make_task(kind)
    network, tokenizer = load_encoder(encoders[encoder])
    assert network.packed == (encoder == "bert")
    examples, _ = make_examples(task, splits["train"][:8], tokenizer, 48)
    torch.manual_seed(0)
    problem = make_task_model(task, network, splits["train"], examples).eval()  # dropout draws differ
    auto = AutoModelForTokenClassification if kind == "entities" else AutoModelForSequenceClassification
    problem_type = "multi_label_classification" if kind == "multi_label" else None
    theirs = auto.from_pretrained(
        encoders[encoder], num_labels=problem.head.out_features, problem_type=problem_type
    ).eval()
    theirs.classifier.load_state_dict(problem.head.state_dict())
    if kind != "entities":
        pooler = network.network.head if network.packed else network.pooler
        theirs.base_model.pooler.load_state_dict(pooler.state_dict())
    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), tokenizer.pad_token_id)
    mask, tags = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
        tags[row, example.places] = example.target if kind == "entities" else -100
    labels = tags if kind == "entities" else torch.stack([example.target for example in examples])
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss = problem.loss(Batch(examples, torch.device("cpu")))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    if network.packed:
        grads = FAMILIES["bert"].to_ours(grads, "ForSequenceClassification", True, "")[0]
    else:
        grads = {name.removeprefix("ernie."): grad for name, grad in grads.items()}
    found = {name: p.grad for name, p in network.network.named_parameters() if p.grad is not None}
    assert len(found) > 20
    for name, grad in found.items():
        torch.testing.assert_close(grad, grads[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("encoder", ["modernbert", "bert", "ernie"])
def test_a_fresh_output_layer_is_drawn_as_transformers_draws_its_own(encoders, encoder):
    network, _ = load_encoder(encoders[encoder])
    torch.manual_seed(0)
    ours = output_layer(network, 4000)
    theirs = AutoModelForTokenClassification.from_pretrained(encoders[encoder], num_labels=4000).classifier
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.05)
    assert not ours.bias.any()
    assert not theirs.bias.any()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("encoder", ["modernbert", "bert", "roberta", "ernie"])
def test_a_documents_answer_does_not_depend_on_its_batch(encoders, kind, encoder):
    task, splits = make_task(kind)
    network, tokenizer = load_encoder(encoders[encoder])
    examples, _ = make_examples(task, splits["test"], tokenizer, 48)
    torch.manual_seed(0)
    problem = make_task_model(task, network, splits["test"], examples).eval()
    together = problem.logits(Batch(examples[:5], torch.device("cpu")))
    alone = [problem.logits(Batch([example], torch.device("cpu"))) for example in examples[:5]]
    if kind == "nested_entities":
        together, alone = (
            torch.cat([t.flatten() for t in together]),
            [a.flatten() for one in alone for a in one],
        )
    torch.testing.assert_close(together, torch.cat(list(alone)), rtol=1e-4, atol=1e-5)


def test_a_labels_weight_is_its_negatives_over_its_positives(encoders):
    task, splits = make_task("multi_label", dataclasses.replace(PROTOCOL, positive_weight=True))
    network, tokenizer = load_encoder(encoders["bert"])
    examples, _ = make_examples(task, splits["train"], tokenizer, 48)
    problem = make_task_model(task, network, splits["train"], examples)
    for label, weight in zip(task.labels, problem.positive_weight.tolist(), strict=True):
        positives = sum(label in document.labels for document in splits["train"])
        assert weight == pytest.approx((64 - positives) / positives)


def test_a_label_of_all_documents_or_of_none_weighs_one():
    documents = [dataclasses.replace(label_document(n, several=False), labels=("all",)) for n in range(4)]
    documents[0] = dataclasses.replace(documents[0], labels=("all", "one"))
    assert positive_weights(documents, ("all", "none", "one")).tolist() == [1, 1, 3]


def test_the_head_alone_trains_at_a_rate_of_its_own(encoders):
    task, splits = make_task("single_label")
    network, _ = load_encoder(encoders["modernbert"])
    problem = make_task_model(task, network, splits["train"], [])
    settings = FitSettings(10, 1e-5, 1e-3, 0.01, 0.2, seed=1)
    groups = make_optimizer(problem, settings).param_groups
    fast = [parameter for group in groups if group["peak"] == 1e-3 for parameter in group["params"]]
    assert {id(p) for p in fast} == {id(p) for p in problem.head.parameters()}
    assert all(group["weight_decay"] == (0.01 if group["params"][0].ndim > 1 else 0) for group in groups)
    assert [schedule_factor(step, settings) for step in (0, 1, 2, 6, 9)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0.125]
    )


def test_a_label_that_is_not_the_tasks(encoders):
    task, splits = make_task("single_label")
    splits["test"][0] = dataclasses.replace(splits["test"][0], labels=("four",))
    with pytest.raises(
        UserError, match=r"made-single_label: document 200 has the label 'four'.*one, two, three"
    ):
        prepare(task, splits, load_encoder(encoders["bert"])[1], 48)
    splits["test"][0] = dataclasses.replace(splits["test"][0], labels=("one", "two"))
    with pytest.raises(UserError, match="has 2 labels"):
        prepare(task, splits, load_encoder(encoders["bert"])[1], 48)


def test_an_empty_split(encoders):
    task, splits = make_task("entities")
    with pytest.raises(UserError, match="no documents in its test split"):
        prepare(task, {**splits, "test": []}, load_encoder(encoders["bert"])[1], 48)


def broken(folder: str, to: Path, config: dict | None = None, without: str | None = None) -> str:
    """A copy of a model's folder with something wrong."""
    to.mkdir()
    for file in Path(folder).iterdir():
        if file.name != without:
            (to / file.name).write_bytes(file.read_bytes())
    if config is not None:
        (to / "config.json").write_text(json.dumps(config))
    return str(to)


def test_a_folder_that_is_no_encoder(encoders, tmp_path):
    gpt = {"model_type": "gpt2", "vocab_size": 832, "architectures": ["GPT2LMHeadModel"]}
    with pytest.raises(UserError, match="gpt2 model, which is no bidirectional encoder"):
        load_encoder(broken(encoders["bert"], tmp_path / "gpt", gpt))
    with pytest.raises(UserError, match="nowhere does not exist; give a Hugging Face folder or hub id"):
        load_encoder(str(tmp_path / "nowhere"))
    t5 = {"model_type": "t5", "vocab_size": 832}
    with pytest.raises(UserError, match="is an encoder-decoder, not an encoder; save its encoder alone"):
        load_encoder(broken(encoders["bert"], tmp_path / "t5", t5))


@pytest.mark.parametrize("kind", ["bert", "ernie", "modernbert"])
def test_a_folder_without_tokenizer_or_weights(encoders, tmp_path, kind):
    with pytest.raises(UserError, match="tokenizer"):
        load_encoder(broken(encoders[kind], tmp_path / "bare", without="tokenizer.json"))
    with pytest.raises(UserError, match="safetensors"):
        load_encoder(broken(encoders[kind], tmp_path / "empty", without="model.safetensors"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "ernie", "modernbert"])
def test_an_encoder_reads_as_much_as_is_said_of_its_config(encoders, kind):
    encoder, _ = load_encoder(encoders[kind])
    assert encoder.longest == longest_input(read_encoder_config(encoders[kind]))


def test_a_modernbert_whose_config_has_no_limit_has_none(encoders, tmp_path):
    config = json.loads((Path(encoders["modernbert"]) / "config.json").read_text())
    folder = broken(encoders["modernbert"], tmp_path / "endless", {**config, "max_position_embeddings": -1})
    assert load_encoder(folder)[0].longest is None


def test_a_tokenizer_that_is_too_large_for_the_model(encoders, tmp_path):
    config = json.loads((Path(encoders["bert"]) / "config.json").read_text())
    with pytest.raises(UserError, match="vocabulary only 100"):
        load_encoder(broken(encoders["bert"], tmp_path / "small", {**config, "vocab_size": 100}))


def test_nested_entities_wider_than_any_of_training_are_counted(encoders):
    def document(id: str, words: int) -> Document:
        return Document(id, "a b c d e", entities=(Entity("Drug", 0, 2 * words - 1),))

    task = Task("wide", "en", "nested_entities", ("Drug",), "micro_f1", lambda folder: {}, protocol=PROTOCOL)
    splits = {
        "train": [document("1", 2)],
        "validation": [document("2", 2)],
        "test": [document("3", 5), document("4", 1)],
    }
    counts = prepare(task, splits, load_encoder(encoders["bert"])[1], 48).counts
    assert [counts[split]["too_wide_entities"] for split in splits] == [0, 0, 1]


def test_a_test_without_the_classes_that_its_metric_counts_is_refused(encoders):
    task, splits = make_task("single_label")
    task = dataclasses.replace(task, metric="positive_f1", negative="one")
    splits["test"] = [one for one in splits["test"] if one.labels == ("one",)]
    with pytest.raises(
        UserError, match="No document of the test split of made-single_label has a label that counts"
    ):
        prepare(task, splits, load_encoder(encoders["bert"])[1], 48)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_run_uses_tf32_only_if_it_is_asked_to(encoders, tmp_path, monkeypatch, precision):
    task, splits = make_task("single_label")
    seen = []

    def stop(*arguments):
        seen.append((torch.backends.cuda.matmul.allow_tf32, arguments[-1]))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", stop)
    options = run.RunOptions(precision=precision)
    one = run.Run("encoder", encoders["modernbert"], task, 42, options, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.fine_tune(one, splits, lambda *_: None)
    assert seen == [(precision == "tf32", precision == "bf16")]
    assert torch.backends.cuda.matmul.allow_tf32 is False
