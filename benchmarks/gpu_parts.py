"""The parts of `gpu.py`: `python benchmarks/gpu_parts.py PART OUT SETTINGS`, each in a process of its own.

A part writes its results to OUT as JSON, after each measurement, so that what was measured before an error or
a time limit is kept.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clm_detour.utils.files import read_json, read_json_lines, write_json

ROOT = Path(__file__).parents[1]
SOURCES = ("general", "abstracts", "instructions", "notes")
CHARACTERS = 6000.0  # median length of a paper; about 1,500 tokens
SPREAD = 0.8  # of the logarithm of the lengths


@dataclass(frozen=True)
class Scale:
    """Sizes of the measurements.

    Args:
        rows: Size of a network -> rows of a micro-batch; each fits into 80 GB without checkpointing.
        layers: Number of layers; 0 for all.
        loss_steps: Steps of the mini recipe.
        papers: Number of papers that are made.
    """

    tokens: int = 8192
    rows: tuple[tuple[str, int], ...] = (("base", 8), ("large", 4))
    layers: int = 0
    rounds: int = 5
    compile: bool = True
    loss_steps: int = 200
    papers: int = 1500
    sample: int = 24_000
    vocabulary: int = 8192
    precision: str = "bf16"
    products: tuple[tuple[int, int, int], ...] | None = None  # for the GEMM peak; None: those of base


SCALES = {
    "full": Scale(),
    "tiny": Scale(256, (("mini", 1),), 2, 1, False, 3, 40, 400, 800, "fp32", ((256, 64, 64),)),
}


def data(folder: Path, scale: Scale) -> Iterator[dict[str, Any]]:
    """Make papers of the bundled sample, with lengths like those of articles, and a tokenizer."""
    from clm_detour.data.sample import write_sample
    from clm_detour.data.sources import read_documents
    from clm_detour.data.tokenizer_training import train_tokenizer

    files = write_sample(folder / "sample", scale.sample)
    texts = [text for name in SOURCES for text in read_documents(str(files[name]))]
    train_tokenizer(texts[: max(400, len(texts) // 4)], scale.vocabulary, folder / "tokenizer")
    draw = random.Random(0)
    longest = 3 * scale.tokens  # characters; longer papers do not fit into a row
    with gzip.open(folder / "papers.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as file:
        for _ in range(scale.papers):
            wanted = min(draw.lognormvariate(math.log(min(CHARACTERS, longest / 4)), SPREAD), longest)
            paper = ""
            while len(paper) < wanted:
                paper += draw.choice(texts) + "\n"
            file.write(json.dumps({"text": paper[: int(wanted)]}) + "\n")
    yield {"papers": scale.papers, "vocabulary": scale.vocabulary}


def steps(
    folder: Path, scale: Scale, size: str, backend: str = "auto", peer: str | None = None
) -> Iterator[dict[str, Any]]:
    """Measure training steps in CLM and MLM 30 %, of our network alone, or of transformers' beside it.

    Args:
        peer: Attention of transformers' network; None measures ours alone.
    """
    import torch
    from train_step import run_case

    from clm_detour.data.tokenizer import load_tokenizer
    from clm_detour.model.attention import choose_backend
    from clm_detour.utils.allocator import keep_freed_memory

    set_products(scale)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    chosen = choose_backend(backend)  # a UserError says why it does not run
    settings = {
        "size": size, "family": "modernbert", "layers": scale.layers, "tokens": scale.tokens,
        "rows": dict(scale.rows)[size],
        "precision": scale.precision, "residual": scale.precision, "device": device, "backend": backend,
        "compile": scale.compile and peer is None,
        "checkpointing": False, "peer": peer is not None,
        "peer_attention": peer, "peer_micro_batches": 4, "rounds": scale.rounds, "warm_up": 2,
        "give_back": peer is not None, "keep_memory": True,
    }  # fmt: skip
    if peer is not None:
        settings["rows"] = 1  # transformers pads each document to the longest one
    known = load_tokenizer(str(folder / "tokenizer"))
    shown = {**settings, "device": str(device), "attention": asdict(chosen)}
    cases: list[dict[str, Any]] = []
    for case in ("clm", "mlm30"):
        result = run_case("packed", case, folder / "papers.jsonl.gz", known, settings)
        sheet = result["data_sheet_peak"]
        for whose in ("ours", "theirs") if peer is not None else ("ours",):
            speed = result[whose]["flops_per_second"]
            result[whose]["mfu"] = None if sheet is None else speed / sheet
        cases.append(result)
        yield {"settings": shown, "cases": cases}


def profile(folder: Path, scale: Scale, size: str, case: str) -> Iterator[dict[str, Any]]:
    """Profile one step."""
    from profile_step import profile
    from train_step import config_of, make_batch

    from clm_detour.data.tokenizer import load_tokenizer

    set_products(scale)
    known = load_tokenizer(str(folder / "tokenizer"))
    rows = dict(scale.rows)[size]
    batch = make_batch("packed", case, folder / "papers.jsonl.gz", known, scale.tokens, rows)
    yield profile(batch, config_of(size, scale.layers), scale.precision, scale.compile)


def set_products(scale: Scale) -> None:
    """Let the GEMM peak be measured on the products of a scale."""
    import peak

    peak.SHAPES = scale.products or peak.SHAPES


def losses(folder: Path, scale: Scale, device: str) -> Iterator[dict[str, Any]]:
    """Train the mini recipe for some steps, on a GPU or with the GPUs hidden, and return the losses.

    Both read the bundled sample in place of the recipe's own text.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch reads it when it first uses a GPU
    from clm_detour.config import load_config
    from clm_detour.recipe.recipe import Recipe
    from clm_detour.run.pipeline import prepare_data
    from clm_detour.train.phase import train_phase

    sample, run = folder / "sample", folder / f"mini-{device}"
    recipe = Recipe(
        load_config(
            "mini",
            [
                f"run_dir={run}", f"data.root={sample}", f"tokenizer.path={folder / 'tokenizer'}",
                f"data.sources.pubmed.path={sample}/abstracts.jsonl.gz", "train.precision=bf16",
                f"phases.pretrain.duration={scale.loss_steps * 2048}tok", "train.log_every=1",
                "phases.pretrain.schedule.warmup=2048tok", "evaluate.rows=1",
            ],
        )
    )  # fmt: skip
    prepare_data(recipe)
    train_phase(recipe, recipe.phase("base", "pretrain"))
    lines = list(read_json_lines(next(run.glob("phases/*/metrics.jsonl"))))
    yield {"steps": len(lines), "losses": [line["loss"] for line in lines]}


PARTS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "data": data,
    "steps": steps,
    "profile": profile,
    "losses": losses,
}


def main() -> None:
    """Run the part that the command line names, and write its results after each measurement."""
    part, out, arguments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    folder, scale = Path(arguments.pop("folder")), SCALES[arguments.pop("scale")]
    for result in PARTS[part](folder, scale, **arguments):
        write_json(out, result)


def read_result(out: Path) -> Any:
    """Return the results of a part so far, or None."""
    return read_json(out) if out.exists() else None


if __name__ == "__main__":
    main()
