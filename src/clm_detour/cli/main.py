"""The `clm-detour` command: one short function per verb. Slow imports are local: `--help` must be quick."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from clm_detour.cli import ConfigPath, Overrides, analysis, audit, evaluation, ledger, reporting
from clm_detour.cli.engine import Address, EngineName, GpusPerRun, chosen_engine
from clm_detour.config import load_config
from clm_detour.config.loading import DEBUG
from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def print_version(asked: bool) -> None:
    """Print the version and exit, if `--version` was given."""
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
    """Adapt a ModernBERT encoder to a domain by a causal language modeling detour."""


@app.command()
def init(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="File to write, e.g. mine.yaml.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="Files, folders or globs with text; default: this folder."),
    ] = None,
    base: Annotated[
        str, typer.Option(help="Folder or hub id of the model to adapt.")
    ] = "answerdotai/ModernBERT-base",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Look at your texts, and write a recipe for them with comments: clm-detour init mine.yaml texts/."""
    from clm_detour.run.init.command import init_recipe

    init_recipe(recipe, paths or ["."], base, force)


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides,
    engine: EngineName = "local",
    address: Address = None,
    gpus_per_run: GpusPerRun = None,
) -> None:
    """Run a whole recipe. Finished steps are skipped, and an interrupted phase is resumed."""
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.run.pipeline import run_recipe, where_to_look
    from clm_detour.run.verify.remembered import point_to_verify
    from clm_detour.utils.progress import console

    tasks_run_on = chosen_engine(engine, address, gpus_per_run)
    recipe = Recipe(load_config(config, overrides))
    point_to_verify()
    steps = run_recipe(recipe, size_warnings=DEBUG not in overrides, engine=tasks_run_on)
    done = f"{steps} steps done." if steps else "Everything was done before; nothing to do."
    console.print(done, style="bold")
    for line in where_to_look(recipe):
        console.print(line, soft_wrap=True)


@app.command()
def prepare(
    config: ConfigPath, overrides: Overrides, engine: EngineName = "local", address: Address = None
) -> None:
    """Prepare the data only: sample, tokenizer, token shards and packed rows."""
    from clm_detour.run.pipeline import prepare_data
    from clm_detour.utils.progress import console

    tasks_run_on = chosen_engine(engine, address)
    loaded = load_config(config, overrides)
    steps = prepare_data(loaded, tasks_run_on)
    already = f"{loaded.data.dir} was prepared before; nothing to do."
    console.print(f"{steps} steps done." if steps else already, soft_wrap=True)


@app.command()
def train(config: ConfigPath, overrides: Overrides) -> None:
    """Train one phase in this process: arm=ARM phase=PHASE. On GPUs: composer -n N scripts/train.py ..."""
    from clm_detour.train import require_composer
    from clm_detour.train.main import train as train_one

    require_composer()
    train_one(config, overrides)


