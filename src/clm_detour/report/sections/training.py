"""Training loss and learning rate over tokens."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.report.arms import colour_slot
from clm_detour.report.curves import (
    describe,
    first_to_last,
    learning_rate_figure,
    logged,
    loss_figure,
    watched_figure,
)
from clm_detour.report.markup import Section, figure, heading, join, key, paragraph, side_by_side
from clm_detour.report.records import Phase, Run

NAMES = {"mlm": "Masked-LM", "clm": "Causal-LM"}


def training_section(run: Run) -> Section | None:
    """One panel for each kind of loss, one for the learning rate."""
    phases = [phase for phase in run.phases.values() if phase.curve]
    if not phases:
        return None
    panels = []
    for objective, name in NAMES.items():
        chosen = [phase for phase in phases if phase.objective == objective]
        if chosen:
            label = f"{name} training loss over tokens: {describe(chosen, lambda curve: curve.loss)}."
            drawing = loss_figure(run, chosen, f"loss-{objective}", label)
            panels.append(figure(drawing, f"{name} loss", CAPTIONS[objective]))
    ends = [phase for phase in phases if phase.objective == "mlm" and is_end(run, phase)]
    if 0 < len(ends) < len([phase for phase in phases if phase.objective == "mlm"]):
        label = f"Masked-LM training loss in the last phases: {describe(ends, lambda curve: curve.loss)}."
        drawing = loss_figure(run, ends, "loss-end", label, enlarged=True)
        panels.append(figure(drawing, "Masked-LM loss, last phases enlarged"))
    label = f"Learning rate over tokens: {describe(phases, lambda curve: curve.learning_rate)}."
    caption = "Dashed: causal LM; solid: masked LM. Where two arms coincide, one line lies on the other."
    panels.append(figure(learning_rate_figure(run, phases, "learning-rate", label), "Learning rate", caption))
    body = join(paragraph(introduction(run)), legend(run), side_by_side(*panels), watched(run))
    return Section("training", "Training", body)


def watched(run: Run) -> Markup | None:
    """Held-out losses on the way, where they were measured."""
    phases = [phase for phase in run.phases.values() if phase.watched]
    if not phases:
        return None
    text = (
        "Loss on text that no phase trains on, measured again and again while the phases ran: read in both directions with masks, "
        "and read causally. Each phase's text is that of its own mixture."
    )
    panels = []
    for causal, name in ((False, "Masked-LM"), (True, "Causal-LM")):
        curves = {p.id: (p.watched.causal if causal else p.watched.masked) for p in phases if p.watched}
        told = "; ".join(f"{id} {first_to_last(losses)}" for id, losses in curves.items())
        slug = name.lower().replace("-lm", "")
        label = f"{name} loss on held-out text over tokens: {told}."
        drawing = watched_figure(run, phases, f"watched-{slug}", label, causal)
        panels.append(figure(drawing, f"{name} loss on held-out text", "Nats per predicted token."))
    return join(heading("Held-out text on the way"), paragraph(text), side_by_side(*panels))


def is_end(run: Run, phase: Phase) -> bool:
    """Whether an arm of several phases ends with this one."""
    return any(len(ids) > 1 and ids[-1] == phase.id for ids in run.arms.values())


CAPTIONS = {
    "mlm": "Nats per masked token. More masking is harder: only phases of one mask rate compare.",
    "clm": "Nats per token, each predicted from those before it.",
}


def introduction(run: Run) -> str:
    """How to read the panels."""
    text = (
        "An arm's phases stand one after another over the tokens it has seen; what arms share is drawn once. "
        "Pale is every logged step, strong their running mean."
    )
    if len({phase.objective for phase, _ in logged(list(run.phases.values()))}) > 1:
        text += " Masked-LM and causal-LM losses measure different tasks and cannot be compared."
    return text


def legend(run: Run) -> Markup:
    """The arms' colours."""
    keys = Markup(" ").join(
        Markup("<span>{}</span>").format(key(colour_slot(run, arm), arm)) for arm in run.arms
    )
    return Markup('<p class="legend">{}</p>').format(keys) if run.arms else Markup()
