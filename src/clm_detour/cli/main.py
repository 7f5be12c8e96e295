"""The `clm-detour` command: one short function a verb. Heavy imports happen inside the verbs, so `--help` is quick."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from clm_detour.cli import analysis as analysis
from clm_detour.cli import reporting as reporting
from clm_detour.config import load_config
from clm_detour.config.loading import DEBUG
from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="A recipe, e.g. configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, e.g. data.root=DIR."),
]


def print_version(asked: bool) -> None:
    """Print the version and leave, if it is asked for."""
    if asked:
        typer.echo(f"clm-detour {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Adapt a ModernBERT encoder to a domain by a causal-language-modelling detour."""


@app.command()
def run(config: ConfigPath, overrides: Overrides = None) -> None:
    """Run a whole recipe: what is done is skipped, what was interrupted goes on."""
    from clm_detour.records.run_folder import RunFolder
    from clm_detour.run.steps import run_recipe
    from clm_detour.utils.progress import console

    loaded = load_config(config, overrides or ())
    steps = run_recipe(loaded, sizes=DEBUG not in (overrides or ()))
    report = RunFolder.of(loaded).report
    done = f"{steps} steps done." if steps else "Everything was done before; nothing to do."
    console.print(done, style="bold", end=" ")
    console.print(f"Open {report}", soft_wrap=True)


@app.command()
def prepare(config: ConfigPath, overrides: Overrides = None) -> None:
    """Only the data: sample, tokenizer, shards, packed rows."""
    from clm_detour.run.steps import prepare_data
    from clm_detour.utils.progress import console

    loaded = load_config(config, overrides or ())
    steps = prepare_data(loaded)
    console.print(
        f"{steps} steps done." if steps else f"{loaded.data.dir} was prepared before; nothing to do.",
        soft_wrap=True,
    )


@app.command()
def train(config: ConfigPath, overrides: Overrides = None) -> None:
    """One phase, in this process: needs arm=ARM phase=PHASE. On several GPUs: composer -n N scripts/train.py ..."""
    from clm_detour.train.main import train as train_one

    train_one(config, overrides or ())


@app.command()
def export(
    config: ConfigPath,
    arm: Annotated[str, typer.Argument(help="Which arm's model.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the Hugging Face folder.")],
    overrides: Overrides = None,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16; the paper exports bf16.")] = "fp32",
    ema: Annotated[
        bool, typer.Option("--ema", help="The moving average of the weights (train.ema_half_life); no card.")
    ] = False,
) -> None:
    """Write the model at the end of an arm as a Hugging Face folder, with its card."""
    from clm_detour.recipe.export import export_arm
    from clm_detour.records.run_folder import RunFolder
    from clm_detour.report.card import write_card
    from clm_detour.report.load import load_run
    from clm_detour.utils.progress import console

    loaded = load_config(config, overrides or ())
    export_arm(loaded, arm, folder, dtype, ema)
    if not ema:  # whose scores would be those of other weights
        write_card(load_run(RunFolder.of(loaded).root), arm, folder)
    console.print(f"Wrote {folder}", soft_wrap=True)


@app.command()
def check(
    config: ConfigPath,
    overrides: Overrides = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also verify the checksum of every prepared shard.")
    ] = False,
) -> None:
    """Find what is wrong with a recipe before any work."""
    from clm_detour.run.check import check_recipe

    check_recipe(load_config(config, overrides or ()), deep, sizes=DEBUG not in (overrides or ()))


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(min=0.001, help="Speed of training on all processes together, for the hours."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Which, like H100: for hours, GPU-hours and energy.")
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(help="Share of the device's peak that training reaches, like 0.3.")
    ] = None,
) -> None:
    """What a recipe takes: passes over each source, steps, operations, memory, disk; and hours, given a speed or hardware."""
    from clm_detour.plan import make_plan, print_plan
    from clm_detour.plan.hardware import MFU, Hardware
    from clm_detour.run.check import existing_tokenizer

    if mfu is not None and device is None:
        raise UserError("--mfu needs --device, whose peak it is a share of.")
    hardware = None if device is None else Hardware(gpus, device, MFU if mfu is None else mfu)
    loaded = load_config(config, overrides or ())
    print_plan(make_plan(loaded, existing_tokenizer(loaded), gpus), tokens_per_second, hardware)


