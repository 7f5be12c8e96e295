"""The section on training: one chart of losses, learning rate, gradient norm and speed over tokens."""

from __future__ import annotations

from clm_detour.report.curves import MEASURES, first_to_last, training_chart
from clm_detour.report.markup import Section, figure, join, paragraph
from clm_detour.report.run import Run


def training_section(run: Run) -> Section | None:
    """Return the chart, with words on how to read it."""
    chart = training_chart(run)
    if chart is None:
        return None
    text = (
        "The phases of an arm follow one another. Phases that arms share are drawn once, in the color of the "
        "first. The pale line has the logged steps, the strong line their running mean."
    )
    objectives = {phase.objective for phase in run.phases.values() if phase.curve}
    if len(objectives) > 1:
        text += (
            " A causal loss and a masked loss belong to different tasks and cannot be compared; nor can "
            "masked losses at different mask rates, since more masking makes the task harder."
        )
    caption = ""
    if any(phase.watched for phase in run.phases.values()):
        caption = (
            "Held-out losses are on text that no phase trains on: the text of the mixture of each phase, "
            "once with masked tokens that the model predicts from both sides, and once causally."
        )
    made = figure("training", chart, in_words(run), "Training", caption)
    return Section("training", "Training", join(paragraph(text), made))


def in_words(run: Run) -> str:
    """Return the first and last value of each phase, for those who do not see the chart."""
    sentences = []
    for measure in MEASURES.values():
        found = {phase.id: measure.read(phase) for phase in run.phases.values()}
        ends = [f"{id} {first_to_last(pair[1])}" for id, pair in found.items() if pair]
        if ends:
            sentences.append(f"{measure.title} over tokens: {'; '.join(ends)}.")
    return " ".join(sentences)
