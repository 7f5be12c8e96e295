"""Weights, gradients, transplants, needles, arms: each number is what its definition says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from clm_detour.analyze.gradients import gradients
from clm_detour.analyze.needles import HaystackParts, find_needles, haystacks, whole_words
from clm_detour.analyze.transplant import (
    Graft,
    standard_grafts,
    transplant,
    transplant_table,
    try_grafts,
    write_transplant,
)
from clm_detour.analyze.weights import weight_change
from clm_detour.config.units import layer_thirds
from clm_detour.data.objectives import Objective
from clm_detour.data.tokenizer import copy_tokenizer, load_tokenizer
from clm_detour.measure.scorer import masked_loss, open_masked, text_batches
from clm_detour.model import ModernBertForPretraining, ModernBertForSequenceClassification, ModernBertModel
from clm_detour.utils.errors import UserError

from .test_compare import assert_refused, saved_causal


def weights_of(path: str) -> dict[str, torch.Tensor]:
    return load_file(f"{path}/model.safetensors")


def test_weight_change_is_the_norm_of_the_difference_over_the_norm(models):
    found = weight_change(models["base"], models["near"])
    old, new = weights_of(models["base"]), weights_of(models["near"])

    def relative(*names: str) -> float:
        moved, size = (torch.cat([w[n].double().flatten() for n in names]) for w in (old, new))
        return float((size - moved).norm() / moved.norm())

    mlp = relative("model.layers.1.mlp.Wi.weight", "model.layers.1.mlp.Wo.weight")
    assert found["change"]["1"]["mlp"] == pytest.approx(mlp, rel=1e-6)
    assert found["change"]["embeddings"]["embeddings"] == pytest.approx(
        relative("model.embeddings.tok_embeddings.weight")
    )
    assert found["whole"]["all"] == pytest.approx(relative(*old), rel=1e-6)
    assert found["change"]["2"]["norms"] == 0  # these models share their norms
    assert found["layers"] == ["embeddings", "0", "1", "2", "final_norm", "head"]


def test_every_weight_counts_once(models):
    moved = weight_change(models["base"], models["far"])
    old, new = weights_of(models["base"]), weights_of(models["far"])
    size = {n: float(w.double().square().sum()) for n, w in old.items()}
    total = sum(float((new[n].double() - w.double()).square().sum()) for n, w in old.items())
    assert moved["whole"]["all"] ** 2 * sum(size.values()) == pytest.approx(total, rel=1e-6)


def test_models_of_other_shape_have_no_weight_change(models):
    with pytest.raises(UserError, match="same weights"):
        weight_change(models["base"], models["deep"])


def test_masked_loss_is_that_of_transformers(models, texts):
    network, tokenizer = open_masked(models["far"])
    theirs = AutoModelForMaskedLM.from_pretrained(models["far"]).eval()
    total = count = 0
    for batch in text_batches(tokenizer, texts[:6], 64, Objective("mlm", 0.15), seed=0):
        for ids, labels in zip(
            *(batch[key][0].split(batch["document_lengths"][0]) for key in ("input_ids", "labels")),
            strict=True,
        ):
            with torch.no_grad():
                logits = theirs(input_ids=ids[None]).logits[0]
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += int((labels != -100).sum())
    ((loss_sum, predicted),) = masked_loss(network, tokenizer, texts[:6], 64)
    assert float(loss_sum) == pytest.approx(total, rel=1e-4)
    assert predicted == count
    folds = masked_loss(network, tokenizer, texts[:6], 64, folds=3)
    assert torch.equal(folds[1:2], masked_loss(network, tokenizer, texts[1:6:3], 64))


def test_what_fills_masks_reads_in_both_directions_whatever_the_folder_says(models, texts, tmp_path):
    causal = saved_causal(models["far"], tmp_path / "causal")
    sums = [masked_loss(*open_masked(path), texts[:6], 64) for path in (models["far"], causal)]
    assert torch.equal(*sums)
    found = find_needles([models["far"], causal], texts, [96], 20)
    assert found["accuracy"][causal] == found["accuracy"][models["far"]]
    assert found["control"][causal] == found["control"][models["far"]]
    objectives = [gradients(path, texts[:6], 64)["objectives"] for path in (models["far"], causal)]
    assert objectives[0] == objectives[1]
    losses = try_grafts(causal, models["near"], [Graft("x", 1, 2)], texts[:10], 64)
    assert losses == {
        **try_grafts(models["far"], models["near"], [Graft("x", 1, 2)], texts[:10], 64), "donor": causal
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["body", "classifier"])
def test_a_model_without_a_masked_head_is_refused_before_any_is_run(
    models, texts, tmp_path, monkeypatch, kind
):
    if kind == "body":
        ModernBertModel.from_pretrained(models["far"]).save_pretrained(tmp_path)
    else:
        ModernBertForSequenceClassification.from_encoder(models["far"], num_labels=3).save_pretrained(
            tmp_path
        )
    copy_tokenizer(models["far"], tmp_path)
    opened = []
    monkeypatch.setattr("clm_detour.analyze.needles.open_masked", opened.append)
    with pytest.raises(UserError, match="no masked-LM head"):
        find_needles([models["far"], str(tmp_path)], texts, [64], 2)
    assert not opened
    with pytest.raises(UserError, match="no masked-LM head"):
        gradients(str(tmp_path), texts[:6], 64)


def test_a_model_without_a_tokenizer_is_refused_before_any_looks_for_needles(
    models, texts, tmp_path, monkeypatch
):
    opened = []
    monkeypatch.setattr("clm_detour.analyze.needles.open_masked", opened.append)
    ModernBertForPretraining.from_pretrained(models["far"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no (fast )?tokenizer.*save_pretrained"):
        find_needles([models["far"], str(tmp_path)], texts, [64], 2)
    assert not opened


def test_weights_of_bodies_are_told_by_layer_as_those_of_whole_models(models, tmp_path):
    for name in ("base", "far"):
        ModernBertModel.from_pretrained(models[name]).save_pretrained(tmp_path / name)
    whole = weight_change(models["base"], models["far"])["change"]
    assert weight_change(str(tmp_path / "base"), str(tmp_path / "far"))["change"] == {
        layer: kinds for layer, kinds in whole.items() if layer != "head"
    }


def test_gradient_norms_are_those_of_the_mean_loss_and_density_is_counted(models, texts):
    found = gradients(models["far"], texts[:6], 64)
    network, tokenizer = open_masked(models["far"])
    network.causal = True
    (batch,) = text_batches(tokenizer, texts[:6], 64, Objective("clm"), seed=0)
    network(**batch).loss.backward()
    wi, wo = (network.get_parameter(f"model.layers.1.mlp.{name}.weight").grad for name in ("Wi", "Wo"))
    clm = found["objectives"]["clm"]
    assert clm["norms"]["1"]["mlp"] == pytest.approx(
        float((wi.square().sum() + wo.square().sum()).sqrt()), rel=1e-4
    )
    assert clm["norm"] == pytest.approx(
        float(sum(p.grad.square().sum() for p in network.parameters()).sqrt()), rel=1e-4
    )
    assert clm["predicted"] == found["tokens"] - 6  # all but the last of each text
    assert clm["density"] > 0.9 > 0.35 > found["objectives"]["mlm 30 %"]["density"]


def test_in_the_last_layer_gradient_reaches_the_supervised_positions_only(models, texts):
    found = gradients(models["far"], texts[:6], 64)["objectives"]
    for values in found.values():
        assert values["reached"]["2"] == pytest.approx(values["density"])
        assert values["reached"]["0"] >= values["reached"]["2"]
        assert all(0 < share <= values["reached"][layer] + 1e-9 for layer, share in values["spread"].items())


def test_gradients_of_texts_of_which_nothing_is_predicted_are_refused(models):
    with pytest.raises(
        UserError, match=r"The texts are too few: under mlm \d+ % no token of them is predicted"
    ):
        gradients(models["far"], ["a"], 64)


def test_a_transplant_takes_what_it_names_and_nothing_else(models, tmp_path):
    write_transplant(models["far"], models["near"], Graft("x", 1, 2, "attention"), tmp_path / "made")
    made, donor, recipient = (weights_of(path) for path in (tmp_path / "made", models["far"], models["near"]))
    for name, weight in made.items():
        taken = any(f"layers.{i}.attn" in name for i in (1, 2))
        assert torch.equal(weight, (donor if taken else recipient)[name]), name
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "made").config.num_hidden_layers == 3
    about = json.loads((tmp_path / "made" / "clm_detour.json").read_text())
    assert about["transplant"]["donor"] == models["far"]


def test_a_transplant_copies_no_weight(models):
    donor, recipient = (open_masked(models[name])[0] for name in ("far", "near"))
    own = {weight.data_ptr() for network in (donor, recipient) for weight in network.state_dict().values()}
    assert {weight.data_ptr() for weight in transplant(donor, recipient, Graft("x", 1, 2)).values()} <= own


def test_the_standard_transplants_cover_every_layer_once():
    for layers in (2, 3, 4, 22, 28):
        covered = [i for first, last in layer_thirds(layers).values() for i in range(first, last + 1)]
        assert covered == list(range(layers))
    assert [graft.name for graft in standard_grafts(22)] == [
        "low",
        "mid",
        "high",
        "attention",
        "mlp",
        "layers",
    ]


def test_all_layers_of_a_model_with_the_same_rest_close_the_gap(models, texts, tmp_path):
    write_transplant(models["far"], models["near"], Graft("all", 0, 2), tmp_path / "donor")
    found = try_grafts(str(tmp_path / "donor"), models["near"], None, texts[:20], 64)
    closed = {item["name"]: item["closed"] for item in found["transplants"]}
    assert closed["layers"] == pytest.approx(1)
    assert closed["low"] != pytest.approx(closed["high"])
    loss = {item["name"]: item["loss"] for item in found["transplants"]}
    assert found["gap"] == pytest.approx(found["loss"]["recipient"] - found["loss"]["donor"])
    assert closed["mid"] == pytest.approx((found["loss"]["recipient"] - loss["mid"]) / found["gap"])
    for item in found["transplants"]:
        low, high = item["interval"]
        assert low - 1e-9 <= item["closed"] <= high + 1e-9
    assert found["gap_interval"][0] < found["gap"] < found["gap_interval"][1]


def test_there_is_no_gap_between_a_model_and_itself(models, texts):
    found = try_grafts(models["near"], models["near"], None, texts[:20], 64)
    assert (found["gap"], found["gap_interval"]) == (0, [0, 0])
    assert all(item["closed"] is None for item in found["transplants"])
    assert "none to speak of" in str(transplant_table(found).title)


def test_transplants_that_make_no_sense(run_cli, models, texts_file):
    assert_refused(run_cli("transplant", models["far"], models["near"]), "--texts", "--to")
    words = ["--texts", texts_file]
    assert_refused(run_cli("transplant", models["far"], models["near"], "--layers", "2-9", *words), "0-2")
    assert_refused(run_cli("transplant", models["far"], models["near"], "--layers", "0,2", *words), "gaps")
    assert_refused(
        run_cli("transplant", models["far"], models["near"], "--part", "heads", *words), "attention"
    )
    assert_refused(run_cli("transplant", models["far"], models["deep"], *words), "same weights")


def test_too_few_texts_for_an_interval_are_one_sentence(run_cli, models, texts_file, tmp_path):
    words = ["--texts", texts_file, "--output", tmp_path, "--count", 1]
    assert_refused(run_cli("transplant", models["far"], models["near"], *words), "too few", "--count")
    assert run_cli("transplant", models["far"], models["near"], *words[:-1], 2)[0] == 0


def test_haystacks_have_their_length_and_the_needle_at_its_place(models):
    tokenizer = load_tokenizer(models["far"])
    words = whole_words(tokenizer, 0)
    values, keys = words[:20], words[20:]
    parts = HaystackParts(tokenizer, np.full(3000, words[-1]), keys, values)
    needle_at = []
    for position in (0.0, 0.5, 1.0):
        for ids, right in haystacks(parts, 128, position, 5, 0):
            assert len(ids) == 128
            assert (ids == tokenizer.mask).sum() == 1
            found = np.flatnonzero(ids == values[right])
            needle_at.append(found[0] / 128)
    assert np.all(np.diff([np.mean(needle_at[i : i + 5]) for i in (0, 5, 10)]) > 0.2)
    for ids, right in haystacks(parts, 128, None, 5, 0):
        assert values[right] not in ids


def test_needles_open_each_model_once_whatever_the_number_of_lengths(models, texts, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "clm_detour.analyze.needles.open_masked", lambda path: opened.append(path) or open_masked(path)
    )
    both = [models["far"], models["near"]]
    together = find_needles(both, texts, [64, 96], 2)
    assert opened == both
    alone = [find_needles(both, texts, [length], 2) for length in (64, 96)]
    for path in both:
        assert together["control"][path] == [found["control"][path][0] for found in alone]
        assert together["accuracy"][path] == [found["accuracy"][path][0] for found in alone]


def test_untrained_models_find_needles_by_chance_only(models, texts):
    found = find_needles([models["far"]], texts, [96], 40)
    (row,) = found["accuracy"][models["far"]]
    assert len(row) == 5
    assert np.mean(row) < 0.25
    assert found["chance"] == 0.05


def test_the_commands_write_what_they_show(run_cli, models, texts_file, tmp_path):
    words = ["--text-field", "text", "--output", tmp_path, "--texts", texts_file]
    assert run_cli("weights", models["base"], models["near"], "--output", tmp_path)[0] == 0
    assert run_cli("gradients", models["base"], "--count", 5, *words)[0] == 0
    assert (
        run_cli("transplant", models["far"], models["near"], "--layers", "0-1", "--count", 5, *words)[0] == 0
    )
    assert run_cli("needles", models["far"], "--lengths", "96", "--trials", 2, *words)[0] == 0
    for name in ("weights", "gradients", "transplant", "needles"):
        assert json.loads((tmp_path / f"{name}.json").read_text())
    assert_refused(run_cli("needles", models["far"], "--lengths", "8", *words), "from 64")
    assert_refused(run_cli("arms", tmp_path), "none of a run's records")
