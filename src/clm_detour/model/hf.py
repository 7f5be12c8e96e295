"""Read Hugging Face folders strictly, and write folders that every transformers version opens.

A folder holds `config.json` and `model.safetensors` (or shards) of a masked language model or of a
classifier, as transformers 4.48 to 5.x write them. `families` translates the names of its weights. A missing,
unexpected or wrongly shaped weight is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from clm_detour.model.architecture import Kind
from clm_detour.model.families import family_of, is_known, refusal
from clm_detour.model.weights import (
    AGAIN,
    DECODER,
    EMBEDDING,
    INDEX,
    PICKLED,
    PICKLED_INDEX,
    WEIGHTS,
    are_one,
    check_fit,
    check_tied,
    has_weights,
    is_headless,
)
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_write, read_json, write_json
from clm_detour.utils.hub import hub_reason

CONFIG = "config.json"
ADAPTER, SENTENCE_TRANSFORMERS = "adapter_config.json", "modules.json"
COMPILED = "_orig_mod."  # torch.compile puts it into parameter names
NO_CHANGES: Mapping[str, Any] = MappingProxyType({})
CAUSAL = "causal"  # a key of config.json that transformers ignores; written only if it is true
NOT_OF_A_CONFIG = ("dtype", "keys_to_ignore_at_inference")


class FolderModel(PreTrainedModel):
    """A model that is read from folders and written to them.

    Attributes:
        kind: The end of the names of transformers' classes with the same weights.
        causal: Whether a token sees only itself and earlier tokens.
    """

    config: Any
    config_class = PreTrainedConfig
    kind: ClassVar[Kind]
    causal: bool

    @property
    def transformers_class(self) -> str:
        """Return the name of transformers' class with the same weights, written to `config.json`."""
        return family_of(self.config).class_name(self.kind)

    @classmethod
    def _from_folder(
        cls, weights: Mapping[str, Tensor], path: str | os.PathLike[str]
    ) -> Mapping[str, Tensor]:
        """Return what this class takes of the weights of a folder, which are named as here."""
        return weights


Model = TypeVar("Model", bound=FolderModel)


def one_dtype(dtype: torch.dtype | str | None, torch_dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return the type that is given under either of two names, None for the stored one.

    Raises:
        UserError: If two different types are given, or it is not a floating-point type.
    """
    if torch_dtype is None:
        return _dtype(dtype)
    if _dtype(dtype) not in (torch.float32, _dtype(torch_dtype)):
        raise UserError(f"dtype is {dtype} but torch_dtype {torch_dtype}; give one of them.")
    return _dtype(torch_dtype)


def one_device(device_map: Any) -> torch.device | None:
    """Return the device that a `device_map` of transformers names for the whole model.

    Raises:
        UserError: If it names no device, several, or one that is not there.
    """
    if device_map is None:
        return None
    try:
        return _open_device(device_map)
    except (RuntimeError, TypeError, AssertionError) as error:  # from torch's builds without a device
        raise UserError(
            f"device_map {device_map!r} is not one device that is here ({on_one_line(error)}); the model "
            "goes to one as a whole, "
            'such as "cpu" or "cuda:0".'
        ) from None


def _open_device(device_map: Any) -> torch.device:
    if isinstance(device_map, Mapping) and set(device_map) == {""}:
        device_map = device_map[""]
    if not isinstance(device_map, str | int | torch.device):
        raise TypeError("one is named by a string or a number")
    device = torch.device(device_map)
    if device.type == "meta":
        raise RuntimeError("the meta device holds no weights")
    torch.empty(0, device=device)
    return device


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    if found is None or found == "auto":
        return None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(
            f"dtype {dtype!r} is none that weights can have; use torch.float32 or torch.bfloat16."
        )
    return found


def without_weights(cls: type[Model], config: PreTrainedConfig, attention_backend: str | None) -> Model:
    """Return a model on the meta device, with nothing allocated or initialized, to be filled from a file."""
    with torch.device("meta"):
        return cls(config, attention_backend)


def check_architecture(
    cls: type[FolderModel], config: PreTrainedConfig, path: str | os.PathLike[str]
) -> None:
    """Check that a folder is of this class: another may give the same weights another meaning."""
    family = family_of(config)
    found, wanted = config.architectures, family.class_name(cls.kind)
    if not found or wanted in found or cls.kind == "Model" or family.holds(found, cls.kind):
        return
    if family.class_name("Model") in found:
        raise _without_head(path, wanted, family.class_name("Model"))
    raise UserError(
        f"{path} holds a {' and '.join(found)}, not a {wanted}; open it with that class (a classifier "
        "starts from the encoder of either by from_encoder)."
    )


def _without_head(source: str | os.PathLike[str], wanted: str, body: str) -> UserError:
    return UserError(
        f"{source} holds the body of a model without its head, not a {wanted}; open it as a {body}, or with "
        "from_encoder, which makes a fresh head."
    )


def fetch(path: str | os.PathLike[str], revision: str | None = None, **options: Any) -> Path:
    """Return the folder at `path`, or that of the hub id `path`, downloaded if it is not in the cache.

    Args:
        path: Folder or hub id.
        revision: Branch, tag or commit.
        options: Further options of `huggingface_hub.snapshot_download`.

    Raises:
        UserError: If it is neither a folder nor a model of the Hub.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"Give the path of a model's folder or its hub id, not a {type(path).__name__}.")
    path = as_folder(path)
    if Path(path).exists() or Path(path).is_absolute():
        return Path(path)
    try:
        files = [CONFIG, INDEX, "model*.safetensors"]
        folder = Path(snapshot_download(str(path), revision=revision, allow_patterns=files, **options))
        if not has_weights(folder):
            files = [CONFIG, PICKLED_INDEX, PICKLED]
            folder = Path(snapshot_download(str(path), revision=revision, allow_patterns=files, **options))
        return folder
    except (OSError, ValueError) as error:  # the types of huggingface_hub's errors
        raise UserError(
            f"{path} is neither a folder nor a model that can be fetched from the Hugging Face Hub "
            f"({hub_reason(error)}); check the name, and the network or cache."
        ) from error


