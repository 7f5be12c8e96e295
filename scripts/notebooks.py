"""Run notebooks from start to end, and write their outputs into them with --write.

    python scripts/notebooks.py examples/two_masks.ipynb [--write] [--folder DIR]

A notebook runs in an empty temporary folder, or in --folder; the commands of this environment are found. An
error of a cell ends the script with its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from clm_detour.utils.files import atomic_write

LARGEST = 50_000  # bytes of the outputs of a notebook that is committed


def run_notebook(path: Path, folder: Path, timeout: int = 1200) -> Any:
    """Run a notebook in a folder and return it with its outputs.

    Args:
        path: The notebook. The file is not changed.
        folder: Working folder of its cells.
        timeout: Seconds that one cell may take.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    bin_folder = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([bin_folder, os.environ["PATH"]])
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm, where ipywidgets is not installed
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of the day
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def problems(notebook: Any) -> list[str]:
    """Return what must not be in a notebook that is committed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("the cells were not run once each, from first to last")
    outputs = [output for cell in cells for output in cell.outputs]
    text = nbformat.v4.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)]))
    found += [
        f"an output contains {word}: {text[max(0, text.index(word) - 100) :][:300]}"
        for word in ("/tmp", "/home", "/root", "Warning")
        if word in text
    ]
    if any(output.output_type == "error" for output in outputs):
        found.append("a cell ended with an error")
    if len(text) > LARGEST:
        found.append(f"the outputs have {len(text):,} bytes")
    return found


def main() -> None:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="write the outputs into the notebooks")
    parser.add_argument("--folder", type=Path, help="folder to run in; default: an empty one")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        with tempfile.TemporaryDirectory() as temporary:
            notebook = run_notebook(path, arguments.folder or Path(temporary))
        if found := problems(notebook):
            sys.exit(f"{path}: {'; '.join(found)}")
        if arguments.write:
            with atomic_write(path, "w") as file:
                file.write(nbformat.v4.writes(notebook) + "\n")
        print(f"{path}: {len(notebook.cells)} cells run")


if __name__ == "__main__":
    main()
