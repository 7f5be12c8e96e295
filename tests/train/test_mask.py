"""The mask of a phase and of a score is said by the recipe, never by the folder that a network comes from."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from transformers import ModernBertConfig

from clm_detour.data.tokenizer import copy_tokenizer, load_tokenizer
from clm_detour.measure.scorer import masked_loss, open_masked
from clm_detour.model import ModernBertForPretraining
from clm_detour.recipe.start import load_base
from clm_detour.train.parallel import gather_network


@pytest.fixture
def network(tiny_data):
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    torch.manual_seed(0)
    return ModernBertForPretraining(
        ModernBertConfig(
            vocab_size=832, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            pad_token_id=tokenizer.pad, cls_token_id=tokenizer.cls, sep_token_id=tokenizer.sep,
            bos_token_id=tokenizer.cls, eos_token_id=tokenizer.sep, initializer_range=0.2,
        )
    )  # fmt: skip


@pytest.fixture
def folders(network, tiny_data, tmp_path):
    """The same weights, saved with either mask."""
    for name, causal in (("causal", True), ("bidirectional", False)):
        network.causal = causal
        network.save_pretrained(tmp_path / name)
        copy_tokenizer(str(tiny_data / "tokenizer"), tmp_path / name)
    return str(tmp_path / "causal"), str(tmp_path / "bidirectional")


def test_a_base_that_was_saved_causal_is_a_base_like_any_other(folders, caplog):
    assert not load_base(folders[0], None).causal
    assert not caplog.records


def test_masked_scores_are_the_same_whatever_the_folder_says(folders):
    texts = ["the patient was admitted with chest pain and fever"] * 20
    one, other = (masked_loss(*open_masked(folder), texts) for folder in folders)
    assert torch.equal(one, other)
    network, tokenizer = open_masked(folders[1])
    network.causal = True
    assert torch.equal(masked_loss(network, tokenizer, texts), one)


def test_a_sharded_network_keeps_its_mask_when_it_is_put_together(network):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        network.causal = True
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        sharded = fully_shard(network, mesh=mesh)
        whole = gather_network(sharded)
    finally:
        torch.distributed.destroy_process_group()
    assert whole is not network
    assert whole.causal
