"""Small encoders with the tiny tokenizer, in folders as people have them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, ModernBertConfig

from clm_detour.__main__ import main
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model import ModernBertForPretraining
from clm_detour.recipe.export import write_model


def make_model(
    tokenizer: Path, folder: Path, seed: int, layers: int = 3, noise: float = 0.0, of: int = 0
) -> Path:
    """A random ModernBERT: the weights of seed `of`, and `noise` times those of `seed` on top."""
    ids = load_tokenizer(str(tokenizer))
    config = ModernBertConfig(
        vocab_size=ids.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=2, local_attention=16, pad_token_id=ids.pad, cls_token_id=ids.cls,
        sep_token_id=ids.sep, bos_token_id=ids.cls, eos_token_id=ids.sep,
    )  # fmt: skip
    network = ModernBertForPretraining(config)
    for number, weight in ((of, 1.0), (seed, noise)):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "norm" not in name:
                    fresh = 0.3 * torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(weight * fresh + (parameter if number != of else 0))
    write_model(network, str(tokenizer), folder, {})
    return folder


@pytest.fixture(scope="session")
def models(tiny_data, tmp_path_factory) -> dict[str, str]:
    """`base`; `near` and `near2`, two small steps from it; `far`, a large one; `deep`, of five layers."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = tiny_data / "tokenizer"
    noise = {"base": 0.0, "near": 0.1, "near2": 0.1, "far": 0.6}
    paths = {
        name: make_model(tokenizer, folder / name, seed, noise=much)
        for seed, (name, much) in enumerate(noise.items(), start=1)
    }
    paths["deep"] = make_model(tokenizer, folder / "deep", 9, layers=5)
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="session")
def bert(tiny_data, tmp_path_factory) -> str:
    """A BERT with the same tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = AutoTokenizer.from_pretrained(tiny_data / "tokenizer")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def texts_file(tiny_data) -> str:
    return str(tiny_data / "sample" / "abstracts.jsonl.gz")


@pytest.fixture(scope="session")
def texts(texts_file) -> list[str]:
    return list(dict.fromkeys(read_documents(texts_file)))


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Run the command in this process; gives its exit code and what it said."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clm-detour", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out + err

    return run
