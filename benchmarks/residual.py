"""Train a network under bf16 autocast with the residual stream in fp32 and in bf16, and compare the losses.

    python benchmarks/residual.py mini data.root=DIR tokenizer.path=TOKENIZER

The first phase of the recipe's first arm is trained for a number of steps with each `train.residual`, from
the same weights, over the same rows and masks. With --layers the network is deeper: each layer rounds the
stream twice. The result is the mean training loss over each stretch of steps, and the held-out losses at the
end, which are always scored with an fp32 stream.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import typer
from record import ResultName, record
from rich.console import Console
from rich.table import Table

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.phase import train_phase
from clm_detour.utils.files import read_json_lines

STREAMS = ("fp32", "bf16")


def main(
    config: str,
    overrides: list[str] = typer.Argument(None),  # noqa: B008
    steps: int = 2000,
    layers: int = 0,
    stretch: int = 200,
    seed: int = 17,
    name: ResultName = "residual",
) -> None:
    """Train both, print the losses, and write them to benchmarks/results."""
    with tempfile.TemporaryDirectory() as folder:
        configs = {
            stream: one(config, overrides or [], folder, stream, steps, layers, seed) for stream in STREAMS
        }
        found = {stream: losses_of(each) for stream, each in configs.items()}
    table = Table("steps", *(f"loss, {stream} stream" for stream in STREAMS), "difference")
    whole = steps // stretch * stretch
    means = {
        stream: np.array(each["training"])[:whole].reshape(-1, stretch).mean(1)
        for stream, each in found.items()
    }

    def add_row(label: str, fp32: float, bf16: float) -> None:
        table.add_row(label, f"{fp32:.4f}", f"{bf16:.4f}", f"{bf16 - fp32:+.4f}")

    for number, pair in enumerate(zip(*means.values(), strict=True)):
        add_row(f"{stretch * (number + 1):,}", *pair)
    for kind in ("mlm", "clm"):
        add_row(f"held out, {kind}", *(each["held_out"][kind] for each in found.values()))
    Console(width=120).print(table)
    if name:
        shown = {"config": Path(config).name, "steps": steps, "layers": layers or None, "seed": seed}
        results = {
            stream: {"mean_losses": [round(float(x), 5) for x in means[stream]], "held_out": each["held_out"]}
            for stream, each in found.items()
        }
        print(f"Wrote {record(name, {'settings': shown | {'stretch': stretch}, 'results': results})}")


def one(
    config: str, overrides: list[str], folder: str, stream: str, steps: int, layers: int, seed: int
) -> Config:
    """Return the config of one run. The prepared data is shared."""
    given = [*overrides, f"run_dir={folder}/{stream}", f"data.dir={folder}/data"]
    read = load_config(config, given)
    phase = next(iter(read.arms.values()))[0]
    tokens = steps * read.train.batch_rows * read.data.sequence_length
    changed = [
        f"phases.{phase}.duration={tokens}tok", f"phases.{phase}.schedule.warmup={tokens // 10}tok",
        f"train.residual={stream}", "train.precision=bf16", f"seed={seed}", "train.log_every=1",
        f"train.evaluate_every={tokens}tok", f"train.checkpoint_every={tokens}tok",
        *([f"model.config.num_hidden_layers={layers}"] if layers else []),
    ]  # fmt: skip
    return load_config(config, [*given, *changed])


def losses_of(config: Config) -> dict[str, Any]:
    """Train the first phase, and return its loss at each step and the held-out losses at its end."""
    prepare_data(config)
    recipe = Recipe(config)
    run = next(iter(recipe.arms.values()))[0]
    train_phase(recipe, run)
    folder = recipe.folder.phase(run.id)
    last = read_json_lines(folder.held_out)[-1]
    return {
        "training": [line["loss"] for line in read_json_lines(folder.metrics)],
        "held_out": {kind: round(last[kind]["loss"], 5) for kind in ("mlm", "clm")},
    }


if __name__ == "__main__":
    typer.run(main)
