"""The model card of an arm, in the hub's format: metadata with the scores as a model index, and a text.

metadata.py       the block of YAML that the hub reads
architecture.py   layers, width and attention, from the model's config
training.py       phases, data and settings
memory.py         canaries in the data, and what an audit found
results.py        the result in one sentence; held-out text, tasks, published models, layers
base_models.py    license, language and citation of known base models
figure.py         the figure beside the card
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError

from clm_detour.figures import wording
from clm_detour.figures.renderers import markdown_cells
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.card import memory, results, training
from clm_detour.report.card.architecture import architecture
from clm_detour.report.card.base_models import citations
from clm_detour.report.card.figure import FIGURE, Drawn, draw
from clm_detour.report.card.metadata import SENTENCES, card_data, hub_base, is_causal, name_of, sentence_in
from clm_detour.report.caveats import caveats
from clm_detour.report.generated import is_all_generated
from clm_detour.report.load import load_run
from clm_detour.report.run import Phase, Run
from clm_detour.report.sections.tasks import seeds_of
from clm_detour.report.verdict import on_tasks
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write, read_json

GIVEN = ("license", "language")  # metadata that people give, since the records do not always have it
HERE = "."  # the model's id in a card that is read beside the model


def write_cards(run_dir: Path) -> list[Path]:
    """Write README.md and its figure beside every exported model of a run."""
    run, folder = load_run(run_dir), RunFolder(run_dir)
    drawn = draw(run)
    return [write_card(run, arm, folder.model(arm), drawn) for arm in run.exported]


def write_card(run: Run, arm: str, folder: Path, drawn: Drawn | None = None) -> Path:
    """Write `folder/README.md` with its figure, and keep license and language of a card that is there.

    Args:
        folder: The exported model of the arm.
        drawn: The figure; drawn if it is not given.
    """
    path, drawn = folder / "README.md", drawn or draw(run)
    card = model_card(run, arm, metadata=given_before(path), drawn=drawn, folder=folder)
    write_figure(folder, drawn)
    with atomic_write(path, "w") as file:
        file.write(str(card))
    return path


def write_figure(folder: Path, drawn: Drawn | None) -> None:
    """Write the figure of a card, or remove one of an earlier card."""
    if drawn is None:
        (folder / FIGURE).unlink(missing_ok=True)
        return
    with atomic_write(folder / FIGURE) as file:
        file.write(drawn.png)


def given_before(path: Path) -> dict[str, Any]:
    """Return license and language of the card at `path`; nothing if there is no card."""
    try:
        found = metadata_load(path) or {}
    except (OSError, ValueError, YAMLError):
        return {}
    return {key: found[key] for key in GIVEN if found.get(key) is not None}


def model_card(
    run: Run,
    arm: str,
    repository: str = HERE,
    metadata: Mapping[str, Any] | None = None,
    drawn: Drawn | None = None,
    folder: Path | None = None,
) -> ModelCard:
    """Return the card of the model at the end of an arm.

    Args:
        repository: The model's id on the hub; by default the folder in which the card is.
        metadata: Metadata that replaces what the records give, such as `license` and `language`.
        drawn: The figure beside the card.
        folder: The exported model; by default that of the run.

    Raises:
        UserError: If the run has no such arm, or the hub's library cannot read the metadata.
    """
    if arm not in run.arms:
        raise UserError(f"The run has no arm {arm}; it has {', '.join(run.arms)}.")
    folder = folder or (RunFolder(run.folder).model(arm) if run.folder else None)
    data = card_data(run, arm, metadata or {}, mask_token(folder) if folder else None)
    body = body_of(run, arm, repository, data)
    body |= {"drawn": drawn, "architecture": architecture(run, folder)}
    text = environment().get_template("card.md").render(body)
    try:
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"The card's metadata is not valid: {error}") from error


def environment() -> Environment:
    """Return the templates of Markdown, in which only the cells of tables are escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["cells"] = markdown_cells
    return made


def mask_token(folder: Path) -> str | None:
    """Return the mask token of the exported tokenizer, or None if there is none."""
    path = folder / "tokenizer_config.json"
    try:
        found = read_json(path).get("mask_token") if path.is_file() else None
    except (UserError, AttributeError):
        return None
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) else None


