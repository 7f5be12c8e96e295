"""The model: its config, the weights and the tokenizer of a base, and what would stop training at its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from clm_detour.config.schema import Config
from clm_detour.data.auto_tokenizer import check_auto_tokenizer
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of


def existing_tokenizer(config: Config) -> Tokenizer | None:
    """The tokenizer, unless the run has yet to train it."""
    if config.tokenizer.path is not None:
        return load_tokenizer(config.tokenizer.path)
    folder = RunFolder.of(config).tokenizer
    return load_tokenizer(str(folder)) if (folder / "tokenizer.json").exists() else None


def check_start(config: Config) -> None:
    """What would stop training at its start: the name of the attention, a dropout that the network does not have, a base's weights, the loggers.

    Raises:
        UserError: the first of these.
    """
    from clm_detour.model.attention import AUTO, BACKENDS
    from clm_detour.recipe.base import check_base
    from clm_detour.recipe.start import base_config

    one_of(config.model.attention, [AUTO, *BACKENDS], "model.attention")
    base, keys = config.model.base, config.model.config or {}
    dropout = keys.get("attention_dropout", 0) if base is None else base_config(base).attention_dropout
    if dropout:
        raise UserError(
            f"The model's attention_dropout is {dropout}, with which this network cannot train; set it to 0 in "
            f"{'model.config' if base is None else 'the config.json of model.base'}."
        )
    if base is not None:
        check_base(base)
    if config.train.loggers:
        from clm_detour.train.loggers import check_logger  # Composer takes seconds to import

        for name, keys in config.train.loggers.items():
            check_logger(name, keys or {})


def check_model(config: Config, tokenizer: Tokenizer) -> None:
    """The model's config must be one that we honour, and fit the tokenizer, which transformers must read as training does."""
    from clm_detour.recipe.export import tokenizer_path
    from clm_detour.recipe.start import base_config, check_fit, fresh_config

    check_auto_tokenizer(tokenizer_path(config), tokenizer)
    if config.model.base is not None:
        check_fit(base_config(config.model.base), tokenizer)
    else:
        check_fit(fresh_config(config.model.config or {}, tokenizer), tokenizer)


def check_base_tokenizer(config: Config, tokenizer: Tokenizer | None) -> None:
    """Check the tokenizer that comes with `model.base`, if the base is to be fine-tuned or compared with it once the arms are trained.

    Its masks and held-out text are those of the run's tokenizer.

    Args:
        tokenizer: That of the run; None where the run has yet to train it.

    Raises:
        UserError: it is missing, cannot be opened, or has ids that the base does not have.
    """
    from clm_detour.model.pretrained import check_vocabulary, load_fast_tokenizer
    from clm_detour.recipe.start import base_config

    base, needed_by = config.model.base, uses_of_base(config)
    if base is None or not needed_by:
        return
    if not has_tokenizer(base):
        raise UserError(
            f"model.base: {base} has no tokenizer, with which {' and '.join(needed_by)} would open it; "
            "copy the files of its tokenizer (tokenizer.json, tokenizer_config.json) into its folder."
        )
    check_vocabulary(base, base_config(base), tokenizer_of_base(config, tokenizer).tokenizer)
    load_fast_tokenizer(base)


def uses_of_base(config: Config) -> list[str]:
    """What opens `model.base` with its own tokenizer; a decoder, which knows no mask, is not opened."""
    from clm_detour.analyze.run import can_be_analyzed, common_start
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.recipe.start import is_decoder

    base, recipe = config.model.base, Recipe(config)
    if base is None or is_decoder(base):
        return []
    return [
        *(["evaluate.tasks"] if config.evaluate.tasks is not None else []),
        *(["the analysis"] if can_be_analyzed(recipe.arms) and common_start(recipe) == base else []),
    ]


def has_tokenizer(base: str) -> bool:
    """Whether a base comes with a tokenizer; of a hub id it is taken for granted."""
    return not Path(base).is_dir() or (Path(base) / "tokenizer.json").is_file()


def tokenizer_of_base(config: Config, tokenizer: Tokenizer | None) -> Tokenizer:
    """Return the tokenizer that comes with `model.base`, which may be the run's own."""
    base = str(config.model.base)
    return tokenizer if tokenizer is not None and base == config.tokenizer.path else load_tokenizer(base)


def tokenizer_doubts(config: Config, tokenizer: Tokenizer) -> Iterator[str]:
    """Say that the base comes with another tokenizer than that of the prepared data."""
    base = config.model.base
    if base is None or not has_tokenizer(base):
        return
    with suppress(UserError):
        if tokenizer_of_base(config, tokenizer).fingerprint != tokenizer.fingerprint:
            yield (
                f"model.base: {base} comes with another tokenizer than {config.tokenizer.path}, with which the data is prepared; "
                "the base may do badly on it."
            )
