"""A checkpoint that Composer writes of FlexBERT, which trained ModernBERT, becomes the same network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from transformers import BertConfig, ModernBertConfig, ModernBertForMaskedLM, PreTrainedModel

from clm_detour import ModernBertForPretraining
from clm_detour.model.composer.convert import convert
from clm_detour.model.hf import as_folder
from clm_detour.utils.errors import UserError

pytest.importorskip("composer")

OPTIONS: dict[str, Any] = {
    "attention_layer": "rope", "bert_layer": "prenorm", "embedding_layer": "sans_pos", "mlp_layer": "glu",
    "normalization": "layernorm", "norm_kwargs": {"eps": 1e-6, "bias": False}, "embed_norm": True,
    "final_norm": True, "skip_first_prenorm": True, "head_pred_act": "gelu", "hidden_act": "gelu",
    "head_pred_bias": False, "decoder_bias": True, "attn_qkv_bias": False, "attn_out_bias": False,
    "mlp_in_bias": False, "mlp_out_bias": False, "rotary_emb_base": 80_000.0,
    "local_attn_rotary_emb_base": 10_000.0, "rotary_emb_dim": None, "sliding_window": 8,
    "global_attn_every_n_layers": 2, "attn_out_dropout_prob": 0.1, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip


class FlexBertConfig(BertConfig):
    """The keys of FlexBERT's config that the network depends on."""

    def __init__(self, **keys: Any):
        super().__init__(**keys)


class FlexBert(PreTrainedModel):
    """The modules of ModernBERT under FlexBERT's names; it is saved, never called."""

    config_class = FlexBertConfig
    _tied_weights_keys: ClassVar = {"decoder.weight": "bert.embeddings.tok_embeddings.weight"}

    def __init__(self, config: FlexBertConfig, network: ModernBertForMaskedLM):
        super().__init__(config)
        body = network.model
        self.bert = nn.Module()
        self.bert.embeddings, self.bert.final_norm = body.embeddings, body.final_norm
        self.bert.encoder = nn.Module()
        self.bert.encoder.layers = body.layers
        self.head, self.decoder = network.head, network.decoder

    def forward(self, input_ids: torch.Tensor) -> Any: ...


@pytest.fixture(scope="module")
def tokenizer(tiny_data: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_data / "tokenizer")


@pytest.fixture(scope="module")
def network(tokenizer: Any) -> ModernBertForMaskedLM:
    """The network that was trained, in transformers' class."""
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=832, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        global_attn_every_n_layers=2, local_attention=8, global_rope_theta=80_000.0,
        local_rope_theta=10_000.0, norm_eps=1e-6, pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager", reference_compile=False,
    )  # fmt: skip
    network = ModernBertForMaskedLM(config).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def write(path: Path, network: ModernBertForMaskedLM, tokenizer: Any, **options: Any) -> Path:
    """Write a checkpoint with Composer's Trainer, with its optimizer, clock and random numbers."""
    from composer import Trainer
    from composer.models import HuggingFaceModel

    flex = FlexBert(FlexBertConfig(vocab_size=832, **OPTIONS | options), network)
    wrapped = HuggingFaceModel(flex, tokenizer=tokenizer, allow_embedding_resizing=True)
    optimizer = torch.optim.AdamW(wrapped.parameters())
    trainer = Trainer(model=wrapped, optimizers=optimizer, max_duration="1ba", progress_bar=False)
    trainer.save_checkpoint(str(path))
    trainer.close()
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, network: Any, tokenizer: Any) -> Path:
    return write(tmp_path_factory.mktemp("composer") / "ep0-ba1-rank0.pt", network, tokenizer)


def test_the_folder_has_the_logits_of_the_network(checkpoint: Path, network: Any, tmp_path: Path) -> None:
    """Window, both rotary bases, norms and layers come from the config inside the checkpoint."""
    convert(checkpoint, tmp_path / "folder")
    ids = torch.randint(10, 800, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(ids).logits
        transformers = ModernBertForMaskedLM.from_pretrained(tmp_path / "folder").eval()
        ours = ModernBertForPretraining.from_pretrained(tmp_path / "folder").eval()
        torch.testing.assert_close(transformers(ids).logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_training_starts_from_a_checkpoint(
    checkpoint: Path, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model.base` may name the file; its weights are checked as those of a folder are."""
    from clm_detour.recipe.base import check_base
    from clm_detour.recipe.start import base_config, load_base

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check_base(str(checkpoint))
    assert base_config(str(checkpoint)).local_attention == 8
    loaded = load_base(str(checkpoint), None).state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded[name], weight), name


def test_the_tokenizer_comes_along(checkpoint: Path, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    convert(checkpoint, tmp_path / "folder")
    opened = AutoTokenizer.from_pretrained(tmp_path / "folder")
    text = "The patient was given 5 mg of it."
    assert opened(text).input_ids == tokenizer(text).input_ids
    config = ModernBertConfig.from_pretrained(tmp_path / "folder")
    assert (config.pad_token_id, config.sep_token_id) == (tokenizer.pad_token_id, tokenizer.sep_token_id)


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    content["state"]["trap"] = Trap(tmp_path / "ran")
    torch.save(content, tmp_path / "trap.pt")
    convert(tmp_path / "trap.pt", tmp_path / "folder")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert (tmp_path / "ran").exists()  # the trap works where a pickle is trusted


def touch(path: Path) -> None:
    path.touch()


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return touch, (self.path,)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"normalization": "rmsnorm"}, "normalization: rmsnorm"),
        ({"mlp_layer": "mlp"}, "mlp_layer: mlp"),
        ({"rotary_emb_dim": 4}, "rotary_emb_dim: 4"),
        ({"global_attn_every_n_layers": -1}, "All layers"),
        ({"initial_mlp_layer": "mlp"}, "initial_mlp_layer"),
    ],
)
def test_another_network_is_refused(
    option: dict[str, Any], named: str, network: Any, tokenizer: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "other.pt", network, tokenizer, **option)
    with pytest.raises(UserError, match=re.escape(named)):
        convert(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_missing_weight_is_named(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    del content["state"]["model"]["model.bert.encoder.layers.1.mlp.Wo.weight"]
    torch.save(content, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=re.escape("model.layers.1.mlp.Wo.weight")):
        convert(tmp_path / "cut.pt", tmp_path / "folder")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(UserError, match="no checkpoint of torch"):
        convert(tmp_path / "text.pt", tmp_path / "folder")
    torch.save({"weights": torch.ones(2)}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match="no whole model"):
        convert(tmp_path / "bare.pt", tmp_path / "folder")


def test_a_checkpoint_is_converted_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = as_folder(str(checkpoint))
    written = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert as_folder(str(checkpoint)) == folder
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == written
    assert as_folder("answerdotai/ModernBERT-base") == "answerdotai/ModernBERT-base"
