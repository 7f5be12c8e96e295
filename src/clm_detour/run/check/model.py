"""Check the model: config, attention, loggers, and the weights and the tokenizer of a base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Model
from clm_detour.data.auto_tokenizer import check_auto_tokenizer
from clm_detour.data.older_tokenizer import OLDER
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.measure.encoder import check_measurable
from clm_detour.model import hf
from clm_detour.model.attention import AUTO, BACKENDS
from clm_detour.model.families import architecture_of
from clm_detour.recipe.base import check_base, fills_masks
from clm_detour.recipe.start import base_config, check_fit, fresh_config, is_decoder
from clm_detour.train import require_composer
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of


def check_start(model: Model, loggers: Mapping[Any, Mapping[str, Any] | None]) -> None:
    """Raise UserError if attention, dropout, the weights of a base or a logger would stop training."""
    one_of(model.attention, [AUTO, *BACKENDS], "model.attention")
    base, keys = model.base, model.config or {}
    dropout = keys.get("attention_dropout", 0)
    if base is not None:
        dropout = architecture_of(base_config(base)).attention_dropout
    if dropout:
        raise UserError(
            f"The model's attention_dropout is {dropout}, with which this network cannot train; set it to 0 "
            f"in {'model.config' if base is None else 'the config.json of model.base'}."
        )
    if base is not None:
        check_base(base)
    if loggers:
        require_composer()
        from clm_detour.train.loggers import check_logger  # Composer takes seconds to import

        for name, options in loggers.items():
            check_logger(name, options or {})


def base_warnings(base: str | None) -> Iterator[str]:
    """Yield what training does to a base that a user may not expect: a new head, and no dropout."""
    if base is None or is_decoder(base):
        return
    if not fills_masks(base):
        yield (
            f"model.base: {base} has no masked-LM head, so training starts with a new one, and the base "
            "itself is not scored on held-out text."
        )
    config = base_config(base)
    rates = {key: getattr(config, key, 0) for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    if any(rates.values()):
        listed = " and ".join(f"{key} {rate}" for key, rate in rates.items() if rate)
        yield (
            f"model.base: {base} asks for {listed}; training here has no such dropout, and the exported "
            "config keeps the values."
        )


def check_tokenizer(model: Model, path: str, tokenizer: Tokenizer) -> None:
    """Raise UserError if the tokenizer at `path` does not fit the model or transformers."""
    check_auto_tokenizer(path, tokenizer)
    fresh = model.base is None
    check_fit(
        fresh_config(model.config or {}, tokenizer) if fresh else base_config(str(model.base)), tokenizer
    )


def check_base_tokenizer(base: str) -> None:
    """Raise UserError if fine-tuning could not open a base with its own tokenizer.

    A base without one is opened with that of the run, as are all bases for masks, held-out text and analysis.
    """
    if has_tokenizer(base):
        check_measurable(base)


def has_tokenizer(base: str) -> bool:
    """Return whether a base comes with a tokenizer. A model on the Hub is assumed to have one."""
    base = hf.as_folder(base)
    names = ("tokenizer.json", *OLDER)
    return not Path(base).is_dir() or any((Path(base) / name).is_file() for name in names)


def tokenizer_warnings(base: str | None, path: str, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield a warning if a base comes with another tokenizer than that of the data, which is at `path`."""
    if base is None or base == path or not has_tokenizer(base):
        return
    with suppress(UserError):
        if load_tokenizer(hf.as_folder(base)).fingerprint != tokenizer.fingerprint:
            yield (
                f"model.base: {base} comes with another tokenizer than {path}, with which the data is "
                "prepared; the base may do badly on it."
            )
