"""Read the weights of a folder of any family under the names that the network has for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clm_detour.model.architecture import Kind
from clm_detour.model.families import family_of
from clm_detour.model.weights import Held, Shapes, held_by, on_meta, read_shapes, read_weights

logger = logging.getLogger(__name__)


def read_named(folder: Path, config: Any, kind: Kind, source: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """Return the weights of a folder as a class of this kind names them.

    Args:
        source: The folder or hub id as the user gave it, for the log and for errors.

    Raises:
        UserError: If there are none, or a file is damaged or missing.
    """
    weights, unused = family_of(config).to_ours(
        read_weights(folder), kind, config.tie_word_embeddings, str(source)
    )
    if unused:
        logger.warning("%s: %s are not used.", source, ", ".join(unused))
    return weights


def named_shapes(shapes: Shapes, config: Any, source: str) -> dict[str, Tensor]:
    """Return tensors without data for the weights of a folder, as a masked language model names them.

    Args:
        shapes: Shape of each weight, as the folder names it.
        source: Where they come from, for errors.
    """
    tied = config.tie_word_embeddings
    return dict(family_of(config).to_ours(on_meta(shapes), "ForMaskedLM", tied, source)[0])


def held_in(folder: Path, config: Any) -> Held:
    """Return which part of a model a folder holds, from the headers of its weights.

    Raises:
        UserError: If there are none, or a file is damaged or missing.
    """
    return held_by(named_shapes(read_shapes(folder), config, str(folder)))
