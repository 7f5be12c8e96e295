"""A file of one JSON object a line, each with its step, that a resumed run cuts back and goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clm_detour.files import atomic_write, finite, read_json_lines, writable


class JsonLines:
    """Only the first process writes."""

    def __init__(self, path: Path):
        self.path = path

    def keep(self, step: int) -> None:
        """Drop what is after `step`, and lines that are not whole."""
        kept = [line for line in read_json_lines(self.path) if line["step"] <= step]
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)

    def append(self, line: Mapping[str, Any]) -> None:
        """One more; what is not finite becomes null, which JSON knows."""
        with writable(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(dict(line))) + "\n")
