"""What weakens the comparison of detour and twin, as far as the records show it."""

from __future__ import annotations

import math

from clm_detour.report import wording
from clm_detour.report.analysis import Comparison
from clm_detour.report.arms import pairs, planned_tokens, same_rows
from clm_detour.report.evaluation import Evaluation
from clm_detour.report.records import Phase, PhaseEnd, Run, Score

PAPER_TOKENS = 11_000_000_000  # the paper's smallest run: 10B of detour and 1B of decay
SMALL = PAPER_TOKENS / 10
PAPER_TEXTS = 500  # in a sample
FEW_SEEDS = 5
COMPUTE = 1.05  # arms whose times differ by less are called equal
SETTINGS = ("schedule", "batch_tokens", "precision", "device", "world_size")

Ended = tuple[Phase, PhaseEnd, Phase, PhaseEnd]


def caveats(run: Run) -> list[str]:
    """A sentence each."""
    found = one_seed(run)
    if {"detour", "twin"} <= run.arms.keys():
        found += [*small(run), *unequal(run)]
    models = run.held_out.models if run.held_out else {}
    if {"detour", "twin"} <= models.keys():
        found += noise(models["detour"].total, models["twin"].total)
    return [*found, *of_tasks(run.evaluation), *of_texts(run.comparison)]


def one_seed(run: Run) -> list[str]:
    """A run is one seed; a second twin shows what another would change."""
    if not run.config:
        return []
    models = run.held_out.models if run.held_out else {}
    if {"detour", "twin", "control"} <= models.keys():
        detour, twin, control = (models[name].total.loss for name in ("detour", "twin", "control"))
        return [
            f"One seed ({run.config.seed}) of the detour. Two twins that differ in their seed alone (twin and control) end "
            f"{abs(twin - control):.3f} apart in held-out loss, detour and twin {abs(detour - twin):.3f}; "
            "two runs are little to judge chance by."
        ]
    return [
        f"One seed ({run.config.seed}) and no control arm: how far apart two runs of the same arm would end is not known, so a "
        "difference may be chance."
    ]


def of_tasks(found: Evaluation | None) -> list[str]:
    """Tasks that are missing, and scores with few seeds."""
    if not found:
        return []
    sentences = []
    if found.missing:
        sentences.append(
            f"{len(found.missing)} of {len(found.missing) + len(found.tasks)} tasks are missing "
            f"({wording.listing(list(found.missing))}): averages are over the others."
        )
    seeds = [score.seeds for scores in found.scores.values() for score in scores.values()]
    if seeds and min(seeds) < FEW_SEEDS:
        sentences.append(
            f"{'Tasks' if min(seeds) == max(seeds) else 'Some tasks'} were fine-tuned with {min(seeds)} {'seed' if min(seeds) == 1 else 'seeds'}, the paper's with 5 or 9: "
            "their scores are uncertain by more than a small difference."
        )
    return sentences


def of_texts(found: Comparison | None) -> list[str]:
    """Few texts, or no noise floor, for the comparison of networks."""
    if not found:
        return []
    sentences = []
    if found.texts < PAPER_TEXTS:
        sentences.append(
            f"The networks were compared on {wording.count(found.texts)} texts, where the paper's samples have "
            f"{PAPER_TEXTS}: intervals are wide."
        )
    if "control" not in found.parts:
        sentences.append(
            "No control for the comparison of networks: two seeds of one recipe may be as far apart."
        )
    return sentences


def small(run: Run) -> list[str]:
    """Far from the paper's size."""
    own = [run.phases[id] for id in run.arms["detour"] if id not in run.arms["twin"]]
    trained = sum(planned_tokens(run, phase) for phase in own)
    if trained >= SMALL:
        return []
    return [
        f"A small run: {wording.tokens(trained)} of detour and decay, where the paper's smallest run takes 11B. "
        "What holds at one size need not hold at the other."
    ]


def unequal(run: Run) -> list[str]:
    """What differs between the arms besides the objective."""
    both = pairs(run, "detour", "twin")
    ended: list[Ended] = [(one, one.end, two, two.end) for one, two in both if one.end and two.end]
    if len(ended) < len(both):
        return ["Not every phase of the two arms has ended."]
    found = []
    detour, twin = (own_tokens(run, *arms) for arms in (("detour", "twin"), ("twin", "detour")))
    if detour != twin:
        found.append(
            f"Unequal training: the detour saw {wording.count(detour)} tokens of its own, the twin "
            f"{wording.count(twin)}."
        )
    if not same_rows(run, "detour", "twin"):
        found.append("Different data: detour and twin did not read the same rows of the same mixtures.")
    return found + unequal_settings(ended) + (unequal_operations(run) or unequal_compute(ended))


def own_tokens(run: Run, arm: str, other: str) -> int:
    """Tokens that `arm` trained on beyond what it shares with `other`."""
    return sum(run.phases[id].tokens for id in run.arms[arm] if id not in run.arms[other])


def unequal_settings(ended: list[Ended]) -> list[str]:
    """Phases side by side under different settings."""
    found = []
    for one, one_end, two, two_end in ended:
        different = [name for name in SETTINGS if getattr(one_end, name) != getattr(two_end, name)]
        if different:
            words = wording.listing([name.replace("_", " ") for name in different])
            found.append(f"Phases {one.id} and {two.id} also differ in {words}.")
    return found


def unequal_compute(ended: list[Ended]) -> list[str]:
    """Equal tokens, different times."""
    detour = sum(end.seconds for _, end, _, _ in ended)
    twin = sum(end.seconds for _, _, _, end in ended)
    if max(detour, twin) <= COMPUTE * min(detour, twin):
        return []
    return [
        f"Equal tokens are not equal compute: the detour's own phases took {wording.duration(detour)}, the "
        f"twin's {wording.duration(twin)}."
    ]


def unequal_operations(run: Run) -> list[str]:
    """Equal tokens, different operations: the vocabulary is predicted at every position of a causal step."""
    own = [
        [id for id in run.arms[a] if id not in run.arms[b]]
        for a, b in (("detour", "twin"), ("twin", "detour"))
    ]
    if not all(id in run.operations for ids in own for id in ids):
        return []
    detour, twin = (sum(run.operations[id] for id in ids) for ids in own)
    if max(detour, twin) <= COMPUTE * min(detour, twin):
        return []
    return [
        f"Equal tokens are not equal compute: the detour's own phases took {detour:.2e} floating-point operations, the twin's "
        f"{twin:.2e}: {wording.percent(max(detour, twin) / max(min(detour, twin), 1) - 1, 0)} more in the one than in the other."
    ]


def noise(detour: Score, twin: Score) -> list[str]:
    """What the number of predicted tokens leaves open."""
    if detour.predicted != twin.predicted:
        return [
            f"Detour and twin were measured on {wording.count(detour.predicted)} and "
            f"{wording.count(twin.predicted)} masked tokens: not the same ones."
        ]
    if not detour.predicted:
        return []
    variance = sum(score.accuracy * (1 - score.accuracy) / score.predicted for score in (detour, twin))
    spread, difference = 2 * math.sqrt(max(variance, 0.0)), detour.accuracy - twin.accuracy
    if abs(difference) >= spread:
        return []
    return [
        f"The difference in accuracy ({wording.points(difference)} points) is within what "
        f"{wording.count(detour.predicted)} masked tokens can tell apart: two standard errors are "
        f"{100 * spread:.1f} points, taking tokens as independent and the two models as unpaired."
    ]
