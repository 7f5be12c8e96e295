"""Tables of an audit, for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Callable

from clm_detour.figures import wording
from clm_detour.figures.table import Cell, Row, Table, Text
from clm_detour.records.audit import (
    BASE,
    MASKS,
    NONE,
    TWIN,
    AuditedModel,
    AuditRecord,
    Exposure,
    Mask,
    Membership,
)

REFERENCES = {NONE: "AUC, loss alone", BASE: "AUC, against the base", TWIN: "AUC, against the twin"}


def name_of(record: AuditRecord, model: AuditedModel) -> str:
    """Return what a model is called: `base`, or the first arm that ends with it or has its phase."""
    return BASE if model.id == record.base else [*model.last_of, *model.arms][0]


def exposure_table(
    record: AuditRecord, name: Callable[[AuditedModel], Text], narrow: bool = False
) -> Table | None:
    """Return the mean exposure by number of copies, or None without canaries.

    Args:
        name: Returns what a model is called.
        narrow: Leave out the spreads and shorten the heads, for a terminal of 80 columns.
    """
    if record.canaries is None:
        return None
    copies = sorted({*record.canaries.copies})
    rows = [
        Row(
            [
                name(model),
                model.phase,
                mask,
                *(exposure_cell(each, not narrow) for each in record.exposures(model, mask)),
            ]
        )
        for model in record.models
        for mask in MASKS
    ]
    each = record.canaries.copies.count(copies[0])
    mean = "mean" if narrow else "mean ± standard deviation"
    note = (
        f"Bits, {mean} over {each} sentences. Chance is {record.canaries.chance:.2f}, and "
        f"more than {record.most:.1f} cannot be measured."
    )
    wide = ("1 copy" if number == 1 else f"{number:,} copies" for number in copies)
    head: list[Text] = ["Model", "After", "Mask", *((f"{number}×" for number in copies) if narrow else wide)]
    caption = "Exposure of secrets by number of copies" if narrow else "Exposure of secrets"
    return Table(caption, head, rows, left={1, 2}, notes=[note])


def exposure_cell(found: Exposure, with_spread: bool) -> Cell:
    """Return the cell of a mean exposure."""
    if not math.isfinite(found.mean):
        return Cell(wording.ABSENT, {"": None})
    spread = f" ± {found.std:.2f}" if with_spread and found.std is not None else ""
    values = {"": found.mean, "std": found.std, "read": found.read, "canaries": found.canaries}
    return Cell(f"{found.mean:.2f}{spread}", values)


def membership_table(
    record: AuditRecord, name: Callable[[AuditedModel], Text], narrow: bool = False
) -> Table | None:
    """Return how well rows that were read are told from others, or None where it was not measured.

    Args:
        name: Returns what a model is called.
        narrow: Leave out the AUC of the loss alone, if there is another one, and the true-positive rate, and
            round, for a terminal of 80 columns.
    """
    measured = [model for model in record.models if any(mask.membership for mask in model.masks.values())]
    if not measured:
        return None
    used = {reference for model in measured for mask in model.masks.values() for reference in mask.membership}
    shown = [one for one in REFERENCES if one in used and not (narrow and one == NONE and BASE in used)]
    finder = BASE if BASE in used else NONE

    def cells(model: AuditedModel, mask: Mask) -> list[Cell]:
        found = model.masks[mask].membership
        aucs = [auc_cell(found.get(one), 2 if narrow else 3) for one in shown]
        return aucs if narrow else [*aucs, tpr_cell(found.get(finder))]

    rows = [
        Row([name(model), model.phase, mask, *cells(model, mask)]) for model in measured for mask in MASKS
    ]
    against = "against the base" if finder == BASE else "by the loss alone"
    alone = ", and the AUC of the loss alone" if finder == BASE else ""
    rate = (
        f"The last column is the share of the texts that were read which is found ({against}) where one in a "
        "thousand others is taken for one of them; it takes 1,000 held-out texts."
    )
    more = f"The page also shows the share of the texts that are found{alone}."
    note = f"In brackets: 95 % intervals. Chance is 0.5 for an AUC. {more if narrow else rate}"
    columns = [REFERENCES[one] for one in shown]
    if narrow:
        caption, columns = "Membership, AUC", [column.removeprefix("AUC, ") for column in columns]
    else:
        caption, columns = "Membership", [*columns, "Found at 0.1 %"]
    return Table(caption, ["Model", "After", "Mask", *columns], rows, left={1, 2}, notes=[note])


def auc_cell(found: Membership | None, places: int) -> Cell:
    """Return the cell of an AUC with its interval, with a number of decimals."""
    if found is None or not math.isfinite(found.auc):
        return Cell(wording.ABSENT, {"": None})
    low, high = found.interval or (None, None)
    between = "" if found.interval is None else f" [{low:.{places}f}, {high:.{places}f}]"
    return Cell(f"{found.auc:.{places}f}{between}", {"": found.auc, "low": low, "high": high})


def tpr_cell(found: Membership | None) -> Cell:
    """Return the cell of a true-positive rate with its interval."""
    if found is None or found.tpr is None or found.tpr_interval is None:
        return Cell(wording.ABSENT, {"": None})
    low, high = found.tpr_interval
    text = f"{wording.percent(found.tpr)} [{100 * low:.1f}, {100 * high:.1f}]"
    return Cell(text, {"": found.tpr, "low": low, "high": high})
