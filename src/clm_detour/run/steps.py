"""The whole way: sample -> tokenizer -> shards -> phases -> models -> scores -> page, each step skipped when it is done.

This is the one module that knows all stages; a stage never knows the next.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

from clm_detour.analyze.run import can_be_analyzed
from clm_detour.config.loading import save_config
from clm_detour.config.schema import Config
from clm_detour.data import sources, tokenizer
from clm_detour.data.prepare import prepare_source
from clm_detour.data.sample.write import SOURCES, write_sample
from clm_detour.recipe.export import ABOUT, tokenizer_path
from clm_detour.recipe.phases import domain_sources, plan_arm, plan_recipe
from clm_detour.recipe.settings import is_finished
from clm_detour.recipe.stream import is_prepared_elsewhere
from clm_detour.records.run_folder import RunFolder
from clm_detour.run.check import all_doubts, processes, refuse
from clm_detour.run.check.data import check_shards
from clm_detour.run.check.folders import room_warnings
from clm_detour.run.check.model import check_model
from clm_detour.run.check.started import sample_settings, tokenizer_settings
from clm_detour.train.launch import is_first_node, launch_phase
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.environment import describe_environment
from clm_detour.utils.errors import UserError, on_one_line, sentence
from clm_detour.utils.files import read_json, write_json
from clm_detour.utils.interrupt import interrupted
from clm_detour.utils.locks import exclusive
from clm_detour.utils.progress import console, progress, warn
from clm_detour.utils.started_with import check_or_write


class Steps:
    """Runs the steps of a recipe and keeps `steps.json`, the record of what ran for how long."""

    def __init__(self, path: Path):
        self.path = path
        self.records: list[dict[str, Any]] = read_json(path) if path.exists() else []
        self.ran = 0
        self.failed: list[Exception] = []

    def attempt(self, name: str, title: str, work: Callable[[], bool | str]) -> None:
        """Do a step without which the page can be written; an error is told, and waits in `failed`."""
        try:
            self.run(name, title, work)
        except Exception as error:
            if interrupted():  # a library may have made an error of Ctrl-C
                raise
            self.failed.append(error)
            if isinstance(error, UserError):
                reason = sentence(error)
            else:
                reason = f"{type(error).__name__}: {on_one_line(error)}."
            warn(f"{title}: left out. {reason}")

    def run(self, name: str, title: str, work: Callable[[], bool | str]) -> None:
        """Do one step; `work` returns False when there was nothing to do, or why it cannot be done."""
        start = time.monotonic()
        outcome = work()
        if isinstance(outcome, str):
            warn(f"{title}: left out. {outcome}")
            self.keep(name, {"step": name, "title": title, "left_out": outcome})
            return
        if not outcome:
            console.print(f"{title}: done before", style="dim")
            return
        self.ran += 1
        seconds = time.monotonic() - start
        console.print(f"{title}: {seconds:.1f} s", style="green")
        finished = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.keep(name, {"step": name, "title": title, "seconds": round(seconds, 2), "finished": finished})

    def keep(self, name: str, record: dict[str, Any]) -> None:
        """Write the record of a step in place of its last one."""
        self.records = [*(old for old in self.records if old["step"] != name), record]
        write_json(self.path, self.records)


def run_recipe(config: Config, sizes: bool = True) -> int:
    """Everything that `config` asks for; on any machine but the first, its share of the phases only.

    What could stop it on its way is refused before anything is prepared. A step after training that fails all the same is left
    out of the page, and its error raised once the page is written.

    Args:
        sizes: as for `check_recipe`.

    Returns:
        How many steps had something to do.
    """
    if not is_first_node():
        loaded = tokenizer.load_tokenizer(tokenizer_path(config))
        return sum(launch_phase(config, run, loaded) for run in plan_recipe(config).values())
    checked = refuse_early(config)
    root = RunFolder.of(config).root
    with exclusive(root, "Another run works"):
        return run_steps(config, checked, sizes)


def run_steps(config: Config, checked: tokenizer.Tokenizer | None, sizes: bool) -> int:
    """Do each step that is not done.

    Args:
        checked: The tokenizer; None where the run has yet to train it.
    """
    folder = RunFolder.of(config)
    steps = Steps(folder.steps)
    tokenizer_steps(config, steps)
    loaded = checked or tokenizer.load_tokenizer(tokenizer_path(config))
    if checked is None:
        check_model(config, loaded)
    source_steps(config, steps, loaded)
    check_shards(config, loaded, deep=False)
    for run in plan_recipe(config).values():
        is_finished(config, run, loaded)  # refuses other settings than those that its folder was started with
    plan_step(config, loaded, sizes)
    save_config(config, folder.config)
    write_json(folder.arms, {arm: [run.id for run in plan_arm(config, arm)] for arm in config.arms})
    for run in plan_recipe(config).values():
        steps.run(f"phase {run.id}", f"Train {run.id}", partial(launch_phase, config, run, loaded))
    for arm in config.arms:
        steps.attempt(f"export {arm}", f"Export {arm}", partial(export_step, config, arm))
    steps.attempt("held-out", "Score on held-out text", partial(held_out_step, config, loaded))
    steps.attempt("fill masks", "Fill masks", partial(fill_masks_step, config, loaded))
    if config.evaluate.tasks is not None:
        steps.attempt("tasks", "Fine-tune on tasks", partial(tasks_step, config))
    if can_be_analyzed(config):
        steps.attempt("analysis", "Compare detour and twin", partial(analysis_step, config))
    if steps.ran or not folder.environment.exists():
        write_json(folder.environment, describe_environment())
    steps.run("report", "Write the page", partial(report_step, config))
    if steps.failed:
        raise steps.failed[0]
    return steps.ran


def refuse_early(config: Config) -> tokenizer.Tokenizer | None:
    """Refuse before the data is prepared, which may take hours, whatever could stop the run on its way.

    Returns:
        The tokenizer; None where the run has yet to train it.
    """
    from clm_detour.model.attention import choose_backend

    loaded, warnings = refuse(config, prepared=False)
    for warning in warnings:
        warn(warning)
    choose_backend(config.model.attention)
    return loaded


def prepare_data(config: Config) -> int:
    """Only the sample, the tokenizer and the shards."""
    folder = RunFolder.of(config)
    with exclusive(folder.root, "Another run works"):
        steps = Steps(folder.steps)
        tokenizer_steps(config, steps)
        source_steps(config, steps, tokenizer.load_tokenizer(tokenizer_path(config)))
    return steps.ran


def tokenizer_steps(config: Config, steps: Steps) -> None:
    """The sample and the tokenizer, where the run makes them."""
    if config.data.sample is not None:
        steps.run("sample", "Write the sample", partial(sample_step, config))
    if config.tokenizer.train is not None:
        steps.run("tokenizer", "Train the tokenizer", partial(tokenizer_step, config))


def source_steps(config: Config, steps: Steps, loaded: tokenizer.Tokenizer) -> None:
    """From sources to packed rows."""
    for name in config.data.sources:
        if is_prepared_elsewhere(config, name):
            continue
        steps.run(f"prepare {name}", f"Prepare {name}", partial(prepare_step, config, name, loaded))


def sample_step(config: Config) -> bool:
    """The bundled corpus."""
    sample, folder = config.data.sample, RunFolder.of(config).sample
    assert sample is not None
    check_or_write(folder / "settings.json", sample_settings(config))
    if all((folder / f"{source}.jsonl.gz").exists() for source in SOURCES):
        return False
    write_sample(folder, sample.documents, sample.seed)
    return True


def tokenizer_step(config: Config) -> bool:
    """A tokenizer of the run's own."""
    training, folder = config.tokenizer.train, RunFolder.of(config).tokenizer
    assert training is not None
    check_or_write(folder / "settings.json", tokenizer_settings(config))
    if (folder / "tokenizer.json").exists():
        tokenizer.set_max_length(folder, config.data.sequence_length)
        return False
    total = training.documents * len(config.data.sources)
    with progress("Read documents for the tokenizer", total, "documents") as advance:
        tokenizer.train_tokenizer(
            training_texts(config, training.documents, advance),
            training.vocab_size,
            folder,
            config.data.sequence_length,
        )
    return True


