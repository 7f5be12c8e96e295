"""Find the text and tasks of a run that are generated: those of the bundled sample."""

from __future__ import annotations

from pathlib import Path

from clm_detour.config.schema import Config
from clm_detour.data.sample import SOURCES
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.run import Run

FILES = {f"{source}.jsonl.gz" for source in SOURCES}


def generated_sources(run: Run) -> list[str]:
    """Return the sources that are read from the sample of this run or of another one."""
    if not run.config:
        return []
    sources = run.config.data.sources.items()
    return [name for name, source in sources if is_sample(run.config, Path(source.path))]


def is_sample(config: Config, path: Path) -> bool:
    """Return whether a path leads into a sample's folder.

    The sample of another run is known by its settings, which are beside the texts.
    """
    own = RunFolder.of(config).sample
    if config.data.sample is not None and path.is_relative_to(own):
        return True
    return path.name in FILES and path.parent.name == own.name and (path.parent / "settings.json").is_file()


def is_all_generated(run: Run) -> bool:
    """Return whether every source is read from the sample."""
    return run.config is not None and len(generated_sources(run)) == len(run.config.data.sources) > 0


def generated_tasks(run: Run) -> list[str]:
    """Return the tasks whose texts are generated."""
    tasks = run.evaluation.tasks if run.evaluation else []
    return [task.name for task in tasks if task.name in SAMPLE_TASKS]
