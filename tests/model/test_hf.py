"""Hugging Face folders go in strictly and come out readable by transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_reference import assert_close, randomise, same_masked_lm, tiny_config, tiny_model, tokens
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast, pipeline

from clm_detour.model import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)
from clm_detour.utils.errors import UserError

VERSION_5 = int(transformers.__version__.split(".")[0]) >= 5
needs_decoder = pytest.mark.skipif(not VERSION_5, reason="transformers >= 5 has an exact decoder")
NEW_KEYS = ("layer_types", "rope_parameters")
OLD_KEYS = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
CONFIGS = [
    {},
    {"tie_word_embeddings": False},
    {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 500.0,
        "local_rope_theta": 50.0,
        "norm_bias": True,
    },
]


CLASSIFIERS = [ModernBertForSequenceClassification, ModernBertForTokenClassification]
NAMES = {"id2label": {0: "no", 1: "maybe", 2: "yes"}, "label2id": {"no": 0, "maybe": 1, "yes": 2}}


def edit_config(folder: Path, remove: tuple[str, ...] = (), **change: Any) -> None:
    path = folder / "config.json"
    keys = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**keys, **change}.items() if k not in remove}))


def edit_weights(folder: Path, **change: torch.Tensor | None) -> None:
    weights = {**load_file(folder / "model.safetensors"), **change}
    kept = {name: weight.clone() for name, weight in weights.items() if weight is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens(30)[None]).logits


@pytest.mark.parametrize("keys", CONFIGS, ids=str)
def test_what_is_saved_opens_as_masked_lm_with_equal_logits(keys: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(**keys)
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["ModernBertForMaskedLM"]
    assert_close(logits(AutoModelForMaskedLM.from_pretrained(tmp_path).eval()), logits(model))
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("keys", CONFIGS, ids=str)
@pytest.mark.parametrize("style", ["ours", "new", "old", "transformers"])
def test_folders_of_every_version_load_the_same_model(
    keys: dict[str, Any], style: str, tmp_path: Path
) -> None:
    model = tiny_model(**keys)
    if style == "transformers":
        same_masked_lm(model, "eager").save_pretrained(tmp_path)
    else:
        model.save_pretrained(tmp_path)
        edit_config(tmp_path, remove={"new": OLD_KEYS, "old": NEW_KEYS}.get(style, ()))
    loaded = ModernBertForPretraining.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert (loaded.decoder.weight is loaded.get_input_embeddings().weight) == model.config.tie_word_embeddings
    assert not loaded.training


def test_a_local_theta_of_null_means_the_global_one(tmp_path: Path) -> None:
    tiny_model(global_rope_theta=700.0, local_rope_theta=700.0).save_pretrained(tmp_path)
    expected = logits(ModernBertForPretraining.from_pretrained(tmp_path))
    edit_config(tmp_path, remove=NEW_KEYS, local_rope_theta=None)
    assert torch.equal(logits(ModernBertForPretraining.from_pretrained(tmp_path)), expected)


def test_saving_again_writes_the_same_bytes(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "a")
    ModernBertForPretraining.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_weights_load_as_fp32_unless_asked_as_stored(tmp_path: Path) -> None:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    for dtype, options in ((torch.float32, {}), (torch.bfloat16, {"dtype": None})):
        model = ModernBertForPretraining.from_pretrained(tmp_path, **options)
        assert {p.dtype for p in model.parameters()} == {dtype}


def test_shards_load_as_one_file_does(tmp_path: Path) -> None:
    model = tiny_model()
    same_masked_lm(model, "eager").save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert torch.equal(logits(ModernBertForPretraining.from_pretrained(tmp_path)), logits(model))


def test_compiled_modules_leave_no_trace_in_names(tmp_path: Path) -> None:
    model = tiny_model()
    expected = logits(model)
    model.model.layers[0].mlp = torch.compile(model.model.layers[0].mlp)
    assert any("_orig_mod." in name for name in model.state_dict())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(ModernBertForPretraining.from_pretrained(tmp_path)), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.dense.weight": None}, r"missing: head\.dense\.weight\)"),
        ({"classifier.weight": torch.zeros(2, 24)}, r"unexpected: classifier\.weight"),
        ({"decoder.bias": torch.zeros(9)}, r"of another shape: decoder\.bias \(9,\) instead of \(97,\)"),
        ({"decoder.weight": torch.zeros(97, 24)}, "tie_word_embeddings"),
        (
            {f"model.layers.{i}.attn.{w}.weight": None for i in range(4) for w in ("Wqkv", "Wo")}
            | {f"model.layers.{i}.mlp.Wi.weight": None for i in range(4)},
            "and 2 more",
        ),
    ],
    ids=["missing", "unexpected", "shape", "tied", "many"],
)
def test_weights_that_do_not_fit_are_named(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path)
    edit_weights(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        ModernBertForPretraining.from_pretrained(tmp_path)


def test_other_models_and_broken_folders_are_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        ModernBertForPretraining.from_pretrained(tmp_path)
    edit_config(tmp_path, model_type="distilbert")
    with pytest.raises(UserError, match="'distilbert' model, which the packed network does not compute"):
        ModernBertForPretraining.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json is missing"):
        ModernBertForPretraining.from_pretrained(tmp_path)


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_a_truncated_file_of_weights_is_named(shards: bool, tmp_path: Path) -> None:
    model = same_masked_lm(tiny_model(), "eager")
    model.save_pretrained(tmp_path, max_shard_size="10KB" if shards else "1GB")
    path = min(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        UserError, match=rf"{path.name} is missing or damaged .*; save or fetch the model again"
    ):
        ModernBertForPretraining.from_pretrained(tmp_path)


def test_what_is_neither_folder_nor_hub_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"no-one/no-such-model is neither a folder nor .*it is not in the cache, and the hub"
    ):
        ModernBertForPretraining.from_pretrained("no-one/no-such-model")


def test_a_scaled_rope_in_a_config_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    scaling = {"rope_type": "linear", "factor": 2.0}
    edit_config(tmp_path, remove=NEW_KEYS, rope_scaling=scaling)
    with pytest.raises(UserError, match=r"rope_type is 'linear'|factor is 2\.0"):
        ModernBertForPretraining.from_pretrained(tmp_path)


def test_fill_mask_guesses_the_token_with_the_highest_logit(tmp_path: Path) -> None:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"word{i}" for i in range(92))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", mask_token="[MASK]",
    )  # fmt: skip
    fast.save_pretrained(tmp_path)
    model = tiny_model()
    model.save_pretrained(tmp_path)
    guess = pipeline("fill-mask", model=str(tmp_path), tokenizer=str(tmp_path), device="cpu", top_k=1)
    answer = guess("word3 word5 [MASK] word9")[0]
    ids = torch.tensor([[words.index(word) for word in ("word3", "word5", "[MASK]", "word9")]])
    best = model(ids).logits[0, 2].softmax(-1).max(-1)
    assert answer["token"] == best.indices.item()
    assert answer["score"] == pytest.approx(best.values.item(), rel=1e-4)


@needs_decoder
@pytest.mark.parametrize("keys", CONFIGS, ids=str)
def test_a_decoder_goes_out_and_comes_back(keys: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(**keys)
    model.causal = True
    model.to_decoder().save_pretrained(tmp_path)
    decoder = transformers.ModernBertDecoderForCausalLM.from_pretrained(tmp_path)
    assert_close(logits(decoder), logits(model))
    back = ModernBertForPretraining.from_decoder(decoder)
    assert back.causal
    assert torch.equal(logits(back), logits(model))
    assert list(back.state_dict()) == list(model.state_dict())


@needs_decoder
def test_the_thetas_of_modernbert_reach_the_decoder() -> None:
    model = tiny_model()
    model.causal = True
    rope = model.to_decoder().config.rope_parameters
    assert rope["full_attention"]["rope_theta"] == 160_000
    assert rope["sliding_attention"]["rope_theta"] == 10_000


@needs_decoder
def test_a_bidirectional_model_has_no_decoder() -> None:
    with pytest.raises(UserError, match="causal = True"):
        tiny_model().to_decoder()


@pytest.mark.skipif(VERSION_5, reason="transformers >= 5 has an exact decoder")
def test_releases_that_cannot_hold_a_decoder_are_named() -> None:
    model = tiny_model()
    model.causal = True
    with pytest.raises(UserError, match="install transformers >= 5"):
        model.to_decoder()


def classifier(cls: type[Any], seed: int = 0, **keys: Any) -> Any:
    model = cls(tiny_config(**{**NAMES, **keys}))
    randomise(model, seed)
    return model.eval()


def theirs(folder: Path, cls: type[Any]) -> Any:
    """What transformers' Auto class opens, every weight of it from the folder."""
    auto = getattr(transformers, f"AutoModel{cls.kind}".replace("AutoModelModel", "AutoModel"))
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == f"ModernBert{cls.kind}"
    assert not any(report.values())
    return model.eval()


