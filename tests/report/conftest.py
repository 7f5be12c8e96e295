"""A run as a recipe leaves it behind, made up: plausible numbers, no training."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clm_detour.config.loading import load_config, save_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.evaluate.summary import TaskRow, summarize
from clm_detour.records.store import as_json
from clm_detour.report.page import write_page
from clm_detour.utils.files import write_json

QUICKSTART = CONFIGS / "quickstart.yaml"
SIZES = [
    "model.config.num_hidden_layers=6",
    "phases.clm.duration=600ktok",
    "phases.mlm.duration=600ktok",
]  # of the made-up run
SOURCES = ("general", "abstracts", "instructions", "notes")
DOMAIN = {"abstracts": (0.6, 0.6012), "instructions": (0.2, 0.1997), "notes": (0.2, 0.1991)}
BATCH_TOKENS, ROW = 4096, 256
ARMS = {
    "base": ["pretrain"],
    "detour": ["pretrain", "pretrain.clm", "pretrain.clm.decay"],
    "twin": ["pretrain", "pretrain.mlm", "pretrain.mlm.decay"],
}
# objective, mask rate, steps, first row, loss at the start and at the end, seconds
PHASES = {
    "pretrain": ("mlm", 0.3, 244, 0, 8.3, 4.6, 61.2),
    "pretrain.clm": ("clm", None, 146, 0, 5.9, 3.3, 44.8),
    "pretrain.clm.decay": ("mlm", 0.15, 48, 2336, 4.1, 2.9, 12.1),
    "pretrain.mlm": ("mlm", 0.3, 146, 0, 4.7, 3.4, 36.9),
    "pretrain.mlm.decay": ("mlm", 0.15, 48, 2336, 3.1, 2.95, 12.0),
}
LOSSES = {
    "pretrain": {"general": 4.512, "abstracts": 5.871, "instructions": 5.633, "notes": 6.044},
    "pretrain.clm": {"general": 6.402, "abstracts": 5.127, "instructions": 5.003, "notes": 5.318},
    "pretrain.clm.decay": {"general": 4.998, "abstracts": 2.871, "instructions": 2.604, "notes": 3.017},
    "pretrain.mlm": {"general": 4.931, "abstracts": 3.104, "instructions": 2.798, "notes": 3.125},
    "pretrain.mlm.decay": {"general": 4.902, "abstracts": 2.913, "instructions": 2.655, "notes": 2.996},
}
PREDICTED = {"general": 2457, "abstracts": 2431, "instructions": 2420, "notes": 2466}
TEXTS = {
    "general": ("The river [MASK] through the old town before it reaches the sea.", " flows", " runs"),
    "abstracts": (
        "Patients were randomised to [MASK] or placebo for twelve weeks.",
        " metformin",
        " aspirin",
    ),
    "instructions": ("Question: What is a common sign of [MASK]? Answer: fever.", " influenza", " asthma"),
    "notes": ("ASSESSMENT: <b>Hyper[MASK]</b>, stable & well controlled.", "tension", "lipidemia"),
}


@dataclass
class FakeRun:
    """A run's folder, with its records within reach."""

    path: Path

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        """Replace a record by what `change` makes of it (or does to it)."""
        record = self.json(name)
        changed = change(record)
        write_json(self.path / name, record if changed is None else changed)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, made up once; tests take copies."""
    path = tmp_path_factory.mktemp("report") / "original" / "made-up"
    fabricate(path)
    return path


@pytest.fixture
def fake_run(original: Path, tmp_path: Path) -> FakeRun:
    """A run that a test may change."""
    return FakeRun(shutil.copytree(original, tmp_path / "runs" / "made-up"))


@pytest.fixture(scope="session")
def whole_run(original: Path, tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """The same for tests that change nothing."""
    return FakeRun(shutil.copytree(original, tmp_path_factory.mktemp("whole") / "made-up"))


@pytest.fixture(scope="session")
def whole_page(whole_run: FakeRun) -> str:
    """Its page."""
    return write_page(whole_run.path).read_text(encoding="utf-8")


def fabricate(path: Path) -> None:
    """Write every record."""
    save_config(load_config(QUICKSTART, [f"run_dir={path.name}", *SIZES]), path / "config.yaml")
    write_json(path / "environment.json", ENVIRONMENT)
    write_json(path / "arms.json", ARMS)
    write_json(path / "steps.json", [step(*pair) for pair in STEPS.items()])
    for number, source in enumerate(SOURCES):
        write_json(path / "data" / source / "card.json", source_report(source, number))
    for id in PHASES:
        write_phase(path / "phases" / id, id)
    for arm in ARMS:
        write_json(path / "models" / arm / "config.json", {})
        (path / "models" / arm / "model.safetensors").write_bytes(b"made up")
    write_json(path / "evaluation" / "held_out.json", held_out())
    write_json(path / "evaluation" / "tasks" / "summary.json", task_summary())
    write_json(
        path / "plan.json", {"phases": {id: {"operations": row[2] * 1e12} for id, row in PHASES.items()}}
    )
    for name, record in analysis().items():
        write_json(path / "analysis" / f"{name}.json", record)
    write_json(path / "evaluation" / "fill_mask.json", filled_masks())


def task_summary() -> dict[str, Any]:
    """Through the code that writes it, so that the form is the real one; one task is missing."""
    noise = random.Random(3)
    tasks = [
        TaskRow("GAD", "en", "single_label", "macro_f1", 534),
        TaskRow("JNLPBA", "en", "entities", "micro_f1", 404),
    ]
    scores = {
        model: {task.name: {seed: level + noise.gauss(0, 0.7) for seed in (42, 43, 44)} for task in tasks}
        for model, level in {"base": 74.0, "detour": 77.5, "twin": 76.1}.items()
    }
    models = [{"name": name, "path": name, "minutes": 1.5, "flops": 1e12} for name in scores]
    return as_json(summarize("made-up", models, tasks, scores, {}, {"COS": "it is <not> here"}))


LAYERS = ["embeddings", *map(str, range(6)), "final_norm"]


def analysis() -> dict[str, Any]:
    """Every record of the analysis, in the form that `clm_detour.analyze` documents."""
    noise = random.Random(4)

    def variant(scale: float) -> dict[str, Any]:
        divergence = [scale * (0.1 + 0.02 * i + noise.random() / 100) for i in range(len(LAYERS))]
        mean = sum(divergence[1:-1]) / 6
        return {
            "matrix": [
                [1 - abs(i - j) / 10 - value for j in range(len(LAYERS))]
                for i, value in enumerate(divergence)
            ],
            "cka": [1 - value for value in divergence],
            "divergence": divergence,
            "interval": [[0.9 * value, 1.1 * value] for value in divergence],
            "model": {"divergence": mean, "interval": [0.9 * mean, 1.1 * mean]},
        }

    variants = ("biased", "debiased", "debiased_trimmed")
    quotients = {
        name: {"layers": None, "model": 1.8 + i / 10, "interval": [1.5, 2.2]}
        for i, name in enumerate(variants)
    }
    parts = {
        "detour_twin": ("a", "b", 1.0),
        "control": ("b", "control", 0.5),
        "before": ("before_a", "before_b", 1.2),
    }
    model = {"layers": LAYERS, "hidden": 128, "outliers": [2] * len(LAYERS)}
    kinds = {layer: {"attention": 0.1 + i / 50, "mlp": 0.2} for i, layer in enumerate(LAYERS)}
    groups = {"low": [0, 1], "mid": [2, 3], "high": [4, 5], "all": [0, 5]}
    return {
        "compare": {
            "models": dict.fromkeys(("a", "b", "control", "before_a", "before_b"), model),
            "texts": {"distinct": 60, "samples": 3, "per_sample": 40, "overlap": True},
            "comparisons": {
                name: {
                    "models": [one, two],
                    "pairs": [[x, x] for x in LAYERS],
                    "variants": {v: variant(scale) for v in variants},
                }
                for name, (one, two, scale) in parts.items()
            },
            "ratio": quotients,
            "retention": quotients,
            "notes": ["The samples share some texts."],
        },
        "weights": {
            "changes": [
                {
                    "arm": arm,
                    "phases": [first, last],
                    "layers": LAYERS,
                    "change": kinds,
                    "whole": {"attention": 0.15, "all": 0.18},
                }
                for arm in ("detour", "twin")
                for first, last in (("clm", "decay"), ("clm", "clm"), ("decay", "decay"))
            ]
        },
        "trajectory": {
            "groups": groups,
            "points": [
                {
                    "phase": phase,
                    "total": total,
                    "divergence": {"undecayed_twin": {"debiased": dict.fromkeys(groups, level)}},
                    "interval": {
                        "undecayed_twin": {"debiased": {name: [0.9 * level, 1.1 * level] for name in groups}}
                    },
                }
                for phase, total, level in (
                    ("start", 0, 0.1),
                    ("clm", 600_000, 0.3),
                    ("decay", 800_000, 0.25),
                )
            ],
        },
        "gradients": {
            "objectives": {
                name: {"density": density, "loss": 4.0, "norms": gradient_norms(density)}
                for name, density in (("clm", 0.99), ("mlm 30 %", 0.3))
            }
        },
    }


def gradient_norms(scale: float) -> dict[str, dict[str, float]]:
    """Layer -> kind -> norm."""
    return {layer: {"attention": 0.3 * scale, "mlp": 0.4 * scale + i} for i, layer in enumerate(LAYERS[:-1])}


ENVIRONMENT = {
    "clm_detour": "0.1.0", "python": "3.11.7", "torch": "2.7.0", "transformers": "4.57.1",
    "composer": "0.32.1", "platform": "Linux-6.1-x86_64", "cpu": "A made-up CPU",
    "cores": 2, "memory_gib": 7.8, "gpus": [], "commit": "97a91d9a4429d74fb0fc4d20cc2f3d9fff1f69a0",
    "date": "2026-11-22T19:02:11+00:00",
}  # fmt: skip
STEPS = {
    "Write the sample": 4.1, "Train the tokenizer": 2.2, "Prepare general": 3.9, "Prepare abstracts": 2.7,
    **{f"Phase {id}": phase[-1] for id, phase in PHASES.items()}, "Export base": 0.6, "Evaluate": 31.4,
}  # fmt: skip


def step(title: str, seconds: float) -> dict[str, Any]:
    return {"step": title.lower(), "title": title, "seconds": seconds, "finished": ENVIRONMENT["date"]}


def source_report(source: str, number: int) -> dict[str, Any]:
    train = {
        "documents": 5820 + number,
        "tokens": 812_345 + number,
        "rows": 3180 + number,
        "fullness": 0.9978,
    }
    held_out = {"documents": 180, "tokens": 25_118, "rows": 99, "fullness": 0.9911}
    dropped = {"empty": 3, "duplicate": 41} if source == "notes" else {}
    return {
        "name": source,
        "seconds": 3.1,
        "dropped": dropped,
        "splits": {"train": train, "held_out": held_out},
    }


def write_phase(folder: Path, id: str) -> None:
    objective, rate, steps, first_row, start, end, seconds = PHASES[id]
    decay = id.endswith("decay")
    noise = random.Random(id)
    lines = []
    for done in range(1, steps + 1):
        t = done / steps
        loss = end + (start - end) * math.exp(-5 * t) + noise.gauss(0, 0.08)
        rate_now = 2e-3 * (1 - 0.9 * math.sqrt(t)) if decay else 2e-3 * min(1.0, done / 8)
        entry = {"step": done, "tokens": done * BATCH_TOKENS, "loss": loss, "learning_rate": rate_now}
        speed = steps * BATCH_TOKENS / seconds * (1 + noise.gauss(0, 0.02))
        lines.append(json.dumps({**entry, "tokens_per_second": speed, "seconds": seconds * t}) + "\n")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    shares = {"general": (1.0, 1.0)} if id == "pretrain" else DOMAIN
    write_json(
        folder / "phase.json",
        {
            "id": id,
            "phase": id.rsplit(".", 1)[-1],
            "objective": objective,
            "mask_rate": rate,
            "mixture": "general" if id == "pretrain" else "domain",
            "schedule": {"name": "one_minus_sqrt" if decay else "warmup_constant", "peak": 2e-3},
            "steps": steps,
            "tokens": steps * BATCH_TOKENS,
            "batch_tokens": BATCH_TOKENS,
            "first_row": first_row,
            "next_row": first_row + steps * BATCH_TOKENS // ROW,
            "shares": {name: {"target": share[0], "observed": share[1]} for name, share in shares.items()},
            "seconds": seconds,
            "started": ENVIRONMENT["date"],
            "finished": ENVIRONMENT["date"],
            "world_size": 1,
            "device": "cpu",
            "precision": "fp32",
        },
    )


def scores(id: str) -> dict[str, Any]:
    by_source = {
        source: {"loss": loss, "accuracy": math.exp(-loss / 3.1), "predicted": PREDICTED[source]}
        for source, loss in LOSSES[id].items()
    }
    total = sum(PREDICTED.values())
    means = {
        name: sum(score[name] * score["predicted"] for score in by_source.values()) / total
        for name in ("loss", "accuracy")
    }
    return {**means, "predicted": total, "by_source": by_source}


def held_out() -> dict[str, Any]:
    models = {arm: scores(ids[-1]) for arm, ids in ARMS.items()}
    return {"mask_rate": 0.15, "models": models, "phases": {id: scores(id) for id in PHASES}}


def filled_masks() -> list[dict[str, Any]]:
    items = []
    for source in SOURCES:
        text, answer, near = TEXTS[source]
        rest = [" a", " the", " <script>", ","]
        for base in ([*rest, near], [*rest, answer]):
            guesses = {"base": base, "detour": [answer, near, *rest[:3]], "twin": [near, answer, *rest[:3]]}
            models = {model: with_scores(tokens) for model, tokens in guesses.items()}
            items.append({"source": source, "text": text, "answer": answer, "models": models})
    return items


def with_scores(tokens: list[str]) -> list[dict[str, Any]]:
    return [{"token": token, "score": 0.46 / (rank + 1)} for rank, token in enumerate(tokens)]
