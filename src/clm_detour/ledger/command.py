"""Try the claims of a ledger: run what is missing, and write the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from clm_detour.config.loading import DEBUG
from clm_detour.figures.table import Row, Table
from clm_detour.figures.wording import count, counted, listing, tokens
from clm_detour.ledger.load import ScaledLedger, check_overrides, references
from clm_detour.ledger.page import write_ledger_page
from clm_detour.ledger.result import make_result, started
from clm_detour.ledger.runs import MAIN, LedgerRun, ledger_runs, result_folder
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.records.ledger import LedgerRecord
from clm_detour.records.store import write
from clm_detour.utils.errors import UserError
from clm_detour.utils.locks import claimed, locked
from clm_detour.utils.progress import say, warn
from clm_detour.utils.rules import one_of


def chosen_claims(loaded: ScaledLedger, only: Sequence[str]) -> list[str]:
    """Return the names of the claims to try: all of the scale, or those in `only`.

    Raises:
        UserError: If there is no such claim, or the scale does not try it.
    """
    for name in only:
        one_of(name, loaded.ledger.claims, "--only")
        if missing := loaded.lacks(loaded.ledger.claims[name]):
            raise UserError(
                f"--only {name}: the scale {loaded.scale_name} does not have the variant {listing(missing)}; "
                "choose another --scale."
            )
    return list(dict.fromkeys(only)) or list(loaded.claims)


def missing_runs(
    loaded: ScaledLedger, only: Sequence[str] = (), overrides: Sequence[str] = ()
) -> list[LedgerRun]:
    """Return the runs of the chosen claims that are not complete.

    Raises:
        UserError: If a recipe is wrong, or a phase was started with other settings than those of the ledger.
    """
    check_overrides([text for text in overrides if text != DEBUG], "the command line")
    names = chosen_claims(loaded, only)
    runs = ledger_runs(loaded, names, overrides)
    for run in runs:
        run.check_unchanged()
    for sentence in undecided_anyway(loaded, runs, names):
        warn(sentence)
    return [run for run in runs if not run.is_complete]


def undecided_anyway(loaded: ScaledLedger, runs: Sequence[LedgerRun], names: Sequence[str]) -> list[str]:
    """Return why some claims will stay undecided whatever their runs show, in sentences."""
    found = []
    if len(loaded.scale.seeds) == 1:
        found.append(f"The scale {loaded.scale_name} has one seed, with which every claim is undecided.")
    configs = {run.variant: run.recipe.config for run in runs}
    for name in names:
        claim = loaded.claims[name]
        section, _, key = STATISTICS[claim.statistic].needs.partition(".")
        wanted = [configs[each.variant] for each in references(claim)] if section else []
        if any(
            getattr(getattr(config, section), key) is None and not config.data.prepared for config in wanted
        ):
            found.append(
                f"claims.{name}: {claim.statistic} is not measured, since the recipe does not set "
                f"{section}.{key}; without it the claim stays undecided."
            )
    return found


def run_table(runs: Sequence[LedgerRun]) -> Table:
    """Return what is to be run: a row for each run, with the tokens of its phases that are not finished."""
    rows = [
        Row(
            [
                f"{run.variant or MAIN}/seed-{run.seed}",
                ", ".join(run.recipe.arms),
                tokens(run.tokens) if run.tokens else "scores only",
            ]
        )
        for run in runs
    ]
    rows.append(Row([counted(len(runs), "run"), "", tokens(sum(run.tokens for run in runs))], "rest"))
    return Table("Runs that are missing", ["Run", "Arms", "To train"], rows, left={1})


def reproduce(
    loaded: ScaledLedger, only: Sequence[str] = (), overrides: Sequence[str] = ()
) -> tuple[LedgerRecord, Path]:
    """Run what claims need and is missing, write the result, and return it with its folder.

    `ledger.json` and `ledger.html` hold all claims of the scale, also with `only`. A run that is interrupted
    goes on where it stopped when the ledger is tried again. Several commands on one folder, also on several
    machines, divide the runs among them.

    Args:
        only: Names of the claims whose runs are made; empty for all.
        overrides: Changes to every recipe, like those of `clm-detour run`.

    Raises:
        UserError: As `missing_runs`, or if a run fails.
    """
    missing = missing_runs(loaded, only, overrides)
    folder = result_folder(loaded, overrides)
    started(loaded, folder)
    make_runs(missing, size_warnings=DEBUG not in overrides)
    result = make_result(loaded, overrides)
    write(result, folder / "ledger.json")
    write_ledger_page(result, folder)
    return result, folder


def make_runs(runs: Sequence[LedgerRun], size_warnings: bool) -> None:
    """Make the runs on which no other command works, then wait for the others."""

    def make(place: int, run: LedgerRun) -> None:
        if not run.is_complete:  # another command may have made it
            say(f"Run {place} of {count(len(runs))}: {run.folder.root}", style="bold")
            run_one(run, size_warnings)

    elsewhere = []
    for place, run in enumerate(runs, 1):
        with claimed(run.lock) as mine:
            if mine:
                make(place, run)
            else:
                elsewhere.append((place, run))
    for place, run in elsewhere:
        with locked(run.lock, f"Another command makes {run.folder.root}"):
            make(place, run)


def run_one(run: LedgerRun, size_warnings: bool) -> None:
    """Run the recipe of a run as far as it is missing, the needle test of its arms, and the audit."""
    from clm_detour.audit.command import audit_run
    from clm_detour.report.card import write_cards
    from clm_detour.report.page import write_page
    from clm_detour.run.pipeline import run_recipe

    if not (run.is_trained and run.is_measured):
        run_recipe(run.recipe, size_warnings)
    missing: dict[str, Callable[[], object]] = {}
    if run.without_needles:
        missing["needles"] = partial(measure_needles, run)
    if run.without_audit:
        missing["audit"] = partial(audit_run, run.recipe, arms=run.audit)
    for name, measure in missing.items():
        try:
            measure()
        except UserError as error:  # for example, too little text; the claims stay undecided
            warn(f"{run.folder.root}: {name} left out. {error}")
    if missing:
        write_cards(run.folder.root)
        write_page(run.folder.root)


def measure_needles(run: LedgerRun) -> None:
    """Test the arms of a run for needles in its held-out texts, and write `analysis/needles.json`.

    Arms that other claims need are tested again, as the record is written as a whole.

    Raises:
        UserError: If there is too little text, or the tokenizer has too few whole words.
    """
    from clm_detour.analyze.needles import find_needles
    from clm_detour.analyze.texts import held_out_texts
    from clm_detour.records.needles import NeedlesRecord
    from clm_detour.records.store import parse

    wanted = run.needle_test
    texts = held_out_texts(run.recipe, 20 * max(wanted.lengths))
    arms = dict.fromkeys([*run.with_needles, *run.needles])
    models = [str(run.folder.model(arm)) for arm in arms]
    found = find_needles(models, texts, wanted.lengths, wanted.trials, run.seed)
    write(parse(NeedlesRecord, found), run.needles_record)
