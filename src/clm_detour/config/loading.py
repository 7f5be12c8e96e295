"""YAML (+ `extends`, + `key=value`) -> a checked `Config`.

A file may open with `extends: base.yaml` or a list of such; paths are relative to the file, later ones win, the file itself
wins over all of them, and `key=value` from the command line over everything. Unknown keys are refused with the nearest valid one.
`~/` at the start of a value is the home folder. The word `+debug` on the command line makes any recipe small; see `debug`.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clm_detour.config.checks import check_config
from clm_detour.config.debug import debug
from clm_detour.config.evaluation import check_evaluation
from clm_detour.config.schema import Config, Evaluation
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.rules import unknown_key

DEBUG = "+debug"
Schema = TypeVar("Schema")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, merge and check a recipe.

    Args:
        overrides: `data.root=DIR`, `phases.clm.duration=2Mtok`, ...; `+debug`.

    Raises:
        UserError: one sentence for the first thing that is wrong.
    """
    changes = [parse_override(text) for text in overrides if text != DEBUG]
    tree = merge(read_tree(Path(path)), *changes)
    if DEBUG in overrides:
        plain = cast(dict, OmegaConf.to_container(tree, resolve=False))
        check_keys(plain, Config, "")
        tree = merge(OmegaConf.create(debug(plain)), *changes)
    config = as_schema(tree, Config)
    check_config(config)
    return config


def load_evaluation(
    path: str | Path, overrides: Sequence[str] = (), models: Sequence[str] = ()
) -> Evaluation:
    """Read, merge and check what `clm-detour evaluate` is given.

    Args:
        overrides: `seeds=[42]`, `protocol.epochs=3`, ...
        models: `name=path` each; they come after those of the file.

    Raises:
        UserError: one sentence for the first thing that is wrong.
    """
    tree = merge(read_tree(Path(path)), *(parse_override(text) for text in overrides))
    evaluation = as_schema(tree, Evaluation)
    for text in models:
        name, equals, where = text.partition("=")
        if not (equals and name and where):
            raise UserError(
                f"--model {text} is not of the form name=path, like --model detour=runs/mine/models/detour."
            )
        evaluation.models[name] = at_home(where)
    check_evaluation(evaluation)
    return evaluation


def as_schema(tree: DictConfig, schema: type[Schema]) -> Schema:
    """A merged tree as its dataclass; keys that it does not know are refused."""
    plain = cast(dict, OmegaConf.to_container(tree, resolve=False))
    check_keys(plain, schema, "")
    check_missing(plain, "")
    try:
        return at_home(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), tree)))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from None


def at_home(value: Any) -> Any:
    """Return `value` with the home folder for the ~ of each string in it that starts with `~/`, as only paths do."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: at_home(getattr(value, name)) for name in names})
    if isinstance(value, dict):
        return {key: at_home(child) for key, child in value.items()}
    if isinstance(value, list):
        return [at_home(child) for child in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def save_config(config: Config, path: Path) -> None:
    """Write the resolved recipe as YAML."""
    from clm_detour.utils.files import atomic_write

    with atomic_write(path, "w") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.structured(config)))


def parse_selection(overrides: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take `arm=...` and the like out of the overrides: they choose what to run and are no part of the recipe."""
    chosen, rest = {}, []
    for text in overrides:
        key, _, value = text.partition("=")
        if key in keys:
            chosen[key] = value
        else:
            rest.append(text)
    return chosen, rest


def merge(*trees: DictConfig) -> DictConfig:
    """Later trees win."""
    try:
        return cast(DictConfig, OmegaConf.merge(*trees))
    except (TypeError, OmegaConfBaseException) as error:
        raise UserError(
            f"A value and a section of the same name cannot be merged: {on_one_line(error)}."
        ) from None


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> DictConfig:
    """Read one YAML and what it extends."""
    if path.resolve() in seen:
        raise UserError(f"{path} extends itself; remove the circle in its `extends`.")
    try:
        tree = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"There is no config {path}; see the folder configs/ for those that exist.") from None
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
    return merge(*(read_tree(path.parent / parent, (*seen, path.resolve())) for parent in parents), tree)


def parse_override(text: str) -> DictConfig:
    """`a.b=value` -> {a: {b: value}}."""
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r} is not of the form key=value.")
    try:
        return OmegaConf.from_dotlist([text])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{text!r} cannot be read as key=value: {on_one_line(error)}.") from None


def check_keys(value: Any, kind: Any, where: str) -> None:
    """Refuse keys that the schema does not know, naming the nearest one that it does."""
    kind = without_none(kind)
    is_section = dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict
    if not isinstance(value, Mapping):
        if is_section and value is not None and not str(value).startswith("${"):
            raise UserError(f"{where.rstrip('.')} is a section of `key: value` pairs, not {value!r}.")
        return
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for key, child in value.items():
            if key not in hints:
                raise UserError(unknown_key(str(key), where, list(hints)))
            check_keys(child, hints[key], f"{where}{key}.")
    elif typing.get_origin(kind) is dict:
        for key, child in value.items():
            check_keys(child, typing.get_args(kind)[1], f"{where}{key}.")


def check_missing(value: Any, where: str) -> None:
    """Refuse a key that a config leaves to its user (`???`)."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            check_missing(child, f"{where}.{key}" if where else str(key))
    elif value == "???":
        raise UserError(f"{where} is not set; add {where}=VALUE to the command.")


def without_none(kind: Any) -> Any:
    """`X | None` -> `X`."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's message as one sentence."""
    key = getattr(error, "full_key", None) or "config"
    message, *_ = on_one_line(error).partition(" full_key: ")  # after which come details
    if "Missing mandatory value" in message or "MissingMandatory" in type(error).__name__:
        return f"{key} is not set; add {key}=VALUE or write it into the config."
    return f"{key}: {message.rstrip('.')}."
