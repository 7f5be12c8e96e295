"""Which folders `evaluate` and `probe` take, and what they say of the others before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from clm_detour.config.schema import FineTuning
from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.evaluate.command import evaluate_models
from clm_detour.evaluate.probes import probe_models, probe_table
from clm_detour.measure.encoder import load_encoder
from clm_detour.measure.scorer import open_masked
from clm_detour.measure.states import open_encoder
from clm_detour.model import ModernBertForPretraining, ModernBertForSequenceClassification, ModernBertModel
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import console

TASK = "SampleVerdict"


@pytest.fixture
def body(encoders, tmp_path) -> str:
    """The body of the ModernBERT alone, as transformers saves it."""
    AutoModel.from_pretrained(encoders["modernbert"]).save_pretrained(tmp_path / "body")
    copy_tokenizer(encoders["modernbert"], tmp_path / "body")
    return str(tmp_path / "body")


@pytest.fixture
def saved_causal(encoders, tmp_path) -> str:
    network = ModernBertForPretraining.from_pretrained(encoders["modernbert"])
    network.causal = True
    network.save_pretrained(tmp_path / "causal")
    copy_tokenizer(encoders["modernbert"], tmp_path / "causal")
    return str(tmp_path / "causal")


def without(folder: str, name: str, to: Path) -> str:
    """A copy of a model's folder without one file."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(name))
    return str(to)


def settings() -> FineTuning:
    return FineTuning(tasks=[TASK], documents=12, seeds=[1], protocol={"epochs": 1}, jobs=1)


def test_evaluate_gives_a_body_a_fresh_head_says_so_once_and_repeats_itself(body, encoders, tmp_path, capfd):
    models = {"body": body, "again": body, "whole": encoders["modernbert"]}
    evaluate_models(settings(), models, tmp_path / "run", "test")
    records = [json.loads((tmp_path / "run" / name / TASK / "1.json").read_text()) for name in models]
    first, again, whole = (record["rounds"] for record in records)
    assert first == again != whole
    out, err = capfd.readouterr()
    said = [line for line in (out + err).splitlines() if "head" in line]
    assert said == [
        f"{body} has no prediction head; each run initializes one, which only fine-tuning trains."
    ]


def test_a_fresh_head_depends_on_the_seed_and_the_body_is_taken_over(body, encoders):
    torch.manual_seed(1)
    first, again = load_encoder(body)[0].network, load_encoder(encoders["modernbert"])[0].network
    torch.manual_seed(1)
    second = load_encoder(body)[0].network
    assert torch.equal(first.head.dense.weight, second.head.dense.weight)
    assert not torch.equal(first.head.dense.weight, again.head.dense.weight)
    assert all(
        torch.equal(p, q) for p, q in zip(first.model.parameters(), again.model.parameters(), strict=True)
    )


def test_a_probe_of_what_has_no_masked_head_leaves_the_masked_accuracy_out(body, encoders, tmp_path):
    classifier = tmp_path / "classifier"
    ModernBertForSequenceClassification.from_encoder(body, num_labels=2).save_pretrained(classifier)
    copy_tokenizer(body, classifier)
    paths = [encoders["modernbert"], body, str(classifier), encoders["ernie"]]
    found = probe_models(paths, [TASK], None, 60)
    assert 0 <= found[encoders["modernbert"]]["scores"]["masked"] <= 100
    assert [found[path]["scores"]["masked"] for path in paths[1:]] == [None] * 3
    assert (
        0 <= probe_models([encoders["bert"]], [TASK], None, 60)[encoders["bert"]]["scores"]["masked"] <= 100
    )
    whole = found[encoders["modernbert"]]["scores"][TASK]
    assert [found[path]["scores"][TASK] for path in paths[:3]] == [whole] * 3
    with console.capture() as printed:
        console.print(probe_table({path[-10:]: row for path, row in found.items()}))
    rows = printed.get().splitlines()[1:]
    assert [row.split()[1] == "\u2013" for row in rows if row.strip()] == [False, True, True, True]


def test_probe_and_evaluate_read_in_both_directions_whatever_the_folder_says(saved_causal, encoders):
    bidirectional = probe_models([encoders["modernbert"]], [TASK], None, 60)[encoders["modernbert"]]
    assert probe_models([saved_causal], [TASK], None, 60)[saved_causal]["scores"] == bidirectional["scores"]
    ids = torch.arange(10, 30)
    states = [load_encoder(path)[0](ids, [12, 8]) for path in (encoders["modernbert"], saved_causal)]
    assert torch.equal(*states)


