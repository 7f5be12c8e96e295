"""Check that a run survives faults: kills, signals, a full disk, damaged files, bad losses, dead processes.

    python scripts/fault_trials.py --kills 20 --ranks    # five minutes on two cores, with a tiny model

A whole recipe with seven phases, checkpoints and exports is first run without faults. Each trial then runs it
with a fault, starts it again with the same command, and compares the weights: they must be equal to the bit.
A fault happens inside the running process at an exact place: in the n-th step of the optimizer, or when the
n-th file is renamed, which is in the middle of a checkpoint, of an export or of the end of a phase.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import torch
from faults import (
    Fault,
    at_call,
    in_step,
    in_write,
    kill_after,
    kill_children,
    nan_at,
    press_ctrl_c,
    raise_disk_full,
    send_sigterm,
)

from clm_detour.config import load_config
from clm_detour.config.loading import save_config
from clm_detour.evaluate.fill_mask import fill  # noqa: F401  imported once for all child processes
from clm_detour.recipe.recipe import Recipe
from clm_detour.report.page import write_page  # noqa: F401  imported once for all child processes
from clm_detour.run.pipeline import run_recipe
from clm_detour.train.callbacks import checkpoint
from clm_detour.train.checkpoints import sealed
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.files import file_checksum, read_json, read_json_lines
from clm_detour.utils.interrupt import INTERRUPTED
from clm_detour.utils.signals import REQUEUE, requeue_on_signals

TINY = [
    "data.sample={documents: 400}", "data.sequence_length=64", "data.held_out=0.1",
    "tokenizer.train.vocab_size=800",
    "model.config={hidden_size: 32, intermediate_size: 48, num_hidden_layers: 3, num_attention_heads: 2, "
    "local_attention: 16}",
    "train.batch_rows=8", "train.checkpoint_every=1ktok", "train.log_every=1", "train.export_at=[3ktok]",
    *(f"phases.{name}={{duration: 6ktok, schedule: {{warmup: 2ktok}}}}" for name in ("pretrain", "clm")),
    "phases.mlm={duration: 6ktok, schedule: {warmup: 2ktok}}",
    "phases.decay.duration=4ktok", "evaluate={rows: 4, fill_masks: 1, tasks: null}",
]  # fmt: skip
SMALL = ["arms={base: [clm, decay], detour: [clm, decay], twin: [clm, decay], control: [clm, decay]}"]


class Trials:
    """A folder with the run without faults and one run for each trial. All read the same prepared data."""

    def __init__(self, root: Path, overrides: list[str]):
        self.root = root
        self.overrides = overrides
        first = self.recipe("undisturbed")
        assert self.run(first)[0] == 0, self.log(first)
        self.expected = weights(first)

    def recipe(self, name: str, *overrides: str) -> Recipe:
        """Return the recipe of a run with a folder of its own."""
        made = f"{self.root}/undisturbed"  # all runs use its sample and its tokenizer
        names = ("general", "abstracts", "instructions", "notes")
        sources = ", ".join(f"{source}: {{path: {made}/sample/{source}.jsonl.gz}}" for source in names)
        shared = [f"run_dir={self.root}/{name}", f"data.dir={self.root}/data", f"data.sources={{{sources}}}"]
        if name != "undisturbed":
            shared += ["data.sample=null", f"tokenizer={{path: {made}/tokenizer, train: null}}"]
        return Recipe(load_config("quickstart", [*TINY, *shared, *self.overrides, *overrides]))

    def run(
        self, recipe: Recipe, fault: Fault | None = None, watch: Callable[[int], None] | None = None
    ) -> tuple[int, str]:
        """Run a recipe in a child process.

        Args:
            fault: Called in the child process before the run starts.
            watch: Called in this process with the id of the child process.

        Returns:
            Exit code, negative for the signal that killed the process, and the output.
        """
        log = self.log_file(recipe)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os._exit(run_here(recipe, fault, log))
        if watch is not None:
            watch(child)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8", errors="replace")

    def log_file(self, recipe: Recipe) -> Path:
        """Return the file with the output of the last run of a recipe."""
        return self.root / f"{recipe.folder.root.name}.log"

    def log(self, recipe: Recipe) -> str:
        """Return the output of the last run of a recipe."""
        return self.log_file(recipe).read_text(encoding="utf-8")

    def finish(self, recipe: Recipe) -> None:
        """Run a recipe to its end, and compare its weights and steps with those of the run without faults.

        Raises:
            SystemExit: If something was lost or done twice.
        """
        code, output = self.run(recipe)
        problems = [] if code == 0 else [f"exit code {code}:\n{output[-2000:]}"]
        if not problems and weights(recipe) != self.expected:
            problems.append("the weights differ")
        for run in recipe.phases.values() if not problems else ():
            lines = read_json_lines(recipe.folder.phase(run.id).metrics)
            planned = [run.step_rows.before(step + 1) * run.row_tokens for step in range(run.steps)]
            if [line["tokens"] for line in lines] != planned:
                problems.append(f"the numbers of tokens differ in {run.id}")
        if problems:
            sys.exit(f"FAILED in {recipe.folder.root}: {'; '.join(problems)}")


def run_here(recipe: Recipe, fault: Fault | None, log: Path) -> int:
    """Run a recipe in this process, a child, with its output in a file, and return the exit code."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if fault is not None:
        fault()
    code = 0
    try:
        with exit_on_user_error(), requeue_on_signals():
            run_recipe(recipe)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def weights(recipe: Recipe) -> dict[str, str]:
    """Return the checksum of every safetensors file of a run."""
    root = recipe.folder.root
    return {str(path.relative_to(root)): file_checksum(path) for path in sorted(root.rglob("*.safetensors"))}


