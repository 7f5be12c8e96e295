"""The first screen beside its title and cards: facts, the main caveat, and sentences that explain."""

from __future__ import annotations

import math
from statistics import fmean

from clm_detour.figures import wording
from clm_detour.records.evaluation import MeanScore, Summary
from clm_detour.report.caveats import PAPER_TOKENS
from clm_detour.report.generated import is_all_generated
from clm_detour.report.outcome import STEP, task_noise
from clm_detour.report.run import Run
from clm_detour.utils.progress import human


def facts(run: Run) -> list[str]:
    """Return what ran, in a few words each; what is not known is left out."""
    return [fact for fact in (parameters(run), device(run), time(run), commit(run)) if fact]


def parameters(run: Run) -> str:
    """Return the size of the model."""
    return f"{human(run.parameters)} parameters" if run.parameters else ""


def device(run: Run) -> str:
    """Return the devices that the last phase ran on."""
    ends = [phase.end for phase in run.phases.values() if phase.end]
    if not ends:
        return ""
    if ends[-1].device != "cpu":
        return f"{ends[-1].world_size} × {ends[-1].device}"
    cores = (run.environment or {}).get("cores")
    return f"{wording.counted(cores, 'CPU core')}" if isinstance(cores, int) else "CPU"


def time(run: Run) -> str:
    """Return the wall time of all steps that were done."""
    seconds = math.fsum(step.seconds or 0.0 for step in run.steps)
    return wording.duration(seconds) if seconds else ""


def commit(run: Run) -> str:
    """Return the commit of the library."""
    found = (run.environment or {}).get("commit")
    return f"commit {found[:7]}" if isinstance(found, str) and found else ""


def main_caveat(run: Run) -> str:
    """Return what a reader must know before the numbers, in one or two sentences."""
    if not {"detour", "twin"} <= run.arms.keys():
        return ""
    synthetic = is_all_generated(run)
    trained = sum(run.planned_tokens(phase) for phase in run.own_phases("detour", "twin"))
    text = "One detour run"
    if synthetic:
        text += " on made-up (synthetic) text"
    small = 0 < trained < PAPER_TOKENS / 2
    if small:
        times = wording.count(int(float(f"{PAPER_TOKENS / trained:.2g}")))
        text += f"{',' if synthetic else ''} with {times} times fewer tokens than the paper's smallest run"
    if synthetic:
        return f"{text}. It shows that the pipeline works, not whether a detour helps."
    return f"{text}: another seed may differ{', and a result at one size need not hold at another' * small}."


def explanation(run: Run) -> list[str]:
    """Return up to three sentences on how to read the differences."""
    found = [on_task_noise(run), on_a_single_seed(run), on_loss_noise(run)]
    return [sentence for sentence in found if sentence]


def on_task_noise(run: Run) -> str:
    """Return a sentence on how far apart equal twins are on tasks, beside detour and twin."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    noise = task_noise(run)
    if not found or noise is None:
        return ""
    apart = abs(found.difference)
    than = "more than" if noise > apart else "less than" if noise < apart else "as far as"
    return (
        f"Two twins that differ only in their seed are {noise:.1f} points apart on tasks, {than} detour and "
        f"twin ({apart:.1f})."
    )


def on_a_single_seed(run: Run) -> str:
    """Return a sentence on a task whose mean goes to one model and most of whose seeds go to the other.

    It names the seed without which the mean would go to the other, too.
    """
    found = run.evaluation
    compared = found.difference("detour", "twin") if found else None
    for task in compared.tasks if compared else ():
        assert found
        for one, other in (("detour", "twin"), ("twin", "detour")):
            sentence = swayed(found, task, one, other)
            if sentence:
                return sentence
    return ""


def swayed(found: Summary, task: str, winner: str, loser: str) -> str:
    """Return the sentence if `winner` wins most seeds of a task, but has the lower mean for one seed."""
    mine, yours = (found.scores[model][task] for model in (winner, loser))
    seeds = [seed for seed in mine.seeds if seed in yours.seeds]
    won = sum(mine.seeds[seed] > yours.seeds[seed] for seed in seeds)
    if len(seeds) < 3 or 2 * won <= len(seeds) or mine.mean >= yours.mean:
        return ""
    seed = min(seeds, key=lambda each: mine.seeds[each] - yours.seeds[each])
    if mean_without(mine, seed) <= mean_without(yours, seed):
        return ""
    return (
        f"In {task} the {winner} wins on {won} of {len(seeds)} seeds; its mean is lower because of seed "
        f"{seed} ({mine.seeds[seed]:.1f})."
    )


def mean_without(score: MeanScore, seed: str) -> float:
    """Return the mean over the other seeds."""
    return fmean(value for name, value in score.seeds.items() if name != seed)


def on_loss_noise(run: Run) -> str:
    """Return a sentence on the held-out losses of detour, twin and control."""
    totals = run.held_out.totals if run.held_out else {}
    if not {"detour", "twin", "control"} <= totals.keys():
        return ""
    detour, twin, control = (totals[name].loss for name in ("detour", "twin", "control"))
    if not math.isfinite(detour + twin + control) or abs(detour - twin) < STEP:
        return ""
    losses = f"the two twins have {wording.loss(twin)} and {wording.loss(control)}"
    return f"On held-out text the detour's masked loss is {wording.loss(detour)}; {losses}."
