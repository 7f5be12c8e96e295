"""Caveats of the comparison of detour and twin that follow from the records."""

from __future__ import annotations

import math

from clm_detour.evaluate.statistics import FEWEST_TASKS
from clm_detour.figures import wording
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.evaluation import Summary
from clm_detour.records.phase import PhaseRecord
from clm_detour.records.run import HeldOutRecord, Score
from clm_detour.report.generated import generated_sources, generated_tasks, is_all_generated
from clm_detour.report.outcome import task_noise
from clm_detour.report.run import Phase, Run

PAPER_TOKENS = 11_000_000_000  # the paper's smallest run: 10B of detour and 1B of decay
SMALL = PAPER_TOKENS / 10
PAPER_TEXTS = 500  # in a sample
FEW_SEEDS = 5
FEW_TEST_TEXTS = 100
COMPUTE = 1.05  # arms whose times or operations differ by a smaller factor are called equal
SETTINGS = ("schedule", "batch_tokens", "precision", "device", "world_size")

Ended = tuple[Phase, PhaseRecord, Phase, PhaseRecord]


def caveats(run: Run) -> list[str]:
    """Return a sentence for each caveat."""
    found = [*of_generated_text(run), *one_seed(run)]
    if {"detour", "twin"} <= run.arms.keys():
        found += [*small(run), *unequal(run)]
    if run.held_out:
        found += without_held_out_text(run.held_out)
        if {"detour", "twin"} <= run.held_out.totals.keys():
            found += noise(run.held_out.totals["detour"], run.held_out.totals["twin"])
    return [*found, *of_tasks(run.evaluation), *of_texts(run.comparison)]


def of_generated_text(run: Run) -> list[str]:
    """Return sentences on text and tasks that a program wrote."""
    sources, tasks = generated_sources(run), generated_tasks(run)
    found = []
    if sources:
        which = "The text of this run" if is_all_generated(run) else f"The text of {wording.listing(sources)}"
        found.append(
            f"{which} is generated (synthetic), written by the program of the bundled sample. A result on it "
            "shows that everything works, but not whether a detour helps on real text."
        )
    if tasks:
        verb = "is" if len(tasks) == 1 else "are"
        found.append(f"{wording.listing(tasks)} {verb} generated, too.")
    return found


def without_held_out_text(held_out: HeldOutRecord) -> list[str]:
    """Return a sentence on the sources that were not measured."""
    if not held_out.totals:
        return [
            "No text was held out of training, so no held-out loss was measured; a larger data.held_out "
            "keeps some."
        ]
    if not held_out.unmeasured:
        return []
    names = wording.listing(held_out.unmeasured)
    return [
        f"No text of {names} was held out of training, so nothing is measured on it; a larger data.held_out "
        "keeps some."
    ]


def one_seed(run: Run) -> list[str]:
    """Return a sentence on chance: a run has one seed, and a second twin shows what another would change."""
    if not run.config:
        return []
    loss = loss_apart(run)
    apart = [*loss, *tasks_apart(run)]
    if apart:
        unknown = (
            "" if loss else " They were not both measured in held-out loss, so held-out loss is undecided."
        )
        return [
            f"One seed ({run.config.seed}) of the detour. Two twins that differ only in their seed (twin and "
            f"control) end {wording.listing(apart)}; two runs are few to judge chance by.{unknown}"
        ]
    return [
        f"One seed ({run.config.seed}) and no control arm that was measured. It is not known how far apart "
        "two runs of the same arm would end, so a difference may be chance, and held-out loss is undecided."
    ]


def loss_apart(run: Run) -> list[str]:
    """Return how far apart the twins are in held-out loss, with detour and twin."""
    totals = run.held_out.totals if run.held_out else {}
    if not {"detour", "twin", "control"} <= totals.keys():
        return []
    detour, twin, control = (totals[name].loss for name in ("detour", "twin", "control"))
    if not math.isfinite(detour + twin + control):
        return []
    return [f"{abs(twin - control):.3f} apart in held-out loss (detour and twin {abs(detour - twin):.3f})"]


