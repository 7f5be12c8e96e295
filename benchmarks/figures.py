"""Draw the figures of docs/performance.md from the records in benchmarks/results.

python benchmarks/figures.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import altair as alt

from clm_detour.figures.figure import Figure, on_white
from clm_detour.figures.parts import Value, data_of, legend_of
from clm_detour.utils.files import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
SHADES = ("#1b4965", "#62a0c4", "#b9c4cc")  # of the series, none of which is an arm
WIDTH, BAR, BETWEEN, ROOM = 700, 16, 12, 0.15  # pixels; the last is the share of the axis for a bar's number


def results(name: str) -> Any:
    """Return the results of one record."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]


def bars(name: str, unit: str, rows: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Write `docs/images/NAME.svg`: for each row, one labeled bar for each series."""
    data: list[dict[str, Value]] = [
        {"row": row, "name": label, "value": value, "text": number(value)}
        for label, values in series.items()
        for row, value in zip(rows, values, strict=True)
    ]
    longest = max(max(values) for values in series.values())
    scale = alt.Scale(domain=[0, (1 + ROOM) * longest], nice=False)
    base = alt.Chart(data_of(data, numbers=("value",))).encode(
        alt.X("value:Q", scale=scale, axis=alt.Axis(title=unit, format=",~f", tickCount=6)),
        alt.Y("row:N", sort=[*rows], axis=alt.Axis(title=None, labelLimit=320)),
        alt.YOffset("name:N", sort=[*series], scale=alt.Scale(paddingInner=0.1)),
    )
    shades = alt.Scale(domain=[*series], range=SHADES[: len(series)])
    legend = legend_of(dict.fromkeys(series, ""), room=WIDTH, symbolType="square")
    drawn = base.mark_bar().encode(color=alt.Color("name:N", scale=shades, legend=legend))
    texts = base.mark_text(align="left", dx=4).encode(text="text:N")
    height = len(rows) * (BAR * len(series) + BETWEEN)
    IMAGES.mkdir(exist_ok=True)
    with atomic_write(IMAGES / f"{name}.svg", "w") as file:
        file.write(on_white(Figure(name, alt.layer(drawn, texts, height=height), WIDTH).svg()))


def number(value: float) -> str:
    """Return a value with three digits, or as a whole number if it has more."""
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def training_step() -> None:
    """Draw tokens per second of a training step, ours beside transformers'."""
    names = {"mlm15": "MLM 15 %", "mlm15-sparse": "MLM 15 %, sparse_prediction", "clm": "CLM"}
    cases = [
        case
        for workload in ("abstracts", "document")
        for case in results(f"train-step-base-bf16-{workload}-amd-epyc-2026-11-29")["cases"]
    ]
    rows = [f"{case['workload']}, {names[case['case']]}" for case in cases]
    series = {
        name: [case[side]["tokens_per_second"] for case in cases]
        for name, side in (("clm-detour", "ours"), ("transformers", "theirs"))
    }
    bars("training-step", "tokens per second", rows, series)


def attention() -> None:
    """Draw the share of the GEMM peak that attention reaches, by layer and back end."""
    cases = [
        case
        for case in results("attention-amd-epyc-2026-11-29")["cases"]
        if case["documents"] == [8192] or len(case["documents"]) > 3
    ]
    keys = list(dict.fromkeys((len(case["documents"]), case["layer"]) for case in cases))
    rows = [f"{'one document' if number == 1 else f'{number} abstracts'}, {layer}" for number, layer in keys]
    series = {
        backend: [
            100 * case["of_gemm_peak"]
            for key in keys
            for case in cases
            if (len(case["documents"]), case["layer"]) == key and case["backend"] == backend
        ]
        for backend in ("onednn", "portable")
    }
    bars("attention", "share of the GEMM peak (%)", rows, series)


def composer() -> None:
    """Draw milliseconds per step of a phase on Composer and of a bare loop."""
    names = {"overhead": "4 x 384, 4,096 tokens", "overhead-short": "4 x 384, 1,024 tokens"}
    names["overhead-tiny"] = "2 x 64, 256 tokens"
    found = [results(f"{name}-amd-epyc-2026-11-25")["seconds_of_steps"] for name in names]
    series = {kind: [1000 * median(each[kind]) for each in found] for kind in ("bare loop", "phase")}
    bars("composer", "milliseconds per step", list(names.values()), series)


def fine_tuning() -> None:
    """Draw seconds of fine-tuning steps on packed and on padded documents."""
    tasks = {"GAD": "25", "NCBI-disease": "25", "HoC": "24"}
    found = [results(f"finetune-packed-{task}-amd-epyc-2026-11-{day}") for task, day in tasks.items()]
    rows = [f"{task}, {each['layers']} x {each['hidden']}" for task, each in zip(tasks, found, strict=True)]
    series = {
        name: [median(each["seconds"][side]) for each in found]
        for name, side in (("packed", "ours"), ("padded", "theirs"))
    }
    bars("fine-tuning", "seconds for 32 documents", rows, series)


def loaders() -> None:
    """Draw tokens per second of three data loaders in the training process."""
    cases = results("data-others-amd-epyc-2026-11-25")["cases"]
    series = {
        name: [cases[f"{key}, {kind}, 0 workers"]["tokens_per_second"] / 1e6 for kind in ("mlm", "clm")]
        for name, key in (
            ("clm-detour", "ours"),
            ("datasets", "datasets"),
            ("mosaicml-streaming", "streaming"),
        )
    }
    bars("loaders", "million tokens per second", ["MLM 30 %", "CLM"], series)


def packing() -> None:
    """Draw how full packed rows are, and how many documents are cut without need."""
    cases = results("data-packing-amd-epyc-2026-11-25")["cases"]
    methods = [name.removeprefix("pubmed: ") for name in cases if name.startswith("pubmed: ")][:5]
    found = [cases[f"pubmed: {method}"] for method in methods]
    series = {
        "rows filled": [100 * each["fullness"] for each in found],
        "documents cut without need": [100 * each["cut_needlessly"] for each in found],
    }
    bars("packing", "%", methods, series)


if __name__ == "__main__":
    for figure in (training_step, attention, composer, fine_tuning, loaders, packing):
        figure()
