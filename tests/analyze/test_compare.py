"""`clm-detour compare`: the file holds what the definitions say, and a comparison that fails is one
sentence.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
)

from clm_detour.analyze.cka import cka
from clm_detour.analyze.compare import Settings, compare
from clm_detour.analyze.figures import divergence_chart
from clm_detour.analyze.show import comparison_tables, percent
from clm_detour.analyze.texts import StoredTexts, draw_samples, read_texts
from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.figures.renderers import rich_table
from clm_detour.measure.scorer import open_masked
from clm_detour.measure.states import open_encoder, read_states
from clm_detour.model import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
)
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.store import parse
from clm_detour.utils.errors import UserError

SMALL = Settings(per_sample=30, max_tokens=64, half_samples=40)
SIZES = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FOUR = ("biased", "debiased", "biased_trimmed", "debiased_trimmed")


@pytest.fixture(scope="module")
def compared(models, texts):
    """Far and near, another near as control, and before them near and near."""
    roles = {"a": "far", "b": "near", "control": "near2", "before_a": "far", "before_b": "base"}
    return compare({role: models[name] for role, name in roles.items()}, texts, SMALL)


def means(path: str, texts: list[str], max_tokens: int = 64) -> list[torch.Tensor]:
    """Return mean-pooled states from transformers, one text at a time; the last layer's before any final
    norm.
    """
    network, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    last = []  # transformers 5 gives the final norm in its place
    layers = network.layers if hasattr(network, "layers") else network.encoder.layer
    layers[-1].register_forward_hook(lambda _, __, output: last.append(output))
    found = []
    for text in texts:
        with torch.no_grad():
            output = network(
                **tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt"),
                output_hidden_states=True,
            )
        before = last.pop()
        states = [
            *output.hidden_states[:-1],
            before[0] if isinstance(before, tuple) else before,
            output.last_hidden_state,
        ]
        found.append([state[0].double().mean(0) for state in states])
    return [torch.stack(layer) for layer in zip(*found, strict=True)]


def assert_states(path: str, texts: list[str], expected: list[torch.Tensor]) -> None:
    encoder = open_encoder(path)
    pooled, _ = read_states(encoder, encoder.tokenize(texts, 64), None, lambda _: None)
    for ours, theirs in zip(pooled, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_packed_states_equal_those_of_the_padded_automodel(models, texts):
    assert open_encoder(models["far"]).packed
    assert_states(models["far"], texts[:30], means(models["far"], texts[:30]))


@pytest.mark.parametrize("kind", ["body", "sequence classifier", "token classifier"])
def test_every_modernbert_gives_the_states_of_the_one_it_was_made_from(models, texts, tmp_path, kind):
    if kind == "body":
        AutoModel.from_pretrained(models["far"]).save_pretrained(tmp_path)
    elif kind == "sequence classifier":
        ModernBertForSequenceClassification.from_encoder(models["far"], num_labels=3).save_pretrained(
            tmp_path
        )
    else:
        ModernBertForTokenClassification.from_encoder(models["far"], num_labels=3).save_pretrained(tmp_path)
    copy_tokenizer(models["far"], tmp_path)
    assert open_encoder(str(tmp_path)).packed
    assert_states(str(tmp_path), texts[:30], means(models["far"], texts[:30]))


def test_states_are_bidirectional_whatever_the_folder_says(models, texts, tmp_path):
    assert_states(saved_causal(models["far"], tmp_path), texts[:10], means(models["far"], texts[:10]))


def saved_causal(path: str, folder: Path) -> str:
    """The model, saved as one that is causal."""
    network = ModernBertForPretraining.from_pretrained(path)
    network.causal = True
    network.save_pretrained(folder)
    copy_tokenizer(path, folder)
    return str(folder)


def test_compare_opens_bodies_of_our_class_and_of_sentence_transformers(models, texts, tmp_path):
    root, inner = tmp_path / "root", tmp_path / "sentence" / "0_Transformer"
    for folder in (root, inner):
        ModernBertModel.from_pretrained(models["near"]).save_pretrained(folder)
        copy_tokenizer(models["near"], folder)
        (tmp_path / folder.relative_to(tmp_path).parts[0] / "modules.json").write_text("[]")
    itself = compare({"a": str(root), "b": models["near"]}, texts, SMALL)
    assert itself["comparisons"]["detour_twin"]["variants"]["biased"]["model"]["divergence"] < 1e-9
    with pytest.raises(UserError, match=r"its encoder lies in .*0_Transformer"):
        compare({"a": models["near"], "b": str(inner.parent)}, texts, SMALL)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize(
    ("missing", "said"),
    [("tokenizer.json", "tokenizer.*save_pretrained"), ("model.safetensors", "has no model.safetensors")],
)
def test_a_model_without_tokenizer_or_weights_is_refused_before_any_is_run(
    models, bert, texts, tmp_path, monkeypatch, kind, missing, said
):
    opened = []
    monkeypatch.setattr("clm_detour.analyze.compare.open_encoder", opened.append)
    folder = shutil.copytree(bert if kind == "bert" else models["near"], tmp_path / "broken")
    for file in ("tokenizer_config.json", "special_tokens_map.json", missing):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(UserError, match=said):
        compare({"a": models["far"], "b": str(folder)}, texts, SMALL)
    assert not opened


def test_a_body_that_lacks_a_weight_is_refused(models, tmp_path):
    body = AutoModel.from_pretrained(models["far"])
    weights = {name: weight for name, weight in body.state_dict().items() if "layers.1.mlp.Wo" not in name}
    body.save_pretrained(tmp_path, state_dict=weights)
    copy_tokenizer(models["far"], tmp_path)
    with pytest.raises(UserError, match=r"missing: model\.layers\.1\.mlp\.Wo\.weight"):
        open_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", ["ernie", "megatron-bert"])  # without and with a final norm
def test_another_encoder_goes_through_automodel(bert, texts, tmp_path, kind):
    config = AutoConfig.for_model(kind, **SIZES, vocab_size=len(AutoTokenizer.from_pretrained(bert)))
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    copy_tokenizer(bert, tmp_path)
    encoder = open_encoder(str(tmp_path))
    assert (encoder.packed, encoder.layers) == (False, ("embeddings", "0", "1", "final_norm"))
    assert_states(str(tmp_path), texts[:30], means(str(tmp_path), texts[:30]))


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_tokenizer_that_is_too_large_for_the_model_is_refused(bert, models, tmp_path, kind):
    folder = bert if kind == "bert" else models["far"]
    config = AutoConfig.from_pretrained(folder, vocab_size=100)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    copy_tokenizer(folder, tmp_path)
    with pytest.raises(UserError, match="its model's vocabulary only 100"):
        open_encoder(str(tmp_path))


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(tmp_path):
    AutoConfig.for_model("t5").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is an encoder-decoder"):
        open_encoder(str(tmp_path))


def test_a_masked_model_with_a_tokenizer_that_is_too_large_is_refused(models, tmp_path):
    config = AutoConfig.from_pretrained(models["far"], vocab_size=100)
    ModernBertForPretraining(config).save_pretrained(tmp_path)
    copy_tokenizer(models["far"], tmp_path)
    with pytest.raises(UserError, match="its model's vocabulary only 100"):
        open_masked(str(tmp_path))


def test_single_tokens_states_are_those_at_their_places(models, texts):
    encoder = open_encoder(models["far"])
    ids = encoder.tokenize(texts[:5], 64)
    places = [np.array([1, len(text) - 2]) for text in ids]
    _, tokens = read_states(encoder, ids, places, lambda _: None)
    alone = encoder.hidden_states(torch.from_numpy(ids[3]), [len(ids[3])])
    for layer, expected in zip(tokens, alone, strict=True):
        torch.testing.assert_close(layer[6:8].float(), expected[[1, -2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("debiased", [False, True])
def test_the_matrix_is_the_mean_of_cka_over_the_samples(compared, models, texts, debiased):
    samples = draw_samples(len(texts), 3, 30, 0)
    pooled = []
    for name in ("far", "near"):
        encoder = open_encoder(models[name])
        pooled.append(read_states(encoder, encoder.tokenize(texts, 64), None, lambda _: None)[0])
    values = [
        cka(*(z[layer][samples.pool[rows]] for z, layer in zip(pooled, (1, 4), strict=True)), debiased)
        for rows in samples.members
    ]
    variant = compared["comparisons"]["detour_twin"]["variants"]["debiased" if debiased else "biased"]
    assert variant["matrix"][1][4] == pytest.approx(np.mean(values), abs=1e-9)


def test_divergence_ratio_and_retention_are_three_numbers(compared):
    parts = compared["comparisons"]
    assert list(parts) == ["detour_twin", "control", "before"]
    assert parts["detour_twin"]["pairs"] == [
        [name, name] for name in ("embeddings", "0", "1", "2", "final_norm")
    ]
    for name in FOUR:
        divergences = {part: parts[part]["variants"][name]["model"]["divergence"] for part in parts}
        for part in parts.values():
            variant = part["variants"][name]
            assert variant["model"]["divergence"] == pytest.approx(np.mean(variant["divergence"][1:-1]))
            low, high = variant["model"]["interval"]
            assert low < variant["model"]["divergence"] < high
            assert len(variant["samples"]) == 3
        for key, below in (("ratio", "control"), ("retention", "before")):
            quotient = compared[key][name]
            assert quotient["model"] == pytest.approx(divergences["detour_twin"] / divergences[below])
            assert quotient["interval"][0] < quotient["model"] < quotient["interval"][1]
    assert compared["ratio"]["debiased"]["model"] > 3  # far is farther than near from near


def test_a_model_is_at_no_distance_from_itself(models, texts):
    itself = compare({"a": models["far"], "b": models["far"]}, texts, SMALL)
    variants = itself["comparisons"]["detour_twin"]["variants"]
    assert set(variants) == {*FOUR, "minibatch", "tokens"}
    for variant in variants.values():
        assert np.allclose(variant["divergence"], 0, atol=1e-9)
        assert np.allclose(np.diag(variant["matrix"]), 1, atol=1e-9)
    assert (itself["ratio"], itself["retention"]) == (None, None)
    assert any("No control" in note for note in itself["notes"])


def test_the_whole_file_in_blocks_gives_what_all_texts_at_once_give(models, texts, monkeypatch):
    monkeypatch.setattr("clm_detour.analyze.compare.EVERY_BLOCK", 25)
    pair = {"a": models["far"], "b": models["near"]}
    variants = compare(pair, texts, SMALL, every_text=True)["comparisons"]["detour_twin"]["variants"]
    pooled = []
    for path in pair.values():
        encoder = open_encoder(path)
        pooled.append(read_states(encoder, encoder.tokenize(texts, 64), None, lambda _: None)[0])
    exact = [cka(x, y) for x, y in zip(*pooled, strict=True)]
    assert np.allclose(variants["every_text_biased"]["cka"], exact, atol=1e-10)
    assert np.allclose(
        variants["every_text"]["cka"], [cka(x, y, True) for x, y in zip(*pooled, strict=True)], atol=0.1
    )


def test_every_model_is_opened_once_for_the_samples_and_once_for_the_whole_file(models, texts, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "clm_detour.analyze.compare.open_encoder", lambda path: opened.append(path) or open_encoder(path)
    )
    roles = {"a": models["far"], "b": models["near"], "control": models["near2"]}
    compare(roles, texts[:40], replace(SMALL, max_tokens=16), every_text=True)
    assert sorted(opened) == sorted(2 * list(roles.values()))


def test_stored_texts_are_the_texts(texts):
    texts = ["", "é\n\ud800", *texts[:10]]
    stored = StoredTexts(iter(texts))
    assert list(stored) == texts
    assert [stored[i] for i in np.array([3, 0, 11])] == [texts[3], "", texts[11]]
    assert (stored[-1], stored[2:5], len(stored)) == (texts[-1], texts[2:5], 12)
    with pytest.raises(IndexError):
        stored[12]


def test_texts_are_read_no_further_than_they_are_wanted(monkeypatch):
    def documents(_):
        yield from ("one", "two", "one", "three")
        pytest.fail("nobody asked for more")

    monkeypatch.setattr("clm_detour.analyze.texts.read_documents", documents)
    assert list(islice(read_texts("file"), 3)) == ["one", "two", "three"]


def test_models_of_other_depth_and_kind(models, bert, texts):
    deep = compare({"a": models["far"], "b": models["deep"]}, texts, SMALL)
    part = deep["comparisons"]["detour_twin"]
    assert part["pairs"][1:-1] == [["0", "0"], ["1", "2"], ["2", "4"]]
    assert np.array(part["variants"]["biased"]["matrix"]).shape == (5, 7)
    assert any("depth" in note for note in deep["notes"])
    other = compare({"a": models["far"], "b": bert}, texts, SMALL)
    assert other["texts"]["tokenised_alike"]
    assert other["models"]["b"]["network"] == "packed"


def test_texts_are_cut_at_what_every_model_can_read_and_it_is_said(bert, models, texts, tmp_path):
    short = BertModel(BertConfig.from_pretrained(bert, max_position_embeddings=24))
    short.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    found = compare({"a": models["far"], "b": str(tmp_path)}, texts, SMALL)
    assert found["texts"]["max_tokens"] == 24
    assert found["texts"]["tokenised_alike"]
    assert any("cut at 24 tokens" in note and "not at 64" in note for note in found["notes"])


def test_models_with_other_tokenizers_are_compared_on_texts_and_it_is_said(
    models, texts, tiny_data, tmp_path
):
    from clm_detour.data.tokenizer_training import train_tokenizer

    from .conftest import make_model

    train_tokenizer(texts[:50], 400, tmp_path / "tokenizer")
    other = make_model(tmp_path / "tokenizer", tmp_path / "other", 5)
    found = compare({"a": models["far"], "b": str(other)}, texts, SMALL)
    assert not found["texts"]["tokenised_alike"]
    assert "tokens" not in found["comparisons"]["detour_twin"]["variants"]
    assert any("tokenizers differ" in note for note in found["notes"])


def test_the_command_writes_json_csv_and_figures(run_cli, models, texts_file, tmp_path):
    words = ["--texts", texts_file, "--control", models["near2"], "--before", models["far"], models["base"]]
    sizes = ["--per-sample", "30", "--max-tokens", "48", "--output", tmp_path]
    code, said = run_cli("compare", models["far"], models["near"], *words, *sizes)
    assert code == 0, said
    assert "retention" in said
    found = json.loads((tmp_path / "compare.json").read_text())
    lines = list(csv.DictReader((tmp_path / "layers.csv").open()))
    assert {x["comparison"] for x in lines} == {"a_b", "control", "before"}
    (line,) = (
        x for x in lines if (x["comparison"], x["variant"], x["layer_a"]) == ("control", "debiased", "1")
    )
    assert (
        float(line["divergence"]) == found["comparisons"]["control"]["variants"]["debiased"]["divergence"][2]
    )
    assert len(list(csv.DictReader((tmp_path / "matrices.csv").open()))) == 3 * 6 * 25
    for name in ("heatmap-biased", "heatmap-debiased", "curves-debiased", "curves-biased"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()


def test_the_controls_layers_stand_beside_those_of_a_only_where_they_are_the_same(compared, models, texts):
    deep = {"a": models["deep"], "b": models["near"], "control": models["near2"]}
    for found, beside in ((compared, True), (compare(deep, texts[:40], SMALL), False)):
        record = parse(NetworkComparison, found)
        table = rich_table(comparison_tables(record)[1])
        cells = [cell for column in table.columns if column.header == "control" for cell in column.cells]
        assert any(cells) == beside
        chart = divergence_chart(record, {"detour_twin": "A and B", "control": "B and control"})
        assert ("B and control" in chart.entries) == beside
        assert len(chart.lines) == (8 if beside else 4)


def test_the_same_seed_gives_the_same_figures(compared, models, texts):
    roles = {"a": "far", "b": "near", "control": "near2", "before_a": "far", "before_b": "base"}
    again = compare({role: models[name] for role, name in roles.items()}, texts, SMALL)
    assert {**again, "date": 0} == {**compared, "date": 0}


def assert_refused(result: tuple[int, str], *words: str) -> None:
    code, said = result
    assert code == 2, said
    (line,) = (line for line in said.splitlines() if line.startswith("Error: "))
    for word in words:
        assert word in line


def test_what_cannot_be_compared_is_one_sentence(run_cli, models, bert, texts_file, tmp_path):
    words = ["--texts", texts_file, "--output", tmp_path / "out"]
    assert_refused(run_cli("compare", models["far"], tmp_path, "--per-sample", 30, *words), "not a model")
    assert_refused(run_cli("compare", models["far"], models["near"], *words), "distinct texts", "500")
    assert_refused(
        run_cli("compare", models["far"], models["near"], "--per-sample", 5, *words), "says nothing"
    )
    tokenizer = AutoTokenizer.from_pretrained(bert)
    GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "gpt"
    )
    tokenizer.save_pretrained(tmp_path / "gpt")
    refused = run_cli("compare", models["far"], tmp_path / "gpt", "--per-sample", 30, *words)
    assert_refused(refused, "no bidirectional encoder")
    shutil.copytree(bert, tmp_path / "broken")
    config = json.loads((tmp_path / "broken" / "config.json").read_text())
    (tmp_path / "broken" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert_refused(
        run_cli("compare", models["far"], tmp_path / "broken", "--per-sample", 30, *words),
        "missing: model.layers.2",
    )
    assert not (tmp_path / "out").exists()


def test_samples_are_disjoint_if_there_are_enough_texts():
    enough = draw_samples(90, 3, 30, seed=1)
    assert sorted(enough.pool[enough.members].ravel()) == list(range(90))
    assert not enough.overlap
    few = draw_samples(60, 3, 30, seed=1)
    assert few.overlap
    assert all(len(set(rows)) == 30 for rows in few.pool[few.members])
    with pytest.raises(UserError, match="distinct"):
        draw_samples(29, 3, 30, seed=1)


def test_what_rounds_to_zero_has_no_sign():
    assert percent(-0.0001, (-0.0004, -0.02)) == "0.0 (0.0 to -2.0)"
