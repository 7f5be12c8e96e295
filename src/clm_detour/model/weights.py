"""The weights of a Hugging Face folder: their files, their names, and whether they fit a model."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import read_json

WEIGHTS, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model*.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
BODY = "model."  # prefix of the body's weights, omitted in a folder without a head
EMBEDDING, DECODER = f"{BODY}embeddings.tok_embeddings.weight", "decoder.weight"
AGAIN = "save or fetch the model again"
NAMES_SHOWN = 10

Held = Literal["body", "classifier", "language model"]

Shapes = dict[str, tuple[int, ...]]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors` or its shards, or else `pytorch_model.bin` or its shards.

    Raises:
        UserError: If there are none, or a file is damaged or missing.
    """
    if not has_weights(folder) and (pickled := pickled_files(folder)):
        return {name: tensor for file in pickled for name, tensor in _unpickled(file, "cpu").items()}
    return {
        name: tensor for file in weight_files(folder) for name, tensor in read_tensors(file, AGAIN).items()
    }


def read_shapes(folder: Path) -> Shapes:
    """Read the name and shape of every weight from the headers of the files, without the weights.

    Raises:
        UserError: If there are none, or a file is damaged or missing.
    """
    shapes: Shapes = {}
    if not has_weights(folder) and (pickled := pickled_files(folder)):
        for file in pickled:
            shapes |= {name: tuple(tensor.shape) for name, tensor in _unpickled(file, "meta").items()}
        return shapes
    for file in weight_files(folder):
        with _safetensors_errors(file, AGAIN), safe_open(file, framework="pt") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return shapes


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    """Return tensors of these shapes without data, on the meta device."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def has_weights(folder: Path) -> bool:
    """Return whether a folder has a file or an index of safetensors."""
    return (folder / WEIGHTS).exists() or (folder / INDEX).exists()


def weight_files(folder: Path) -> list[Path]:
    """Return `model.safetensors` or the shards that its index names.

    Raises:
        UserError: If there are none, or the index is damaged.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        return [folder / shard for shard in _shards(folder / INDEX)]
    pickled = next(folder.glob(PICKLED), None)
    unread = f"; its {pickled.name} is not read, because such a file can run code" if pickled else ""
    raise UserError(
        f"{folder} has no {WEIGHTS}{unread}; open the model with its class of transformers and save it with "
        "save_pretrained, which writes that file."
    )


def pickled_files(folder: Path) -> list[Path]:
    """Return `pytorch_model.bin` or its shards, an empty list if there are none.

    Raises:
        UserError: If their index is damaged.
    """
    if (folder / PICKLED_INDEX).exists():
        return [folder / shard for shard in _shards(folder / PICKLED_INDEX)]
    return sorted(folder.glob(PICKLED))


def _unpickled(file: Path, device: str) -> dict[str, Tensor]:
    """Read the tensors of a file of `torch.save`. No code in it is run.

    Raises:
        UserError: If it is missing, damaged, or holds anything other than tensors by name.
    """
    try:
        mmap = device != "meta" and zipfile.is_zipfile(file)  # files before torch 1.6 cannot be mapped
        found = torch.load(file, map_location=device, mmap=mmap, weights_only=True)
    except Exception as error:  # its type differs between kinds of damage
        raise UserError(
            f"{file} cannot be read as weights without running code ({on_one_line(error)[:200]}); open the "
            "model with its class of transformers and save it with save_pretrained, which writes "
            f"{WEIGHTS}."
        ) from None
    if not isinstance(found, dict) or not all(isinstance(weight, Tensor) for weight in found.values()):
        raise UserError(f"{file} does not hold tensors by name alone, so it is not a model's weights.")
    return found


def held_by(names: Iterable[str]) -> Held:
    """Return which part of a model has weights of these names, which are ours. `check_fit` checks them."""
    modules = {name.split(".")[0] for name in names}
    if modules & {"classifier", "qa_outputs"}:
        return "classifier"
    return "body" if "embeddings" in modules or modules == {"model"} else "language model"


def is_headless(names: Iterable[str]) -> bool:
    """Return whether these are the weights of a body alone, without a head."""
    return held_by(names) == "body"


def as_with_head(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights of a folder, named as in a class with a head, where the body is `model.*`."""
    if not is_headless(weights):
        return weights
    return {BODY + name.removeprefix(BODY): weight for name, weight in weights.items()}


def modules_of(names: Iterable[str]) -> str:
    """Return the modules that these weights belong to, for a sentence."""
    return " and ".join(sorted({name.split(".")[0] for name in names}))


def _shards(index: Path) -> list[str]:
    found = read_json(index, AGAIN)
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict):
        raise UserError(f"{index} does not say in which file each weight lies (weight_map); {AGAIN}.")
    return sorted(set(places.values()))


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Args:
        path: The file.
        remedy: What to do if it cannot be read, for the error.

    Raises:
        UserError: If it is missing or damaged.
    """
    with _safetensors_errors(path, remedy):
        return load_file(path)


@contextmanager
def _safetensors_errors(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); {remedy}.") from None


def check_tied(
    weights: Mapping[str, Tensor],
    source: str = "the model",
    remedy: str = "call tie_weights(), or set config.tie_word_embeddings to False",
) -> None:
    """Check that the decoder is the embedding, of which a folder or another class would keep only one.

    Args:
        weights: The weights.
        source: Where they come from, for the error.
        remedy: What to do if they differ.

    Raises:
        UserError: If the decoder is not the embedding.
    """
    embedding = weights[EMBEDDING]
    if embedding.is_meta:
        return  # there are no values to compare
    decoder = weights.get(DECODER, embedding)
    if not are_one(decoder, embedding) and not torch.equal(decoder, embedding):
        raise UserError(
            f"{source} has tie_word_embeddings, but its {DECODER} is not its {EMBEDDING}; {remedy}."
        )


def are_one(one: Tensor, other: Tensor) -> bool:
    """Return whether two weights share their memory."""
    return one.data_ptr() == other.data_ptr()


def check_fit(
    expected: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, Tensor],
    source: str,
    architecture: str,
    remedy: str,
) -> None:
    """Check that weights have exactly the names and shapes that a model expects.

    Args:
        expected: Shape of each weight of the model.
        weights: The weights.
        source: Where they come from, for the error.
        architecture: Name of the model's class, for the error.
        remedy: What to do if they do not fit.

    Raises:
        UserError: If one is missing, unexpected or of another shape.
    """
    problems = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in weights and tuple(weights[name].shape) != shape
        ],
    }
    if prefix := _wrappers_prefix(problems["missing"], weights):
        raise UserError(
            f"The weights of {source} are named with {prefix!r} before each name, because a wrapper of the "
            "model was saved; save the model inside it."
        )
    found = "; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names)
    if found:
        raise UserError(
            f"The weights of {source} are not those of a {architecture} with its config ({found}); {remedy}."
        )


def _wrappers_prefix(missing: list[str], weights: Mapping[str, Tensor]) -> str | None:
    """Return the prefix that a wrapper of the model has put before every missing name, if there is one."""
    if not missing:
        return None
    prefix = next((name.removesuffix(missing[0]) for name in weights if name.endswith(f".{missing[0]}")), "")
    return prefix if all(prefix + name in weights for name in missing if name != DECODER) else None


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
