"""The metadata of a model card: the block of YAML that the hub reads. What is not known is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from clm_detour.records.evaluation import MeanScore, TaskRow
from clm_detour.report.card.base_models import base_model
from clm_detour.report.generated import is_all_generated
from clm_detour.report.run import Run
from clm_detour.utils.hub import is_hub_id

DECIMALS = 2  # of scores in percent; of a loss one more
WIDGETS = 3  # examples for the hub's page
SENTENCES = {"en": "Paris is the capital of {}.", "fr": "Paris est la capitale de la {}."}
PIPELINES = {"entities": ("token-classification", "Token classification")}
OTHER = ("text-classification", "Text classification")


def card_data(run: Run, arm: str, metadata: Mapping[str, Any], mask_token: str | None) -> ModelCardData:
    """Return the metadata of an arm's model.

    Args:
        metadata: Keys that replace what the records give; None keeps what they give.
        mask_token: The mask token of the model's tokenizer.
    """
    base = hub_base(run, arm)
    known = base_model(base)
    sources = run.config.data.sources.values() if run.config else ()
    hub = [source.path for source in sources if source.format == "hub" and is_of_hub(run, arm, source.path)]
    values = {
        "base_model": base,
        "base_model_relation": "finetune" if base else None,
        "license": known.license,
        "language": "en" if is_all_generated(run) else known.language,
        "datasets": hub or None,
        "pipeline_tag": None if is_causal(run, arm) else "fill-mask",
        **{key: value for key, value in metadata.items() if value is not None},
    }
    if mask_token and not is_causal(run, arm):
        values["widget"] = [{"text": text} for text in examples(run, values["language"], mask_token)] or None
    return ModelCardData(
        library_name="transformers",
        tags=["modernbert", "clm-detour", "continued-pretraining"],
        model_name=name_of(run, arm),
        eval_results=eval_results(run, arm) or None,
        **{key: value for key, value in values.items() if value is not None},
    )


def examples(run: Run, language: str | list[str] | None, mask_token: str) -> list[str]:
    """Return texts with a mask for the hub's page.

    A text of the run is shown only if all its text is generated, since other text may not be public.
    """
    if is_all_generated(run):
        texts = {item.source: item.text for item in reversed(run.filled_masks) if mask_token in item.text}
        return [" ".join(text.split()) for text in texts.values()][-WIDGETS:][::-1]
    sentence = sentence_in(language)
    return [sentence.format(mask_token)] if sentence else []


def sentence_in(language: str | list[str] | None) -> str | None:
    """Return a sentence with a gap in the first of the languages that has one here."""
    languages = [language] if isinstance(language, str) else language or []
    return next((SENTENCES[code] for code in languages if code in SENTENCES), None)


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
    scores = run.evaluation.scores.get(arm, {}) if run.evaluation else {}
    tasks = run.evaluation.tasks if run.evaluation else []
    return [*results, *(task_result(task, scores[task.name]) for task in tasks if task.name in scores)]


def task_result(task: TaskRow, score: MeanScore) -> EvalResult:
    """Return the score on a task as an entry of the model index."""
    kind, title = PIPELINES.get(task.kind, OTHER)
    seeds = "1 seed" if len(score.seeds) == 1 else f"mean of {len(score.seeds)} seeds"
    return EvalResult(
        kind, task.name.lower(), task.name, "f1" if "f1" in task.metric else task.metric,
        round(score.mean, DECIMALS), title, dataset_split="test",
        metric_name=f"{task.metric.replace('_', ' ')}, {seeds}",
    )  # fmt: skip
