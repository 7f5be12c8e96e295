"""A mistake in a recipe is one sentence that names the key and a remedy, before any work."""

from __future__ import annotations

import sys

import pytest

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.utils.errors import UserError

QUICKSTART = CONFIGS / "quickstart.yaml"

WRONG = {
    "unknown key": ("phases.clm.duraton=3tok", "did you mean phases.clm.duration?"),
    "unknown section": ("modle.base=x", "did you mean model?"),
    "no unit": ("phases.clm.duration=3000", "has no unit; write 3000tok"),
    "another unit": ("phases.clm.duration=3ep", "not a duration in tokens"),
    "nothing to do": ("phases.clm.duration=0tok", "is not positive"),
    "not a number": ("data.sequence_length=long", "data.sequence_length"),
    "a value for a section": ("train=3", "train"),
    "no key": ("phases.clm", "key=value"),
    "unknown objective": ("phases.clm.objective=clmm", "did you mean clm?"),
    "unknown schedule": ("phases.clm.schedule.name=warmup_const", "did you mean warmup_constant?"),
    "unknown mixture": ("phases.clm.mixture=domian", "did you mean domain?"),
    "unknown source": ("data.mixtures.domain.abstract=1", "did you mean abstracts?"),
    "unknown phase": ("arms.detour=[pretrain, clm, deca]", "did you mean decay?"),
    "a phase twice": ("arms.detour=[clm, clm]", "twice"),
    "an empty arm": ("arms.detour=[]", "no phases"),
    "mask rate of clm": ("phases.clm.mask_rate=0.3", "no effect"),
    "no mask rate": ("phases.mlm.mask_rate=null", "is not set"),
    "mask unit of clm": ("phases.clm.mask_unit=word", "no effect"),
    "mask rate over 1": ("phases.mlm.mask_rate=30", "above 0 and below 1"),
    "warm-up too long": ("phases.clm.schedule.warmup=9Btok", "longer than the phase"),
    "warm-up of a decay": ("phases.decay.schedule.warmup=1tok", "no effect"),
    "peak": ("phases.clm.schedule.peak=0", "a number above 0"),
    "floor": ("phases.decay.schedule.floor=10", "from 0 to 1"),
    "share": ("data.mixtures.domain.notes=-1", "a number above 0"),
    "held out": ("data.held_out=3", "data.held_out: 3 is too large; use a number above 0 and below 1"),
    "two tokenizers": ("tokenizer.path=x", "not both"),
    "two models": ("model.base=x", "not both"),
    "interpolation": ("data.dir=${nowhere}/x", "nowhere"),
    "betas": ("optimizer.betas=[0.9, 1.5]", "optimizer.betas"),
    "batch": ("train.batch_rows=0", "train.batch_rows: 0 is too small; use an integer of 1 or more"),
    "precision": ("train.precision=bf61", "did you mean bf16?"),
    "moments": ("phases.decay.moments=kept", "did you mean keep?"),
    "on_error": ("data.on_error=skipp", "did you mean skip?"),
    "a source's name": ("data.sources.a/b={path: x}", "letters"),
    "no seed below 0": ("phases.clm.seed=-1", "phases.clm.seed"),
    "no seed from 2**32": (
        "phases.clm.seed=4294967296", "phases.clm.seed: 4294967296 is too large; use an integer from 0",
    ),
    "a seed for all from 2**32": ("seed=4294967296", "seed: 4294967296 is too large"),
    "frozen layers": ("phases.clm.freeze={layers: low}", "phases.clm.freeze.layers: 'low' is not a range"),
    "frozen backwards": ("phases.clm.freeze={layers: 7-0}", "write 0-7"),
    "nothing frozen": ("phases.clm.freeze={embeddings: false}", "names nothing"),
    "unknown part to freeze": ("phases.clm.freeze={layer: 3}", "did you mean phases.clm.freeze.layers?"),
    "a number to freeze": ("phases.clm.freeze=3", "phases.clm.freeze is a section"),
    "a random head untrained": (
        "phases.decay={reset_head: true, freeze: {head: true}}", "phases.decay: reset_head and freeze.head",
    ),
    "decay without wsd": ("phases.clm.schedule.decay=1ktok", "phases.clm.schedule.decay has no effect under"),
    "floor of a constant": ("phases.clm.schedule.floor=0.2", "phases.clm.schedule.floor has no effect under"),
    "wsd without decay": ("phases.decay.schedule.name=wsd", "phases.decay.schedule.decay is not set"),
    "wsd too short": (
        "phases.decay.schedule={name: wsd, warmup: 60ktok, decay: 80ktok}",
        "are longer than the phase (120ktok)",
    ),
    "schedule without a name": (
        "phases.new={objective: clm, mixture: domain, duration: 1ktok}", "phases.new.schedule",
    ),
    "phase without a mixture": (
        "phases.new={objective: clm, duration: 1ktok, schedule: {name: warmup_constant, peak: 1}}",
        "phases.new.mixture",
    ),
    "a phase's name": ("phases={a.b: {objective: clm}}", "'a.b' is not valid; use a name without a dot"),
    "batch warm-up": (
        "phases.clm.batch_warmup={rows: 3, duration: 1ktok}", "phases.clm.batch_warmup.rows: 3",
    ),
    "batch warm-up too long": (
        "phases.clm.batch_warmup={rows: 2, duration: 9Btok}", "phases.clm.batch_warmup.duration (9Btok)",
    ),
    "an arm's name": ("arms.a/b=[pretrain]", "arms: 'a/b' is not valid; use a name of letters"),
    "no arms": ("arms=null", "arms"),
    "an arm of an unknown phase": (
        "arms.x=[pretrian]", "arms.x: 'pretrian' is not known; did you mean pretrain?",
    ),
    "text for a number": ("train.batch_rows=many", "train.batch_rows"),
    "half a row": ("train.batch_rows=1.5", "train.batch_rows"),
    "a half-life of nothing": ("train.ema_half_life=0tok", "train.ema_half_life: 0tok is not positive"),
    "micro-batch": (
        "train.micro_rows=-2", "train.micro_rows: -2 is not valid; use an integer of 1 or more or auto",
    ),
    "checkpoints": ("train.checkpoint_every=500", "train.checkpoint_every: 500 has no unit; write 500tok"),
    "no checkpoints kept": ("train.checkpoints_kept=0", "train.checkpoints_kept"),
    "workers": ("train.workers=-1", "train.workers"),
    "yes and no": ("train.compile=perhaps", "train.compile"),
    "clipping": ("optimizer.clip_norm=0", "optimizer.clip_norm"),
    "another optimizer": ("optimizer.name=adamw", "Unknown key optimizer.name"),
    "shuffle seed": ("data.shuffle_seed=-3", "data.shuffle_seed"),
    "a short row": ("data.sequence_length=4", "data.sequence_length: 4 is too small"),
    "a source's format": ("data.sources.notes.format=jsonlines", "did you mean jsonl?"),
    "a setting of another format": ("data.sources.notes.split=train", "data.sources.notes.split is for"),
    "a broken condition": ("data.sources.notes.where='a >'", "data.sources.notes.where"),
    "passes": ("data.sources.notes.max_epochs=0", "data.sources.notes.max_epochs"),
    "an empty mixture": ("data.mixtures.new={}", "data.mixtures.new is empty"),
    "a cache's size": ("data.cache_limit=lots", "data.cache_limit: 'lots' is not a size"),
    "a small vocabulary": ("tokenizer.train.vocab_size=100", "tokenizer.train.vocab_size"),
    "no model": ("model.config=null", "model: give either base"),
    "an endless share": ("data.mixtures.domain.notes=.inf", "data.mixtures.domain.notes: inf is not finite"),
    "a tokenizer of nothing": ("tokenizer.train.documents=-5", "tokenizer.train.documents: -5 is too small"),
    "epsilon": ("optimizer.eps=-1", "optimizer.eps: -1"),
    "weight decay": ("optimizer.weight_decay=-1", "optimizer.weight_decay: -1"),
    "sentences": ("evaluate.fill_masks=-1", "evaluate.fill_masks: -1 is too small"),
    "processes": ("data.processes=0", "data.processes: 0 is too small; use an integer of 1 or more, or null"),
    "evaluation": ("evaluate.rows=0", "evaluate.rows: 0 is too small"),
    "true for a number": ("train.batch_rows=true", "train.batch_rows: true is not valid; use an integer"),
    "text that spells a number": ("train.batch_rows='8'", "train.batch_rows: '8' is not valid"),
    "one for true": ("train.compile=1", "train.compile: 1 is not valid; use true or false or auto"),
    "a number for text": ("model.base=3", "model.base: 3 is not a string; put it in quotes"),
    "a short list": ("optimizer.betas=[0.9]", "optimizer.betas: [0.9] is not valid; use a list of 2 items"),
    "an unknown logger": (
        "train.loggers.wanbd={}", "train.loggers: 'wanbd' is not known; did you mean wandb?",
    ),
    "a setting of a protocol": (
        "evaluate.tasks={tasks: [HoC], protocol: {epoch: 3}}", "did you mean evaluate.tasks.protocol.epochs?",
    ),
    "no seeds": ("evaluate.tasks={tasks: [HoC], seeds: []}", "evaluate.tasks.seeds is empty; use a list"),
    "a seed twice": (
        "evaluate.tasks={tasks: [HoC], seeds: [1, 1]}", "evaluate.tasks.seeds: 1 is listed twice",
    ),
}  # fmt: skip


def test_there_are_forty_of_them():
    assert len(WRONG) >= 40
    assert len({override for override, _ in WRONG.values()}) == len(WRONG)


@pytest.mark.parametrize(("override", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_one_clear_sentence(override, expected):
    with pytest.raises(UserError) as caught:
        load_config(QUICKSTART, [override])
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert message.endswith((".", "?"))


@pytest.mark.parametrize("verb", ["run", "prepare", "train", "check", "plan"])
def test_every_verb_refuses_it_before_any_work(verb, tmp_path, monkeypatch, capsys):
    for override, expected in list(WRONG.values())[::8]:
        words = ["clm-detour", verb, str(QUICKSTART), f"run_dir={tmp_path}/run", override]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("Error: ")
        assert expected in said
        assert not (tmp_path / "run").exists()
