"""transformers' keywords do what they say, or pass because they ask for nothing, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_reference import (
    assert_close,
    gradients,
    packed_ids,
    padded,
    same_masked_lm,
    some_labels,
    tiny_config,
    tiny_model,
    tokens,
)
from torch import Tensor

from clm_detour import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    UserError,
)
from clm_detour.model import hf

IDS = tokens(40).view(2, 20)
CLASSES = [
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
]


def model_of(cls: type[Any]) -> Any:
    torch.manual_seed(0)
    return cls(tiny_config(num_labels=3)).eval()


def embedded(model: Any, ids: Tensor) -> Tensor:
    return model.get_input_embeddings()(ids).detach()


def test_embeddings_in_place_of_ids_give_transformers_logits_and_gradients() -> None:
    ours = tiny_model()
    theirs = same_masked_lm(ours, "eager")
    mask = torch.ones_like(IDS)
    mask[1, 15:] = 0
    labels = some_labels(IDS).where(mask == 1, -100)
    inputs = [(0.3 * torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(1))) for _ in range(2)]
    inputs[1].copy_(inputs[0])
    for each in inputs:
        each.requires_grad_()
    mine = ours(inputs_embeds=inputs[0], attention_mask=mask, labels=labels, return_logits=True)
    other = theirs(inputs_embeds=inputs[1], attention_mask=mask, labels=labels)
    assert_close(mine.logits[mask == 1], other.logits[mask == 1])
    assert_close(mine.loss, other.loss)
    mine.loss.backward()
    other.loss.backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    assert_close(inputs[0].grad, inputs[1].grad)
    expected = gradients(theirs)
    for name, grad in gradients(ours).items():
        assert_close(grad, expected[name], 1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_embeddings_of_the_ids_are_the_ids(cls: type[Any]) -> None:
    model = model_of(cls)
    assert torch.equal(model(inputs_embeds=embedded(model, IDS)).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": IDS, "inputs_embeds": torch.zeros(2, 20, 24)}, "either input_ids or inputs_embeds"),
        ({"inputs_embeds": torch.zeros(2, 20, 23)}, r"shape \(2, 20, 23\); it must be .* 24\)"),
        ({"inputs_embeds": torch.zeros(2, 20, 24, dtype=torch.long)}, "must be floating point"),
        ({"inputs_embeds": [[1.0]]}, "inputs_embeds is a list"),
    ],
    ids=["neither", "both", "size", "whole numbers", "list"],
)
@pytest.mark.parametrize("cls", CLASSES)
def test_inputs_that_cannot_be_embeddings_are_refused(
    cls: type[Any], inputs: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        model_of(cls)(**inputs)


@pytest.mark.parametrize("cls", CLASSES)
def test_keywords_that_ask_for_nothing_pass(cls: type[Any]) -> None:
    model = model_of(cls)
    asked_for_nothing: dict[str, Any] = {
        "return_dict": None,
        "output_attentions": False,
        "output_hidden_states": None,
        "head_mask": None,
        "use_cache": False,
        "past_key_values": None,
        "inputs_embeds": None,
        "causal": None,
        "position_ids": torch.arange(20)[None],
        "token_type_ids": torch.zeros_like(IDS),
    }
    assert torch.equal(model(IDS, **asked_for_nothing).logits, model(IDS).logits)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"output_attentions": True}, r"forward does not support output_attentions: .* transformers' class"),
        ({"use_cache": True}, r"use_cache: .*to_decoder\(\)"),
        ({"shift_labels": IDS}, "pass labels that are shifted already as labels, or .* with shift=True"),
        ({"cu_seqlens": torch.tensor([0, 40])}, "document_lengths"),
        ({"token_type_ids": torch.ones_like(IDS)}, "no token types but 0"),
        ({"position_ids": torch.arange(20).flip(0)[None]}, "position_ids .* document_ids"),
        ({"position_ids": torch.arange(19)[None]}, "position_ids has shape"),
        ({"atention_mask": torch.ones_like(IDS)}, "no keyword 'atention_mask'; did you mean attention_mask"),
        ({"zzz": None}, "no keyword 'zzz'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_done_is_refused_by_name(cls: type[Any], asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        model_of(cls)(IDS, **asked)


def test_a_device_that_fails_without_a_message_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("clm_detour.model.hf.torch.empty", fail)
    with pytest.raises(UserError, match=r"'cpu' is not one device that is here \(AssertionError\)"):
        ModernBertForPretraining.from_pretrained(tmp_path, device_map="cpu")


@pytest.mark.parametrize("cls", CLASSES)
def test_a_refusal_names_the_class_that_was_called(cls: type[Any], tmp_path: Path) -> None:
    name = cls.__name__
    with pytest.raises(UserError, match=rf"^{name}\.forward does not support"):
        model_of(cls)(IDS, use_cache=True)
    with pytest.raises(UserError, match=rf"^{name}\.from_pretrained has no keyword"):
        cls.from_pretrained(tmp_path, zzz=1)
    with pytest.raises(UserError, match=rf"^{name}\.save_pretrained does not support"):
        model_of(cls).save_pretrained(tmp_path, variant="fp16")


def test_positions_that_start_anew_in_each_document_are_those_of_the_network() -> None:
    """As transformers' packing collators give them; without `document_ids` they are refused."""
    model, positions = tiny_model(), torch.cat([torch.arange(12), torch.arange(28)])[None]
    row, documents = IDS.view(1, 40), packed_ids([12, 28])
    expected = model(row, document_ids=documents).logits
    assert torch.equal(model(row, document_ids=documents, position_ids=positions).logits, expected)
    with pytest.raises(UserError, match="document_ids"):
        model(row, position_ids=positions)