@app.command()
def export(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A recipe; with --onnx, the folder or hub id of a model.")
    ],
    arm: Annotated[str, typer.Argument(help="Arm that is exported; with --onnx, the folder to write.")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="Hugging Face folder to write.", default_factory=lambda: None),
    ],
    overrides: Overrides,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16; the paper exports bf16.")] = "fp32",
    ema: Annotated[
        bool, typer.Option("--ema", help="The moving average of the weights (train.ema_half_life); no card.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write a model as ONNX: clm-detour export MODEL OUT --onnx.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="With --onnx: also a file with int8 weights.")] = False,
    head: Annotated[
        str | None,
        typer.Option(
            help="With --onnx: fill-mask, features, text-classification or token-classification; default: "
            "that of the model."
        ),
    ] = None,
) -> None:
    """Write the model at the end of an arm as a Hugging Face folder, with its card, or a model as ONNX."""
    from clm_detour.utils.progress import console

    if onnx:
        if folder or overrides or ema or dtype != "fp32":
            raise UserError("With --onnx, give a model and a folder: clm-detour export MODEL OUT --onnx.")
        export_to_onnx(config, Path(arm), head, int8)
        return
    if folder is None or int8 or head:
        raise UserError(
            "Give a recipe, an arm and a folder: clm-detour export CONFIG ARM FOLDER. --int8 and --head need "
            "--onnx."
        )
    from clm_detour.recipe.export import export_arm
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.report.card import write_card
    from clm_detour.report.load import load_run

    recipe = Recipe(load_config(config, overrides))
    export_arm(recipe, arm, folder, dtype, ema)
    if not ema:  # the scores on the card are not those of the moving average
        write_card(load_run(recipe.folder.root), arm, folder)
    console.print(f"Wrote {folder}", soft_wrap=True)


def export_to_onnx(model: str, folder: Path, head: str | None, int8: bool) -> None:
    """Write a model as ONNX, and print sizes and how the files answer."""
    from clm_detour.recipe.onnx_check import HEADS
    from clm_detour.recipe.onnx_export import OPSET, export_onnx
    from clm_detour.utils.progress import console, human_bytes

    done = export_onnx(model, folder, head, int8)
    for name, size in done.files.items():
        console.print(f"Wrote {folder / name}: {human_bytes(size)}", soft_wrap=True)
    made, parity = HEADS[done.head], done.parity
    console.print(
        f"{done.head}, opset {OPSET}: input_ids and attention_mask (batch, sequence) to {made.output}\n"
        f"Largest difference from torch {parity.difference:.1e}, of outputs up to {parity.largest:.3g}, on "
        f"{parity.texts} padded texts of {parity.shortest} to {parity.longest} tokens",
        soft_wrap=True,
    )
    if done.kept is not None:
        console.print(f"int8 beside fp32: {done.kept:.1%} {made.measure}", soft_wrap=True)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="File of a checkpoint, e.g. ep0-ba52988-rank0.pt.")],
    folder: Annotated[Path, typer.Argument(help="Hugging Face folder to write.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of its tokenizer, if the checkpoint holds none.")
    ] = None,
    positions: Annotated[int, typer.Option(min=1, help="Longest input in tokens, for config.json.")] = 8192,
) -> None:
    """Write a Composer checkpoint of ModernBERT's training code as a Hugging Face folder."""
    from clm_detour.model.composer.convert import convert as write_folder
    from clm_detour.utils.progress import console

    write_folder(checkpoint, folder, tokenizer, positions)
    console.print(f"Wrote {folder}", soft_wrap=True)


@app.command()
def merge(
    models: Annotated[list[str], typer.Argument(help="Folders or hub ids of the models.")],
    out: Annotated[Path, typer.Option(help="Hugging Face folder to write.")],
    weights: Annotated[
        str | None, typer.Option(help="A number for each model, like 2,1,1; equal ones without it.")
    ] = None,
) -> None:
    """Average models of one base, such as several decays or seeds, into one model."""
    from clm_detour.recipe.merge import merge as write_average
    from clm_detour.utils.progress import console

    try:
        shares = None if weights is None else [float(share) for share in weights.split(",")]
    except ValueError:
        raise UserError(f"--weights {weights} are not numbers; write them like 2,1,1.") from None
    write_average(models, out, shares)
    console.print(f"Wrote {out}", soft_wrap=True)


@app.command()
def check(
    config: ConfigPath,
    overrides: Overrides,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also verify all checksums of prepared shards.")
    ] = False,
) -> None:
    """Find what is wrong with a recipe before any work is done."""
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.run.check import check_recipe

    recipe = Recipe(load_config(config, overrides))
    check_recipe(recipe, deep, size_warnings=DEBUG not in overrides)


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Training speed of all processes together, for the hours.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Kind of GPU, like H100, for memory, hours, energy.")
    ] = None,
    mfu: Annotated[float | None, typer.Option(help="Share of the GPU's peak speed, like 0.3.")] = None,
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Show the time of each operation at the peaks of --device instead."),
    ] = False,
) -> None:
    """Show what a recipe needs: passes over sources, steps, operations, memory, disk; hours on hardware."""
    from clm_detour.plan import make_plan, print_plan
    from clm_detour.plan.hardware import MFU, Hardware
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.utils.gpus import smallest_memory

    if mfu is not None and device is None:
        raise UserError("--mfu needs --device, whose peak it is a share of.")
    if roofline:
        from clm_detour.plan.roofline import print_roofline

        if device is None:
            raise UserError("--roofline needs --device, like --device H100.")
        print_roofline(Recipe(load_config(config, overrides)), device, gpus)
        return
    hardware = None if device is None else Hardware(gpus, device, MFU if mfu is None else mfu)
    recipe = Recipe(load_config(config, overrides))
    memory = smallest_memory() if hardware is None else hardware.memory
    print_plan(make_plan(recipe, gpus, gpu_memory=memory), tokens_per_second, hardware)


