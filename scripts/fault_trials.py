"""What happens to a run in the night: kills, full disks, damaged files, bad numbers. Every trial ends with the weights of an undisturbed run.

    python scripts/fault_trials.py --kills 20 --ranks      # five minutes on two cores, on the bundled sample and a tiny model

A whole recipe (seven phases, checkpoints, exports) is run undisturbed, and then once for each trial, disturbed and started again by the
same command. A fault strikes inside the running process at an exact place: at the n-th step of the optimizer, or as the n-th file is
being put in its place, which is in the midst of a checkpoint, an export or the end of a phase.
"""

from __future__ import annotations

import argparse
import errno
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

from clm_detour.config import load_config
from clm_detour.config.loading import save_config
from clm_detour.config.schema import Config
from clm_detour.evaluate.fill_mask import fill  # noqa: F401  imported once, for all children
from clm_detour.recipe.phases import plan_recipe
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.page import write_page  # noqa: F401  imported once, for all children
from clm_detour.run.pipeline import run_recipe
from clm_detour.train import phase
from clm_detour.train.checkpoints import sealed
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.files import file_checksum, read_json, read_json_lines
from clm_detour.utils.interrupt import INTERRUPTED
from clm_detour.utils.signals import REQUEUE, requeue_on_signals

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
TINY = [
    "data.sample={documents: 400}", "data.sequence_length=64", "data.held_out=0.1", "tokenizer.train.vocab_size=800",
    "model.config={hidden_size: 32, intermediate_size: 48, num_hidden_layers: 3, num_attention_heads: 2, local_attention: 16}",
    "train.batch_rows=8", "train.checkpoint_every=1ktok", "train.log_every=1", "train.export_at=[3ktok]",
    *(f"phases.{name}={{duration: 6ktok, schedule: {{warmup: 2ktok}}}}" for name in ("pretrain", "clm", "mlm")),
    "phases.decay.duration=4ktok", "evaluate={rows: 4, fill_masks: 1, tasks: null}",
]  # fmt: skip
SMALL = ["arms={base: [clm, decay], detour: [clm, decay], twin: [clm, decay], control: [clm, decay]}"]

Fault = Callable[[], None]


class Trials:
    """A folder with the undisturbed run and one for each trial; all read the same prepared data."""

    def __init__(self, root: Path, overrides: list[str]):
        self.root = root
        self.overrides = overrides
        first = self.config("undisturbed")
        assert self.run(first)[0] == 0, self.log(first)
        self.expected = weights(first)

    def config(self, name: str, *overrides: str) -> Config:
        """A recipe of its own run folder."""
        made = f"{self.root}/undisturbed"  # its sample and tokenizer serve all
        names = ("general", "abstracts", "instructions", "notes")
        sources = ", ".join(f"{source}: {{path: {made}/sample/{source}.jsonl.gz}}" for source in names)
        shared = [f"run_dir={self.root}/{name}", f"data.dir={self.root}/data", f"data.sources={{{sources}}}"]
        if name != "undisturbed":
            shared += ["data.sample=null", f"tokenizer={{path: {made}/tokenizer, train: null}}"]
        return load_config(str(QUICKSTART), [*TINY, *shared, *self.overrides, *overrides])

    def run(
        self, config: Config, fault: Fault | None = None, watch: Callable[[int], None] | None = None
    ) -> tuple[int, str]:
        """Run the recipe in a process of its own, which `fault` is installed in and `watch` sees from outside.

        Returns:
            Exit code (negative: the signal that killed it), and what it printed.
        """
        log = self.root / f"{Path(config.run_dir).name}.log"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os._exit(run_here(config, fault, log))
        if watch is not None:
            watch(child)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8", errors="replace")

    def log(self, config: Config) -> str:
        """The last run's output."""
        return (self.root / f"{Path(config.run_dir).name}.log").read_text(encoding="utf-8")

    def undamaged(self, config: Config) -> None:
        """Run on to the end, and compare everything with the undisturbed run and the plan.

        Raises:
            SystemExit: something was lost or done twice.
        """
        code, said = self.run(config)
        problems = [] if code == 0 else [f"it did not end well ({code}):\n{said[-2000:]}"]
        if not problems and weights(config) != self.expected:
            problems.append("other weights")
        for run in plan_recipe(config).values() if not problems else ():
            lines = read_json_lines(RunFolder.of(config).phase(run.id).metrics)
            planned = [run.step_rows.before(step + 1) * run.row_tokens for step in range(run.steps)]
            if [line["tokens"] for line in lines] != planned:
                problems.append(f"other tokens in {run.id}")
        if problems:
            sys.exit(f"FAILED in {config.run_dir}: {'; '.join(problems)}")