def tasks_apart(run: Run) -> list[str]:
    """Return how far apart the twins are on tasks, with detour and twin."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    noise = task_noise(run)
    if not found or noise is None:
        return []
    return [f"{noise:.2f} points apart on tasks (detour and twin {abs(found.difference):.2f})"]


def of_tasks(found: Summary | None) -> list[str]:
    """Return sentences on missing tasks, few seeds, few test texts and few tasks."""
    if not found:
        return []
    sentences = []
    missing = [row.task for row in found.missing]
    if missing:
        sentences.append(
            f"{len(missing)} of {wording.counted(len(missing) + len(found.tasks), 'task')} "
            f"{'is' if len(missing) == 1 else 'are'} missing ({wording.listing(missing)}): averages are over "
            "the others."
        )
    seeds = [len(score.seeds) for scores in found.scores.values() for score in scores.values()]
    if seeds and min(seeds) < FEW_SEEDS:
        sentences.append(
            f"{'Tasks' if min(seeds) == max(seeds) else 'Some tasks'} were fine-tuned with "
            f"{wording.counted(min(seeds), 'seed')}, the paper's with 5 or 9. A small difference is within "
            "the uncertainty of their scores."
        )
    few = [f"{task.name} ({task.n})" for task in found.tasks if task.n < FEW_TEST_TEXTS]
    if few:
        sentences.append(
            f"Scores of fewer than {FEW_TEST_TEXTS} test texts: {wording.listing(few)}. Other texts may "
            "change them by more than a small difference, and intervals over seeds do not show that."
        )
    if 0 < len(found.tasks) < FEWEST_TASKS:
        sentences.append(
            f"{wording.counted(len(found.tasks), 'task')}, fewer than {FEWEST_TASKS}: there is no test over "
            "tasks, and intervals over seeds are about these tasks only."
        )
    return sentences


def of_texts(found: NetworkComparison | None) -> list[str]:
    """Return sentences on few texts, or no control, in the comparison of networks."""
    if not found:
        return []
    sentences = []
    if found.texts.distinct < PAPER_TEXTS:
        sentences.append(
            f"The networks were compared on {wording.count(found.texts.distinct)} texts, where the paper's "
            f"samples have {PAPER_TEXTS}: intervals are wide."
        )
    if "control" not in found.comparisons:
        sentences.append(
            "No control for the comparison of networks: two seeds of one recipe may be as far apart."
        )
    return sentences


def small(run: Run) -> list[str]:
    """Return a sentence if the run is far from the paper's size."""
    trained = sum(run.planned_tokens(phase) for phase in run.own_phases("detour", "twin"))
    if trained >= SMALL:
        return []
    return [
        f"A small run: {wording.tokens(trained)} of detour and decay, where the paper's smallest run takes "
        "11B. A result at one size need not hold at the other."
    ]


def unequal(run: Run) -> list[str]:
    """Return sentences on what differs between the arms besides the objective."""
    both = run.pairs("detour", "twin")
    ended: list[Ended] = [(one, one.end, two, two.end) for one, two in both if one.end and two.end]
    if len(ended) < len(both):
        return ["Not every phase of the two arms has ended."]
    found = []
    arms = (("detour", "twin"), ("twin", "detour"))
    detour, twin = (sum(phase.tokens for phase in run.own_phases(*pair)) for pair in arms)
    if detour != twin:
        found.append(
            f"Unequal training: the detour saw {wording.count(detour)} tokens of its own, the twin "
            f"{wording.count(twin)}."
        )
    if not run.same_rows("detour", "twin"):
        found.append("Different data: detour and twin did not read the same rows of the same mixtures.")
    return found + unequal_settings(ended) + (unequal_operations(run) or unequal_times(ended))


def unequal_settings(ended: list[Ended]) -> list[str]:
    """Return a sentence for each two phases side by side that had different settings."""
    found = []
    for one, one_end, two, two_end in ended:
        different = [name for name in SETTINGS if getattr(one_end, name) != getattr(two_end, name)]
        if different:
            words = wording.listing([name.replace("_", " ") for name in different])
            found.append(f"Phases {one.id} and {two.id} also differ in {words}.")
    return found


def unequal_times(ended: list[Ended]) -> list[str]:
    """Return a sentence if equal tokens took different times."""
    detour = sum(end.seconds for _, end, _, _ in ended)
    twin = sum(end.seconds for _, _, _, end in ended)
    if max(detour, twin) <= COMPUTE * min(detour, twin):
        return []
    return [
        f"Equal tokens are not equal compute: the detour's own phases took {wording.duration(detour)}, the "
        f"twin's {wording.duration(twin)}."
    ]


def unequal_operations(run: Run) -> list[str]:
    """Return a sentence if equal tokens took different operations.

    They do, since a causal step predicts a token of the vocabulary at every position.
    """
    own = [run.own_phases(*pair) for pair in (("detour", "twin"), ("twin", "detour"))]
    if not all(phase.id in run.operations for phases in own for phase in phases):
        return []
    detour, twin = (sum(run.operations[phase.id] for phase in phases) for phases in own)
    if max(detour, twin) <= COMPUTE * min(detour, twin):
        return []
    return [
        f"Equal tokens are not equal compute: the detour's own phases took {detour:.2e} floating-point "
        f"operations, the twin's {twin:.2e}: "
        f"{wording.percent(max(detour, twin) / max(min(detour, twin), 1) - 1, 0)} more in the one than in "
        "the other."
    ]


def noise(detour: Score, twin: Score) -> list[str]:
    """Return a sentence if the number of predicted tokens is too small for the difference in accuracy."""
    if detour.predicted != twin.predicted:
        return [
            f"Detour and twin were measured on {wording.count(detour.predicted)} and "
            f"{wording.count(twin.predicted)} masked tokens: not on the same ones."
        ]
    variance = sum(score.accuracy * (1 - score.accuracy) / score.predicted for score in (detour, twin))
    spread, difference = 2 * math.sqrt(max(variance, 0.0)), detour.accuracy - twin.accuracy
    if abs(difference) >= spread:
        return []
    return [
        f"The difference in accuracy ({wording.points(difference)} points) is too small for "
        f"{wording.count(detour.predicted)} masked tokens to tell it from chance: two standard errors are "
        f"{100 * spread:.1f} points, if tokens are taken as independent and the two models as unpaired."
    ]