@app.command()
def tasks(
    folder: Annotated[Path | None, typer.Argument(help="Where the data sets lie, a folder each.")] = None,
    language: Annotated[str | None, typer.Option(help="Only those in en, fr or es.")] = None,
) -> None:
    """The evaluation's tasks: which are there, their counts beside the published ones, how to get the others."""
    from clm_detour.config.checks import one_of
    from clm_detour.evaluate.tasks import TASKS
    from clm_detour.evaluate.tasks.overview import print_overview

    if language is not None:
        one_of(language, sorted({task.language for task in TASKS.values()}), "--language")
    if folder is not None and not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    print_overview([task for task in TASKS.values() if language in (None, task.language)], folder)


@app.command()
def bench(
    config: ConfigPath,
    overrides: Overrides = None,
    gpus: Annotated[
        str | None, typer.Option(help="How many, or several like 1,2,4; all of this machine.")
    ] = None,
    micro_rows: Annotated[
        str, typer.Option(help="Sizes to measure, like 4,8,12; powers of two until one does not fit.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure at each.")] = 3,
) -> None:
    """Speed and memory of real steps of one phase, at several micro-batch sizes: needs arm=ARM phase=PHASE and prepared data."""
    from clm_detour.train.launch import launch_bench

    launch_bench(config, [*(overrides or ()), f"steps={steps}", f"sizes={micro_rows}"], gpus)


@app.command()
def evaluate(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="An evaluation, e.g. configs/eval/en.yaml.")
    ],
    overrides: Overrides = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME=PATH", help="A model to evaluate: folder or hub id. May be repeated."
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time, over processes or GPUs.")] = None,
) -> None:
    """Fine-tune models on tasks and compare them: what is finished is left alone."""
    from clm_detour.config.loading import load_evaluation
    from clm_detour.evaluate.command import evaluate_models
    from clm_detour.evaluate.tables import plain
    from clm_detour.utils.progress import console

    loaded = load_evaluation(config, overrides or (), model or ())
    if jobs is not None:
        loaded.jobs = jobs
    folder = Path(loaded.run_dir)
    summary, made = evaluate_models(loaded, loaded.models, folder, loaded.name)
    typer.echo(plain(summary))
    console.print(f"{made} runs done." if made else "All runs were done before; nothing to do.")
    console.print(f"Tables, figure and summary are in {folder}", soft_wrap=True)


@app.command()
def probe(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Folders or hub ids.")],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="May be repeated; without it the two bundled ones.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The folder with the tasks' folders.")] = None,
    documents: Annotated[int, typer.Option(min=10, help="How many of each split, spread over it.")] = 500,
) -> None:
    """Look at checkpoints without training them: masked accuracy and linear probes, in seconds."""
    from clm_detour.evaluate.probes import probe_models, probe_table
    from clm_detour.utils.progress import console

    console.print(probe_table(probe_models(models, task, data, documents)))


@app.command()
def doctor() -> None:
    """Versions against the pins, hardware, extras, attention back ends, disk, shared memory and limits of this installation."""
    from clm_detour.run.doctor import print_environment

    print_environment()


for shows in reporting.VERBS:
    app.command()(shows)
for analyses in analysis.VERBS:
    app.command(rich_help_panel="Analysis")(analyses)


def run_words() -> None:
    """Run the verb that the command line names; `~/` at the start of a word or after its `=` is the home folder, quoted or not."""
    app([re.sub(r"(?:^|(?<==))~(?=/)", os.path.expanduser("~"), word) for word in sys.argv[1:]])
