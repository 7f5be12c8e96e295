"""`clm-detour init`: write a recipe for the files of a user, and show what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.table import Column, Table

from clm_detour.config.expressions.formats import guess
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.model.precision import cpu_multiplies_bf16
from clm_detour.recipe.start import base_config
from clm_detour.run.init.files import find_sources
from clm_detour.run.init.look import BYTES_PER_TOKEN, Found, look_at
from clm_detour.run.init.recipe import duration, passes, recipe_text
from clm_detour.run.init.sizes import FEWEST_TOKENS, choose
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write
from clm_detour.utils.progress import console, human, warn

PAPER_ROW = 8192  # tokens


def init_recipe(path: Path, paths: Sequence[str], base: str, force: bool = False) -> None:
    """Write a recipe for files, and print what was found in them and what to do next.

    Args:
        path: File to write.
        paths: Files, folders and globs with text.
        base: Folder or hub id of the model to adapt.
        force: Whether to replace the file if it is there.

    Raises:
        UserError: If the file is there or is no YAML, there is no text, or too little of it.
    """
    check_target(path, force)
    tokenizer, longest_row = read_base(base)
    found = {name: look_at(source, tokenizer) for name, source in find_sources(paths).items()}
    tokens = sum(each.tokens for each in found.values())
    if tokens < FEWEST_TOKENS:
        raise UserError(
            f"These files hold about {tokens:,} tokens, which are too few to adapt a model; give more text, "
            f"{FEWEST_TOKENS:,} tokens at least and some millions to see an effect."
        )
    gpus = torch.cuda.device_count()
    lengths = [length for each in found.values() for length in each.lengths]
    fewest = min(each.documents for each in found.values())
    sizes = choose(tokens, lengths, fewest, longest_row, gpus)
    on_a_gpu = None if gpus else choose(tokens, lengths, fewest, longest_row, gpus=1)
    precision = "bf16" if gpus or cpu_multiplies_bf16() else "fp32"
    with atomic_write(path, "w") as file:
        file.write(recipe_text(path, found, base, precision, sizes, on_a_gpu))
    console.print(sources_table(found))
    phases = f"phases of {duration(sizes.phase)} and {duration(sizes.decay)}"
    console.print(f"Wrote {path} with {phases}: {passes(sizes)} over the text.", soft_wrap=True)
    if on_a_gpu is not None:
        console.print("There is no GPU here, so this is a trial; the file says what to change on a GPU.")
    console.print("Next:")
    for verb in ("check", "plan", "run"):
        console.print(f"  clm-detour {verb} {path}", soft_wrap=True)


def check_target(path: Path, force: bool) -> None:
    """Raise UserError if the recipe cannot be written there."""
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{path} is to be the new recipe; give it a name like mine.yaml, before the files.")
    if path.exists() and not force:
        raise UserError(f"{path} exists; choose another name, or add --force to replace it.")


def read_base(base: str) -> tuple[Tokenizer | None, int]:
    """Return the tokenizer of a base and the longest row that it reads.

    Without a network, the tokenizer of a hub id is None, and a warning says so.

    Raises:
        UserError: If the base is a folder that cannot be used.
    """
    try:
        return load_tokenizer(base), min(base_config(base).max_position_embeddings, PAPER_ROW)
    except UserError as error:
        if Path(base).exists():
            raise
        warn(f"{error} Tokens are estimated as {BYTES_PER_TOKEN:g} bytes each.")
        return None, PAPER_ROW


def sources_table(found: Mapping[str, Found]) -> Table:
    """Return a table of what was found."""
    names = ("source", "files", "format", "text", "documents", "tokens")
    right = ("files", "documents", "tokens")
    table = Table(
        *(Column(name, justify="right" if name in right else "left", overflow="fold") for name in names),
        box=None,
        padding=(0, 2, 0, 0),
        caption="~ estimated from a sample" if any(not each.complete for each in found.values()) else None,
        caption_justify="left",
    )
    for name, each in found.items():
        source = each.source
        kind = source.format or guess(source.path) or "text"
        text = source.template or (f"each {source.document}" if kind == "text" else source.text)
        table.add_row(
            name,
            f"{each.files:,}",
            kind,
            text.replace("\n\n", " "),
            f"{'' if each.complete else '~'}{human(each.documents)}",
            f"~{human(each.tokens)}",
        )
    return table
