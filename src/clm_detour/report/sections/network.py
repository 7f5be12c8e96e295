"""The section on the networks: similarity by layer, what remains after the decay, weights, gradients."""

from __future__ import annotations

import math

from markupsafe import Markup

from clm_detour.analyze.figures import REFERENCE, divergence_chart, similarity_map, trajectory_chart
from clm_detour.figures import wording
from clm_detour.figures.axes import Layers, Values
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.parts import Switch
from clm_detour.figures.table import Cell, Row, Text, number
from clm_detour.records.analysis import NetworkComparison, Quotient, TrajectoryRecord, Variant, WeightChange
from clm_detour.records.store import OptionalInterval
from clm_detour.report.markup import (
    Section,
    figure,
    folded,
    heading,
    join,
    paragraph,
    side_by_side,
    table,
)
from clm_detour.report.run import Run

NAMES = {
    "biased": "CKA as in the paper (biased)",
    "debiased": "debiased",
    "biased_trimmed": "biased, outlier dimensions removed",
    "debiased_trimmed": "debiased, outlier dimensions removed",
    "minibatch": "debiased, over all texts in batches",
    "tokens": "single tokens instead of texts",
}
COLUMNS = {"biased": "biased", "debiased": "debiased", "debiased_trimmed": "no outliers"}  # by layer
KINDS = {"attention": "attention", "mlp": "MLP"}


def network_section(run: Run) -> Section | None:
    """Return the parts of the analysis that there are."""
    parts = [
        similarity(run.comparison) if run.comparison else None,
        trajectory(run.trajectory) if run.trajectory and len(run.trajectory.points) > 1 else None,
        weights(run) if run.weights else None,
        gradients(run) if run.gradients else None,
    ]
    body = join(*parts)
    return Section("network", "Network", body) if body else None


def similarity(found: NetworkComparison) -> Markup:
    """Return the CKA of detour and twin."""
    text = (
        f"Both models read {wording.count(found.texts.distinct)} held-out texts. CKA (centered kernel "
        "alignment) measures how similarly two layers arrange these texts: 1 means that they are equal up to "
        "rotation and scale. Divergence is 1 − CKA, so higher is more different; the divergence of two "
        "models is the mean over their layers. The paper's biased estimator gives too low a divergence when "
        "there are few texts, and a few outlier dimensions can dominate it. Two other estimators are shown "
        "for that reason."
    )
    if "control" in found.comparisons:
        text += (
            " The control is a second twin that differs from the first only in its seed. Its divergence is "
            "the noise floor."
        )
    return join(
        paragraph(text),
        side_by_side(*filter(None, (divergence_figure(found), map_figure(found)))),
        estimator_table(found),
        folded("Divergence by layer as a table", layer_table(found)),
        *(paragraph(note) for note in found.notes),
    )


def map_figure(found: NetworkComparison) -> Markup | None:
    """Return the heat map of all layers with all layers; None if it was not measured."""
    chart = similarity_map(found, "the detour", "the twin")
    if chart is None:
        return None
    label = "Similarity of all layers of the detour with all of the twin; the table has the matched layers."
    return figure("cka", chart, label, "Similarity of layers")


def estimator_table(found: NetworkComparison) -> Markup:
    """Return the divergence of the models by estimator, its ratio to the control, and the retention."""
    rows = []
    for name, title in NAMES.items():
        if name in found.main.variants:
            cells = [model_cell(found.variant(part, name)) for part in ("detour_twin", "control")]
            quotients = [quotient_cell((each or {}).get(name)) for each in (found.ratio, found.retention)]
            rows.append(Row([title, *cells, *quotients]))
    note = (
        "In percent, with 95 % intervals over texts. × control: divergence over that of the control; 1 is no "
        "more than noise. Retention: divergence after the decay over divergence before it; 1 means that all "
        "of it remains."
    )
    head: list[Text] = ["Estimator", "Detour and twin", "Control", "× control", "Retention"]
    return table("Divergence of detour and twin", head, rows, note=note)


