"""Make any recipe small (`+debug`), so that it runs in seconds on a CPU and is tried before a GPU is used.

The model is tiny and new, the sources are the bundled sample, and a phase has a few steps. Arms, the order
and the objectives of phases, schedules, frozen layers, mixtures and seeds stay. `key=value` on the command
line still wins.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

from clm_detour.config.units import parse_layers

SAMPLE = ("abstracts", "instructions", "notes", "general")
ROW, ROWS, STEPS, LAYERS = 64, 8, 3, 16  # rows for up to eight processes
STEP = ROW * ROWS


def debug(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a small version of a recipe, given as the tree of its YAML."""
    data, phases = tree.get("data") or {}, tree.get("phases") or {}
    replaced = {
        "data": small_data(data),
        "phases": {name: small_phase(phase) for name, phase in phases.items()},
    }
    return {
        **tree,
        **replaced,
        "run_dir": f"{tree.get('run_dir', 'runs/run')}-debug",
        "tokenizer": small_tokenizer(tree.get("tokenizer") or {}),
        "model": {"config": small_model(phases)},
        "train": small_train(tree.get("train") or {}),
        "evaluate": small_evaluation(tree.get("evaluate") or {}),
    }


SMALL_TRAIN = {
    "batch_rows": ROWS, "micro_rows": 2, "precision": "fp32", "compile": False, "workers": 0, "log_every": 1,
    "checkpoint_every": f"{2 * STEP}tok", "export_at": [], "loggers": {}, "bad_loss_above": None,
}  # fmt: skip


def small_evaluation(evaluate: dict[str, Any]) -> dict[str, Any]:
    """Return the section `evaluate` with few rows, and tasks with few documents, one seed and two steps.

    Tasks below `data.root`, which is a folder of the user, become the bundled ones, as its sources do.
    """
    tasks = evaluate.get("tasks")
    if tasks and "${data.root}" in str(tasks.get("data")):
        tasks = {**tasks, "tasks": ["SampleEntities", "SampleVerdict"], "data": None, "groups": {}}
    small = {
        "documents": 8,
        "seeds": [42],
        "protocol": {"steps": 2},
        "protocols": {},
        "learning_rates": [],
        "jobs": 1,
    }
    return {**evaluate, "rows": 4, "fill_masks": 1, "tasks": tasks and {**tasks, **small}}


def small_train(train: dict[str, Any]) -> dict[str, Any]:
    """Return the section `train` with small batches and without loggers."""
    scored = {"evaluate_every": f"{2 * STEP}tok"} if train.get("evaluate_every") else {}
    return {**train, **SMALL_TRAIN, **scored}


def small_data(data: dict[str, Any]) -> dict[str, Any]:
    """Return the section `data` with a file of the sample for each source, and its mixtures."""
    files = cycle(SAMPLE)
    sources = {
        name: {"path": f"${{run_dir}}/sample/{next(files)}.jsonl.gz"} for name in data.get("sources") or {}
    }
    canaries = data.get("canaries")
    return {
        "sample": {"documents": 400},
        "sources": sources,
        "canaries": canaries and {"source": canaries["source"], "each": 2, "copies": [1, 16]},
        "mixtures": data.get("mixtures") or {},
        "sequence_length": ROW,
        "held_out": 0.1,
        "shuffle_seed": data.get("shuffle_seed", 42),
    }


def small_tokenizer(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return the section `tokenizer`: a small one to train, and a few tokens to add if it adds any."""
    add = {"add": {"tokens": 20, "documents": 200}} if tokenizer.get("add") else {}
    return {"train": {"vocab_size": 1000, "documents": 200}, **add}


def small_model(phases: dict[str, Any]) -> dict[str, int]:
    """Return the config of a tiny model that has all frozen layers."""
    frozen = [
        (phase.get("freeze") or {}).get("layers") for phase in phases.values() if isinstance(phase, dict)
    ]
    highest = max(
        (max(parse_layers(str(text), "freeze.layers")) for text in frozen if text is not None), default=0
    )
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": max(LAYERS, highest + 2),
        "num_attention_heads": 2,
        "local_attention": 32,
    }


def small_phase(phase: Any) -> Any:
    """Return a phase of a few steps; warm-up and decay take one of them."""
    if not isinstance(phase, dict):
        return phase  # `${phases.other}`, which becomes small itself
    phase = {**phase, "duration": f"{STEPS * STEP}tok"}
    schedule = phase.get("schedule")
    if isinstance(schedule, dict):
        phase["schedule"] = {
            **schedule,
            **{key: f"{STEP}tok" for key in ("warmup", "decay") if key in schedule},
        }
    if isinstance(phase.get("batch_warmup"), dict):
        phase["batch_warmup"] = {"rows": ROWS // 2, "duration": f"{STEP}tok"}
    return phase
