"""Print hashes of the weights of a run, and of its records without times, paths and versions.

To prove that a change does not alter results, run the same config before and after it: the output of this
script must be equal.

    python scripts/golden.py runs/quickstart > after.json
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open

from clm_detour.utils.files import read_json, read_json_lines

# Parts of keys whose values differ between two equal runs, or are versions of a record.
VARIES = (
    "path", "second", "minute", "hour", "time", "started", "finished", "date", "commit", "cpu", "memory",
    "wait", "clm_detour", "group", "format",
)  # fmt: skip


def golden(run: Path) -> dict[str, Any]:
    """Return the hash of each file of a run, by its relative path."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if "parts" in path.parts:  # named by a hash of the paths of the source
            continue
        if path.suffix == ".safetensors":
            found[name] = hash_of_tensors(path)
        elif path.suffix == ".jsonl":
            found[name] = digest([stable(line) for line in read_json_lines(path)])
        elif path.suffix == ".json" and path.name not in ("steps.json", "environment.json"):
            found[name] = digest(stable(read_json(path)))
    return found


def hash_of_tensors(path: Path) -> str:
    """Return a hash of the names, types, shapes and bytes of the tensors in a safetensors file."""
    total = hashlib.sha256()
    with safe_open(str(path), framework="np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            total.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            total.update(tensor.tobytes())
    return total.hexdigest()[:16]


def stable(value: Any) -> Any:
    """Return a JSON value without the keys that differ between two equal runs."""
    if isinstance(value, dict):
        return {
            key: stable(child)
            for key, child in value.items()
            if not any(word in key.lower() for word in VARIES)
        }
    return [stable(child) for child in value] if isinstance(value, list) else value


def digest(value: Any) -> str:
    """Return a hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps({run: golden(Path(run)) for run in sys.argv[1:]}, indent=1))
