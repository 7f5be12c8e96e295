"""What the detour did to the network: similarity by layer, what outlives the decay, weights, gradients."""

from __future__ import annotations

import math

from markupsafe import Markup
from matplotlib.axes import Axes

from clm_detour.report import wording
from clm_detour.report.analysis import Comparison, Estimate, Layers, Trajectory, Variant, WeightChange
from clm_detour.report.curves import token_axis
from clm_detour.report.layers import Line, heat_map, layer_curves, lowest_of
from clm_detour.report.markup import Section, figure, heading, join, paragraph, side_by_side
from clm_detour.report.plots import COLOURS, draw
from clm_detour.report.records import Run
from clm_detour.report.tables import Cell, Row, Text, number, table

NAMES = {
    "biased": "CKA as in the paper (biased)",
    "debiased": "debiased",
    "biased_trimmed": "biased, outlier dimensions removed",
    "debiased_trimmed": "debiased, outlier dimensions removed",
    "minibatch": "debiased, over all texts in batches",
    "tokens": "single tokens instead of texts",
}
CURVES = {"biased": "biased", "debiased": "debiased", "debiased_trimmed": "no outliers"}
SHADES = {"biased": "base", "debiased": "detour", "debiased_trimmed": "twin"}


def network_section(run: Run) -> Section | None:
    """Whatever the analysis left."""
    parts = [
        similarity(run.comparison) if run.comparison else None,
        on_the_way(run.trajectory) if run.trajectory and len(run.trajectory.points) > 1 else None,
        weights(run) if run.weights else None,
        gradients(run) if run.gradients else None,
    ]
    body = join(*parts)
    return Section("network", "What the detour changed in the network", body) if body else None


def similarity(found: Comparison) -> Markup:
    """CKA of detour and twin."""
    text = (
        f"Both models read {wording.count(found.texts)} held-out texts. CKA says how alike two layers arrange these texts: "
        "1 is alike up to rotation and scale. Divergence is 1 − CKA, so higher is more different; of a model it is the mean over its "
        "layers. The biased estimator of the paper sees divergence too low with few texts, and a few outlier dimensions can rule it, "
        "so two others stand beside it."
    )
    if "control" in found.parts:
        text += (
            " The control is a second twin that differs from the first in its seed alone: the noise floor."
        )
    main = found.parts["detour_twin"]
    shown: dict[str, list[Layers]] = {
        name: main[name].matrix for name in ("biased", "debiased") if name in main and main[name].matrix
    }
    lowest = lowest_of(shown)
    maps = [
        figure(
            heat_map(f"cka-{name}", f"Similarity of all layers of the detour with all of the twin, {name}; the table has the matched layers.",
                     matrix, *found.layers, lowest),
            f"Similarity of layers, {name}",
        )
        for name, matrix in shown.items()
    ]  # fmt: skip
    return join(
        paragraph(text),
        estimator_table(found),
        side_by_side(*maps, divergence_figure(found)),
        layer_table(found),
        *(paragraph(note) for note in found.notes),
    )


def estimator_table(found: Comparison) -> Markup:
    """Divergence of the models by estimator, its ratio to the control, and the retention."""
    main, control = found.parts["detour_twin"], found.parts.get("control", {})
    rows = []
    for name, title in NAMES.items():
        if name not in main:
            continue
        other = control[name].model if name in control else None
        cells = [share(main[name].model), share(other), times(found.ratio.get(name))]
        rows.append(Row([title, *cells, times(found.retention.get(name))]))
    note = (
        "In percent, with 95 % intervals over texts. × control: divergence over that of the control; 1 is no more than noise. "
        "Retention: divergence after the decay over divergence before it; 1 is all of it kept."
    )
    head: list[Text] = ["Estimator", "Detour and twin", "Control", "× control", "Retention"]
    return table("Divergence of detour and twin", head, rows, note=note)


def share(found: Estimate | None) -> Cell:
    """12.3 (11.0 to 13.4)."""
    return quantity(found, 100, 1)


def times(found: Estimate | None) -> Cell:
    """1.32 (1.20 to 1.41)."""
    return quantity(found, 1, 2)


