"""The steps of `tokenizer.add`: extend the tokenizer, and give `model.base` embeddings for the new tokens."""

from __future__ import annotations

from pathlib import Path

from clm_detour.config.schema import TokenAddition
from clm_detour.data.auto_tokenizer import check_auto_tokenizer
from clm_detour.data.extend_tokenizer import extend_tokenizer
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model.vocabulary import with_vocabulary
from clm_detour.recipe.export import write_model
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import load_base, pad_vocabulary
from clm_detour.run.before_training import first_documents, sources_as_read
from clm_detour.run.engine import Step, StepRunner
from clm_detour.utils.environment import VERSION
from clm_detour.utils.progress import progress


def count_addition_steps(recipe: Recipe) -> int:
    """Return the number of steps that `add_tokens` runs."""
    return (recipe.config.tokenizer.add is not None) + (recipe.start != recipe.config.model.base)


def add_tokens(runner: StepRunner, recipe: Recipe) -> None:
    """Extend the tokenizer and the base model, if the recipe asks for it."""
    add, base = recipe.config.tokenizer.add, recipe.config.model.base
    if add is None:
        return
    runner.run(addition_step(add, recipe))
    check_auto_tokenizer(recipe.tokenizer_path, recipe.tokenizer)
    if base is not None:
        runner.run(start_step(base, recipe))


def addition_step(add: TokenAddition, recipe: Recipe) -> Step:
    """Return the step that writes the tokenizer with the tokens that save most on the recipe's sources."""
    data, folder, path = recipe.config.data, recipe.folder.extended_tokenizer, recipe.original_tokenizer_path

    def work() -> None:
        with progress("Reading documents", add.documents * len(data.sources), "documents") as advance:
            texts = first_documents(data, add.documents, advance, data.held_out)
            extend_tokenizer(path, folder, texts, add.tokens)

    return Step(
        "added tokens",
        "Add tokens to the tokenizer",
        work,
        outputs=[folder / "tokenizer.json"],
        settings={
            "tokenizer": load_tokenizer(path).fingerprint,
            "tokens": add.tokens,
            "documents": add.documents,
            "held_out": data.held_out,
            **sources_as_read(data),
        },
        settings_file=folder / "settings.json",
        fixed=True,
    )


def start_step(base: str, recipe: Recipe) -> Step:
    """Return the step that writes the base model with embeddings for the added tokens."""
    folder: Path = recipe.folder.start

    def work() -> None:
        network = load_base(base, None, recipe.config.seed)
        size = max(network.config.vocab_size, pad_vocabulary(recipe.tokenizer.vocab_size))
        larger = with_vocabulary(network, recipe.tokenizer.added.pieces, size)
        about = {"clm_detour": VERSION, "base": base, "added_tokens": len(recipe.tokenizer.added.pieces)}
        write_model(larger, recipe.tokenizer_path, folder, about)

    settings = {"base": base, "tokenizer": recipe.tokenizer.fingerprint, "seed": recipe.config.seed}
    file = recipe.folder.root / "start.settings.json"
    return Step("start", "Extend the base model", work, [folder / "config.json"], [], settings, file)
