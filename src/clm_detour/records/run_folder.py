"""Where a run keeps its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clm_detour.config.schema import Config


@dataclass(frozen=True)
class RunFolder:
    """The paths below `run_dir`; docs/guide.md says what each holds."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        """The folder that `config` names."""
        return cls(Path(config.run_dir))

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
        """What ran for how long."""
        return self.root / "steps.json"

    @property
    def arms(self) -> Path:
        """Arm -> ids of its phases."""
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
    def held_out(self) -> Path:
        """Held-out losses."""
        return self.root / "evaluation" / "held_out.json"

    @property
    def fill_masks(self) -> Path:
        """Filled masks."""
        return self.root / "evaluation" / "fill_mask.json"

    @property
    def tasks(self) -> Path:
        """Models fine-tuned on tasks: runs, summary.json, tables."""
        return self.root / "evaluation" / "tasks"

    @property
    def analysis(self) -> Path:
        """Detour against twin: see `clm_detour.analyze.run`."""
        return self.root / "analysis"

    @property
    def comparison(self) -> Path:
        """Detour against twin in numbers, written when the rest of the analysis is there."""
        return self.analysis / "compare.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def report_files(self) -> Path:
        """The page's figures and numbers as files."""
        return self.root / "report"

    @property
    def plan(self) -> Path:
        """Floating-point operations of each phase."""
        return self.root / "plan.json"

    def phase(self, phase_id: str) -> PhaseFolder:
        """One phase's folder."""
        return PhaseFolder(self.root / "phases" / phase_id)

    def model(self, arm: str) -> Path:
        """The Hugging Face folder of a finished arm."""
        return self.root / "models" / arm


@dataclass(frozen=True)
class PhaseFolder:
    """The paths of one phase."""

    root: Path

    @property
    def settings(self) -> Path:
        """Everything that its weights depend on."""
        return self.root / "settings.json"

    @property
    def metrics(self) -> Path:
        """A line a logged step."""
        return self.root / "metrics.jsonl"

    @property
    def held_out(self) -> Path:
        """Held-out losses while it trained, a line each time."""
        return self.root / "held_out.jsonl"

    @property
    def exports(self) -> Path:
        """Hugging Face folders of the weights on the way."""
        return self.root / "exports"

    @property
    def checkpoints(self) -> Path:
        """For resuming inside the phase."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The weights at its end, a Hugging Face folder."""
        return self.root / "model"

    @property
    def ema(self) -> Path:
        """The moving average of the weights at its end, a Hugging Face folder; with `train.ema_half_life`."""
        return self.root / "ema"

    @property
    def moments(self) -> Path:
        """The optimizer's moments at its end."""
        return self.root / "optimizer.safetensors"

    @property
    def record(self) -> Path:
        """Written last: the phase is finished if it is there."""
        return self.root / "phase.json"

    @property
    def finished(self) -> bool:
        """Whether the phase has run to its end."""
        return self.record.exists()
