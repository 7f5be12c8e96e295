"""The options of the verbs that can run on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # it is slow to import
    from clm_detour.utils.parallel import Engine

EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Where tokenizing and fine-tuning run: on this machine, or on a Ray cluster.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: address of the cluster; default: that of this machine (auto)."),
]
GpusPerRun = Annotated[
    float | None,
    typer.Option(help="With --engine ray: GPUs of a fine-tuning run, like 0.5; default: 1 if there are any."),
]


def chosen_engine(name: str, address: str | None, gpus_per_run: float | None = None) -> Engine:
    """Return the engine that the options choose.

    Raises:
        UserError: If there is no such engine, or an option does not fit it.
    """
    from clm_detour.utils.parallel import Engine

    return Engine.chosen(name, address, gpus_per_run)
