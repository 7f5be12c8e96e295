"""An audit finds what a run has memorized, and nothing where there is nothing."""

from __future__ import annotations

import pytest

from clm_detour.audit.command import audit_run
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.audit import MASKS, AuditRecord
from clm_detour.utils.errors import UserError

SETTINGS = {"rows": 60, "alternatives": 127}


@pytest.fixture(scope="module")
def record(trained) -> AuditRecord:
    return audit_run(trained, **SETTINGS)


def test_debug(record):
    for m in record.models:
        for k in MASKS:
            print(m.id, k, [(e.copies, e.read, round(e.mean, 2)) for e in record.exposures(m, k)],
                  {n: (round(x.auc, 3), x.interval, x.tpr) for n, x in m.masks[k].membership.items()}, m.members, m.non_members)
    print(record.notes, record.base)