def quantity(found: Estimate | None, scale: float, decimals: int) -> Cell:
    """A number and its interval."""
    if found is None or found.value is None:
        return number(None, str)
    text = f"{scale * found.value:.{decimals}f}"
    if found.interval is None:
        return Cell(text, {"": found.value})
    low, high = (f"{scale * value:.{decimals}f}" for value in found.interval)
    ends = dict(zip(("low", "high"), found.interval, strict=True))
    return Cell(f"{text} ({low} to {high})", {"": found.value, **ends})


def divergence_figure(found: Comparison) -> Markup:
    """By layer and estimator, dashed for the control."""
    lines = []
    for part, dashed in (("detour_twin", False), ("control", True)):
        for name, title in CURVES.items():
            variant = found.parts.get(part, {}).get(name)
            if variant and len(variant.divergence) == len(found.pairs):
                label = f"{title}, control" if dashed else title
                main = name == "debiased"  # below the others, which may coincide with it
                bands = variant.intervals if main else ()
                line = Line(
                    label, variant.divergence, COLOURS[SHADES[name]], dashed, 3.2 if main else 1.4, bands
                )
                lines.append(line)
    lines.sort(key=lambda line: -line.width)
    layers = [one for one, _ in found.pairs]
    label = f"Divergence of detour and twin at {len(layers)} layers by estimator; the table has the figures."
    drawing = layer_curves("divergence", label, layers, lines, "divergence (1 − CKA)")
    caption = "From the embeddings (emb.) to the final norm. Dashed: control. Bands: 95 % intervals of the debiased curves."
    return figure(drawing, "Divergence by layer", caption)


def layer_table(found: Comparison) -> Markup:
    """The curves' numbers."""
    columns: list[tuple[str, Variant]] = []
    for name, title in CURVES.items():
        for part, suffix in (("detour_twin", ""), ("control", ", control")):
            variant = found.parts.get(part, {}).get(name)
            if variant and len(variant.divergence) == len(found.pairs):
                columns.append((title + suffix, variant))
    rows = [
        Row(
            [
                one if one == other else f"{one} / {other}",
                *(share(Estimate(variant.divergence[i], None)) for _, variant in columns),
                number(found.outliers.get(one), wording.count),
            ]
        )
        for i, (one, other) in enumerate(found.pairs)
    ]
    note = f"In percent. Outliers: how many of the {found.hidden} dimensions of the detour's layer are left out in “no outliers”."
    return table(
        "Divergence by layer", ["Layer", *(title for title, _ in columns), "Outliers"], rows, note=note
    )


def on_the_way(found: Trajectory) -> Markup:
    """How divergence builds up."""
    reference = "undecayed_twin"
    points = [point for point in found.points if reference in point.divergence]
    groups = {name: span for name, span in found.groups.items() if name != "all"}
    slots = dict(zip(groups, ("twin", "base", "detour"), strict=False))

    def paint(axes: Axes) -> None:
        for group, slot in slots.items():
            estimates = [point.divergence[reference]["debiased"][group] for point in points]
            values, low, high = zip(*map(percents, estimates), strict=True)
            tokens = [point.tokens for point in points]
            name = "{} ({} to {})".format(group, *groups[group])
            axes.plot(tokens, values, marker="o", markersize=3.5, color=COLOURS[slot], label=name)
            axes.fill_between(tokens, low, high, color=COLOURS[slot], alpha=0.15, linewidth=0)
        token_axis(axes, max(point.tokens for point in points))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("divergence, % (debiased)")
        axes.legend(fontsize=8, frameon=False, title="layers", title_fontsize=8)

    label = f"Divergence of the detour from the twin before its decay, at {len(points)} checkpoints."
    rows = [
        Row(
            [
                point.phase.rsplit(".", 1)[-1],
                number(point.tokens, wording.count),
                *(share(point.divergence[reference]["debiased"].get(group)) for group in found.groups),
            ]
        )
        for point in points
    ]
    head: list[Text] = ["Checkpoint of", "Tokens", *(f"{name} layers" for name in found.groups)]
    text = (
        "The detour's checkpoints against the twin as it was before its decay. Where the curve falls in the last phase, the decay "
        "takes back some of what training as a causal language model had changed; where it stays, the change is kept."
    )
    caption = "Bands: 95 % intervals over texts."
    drawing = figure(draw("trajectory", label, 3.1, paint), "Divergence on the way", caption)
    return join(
        heading("On the way"), paragraph(text), side_by_side(drawing),
        table("Divergence on the way", head, rows, note="Debiased, in percent, with 95 % intervals over texts; tokens since detour and twin parted."),
    )  # fmt: skip


