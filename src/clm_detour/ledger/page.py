"""Show the result of a ledger: as a table at 80 columns, and as a page of HTML that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import rich.table
from markupsafe import Markup

from clm_detour.figures import interactive
from clm_detour.figures.renderers import html, html_templates
from clm_detour.figures.table import Cell, Row, Table, number
from clm_detour.figures.wording import counted, signed
from clm_detour.ledger.figure import claims_plot, csv_of, decimals, label_of, shown_effect, unmeasured
from clm_detour.ledger.verdict import CONFIDENCE
from clm_detour.records.ledger import ClaimResult, LedgerRecord
from clm_detour.report import page as report_page
from clm_detour.report.markup import figure
from clm_detour.utils.files import atomic_write

LEVEL = 50 * (1 - CONFIDENCE)  # percent, of each one-sided test
TAGS = {"supported": "better", "refuted": "worse", "undecided": ""}  # classes of the style sheet
EXPECTED = {
    "more": "The effect is above zero.",
    "less": "The effect is below zero.",
    "equal": "The effect is within ±{bound}.",
    "not_less": "The effect is above −{bound}.",
    "not_more": "The effect is below {bound}.",
}


def terminal_table(result: LedgerRecord, names: list[str]) -> rich.table.Table:
    """Return the verdicts on some claims for a terminal of 80 columns or more."""
    made = rich.table.Table(title=f"{result.name}, scale {result.scale}", box=None, pad_edge=False)
    made.add_column("Claim", ratio=4, overflow="fold")
    made.add_column("Verdict", ratio=3)
    made.add_column("Effect", ratio=4, justify="right")
    made.add_column("Unit", no_wrap=True)
    for name in names:
        claim = result.claims[name]
        made.add_row(name, claim.words, shown_effect(claim), claim.unit)
    return made


def notes(result: LedgerRecord) -> list[str]:
    """Return what a reader of the verdicts should know, in sentences."""
    seeds = max((len(claim.seeds) for claim in result.claims.values()), default=0)
    found = [
        f"Effects are means over {counted(seeds, 'paired seed')}, as far as measured, with 95 % t intervals.",
        "Each verdict is for its claim alone: a claim that does not hold is called supported with a chance "
        f"of up to {LEVEL:g} %, and there are {counted(len(result.claims), 'claim')}.",
    ]
    if result.changes:
        found.append(
            f"The ledger was changed after its first run: {' '.join(result.changes)} A verdict under a "
            "changed rule is not one that was planned."
        )
    if result.not_tried:
        found.append(f"Not tried at this scale: {', '.join(result.not_tried)}.")
    return found


def write_ledger_page(result: LedgerRecord, folder: Path) -> Path:
    """Write `ledger.html` and, with the values of its figure, `ledger.csv`; return the path of the page."""
    path = folder / "ledger.html"
    with atomic_write(path, "w") as file:
        file.write(page_text(result))
    with atomic_write(folder / "ledger.csv", "w") as file:
        file.write(csv_of(result))
    return path


def page_text(result: LedgerRecord) -> str:
    """Return the page."""
    rows = [
        Row([link(name, claim), claim.words, shown_effect(claim), claim.unit])
        for name, claim in result.claims.items()
    ]
    style = Path(report_page.__file__).with_name("page.css").read_text(encoding="utf-8")
    template = html_templates(Path(__file__).parent).get_template("page.html")
    plot = claims_plot(result)
    return template.render(
        title=f"Ledger: {result.name}",
        result=result,
        style=interactive.style() + Markup(style),
        charts=interactive.bundle() if plot else "",
        picture=figure("claims", plot, label_of(result), "Effects of the claims") if plot else "",
        unmeasured=unmeasured(result),
        verdicts=html(Table("Verdicts", ["Claim", "Verdict", "Effect", "Unit"], rows, left={1})),
        counts={
            verdict: sum(claim.verdict == verdict for claim in result.claims.values()) for verdict in TAGS
        },
        notes=notes(result),
        claims={name: (claim, TAGS[claim.verdict], facts(claim)) for name, claim in result.claims.items()},
        seeds={name: html(seed_table(claim)) for name, claim in result.claims.items()},
        effects={name: shown_effect(claim) for name, claim in result.claims.items()},
    )


def link(name: str, claim: ClaimResult) -> Markup:
    """Return the sentence of a claim as a link to what the page says about it."""
    return Markup('<a class="long" href="#{}">{}</a>').format(name, claim.claim)


def facts(claim: ClaimResult) -> list[str]:
    """Return what was compared, and the rule, in sentences."""
    against = claim.against if isinstance(claim.against, list) else [f"{claim.against:g}"]
    direction = f" ({claim.better} is better)" if claim.better else ""
    expected = EXPECTED[claim.expect].format(bound=f"{claim.equivalence:g} {claim.unit}")
    return [
        f"Effect: {claim.title} in {claim.unit}{direction}, of {' + '.join(claim.of)} minus "
        f"{' − '.join(against)}.",
        f"Expected: {expected} The smallest effect of interest is {claim.smallest:g} {claim.unit}, and "
        f"effects within ±{claim.equivalence:g} {claim.unit} count as none.",
        f"Refuted if: {claim.refuted_if}",
        f"Source: {claim.source}",
    ]


def seed_table(claim: ClaimResult) -> Table:
    """Return the values of each seed."""
    places = decimals(claim)
    arms = list(next(iter(claim.seeds.values())).values)

    def cell(value: float | None) -> Cell:
        return number(value, lambda found: f"{found:.{places}f}", claim.unit)

    rows = [
        Row(
            [
                seed,
                *(cell(each.values[arm]) for arm in arms),
                number(each.effect, lambda found: signed(found, places), claim.unit),
            ]
        )
        for seed, each in claim.seeds.items()
    ]
    return Table("By seed", ["Seed", *arms, "Effect"], rows)
