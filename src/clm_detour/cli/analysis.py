"""Verbs of the `clm-detour` command that analyze networks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from clm_detour.cli import Overrides
from clm_detour.utils.errors import UserError

TextsOption = Annotated[
    str, typer.Option("--texts", metavar="FILE", help="Held-out texts: file, folder or glob, like a source.")
]
CountOption = Annotated[int, typer.Option("--count", min=1, help="Texts, from the start of the file.")]
FieldOption = Annotated[str, typer.Option("--text-field", help="Field that holds the text.")]
TokensOption = Annotated[int, typer.Option("--max-tokens", min=8, help="Longer texts are cut.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for JSON, CSV and figures.")]


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Folder or hub id of a model, e.g. the detour's.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another model, e.g. the twin's.")],
    texts: TextsOption,
    control: Annotated[
        str | None, typer.Option(help="B trained with another seed: the noise floor, and the ratio to it.")
    ] = None,
    before: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="The two models before the decay, for the retention."),
    ] = None,
    output: OutputOption = Path("comparison"),
    text_field: FieldOption = "text",
    samples: Annotated[int, typer.Option(min=1, help="Number of samples of texts.")] = 3,
    per_sample: Annotated[int, typer.Option(help="Number of texts in a sample.")] = 500,
    max_tokens: TokensOption = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    every_text: Annotated[
        bool, typer.Option("--every-text", help="Also compare on all texts, which are kept on disk.")
    ] = False,
) -> None:
    """Compare two encoders layer by layer: CKA by the paper's protocol and by better estimators."""
    from clm_detour.analyze.compare import Settings, write_comparison
    from clm_detour.analyze.compare import compare as compare_models
    from clm_detour.analyze.texts import StoredTexts, read_texts

    models = {"a": a, "b": b}
    if control is not None:
        models["control"] = control
    if before is not None:
        models |= dict(zip(("before_a", "before_b"), before, strict=True))
    settings = Settings(samples=samples, per_sample=per_sample, max_tokens=max_tokens, seed=seed)
    stored = StoredTexts(read_texts(texts, text_field))
    comparison = compare_models(models, stored, settings, texts, every_text)
    write_comparison(comparison, output)
    _print_comparison(output / "compare.json", output)


def _print_comparison(path: Path, output: Path) -> None:
    from clm_detour.analyze.show import comparison_tables
    from clm_detour.figures.renderers import rich_table
    from clm_detour.records.analysis import NetworkComparison
    from clm_detour.records.store import read
    from clm_detour.utils.progress import console, warn

    comparison = read(NetworkComparison, path)
    for table in comparison_tables(comparison):
        console.print(rich_table(table))
    for note in comparison.notes:
        warn(note)
    console.print(f"Wrote {output}", soft_wrap=True)


def analyze(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Recipe of a finished run.")],
    overrides: Overrides,
) -> None:
    """Analyze a finished run: compare, trajectory, weights and gradients, written to RUN/analysis."""
    from clm_detour.analyze.run import analysis_inputs, can_be_analyzed
    from clm_detour.config import load_config
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.run.after_training import analysis_step

    recipe = Recipe(load_config(config, overrides))
    if not can_be_analyzed(recipe.arms):
        raise UserError(
            "The recipe has no arms detour and twin with phases of their own; use `clm-detour compare`."
        )
    for record in analysis_inputs(recipe.arms, recipe.folder):
        if not record.exists():
            raise UserError(f"{record} is missing: the run has not finished; run it first.")
    if isinstance(reason := analysis_step(recipe).do(), str):
        raise UserError(reason)
    _print_comparison(recipe.folder.comparison, recipe.folder.analysis)


def weights(
    before: Annotated[str, typer.Argument(metavar="FROM", help="Folder of a ModernBERT.")],
    after: Annotated[str, typer.Argument(metavar="TO", help="Another checkpoint of the same model.")],
    output: OutputOption = Path("weights"),
) -> None:
    """Measure the relative change of the weights between two checkpoints, by layer and kind: weights.json."""
    from clm_detour.analyze.weights import weight_change, weights_table

    result = weight_change(before, after)
    _finish(result, weights_table(result), output / "weights.json")