def model_cell(found: Variant | None) -> Cell:
    """Return the cell of two models' divergence in percent."""
    return share(found.model.divergence, found.model.interval) if found else number(None, str)


def quotient_cell(found: Quotient | None) -> Cell:
    """Return the cell of a ratio of divergences."""
    return quantity(found.model, found.interval, 1, 2) if found else number(None, str)


def share(value: float, interval: OptionalInterval = None) -> Cell:
    """Return the cell of a share in percent: `12.3 (11.0 to 13.4)`."""
    return quantity(value, interval, 100, 1)


def quantity(value: float, interval: OptionalInterval, scale: float, decimals: int) -> Cell:
    """Return the cell of a number, times `scale`, with its interval."""
    if math.isnan(value):
        return number(None, str)
    text = f"{scale * value:.{decimals}f}"
    if interval is None:
        return Cell(text, {"": value})
    low, high = (f"{scale * end:.{decimals}f}" for end in interval)
    return Cell(f"{text} ({low} to {high})", {"": value, "low": interval[0], "high": interval[1]})


def divergence_figure(found: NetworkComparison) -> Markup:
    """Return the divergence by layer and estimator."""
    layers = len(found.main.pairs)
    label = f"Divergence of detour and twin at {layers} layers by estimator; the table has the values."
    caption = (
        "From the embeddings (emb.) to the final norm. What lies above the line of twin and control is more "
        "than another seed changes."
    )
    names = {"detour_twin": "detour and twin", "control": "twin and control"}
    return figure("divergence", divergence_chart(found, names), label, "Divergence by layer", caption)


def layer_table(found: NetworkComparison) -> Markup:
    """Return the values of the curves."""
    columns: list[tuple[str, Variant]] = []
    for name, title in COLUMNS.items():
        for part, suffix in (("detour_twin", ""), ("control", ", control")):
            if variant := found.curve(part, name):
                columns.append((title + suffix, variant))
    rows = [
        Row(
            [
                one if one == other else f"{one} / {other}",
                *(share(variant.divergence[i]) for _, variant in columns),
                number(found.outliers.get(one), wording.count),
            ]
        )
        for i, (one, other) in enumerate(found.main.pairs)
    ]
    hidden = found.models[found.main.models[0]].hidden
    note = (
        f"In percent. Outliers: how many of the {hidden} dimensions of the detour's layer “no outliers” "
        "leaves out."
    )
    head: list[Text] = ["Layer", *(title for title, _ in columns), "Outliers"]
    return table("Divergence by layer", head, rows, note=note)


def trajectory(found: TrajectoryRecord) -> Markup:
    """Return how divergence builds up during training."""
    points = [point for point in found.points if REFERENCE in point.divergence]
    rows = []
    for point in points:
        estimates = [point.estimate(REFERENCE, "debiased", group) for group in found.groups]
        cells = [share(each.divergence, each.interval) for each in estimates]
        rows.append(Row([point.phase.rsplit(".", 1)[-1], number(point.total, wording.count), *cells]))
    text = (
        "The detour's checkpoints compared with the twin before its decay. Where the curve falls in the last "
        "phase, the decay undoes part of what causal training had changed; where it does not fall, the "
        "change remains."
    )
    label = f"Divergence of the detour from the twin before its decay, at {len(points)} checkpoints."
    title = "Divergence of the detour from the twin before its decay"
    caption = "Debiased, for each third of the layers. Bands: 95 % intervals over texts."
    drawing = figure("trajectory", trajectory_chart(found), label, title, caption)
    head: list[Text] = ["Checkpoint of", "Tokens", *(f"{name} layers" for name in found.groups)]
    note = (
        "Debiased, in percent, with 95 % intervals over texts. Tokens are counted from where detour and twin "
        "part."
    )
    values = table("Divergence during training", head, rows, note=note)
    return join(heading("During training"), paragraph(text), drawing, folded("As a table", values))


