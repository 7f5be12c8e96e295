"""Find the text and tasks of a run that are generated: those of the bundled sample."""

from __future__ import annotations

from pathlib import Path

from clm_detour.data.sample import SOURCES
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.run import Run

FILES = {f"{source}.jsonl.gz" for source in SOURCES}


def generated_sources(run: Run) -> list[str]:
    """Return the sources that are read from the sample of this run or of another one."""
    if not run.config:
        return []
    data, folder = run.config.data, RunFolder(Path(run.config.run_dir)).sample
    paths = {name: Path(source.path) for name, source in data.sources.items()}
    own = {name for name, path in paths.items() if data.sample is not None and path.is_relative_to(folder)}
    return [name for name, path in paths.items() if name in own or is_sample(path, folder.name)]


def is_sample(path: Path, folder: str) -> bool:
    """Return whether a path is a file of another run's sample.

    Such a folder is recognized by its settings, which are beside the texts.

    Args:
        folder: Name of the folder of a sample.
    """
    return path.name in FILES and path.parent.name == folder and (path.parent / "settings.json").is_file()


def is_all_generated(run: Run) -> bool:
    """Return whether every source is read from the sample."""
    return run.config is not None and len(generated_sources(run)) == len(run.config.data.sources) > 0


def generated_tasks(run: Run) -> list[str]:
    """Return the tasks whose texts are generated."""
    tasks = run.evaluation.tasks if run.evaluation else []
    return [task.name for task in tasks if task.name in SAMPLE_TASKS]
