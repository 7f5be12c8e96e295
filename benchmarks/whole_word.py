"""Train a small network with masked tokens and with masked words, and compare their held-out losses.

    python benchmarks/whole_word.py --corpus pubmed.jsonl.gz

The network of the quickstart (four layers of 128, rows of 256 tokens, a vocabulary of 4,096) is trained on
the texts (JSONL, field "text") from random weights, once with each `mask_unit` and seed, over the same rows.
Every model is then scored on the same held-out rows under masked tokens and under masked words. A masked word
is harder to predict, since none of its pieces is seen, so only losses in the same column can be compared.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from record import ResultName, record
from rich.console import Console
from rich.table import Table

from clm_detour.config import load_config
from clm_detour.data.objectives import IGNORED, Objective
from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.phase import train_phase
from clm_detour.utils.progress import say

Unit = Literal["token", "word"]
UNITS: tuple[Unit, ...] = ("token", "word")
RECIPE = """
run_dir: {folder}/{seed}
seed: {seed}
data:
  dir: {folder}/data
  sequence_length: 256
  held_out: 0.02
  sources: {{corpus: {{path: {corpus}}}}}
  mixtures: {{all: {{corpus: 1.0}}}}
tokenizer: {{train: {{vocab_size: 4096, documents: 1000}}}}
model:
  config: {{hidden_size: 128, intermediate_size: 192, num_hidden_layers: 4, num_attention_heads: 4,
    local_attention: 64}}
train: {{batch_rows: 8, precision: bf16, workers: 0, checkpoint_every: 100Mtok, log_every: 20}}
phases:
  token: &phase
    objective: mlm
    mask_rate: {rate}
    mixture: all
    duration: {tokens}tok
    schedule: {{name: wsd, peak: 2e-3, warmup: {warmup}tok, decay: {decay}tok}}
  word: {{<<: *phase, mask_unit: word}}
arms: {{token: [token], word: [word]}}
"""


@dataclass(frozen=True)
class HeldOutUnits(HeldOut):
    """Held-out rows in which tokens or words are masked."""

    unit: Unit = "token"

    @property
    def objective(self) -> Objective:
        """The objective under which the rows are scored."""
        return Objective("mlm", self.mask_rate, self.unit)


def main(
    corpus: Annotated[Path, typer.Option(help="Texts as JSONL, possibly compressed.")],
    tokens: Annotated[int, typer.Option(help="Tokens of each run.")] = 1_000_000,
    rate: Annotated[
        float, typer.Option(help="The share of tokens or words that is masked in training.")
    ] = 0.15,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 2,
    rows: Annotated[int, typer.Option(help="Held-out rows that are scored.")] = 400,
    name: ResultName = "whole-word",
) -> None:
    """Train and score all models, print the losses, and write them to benchmarks/results."""
    found: dict[str, dict[str, Any]] = {unit: {} for unit in UNITS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(17, 17 + seeds):
            text = RECIPE.format(
                folder=folder, seed=seed, corpus=corpus.resolve(), tokens=tokens, rate=rate,
                warmup=tokens // 20, decay=tokens // 5,
            )  # fmt: skip
            file = Path(folder) / f"{seed}.yaml"
            file.write_text(text, encoding="utf-8")
            recipe = Recipe(load_config(file))
            prepare_data(recipe)
            for unit in UNITS:
                run = recipe.phase(unit, unit)
                train_phase(recipe, run)
                path = str(recipe.folder.phase(run.id).model)
                found[unit][str(seed)] = {
                    "held_out": score(recipe, path, rows),
                    "predicted": predicted_share(recipe, unit),
                }
    show(found)
    if name:
        settings = {"tokens": tokens, "rate": rate, "rows": rows, "corpus": corpus.name}
        say(f"Wrote {record(name, {'settings': settings, 'trained_with': found})}")


def score(recipe: Recipe, path: str, rows: int) -> dict[str, Any]:
    """Return the held-out loss in nats, and the accuracy, under masked tokens and under masked words."""
    network = ModernBertForPretraining.from_pretrained(path, causal=False)
    scores = {}
    for unit in UNITS:
        held_out = HeldOutUnits(
            recipe.open_sources(["corpus"], "held_out"), recipe.tokenizer.vocabulary_of_words,
            recipe.config.data.sequence_length, 0.15, rows, seed=0, unit=unit,
        )  # fmt: skip
        total = held_out.score(network, lambda _: None)
        scores[unit] = {"loss": round(total.loss, 5), "accuracy": round(total.accuracy or 0, 5)}
    return scores


def predicted_share(recipe: Recipe, unit: str, rows: int = 1000) -> float:
    """Return the share of the tokens of the first rows that training predicts, special tokens included."""
    stream = recipe.stream(recipe.phase(unit, unit))
    examples = [stream.example(position) for position in range(rows)]
    real = sum(int((example.input_ids != stream.vocabulary.pad).sum()) for example in examples)
    return round(sum(int((example.labels != IGNORED).sum()) for example in examples) / real, 5)


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print a row for each unit of training."""
    table = Table("trained with masked", "predicted", "loss, tokens masked", "loss, words masked")
    for unit, seeds in found.items():
        columns = [
            "  ".join(f"{each['held_out'][masked]['loss']:.4f}" for each in seeds.values())
            for masked in UNITS
        ]
        share = np.mean([each["predicted"] for each in seeds.values()])
        table.add_row(f"{unit}s", f"{share:.2%}", *columns)
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
