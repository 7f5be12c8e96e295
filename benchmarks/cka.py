"""What a comparison costs beyond the forward passes: CKA of two made-up networks of 28 layers x 1,024 dimensions on 500 texts.

    python benchmarks/cka.py

Times one sample with all four estimators, intervals and chance level, as `clm-detour compare` computes them; the matrices alone; and memory: the most that
the process held, beside what the states take. Writes benchmarks/results/cka-*.json.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import torch
from record import record

from clm_detour.analyze.cka import cka_matrix, half_samples
from clm_detour.analyze.similarity import States, measure

LAYERS, WIDTH, TEXTS, RESAMPLES = 28, 1024, 500, 200


def made_up(seed: int) -> States:
    """A random walk over the layers, so that neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.zeros(TEXTS, WIDTH, dtype=torch.float64)
    means = []
    for _ in range(LAYERS + 2):
        state = state + torch.randn(TEXTS, WIDTH, generator=generator, dtype=torch.float64)
        means.append(state)
    return States(("embeddings", *map(str, range(LAYERS)), "final_norm"), means, [x[:0] for x in means])


def resident() -> float:
    """The most memory that the process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure and record."""
    a, b = made_up(0), made_up(1)
    cka_matrix(a.means[:2], b.means[:2])
    before = resident()
    results = {
        "layers": LAYERS,
        "width": WIDTH,
        "texts": TEXTS,
        "states_gb": 2 * (LAYERS + 2) * TEXTS * WIDTH * 8 / 1e9,
    }
    for name, debiased in (("biased", False), ("debiased", True)):
        start = time.perf_counter()
        cka_matrix(a.means, b.means, debiased)
        results[f"matrix_{name}_seconds"] = round(time.perf_counter() - start, 2)
    start = time.perf_counter()
    members = np.arange(TEXTS)[None]
    measure(a, b, members, half_samples(TEXTS, RESAMPLES, 0), 5.0, torch.device("cpu"))
    results["all_estimators_seconds"] = round(time.perf_counter() - start, 2)
    results["resamples"] = RESAMPLES
    results["memory_beyond_states_gb"] = round(resident() - before, 2)
    print(results, record("cka", results, ("torch", "numpy")))


if __name__ == "__main__":
    main()
