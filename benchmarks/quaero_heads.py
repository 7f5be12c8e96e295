"""Compare the two heads for nested entities on QUAERO, on a small encoder of French text.

    python benchmarks/quaero_heads.py --french FILE --data TASKS --seeds 3 --steps 800

It trains a tokenizer and a ModernBERT of four layers of 128 on the texts (JSONL, field "text") as a masked
language model, and fine-tunes it on EMEA and Medline with each head. Learning rates, batch, warmup and length
are the same for both; `clip_norm` is that of each head's protocol. Everything is read line by line. The
encoder is far too small for good scores, so only the difference of the heads has a meaning.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from record import ResultName, record
from rich.console import Console
from rich.table import Table

from clm_detour.config.protocols import Head

ENCODER = """
run_dir: {folder}/french
data:
  sequence_length: 256
  held_out: 0.02
  sources: {{french: {{path: {french}}}}}
  mixtures: {{all: {{french: 1.0}}}}
tokenizer: {{train: {{vocab_size: 8000}}}}
model:
  config: {{hidden_size: 128, intermediate_size: 192, num_hidden_layers: 4, num_attention_heads: 4}}
train: {{batch_rows: 16, precision: fp32, workers: 0}}
phases:
  pretrain:
    objective: mlm
    mask_rate: 0.3
    mixture: all
    duration: {tokens}tok
    schedule: {{name: warmup_constant, peak: 2e-3, warmup: 50ktok}}
arms: {{base: [pretrain]}}
"""
TASKS = """
name: {head}
run_dir: {folder}/{head}
data: {data}
tasks: [EMEA, Medline]
seeds: [{seeds}]
protocol: {{head: {head}, steps: {steps}, validate_every: {every}, by_line: true, clip_norm: {clip_norm},
  learning_rate: 2e-4, head_learning_rate: 1e-3, warmup: 0.1}}
"""
CLIP_NORMS: dict[Head, float] = {"biaffine": 1.0, "crf_biaffine": 10.0}


def main(
    french: Annotated[Path, typer.Option(help="French text as JSONL.")],
    data: Annotated[Path, typer.Option(help="The folder with the tasks' folders.")],
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps of a fine-tuning run.")] = 800,
    tokens: Annotated[int, typer.Option(help="Tokens of pretraining.")] = 2_000_000,
    model: Annotated[Path | None, typer.Option(help="An encoder to use instead of training one.")] = None,
    name: ResultName = "quaero-heads",
) -> None:
    """Train the encoder, fine-tune it, and print the test scores of each head by seed."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if model is None:
            recipe = ENCODER.format(folder=root, french=french.resolve(), tokens=tokens)
            clm_detour(root / "encoder.yaml", recipe, "run")
            model = root / "french" / "models" / "base"
        for head, clip_norm in CLIP_NORMS.items():
            evaluation = TASKS.format(
                head=head, folder=root, data=data.resolve(), seeds=", ".join(map(str, range(42, 42 + seeds))),
                steps=steps, every=max(steps // 4, 1), clip_norm=clip_norm,
            )  # fmt: skip
            clm_detour(root / f"{head}.yaml", evaluation, "evaluate", "--model", f"small={model}")
            results[head] = scores_of(root / head)
    show(results)
    if name:
        print(record(name, {"steps": steps, "tokens": tokens, "heads": results}))


def clm_detour(file: Path, content: str, verb: str, *options: str) -> None:
    """Write a YAML file and run a verb of the command on it."""
    file.write_text(content, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "clm_detour", verb, str(file), *options], check=True)


def scores_of(folder: Path) -> dict[str, dict[str, float]]:
    """Return task -> seed -> micro F1 on the test split."""
    files = sorted(folder.glob("small/*/[0-9]*.json"))
    found: dict[str, dict[str, float]] = {}
    for file in files:
        found.setdefault(file.parent.name, {})[file.stem] = json.loads(file.read_text())["score"]
    return found


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a row for each task and head."""
    table = Table(title="Exact micro F1 on the test split")
    for column in ("task", "head", "mean", "by seed"):
        table.add_column(column)
    for task in ("EMEA", "Medline"):
        for head, found in results.items():
            values = [100 * score for score in found[task].values()]
            table.add_row(
                task, head, f"{sum(values) / len(values):.1f}", " ".join(f"{v:.1f}" for v in values)
            )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
