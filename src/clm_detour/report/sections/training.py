"""The section on training: loss and learning rate over tokens."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.report.curves import (
    describe,
    first_to_last,
    learning_rate_chart,
    logged,
    loss_chart,
    watched_chart,
)
from clm_detour.report.markup import Section, figure, heading, join, key, paragraph, side_by_side
from clm_detour.report.run import Phase, Run

NAMES = {"mlm": "Masked-LM", "clm": "Causal-LM"}
CAPTIONS = {
    "mlm": (
        "Nats per masked token. More masking makes the task harder, so only phases with the same mask rate "
        "can be compared."
    ),
    "clm": "Nats per token, each predicted from the tokens before it.",
}


def training_section(run: Run) -> Section | None:
    """Return a chart for each kind of loss and one for the learning rate."""
    phases = [phase for phase in run.phases.values() if phase.curve]
    if not phases:
        return None
    panels = [
        loss_figure(run, chosen, f"loss-{objective}", f"{name} loss", CAPTIONS[objective])
        for objective, name in NAMES.items()
        if (chosen := [phase for phase in phases if phase.objective == objective])
    ]
    masked = [phase for phase in phases if phase.objective == "mlm"]
    ends = [phase for phase in masked if is_end(run, phase)]
    if 0 < len(ends) < len(masked):
        panels.append(
            loss_figure(run, ends, "loss-end", "Masked-LM loss, last phases enlarged", enlarged=True)
        )
    label = f"Learning rate over tokens: {describe(phases, lambda curve: curve.learning_rate)}."
    caption = "Where the rates of two arms coincide, their lines overlap."
    chart = learning_rate_chart(run, phases)
    panels.append(figure("learning-rate", chart, label, "Learning rate", caption))
    body = join(paragraph(introduction(run)), legend(run), side_by_side(*panels), watched(run))
    return Section("training", "Training", body)


def loss_figure(
    run: Run, phases: list[Phase], name: str, title: str, caption: str = "", enlarged: bool = False
) -> Markup:
    """Return a figure of the training loss of some phases."""
    label = f"{title}, over tokens: {describe(phases, lambda curve: curve.loss)}."
    return figure(name, loss_chart(run, phases, enlarged), label, title, caption)


def watched(run: Run) -> Markup | None:
    """Return the held-out losses during training, where they were measured."""
    phases = [phase for phase in run.phases.values() if phase.watched]
    if not phases:
        return None
    text = (
        "Loss on text that no phase trains on, measured repeatedly while the phases trained: once with "
        "masked tokens that the model predicts from both sides, and once causally. Each phase is measured on "
        "the text of its own mixture."
    )
    panels = []
    for causal, name in ((False, "Masked-LM"), (True, "Causal-LM")):
        curves = {p.id: (p.watched.causal if causal else p.watched.masked) for p in phases if p.watched}
        values = "; ".join(f"{id} {first_to_last(losses)}" for id, losses in curves.items())
        title = f"{name} loss on held-out text"
        panels.append(
            figure(
                f"watched-{name.lower().removesuffix('-lm')}", watched_chart(run, phases, causal),
                f"{title} over tokens: {values}.", title, "Nats per predicted token.",
            )
        )  # fmt: skip
    return join(heading("Held-out text during training"), paragraph(text), side_by_side(*panels))


def is_end(run: Run, phase: Phase) -> bool:
    """Return whether an arm of several phases ends with this one."""
    return any(len(ids) > 1 and ids[-1] == phase.id for ids in run.arms.values())


def introduction(run: Run) -> str:
    """Return how to read the charts."""
    text = (
        "The phases of an arm follow one another over the tokens that it has trained on. Phases that arms "
        "share are drawn once. The pale line has every logged step, the strong line their running mean."
    )
    if len({phase.objective for phase, _ in logged(list(run.phases.values()))}) > 1:
        text += " Masked-LM and causal-LM losses belong to different tasks and cannot be compared."
    return text


def legend(run: Run) -> Markup:
    """Return the arms with their colors."""
    keys = Markup(" ").join(
        Markup("<span>{}</span>").format(key(run.color_slot(arm), arm)) for arm in run.arms
    )
    return Markup('<p class="legend">{}</p>').format(keys) if run.arms else Markup()