def newest_checkpoint(recipe: Recipe) -> Path | None:
    """Return the newest checkpoint of a run, or None."""
    found = [path for id in recipe.phases for path in sealed(recipe.folder.phase(id).checkpoints)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def line_with(text: str, output: str) -> str:
    """Return the last line of the output that contains a text. Exit if there is none."""
    lines = [line.strip() for line in output.splitlines() if text in line]
    if not lines:
        sys.exit(f"FAILED: no line with {text!r} in:\n{output[-3000:]}")
    return lines[-1]


def kills(trials: Trials, number: int, rng: random.Random) -> str:
    """Kill runs at random moments, in as many whole recipes as it takes."""
    recipes, killed, places = 1, 0, Counter[str]()
    while killed < number:
        recipe = trials.recipe(f"killed-{recipes}")
        kind = ("write", "step", "write", "moment")[killed % 4]
        if kind == "moment":
            code, _ = trials.run(recipe, watch=partial(kill_after, rng.uniform(0.1, 1.5)))
        else:
            code, _ = trials.run(
                recipe, in_step(rng.randint(1, 12)) if kind == "step" else in_write(rng.randint(1, 40))
            )
        if code == 0:
            trials.finish(recipe)
            recipes += 1
            continue
        assert code == -signal.SIGKILL, trials.log(recipe)
        killed += 1
        place = {"step": "in a step", "moment": "at any moment"}.get(kind) or interrupted_write(recipe)
        places[place] += 1
    trials.finish(recipe)
    where = ", ".join(f"{count} {place}" for place, count in places.most_common())
    return f"killed {killed} times ({where}) in {recipes} recipe{'s' * (recipes > 1)}"


def interrupted_write(recipe: Recipe) -> str:
    """Return in words which part of a run was being written when the process was killed."""
    left = "".join(path.name for path in recipe.folder.root.rglob(".*.tmp*"))
    kinds = {".step-": "in a checkpoint", ".tokens-": "in an export", ".model.": "at the end of a phase"}
    return next((place for mark, place in kinds.items() if mark in left), "between phases or in a log")


def asked_to_stop(trials: Trials) -> str:
    """Send SIGTERM in the middle of a step."""
    recipe = trials.recipe("asked", "train.workers=1")
    code, output = trials.run(recipe, in_step(7, send_sigterm))
    if code != REQUEUE or not newest_checkpoint(recipe):
        sys.exit(f"FAILED: exit code {code} after SIGTERM:\n{output[-2000:]}")
    trials.finish(recipe)
    return f"SIGTERM: exit code {code}, {line_with('Asked to stop', output)!r}"


def interrupted(trials: Trials) -> str:
    """Press Ctrl-C in the middle of a step."""
    recipe = trials.recipe("interrupted", "train.workers=1")
    code, output = trials.run(recipe, in_step(7, press_ctrl_c))
    if code != INTERRUPTED or "Traceback" in output:
        sys.exit(f"FAILED: exit code {code} after Ctrl-C:\n{output[-2000:]}")
    trials.finish(recipe)
    return f"Ctrl-C: exit code {code}, {line_with('Interrupted', output)!r}"


def full_disk(trials: Trials) -> str:
    """Fill the disk when the optimizer state of the third checkpoint is written."""
    recipe = trials.recipe("full")
    code, output = trials.run(recipe, at_call(checkpoint, "save_optimizer_state", 3, raise_disk_full))
    assert code == 2, output
    trials.finish(recipe)
    return f"full disk: {line_with('Cannot write', output)!r}"


def flipped_bytes(trials: Trials) -> str:
    """Damage the weights of the newest checkpoint."""
    recipe = trials.recipe("flipped")
    trials.run(recipe, in_step(9))
    newest = newest_checkpoint(recipe)
    assert newest is not None
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    trials.finish(recipe)
    return f"flipped byte: {line_with('damaged', trials.log(recipe))!r}"


def bad_loss(trials: Trials) -> str:
    """Make the loss of one step NaN, once with each way to handle it."""
    recipe, skipping = trials.recipe("nan"), trials.recipe("skipped", "train.on_bad_loss=skip")
    code, stopped = trials.run(recipe, nan_at(6))
    assert code == 2, stopped
    trials.finish(recipe)
    code, skipped = trials.run(skipping, nan_at(6))
    record = read_json(skipping.folder.phase(next(iter(skipping.phases))).record)
    assert (code, record["skipped_steps"]) == (0, 1), skipped
    return f"NaN: {line_with('has loss nan', stopped)!r}; with skip: {line_with('skipped', skipped)!r}"


def dead_worker(trials: Trials) -> str:
    """Kill the loader process."""
    recipe = trials.recipe("worker", "train.workers=1")
    code, output = trials.run(recipe, in_step(5, kill_children))
    assert code == 2, output
    trials.finish(recipe)
    return f"dead worker: {line_with('loader', output)!r}"


def many_ranks(trials: Trials) -> str:
    """Kill one of two processes, and send SIGUSR1 to one of two machines."""
    undisturbed, killed, stopped = (trials.recipe(name) for name in ("two", "one-killed", "one-stopped"))
    assert launch(trials, undisturbed) == 0
    code = launch(trials, killed, kill_a_rank)
    assert code not in (0, REQUEUE), code
    assert launch(trials, killed) == 0
    codes = on_two_machines(trials, stopped)
    assert codes == [REQUEUE, REQUEUE], codes
    assert launch(trials, stopped) == 0
    if not weights(undisturbed) == weights(killed) == weights(stopped):
        sys.exit("FAILED: the weights differ after a process was killed or stopped")
    return (
        f"one of two processes killed: exit code {code}; SIGUSR1 to one of two machines: exit codes "
        f"{codes[0]} and {codes[1]}; equal weights at the end"
    )


Watch = Callable[[Recipe, subprocess.Popen], None]


def launch(trials: Trials, recipe: Recipe, watch: Watch | None = None) -> int:
    """Train the first phase in two processes, and return the exit code."""
    path = saved(trials, recipe)
    first = recipe.arm("base")[0].name
    script = str(Path(__file__).with_name("train.py"))
    command = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", script, str(path)]
    with open(path.with_suffix(".log"), "w") as log:
        process = subprocess.Popen([*command, "arm=base", f"phase={first}"], stdout=log, stderr=log)
        if watch is not None:
            watch(recipe, process)
        return process.wait()


def on_two_machines(trials: Trials, recipe: Recipe) -> list[int]:
    """Run `clm-detour run` as two machines do, send SIGUSR1 to the second, and return both exit codes."""
    path = saved(trials, recipe)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    machines = []
    for node in ("0", "1"):
        variables = {"WORLD_SIZE": "2", "NODE_RANK": node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "clm_detour", "run", str(path)]
        with open(path.with_suffix(f".{node}.log"), "w") as log:
            environment = {**os.environ, **variables}
            machines.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    wait_for_checkpoint(recipe, machines[1])
    machines[1].send_signal(signal.SIGUSR1)
    return [machine.wait() for machine in machines]


def saved(trials: Trials, recipe: Recipe) -> Path:
    """Write the config of a recipe to a file, and return its path."""
    path = trials.root / f"{recipe.folder.root.name}.yaml"
    save_config(recipe.config, path)
    return path


def kill_a_rank(recipe: Recipe, process: subprocess.Popen) -> None:
    """Kill the second process once there is a checkpoint."""
    wait_for_checkpoint(recipe, process)
    with suppress(psutil.NoSuchProcess, IndexError):
        psutil.Process(process.pid).children()[1].kill()


def wait_for_checkpoint(recipe: Recipe, process: subprocess.Popen) -> None:
    """Wait until there is a checkpoint, or the process has ended."""
    while process.poll() is None and newest_checkpoint(recipe) is None:
        time.sleep(0.01)


def main() -> None:
    """Run all trials, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="number of kills at random moments")
    parser.add_argument(
        "--ranks", action="store_true", help="kill one of two processes and stop one of two machines too"
    )
    parser.add_argument("--small", action="store_true", help="run two phases instead of seven")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        trials = Trials(Path(folder), SMALL if chosen.small else [])
        chosen_trials: list[Callable[[Trials], str]] = [
            partial(kills, number=chosen.kills, rng=random.Random(chosen.seed)),
            asked_to_stop, interrupted, full_disk, flipped_bytes, bad_loss, dead_worker,
        ]  # fmt: skip
        chosen_trials += [many_ranks] if chosen.ranks else []
        for trial in chosen_trials:
            print(f"ok  {trial(trials)}", flush=True)
        print(json.dumps({"trials": len(chosen_trials), "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
