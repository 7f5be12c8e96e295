"""The command line, and the arguments that several verbs share."""

from typing import Annotated

import typer

ConfigPath = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A recipe: a file like mine.yaml, or a name like quickstart.")
]
Overrides = Annotated[
    list[str],
    typer.Argument(
        metavar="[KEY=VALUE]...",
        default_factory=list,
        show_default=False,
        help="Changes to the config, e.g. data.root=DIR.",
    ),
]