@pytest.mark.parametrize("cls", CLASSIFIERS)
@pytest.mark.parametrize(
    "keys",
    [{}, {"problem_type": "multi_label_classification", "classifier_pooling": "mean", "norm_bias": True}],
    ids=str,
)
def test_classifiers_go_to_transformers_and_come_back(
    cls: type[Any], keys: dict[str, Any], tmp_path: Path
) -> None:
    model = classifier(cls, **keys)
    model.save_pretrained(tmp_path / "ours")
    other = theirs(tmp_path / "ours", cls)
    assert_close(logits(other), logits(model))
    other.save_pretrained(tmp_path / "theirs")
    back = cls.from_pretrained(tmp_path / "theirs")
    assert torch.equal(logits(back), logits(model))
    assert not back.training
    for config in (other.config, back.config):
        assert config.architectures == [f"ModernBert{cls.kind}"]
        for key in ("id2label", "label2id", "problem_type", "classifier_pooling"):
            assert getattr(config, key) == getattr(model.config, key)


@pytest.mark.parametrize("labels", [1, 2, 4])
def test_unnamed_labels_keep_their_number(labels: int, tmp_path: Path) -> None:
    for cls in CLASSIFIERS:
        model = cls(tiny_config(num_labels=labels)).eval()
        model.save_pretrained(tmp_path)
        assert theirs(tmp_path, cls).config.id2label == model.config.id2label
        assert torch.equal(logits(cls.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("cls", CLASSIFIERS)
@pytest.mark.parametrize("untied", [False, True])
def test_a_classifier_starts_from_a_pretrained_encoder(
    cls: type[Any], untied: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrained = tiny_model(tie_word_embeddings=not untied)
    pretrained.save_pretrained(tmp_path)
    torch.manual_seed(3)
    model = cls.from_encoder(tmp_path, id2label=NAMES["id2label"])
    weights, expected = model.state_dict(), pretrained.state_dict()
    fresh = {"classifier.weight", "classifier.bias"}
    assert weights.keys() ^ expected.keys() == fresh | {"decoder.weight", "decoder.bias"}
    assert all(torch.equal(weights[name], expected[name]) for name in weights.keys() - fresh)
    assert (model.classifier.bias == 0).all()
    assert 0 < model.classifier.weight.abs().max() <= 2 * 24**-0.5
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "cpu")}
    assert not model.training
    assert {key: getattr(model.config, key) for key in NAMES} == NAMES
    assert [(r.levelno, r.getMessage()) for r in caplog.records if r.name.startswith("clm_detour")] == [
        (
            logging.WARNING,
            f"{cls.__name__} from {tmp_path}: model and head are taken over, decoder left out, the "
            "classifier is new and must be trained.",
        )
    ]
    torch.manual_seed(3)
    again = cls.from_encoder(tmp_path, num_labels=3).state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_fresh_classifier_keeps_what_it_was_told(tmp_path: Path) -> None:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path / "encoder")
    options = {"problem_type": "regression", "classifier_pooling": "mean"}
    model = ModernBertForSequenceClassification.from_encoder(
        tmp_path / "encoder", num_labels=1, classifier_dropout=0.3, **options
    )
    assert model.drop.p == 0.3
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "classifier")
    for loaded in (
        ModernBertForSequenceClassification.from_pretrained(tmp_path / "classifier"),
        theirs(tmp_path / "classifier", ModernBertForSequenceClassification),
    ):
        assert {key: getattr(loaded.config, key) for key in options} == options
        assert loaded.config.num_labels == 1
        assert loaded.drop.p == 0.3
        assert_close(logits(loaded), logits(model))


