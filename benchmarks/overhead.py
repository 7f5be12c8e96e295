"""Compare the speed of a phase on Composer, with all callbacks, with that of a bare training loop.

    python benchmarks/overhead.py --steps 8 --rounds 4

Both train the same network with the same optimizer, rows and micro-batches, in turns in one process. Their
losses must be equal to the bit. The first step of each turn does not count, and neither do the start, the end
and the checkpoints of a phase.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import torch
import typer
from composer.core import Callback
from record import ResultName, record

from clm_detour.config import load_config
from clm_detour.data.loader import make_loader
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.schedules import phase_rate
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.callbacks.build import make_callbacks
from clm_detour.train.composer_model import PretrainingModel, split_batch
from clm_detour.train.optim import make_optimizer
from clm_detour.train.phase import make_batches, make_network, make_trainer
from clm_detour.train.setup import Setup
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.progress import console, human


class Times(Callback):
    """Records the time at which each step ends, and its loss."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def batch_checkpoint(self, state: Any, logger: Any) -> None:
        """Record the step, after all other callbacks."""
        self.ends.append(time.perf_counter())
        self.losses.append(state.total_loss_dict["loss/train/total"])


def through_composer(setup: Setup) -> Times:
    """Train the phase as `train_phase` does, without its start and end."""
    times = Times()
    model, optimizer, batches = parts(setup)
    callbacks = make_callbacks(setup, model, batches, lambda *_, **__: None)
    trainer = make_trainer(setup, model, optimizer, batches, [*callbacks.all, times], micro_rows_of(setup))
    trainer.fit()
    trainer.engine.close()
    return times


def bare_loop(setup: Setup) -> Times:
    """Train the same steps with as little code as possible."""
    times, config, run = Times(), setup.config, setup.run
    model, optimizer, batches = parts(setup)
    rate, device = phase_rate(run.phase), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    loader = iter(make_loader(batches, config.train.workers, pin_memory=device.type == "cuda"))
    for step in range(run.steps):
        batch = next(loader)
        for group in optimizer.param_groups:
            group["lr"] = rate(run.step_rows.before(step) * run.row_tokens)
        optimizer.zero_grad(set_to_none=True)
        total, predicted = torch.zeros((), device=device), sum(batch["predicted"])
        for rows in split_batch(batch, micro_rows_of(setup)):
            part: dict[str, Any] = {
                key: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
                for key, value in rows.items()
            }
            share = sum(part["predicted"]) / predicted
            loss = model.loss(model(part), part) * share
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm or float("inf"))
        optimizer.step()
        times.losses.append(total.item())
        times.ends.append(time.perf_counter())
    return times


def micro_rows_of(setup: Setup) -> int:
    """Return the rows of a micro-batch, which this benchmark sets."""
    assert isinstance(setup.config.train.micro_rows, int)
    return setup.config.train.micro_rows


def parts(setup: Setup) -> tuple[Any, ...]:
    """Return model, optimizer and batches, the same at each call."""
    network, config = make_network(setup), setup.config
    model = PretrainingModel(network, setup.stream.objective, bf16=config.train.precision == "bf16")
    optimizer = make_optimizer(network, config.optimizer, setup.run.phase.schedule.peak)
    return model, optimizer, make_batches(setup)


def main(
    steps: int = 8,
    rounds: int = 4,
    hidden: int = 384,
    layers: int = 4,
    length: int = 1024,
    rows: int = 4,
    micro_rows: int = 2,
    workers: int = 0,
    precision: str = "fp32",
    name: ResultName = "overhead",
) -> None:
    """Measure, print the result, and write it to benchmarks/results."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        model = f"hidden_size: {hidden}, intermediate_size: {hidden * 3 // 2}, num_hidden_layers: {layers}"
        train = f"batch_rows: {rows}, micro_rows: {micro_rows}, workers: {workers}, precision: {precision}"
        overrides = [
            f"run_dir={folder}/run", "data.sample={documents: 4000}", f"data.sequence_length={length}",
            f"model.config={{{model}, num_attention_heads: {hidden // 64}, local_attention: 128}}",
            f"train={{{train}, log_every: 1}}", "phases.pretrain.schedule.warmup=0tok",
            f"train.checkpoint_every={steps * rows * length * 2}tok",
            f"phases.pretrain.duration={steps * rows * length}tok",
        ]  # fmt: skip
        recipe = Recipe(load_config("quickstart", overrides))
        prepare_data(recipe)
        run = recipe.phase("base", "pretrain")
        setup = Setup(recipe, run)
        seconds: dict[str, list[float]] = {"bare loop": [], "phase": []}
        for _ in range(rounds):
            turns = {"bare loop": bare_loop(setup), "phase": through_composer(setup)}
            assert turns["bare loop"].losses == turns["phase"].losses, "the losses differ"
            for who, times in turns.items():
                seconds[who] += [end - start for start, end in zip(times.ends, times.ends[1:], strict=False)]
    step = {who: statistics.median(each) for who, each in seconds.items()}
    speed = {who: run.batch_tokens / each for who, each in step.items()}
    share, more = speed["phase"] / speed["bare loop"], 1000 * (step["phase"] - step["bare loop"])
    console.print(
        f"bare loop {human(speed['bare loop'])} tokens/s, phase {human(speed['phase'])} tokens/s "
        f"({share:.1%}); {more:+.1f} ms per step of {1000 * step['bare loop']:,.1f} ms",
        soft_wrap=True,
    )
    settings = {
        "steps": steps, "rounds": rounds, "hidden": hidden, "layers": layers, "length": length, "rows": rows,
        "micro_rows": micro_rows, "workers": workers, "precision": precision,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    if name:
        results = {
            "settings": settings,
            "tokens_per_second": speed,
            "share": share,
            "milliseconds_more_a_step": more,
            "seconds_of_steps": seconds,
        }
        path = record(name, results, ("torch", "mosaicml", "transformers"))
        console.print(f"Wrote {path}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
