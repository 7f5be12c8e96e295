"""Frozen layers: parameters that stay bit-identical during a phase.

A frozen parameter needs no gradient, so it is in no optimizer and has no optimizer state. Autograd records
nothing below the lowest trained parameter: with the embeddings and layers 0-7 frozen there is no backward
pass through them. With only layers 0-7 frozen there is one, since the embeddings below need their gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clm_detour.config.schema import Freeze
from clm_detour.config.units import parse_layers
from clm_detour.model.modernbert import ModernBertForPretraining


def frozen_layers(settings: Freeze | None, model: Any, where: str = "freeze.layers") -> frozenset[int]:
    """Return the numbers of the frozen layers.

    Args:
        where: Key of the setting, for the message.

    Raises:
        UserError: If the model has fewer layers.
    """
    if settings is None or settings.layers is None:
        return frozenset()
    return parse_layers(settings.layers, where, model.num_hidden_layers)


def frozen_names(settings: Freeze | None, network: ModernBertForPretraining) -> set[str]:
    """Return the names of the frozen parameters, as in `network.named_parameters()`.

    Raises:
        UserError: As `frozen_layers`.
    """
    if settings is None:
        return set()
    prefixes = [f"model.layers.{layer}." for layer in frozen_layers(settings, network.config)]
    prefixes += ["model.embeddings."] if settings.embeddings else []
    return names_below(network, prefixes) | (head_names(network) if settings.head else set())


def head_names(network: ModernBertForPretraining) -> set[str]:
    """Return the parameter names of the prediction head and the decoder.

    Decoder weights that are tied to the embeddings have the name of the embeddings, so they are not included.
    """
    return names_below(network, ["head.", "decoder."])


def names_below(network: ModernBertForPretraining, prefixes: Iterable[str]) -> set[str]:
    """Return the parameter names that start with one of the prefixes."""
    return {name for name, _ in network.named_parameters() if name.startswith(tuple(prefixes))}


def freeze(settings: Freeze | None, network: ModernBertForPretraining) -> None:
    """Turn off the gradient of frozen parameters, and turn on all others, before an optimizer is made.

    Raises:
        UserError: As `frozen_layers`.
    """
    frozen = frozen_names(settings, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