def test_transformers_takes_over_the_same_weights(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    ours = ModernBertForSequenceClassification.from_encoder(tmp_path, num_labels=4).state_dict()
    other = transformers.ModernBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    assert ours.keys() == other.state_dict().keys()
    for name, weight in other.state_dict().items():
        assert weight.shape == ours[name].shape
        assert name.startswith("classifier.") or torch.equal(weight, ours[name])


@pytest.mark.parametrize("cls", CLASSIFIERS)
def test_an_encoder_may_come_from_another_classifier_whose_labels_are_forgotten(
    cls: type[Any], tmp_path: Path
) -> None:
    old = classifier(ModernBertForSequenceClassification, problem_type="multi_label_classification")
    old.save_pretrained(tmp_path)
    model = cls.from_encoder(tmp_path, num_labels=5)
    assert torch.equal(model.head.dense.weight, old.head.dense.weight)
    assert model.classifier.weight.shape == (5, 24)
    assert model.config.problem_type is None
    assert model.config.id2label == {i: f"LABEL_{i}" for i in range(5)}
    assert model.config.label2id == {f"LABEL_{i}": i for i in range(5)}


def test_a_folder_opens_only_as_what_it_is(tmp_path: Path) -> None:
    models = {
        "ModernBertForMaskedLM": tiny_model(),
        **{f"ModernBert{cls.kind}": classifier(cls) for cls in CLASSIFIERS},
    }
    for held, model in models.items():
        model.save_pretrained(tmp_path)
        for wanted, other in models.items():
            if wanted != held:
                with pytest.raises(UserError, match=f"holds a {held}, not a {wanted}; .*from_encoder"):
                    type(other).from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classifier.bias": None},
            r"of a ModernBertForSequenceClassification .*missing: classifier\.bias\)",
        ),
        ({"decoder.bias": torch.zeros(97)}, r"unexpected: decoder\.bias"),
        ({"classifier.weight": torch.zeros(2, 24)}, r"classifier\.weight \(2, 24\) instead of \(3, 24\)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_classifiers_weights_that_do_not_fit_are_named(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    classifier(ModernBertForSequenceClassification).save_pretrained(tmp_path)
    edit_weights(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        ModernBertForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.norm.weight": None}, r"missing: head\.norm\.weight"),
        ({"model.layers.1.mlp.Wi.weight": torch.zeros(2, 2)}, r"Wi\.weight \(2, 2\) instead of \(80, 24\)"),
        ({"pooler.weight": torch.zeros(2)}, r"unexpected: pooler\.weight"),
    ],
    ids=["missing", "shape", "unexpected"],
)
def test_an_encoder_is_taken_over_whole_or_not_at_all(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path)
    edit_weights(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        ModernBertForTokenClassification.from_encoder(tmp_path, num_labels=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give num_labels, at least 1, or their names as id2label"),
        ({"num_labels": 0}, "Give num_labels, at least 1"),
        (
            {"num_labels": 3, "id2label": {0: "a", 1: "b"}},
            "2 entries and 2 different names but num_labels is 3",
        ),
        ({"id2label": {0: "a", 1: "a"}}, "2 entries and 1 different names"),
        ({"id2label": {1: "a", 2: "b"}}, r"numbers the labels \[1, 2\]"),
        ({"num_labels": 3, "problem_type": "guessing"}, "guessing"),
        ({"num_labels": 3, "classifier_pooling": "max"}, "classifier_pooling"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_together_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        ModernBertForSequenceClassification.from_encoder(tmp_path, **options)
