"""A run whose phases were trained in a few seconds, without Composer, on text with canaries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clm_detour.config.loading import load_config, save_config
from clm_detour.data.loader import collate
from clm_detour.model import ModernBertForPretraining
from clm_detour.recipe.export import write_model
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import fresh_config
from clm_detour.records.phase import PhaseRecord, ScheduleRecord, Share
from clm_detour.records.run import Arms
from clm_detour.records.store import write
from clm_detour.run.pipeline import prepare_data

RECIPE = """
run_dir: {folder}
data:
  sequence_length: 64
  processes: 1
  held_out: 0.25
  sources:
    notes: {{path: {notes}}}
    abstracts: {{path: {abstracts}}}
  mixtures: {{general: {{abstracts: 1.0}}, domain: {{notes: 1.0}}}}
  canaries: {{source: notes, each: 4, copies: [1, 8, 64]}}
tokenizer: {{path: {tokenizer}}}
model:
  config: {{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 2}}
train: {{batch_rows: 16, precision: fp32, workers: 0}}
phases:
  pretrain: {{objective: mlm, mask_rate: 0.3, mixture: general, duration: 2ktok, schedule: {schedule}}}
  clm: {{objective: clm, mixture: domain, duration: 150ktok, schedule: {schedule}}}
  mlm: {{objective: mlm, mask_rate: 0.3, mixture: domain, duration: 150ktok, schedule: {schedule}}}
  decay: {{objective: mlm, mask_rate: 0.15, mixture: domain, duration: 8ktok, schedule: {schedule}}}
arms:
  base: [pretrain]
  detour: [pretrain, clm, decay]
  twin: [pretrain, mlm, decay]
"""
SCHEDULE = "{name: warmup_constant, peak: 3e-3}"


def write_recipe(folder: Path, data: Path) -> Path:
    """Write the recipe of a run, beside its folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    sample = {name: data / "sample" / f"{name}.jsonl.gz" for name in ("notes", "abstracts")}
    path.write_text(RECIPE.format(folder=folder, tokenizer=data / "tokenizer", schedule=SCHEDULE, **sample))
    return path


def train(recipe: Recipe) -> None:
    """Train every phase, and write what a run would leave behind."""
    torch.manual_seed(0)
    networks: dict[str, ModernBertForPretraining] = {}
    for run in recipe.phases.values():
        config = recipe.config.model.config
        network = ModernBertForPretraining(fresh_config(config, recipe.tokenizer))
        if run.parent is not None:
            network.load_state_dict(networks[run.parent.id].state_dict())
        train_phase(recipe, run, network)
        networks[run.id] = network
        write_model(network, recipe.tokenizer_path, recipe.folder.phase(run.id).model)
        write(record_of(run, recipe), recipe.folder.phase(run.id).record)
    save_config(recipe.config, recipe.folder.config)
    write({arm: [run.id for run in runs] for arm, runs in recipe.arms.items()}, recipe.folder.arms, Arms)


def train_phase(recipe: Recipe, run: PhaseRun, network: ModernBertForPretraining) -> None:
    stream = recipe.stream(run)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    size = run.step_rows.full
    for first in range(run.first_row, run.next_row, size):
        batch = collate([stream.example(position) for position in range(first, first + size)])
        output = network(
            batch["input_ids"],
            labels=batch["labels"],
            document_lengths=batch["document_lengths"],
            causal=run.objective.causal,
        )
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def record_of(run: PhaseRun, recipe: Recipe) -> PhaseRecord:
    shares = recipe.config.data.mixtures[run.phase.mixture]
    return PhaseRecord(
        id=run.id,
        phase=run.name,
        objective=run.phase.objective,
        mask_rate=run.phase.mask_rate,
        mixture=run.phase.mixture,
        schedule=ScheduleRecord("warmup_constant", 3e-3),
        steps=run.steps,
        tokens=run.tokens,
        batch_tokens=run.batch_tokens,
        first_row=run.first_row,
        next_row=run.next_row,
        shares={name: Share(target=share, observed=share) for name, share in shares.items()},
        seconds=1.0,
        world_size=1,
        device="cpu",
        precision="fp32",
    )


@pytest.fixture(scope="session")
def trained(tiny_data, tmp_path_factory) -> Recipe:
    """The run, with prepared data and trained phases."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    recipe = Recipe(load_config(write_recipe(folder, tiny_data)))
    prepare_data(recipe)
    train(recipe)
    return recipe
