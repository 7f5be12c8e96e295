"""The model card of an arm, in the hub's format: metadata with the scores as a model index, and a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError

from clm_detour.figures import wording
from clm_detour.figures.renderers import markdown_cells
from clm_detour.records.evaluation import MeanScore
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.caveats import caveats
from clm_detour.report.generated import is_all_generated
from clm_detour.report.load import load_run
from clm_detour.report.run import Phase, Run
from clm_detour.report.sections.tasks import seeds_of
from clm_detour.report.verdict import on_tasks
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write
from clm_detour.utils.hub import is_hub_id

DECIMALS = 2  # of scores in percent; of a loss one more
LICENCES = {  # as the hub's pages of these models state them
    "answerdotai/ModernBERT-base": "apache-2.0",
    "answerdotai/ModernBERT-large": "apache-2.0",
    "almanach/moderncamembert-base": "mit",
}
GIVEN = ("license", "language")  # metadata that people give, since the records do not always have it
PIPELINES = {"entities": ("token-classification", "Token classification")}
OTHER = ("text-classification", "Text classification")


def write_cards(run_dir: Path) -> list[Path]:
    """Write README.md beside every exported model of a run."""
    run, folder = load_run(run_dir), RunFolder(run_dir)
    return [write_card(run, arm, folder.model(arm)) for arm in run.exported]


def write_card(run: Run, arm: str, folder: Path) -> Path:
    """Write `folder/README.md`, and keep license and language of a card that is there."""
    path = folder / "README.md"
    card = model_card(run, arm, metadata=given_before(path))
    with atomic_write(path, "w") as file:
        file.write(str(card))
    return path


def given_before(path: Path) -> dict[str, Any]:
    """Return license and language of the card at `path`; nothing if there is no card."""
    try:
        found = metadata_load(path) or {}
    except (OSError, ValueError, YAMLError):
        return {}
    return {key: found[key] for key in GIVEN if found.get(key) is not None}


def model_card(
    run: Run, arm: str, repository: str | None = None, metadata: Mapping[str, Any] | None = None
) -> ModelCard:
    """Return the card of the model at the end of an arm.

    Args:
        repository: The model's id on the hub.
        metadata: Metadata that replaces what the records give, such as `license` and `language`.

    Raises:
        UserError: If the run has no such arm, or the hub's library cannot read the metadata.
    """
    if arm not in run.arms:
        raise UserError(f"The run has no arm {arm}; it has {', '.join(run.arms)}.")
    data = card_data(run, arm, metadata or {})
    template = environment().get_template("card.md")
    body = template.render(body_of(run, arm, repository, data.license is not None))
    try:
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"The card's metadata is not valid: {error}") from error


def environment() -> Environment:
    """Return the templates of Markdown, in which only the cells of tables are escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["cells"] = markdown_cells
    return made


def card_data(run: Run, arm: str, metadata: Mapping[str, Any]) -> ModelCardData:
    """Return the metadata; what is not known is left out."""
    base = hub_base(run, arm)
    sources = run.config.data.sources.values() if run.config else ()
    datasets = [
        source.path for source in sources if source.format == "hub" and is_of_hub(run, arm, source.path)
    ]
    values = {
        "base_model": base,
        "license": LICENCES.get(base or ""),
        "datasets": datasets or None,
        "pipeline_tag": None if is_causal(run, arm) else "fill-mask",
        **{key: value for key, value in metadata.items() if value is not None},
    }
    results = eval_results(run, arm)
    return ModelCardData(
        library_name="transformers",
        tags=["modernbert", "clm-detour", "continued-pretraining"],
        model_name=name_of(run, arm),
        eval_results=results or None,
        **{key: value for key, value in values.items() if value is not None},
    )


def hub_base(run: Run, arm: str) -> str | None:
    """Return the base model if it is one of the hub."""
    base = run.config.model.base if run.config else None
    return base if base and "/" in base and is_of_hub(run, arm, base) else None


def is_of_hub(run: Run, arm: str, name: str) -> bool:
    """Return whether a base model or data set of the recipe is one of the hub.

    The records of the phases say what was one of the hub when they ran. Those of version 0.1.0 do not. For
    these, a name that is a path from here, from the run's folder or from a folder above it is not one of the
    hub.
    """
    ends = [run.phases[id].end for id in run.arms[arm]]
    recorded = [end.hub for end in ends if end and end.hub is not None]
    if recorded:
        return all(name in names for names in recorded)
    folders = [run.folder, *run.folder.parents] if run.folder else []
    return is_hub_id(name) and not any((folder / name).exists() for folder in folders)


def is_causal(run: Run, arm: str) -> bool:
    """Return whether the arm ends as a causal language model."""
    return run.phases[run.arms[arm][-1]].objective == "clm"


def name_of(run: Run, arm: str) -> str:
    """Return the name of the model."""
    return f"{run.name}-{arm}"


def eval_results(run: Run, arm: str) -> list[EvalResult]:
    """Return the scores on held-out text and on every task."""
    results = []
    held_out = run.held_out.totals.get(arm) if run.held_out else None
    if held_out and math.isfinite(held_out.loss):
        for metric, value in (("loss", held_out.loss), ("accuracy", held_out.accuracy)):
            number = round(value, 3) if metric == "loss" else round(100 * value, DECIMALS)
            results.append(
                EvalResult(
                    "fill-mask", "held-out-text", "Held-out text of the run", metric, number, "Fill-mask"
                )
            )
    for task in run.evaluation.tasks if run.evaluation else ():
        score = run.evaluation.scores.get(arm, {}).get(task.name) if run.evaluation else None
        if score:
            kind, title = PIPELINES.get(task.kind, OTHER)
            seeds = "1 seed" if len(score.seeds) == 1 else f"mean of {len(score.seeds)} seeds"
            metric_name = f"{task.metric.replace('_', ' ')}, {seeds}"
            results.append(
                EvalResult(
                    kind, task.name.lower(), task.name, "f1" if "f1" in task.metric else task.metric,
                    round(score.mean, DECIMALS), title, dataset_split="test", metric_name=metric_name,
                )
            )  # fmt: skip
    return results


