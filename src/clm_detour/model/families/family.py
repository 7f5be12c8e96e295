"""A family of encoders: how its config is read, and how its folders name the weights.

In memory every network has the names of ModernBERT's weights, so that freezing, optimizer, checkpoints and
analysis know one set of names. Names are translated only where a folder is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from clm_detour.model.architecture import Architecture, Kind
from clm_detour.model.weights import BODY
from clm_detour.utils.errors import UserError

Weights = Mapping[str, Tensor]
Table = Mapping[str, str]  # from a part of a folder's name to ours; the first that fits counts
NOTHING: Mapping[Any, Any] = MappingProxyType({})
QKV, BIAS = ".attn.Wqkv.", "decoder.bias"
LEGACY = {".gamma": ".weight", ".beta": ".bias"}  # of norms, in folders converted from TensorFlow


@dataclass(frozen=True)
class Names:
    """The names of weights in the folders of a family.

    Args:
        body: Prefix of the body's weights, which a folder of the body alone omits.
        parts: Parts of the names in the body.
        qkv: Parts of the names of queries, keys and values, which are one matrix here.
        heads: The names of the head and the output layer for each kind of class.
        second_bias: The name under which untied folders hold the vocabulary's bias a second time.
        unused: Beginnings of names that folders carry and no network here uses.
    """

    body: str
    parts: Table
    qkv: tuple[str, str, str]
    heads: Mapping[Kind, Table]
    second_bias: str
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A family of encoders.

    Args:
        prefix: Beginning of the names of transformers' classes.
        config_class: Name of transformers' class of its config.
        read: Function from a config to its `Architecture`; raises a UserError for what cannot be computed.
        decoder: Name of transformers' causal class.
        config_keys: Function that returns further keys to write to `config.json`.
        names: Names of weights in its folders; None if they are those of the network.
    """

    prefix: str
    config_class: str
    read: Callable[[Any], Architecture]
    decoder: str
    config_keys: Callable[[Any], dict[str, Any]] = field(default=lambda _: {})
    names: Names | None = None

    def class_name(self, kind: Kind) -> str:
        """Return the name of transformers' class of a kind."""
        return self.prefix + kind

    def holds(self, found: list[str], kind: Kind) -> bool:
        """Return whether a folder of these classes holds all weights of a class of this kind."""
        return kind == "ForMaskedLM" and self.prefix + "ForPreTraining" in found

    def to_ours(self, weights: Weights, kind: Kind, tied: bool, source: str) -> tuple[Weights, list[str]]:
        """Return the weights of a folder as a class of this kind names them, and the names left out.

        Names that nothing here knows stay as they are.

        Args:
            tied: Whether the config says that the vocabulary's projection is the embedding. If so, its bias
                is stored once, or twice with equal values; if not, the second one counts in transformers.
            source: Where the weights come from, for the error.

        Raises:
            UserError: If a tied folder holds two different biases of the vocabulary.
        """
        names = self.names
        if names is None:
            return weights, []
        alone = not any(name.startswith((names.body, *names.heads["ForMaskedLM"])) for name in weights)
        heads = names.heads.get(kind, NOTHING)
        found: dict[str, Tensor] = {}
        unused, second = [], None
        for name, weight in weights.items():
            old = next((old for old in LEGACY if name.endswith(old)), "")
            full = name.removesuffix(old) + LEGACY.get(old, "")
            if alone and full.startswith(("embeddings.", "encoder.", "pooler.")):
                full = names.body + full
            head = next((theirs for theirs in heads if full.startswith(theirs)), None)
            if full == names.second_bias and kind == "ForMaskedLM":
                second = weight
            elif head is not None:
                found[heads[head] + full.removeprefix(head)] = weight
            elif full.startswith(names.unused):
                unused.append(full)
            else:
                found[_body_name(full, names)] = weight
        if second is not None:
            if tied:
                _check_one_bias(found.get(BIAS, second), second, source)
            found[BIAS] = second
        return _joined(found, names), unused

    def to_theirs(self, weights: Weights, kind: Kind) -> dict[str, Tensor]:
        """Return the weights of a class of this kind as a folder names them."""
        names = self.names
        if names is None:
            alone = kind == "Model"
            return {name.removeprefix(BODY) if alone else name: weight for name, weight in weights.items()}
        found: dict[str, Tensor] = {}
        heads = {ours: theirs for theirs, ours in names.heads.get(kind, NOTHING).items()}
        for name, weight in weights.items():
            head = next((ours for ours in heads if name.startswith(ours)), None)
            if head is not None:
                found[heads[head] + name.removeprefix(head)] = weight
            elif QKV in name:
                parts = zip(names.qkv, weight.chunk(3), strict=True)
                found |= {
                    _folder_name(name.replace(QKV, part), names): chunk.contiguous() for part, chunk in parts
                }
            else:
                found[_folder_name(name, names)] = weight
        if "decoder.weight" in weights and BIAS in weights:
            found[names.second_bias] = weights[BIAS].clone()
        if kind == "Model":
            found = {name.removeprefix(names.body): weight for name, weight in found.items()}
        return found


def _check_one_bias(one: Tensor, other: Tensor, source: str) -> None:
    if one is not other and not one.is_meta and not torch.equal(one, other):
        raise UserError(
            f"{source} holds two different biases of the vocabulary, and it is not known which one counts; "
            "save the model again with transformers."
        )


def _body_name(full: str, names: Names) -> str:
    """Return our name of a weight of the body."""
    if not full.startswith(names.body):
        return full
    name = BODY + full.removeprefix(names.body)
    for theirs, ours in names.parts.items():
        name = name.replace(theirs, ours)
    return name


def _folder_name(name: str, names: Names) -> str:
    """Return a folder's name of a weight of the body."""
    for theirs, ours in names.parts.items():
        name = name.replace(ours, theirs)
    return names.body + name.removeprefix(BODY) if name.startswith(BODY) else name


def _joined(weights: dict[str, Tensor], names: Names) -> Weights:
    """Return the weights with queries, keys and values in one matrix, wherever a folder has all three."""
    first, *others = names.qkv
    joined: dict[str, Tensor] = {}
    for name, weight in weights.items():
        three = [name.replace(first, part) for part in names.qkv]
        if first in name and all(part in weights for part in three):
            joined[name.replace(first, QKV)] = torch.cat([weights[part] for part in three])
        elif not any(
            part in name and all(name.replace(part, one) in weights for one in names.qkv) for part in others
        ):
            joined[name] = weight
    return joined
