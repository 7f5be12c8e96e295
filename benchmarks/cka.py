"""What a comparison costs beyond the forward passes: CKA of two made-up networks of 28 layers x 1,024 dimensions.

    python benchmarks/cka.py

Times one sample of 500 texts (the paper's) and one of 1,000, as `clm-detour compare` computes them: the matrix of all layers by both estimators;
and all estimators with 200 half-samples for the intervals and chance levels. Memory is the most that the process held beyond what it held with the
states. Writes benchmarks/results/cka-*.json.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import torch
from record import record

from clm_detour.analyze.cka import Alignment, half_samples
from clm_detour.analyze.similarity import States, measure

LAYERS, WIDTH, RESAMPLES = 28, 1024, 200
TEXTS = (500, 1000)


def made_up(seed: int, texts: int) -> States:
    """A random walk over the layers, so that neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.zeros(texts, WIDTH, dtype=torch.float64)
    means = []
    for _ in range(LAYERS + 2):
        state = state + torch.randn(texts, WIDTH, generator=generator, dtype=torch.float64)
        means.append(state)
    return States(("embeddings", *map(str, range(LAYERS)), "final_norm"), means, [x[:0] for x in means])


def resident() -> float:
    """The most memory that the process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measured(texts: int) -> dict[str, float]:
    """One sample."""
    a, b = made_up(0, texts), made_up(1, texts)
    before, start = resident(), time.perf_counter()
    alignment = Alignment(a.means, b.means)
    for debiased in (False, True):
        alignment.matrix(debiased)
    middle = time.perf_counter()
    halves = half_samples(texts, RESAMPLES, 0)
    measure(a, b, np.arange(texts)[None], halves, 5.0, torch.device("cpu"))
    end = time.perf_counter()
    return {
        "texts": texts,
        "states_gb": round(2 * (LAYERS + 2) * texts * WIDTH * 8 / 1e9, 2),
        "matrix_seconds": round(middle - start, 2),
        "all_estimators_seconds": round(end - middle, 2),
        "memory_beyond_states_gb": round(resident() - before, 2),
    }


def main() -> None:
    """Measure and record."""
    small = [torch.randn(50, 20, dtype=torch.float64)]
    Alignment(small, small)  # starts torch's threads
    samples = [measured(texts) for texts in TEXTS]
    results = {"layers": LAYERS, "width": WIDTH, "resamples": RESAMPLES, "samples": samples}
    print(results, record("cka", results, ("torch", "numpy")))


if __name__ == "__main__":
    main()
