"""The verbs that score models on tasks: `evaluate` trains them, `probe` does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clm_detour.cli import Overrides
from clm_detour.cli.engine import Address, EngineName, GpusPerRun, chosen_engine


def evaluate(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A file, or a name like eval/en.")],
    overrides: Overrides,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=PATH", help="Folder or hub id of a model; may be repeated."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time, on processes or GPUs.")] = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus_per_run: GpusPerRun = None,
) -> None:
    """Fine-tune models on tasks and compare them. Finished runs are skipped."""
    from rich.console import Console

    from clm_detour.config.loading import load_evaluation
    from clm_detour.evaluate.command import evaluate_models
    from clm_detour.evaluate.tables import score_table
    from clm_detour.figures.renderers import print_table
    from clm_detour.utils.progress import console

    tasks_run_on = chosen_engine(engine, address, gpus_per_run)
    loaded = load_evaluation(config, overrides, model or ())
    if jobs is not None:
        loaded.jobs = jobs
    folder = Path(loaded.run_dir)
    summary, runs = evaluate_models(loaded, loaded.models, folder, loaded.name, tasks_run_on)
    print_table(score_table(summary, corner=""), Console(highlight=False, markup=False, emoji=False))
    console.print(f"{runs} runs done." if runs else "All runs were done before; nothing to do.")
    console.print(f"Tables, figure and summary are in {folder}", soft_wrap=True)


def probe(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Folders or hub ids.")],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="May be repeated; default: the two bundled tasks.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder with a folder for each data set.")] = None,
    documents: Annotated[int, typer.Option(min=10, help="Documents of each split, spread over it.")] = 500,
) -> None:
    """Measure checkpoints without training them: masked accuracy and linear probes, in seconds."""
    from clm_detour.evaluate.probes import probe_models, probe_table
    from clm_detour.utils.progress import console

    console.print(probe_table(probe_models(models, task, data, documents)))


VERBS = (evaluate, probe)