@app.command()
def configs(
    name: Annotated[str | None, typer.Argument(help="Print this one, with its comments.")] = None,
) -> None:
    """List the shipped configs, or print one to copy it: clm-detour configs quickstart > mine.yaml."""
    from clm_detour.cli.configs import print_configs
    from clm_detour.config.shipped import shipped_config

    if name is None:
        print_configs()
    else:
        typer.echo(shipped_config(name).read_text(encoding="utf-8"), nl=False)


@app.command()
def tasks(
    folder: Annotated[Path | None, typer.Argument(help="Folder with a folder for each data set.")] = None,
    language: Annotated[str | None, typer.Option(help="List only tasks in en, fr or es.")] = None,
) -> None:
    """List the evaluation tasks: document counts beside the published ones, and how to get missing data."""
    from clm_detour.evaluate.tasks import TASKS
    from clm_detour.evaluate.tasks.overview import print_overview
    from clm_detour.utils.rules import one_of

    if language is not None:
        one_of(language, sorted({task.language for task in TASKS.values()}), "--language")
    if folder is not None and not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    print_overview([task for task in TASKS.values() if language in (None, task.language)], folder)


@app.command()
def bench(
    config: ConfigPath,
    overrides: Overrides,
    gpus: Annotated[str | None, typer.Option(help="Numbers of GPUs, like 1,2,4; default: all.")] = None,
    micro_rows: Annotated[
        str, typer.Option(help="Sizes, like 4,8,12; default: powers of two until one does not fit.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure at each size.")] = 3,
) -> None:
    """Measure speed and memory of training steps by micro-batch size: needs arm=ARM phase=PHASE and data."""
    from clm_detour.train import require_composer
    from clm_detour.train.launch import launch_bench

    require_composer()
    launch_bench(config, [*overrides, f"steps={steps}", f"sizes={micro_rows}"], gpus)


for scores in evaluation.VERBS:
    app.command()(scores)


@app.command()
def doctor(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            default_factory=lambda: None,
            help="With --verify: a recipe whose step is tried, e.g. mine.yaml.",
        ),
    ],
    overrides: Overrides,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check kernels, processes, recovery and memory: two minutes.")
    ] = False,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="With --verify: number of GPUs; default: all.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="With --verify: file for the results.")] = None,
) -> None:
    """Show versions, hardware, back ends and limits; --verify tries them out before a long run."""
    if not verify:
        from clm_detour.run.doctor import print_environment

        if config or gpus or json:
            raise UserError("A config, --gpus and --json need --verify.")
        print_environment()
        return
    from clm_detour.run.verify.command import verify as verify_machine

    loaded = None if config is None else load_config(config, overrides)
    if not verify_machine(loaded, gpus, json):
        raise typer.Exit(1)


for shows in (*reporting.VERBS, *ledger.VERBS):
    app.command()(shows)
for analyzes in (*analysis.VERBS, *audit.VERBS):
    app.command(rich_help_panel="Analysis")(analyzes)


def run_command_line() -> None:
    """Run the verb on the command line; `~/` at the start of a word or after `=` becomes the home folder."""
    app([re.sub(r"(?:^|(?<==))~(?=/)", os.path.expanduser("~"), word) for word in sys.argv[1:]])