def gradients(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a ModernBERT.")],
    texts: TextsOption,
    output: OutputOption = Path("gradients"),
    text_field: FieldOption = "text",
    most: CountOption = 100,
    max_tokens: TokensOption = 512,
) -> None:
    """Measure gradient norms by layer, and predicted positions, in CLM and MLM on the same texts."""
    from clm_detour.analyze.gradients import gradients as measure
    from clm_detour.analyze.gradients import gradients_table
    from clm_detour.analyze.texts import read_texts

    result = measure(model, list(islice(read_texts(texts, text_field), most)), max_tokens)
    _finish(result, gradients_table(result), output / "gradients.json")


def transplant(
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="Model whose parts are taken.")],
    recipient: Annotated[str, typer.Argument(metavar="RECIPIENT", help="Model into which they are put.")],
    texts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Measure the masked loss on these texts.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the model made by --layers and --part here.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="One layer, or a range like 0-7; default: all.")] = None,
    part: Annotated[str, typer.Option(help="all, attention or mlp.")] = "all",
    output: OutputOption = Path("transplant"),
    text_field: FieldOption = "text",
    most: CountOption = 500,
    max_tokens: TokensOption = 512,
) -> None:
    """Put layers or blocks of one model into another: write it (--to), or measure each part (--texts)."""
    from clm_detour.analyze.texts import read_texts
    from clm_detour.analyze.transplant import chosen_graft, transplant_table, try_grafts, write_transplant
    from clm_detour.utils.progress import console

    graft = chosen_graft(recipient, layers, part)
    if to is None and texts is None:
        raise UserError("Give --texts FILE to measure transplants, or --to FOLDER to write one.")
    if to is not None:
        write_transplant(donor, recipient, graft, to)
        console.print(f"Wrote {to}", soft_wrap=True)
    if texts is not None:
        grafts = None if layers is None and part == "all" else [graft]
        first = list(islice(read_texts(texts, text_field), most))
        result = try_grafts(donor, recipient, grafts, first, max_tokens)
        _finish(result, transplant_table(result), output / "transplant.json")


def needles(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Folders of models.")],
    texts: TextsOption,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths of the texts in tokens.", show_default="128,512,2048; 512 to 8192 with --probe"
        ),
    ] = None,
    output: OutputOption = Path("needles"),
    text_field: FieldOption = "text",
    trials: Annotated[
        int | None, typer.Option(min=1, help="Texts for each length and position.", show_default="50")
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="As in the paper: train a probe that tells true statements from false."),
    ] = False,
    language: Annotated[
        str | None, typer.Option(help="Language of the facts, fr or en.", show_default="fr")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Texts with a statement, of all splits.", show_default="1500")
    ] = None,
) -> None:
    """Needle in a haystack: find a made-up fact in a long text; accuracy by length and position."""
    from clm_detour.analyze.needles import find_needles, needles_table, parse_lengths
    from clm_detour.analyze.texts import StoredTexts, read_texts

    wanted = None if lengths is None else parse_lengths(lengths)
    for name, value, goes_with in (
        ("--trials", trials, not probe),
        ("--language", language, probe),
        ("--pairs", pairs, probe),
    ):
        if value is not None and not goes_with:
            raise UserError(f"{name} has no effect {'with' if probe else 'without'} --probe; leave it out.")
    stored = StoredTexts(read_texts(texts, text_field))
    if probe:
        from clm_detour.analyze.needle_probe import LENGTHS, PAIRS, probe_needles, probe_table
        from clm_detour.records.store import as_json

        record = probe_needles(models, stored, language or "fr", wanted or LENGTHS, pairs or PAIRS)
        _finish(as_json(record), probe_table(record), output / "needle_probe.json")
        return
    result = find_needles(models, stored, wanted or [128, 512, 2048], trials or 50)
    _finish(result, needles_table(result), output / "needles.json")


def _finish(result: dict[str, Any], table: Any, path: Path) -> None:
    """Print a table, and write its values as JSON."""
    from clm_detour.utils.files import write_json
    from clm_detour.utils.progress import console

    console.print(table)
    write_json(path, result)
    console.print(f"Wrote {path}", soft_wrap=True)


VERBS = (compare, analyze, weights, gradients, transplant, needles)
