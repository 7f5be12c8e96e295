"""Load a config: read YAML, merge what it extends and `key=value` changes, resolve `${...}`, and check it.

A file may start with `extends: base.yaml` or a list of files. Their paths are relative to the file; a name
like `paper/cpt-en-base` is that of a shipped config (`shipped.py`). Later files win, the file itself wins
over all of them, and `key=value` from the command line wins over everything. Unknown keys are errors. `~/` at
the start of a value is the home folder. The word `+debug` on the command line makes any recipe small; see
`debug.py`.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clm_detour.config.annotations import bare_type, fields_of
from clm_detour.config.checks import check_config, check_evaluation
from clm_detour.config.debug import debug
from clm_detour.config.schema import Config, Evaluation
from clm_detour.config.shipped import find_config
from clm_detour.config.validation import check_keys, validate
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_write
from clm_detour.utils.rules import require

ON_COMMAND_LINE = "add {key}=VALUE to the command or write it into the config"
IN_FILE = "write it into the file"
DEBUG = "+debug"
MISSING = "???"  # a value that a config leaves to its user
Schema = TypeVar("Schema")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, merge and check a recipe.

    Args:
        path: A YAML file, or the name of a shipped config.
        overrides: Changes like `data.root=DIR` or `phases.clm.duration=2Mtok`, and `+debug`.

    Raises:
        UserError: If the file cannot be read or something in it is wrong; one sentence for the first mistake.
    """
    return config_from(read_tree(find_config(str(path))), overrides)


def config_from(tree: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Check a recipe that is not a file; `overrides` and errors are those of `load_config`."""
    changes = [parse_override(text) for text in overrides if text != DEBUG]
    tree = merge(tree, *changes)
    if "claims" in tree and "scales" in tree:
        raise UserError("This is a ledger, not a recipe; try its claims with `clm-detour reproduce FILE`.")
    if DEBUG in overrides:
        check_keys(Config, plain(tree))
        tree = merge(OmegaConf.create(debug(plain(tree))), *changes)
    config = checked(Config, tree)
    check_config(config)
    return config


def load_evaluation(
    path: str | Path, overrides: Sequence[str] = (), models: Sequence[str] = ()
) -> Evaluation:
    """Read, merge and check a file of `clm-detour evaluate`.

    Args:
        path: A YAML file, or the name of a shipped config.
        overrides: Changes like `seeds=[42]` or `protocol.epochs=3`.
        models: Models as `name=path`; they come after those of the file.

    Raises:
        UserError: If the file cannot be read or something in it is wrong; one sentence for the first mistake.
    """
    tree = merge(read_tree(find_config(str(path))), *(parse_override(text) for text in overrides))
    evaluation = checked(Evaluation, tree)
    for text in models:
        name, _, where = text.partition("=")
        require(
            bool(name and where),
            f"--model {text} is not of the form name=path, like --model detour=runs/mine/models/detour.",
        )
        evaluation.models[name] = with_home(where)
    check_evaluation(evaluation)
    return evaluation


def save_config(config: Config, path: Path) -> None:
    """Write a checked recipe as YAML."""
    with atomic_write(path, "w") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config))))


def checked(schema: type[Schema], tree: DictConfig, on_command_line: bool = True) -> Schema:
    """Resolve a merged tree, and build its dataclass from it.

    Args:
        on_command_line: Whether a key that is not set can be given on the command line.
    """
    check_keys(schema, plain(tree))
    filled = with_defaults(schema, plain(tree))
    check_set(filled, ON_COMMAND_LINE if on_command_line else IN_FILE)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(filled), resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        message, *_ = on_one_line(error).partition(" full_key: ")  # details follow
        raise UserError(f"{key}: {message.rstrip('.')}.") from None
    return validate(schema, with_home(resolved))


def plain(tree: DictConfig) -> dict[str, Any]:
    """Return a tree as dictionaries and lists, with `${...}` as they are."""
    return cast(dict[str, Any], OmegaConf.to_container(tree, resolve=False))


def with_defaults(annotation: Any, tree: Any) -> Any:
    """Return a tree with the defaults of the keys that it leaves out, so that `${...}` finds them."""
    bare = bare_type(annotation)
    if not isinstance(tree, dict):
        return tree
    if typing.get_origin(bare) is dict:
        return {key: with_defaults(typing.get_args(bare)[1], child) for key, child in tree.items()}
    if not dataclasses.is_dataclass(bare):
        return tree
    kinds = fields_of(bare)
    return {
        **{field.name: default_of(field) for field in dataclasses.fields(bare)},
        **{key: with_defaults(kinds[key], child) for key, child in tree.items()},
    }


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field as plain values, or `???` if the field is required."""
    if field.default_factory is not dataclasses.MISSING:
        value: Any = field.default_factory()
        return dataclasses.asdict(value) if hasattr(value, "__dataclass_fields__") else value
    return MISSING if field.default is dataclasses.MISSING else field.default


def check_set(value: Any, remedy: str, where: str = "") -> None:
    """Raise a UserError for a key that a config leaves to its user (`???`)."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            check_set(child, remedy, f"{where}.{key}" if where else str(key))
    elif value == MISSING:
        raise UserError(f"{where} is not set; {remedy.format(key=where)}.")


def with_home(value: Any) -> Any:
    """Return `value` with the home folder in place of `~` in each string in it that starts with `~/`."""
    if isinstance(value, dict):
        return {key: with_home(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [with_home(child) for child in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def parse_selection(overrides: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Divide overrides into those that choose what to run, like `arm=...`, and changes of the recipe."""
    chosen, rest = {}, []
    for text in overrides:
        key, _, value = text.partition("=")
        if key in keys:
            chosen[key] = value
        else:
            rest.append(text)
    return chosen, rest


def merge(*trees: DictConfig) -> DictConfig:
    """Return one tree of several; later ones win."""
    try:
        return cast(DictConfig, OmegaConf.merge(*trees))
    except (TypeError, OmegaConfBaseException) as error:
        raise UserError(
            f"A value and a section of the same name cannot be merged: {on_one_line(error)}."
        ) from None


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> DictConfig:
    """Read one YAML file and the files that it extends.

    Args:
        path: The file.
        seen: The files that extend it.
    """
    if path.resolve() in seen:
        raise UserError(f"{path} extends itself; remove the circle in its `extends`.")
    try:
        tree = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not valid YAML: {on_one_line(error)}.") from None
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path} must hold `key: value` pairs at its top level.")
    extends = tree.pop("extends", None)
    parents = list(extends) if isinstance(extends, ListConfig) else [extends] if extends else []
    if not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"{path}: extends names configs, as in `extends: base.yaml`, not {extends}.")
    files = [find_config(parent, extended_by=path) for parent in parents]
    return merge(*(read_tree(file, (*seen, path.resolve())) for file in files), tree)


def parse_override(text: str) -> DictConfig:
    """Return `a.b=value` as the tree `{a: {b: value}}`."""
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r} is not of the form key=value.")
    try:
        return OmegaConf.from_dotlist([text])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{text!r} cannot be read as key=value: {on_one_line(error)}.") from None
