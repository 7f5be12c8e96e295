"""Models are written as ONNX files that answer like torch, for any batch and length, padded or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    ModernBertConfig,
)

from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.model import ModernBertForPretraining, ModernBertModel
from clm_detour.recipe import onnx_export
from clm_detour.recipe.export import write_model
from clm_detour.recipe.onnx_check import session
from clm_detour.recipe.onnx_export import export_onnx
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow  # torch takes ten seconds and more for each file


@pytest.fixture(scope="module")
def model(tiny_data, tmp_path_factory) -> Path:
    config = ModernBertConfig(
        vocab_size=800, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        local_attention=16, initializer_range=0.3, max_position_embeddings=128,
        pad_token_id=3, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onnx") / "model"
    write_model(ModernBertForPretraining(config), str(tiny_data / "tokenizer"), folder, {"arm": "detour"})
    return folder


@pytest.fixture(scope="module")
def exported(model) -> tuple[Path, str]:
    """The folder that the command writes for the masked-LM head with int8, and what it prints."""
    folder = model.with_name("exported")
    words = ["-m", "clm_detour", "export", str(model), str(folder), "--onnx", "--int8"]
    environment = {**os.environ, "COLUMNS": "500"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    return folder, done.stderr


@pytest.mark.parametrize(("rows", "longest"), [(1, 3), (3, 20), (2, 128)])
def test_logits_are_those_of_transformers_in_padded_batches_of_any_size(exported, rows, longest):
    folder, _ = exported
    network = AutoModelForMaskedLM.from_pretrained(folder.with_name("model")).eval()
    run = session(folder / "onnx" / "model.onnx")
    ids = torch.randint(4, 800, (rows, longest), generator=torch.Generator().manual_seed(rows))
    mask = (torch.arange(longest) < torch.arange(longest, longest - rows, -1)[:, None]).long()
    ids[mask == 0] = 3
    with torch.no_grad():
        expected = network(input_ids=ids, attention_mask=mask).logits
    actual = run({"input_ids": ids, "attention_mask": mask})
    assert actual.shape == (rows, longest, 800)
    torch.testing.assert_close(actual[mask == 1], expected[mask == 1], rtol=1e-4, atol=1e-4)
    row = slice(0, int(mask[-1].sum()))
    alone = run({"input_ids": ids[-1:, row], "attention_mask": mask[-1:, row]})
    torch.testing.assert_close(alone[0], actual[-1, row], rtol=1e-4, atol=1e-4)


def test_the_command_prints_files_parity_and_agreement_and_nothing_else(exported):
    folder, printed = exported
    lines = printed.splitlines()
    assert len(lines) == 5, printed
    assert lines[0].startswith(f"Wrote {folder}/onnx/model.onnx: ")
    assert lines[1].startswith(f"Wrote {folder}/onnx/model_quantized.onnx: ")
    assert "fill-mask, opset 18" in lines[2]
    assert "Largest difference from torch" in lines[3]
    assert "32 padded texts of" in lines[3]
    assert "equal top answers at masked tokens" in lines[4]
    about = read_json(folder / "clm_detour.json")
    assert about["arm"] == "detour"
    assert 0.5 < about["onnx"]["kept"] < 1
    assert 0 < about["onnx"]["parity"]["difference"] < 1e-4 * about["onnx"]["parity"]["largest"]
    assert about["onnx"]["parity"]["shortest"] < 20 < about["onnx"]["parity"]["longest"] == 128


def test_the_folder_holds_what_runtimes_look_for(exported, model):
    folder, _ = exported
    assert (folder / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert AutoTokenizer.from_pretrained(folder).mask_token == "[MASK]"
    sizes = {file.name: file.stat().st_size for file in (folder / "onnx").iterdir()}
    assert sizes.keys() == {"model.onnx", "model_quantized.onnx"}
    assert sizes["model_quantized.onnx"] < sizes["model.onnx"]
    graph = onnx.load(folder / "onnx" / "model.onnx")
    onnx.checker.check_model(graph)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 18)]
    assert [given.name for given in graph.graph.input] == ["input_ids", "attention_mask"]
    assert [given.name for given in graph.graph.output] == ["logits"]


def test_features_are_the_states_of_the_encoder_and_go_into_the_folder_of_the_model(model, tmp_path):
    shutil.copytree(model, tmp_path / "m")
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    done = export_onnx(str(tmp_path / "m"), tmp_path / "m", "features", int8=True)
    assert done.kept is not None
    assert 0.9 < done.kept < 1
    after = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir() if file.is_file()}
    assert after == before
    ids = torch.arange(4, 44).view(1, 40)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = ModernBertModel.from_pretrained(model).eval()(ids, mask).last_hidden_state
    run = session(tmp_path / "m" / "onnx" / "model.onnx")
    actual = run({"input_ids": ids, "attention_mask": mask})
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("auto", "head"),
    [
        (AutoModelForSequenceClassification, "text-classification"),
        (AutoModelForTokenClassification, "token-classification"),
    ],
)
def test_a_classifier_is_exported_with_its_own_head(model, tmp_path, auto, head):
    torch.manual_seed(0)
    labels = {0: "none", 1: "drug", 2: "disease"}
    network = auto.from_pretrained(model, id2label=labels, label2id={v: k for k, v in labels.items()}).eval()
    torch.nn.init.normal_(network.classifier.weight)
    network.save_pretrained(tmp_path / "classifier")
    copy_tokenizer(str(model), tmp_path / "classifier")
    done = export_onnx(str(tmp_path / "classifier"), tmp_path / "out", int8=True)
    assert done.head == head
    assert done.kept is not None
    assert 0.5 < done.kept <= 1
    assert read_json(tmp_path / "out" / "config.json")["id2label"] == {
        "0": "none",
        "1": "drug",
        "2": "disease",
    }
    ids = torch.arange(4, 44).view(2, 20)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        expected = network(input_ids=ids, attention_mask=mask).logits
    actual = session(tmp_path / "out" / "onnx" / "model.onnx")({"input_ids": ids, "attention_mask": mask})
    real = slice(None) if head == "text-classification" else mask == 1
    torch.testing.assert_close(actual[real], expected[real], rtol=1e-4, atol=1e-4)


def test_a_file_that_answers_otherwise_is_not_kept(exported, model, tmp_path, monkeypatch):
    """The file of a model is put in place of the one of a model with another bias."""
    shutil.copytree(model, tmp_path / "other")
    weights = load_file(model / "model.safetensors")
    weights["decoder.bias"] += 1
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    file = exported[0] / "onnx" / "model.onnx"
    monkeypatch.setattr(onnx_export, "convert", lambda network, batch, to: shutil.copyfile(file, to))
    with pytest.raises(UserError, match=r"answers otherwise than torch \(outputs up to .* differ by 1"):
        export_onnx(str(tmp_path / "other"), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_mistakes_are_named_before_any_work(model, tmp_path, monkeypatch):
    shutil.copytree(model, tmp_path / "other")
    with pytest.raises(UserError, match=r"holds the weights of another model.*name a folder"):
        export_onnx(str(model), tmp_path / "other")
    with pytest.raises(UserError, match="--head: 'fill' is not known"):
        export_onnx(str(model), tmp_path / "out", "fill")
    body = tmp_path / "body"
    AutoModel.from_pretrained(model).save_pretrained(body)
    copy_tokenizer(str(model), body)
    with pytest.raises(UserError, match="has no weights for AutoModelForMaskedLM"):
        export_onnx(str(body), tmp_path / "out", "fill-mask")
    causal = ModernBertForPretraining.from_pretrained(model, causal=True)
    write_model(causal, str(model), tmp_path / "causal")
    with pytest.raises(UserError, match=r"trained under the causal mask.*after a masked-LM phase"):
        export_onnx(str(tmp_path / "causal"), tmp_path / "out")
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx", "onnx_of_nobody"))
    with pytest.raises(UserError, match=r"onnx_of_nobody, which is not installed; run pip install 'clm-"):
        export_onnx(str(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()