def run_here(config: Config, fault: Fault | None, log: Path) -> int:
    """The child's whole life."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if fault is not None:
        fault()
    code = 0
    try:
        with exit_on_user_error(), requeue_on_signals():
            run_recipe(config)
    except SystemExit as leave:
        code = int(leave.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def weights(config: Config) -> dict[str, str]:
    """Checksums of every safetensors file that a run leaves."""
    root = Path(config.run_dir)
    return {str(path.relative_to(root)): file_checksum(path) for path in sorted(root.rglob("*.safetensors"))}


def newest_checkpoint(config: Config) -> Path | None:
    """Of the phase that is under way."""
    found = [
        path for run in plan_recipe(config) for path in sealed(RunFolder.of(config).phase(run).checkpoints)
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def at_call(module: object, name: str, number: int, strike: Callable[[], object]) -> Fault:
    """A fault: `strike` just before the `number`-th call of a function."""

    def install() -> None:
        original, calls = getattr(module, name), [0]

        def counted(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] == number:
                strike()
            return original(*args, **kwargs)

        setattr(module, name, counted)

    return install


def die() -> None:
    """kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_step(number: int, strike: Callable[[], object] = die) -> Fault:
    """Between the gradients and the weights of a step."""
    return at_call(torch.optim.AdamW, "step", number, strike)


def in_write(number: int, strike: Callable[[], object] = die) -> Fault:
    """When a file is written, but has not yet its name."""
    return at_call(os, "replace", number, strike)


def disk_is_full() -> None:
    """What the system says then."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def line_with(text: str, said: str) -> str:
    """The line of a log that a person would look for."""
    lines = [line.strip() for line in said.splitlines() if text in line]
    if not lines:
        sys.exit(f"FAILED: no line with {text!r} in:\n{said[-3000:]}")
    return lines[-1]


def kills(trials: Trials, number: int, dice: random.Random) -> str:
    """kill -9 at random moments, over as many whole recipes as it takes."""
    recipe, died, places = 1, 0, Counter[str]()
    while died < number:
        config = trials.config(f"killed-{recipe}")
        kind = ("write", "step", "write", "moment")[died % 4]
        if kind == "moment":
            code, _ = trials.run(config, watch=partial(kill_after, dice.uniform(0.1, 1.5)))
        else:
            code, _ = trials.run(
                config, in_step(dice.randint(1, 12)) if kind == "step" else in_write(dice.randint(1, 40))
            )
        if code == 0:
            trials.undamaged(config)
            recipe += 1
            continue
        assert code == -signal.SIGKILL, trials.log(config)
        died += 1
        places[written(config) if kind == "write" else {"step": "in a step"}.get(kind, "at any moment")] += 1
    trials.undamaged(config)
    where = ", ".join(f"{count} {place}" for place, count in places.most_common())
    return f"killed {died} times ({where}) in {recipe} recipe{'s' * (recipe > 1)}"


def written(config: Config) -> str:
    """What a process that died in a write was writing."""
    root = RunFolder.of(config).root
    left = "".join(path.name for path in root.rglob(".*.tmp*"))
    kinds = {".step-": "in a checkpoint", ".tokens-": "in an export", ".model.": "at the end of a phase"}
    return next((place for mark, place in kinds.items() if mark in left), "between phases or in a log")


def kill_after(seconds: float, child: int) -> None:
    """kill -9 from outside, the child's own children too."""
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def ask_all() -> None:
    """SIGTERM to the run and its loader processes, as a cluster sends it: from outside."""
    subprocess.run(["kill", "-s", "TERM", "--", f"-{os.getpgrp()}"], check=False)
    time.sleep(0.2)


def asked_to_leave(trials: Trials) -> str:
    """SIGTERM in the midst of a step."""
    config = trials.config("asked", "train.workers=1")
    code, said = trials.run(config, in_step(7, ask_all))
    if code != REQUEUE or not newest_checkpoint(config):
        sys.exit(f"FAILED: exit code {code} after SIGTERM:\n{said[-2000:]}")
    trials.undamaged(config)
    return f"SIGTERM: exit code {code}, {line_with('Asked to stop', said)!r}"


def press_ctrl_c() -> None:
    """SIGINT to the run and its loader processes, as a terminal sends it."""
    os.killpg(os.getpgrp(), signal.SIGINT)


def interrupted(trials: Trials) -> str:
    """Ctrl-C in the midst of a step."""
    config = trials.config("interrupted", "train.workers=1")
    code, said = trials.run(config, in_step(7, press_ctrl_c))
    if code != INTERRUPTED or "Traceback" in said:
        sys.exit(f"FAILED: exit code {code} after Ctrl-C:\n{said[-2000:]}")
    trials.undamaged(config)
    return f"Ctrl-C: exit code {code}, {line_with('Interrupted', said)!r}"


def full_disk(trials: Trials) -> str:
    """No room for the weights of the third checkpoint."""
    config = trials.config("full")

    def install() -> None:
        from clm_detour.train.callbacks import checkpoint

        at_call(checkpoint, "save_moments", 3, disk_is_full)()

    code, said = trials.run(config, install)
    assert code == 2, said
    trials.undamaged(config)
    return f"full disk: {line_with('Cannot write', said)!r}"


def flipped_bytes(trials: Trials) -> str:
    """The newest checkpoint is not what was written."""
    config = trials.config("flipped")
    trials.run(config, in_step(9))
    newest = newest_checkpoint(config)
    assert newest is not None
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    trials.undamaged(config)
    return f"flipped byte: {line_with('damaged', trials.log(config))!r}"