def training_texts(config: Config, documents: int, advance: Callable[..., None]) -> Iterator[str]:
    """The first documents of each source."""
    for source in config.data.sources.values():
        texts = sources.read_documents(source, on_error=cast(sources.OnError, config.data.on_error))
        for text in islice(texts, documents):
            advance(1)
            yield text


def prepare_step(config: Config, name: str, loaded: tokenizer.Tokenizer) -> bool:
    """One source's shards."""
    data = config.data
    report = prepare_source(
        name=name,
        path=data.sources[name],
        folder=Path(data.dir) / name,
        tokenizer=loaded,
        row_length=data.sequence_length,
        seed=data.shuffle_seed,
        held_out=data.held_out,
        on_error=cast(sources.OnError, data.on_error),
        processes=data.processes,
    )
    for reason, count in report.dropped.items():
        warn(f"{name}: {count} records skipped ({reason})")
    return not report.skipped


def plan_step(config: Config, loaded: tokenizer.Tokenizer, sizes: bool = True) -> None:
    """Show what is to come and what is doubtful about it, if there is any training to come, and refuse now what would be refused later."""
    from clm_detour.plan import make_plan, print_plan

    folder = RunFolder.of(config)
    if not all(folder.phase(run).finished for run in plan_recipe(config)):
        plan = make_plan(config, loaded, processes())
        print_plan(plan)
        for doubt in (*room_warnings(config, plan), *all_doubts(config, loaded, sizes)):
            warn(doubt)
        operations = {phase.run.id: phase.operations and phase.operations.total for phase in plan.phases}
        write_json(folder.plan, {"phases": {id: {"operations": found} for id, found in operations.items()}})


