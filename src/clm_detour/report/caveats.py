"""What weakens the comparison of detour and twin, as far as the records show it."""

from __future__ import annotations

import math

from clm_detour.evaluate.statistics import FEWEST_TASKS
from clm_detour.report import wording
from clm_detour.report.analysis import Comparison
from clm_detour.report.arms import pairs, planned_tokens, same_rows
from clm_detour.report.evaluation import Evaluation
from clm_detour.report.generated import generated_sources, generated_tasks, is_all_generated
from clm_detour.report.judged import task_noise
from clm_detour.report.records import HeldOut, Phase, PhaseEnd, Run, Score

PAPER_TOKENS = 11_000_000_000  # the paper's smallest run: 10B of detour and 1B of decay
SMALL = PAPER_TOKENS / 10
PAPER_TEXTS = 500  # in a sample
FEW_SEEDS = 5
FEW_TEST_TEXTS = 100
COMPUTE = 1.05  # arms whose times differ by less are called equal
SETTINGS = ("schedule", "batch_tokens", "precision", "device", "world_size")

Ended = tuple[Phase, PhaseEnd, Phase, PhaseEnd]


def caveats(run: Run) -> list[str]:
    """A sentence each."""
    found = [*of_generated_text(run), *one_seed(run)]
    if {"detour", "twin"} <= run.arms.keys():
        found += [*small(run), *unequal(run)]
    if run.held_out:
        found += without_held_out_text(run.held_out)
        if {"detour", "twin"} <= run.held_out.totals.keys():
            found += noise(run.held_out.totals["detour"], run.held_out.totals["twin"])
    return [*found, *of_tasks(run.evaluation), *of_texts(run.comparison)]


def of_generated_text(run: Run) -> list[str]:
    """Text and tasks that no person wrote."""
    sources, tasks = generated_sources(run), generated_tasks(run)
    found = []
    if sources:
        which = "The text of this run" if is_all_generated(run) else f"The text of {wording.listing(sources)}"
        found.append(
            f"{which} is generated (synthetic), written by the bundled sample's program: a result on it shows that everything works, not "
            "whether a detour helps on real text."
        )
    if tasks:
        verb = "is" if len(tasks) == 1 else "are"
        found.append(f"{wording.listing(tasks)} {verb} generated too.")
    return found


def without_held_out_text(held_out: HeldOut) -> list[str]:
    """What was not measured."""
    if not held_out.totals:
        return [
            "No text was held out of training, so no held-out loss was measured; a larger data.held_out keeps some."
        ]
    if not held_out.unmeasured:
        return []
    names = wording.listing(held_out.unmeasured)
    return [
        f"No text of {names} was held out of training, so nothing is measured on it; a larger data.held_out keeps some."
    ]


def one_seed(run: Run) -> list[str]:
    """A run is one seed; a second twin shows what another would change."""
    if not run.config:
        return []
    loss = loss_apart(run)
    apart = [*loss, *tasks_apart(run)]
    if apart:
        unknown = "" if loss else " In held-out loss they were not both measured, so it is undecided."
        return [
            f"One seed ({run.config.seed}) of the detour. Two twins that differ in their seed alone (twin and control) end "
            f"{wording.listing(apart)}; two runs are little to judge chance by.{unknown}"
        ]
    return [
        f"One seed ({run.config.seed}) and no control arm that was measured: how far apart two runs of the same arm would end is not "
        "known, so a difference may be chance, and held-out loss is undecided."
    ]


def loss_apart(run: Run) -> list[str]:
    """How far the twins are apart in held-out loss, beside detour and twin."""
    totals = run.held_out.totals if run.held_out else {}
    if not {"detour", "twin", "control"} <= totals.keys():
        return []
    detour, twin, control = (totals[name].loss for name in ("detour", "twin", "control"))
    if not math.isfinite(detour + twin + control):
        return []
    return [f"{abs(twin - control):.3f} apart in held-out loss (detour and twin {abs(detour - twin):.3f})"]


def tasks_apart(run: Run) -> list[str]:
    """How far the twins are apart on tasks, beside detour and twin."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    noise = task_noise(run)
    if not found or noise is None:
        return []
    return [f"{noise:.2f} points apart on tasks (detour and twin {abs(found.value):.2f})"]


def of_tasks(found: Evaluation | None) -> list[str]:
    """Tasks that are missing, and scores with few seeds or of few test texts."""
    if not found:
        return []
    sentences = []
    if found.missing:
        sentences.append(
            f"{len(found.missing)} of {wording.counted(len(found.missing) + len(found.tasks), 'task')} "
            f"{'is' if len(found.missing) == 1 else 'are'} missing "
            f"({wording.listing(list(found.missing))}): averages are over the others."
        )
    seeds = [score.seeds for scores in found.scores.values() for score in scores.values()]
    if seeds and min(seeds) < FEW_SEEDS:
        sentences.append(
            f"{'Tasks' if min(seeds) == max(seeds) else 'Some tasks'} were fine-tuned with {min(seeds)} {'seed' if min(seeds) == 1 else 'seeds'}, the paper's with 5 or 9: "
            "their scores are uncertain by more than a small difference."
        )
    few = [f"{task.name} ({task.documents})" for task in found.tasks if task.documents < FEW_TEST_TEXTS]
    if few:
        sentences.append(
            f"Scores of fewer than {FEW_TEST_TEXTS} test texts: {wording.listing(few)}. Other texts may change them by more than a small "
            "difference, and intervals over seeds do not show that."
        )
    if 0 < len(found.tasks) < FEWEST_TASKS:
        sentences.append(
            f"{wording.counted(len(found.tasks), 'task')}, fewer than {FEWEST_TASKS}: there is no test over tasks, and intervals over seeds speak of "
            "these tasks only."
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
    variance = sum(score.accuracy * (1 - score.accuracy) / score.predicted for score in (detour, twin))
    spread, difference = 2 * math.sqrt(max(variance, 0.0)), detour.accuracy - twin.accuracy
    if abs(difference) >= spread:
        return []
    return [
        f"The difference in accuracy ({wording.points(difference)} points) is within what "
        f"{wording.count(detour.predicted)} masked tokens can tell apart: two standard errors are "
        f"{100 * spread:.1f} points, taking tokens as independent and the two models as unpaired."
    ]