def percents(found: Estimate) -> tuple[float, float, float]:
    """A value with its bounds; what is not known is no number."""
    low, high = found.interval or (math.nan, math.nan)
    return 100 * (math.nan if found.value is None else found.value), 100 * low, 100 * high


def weights(run: Run) -> Markup:
    """Relative change of each arm over all its phases, by layer; and of every phase, over all layers."""
    changes = run.weights
    whole = [found for found in changes if is_whole(run, found)]
    names = list(dict.fromkeys(kind for found in changes for kind in found.whole))
    rows = [
        Row([f"{found.arm}: {' to '.join(dict.fromkeys(found.phases))}", *(change(found.whole.get(name)) for name in names)])
        for found in changes
    ]  # fmt: skip
    text = "How far the weights moved: the length of the change over the length of the weights before it."
    return join(
        heading("Weights"), paragraph(text), side_by_side(weight_figure(whole)) if whole else None,
        table("Weight change", ["Arm and phases", *names], rows, note="In percent of the weights' norm, over all layers."),
    )  # fmt: skip


def is_whole(run: Run, found: WeightChange) -> bool:
    """Whether a change is that of an arm over all phases that detour and twin do not share: one that made its own weights has none."""
    shared = set(run.arms.get("detour", ())) & set(run.arms.get("twin", ()))
    own = [id.rsplit(".", 1)[-1] for id in run.arms.get(found.arm, ()) if id not in shared]
    return bool(own) and found.phases == (own[0], own[-1])


def weight_figure(whole: list[WeightChange]) -> Markup:
    """Of attention and MLP, a curve an arm."""
    layers = [layer for layer in whole[0].change if layer.isdigit()]
    lines = [
        Line(f"{found.arm}, {'MLP' if kind == 'mlp' else kind}", [found.change.get(layer, {}).get(kind) for layer in layers],
             COLOURS[found.arm if found.arm in COLOURS else "base"], kind == "mlp")
        for found in whole for kind in ("attention", "mlp")
    ]  # fmt: skip
    drawing = layer_curves(
        "weight-change", "Relative change of the weights by layer in attention and MLP; the table has it over all layers.",
        layers, lines, "change, % of the weights' norm",
    )  # fmt: skip
    return figure(drawing, "Change of the weights by layer", "Each arm over all its own phases.")


def change(value: float | None) -> Cell:
    """In percent."""
    return number(known(value), lambda found: f"{100 * found:.2f}")


def known(value: float | None) -> float | None:
    """Return a number that is one."""
    return None if value is None or not math.isfinite(value) else value


def gradients(run: Run) -> Markup:
    """How much each objective teaches on the same texts."""
    rows = [
        Row([objective_name(name), number(found.density, wording.percent), number(found.loss, wording.loss)])
        for name, found in run.gradients.items()
    ]  # fmt: skip
    text = "Measured on the model that both arms start from, on the same held-out texts: a causal step has a target at nearly every position."
    return join(
        heading("Supervision"), paragraph(text),
        table("Positions with a target", ["Objective", "Share of positions", "Loss"], rows), gradient_table(run),
    )  # fmt: skip


def gradient_table(run: Run) -> Markup:
    """A row a layer, a column an objective."""
    layers = dict.fromkeys(layer for found in run.gradients.values() for layer in found.norms)
    rows = [
        Row([layer.replace("_", " "), *(norm(found.norms.get(layer)) for found in run.gradients.values())])
        for layer in layers
    ]
    head: list[Text] = ["Layer", *map(objective_name, run.gradients)]
    note = "Length of the gradient of the mean loss over the predicted tokens, a layer's weights together."
    return table("Gradient by layer", head, rows, note=note)


def norm(value: float | None) -> Cell:
    """Three figures."""
    return number(known(value), "{:.3g}".format)


def objective_name(name: str) -> str:
    """CLM, MLM 30 %."""
    return name.replace("clm", "CLM").replace("mlm", "MLM")
