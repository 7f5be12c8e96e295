"""Frozen layers: what a phase leaves as it is, to the bit.

A frozen parameter asks for no gradient, so it is in no optimizer and has no moments. Below the lowest parameter that is trained
autograd records nothing: with the embeddings and layers 0-7 frozen there is no backward through them; with layers 0-7 alone
there is, since the embeddings below want their gradient.
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers import ModernBertConfig

from clm_detour.config.schema import Freeze
from clm_detour.config.units import parse_layers
from clm_detour.model.modernbert import ModernBertForPretraining


def frozen_layers(
    settings: Freeze | None, model: ModernBertConfig, where: str = "freeze.layers"
) -> frozenset[int]:
    """The frozen layers' numbers.

    Raises:
        UserError: the model has fewer.
    """
    if settings is None or settings.layers is None:
        return frozenset()
    return parse_layers(settings.layers, where, model.num_hidden_layers)


def frozen_names(settings: Freeze | None, network: ModernBertForPretraining) -> set[str]:
    """The frozen parameters, as `network.named_parameters()` names them.

    Raises:
        UserError: as `frozen_layers`.
    """
    if settings is None:
        return set()
    parts = [f"model.layers.{layer}." for layer in frozen_layers(settings, network.config)]
    parts += ["model.embeddings."] if settings.embeddings else []
    return names_below(network, parts) | (head_names(network) if settings.head else set())


def head_names(network: ModernBertForPretraining) -> set[str]:
    """The prediction head and the decoder; not the decoder's weights where they are the embeddings', which bear that name."""
    return names_below(network, ["head.", "decoder."])


def names_below(network: ModernBertForPretraining, parts: Iterable[str]) -> set[str]:
    """Parameters whose names begin so; a tied one has the name of its first place."""
    return {name for name, _ in network.named_parameters() if name.startswith(tuple(parts))}


def freeze(settings: Freeze | None, network: ModernBertForPretraining) -> None:
    """Ask no gradient of what is frozen, before an optimizer is made.

    Raises:
        UserError: as `frozen_layers`.
    """
    frozen = frozen_names(settings, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