def bad_number(trials: Trials) -> str:
    """A loss that is not a number in one step."""
    config, skipping = trials.config("nan"), trials.config("skipped", "train.on_bad_loss=skip")
    code, said = trials.run(config, nan_at(6))
    assert code == 2, said
    trials.undamaged(config)
    code, over = trials.run(skipping, nan_at(6))
    record = read_json(RunFolder.of(skipping).phase(next(iter(plan_recipe(skipping)))).record)
    assert (code, record["skipped_steps"]) == (0, 1), over
    return f"NaN: {line_with('has loss nan', said)!r}; with skip: {line_with('skipped', over)!r}"


def nan_at(number: int) -> Fault:
    """The loss of the n-th step is NaN, and so are its gradients."""

    def install() -> None:
        original, calls = phase.PretrainingModel.loss, [0]

        def loss(self: phase.PretrainingModel, outputs: object, batch: object) -> torch.Tensor:
            calls[0] += 1
            return original(self, outputs, batch) * (float("nan") if calls[0] == number else 1.0)  # type: ignore[arg-type]

        phase.PretrainingModel.loss = loss  # type: ignore[method-assign,assignment]

    return install


def dead_worker(trials: Trials) -> str:
    """The loader's process is killed."""
    config = trials.config("worker", "train.workers=1")

    def strike() -> None:
        for child in psutil.Process().children():
            child.kill()
        time.sleep(0.2)

    code, said = trials.run(config, in_step(5, strike))
    assert code == 2, said
    trials.undamaged(config)
    return f"dead worker: {line_with('loader', said)!r}"


def many_ranks(trials: Trials) -> str:
    """One of two processes is killed, one of two machines told to leave; the phase started again ends as if nothing had been."""
    quiet, killed, told = (trials.config(name) for name in ("two", "one-killed", "one-told"))
    assert launch(trials, quiet) == 0
    code = launch(trials, killed, kill_a_rank)
    assert code not in (0, REQUEUE), code
    assert launch(trials, killed) == 0
    codes = on_two_machines(trials, told)
    assert codes == [REQUEUE, REQUEUE], codes
    assert launch(trials, told) == 0
    if not weights(quiet) == weights(killed) == weights(told):
        sys.exit("FAILED: other weights after a rank was killed or told to leave")
    return (
        f"one of two ranks killed: exit code {code}; one of two machines sent SIGUSR1: exit codes {codes[0]} and {codes[1]}; "
        "the same weights in the end"
    )


Watch = Callable[[Config, subprocess.Popen], None]


def launch(trials: Trials, config: Config, watch: Watch | None = None) -> int:
    """The first phase on two processes."""
    path = saved(trials, config)
    first = next(iter(config.arms["base"]))
    script = str(Path(__file__).with_name("train.py"))
    words = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", script, str(path)]
    with open(path.with_suffix(".log"), "w") as log:
        process = subprocess.Popen([*words, "arm=base", f"phase={first}"], stdout=log, stderr=log)
        if watch is not None:
            watch(config, process)
        return process.wait()


def on_two_machines(trials: Trials, config: Config) -> list[int]:
    """The first phase by `clm-detour run` as two machines start it, of which the second is told to leave."""
    path = saved(trials, config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    machines = []
    for node in ("0", "1"):
        variables = {"WORLD_SIZE": "2", "NODE_RANK": node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = [sys.executable, "-c", "from clm_detour.__main__ import main; main()", "run", str(path)]
        with open(path.with_suffix(f".{node}.log"), "w") as log:
            machines.append(subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **variables}))
    wait_for_checkpoint(config, machines[1])
    machines[1].send_signal(signal.SIGUSR1)
    return [machine.wait() for machine in machines]


def saved(trials: Trials, config: Config) -> Path:
    """The recipe as a file."""
    path = trials.root / f"{Path(config.run_dir).name}.yaml"
    save_config(config, path)
    return path


def kill_a_rank(config: Config, process: subprocess.Popen) -> None:
    """The second, once there is a checkpoint to go on from."""
    wait_for_checkpoint(config, process)
    with suppress(psutil.NoSuchProcess, IndexError):
        psutil.Process(process.pid).children()[1].kill()


def wait_for_checkpoint(config: Config, process: subprocess.Popen) -> None:
    """Until there is one to go on from."""
    while process.poll() is None and newest_checkpoint(config) is None:
        time.sleep(0.01)


def main() -> None:
    """All trials, one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--ranks",
        action="store_true",
        help="also two processes, of which one is killed, and two machines, of which one is told to leave",
    )
    parser.add_argument("--small", action="store_true", help="two phases instead of seven")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        trials = Trials(Path(folder), SMALL if chosen.small else [])
        everything = [partial(kills, number=chosen.kills, dice=random.Random(chosen.seed))]
        everything += [asked_to_leave, interrupted, full_disk, flipped_bytes, bad_number, dead_worker]  # type: ignore[list-item]
        everything += [many_ranks] if chosen.ranks else []  # type: ignore[list-item]
        for trial in everything:
            print(f"ok  {trial(trials)}", flush=True)
        print(json.dumps({"trials": len(everything), "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
