"""The paths of the files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The paths below `run_dir`."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions and hardware."""
        return self.root / "environment.json"

    @property
    def steps(self) -> Path:
        """The steps of the recipe and their times: `list[records.run.StepRecord]`."""
        return self.root / "steps.json"

    @property
    def arms(self) -> Path:
        """The ids of each arm's phases: `records.run.Arms`."""
        return self.root / "arms.json"

    @property
    def sample(self) -> Path:
        """The bundled corpus."""
        return self.root / "sample"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that the run trained."""
        return self.root / "tokenizer"

    @property
    def extended_tokenizer(self) -> Path:
        """The tokenizer with the tokens that the run added."""
        return self.root / "extended_tokenizer"

    @property
    def start(self) -> Path:
        """The Hugging Face folder of `model.base` with embeddings for the tokens that the run added."""
        return self.root / "start"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's files, a folder for each phase."""
        return self.root / "tensorboard"

    @property
    def logged_scores(self) -> Path:
        """The scores that the loggers of `train.loggers` have received, by phase."""
        return self.root / "evaluation" / "logged_scores.json"

    @property
    def held_out(self) -> Path:
        """Scores on held-out text: `records.run.HeldOutRecord`."""
        return self.root / "evaluation" / "held_out.json"

    @property
    def fill_masks(self) -> Path:
        """Filled masks: `list[records.run.FilledMask]`."""
        return self.root / "evaluation" / "fill_mask.json"

    @property
    def tasks(self) -> Path:
        """The evaluation on tasks: runs, summary.json (`records.evaluation.Summary`), tables."""
        return self.root / "evaluation" / "tasks"

    @property
    def analysis(self) -> Path:
        """The analysis of detour and twin; see `clm_detour.analyze.run`."""
        return self.root / "analysis"

    @property
    def comparison(self) -> Path:
        """The comparison of detour and twin, written last: `records.analysis.NetworkComparison`."""
        return self.analysis / "compare.json"

    @property
    def audit(self) -> Path:
        """The audit of what the models remember: `records.audit.AuditRecord`."""
        return self.analysis / "audit.json"

    def audited(self, model: str) -> Path:
        """Return the file with what an audit measured of a model: `records.audit.MeasuredModel`."""
        return self.analysis / "audit" / f"{model}.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def report_files(self) -> Path:
        """The folder with the page's figures and numbers as files."""
        return self.root / "report"

    @property
    def plan(self) -> Path:
        """Floating-point operations of each phase: `records.run.PlanRecord`."""
        return self.root / "plan.json"

    def phase(self, phase_id: str) -> PhaseFolder:
        """Return the paths of a phase."""
        return PhaseFolder(self.root / "phases" / phase_id)

    def model(self, arm: str) -> Path:
        """Return the Hugging Face folder of a finished arm."""
        return self.root / "models" / arm


@dataclass(frozen=True)
class PhaseFolder:
    """The paths of one phase."""

    root: Path

    @property
    def settings(self) -> Path:
        """The settings on which the weights depend."""
        return self.root / "settings.json"

    @property
    def micro_rows(self) -> Path:
        """The micro-batch that was found by trial: `records.phase.MicroRowsRecord`."""
        return self.root / "micro_rows.json"

    @property
    def metrics(self) -> Path:
        """A `records.phase.LoggedStep` on each line."""
        return self.root / "metrics.jsonl"

    @property
    def held_out(self) -> Path:
        """Held-out losses during training, a `records.phase.HeldOutStep` on each line."""
        return self.root / "held_out.jsonl"

    @property
    def logged_as(self) -> Path:
        """The phase's name in the loggers of `train.loggers`, and how far they have got."""
        return self.root / "logged_as.json"

    @property
    def exports(self) -> Path:
        """Hugging Face folders of the weights during training."""
        return self.root / "exports"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints for resuming inside the phase."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The Hugging Face folder of the weights at the end of the phase."""
        return self.root / "model"

    @property
    def ema(self) -> Path:
        """The Hugging Face folder of the weights' moving average at the end, with `train.ema_half_life`."""
        return self.root / "ema"

    @property
    def moments(self) -> Path:
        """The optimizer state at the end of the phase."""
        return self.root / "optimizer.safetensors"

    @property
    def record(self) -> Path:
        """The record of the phase, written last: `records.phase.PhaseRecord`."""
        return self.root / "phase.json"

    @property
    def finished(self) -> bool:
        """Return whether the phase has run to its end."""
        return self.record.exists()