def body_of(run: Run, arm: str, repository: str | None, licensed: bool) -> dict[str, Any]:
    """Return the values of the template."""
    phases = [run.phases[id] for id in run.arms[arm]]
    version = (run.environment or {}).get("clm_detour")
    held_out, evaluation = run.held_out, run.evaluation
    tasks = task_rows(run) if evaluation else []
    models = evaluation.scored if evaluation else []
    return {
        "title": name_of(run, arm),
        "what": what_it_is(run, arm, phases),
        "version": f" {version}" if version else "",
        "notes": notes(run, phases, licensed),
        "phases": [phase_row(phase) for phase in phases],
        "shares": [
            [phase.name, source, f"{100 * share.observed:.1f} %"]
            for phase in phases
            if phase.end
            for source, share in phase.end.shares.items()
        ],
        "mask_rate": f"{held_out.mask_rate:.0%}" if held_out else "",
        "held_out": [
            [bold(model, arm), wording.loss(score.loss), f"{100 * score.accuracy:.{DECIMALS}f}"]
            for model, score in (held_out.totals.items() if held_out else ())
        ],
        "task_head": ["task", *(bold(model, arm) for model in models)],
        "tasks": tasks,
        "seeds": seeds_of(evaluation) if tasks and evaluation else "",
        "comparison": on_tasks(run).replace(wording.NARROW, " "),
        "limits": limits(run, arm),
        "causal": is_causal(run, arm),
        "repository": repository or "PATH_OR_ID_OF_THIS_MODEL",
    }


def what_it_is(run: Run, arm: str, phases: Sequence[Phase]) -> str:
    """Return a paragraph on the model and its training."""
    base = hub_base(run, arm)
    start = f"[{base}](https://huggingface.co/{base})" if base else "a ModernBERT"
    way = " and then ".join(
        f"{wording.tokens(phase.tokens)} as a {'causal' if phase.objective == 'clm' else 'masked'} language "
        "model"
        for phase in phases
    )
    if is_causal(run, arm):
        kind = f"A ModernBERT that ends as a causal language model (arm `{arm}` of its run)"
        return f"{kind}: {start} trained for {way}."
    detour = any(phase.objective == "clm" for phase in phases)
    role = "with a causal detour" if detour else "without a causal detour"
    return (
        f"A ModernBERT encoder for masked language modeling and fine-tuning (arm `{arm}` of its run): "
        f"{start} trained for {way}, {role}."
    )


def notes(run: Run, phases: Sequence[Phase], licensed: bool) -> list[str]:
    """Return what a reader must know first."""
    found = []
    if is_all_generated(run):
        found.append(
            "All text that this run trained on is generated (synthetic): the model is a demonstration."
        )
    if not all(phase.end for phase in phases):
        found.append("The training of this model has not ended.")
    if not licensed:
        found.append(
            "No license is named here. Check the licenses of the base model and of the data before you share "
            "this model."
        )
    return found


def phase_row(phase: Phase) -> list[str]:
    """Return a row of the table on training."""
    end = phase.end
    if not end:
        return [phase.name, phase.objective or "", "", wording.count(phase.tokens), "", "", "", ""]
    rate = "" if end.mask_rate is None else f" {end.mask_rate:.0%}"
    objective = "CLM" if phase.objective == "clm" else f"MLM{rate}"
    steps = f"{wording.count(end.steps)} x {wording.count(end.batch_tokens)}"
    return [
        phase.name, objective, end.mixture, wording.count(end.tokens), steps,
        end.schedule.name, f"{end.schedule.peak:g}",
        f"{end.precision}, {end.world_size} x {end.device}",
    ]  # fmt: skip


def task_rows(run: Run) -> list[list[str]]:
    """Return a row for each task and average with the scores of every model of the run."""
    found = run.evaluation
    assert found is not None
    models = found.scored
    rows = [
        [task.name, *(score_text(found.scores[m].get(task.name)) for m in models)] for task in found.tasks
    ]
    for group in found.averaged:
        name = f"average, {group.name}, {len(group.tasks)} of {group.of}"
        rows.append([name, *(score_text(group.averages.get(m)) for m in models)])
    return rows


def score_text(score: MeanScore | None) -> str:
    """Return a score with its standard deviation: `81.02 ± 0.41`."""
    if score is None:
        return wording.ABSENT
    spread = "" if score.std is None else f" ± {score.std:.{DECIMALS}f}"
    return f"{score.mean:.{DECIMALS}f}{spread}"


def bold(model: str, arm: str) -> str:
    """Return the name of a model, in bold if it is the model of this card."""
    return f"**{model}**" if model == arm else model


def limits(run: Run, arm: str) -> list[str]:
    """Return the caveats of the page, and what holds for every such model."""
    use = (
        "The model was last trained to predict the next token and for nothing else"
        if is_causal(run, arm)
        else "The model fills masks and represents text; it does not generate text"
    )
    return [
        *(sentence.replace(wording.NARROW, " ") for sentence in caveats(run)),
        f"{use}, and nothing here shows that it is safe for decisions about people.",
        "The model may repeat what its training texts contain, including errors and biases.",
    ]
