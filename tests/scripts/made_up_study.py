"""The records of a study that never ran: three seeds, four arms, and the result of its ledger."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from clm_detour.records.analysis import (
    ComparedModel,
    ComparedTexts,
    ModelDivergence,
    NetworkComparison,
    Pairing,
    Quotient,
    Variant,
)
from clm_detour.records.audit import AuditedCanaries, AuditedModel, AuditRecord, AuditSettings, MaskResult
from clm_detour.records.evaluation import EvaluatedModel, Group, MeanScore, Summary, TaskRow
from clm_detour.records.ledger import ClaimResult, LedgerRecord, RunOrigin, SeedEffect, StartedLedger
from clm_detour.records.needles import NeedlesRecord
from clm_detour.records.phase import PhaseRecord, ScheduleRecord
from clm_detour.records.run import Arms, HeldOutRecord, Scores
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import write

SEEDS = (17, 42, 43)
ARMS = {
    "detour": ["clm", "clm.decay"],
    "twin": ["mlm", "mlm.decay"],
    "control": ["mlm-control", "mlm-control.decay-control"],
    "detour-low-frozen": ["clm-low", "clm-low.decay"],
}
COPIES = [0, 0, 1, 1, 4, 4, 16, 16, 64, 64]
LAYERS = ["embeddings", "0", "1", "2", "3", "4", "5", "final_norm"]
# Claim -> effect of each seed and what the ledger made of it; the unit is half a point.
EFFECTS = {
    "better-on-tasks": ([1.2, -0.4, 0.3], "undecided"),
    "above-noise": ([9.5, 11.0, 8.5], "supported"),
    "forgets-no-more": ([0.45, 0.65, 0.4], "refuted"),
    "gives-secrets-away": ([2.1, None, None], "undecided"),
    "gives-rows-away": ([None, None, None], "undecided"),
}


def make_study(folder: Path) -> Path:
    """Write the records as `clm-detour reproduce` leaves them, with some files that are not for others."""
    for seed in SEEDS:
        make_run(RunFolder(folder / "main" / f"seed-{seed}"), seed)
    content = {"scale": {"small": {"folder": "runs/study/small"}}}
    write(StartedLedger("0123456789", "2026-11-30T10:00:00+00:00", content), folder / "ledger.started.json")
    write(ledger(), folder / "ledger.json")
    return folder


def run_dir(seed: int) -> str:
    """Return the folder of a run as its records call it."""
    return f"runs/study/small/main/seed-{seed}"


def make_run(folder: RunFolder, seed: int) -> None:
    """Write the records of a run."""
    folder.root.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump({"run_dir": run_dir(seed), "data": {"root": "/a/place"}}))
    (folder.root / "models" / "detour").mkdir(parents=True)
    (folder.root / "models" / "detour" / "model.safetensors").write_bytes(bytes(1000))
    write(ARMS, folder.arms, Arms)
    folder.environment.write_text(json.dumps({"cpu": "made up", "cores": 2}))
    folder.steps.write_text("[]")
    for id in sorted({id for ids in ARMS.values() for id in ids}):
        make_phase(folder, id)
    write(held_out(seed), folder.held_out)
    (folder.held_out.parent / "fill_mask.json").write_text('[{"text": "words of a document"}]')
    make_tasks(folder, seed)
    write(comparison(seed), folder.comparison)
    write(needles(seed), folder.analysis / "needles.json")
    write(audit(seed), folder.analysis / "audit.json")


def make_phase(folder: RunFolder, id: str) -> None:
    """Write the record of a phase, and a line of metrics for each step."""
    phase, tokens = folder.phase(id), 200_000 if "." in id else 2_000_000
    phase.root.mkdir(parents=True)
    made = PhaseRecord(
        id=id, objective="mlm", mask_rate=0.3, mixture="domain", schedule=ScheduleRecord("constant", 1e-3),
        steps=250, tokens=tokens, batch_tokens=4096, first_row=0, next_row=1, shares={}, seconds=1.0,
        world_size=1, device="cpu", precision="bf16",
    )  # fmt: skip
    write(made, phase.record)
    lines = [json.dumps({"step": step, "tokens": step, "loss": 5 - step / 100}) for step in range(1, 251)]
    phase.metrics.write_text("\n".join([*lines, '{"step": 25']))  # killed while it wrote


def held_out(seed: int) -> HeldOutRecord:
    """Return losses that differ a little by seed."""
    shift = 0.01 * SEEDS.index(seed)

    def scores(loss: float) -> Scores:
        return Scores(loss=loss + shift, accuracy=0.4, predicted=100)

    ends = {"detour": 2.86, "twin": 2.65, "control": 2.66, "detour-low-frozen": 2.91}
    phases = {"clm": 6.4, "mlm": 2.9, "mlm-control": 2.91, "clm-low": 6.1}
    phases |= {ARMS[arm][-1]: loss for arm, loss in ends.items()}
    general = {arm: scores(loss + 0.3) for arm, loss in ends.items()}
    return HeldOutRecord(
        0.15,
        {arm: scores(loss) for arm, loss in {"base": 3.4, **ends}.items()},
        {id: scores(loss) for id, loss in phases.items()},
        general=HeldOutRecord(0.15, general, {}),
    )


def make_tasks(folder: RunFolder, seed: int) -> None:
    """Write the summary of the tasks, and the record of each run of fine-tuning."""
    means = {arm: 70.0 + place + 0.1 * SEEDS.index(seed) for place, arm in enumerate(["base", *ARMS])}
    scores = {arm: {"GAD": MeanScore(seeds={"42": mean}, mean=mean, std=None, interval=None)}
              for arm, mean in means.items()}  # fmt: skip
    averages = {arm: MeanScore(mean=mean, std=None, interval=None) for arm, mean in means.items()}
    summary = Summary(
        models=[EvaluatedModel(arm, f"{run_dir(seed)}/models/{arm}") for arm in means],
        tasks=[TaskRow("GAD", "en", "single_label", "positive_f1", 100)],
        scores=scores, groups=[Group("all", ["GAD"], 1, averages)], comparisons=[], published={}, missing=[],
    )  # fmt: skip
    folder.tasks.mkdir(parents=True)
    write(summary, folder.tasks / "summary.json")
    for arm in means:
        task = folder.tasks / arm / "GAD"
        task.mkdir(parents=True)
        (task / "42.json").write_text(
            json.dumps({"model": arm, "path": f"{run_dir(seed)}/models/{arm}", "score": 0.7})
        )
        (task / "42.predictions.jsonl").write_text('{"annotation": "words of a document"}\n')


def comparison(seed: int) -> NetworkComparison:
    """Return divergences that are larger for detour and twin, most in low layers."""
    shift = 1 + 0.1 * SEEDS.index(seed)
    high = [shift * value for value in (0.02, 0.21, 0.24, 0.2, 0.16, 0.13, 0.12, 0.11)]
    low = [shift * value for value in (0.004, 0.02, 0.03, 0.04, 0.045, 0.05, 0.05, 0.04)]

    def pairing(models: list[str], values: list[float]) -> Pairing:
        mean = ModelDivergence(sum(values[1:-1]) / 6, None)
        variant = Variant(matrix=None, divergence=values, interval=None, model=mean)
        return Pairing(models, [(name, name) for name in LAYERS], {"debiased": variant})

    def model(arm: str) -> ComparedModel:
        return ComparedModel(path=f"{run_dir(seed)}/models/{arm}", layers=LAYERS, hidden=192)

    return NetworkComparison(
        models={"a": model("detour"), "b": model("twin"), "control": model("control")},
        texts=ComparedTexts(distinct=100, samples=1, per_sample=100, overlap=False),
        comparisons={"detour_twin": pairing(["a", "b"], high), "control": pairing(["b", "control"], low)},
        ratio={"debiased": Quotient(model=4.5, interval=None)},
        retention=None,
        notes=[],
    )


def needles(seed: int) -> NeedlesRecord:
    """Return shares of needles found, by the folders of the models."""
    models = [f"{run_dir(seed)}/models/{arm}" for arm in ARMS]
    return NeedlesRecord(
        models=models, lengths=[128, 512], positions=[0.0, 1.0], trials=10, candidates=10,
        accuracy={path: [[0.3, 0.4], [0.2, 0.3]] for path in models}, chance=0.1,
        control={path: [0.1, 0.1] for path in models},
    )  # fmt: skip


def audit(seed: int) -> AuditRecord:
    """Return exposures that rise with copies, more under the mask of the phase."""
    slopes = {"detour": 1.1, "twin": 0.8, "control": 0.82, "detour-low-frozen": 0.9}

    def result(slope: float, offset: float) -> MaskResult:
        found = [1.44 + offset + slope * copies**0.5 for copies in COPIES]
        return MaskResult(ranks=[1.0] * len(COPIES), exposures=found)

    def masks(slope: float) -> dict[str, MaskResult]:
        shift = 0.1 * SEEDS.index(seed)
        return {"bidirectional": result(slope, shift), "causal": result(slope / 2, shift)}

    models = [
        AuditedModel(id=ARMS[arm][-1], arms=[arm], last_of=[arm], copies_read=COPIES, masks=masks(slope))
        for arm, slope in slopes.items()
    ]
    return AuditRecord(
        settings=AuditSettings(
            rows=1, tokens=1, alternatives=1, mask_rate=0.15, passes=1, precision="fp32", seed=1
        ),
        canaries=AuditedCanaries(source="notes", copies=COPIES, chance=1.44),
        base="base",
        models=[
            AuditedModel(id="base", arms=[*ARMS], copies_read=[0] * len(COPIES), masks=masks(0.0)),
            *models,
        ],
    )


def ledger() -> LedgerRecord:
    """Return verdicts on claims with three seeds, with one and with none."""
    return LedgerRecord(
        name="A made-up study", scale="small", hash="0123456789", hash_at_start="0123456789",
        date="2026-11-30T12:00:00+00:00",
        claims={name: claim(name, effects, verdict) for name, (effects, verdict) in EFFECTS.items()},
        not_tried={},
        runs=[RunOrigin(folder=run_dir(seed), variant="", seed=seed, arms=[*ARMS], config=None, data={},
                        environment={}) for seed in SEEDS],
        commit=None, versions={},
    )  # fmt: skip


def claim(name: str, effects: list[float | None], verdict: str) -> ClaimResult:
    """Return a claim; its interval is one point on each side of the mean if there are several seeds."""
    known = [effect for effect in effects if effect is not None]
    mean = sum(known) / len(known) if known else None
    several = mean is not None and len(known) > 1
    return ClaimResult(
        claim=f"The claim {name}.", source="Made up.", statistic="task_score", title="score", unit="points",
        better="higher", of=["detour"], against=["twin"],
        expect="not_more" if name == "forgets-no-more" else "more", smallest=0.5, equivalence=0.5,
        refuted_if="there is none.", verdict=verdict,
        reason="It was not measured." if mean is None else "Made up.",
        seeds={str(seed): SeedEffect(values={"detour": effect, "twin": 0.0}, effect=effect)
               for seed, effect in zip(SEEDS, effects, strict=True)},
        effect=mean, interval=(mean - 1, mean + 1) if several else None, deviation=0.4 if several else None,
        more_seeds=24 if several and verdict == "undecided" else None,
    )  # fmt: skip
