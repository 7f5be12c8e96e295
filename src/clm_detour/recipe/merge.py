"""Average models that started from one base, such as several decays or seeds: a model soup.

The mean of the weights of models that share a part of their training is often better than each of them
(Wortsman et al., 2022, arXiv 2203.05482), and costs no more to use than one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData, snapshot_download
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clm_detour.model import hf
from clm_detour.model.weights import WEIGHTS, read_shapes, weight_files
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_folder, read_json
from clm_detour.utils.progress import progress

TOKENIZER_FILES = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
NOT_COMPARED = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}  # keys of config.json
CARD = """# Average of {count} models

The weights of this model are the weighted mean of those of

{parents}

Config and tokenizer are those of the first; all of them have the same. Scores of the average are not known
until it is evaluated itself.
"""


def merge(models: Sequence[str], folder: Path, shares: Sequence[float] | None = None) -> None:
    """Write the weighted mean of models as a Hugging Face folder, with a card that names them.

    The mean is computed in fp64 and stored in the precision of the first model.

    Args:
        models: Folders or hub ids, at least two.
        folder: Folder to write. A folder that is there is replaced.
        shares: A positive number for each model; they are divided by their sum. None means equal shares.

    Raises:
        UserError: If there are fewer than two models, the number of shares is another, or the models differ
            in their configs, their tokenizers, or the names and shapes of their weights.
    """
    shares = normalized(models, shares)
    folders = [folder_of(path) for path in models]
    for other in folders[1:]:
        check_alike(folders[0], other)
    with atomic_folder(folder) as temporary:
        save_file(mean(folders, shares), temporary / WEIGHTS, metadata={"format": "pt"})
        for name in (hf.CONFIG, *TOKENIZER_FILES):
            if (folders[0] / name).exists():
                shutil.copyfile(folders[0] / name, temporary / name)
        (temporary / "README.md").write_text(card(models, shares), encoding="utf-8")


def folder_of(path: str) -> Path:
    """Return the folder of a model, with its tokenizer if it comes from the Hub."""
    folder = hf.fetch(path)
    if not Path(path).exists():
        snapshot_download(path, allow_patterns=list(TOKENIZER_FILES))
    return folder


def normalized(models: Sequence[str], shares: Sequence[float] | None) -> list[float]:
    """Return the shares of the models, whose sum is 1."""
    if len(models) < 2:
        raise UserError("An average takes at least two models; name the folders of two or more.")
    if shares is None:
        return [1 / len(models)] * len(models)
    if len(shares) != len(models):
        raise UserError(
            f"There are {len(models)} models and {len(shares)} weights; give one weight for each model."
        )
    if min(shares) <= 0:
        raise UserError("A weight is not positive; leave a model out instead.")
    return [share / sum(shares) for share in shares]


def check_alike(first: Path, other: Path) -> None:
    """Check that two models have the same config, tokenizer, and names and shapes of weights."""
    configs = [read_json(folder / hf.CONFIG, "save the model again") for folder in (first, other)]
    for key in sorted((configs[0].keys() | configs[1].keys()) - NOT_COMPARED):
        values = [config.get(key) for config in configs]
        if values[0] != values[1]:
            raise UserError(
                f"The configs of {first} and {other} differ ({key}: {values[0]} and {values[1]}); only "
                "models of one architecture can be averaged."
            )
    shapes = [read_shapes(folder) for folder in (first, other)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(name) != shapes[1].get(name):
            raise UserError(
                f"The weight {name} is {words(shapes[0].get(name))} in {first} and "
                f"{words(shapes[1].get(name))} in {other}; average models that started from one base."
            )
    tokenizers = [tokenizer_of(folder) for folder in (first, other)]
    if None not in tokenizers and tokenizers[0] != tokenizers[1]:
        raise UserError(
            f"{first} and {other} have different tokenizers, and so their embeddings mean different words; "
            "average models with one tokenizer."
        )


def words(shape: tuple[int, ...] | None) -> str:
    """Return a shape for a sentence."""
    return "missing" if shape is None else f"of shape {shape}"


def tokenizer_of(folder: Path) -> Mapping[str, Any] | None:
    """Return the content of `tokenizer.json` without truncation and padding, or None if there is none."""
    if not (folder / TOKENIZER_FILES[0]).exists():
        return None
    content = read_json(folder / TOKENIZER_FILES[0], "fetch the model again")
    return {key: value for key, value in content.items() if key not in ("truncation", "padding")}


def mean(folders: Sequence[Path], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of each weight."""
    names = list(read_shapes(folders[0]))
    sums: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    with progress("Averaging", len(names) * len(folders), "weights") as advance:
        for folder, share in zip(folders, shares, strict=True):
            for file in weight_files(folder):
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118
                        weight = tensors.get_tensor(name)
                        dtypes.setdefault(name, weight.dtype)
                        part = weight.double() * share
                        sums[name] = sums[name].add_(part) if name in sums else part
                        advance(1)
    return {name: total.to(dtypes[name]).contiguous() for name, total in sums.items()}


def card(models: Sequence[str], shares: Sequence[float]) -> str:
    """Return the model card, which names the parents and their shares and no folder of this machine."""
    names = [Path(model).name if Path(model).exists() else model for model in models]
    from_hub = [model for model in models if not Path(model).exists()]
    data = ModelCardData(
        base_model=from_hub or None,
        base_model_relation="merge" if from_hub else None,
        library_name="transformers",
        tags=["merge"],
    )
    parents = "\n".join(f"- {name}: {share:.4g}" for name, share in zip(names, shares, strict=True))
    return f"---\n{data.to_yaml()}\n---\n\n{CARD.format(count=len(models), parents=parents)}"
