"""Ledgers on a tiny recipe, and made-up records of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from clm_detour.ledger.load import ScaledLedger, load_ledger
from clm_detour.records.run import Arms, HeldOutRecord, Scores
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import write

LEDGER = """
name: A test
scales:
  tiny:
    recipe: {recipe}
    folder: {folder}
    seeds: [1, 2, 3]
    overrides: [evaluate.tasks=null, evaluate.general=null, evaluate.fill_masks=0]
    values: {{low: "0"}}
    variants: {{dropout: [model.attention_output_dropout=0.1]}}
  other: {{recipe: quickstart, folder: {folder}-other, seeds: [5], values: {{low: 0-1}}}}
arms:
  detour: {{of: detour}}
  twin: {{of: twin}}
  twin-15: {{of: twin, phases: {{mlm: {{mask_rate: 0.15}}}}}}
  twin-reset: {{of: twin, phases: {{mlm: {{mask_rate: 0.15}}, decay: {{reset_head: true}}}}}}
  low-frozen: {{of: detour, phases: {{clm: {{freeze: {{layers: "${{values.low}}"}}}}}}}}
claims:
  lower-loss:
    claim: The detour has a lower loss than its twin.
    source: Made up.
    statistic: held_out_loss
    of: detour
    against: twin
    expect: less
    smallest: 0.1
    equivalence: 0.05
    refuted_if: the loss is as high.
  with-dropout:
    claim: The same with dropout.
    source: Made up.
    statistic: held_out_loss
    of: dropout/detour
    against: dropout/twin
    expect: less
    smallest: 0.1
    equivalence: 0.05
    refuted_if: the loss is as high.
  frozen:
    claim: Low layers do not matter.
    source: Made up.
    statistic: held_out_loss
    of: low-frozen
    against: detour
    expect: equal
    smallest: 0.1
    equivalence: 0.05
    refuted_if: the loss is higher.
"""


@pytest.fixture
def ledger_file(tiny_recipe, tmp_path) -> Path:
    """A ledger on the tiny recipe, with two scales."""
    path = tmp_path / "ledger.yaml"
    path.write_text(LEDGER.format(recipe=tiny_recipe(tmp_path / "recipe"), folder=tmp_path / "runs"))
    return path


@pytest.fixture
def loaded(ledger_file) -> ScaledLedger:
    """The ledger at its first scale."""
    return load_ledger(ledger_file)


@pytest.fixture
def made_up(tmp_path) -> Callable[[str, int, Mapping[str, float]], RunFolder]:
    """A function that writes the held-out losses of the arms of a run that never ran."""

    def make(variant: str, seed: int, losses: Mapping[str, float]) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / variant / f"seed-{seed}")
        folder.held_out.parent.mkdir(parents=True)
        write({arm: [arm] for arm in losses}, folder.arms, Arms)
        scores = {arm: Scores(loss=loss, accuracy=0.5, predicted=10) for arm, loss in losses.items()}
        write(HeldOutRecord(0.15, scores, {}), folder.held_out)
        return folder

    return make