def test_positions_of_rows_padded_on_the_left_may_count_the_padding() -> None:
    model, lengths = tiny_model(), [9, 20]
    rows = padded(tokens(29), lengths, 0, "left")
    mask = padded(torch.ones(29, dtype=torch.long), lengths, 0, "left")
    positions = torch.arange(20).expand(2, 20)
    output = model(rows, attention_mask=mask, position_ids=positions).logits
    assert torch.equal(output, model(rows, attention_mask=mask).logits)
    theirs = same_masked_lm(model, "eager")(rows, attention_mask=mask, position_ids=positions[:1]).logits
    assert_close(output[mask == 1], theirs[mask == 1])


@pytest.mark.parametrize("cls", CLASSES)
def test_a_tuple_holds_what_transformers_tuple_holds(cls: type[Any]) -> None:
    model = model_of(cls)
    output = model(IDS, output_hidden_states=True)
    logits, states = model(IDS, output_hidden_states=True, return_dict=False)
    assert torch.equal(logits, output.logits)
    assert len(states) == 5
    assert all(torch.equal(one, other) for one, other in zip(states, output.hidden_states, strict=True))
    labels = torch.tensor([0, 2]) if cls is ModernBertForSequenceClassification else torch.zeros_like(IDS)
    with torch.no_grad():
        loss, logits = model(IDS, labels=labels, return_dict=False)
        assert loss == model(IDS, labels=labels).loss


@pytest.mark.parametrize("cls", CLASSES)
def test_a_base_whose_config_asks_for_other_outputs_gives_its_usual_ones(
    cls: type[Any], tmp_path: Path
) -> None:
    """Training relies on them, and holds no hidden states; a forward asks for others by its keywords."""
    model_of(cls).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"return_dict": False, "output_attentions": True, "output_hidden_states": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = cls.from_pretrained(tmp_path)
    assert model(IDS).logits is not None
    assert model(IDS).hidden_states is None
    assert len(model(IDS, output_hidden_states=True).hidden_states) == 5


def test_hidden_states_of_classifiers_are_those_of_transformers() -> None:
    import transformers

    model = model_of(ModernBertForTokenClassification)
    other = transformers.ModernBertForTokenClassification(tiny_config(num_labels=3)).eval()
    other.load_state_dict(model.state_dict())
    ours = model(IDS, output_hidden_states=True).hidden_states
    theirs = other(IDS, output_hidden_states=True).hidden_states
    for one, another in zip(ours[:-1], theirs[:-1], strict=True):
        assert_close(one, another)


@pytest.mark.parametrize("cls", CLASSES)
def test_generate_points_to_the_decoder(cls: type[Any]) -> None:
    model = model_of(cls)
    with pytest.raises(UserError, match=r"to_decoder\(\)\.generate"):
        model.generate(IDS, max_new_tokens=3)
    assert not model.can_generate()


def test_folders_open_with_transformers_keywords(tmp_path: Path) -> None:
    tiny_model().save_pretrained(
        save_directory=tmp_path, safe_serialization=True, push_to_hub=False, variant=None, token=None
    )
    model = ModernBertForPretraining.from_pretrained(
        pretrained_model_name_or_path=tmp_path, torch_dtype="bfloat16", device_map="cpu",
        local_files_only=True,
        token=None, cache_dir=tmp_path / "cache", trust_remote_code=True, use_safetensors=True, config=None,
        low_cpu_mem_usage=True, subfolder="",
    )  # fmt: skip
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    assert ModernBertForPretraining.from_pretrained(tmp_path, device_map={"": "cpu"}).device.type == "cpu"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device_map": "auto"}, "device_map 'auto' is not one device"),
        (
            {"device_map": {"model": "cpu", "head": "cpu"}},
            r"device_map \{'model': 'cpu', 'head': 'cpu'\} is not",
        ),
        ({"device_map": {"": None}}, "one is named by a string or a number"),
        ({"device_map": "meta"}, "the meta device holds no weights"),
        ({"torch_dtype": torch.bfloat16, "dtype": torch.float16}, "give one of them"),
        ({"attn_implementation": "sdpa"}, "attention_backend"),
        ({"num_labels": 3}, "num_labels: it stands in the folder's config.json; .* from_encoder"),
        ({"ignore_mismatched_sizes": True}, "from_encoder"),
        ({"use_safetensors": False}, "safetensors only"),
        ({"output_loading_info": True}, "nothing to tell"),
        ({"dtipe": torch.bfloat16}, "did you mean dtype"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_loading_does_not_do_is_refused_by_name(
    asked: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=said):
        ModernBertForPretraining.from_pretrained(tmp_path, **asked)


def test_keywords_of_the_hub_reach_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr(hf, "snapshot_download", download)
    given = {"revision": "v1", "local_files_only": True, "token": "secret", "cache_dir": "there"}
    ModernBertForPretraining.from_pretrained("some-one/some-model", force_download=True, **given)
    assert given.items() <= asked.items()
    assert asked["force_download"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"safe_serialization": False}, "safetensors only"),
        ({"push_to_hub": True}, r"model\.push_to_hub"),
        ({"variant": "fp16"}, "always model.safetensors"),
        ({"state_dikt": {}}, "did you mean state_dict"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_saving_does_not_do_is_refused_before_anything_is_written(
    asked: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        tiny_model().save_pretrained(tmp_path, **asked)
    assert not list(tmp_path.iterdir())


def test_an_output_holds_what_its_attributes_are() -> None:
    """Releases of transformers before 5 take no item from an attribute that is set later."""
    output = tiny_model()(IDS, labels=IDS, output_hidden_states=True, return_logits=True)
    names = ["loss", "logits", "hidden_states", "last_hidden_state", "loss_sum", "predicted"]
    assert list(output) == names
    assert all(output[name] is getattr(output, name) for name in names)