@pytest.mark.parametrize("kind", ["modernbert", "bert"])
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            "tokenizer*",
            r"no (fast )?tokenizer.*AutoTokenizer\.from_pretrained\(MODEL\)\.save_pretrained\(FOLDER\)",
        ),
        ("*.safetensors", r"has no model\.safetensors.*save_pretrained"),
    ],
)
def test_a_folder_without_tokenizer_or_weights_is_refused_before_any_model_is_run(
    encoders, tmp_path, kind, missing, said, monkeypatch
):
    broken = without(encoders[kind], missing, tmp_path / "broken")
    ran = []
    monkeypatch.setattr("clm_detour.evaluate.probes.probe", lambda *_: ran.append(1))
    monkeypatch.setattr("clm_detour.evaluate.finetune.experiment.fine_tune", lambda *_: ran.append(1))
    with pytest.raises(UserError, match=said):
        evaluate_models(settings(), {"whole": encoders["bert"], "broken": broken}, tmp_path / "run", "test")
    with pytest.raises(UserError, match=said):
        probe_models([encoders["bert"], broken], [TASK], None, 60)
    assert not ran


def test_pickled_weights_are_refused_through_automodel_and_what_is_said_to_do_works(encoders, tmp_path):
    folder = without(encoders["ernie"], "*.safetensors", tmp_path / "pickled")
    network = AutoModelForMaskedLM.from_pretrained(encoders["ernie"])
    torch.save(network.state_dict(), Path(folder) / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is not read, .*save it with save_pretrained"):
        load_encoder(folder)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    assert load_encoder(folder)


@pytest.mark.parametrize("kind", ["modernbert", "bert", "roberta"])
def test_pickled_weights_of_our_families_are_read(encoders, tmp_path, kind):
    folder = without(encoders[kind], "*.safetensors", tmp_path / "pickled")
    network = AutoModelForMaskedLM.from_pretrained(encoders[kind])
    torch.save(network.state_dict(), Path(folder) / "pytorch_model.bin")
    ids = torch.arange(10, 30)
    states = [load_encoder(path)[0](ids, [12, 8]) for path in (folder, encoders[kind])]
    assert torch.equal(*states)


def test_the_encoder_in_a_folder_of_sentence_transformers_is_found(body, encoders, tmp_path):
    (Path(body) / "modules.json").write_text("[]")  # newer ones have the encoder in the folder itself
    assert load_encoder(body)
    for kind in ("modernbert", "bert"):
        outer = tmp_path / kind
        inner = shutil.copytree(encoders[kind], outer / "0_Transformer")
        (outer / "modules.json").write_text("[]")
        with pytest.raises(UserError, match=r"its encoder lies in .*0_Transformer; give that folder"):
            load_encoder(str(outer))
        assert load_encoder(str(inner))


def test_a_causal_modernbert_is_refused_with_the_way_to_an_encoder(encoders, tmp_path):
    keys = json.loads((Path(encoders["modernbert"]) / "config.json").read_text())
    folder = without(encoders["modernbert"], "config.json", tmp_path / "decoder")
    (Path(folder) / "config.json").write_text(json.dumps({**keys, "model_type": "modernbert-decoder"}))
    for open_it in (load_encoder, ModernBertModel.from_pretrained, open_masked, open_encoder):
        with pytest.raises(
            UserError, match=r"is a ModernBertDecoder.*ModernBertForPretraining\.from_decoder"
        ):
            open_it(folder)


def test_weights_under_other_names_are_named(encoders, tmp_path):
    from safetensors.torch import load_file, save_file

    expected = {
        "modernbert": "named with 'module.' before each name",
        "bert": r"unexpected: module\.bert",
        "ernie": r"has module\.",
    }
    for kind, said in expected.items():
        folder = Path(shutil.copytree(encoders[kind], tmp_path / kind))
        weights = load_file(folder / "model.safetensors")
        save_file(
            {f"module.{name}": w for name, w in weights.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        with pytest.raises(UserError, match=said):
            load_encoder(str(folder))


def test_our_class_and_transformers_write_bodies_that_are_fine_tuned_alike(body, tmp_path):
    ours = tmp_path / "ours"
    ModernBertModel.from_pretrained(body).save_pretrained(ours)
    copy_tokenizer(body, ours)
    networks = []
    for path in (body, str(ours)):
        torch.manual_seed(1)
        networks.append(load_encoder(path)[0].network)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())
