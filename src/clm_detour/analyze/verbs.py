"""The analysis verbs of the `clm-detour` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Analysis"
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
        bool, typer.Option("--every-text", help="Also go through all texts, in bounded memory.")
    ] = False,
) -> None:
    """How far apart two encoders are, layer by layer: CKA by the paper's protocol and by better estimators."""
    from clm_detour.analyze.compare import Settings
    from clm_detour.analyze.compare import compare as compare_models
    from clm_detour.analyze.texts import read_texts
    from clm_detour.analyze.write import write_comparison

    models = {"a": a, "b": b}
    if control is not None:
        models["control"] = control
    if before is not None:
        models |= dict(zip(("before_a", "before_b"), before, strict=True))
    settings = Settings(samples=samples, per_sample=per_sample, max_tokens=max_tokens, seed=seed)
    comparison = compare_models(models, read_texts(texts, text_field), settings, texts, every_text)
    write_comparison(comparison, output)
    _print_comparison(comparison, output)


def _print_comparison(comparison: dict[str, Any], output: Path) -> None:
    from clm_detour.analyze.show import comparison_tables
    from clm_detour.progress import console

    for table in comparison_tables(comparison):
        console.print(table)
    for note in comparison["notes"]:
        console.print(f"[yellow]{note}[/yellow]", soft_wrap=True)
    console.print(f"Wrote {output}", soft_wrap=True)


VERBS = (compare,)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in VERBS:
        app.command(rich_help_panel=PANEL)(verb)
