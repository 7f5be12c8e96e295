"""The analysis verbs of the `clm-detour` command."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from clm_detour.utils.errors import UserError

TextsOption = Annotated[
    str,
    typer.Option(
        "--texts", metavar="FILE", help="Held-out texts: any file, folder or glob that a source can be."
    ),
]
FieldOption = Annotated[str, typer.Option("--text-field", help="The field that holds the text.")]
TokensOption = Annotated[int, typer.Option("--max-tokens", min=8, help="Longer texts are cut.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for JSON, CSV and figures.")]


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model's folder or hub id, e.g. the detour's.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, e.g. the twin's.")],
    texts: TextsOption,
    control: Annotated[
        str | None, typer.Option(help="A second B with another seed: the noise floor, and the ratio to it.")
    ] = None,
    before: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Both models before the decay, for the retention."),
    ] = None,
    output: OutputOption = Path("comparison"),
    text_field: FieldOption = "text",
    samples: Annotated[int, typer.Option(min=1, help="Samples of texts.")] = 3,
    per_sample: Annotated[int, typer.Option(help="Texts in each.")] = 500,
    max_tokens: TokensOption = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    every_text: Annotated[
        bool, typer.Option("--every-text", help="Also go through all texts, which stay on disk.")
    ] = False,
) -> None:
    """How far apart two encoders are, layer by layer: CKA by the paper's protocol and by better estimators."""
    from clm_detour.analyze.compare import Settings, write_comparison
    from clm_detour.analyze.compare import compare as compare_models
    from clm_detour.analyze.texts import StoredTexts, read_texts

    models = {"a": a, "b": b}
    if control is not None:
        models["control"] = control
    if before is not None:
        models |= dict(zip(("before_a", "before_b"), before, strict=True))
    settings = Settings(samples=samples, per_sample=per_sample, max_tokens=max_tokens, seed=seed)
    found = StoredTexts(read_texts(texts, text_field))
    comparison = compare_models(models, found, settings, texts, every_text)
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
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The recipe of a finished run.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """The analysis of a finished run: compare, trajectory, weights and gradients, into RUN/analysis."""
    from clm_detour.analyze.run import analysis_inputs, can_be_analyzed
    from clm_detour.config import load_config
    from clm_detour.records.run_folder import RunFolder
    from clm_detour.run.steps import analyze as analyze_finished

    loaded = load_config(config, overrides or ())
    if not can_be_analyzed(loaded):
        raise UserError(
            "The recipe has no arms detour and twin with phases of their own; use `clm-detour compare`."
        )
    for record in analysis_inputs(loaded):
        if not record.exists():
            raise UserError(f"{record} is missing: the run has not finished; run it first.")
    if reason := analyze_finished(loaded):
        raise UserError(reason)
    folder = RunFolder.of(loaded)
    _print_comparison(folder.comparison, folder.analysis)


def weights(
    before: Annotated[str, typer.Argument(metavar="FROM", help="A ModernBERT folder.")],
    after: Annotated[str, typer.Argument(metavar="TO", help="Another checkpoint of the same model.")],
    output: OutputOption = Path("weights"),
) -> None:
    """Relative weight change between two checkpoints, by layer and kind: weights.json."""
    from clm_detour.analyze.weights import weight_change, weights_table

    result = weight_change(before, after)
    _finish(result, weights_table(result), output / "weights.json")


def gradients(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A ModernBERT folder.")],
    texts: TextsOption,
    output: OutputOption = Path("gradients"),
    text_field: FieldOption = "text",
    most: Annotated[int, typer.Option("--count", min=1, help="Texts, the first of the file.")] = 100,
    max_tokens: TokensOption = 512,
) -> None:
    """Gradient norm by layer, in CLM and in MLM on the same texts, and how many positions are supervised."""
    from clm_detour.analyze.gradients import gradients as measure
    from clm_detour.analyze.gradients import gradients_table
    from clm_detour.analyze.texts import read_texts

    result = measure(model, list(islice(read_texts(texts, text_field), most)), max_tokens)
    _finish(result, gradients_table(result), output / "gradients.json")


def transplant(
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The model whose parts are taken.")],
    recipient: Annotated[str, typer.Argument(metavar="RECIPIENT", help="The model into which they go.")],
    texts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Measure the masked loss on these texts.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the model of --layers and --part here.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="One layer or a range like 0-7; default: all.")] = None,
    part: Annotated[str, typer.Option(help="all, attention or mlp.")] = "all",
    output: OutputOption = Path("transplant"),
    text_field: FieldOption = "text",
    most: Annotated[int, typer.Option("--count", min=1, help="Texts, the first of the file.")] = 500,
    max_tokens: TokensOption = 512,
) -> None:
    """Put layers, attention or MLP blocks of one model into another: write it (--to), or see what each third and kind does (--texts)."""
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
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="ModernBERT folders.")],
    texts: TextsOption,
    lengths: Annotated[str, typer.Option(help="Tokens of the haystacks.")] = "128,512,2048",
    output: OutputOption = Path("needles"),
    text_field: FieldOption = "text",
    trials: Annotated[int, typer.Option(min=1, help="Haystacks for each length and position.")] = 50,
) -> None:
    """Needle in a haystack: a made-up fact in a long text, masked where it is asked for; accuracy by length and position."""
    from clm_detour.analyze.needles import find_needles, needles_table, parse_lengths
    from clm_detour.analyze.texts import StoredTexts, read_texts

    stored = StoredTexts(read_texts(texts, text_field))
    result = find_needles(models, stored, parse_lengths(lengths), trials)
    _finish(result, needles_table(result), output / "needles.json")


def _finish(result: dict[str, Any], table: Any, path: Path) -> None:
    """Show and write."""
    from clm_detour.utils.files import write_json
    from clm_detour.utils.progress import console

    console.print(table)
    write_json(path, result)
    console.print(f"Wrote {path}", soft_wrap=True)


VERBS = (compare, analyze, weights, gradients, transplant, needles)