def body_of(run: Run, arm: str, repository: str, data: ModelCardData) -> dict[str, Any]:
    """Return the values of the template that the records give."""
    phases = [run.phases[id] for id in run.arms[arm]]
    version = (run.environment or {}).get("clm_detour")
    tasks = results.task_rows(run)
    has_detour = is_detour_arm(phases)
    compared = arm in results.OTHER_ARM
    return {
        "title": name_of(run, arm),
        "what": what_it_is(run, arm, phases),
        "result": results.result(run, arm),
        "version": f" {version}" if version else "",
        "notes": notes(run, phases, data.license),
        "has_detour": has_detour,
        "networks": results.networks(run) if compared else "",
        "layers": results.layer_rows(run) if compared else [],
        "phase_head": ["setting", *(phase.name for phase in phases)],
        "phases": training.phase_rows(run, phases),
        "recipe": training.recipe_notes(run, phases),
        "data_head": training.data_head(phases),
        "data": training.data_rows(run, phases),
        "sources": training.data_notes(run, arm, phases),
        "canaries": memory.canaries(run, phases),
        "audit": memory.audit_result(run, arm),
        "mask_rate": f"{100 * run.held_out.mask_rate:g} %" if run.held_out else "",
        "loss_unit": f"loss ({run.held_out.unit})" if run.held_out else "",
        "held_out": results.held_out_rows(run, arm),
        "general_text": results.general_text(run, arm),
        "task_head": results.task_head(run, arm),
        "tasks": tasks,
        "seeds": seeds_of(run.evaluation) if tasks and run.evaluation else "",
        "comparison": on_tasks(run).replace(wording.NARROW, " "),
        "published_head": results.published_head(run),
        "published": results.published_rows(run),
        "figure": FIGURE,
        "decontaminated": any(source.decontaminate for source in training.sources_of(run, phases).values()),
        "limits": [sentence.replace(wording.NARROW, " ") for sentence in caveats(run)],
        "causal": is_causal(run, arm),
        "license": data.license,
        "citations": citations(hub_base(run, arm)),
        "repository": repository,
        "model_id": json.dumps(repository),
        "sentence": (sentence_in(data.language) or SENTENCES["en"]).format("{mask}"),
    }


def is_detour_arm(phases: Sequence[Phase]) -> bool:
    """Return whether a causal phase is followed by a masked one at the end."""
    return phases[-1].objective == "mlm" and any(phase.objective == "clm" for phase in phases)


def what_it_is(run: Run, arm: str, phases: Sequence[Phase]) -> str:
    """Return a sentence on the model and its training."""
    base = hub_base(run, arm)
    start = f"[{base}](https://huggingface.co/{base})" if base else "a ModernBERT"
    if run.config and run.config.model.base is None:
        start = "a new ModernBERT"
    way = ", then ".join(
        f"{wording.tokens(phase.tokens)} as a {'causal' if phase.objective == 'clm' else 'masked'} language "
        "model"
        for phase in phases
        if phase.tokens
    )
    way = way or "no tokens yet"
    if is_causal(run, arm):
        kind = f"A ModernBERT that ends as a causal language model (arm `{arm}` of its run)"
        return f"{kind}: {start}, trained for {way}."
    role = "with a causal detour" if is_detour_arm(phases) else "without a causal detour"
    return (
        f"A ModernBERT encoder for masked language modeling and fine-tuning (arm `{arm}` of its run): "
        f"{start}, trained for {way}; {role}."
    )


def notes(run: Run, phases: Sequence[Phase], license_id: str | None) -> list[str]:
    """Return what a reader must know first."""
    found = []
    if is_all_generated(run):
        found.append(
            "All text that this run trained on is generated (synthetic): the model is a demonstration."
        )
    if not all(phase.end for phase in phases):
        found.append("The training of this model has not ended.")
    if not license_id:
        found.append(
            "No license is named here. Check the licenses of the base model and of the data before you share "
            "this model."
        )
    return found