def export_step(config: Config, arm: str) -> bool:
    """The Hugging Face folder of an arm."""
    from clm_detour.recipe.export import export_arm

    folder = RunFolder.of(config)
    last, about = plan_arm(config, arm)[-1].id, folder.model(arm) / ABOUT
    if is_newer(about, [folder.phase(last).record]) and read_json(about).get("phase") == last:
        return False
    export_arm(config, arm, folder.model(arm))
    return True


def model_paths(config: Config) -> dict[str, str]:
    """The models to compare, in the order of display: an external base first, then the arms."""
    folder = RunFolder.of(config)
    external = {"base": str(config.model.base)} if fills_masks(config.model.base) else {}
    return {**external, **{arm: str(folder.model(arm)) for arm in config.arms}}


def fills_masks(base: str | None) -> bool:
    """Whether there is an external base that can be measured as it is: a decoder knows no mask."""
    from clm_detour.recipe.start import is_decoder

    return base is not None and not is_decoder(base)


def held_out_step(config: Config, loaded: tokenizer.Tokenizer) -> bool:
    """Score the models, and the end of every phase, on held-out rows of the arms' last mixtures."""
    from clm_detour.measure.held_out import HeldOut
    from clm_detour.model.modernbert import ModernBertForPretraining
    from clm_detour.recipe.stream import open_sources, vocabulary_of

    folder = RunFolder.of(config)
    phases = plan_recipe(config)
    ends = {arm: plan_arm(config, arm)[-1].id for arm in config.arms}
    settings = {
        "mask_rate": config.evaluate.mask_rate,
        "rows": config.evaluate.rows,
        "seed": config.seed,
        "sources": domain_sources(config),
        "arms": ends,
    }
    if is_current(folder.held_out, [folder.phase(run).record for run in phases], settings):
        return False
    held_out = HeldOut(
        sources=open_sources(config, domain_sources(config), "held_out", loaded),
        vocabulary=vocabulary_of(loaded),
        sequence_length=config.data.sequence_length,
        mask_rate=config.evaluate.mask_rate,
        rows=config.evaluate.rows,
        seed=config.seed,
    )
    keep_freed_memory()
    paths = {run: str(folder.phase(run).model) for run in phases}
    if fills_masks(config.model.base):
        paths = {"": str(config.model.base), **paths}
    with progress("Held-out rows", held_out.total_rows * len(paths), "rows") as advance:
        scores = {
            run: held_out.score(ModernBertForPretraining.from_pretrained(path, causal=False), advance)
            for run, path in paths.items()
        }
    models = {
        **({"base": scores.pop("")} if "" in scores else {}),
        **{arm: scores[end] for arm, end in ends.items()},
    }
    write_json(folder.held_out, {"mask_rate": config.evaluate.mask_rate, "models": models, "phases": scores})
    write_json(settings_of(folder.held_out), settings)
    return True


