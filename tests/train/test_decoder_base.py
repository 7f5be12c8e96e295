"""A recipe may start from a causal ModernBERT of transformers, and gets the network with its logits."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import ModernBertConfig

from clm_detour.config import load_config
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.plan import make_plan
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import base_config, load_base
from clm_detour.run.after_training import model_paths
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError

pytestmark = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="transformers before 5 has no such decoders"
)


@pytest.fixture(scope="module")
def decoder(tiny_data, tmp_path_factory):
    """The folder of a tiny decoder, and the causal network that it was made from."""
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    torch.manual_seed(0)
    network = ModernBertForPretraining(
        ModernBertConfig(
            vocab_size=832, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
            local_attention=16, pad_token_id=tokenizer.pad, cls_token_id=tokenizer.cls,
            sep_token_id=tokenizer.sep, bos_token_id=tokenizer.cls, eos_token_id=tokenizer.sep,
        )
    )  # fmt: skip
    network.causal = True
    folder = tmp_path_factory.mktemp("decoder")
    network.to_decoder().save_pretrained(folder)
    return folder, network.eval()


def test_the_network_has_the_decoders_weights_and_logits(decoder):
    folder, network = decoder
    loaded = load_base(str(folder), None).eval()
    ids = torch.randint(5, 800, (2, 40))
    loaded.causal = True
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, network(ids).logits)
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert base_config(str(folder)).local_attention == network.config.local_attention


def test_weights_that_are_missing_are_refused(decoder, tmp_path):
    folder, _ = decoder
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.Wo.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.Wo\.weight"):
        load_base(str(tmp_path), None)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_a_decoder_without_weights_that_can_be_read_is_one_sentence(decoder, tmp_path, content):
    folder, _ = decoder
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(
        UserError, match=r"^model\.base: the weights of .* cannot be read .*saved completely\.$"
    ):
        load_base(str(tmp_path), None)


@pytest.mark.parametrize("read", [base_config, lambda path: load_base(path, None)])
def test_a_base_that_is_no_model_is_said_with_the_keys_name(tmp_path, read):
    with pytest.raises(UserError, match=r"^model\.base: .* is not a model that can be opened"):
        read(str(tmp_path))


def test_an_mlm_detour_of_a_causal_model_is_a_recipe(decoder, tiny_recipe, tmp_path):
    folder, _ = decoder
    words = [
        f"model={{base: {folder}, config: null}}",
        "phases.back=${phases.decay}",
        "phases.back={objective: clm, mask_rate: null}",
        "arms={base: [mlm], detour: [mlm, back], twin: [clm]}",
    ]
    config = load_config(tiny_recipe(tmp_path / "run"), words)
    prepare_data(config)
    assert make_plan(Recipe(config)).sizes is not None
    for run in Recipe(config).arm("detour"):
        assert train_phase(Recipe(config), run)
    paths = model_paths(config.model.base, Recipe(config).folder, config.arms)
    assert "base" not in {name for name, path in paths.items() if path == str(folder)}
