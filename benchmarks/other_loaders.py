"""Measure the data loader of another library on given rows, and print the numbers as JSON.

    python other_loaders.py NAME ROWS.npy TOKENIZER OBJECTIVE WORKERS BATCH_ROWS SECONDS

OBJECTIVE is `mlm`, which masks 30 % with transformers' collator, or `clm`, which only stacks the rows: the
model then shifts the labels. This file does not import clm_detour, so that it runs in another environment:
mosaicml-streaming does not allow current releases of transformers and numpy.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate
from transformers import AutoTokenizer, DataCollatorForLanguageModeling


def streaming_dataset(rows: np.ndarray, folder: str, batch_rows: int):
    """Write MDS shards, and return a function that opens them shuffled, as llm-foundry does."""
    from streaming import MDSWriter, StreamingDataset

    columns = {"input_ids": f"ndarray:{rows.dtype.name}:{rows.shape[1]}"}
    with MDSWriter(out=f"{folder}/mds", columns=columns) as writer:
        for row in rows:
            writer.write({"input_ids": row})

    class Rows(StreamingDataset):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.from_numpy(super().__getitem__(index)["input_ids"].astype(np.int64))}

    return lambda: Rows(local=f"{folder}/mds", shuffle=True, batch_size=batch_rows)


def arrow_dataset(rows: np.ndarray, folder: str, batch_rows: int):
    """Write an Arrow table with `datasets`, and return a function that opens it."""
    from datasets import Dataset, load_from_disk

    Dataset.from_dict({"input_ids": list(rows)}).save_to_disk(f"{folder}/arrow")
    return lambda: load_from_disk(f"{folder}/arrow").with_format("torch")


PACKAGE = {"streaming": "mosaicml-streaming", "datasets": "datasets"}
LOADERS = {"streaming": streaming_dataset, "datasets": arrow_dataset}


def main() -> None:
    """Measure the loader that the command line names."""
    name, rows_file, tokenizer, objective, workers, batch_rows, seconds = sys.argv[1:]
    rows = np.load(rows_file)
    masking = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(tokenizer), mlm_probability=0.3)
    collate = masking if objective == "mlm" else default_collate
    with tempfile.TemporaryDirectory() as folder:
        opened = LOADERS[name](rows, folder, int(batch_rows))
        start = time.perf_counter()
        dataset = opened()
        shuffle = None if name == "streaming" else True
        loader = DataLoader(
            dataset, int(batch_rows), shuffle=shuffle, num_workers=int(workers), collate_fn=collate,
            drop_last=True,
        )  # fmt: skip

        batches = iter(loader)
        next(batches)
        first = time.perf_counter()
        tokens = 0
        while time.perf_counter() - first < float(seconds):
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader)
                continue
            tokens += batch["input_ids"].numel()
        result = {
            "tokens_per_second": tokens / (time.perf_counter() - first),
            "first_batch_seconds": first - start,
        }
    versions = {
        package: importlib.metadata.version(package) for package in (PACKAGE[name], "transformers", "numpy")
    }
    print(json.dumps({"numbers": result, "versions": versions}))


if __name__ == "__main__":
    main()