def as_folder(path: str | os.PathLike[str]) -> str:
    """Return the folder into which a Composer checkpoint `FILE.pt` is converted, and any other path as it is.

    Raises:
        UserError: If it cannot be converted.
    """
    if os.fspath(path).endswith(".pt") and os.path.isfile(os.path.expanduser(path)):
        from clm_detour.model.composer.convert import converted  # few need it, and it imports much

        return str(converted(Path(path).expanduser()))
    return os.fspath(path)


def check_kind(path: str | os.PathLike[str], kind: Any) -> None:
    """Refuse a ModernBERT in transformers' causal form, and name the way to an encoder.

    Raises:
        UserError: If the `model_type` is that of the causal form.
    """
    if kind == "modernbert-decoder":
        raise UserError(
            f"{path} is a ModernBertDecoder, which is no bidirectional encoder; open it with transformers, "
            "take its weights with ModernBertForPretraining.from_decoder, and save that."
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds a model in another form than transformers' own.

    Raises:
        UserError: If it is a folder of PEFT or sentence-transformers. The error says how to make or where to
            find the model.
    """
    if not folder.is_dir() or (folder / CONFIG).exists():
        return
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder} holds an adapter of PEFT, not a whole model; merge it into its model "
            "(merge_and_unload of the PeftModel) and give the folder to which that is saved."
        )
    inside = sorted(file.parent for file in folder.glob(f"*/{CONFIG}") if "Transformer" in file.parent.name)
    if (folder / SENTENCE_TRANSFORMERS).exists() and inside:
        raise UserError(
            f"{folder} is of sentence-transformers, and its encoder lies in {inside[0]}; give that folder."
        )


def read_config(folder: Path, changes: Mapping[str, Any] = NO_CHANGES) -> Any:
    """Read `config.json` of a model of a family that the network computes.

    Args:
        folder: The folder.
        changes: Keys with other values.

    Raises:
        UserError: If it is missing, belongs to another model, or has a value that transformers does not
            accept.
    """
    check_folder(folder)
    keys = read_json(folder / CONFIG, AGAIN)
    kind = keys.get("model_type") if isinstance(keys, dict) else keys
    check_kind(folder, kind)
    if not is_known(kind):
        raise UserError(f"{folder / CONFIG} {refusal(kind)}.")
    if (
        "local_rope_theta" in keys and keys["local_rope_theta"] is None
    ):  # it means the same as in global layers
        keys["local_rope_theta"] = keys.get("global_rope_theta", 160_000.0)
    try:
        return CONFIG_MAPPING[str(kind)].from_dict({**keys, **changes})
    except Exception as error:  # its type differs between releases
        raise UserError(
            f"The config of {folder} is not valid ({on_one_line(error)}); correct it there or in what you "
            "asked for."
        ) from error


def fill(model: FolderModel, weights: Mapping[str, Tensor], source: str, dtype: torch.dtype | None) -> None:
    """Load weights into a model.

    Args:
        model: The model.
        weights: Its weights, by name.
        source: Where they come from, for the error.
        dtype: Type of the weights. None keeps theirs.

    Raises:
        UserError: If they do not fit exactly. Only a tied `decoder.weight` may be absent.
    """
    if is_headless(weights) and model.kind != "Model":
        body = family_of(model.config).class_name("Model")
        raise _without_head(source, model.transformers_class, body)
    weights = dict(weights)
    if is_tied(model) and EMBEDDING in weights:
        weights.setdefault(DECODER, weights[EMBEDDING])
        check_tied(weights, source, "set tie_word_embeddings to false in its config")
    expected = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    check_fit(expected, weights, source, model.transformers_class, "use a folder that was saved whole")
    model.load_state_dict(
        {name: w.to(dtype or w.dtype, copy=True) for name, w in weights.items()}, assign=True
    )
    model.tie_weights()


def is_tied(model: FolderModel) -> bool:
    """Return whether the decoder is the embedding. A classifier has no decoder."""
    return model.config.tie_word_embeddings and model.get_output_embeddings() is not None


def save(
    model: FolderModel,
    folder: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a folder that transformers' class with the same weights, of any version, opens.

    Args:
        model: The model.
        folder: The folder.
        state_dict: The weights, gathered from many processes. None means the model's own.

    Raises:
        UserError: If the folder cannot be written, the weights are not exactly those of the model's config,
            one is on the meta device, or the decoder is no longer the embedding though the config says so.
    """
    state_dict = model.state_dict() if state_dict is None else state_dict
    weights = {name.replace(COMPILED, ""): w.detach().contiguous() for name, w in state_dict.items()}
    _check_whole(model, weights)
    if any(weight.is_meta for weight in weights.values()):
        raise UserError(
            "The model to save has weights on the meta device, which holds no values; load or gather all "
            "weights first, or give them as state_dict."
        )
    if is_tied(model):
        check_tied(weights)
        weights.pop(DECODER, None)
    elif DECODER in weights and are_one(weights[DECODER], weights[EMBEDDING]):
        weights[DECODER] = weights[DECODER].clone()  # safetensors does not store one tensor under two names
    with atomic_write(Path(folder) / WEIGHTS) as file:
        save_file(
            family_of(model.config).to_theirs(weights, model.kind), file.name, metadata={"format": "pt"}
        )
    write_json(Path(folder) / CONFIG, config_keys(model))


def _check_whole(model: FolderModel, weights: Mapping[str, Tensor]) -> None:
    """Check that what is saved can be opened again.

    The names come from a new model, because those of `model` may have been changed or sharded.
    """
    new = without_weights(type(model), model.config, None)
    expected = {name: tuple(weight.shape) for name, weight in new.state_dict().items()}
    if is_tied(new) and DECODER not in weights:
        expected.pop(DECODER)
    remedy = (
        "merge adapters first, and give as state_dict all weights of the model itself, without a wrapper, or "
        "leave it out"
    )
    check_fit(expected, weights, "the model to save", model.transformers_class, remedy)


def config_keys(model: FolderModel) -> dict[str, Any]:
    """Return the keys of a `config.json` that every transformers version understands."""
    keys: dict[str, Any] = model.config.to_diff_dict()
    for key in NOT_OF_A_CONFIG:
        keys.pop(key, None)
    if model.causal:
        keys[CAUSAL] = True
    keys |= family_of(model.config).config_keys(model.config)
    keys |= {
        "architectures": [model.transformers_class],
        "torch_dtype": str(model.dtype).removeprefix("torch."),
    }
    return dict(sorted(keys.items()))