def weights(run: Run) -> Markup:
    """Return how far the weights of each arm moved: by layer over all its phases, and in every phase."""
    whole = [change for change in run.weights if is_whole(run, change)]
    kinds = list(dict.fromkeys(kind for change in run.weights for kind in change.whole))
    rows = []
    for change in run.weights:
        name = f"{change.arm}: {' to '.join(dict.fromkeys((change.phases[0], change.phases[-1])))}"
        rows.append(Row([name, *(change_cell(change.whole.get(kind)) for kind in kinds)]))
    text = "How far the weights moved: the norm of the change over the norm of the weights before it."
    note = "In percent of the norm of the weights, over all layers."
    return join(
        heading("Weights"),
        paragraph(text),
        weight_figure(run, whole) if whole else None,
        folded("As a table", table("Weight change", ["Arm and phases", *kinds], rows, note=note)),
    )


def is_whole(run: Run, change: WeightChange) -> bool:
    """Return whether a change is over all phases of an arm that detour and twin do not share."""
    shared = set(run.arms.get("detour", ())) & set(run.arms.get("twin", ()))
    own = [id.rsplit(".", 1)[-1] for id in run.arms.get(change.arm, ()) if id not in shared]
    return bool(own) and (change.phases[0], change.phases[-1]) == (own[0], own[-1])


def weight_figure(run: Run, whole: list[WeightChange]) -> Markup:
    """Return the change of attention and MLP by layer, a line for each arm."""
    layers = [layer for layer in whole[0].layers if layer.isdigit()]
    lines = []
    for change in whole:
        for kind in KINDS:
            values = [change.change.get(layer, {}).get(kind, math.nan) for layer in layers]
            lines.append(Line(range(len(layers)), values, change.arm, option=kind))
    chart = LineChart(
        lines,
        run.color_slots(change.arm for change in whole),
        Layers(layers),
        Values("change, in % of the weights' norm", "~%", ".2%"),
        switch=Switch("kind", "Weights", KINDS),
        points=True,
        from_zero=True,
    )
    label = "Relative change of the weights by layer in attention and MLP; the table has it over all layers."
    title, caption = "Change of the weights by layer", "Each arm over all its own phases."
    return figure("weight-change", chart, label, title, caption)


def change_cell(value: float | None) -> Cell:
    """Return the cell of a relative change in percent."""
    return number(finite(value), lambda found: f"{100 * found:.2f}")


def finite(value: float | None) -> float | None:
    """Return a number, or None for what is not finite."""
    return None if value is None or not math.isfinite(value) else value


def gradients(run: Run) -> Markup:
    """Return how many positions each objective trains, and the gradients, on the same texts."""
    rows = []
    for name, found in run.gradients.items():
        loss = finite(found.loss) if found.density else None
        rows.append(
            Row([objective(name), number(found.density, wording.percent), number(loss, wording.loss)])
        )
    text = (
        "Measured on the model from which both arms start, on the same held-out texts. A causal step has a "
        "target at nearly every position."
    )
    head: list[Text] = ["Objective", "Share of positions", "Loss"]
    positions = table("Positions with a target", head, rows)
    return join(
        heading("Supervision"), paragraph(text), positions, folded("Gradient by layer", gradient_table(run))
    )


def gradient_table(run: Run) -> Markup:
    """Return the norm of the gradient, a row for each layer and a column for each objective."""
    found = run.gradients.values()
    layers = dict.fromkeys(layer for each in found if each.density for layer in each.norms)
    rows = []
    for layer in layers:
        norms = [number(finite(each.layer_norm(layer)), "{:.3g}".format) for each in found]
        rows.append(Row([layer.replace("_", " "), *norms]))
    head: list[Text] = ["Layer", *map(objective, run.gradients)]
    note = (
        "Norm of the gradient of the mean loss over the predicted tokens, for all weights of a layer "
        "together."
    )
    return table("Gradient by layer", head, rows, note=note)


def objective(name: str) -> str:
    """Return the name of an objective: `clm` -> CLM, `mlm 30 %` -> MLM 30 %."""
    return name.replace("clm", "CLM").replace("mlm", "MLM")