def fill_masks_step(config: Config, loaded: tokenizer.Tokenizer) -> bool:
    """Show what the models say."""
    from clm_detour.evaluate.fill_mask import fill, masked_sentences
    from clm_detour.recipe.stream import open_sources

    folder = RunFolder.of(config)
    paths = model_paths(config)
    settings = {
        "sentences": config.evaluate.fill_masks,
        "seed": config.seed,
        "sources": domain_sources(config),
        "models": list(paths),
    }
    if is_current(folder.fill_masks, [folder.model(arm) / "config.json" for arm in config.arms], settings):
        return False
    sentences = [
        {"source": name, **sentence}
        for name, source in open_sources(config, domain_sources(config), "held_out", loaded).items()
        for sentence in masked_sentences(source, loaded, config.evaluate.fill_masks, config.seed)
    ]
    exported = str(folder.model(next(iter(config.arms))))
    with progress("Masks", len(sentences) * len(paths), "masks") as advance:
        write_json(folder.fill_masks, fill(sentences, paths, exported, advance))
    write_json(settings_of(folder.fill_masks), settings)
    return True


def tasks_step(config: Config) -> bool:
    """Fine-tune the models on tasks and show how they compare."""
    from clm_detour.evaluate.command import evaluate_models
    from clm_detour.evaluate.tables import plain

    settings, folder = config.evaluate.tasks, RunFolder.of(config)
    assert settings is not None
    summary, made = evaluate_models(settings, model_paths(config), folder.tasks, folder.root.name)
    if made:
        console.print(plain(summary), soft_wrap=True)
    return made > 0


def analysis_step(config: Config) -> bool | str:
    """What the detour did to the network."""
    from clm_detour.analyze.run import analysis_inputs

    folder = RunFolder.of(config)
    inputs = [*analysis_inputs(config), folder.held_out]
    if is_current(folder.comparison, inputs, dataclasses.asdict(config.analysis)):
        return False
    return analyze(config) or True


def analyze(config: Config) -> str | None:
    """Compare the networks of a finished run, whatever was there before.

    Returns:
        Why it cannot be done, if so.
    """
    from clm_detour.analyze.run import analyze_run, texts_of, too_few

    texts = texts_of(config, domain_sources(config))
    if reason := too_few(texts):
        return reason
    analyze_run(config, texts)
    write_json(settings_of(RunFolder.of(config).comparison), dataclasses.asdict(config.analysis))
    return None


def report_step(config: Config) -> bool:
    """The page, and a card beside each model."""
    from clm_detour.report.card import write_cards
    from clm_detour.report.page import write_page

    folder = RunFolder.of(config)
    made = [folder.held_out, folder.fill_masks, folder.tasks / "summary.json", folder.comparison]
    if is_newer(folder.report, [folder.environment, *(path for path in made if path.exists())]):
        return False
    write_cards(folder.root)
    write_page(folder.root)
    return True


def is_current(made: Path, inputs: list[Path], settings: dict[str, Any]) -> bool:
    """Whether `made` is no older than its inputs and was made with these settings."""
    used = settings_of(made)
    return is_newer(made, inputs) and used.exists() and read_json(used) == settings


def settings_of(made: Path) -> Path:
    """Where the settings stand with which a file of scores was made; written after it."""
    return made.with_suffix(".settings.json")


def is_newer(made: Path, inputs: list[Path]) -> bool:
    """Whether `made` exists and is no older than what it was made from."""
    if not made.exists():
        return False
    missing = [path for path in inputs if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing; run the step that makes it first.")
    return all(made.stat().st_mtime >= path.stat().st_mtime for path in inputs)
