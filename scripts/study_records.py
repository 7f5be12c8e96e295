"""Copy the records that prove the result of a ledger, without weights, texts and places of the machine.

    python scripts/study_records.py runs/study/small dev/study

The first folder is that of a scale of a ledger; its runs may be unfinished. `ledger.json`,
`ledger.started.json` and a folder for each variant are written to the second one, and replace those of an
earlier call. A copied run has the layout of a run folder (`clm_detour.records.run_folder`), so that the same
programs read it. Paths in the records become relative to the run, and `metrics.jsonl` keeps at most 100
lines. Nothing is written if a record would still name a place of the machine, or if all records together have
more than 2 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_folder, atomic_write, read_json, read_json_lines

LEDGER = ("ledger.started.json", "ledger.json")
RECORDS = (
    "arms.json", "environment.json", "plan.json", "steps.json",
    "phases/*/phase.json", "phases/*/metrics.jsonl",
    "evaluation/held_out.json", "evaluation/tasks/summary.json", "evaluation/tasks/*/*/[0-9]*.json",
    "analysis/compare.json", "analysis/needles.json", "analysis/audit.json",
)  # fmt: skip
LINES = 100  # of a phase's metrics, at most
LEFT_OUT = ("platform",)  # keys: the name of a kernel says nothing about a result
LIMIT = 2_000_000  # bytes of all records
# An absolute path, one that leaves the current folder, or one in the home folder, at the start of a word.
PLACE = re.compile(r"""(?:^|[\s'"=(,:;\[])(?:~|\.\.)?/\w|(?:^|\W)[A-Za-z]:\\|file:/""")

Files = dict[str, str]


def records_of(runs: Path) -> Files:
    """Return the content of each file by its path below the folder of the records.

    Raises:
        SystemExit: If there is no run, a record is broken or names a place of the machine, or there are more
            than 2 MB.
    """
    folders = sorted(path.parent for path in runs.glob("*/seed-*/arms.json"))
    if not folders:
        raise SystemExit(f"{runs} has no run VARIANT/seed-N; give the folder of a scale of a ledger.")
    called = {str(Path(run_dir(folder)).parent.parent) for folder in folders}  # in the records of the runs
    prefixes = [*called, str(runs), str(runs.resolve())]
    files: Files = {}
    for name in LEDGER:
        if (path := runs / name).exists():
            content = read_json(path)
            files[name] = as_text(shortened(content, prefixes) if name == "ledger.json" else content, 2)
    for folder in folders:
        below = folder.relative_to(runs)
        files |= {f"{below}/{name}": text for name, text in run_records(folder)}
    for name, text in files.items():
        check_places(name, text)
    size = sum(len(text.encode()) for text in files.values())
    if size > LIMIT:
        raise SystemExit(f"The records have {size / 1e6:.1f} MB, more than {LIMIT / 1e6:g}; shorten RECORDS.")
    return files


def run_records(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield path and content of the records of a run, with paths that are relative to the run."""
    prefixes = [run_dir(folder), str(folder), str(folder.resolve())]
    for pattern in RECORDS:
        for path in sorted(folder.glob(pattern)):
            if path.suffix == ".jsonl":
                text = "".join(as_text(line) for line in thinned(read_json_lines(path)))
            else:
                text = as_text(shortened(read_json(path), prefixes))
            yield str(path.relative_to(folder)), text


def run_dir(folder: Path) -> str:
    """Return the folder of a run as its records call it."""
    config = folder / "config.yaml"
    content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else {}
    return str(content.get("run_dir") or folder)


def thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every n-th line, counted from the last one, so that at most `LINES` are left."""
    step = math.ceil(len(lines) / LINES)
    return lines[::-1][::step][::-1] if lines else []


def as_text(content: Any, indent: int | None = None) -> str:
    """Return JSON content as text."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(content, ensure_ascii=False, indent=indent, separators=separators) + "\n"


def shortened(content: Any, prefixes: list[str]) -> Any:
    """Return JSON content in which paths below a folder, in keys and values, begin below it."""
    found = "|".join(re.escape(prefix) for prefix in sorted(prefixes, key=len, reverse=True))
    below = re.compile(rf"(?<![\w./-])(?:{found})/")
    return each_text(content, lambda text: "." if text in prefixes else below.sub("", text))


def each_text(content: Any, change: Callable[[str], str]) -> Any:
    """Return JSON content with a change of every key and every text, without the keys in `LEFT_OUT`."""
    if isinstance(content, dict):
        kept = ((key, value) for key, value in content.items() if key not in LEFT_OUT)
        return {change(key): each_text(value, change) for key, value in kept}
    if isinstance(content, list):
        return [each_text(value, change) for value in content]
    return change(content) if isinstance(content, str) else content


def check_places(name: str, text: str) -> None:
    """Check that no text of a record names a place of the machine.

    Raises:
        SystemExit: If one does.
    """

    def check(found: str) -> str:
        if PLACE.search(found):
            raise SystemExit(
                f"{name} holds {found!r}, a place of this machine; nothing was written. Give the recipe "
                "paths inside the project, or leave the record out of RECORDS."
            )
        return found

    for line in [text] if name.endswith(".json") else text.splitlines():
        each_text(json.loads(line), check)


def write_records(files: Files, folder: Path) -> None:
    """Write the records; the folder of each variant is replaced as a whole."""
    for name in LEDGER:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
            continue
        with atomic_write(folder / name, "w") as file:
            file.write(files[name])
    for variant in sorted({name.split("/")[0] for name in files if "/" in name}):
        with atomic_folder(folder / variant) as temporary:
            for name, text in files.items():
                if name.startswith(f"{variant}/"):
                    path = temporary / name.partition("/")[2]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Read the arguments and copy the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of a scale of a ledger")
    parser.add_argument("folder", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    try:
        files = records_of(arguments.runs)
        write_records(files, arguments.folder)
    except UserError as error:
        raise SystemExit(str(error)) from error
    size = sum(len(text.encode()) for text in files.values())
    print(f"Wrote {len(files)} records to {arguments.folder}, {size / 1e6:.2f} MB.")
    for name in LEDGER:
        if name not in files:
            print(f"{name} is not there yet.")


if __name__ == "__main__":
    main()
