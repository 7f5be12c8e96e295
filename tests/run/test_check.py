"""A check raises an error for what cannot work, warns of what may be unintended, and prints no more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
)

from clm_detour.analyze.run import common_start
from clm_detour.config import load_config
from clm_detour.config.loading import load_evaluation
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import prepare_source
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.measure.encoder import load_encoder
from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.base import shapes_of
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import load_base
from clm_detour.records.store import as_json
from clm_detour.run.after_training import with_tokenizers
from clm_detour.run.check import check_before_run, check_recipe
from clm_detour.run.pipeline import prepare_data, run_recipe
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, write_json

ONE_ARM = "arms={detour: [pretrain, clm]}"
NO_TASKS = "evaluate.tasks=null"


@pytest.fixture(scope="module")
def sizes(tiny_data) -> dict[str, int]:
    """Sizes of a tiny model with the tiny tokenizer."""
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    return {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pad_token_id": tokenizer.pad,
        "cls_token_id": tokenizer.cls,
        "sep_token_id": tokenizer.sep,
        "bos_token_id": tokenizer.cls,
        "eos_token_id": tokenizer.sep,
    }


@pytest.fixture
def base(tmp_path, sizes) -> Path:
    """Folder of a masked language model without a tokenizer."""
    ModernBertForMaskedLM(ModernBertConfig(**sizes)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def load(tiny_recipe, tmp_path):
    """A function from overrides to a recipe with its own data folder."""
    path = tiny_recipe(tmp_path / "run")
    return lambda *words: load_config(path, [NO_TASKS, f"data.dir={tmp_path}/data", *words])


def with_base(folder: Path) -> list[str]:
    return [f"model={{base: {folder}, config: null}}", ONE_ARM]


def output_of(capsys, config, **options) -> list[str]:
    """Return the lines that a check without an error prints. The last one is the summary."""
    capsys.readouterr()
    check_recipe(Recipe(config), deep=False, **options)
    return capsys.readouterr().err.strip().splitlines()


# -- the base's weights


def rename(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({change(name): weight for name, weight in weights.items()}, folder / "model.safetensors")


def headless(folder: Path, sizes) -> None:
    ModernBertModel(ModernBertConfig(**sizes)).save_pretrained(folder)


def without_its_name(folder: Path) -> None:
    config = read_json(folder / "config.json")
    del config["architectures"]
    write_json(folder / "config.json", config)


def headless_without_its_name(folder: Path, sizes) -> None:
    headless(folder, sizes)
    without_its_name(folder)


def classifier(folder: Path, sizes) -> None:
    ModernBertForSequenceClassification(ModernBertConfig(**sizes)).save_pretrained(folder)


def classifier_without_its_name(folder: Path, sizes) -> None:
    classifier(folder, sizes)
    without_its_name(folder)


def pickled(folder: Path, sizes) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def other_names(folder: Path, sizes) -> None:
    rename(folder, lambda name: name.replace("head.dense", "head.linear"))


def other_shape(folder: Path, sizes) -> None:
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "intermediate_size": 64})


def truncated(folder: Path, sizes) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def a_shard_missing(folder: Path, sizes) -> None:
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = dict.fromkeys(names[1:], "model-00001-of-00002.safetensors")
    places[names[0]] = "model-00002-of-00002.safetensors"
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})


def untied(folder: Path, sizes) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["decoder.weight"] = weights["model.embeddings.tok_embeddings.weight"] + 1
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_names, r"missing: head\.dense\.weight; unexpected: head\.linear\.weight"),
        (
            other_shape,
            r"of another shape: model\.layers\.0\.mlp\.Wi\.weight \(96, 32\) instead of \(128, 32\)",
        ),
        (truncated, r"model\.safetensors is missing or damaged"),
        (a_shard_missing, r"model-00002-of-00002\.safetensors is missing or damaged"),
        (untied, r"its decoder\.weight is not its model\.embeddings"),
    ],
)
def test_a_base_that_cannot_be_trained_is_refused_before_the_data_is_prepared(
    load, base, sizes, tmp_path, spoil, message
):
    spoil(base, sizes)
    config = load(*with_base(base))
    for refuses in (lambda: check_recipe(Recipe(config), deep=False), lambda: run_recipe(config)):
        with pytest.raises(UserError, match=f"^model.base: .*{message}"):
            refuses()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "change", [headless, headless_without_its_name, classifier, classifier_without_its_name]
)
def test_a_base_without_a_masked_head_gets_a_new_one_and_a_warning(load, base, sizes, capsys, change):
    change(base, sizes)
    config = load(*with_base(base))
    *_, warning, summary = output_of(capsys, config)
    assert "has no masked-LM head, so training starts with a new one" in warning
    assert summary == "No errors; 1 warning."
    network = load_base(str(base), None, seed=4)
    assert torch.equal(network.head.dense.weight, load_base(str(base), None, seed=4).head.dense.weight)
    assert not torch.equal(network.head.dense.weight, load_base(str(base), None, seed=5).head.dense.weight)


def test_a_base_in_pickled_weights_is_read(load, base, sizes, capsys):
    before = load_base(str(base), None).state_dict()
    pickled(base, sizes)
    assert output_of(capsys, load(*with_base(base)))[-1] == "Nothing wrong found."
    after = load_base(str(base), None).state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_base_in_shards_is_whole_and_no_weight_of_it_is_loaded(load, base, capsys, monkeypatch):
    ModernBertForMaskedLM.from_pretrained(base).save_pretrained(base, max_shard_size="40KB")
    (base / "model.safetensors").unlink(missing_ok=True)
    assert (base / "model.safetensors.index.json").exists()
    monkeypatch.setattr("clm_detour.model.weights.load_file", lambda path: pytest.fail("weights were read"))
    assert output_of(capsys, load(*with_base(base)))[-1] == "Nothing wrong found."


def test_a_hub_base_that_is_not_in_the_cache_is_known_by_its_headers_over_the_network(monkeypatch):
    with pytest.raises(
        UserError,
        match=r"safetensors of some/model are neither in the cache nor can they be looked at .*offline",
    ):
        shapes_of("some/model")
    files = {"model.safetensors": SimpleNamespace(tensors={"decoder.bias": SimpleNamespace(shape=[8])})}
    seen = SimpleNamespace(files_metadata=files)
    monkeypatch.setattr("clm_detour.recipe.base.get_safetensors_metadata", lambda path: seen)
    assert shapes_of("some/model") == {"decoder.bias": (8,)}


@pytest.mark.skipif(transformers.__version__ < "5", reason="older releases have no such decoder")
def test_a_causal_decoder_is_a_base_and_a_spoilt_one_is_not(load, base, tmp_path):
    network = ModernBertForPretraining.from_pretrained(base)
    network.causal = True
    decoder = tmp_path / "decoder"
    network.to_decoder().save_pretrained(decoder)
    config = load(
        f"model={{base: {decoder}, config: null}}", "arms={detour: [clm, decay], twin: [mlm, decay]}"
    )
    recipe = Recipe(config)
    check_before_run(recipe)
    assert common_start(recipe.arms, str(decoder), recipe.folder) is None  # the analysis cannot open it
    rename(decoder, lambda name: name.replace("lm_head.dense", "head.dense"))
    with pytest.raises(
        UserError, match=r"\(missing: lm_head\.dense\.weight; unexpected: head\.dense\.weight\)"
    ):
        check_before_run(Recipe(config))


# -- the base's tokenizer


def test_a_base_without_a_tokenizer_is_opened_with_that_of_the_run(load, base):
    arms = "arms={detour: [clm, decay], twin: [mlm, decay]}"
    recipe = Recipe(load(*with_base(base), "evaluate.tasks={tasks: [SampleVerdict]}", arms))
    check_before_run(recipe)
    models = with_tokenizers({"base": str(base)}, recipe)
    encoder, tokenizer = load_encoder(models["base"])
    assert encoder.packed
    assert len(tokenizer) == recipe.tokenizer.vocab_size


def test_a_base_with_another_tokenizer_is_a_warning(load, base, tiny_data, capsys):
    for file in (tiny_data / "tokenizer").iterdir():
        shutil.copy(file, base)
    assert output_of(capsys, load(*with_base(base)))[-1] == "Nothing wrong found."
    spec = read_json(base / "tokenizer.json")
    write_json(base / "tokenizer.json", {**spec, "normalizer": {"type": "Lowercase"}})
    *_, warning, summary = output_of(capsys, load(*with_base(base)))
    assert "comes with another tokenizer" in warning
    assert summary == "No errors; 1 warning."


# -- sources and tasks


@pytest.mark.parametrize(
    "first",
    [
        '{"text": {"title": "A", "body": "B"}}\n{"text": "two"}\n',
        '{\n  "text": "over several lines"\n}\n',
        '{"text": "cut sho',
        '{"title": "no text"}\n',
    ],
    ids=["an object", "several lines", "truncated", "no field"],
)
def test_a_first_record_that_cannot_be_used_is_refused(load, tmp_path, first):
    (tmp_path / "notes.jsonl").write_text(first)
    config = load(f"data.sources.notes={{path: {tmp_path}/notes.jsonl}}")
    for refuses in (lambda: check_recipe(Recipe(config), deep=False), lambda: run_recipe(config)):
        with pytest.raises(UserError, match=r"notes\.jsonl"):
            refuses()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a\tx\nb\ty\n", "a\tz\n", "'z' is not a label of mine"),
        ("a\tx\nb\ty\n", "", "mine"),
    ],
)
def test_a_task_that_cannot_be_learned_or_scored_is_refused_before_any_training(
    load, tmp_path, train, test, message
):
    folder = tmp_path / "tasks" / "mine"
    folder.mkdir(parents=True)
    for split, rows in (("train", train), ("dev", train), ("test", test)):
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + rows)
    mine = "{form: tsv, kind: single_label, labels: [x, y]}"
    tasks = f"{{tasks: [mine], data: {tmp_path}/tasks, own_tasks: {{mine: {mine}}}}}"
    with pytest.raises(UserError, match=message):
        check_recipe(Recipe(load(f"evaluate.tasks={tasks}")), deep=False)


# -- what the run folder holds


GUIDELINES = """
run_dir: {folder}/run
data:
  processes: 1
  sequence_length: 64
  held_out: 0.1
  sources: {{guidelines: {{path: {folder}/guidelines.jsonl}}}}
  mixtures: {{all: {{guidelines: 1.0}}}}
tokenizer: {{path: {tokenizer}}}
model: {{config: {{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 2}}}}
train: {{batch_rows: 8, precision: fp32, workers: 0}}
phases:
  mlm:
    {{objective: mlm, mask_rate: 0.3, mixture: all, duration: 1024tok,
      schedule: {{name: warmup_constant, peak: 1e-3}}}}
  clm:
    {{objective: clm, mixture: all, duration: 1024tok,
      schedule: {{name: warmup_constant, peak: 1e-3}}}}
arms: {{detour: [clm], twin: [mlm]}}
"""


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory) -> Path:
    """A folder with 80 documents, and a run whose first phase was trained on them."""
    folder = tmp_path_factory.mktemp("trained")
    config = guidelines(folder, tiny_data, 80)
    prepare_data(config)
    train_phase(Recipe(config), Recipe(config).phase("detour", "clm"))
    return folder


@pytest.fixture
def started(trained, tiny_data, tmp_path):
    """A function from overrides to the recipe of a copy of that run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return lambda *words: guidelines(tmp_path, tiny_data, None, *words)


def guidelines(folder: Path, tiny_data: Path, count: int | None, *words: str):
    """Return a recipe of two phases; write `count` short texts for it first, unless it is None."""
    if count is not None:
        write_guidelines(folder, count)
    (folder / "r.yaml").write_text(GUIDELINES.format(folder=folder, tokenizer=tiny_data / "tokenizer"))
    return load_config(folder / "r.yaml", words)


def write_guidelines(folder: Path, count: int) -> None:
    lines = (
        json.dumps({"text": f"Guideline {i}: treat the patient with care and rest."}) for i in range(count)
    )
    (folder / "guidelines.jsonl").write_text("\n".join(lines))


def test_a_source_that_has_grown_is_told_in_documents_and_its_shards_are_left_as_they_are(started, tmp_path):
    check_recipe(Recipe(started()), deep=False)
    index = tmp_path / "run" / "data" / "guidelines" / "train" / "index.json"
    before = index.read_bytes()
    write_guidelines(tmp_path, 120)
    words = (
        rf"phases/clm was started with other settings \(source guidelines: 80 documents, now 120\); choose "
        rf"another run_dir, with data\.dir={tmp_path}/run/data to share the prepared data \(the changed "
        rf"sources are then prepared again and replaced there; another data\.dir keeps both\)"
    )
    for refuses in (lambda config: check_recipe(Recipe(config), deep=False), run_recipe):
        with pytest.raises(UserError, match=words):
            refuses(started())
    assert index.read_bytes() == before
    prepare_data(started())
    with pytest.raises(UserError, match=words):
        check_recipe(Recipe(started()), deep=False)


def test_a_source_whose_file_was_only_touched_is_the_same(started, tmp_path):
    os.utime(tmp_path / "guidelines.jsonl", (0, 0))
    check_recipe(Recipe(started()), deep=False)
    prepare_data(started())
    check_recipe(Recipe(started()), deep=False)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_source_that_is_as_it_was_is_not_refused_after_another_run_prepared_other_documents(
    started, tmp_path, capsys, recorded
):
    settings = tmp_path / "run" / "phases" / "clm" / "settings.json"
    if not recorded:  # as an earlier version wrote it
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "documents": {}}))
    before = (tmp_path / "guidelines.jsonl").read_bytes()
    write_guidelines(tmp_path, 42)
    prepare_data(started(f"run_dir={tmp_path}/other", f"data.dir={tmp_path}/run/data"))
    (tmp_path / "guidelines.jsonl").write_bytes(before)
    assert "was prepared for another run since clm was started" in "\n".join(output_of(capsys, started()))
    prepare_data(started())
    assert "another run" not in "\n".join(output_of(capsys, started()))
    assert not train_phase(Recipe(started()), Recipe(started()).phase("detour", "clm"))


def test_another_runs_seed_or_held_out_share_in_the_same_data_folder_is_not_laid_to_this_run(
    started, tmp_path, capsys
):
    for change in ("data.shuffle_seed=1", "data.held_out=0.2"):
        prepare_data(started(f"run_dir={tmp_path}/other", f"data.dir={tmp_path}/run/data", change))
        assert "was prepared for another run" in "\n".join(output_of(capsys, started()))


def test_what_leaves_the_rows_alone_is_to_be_tried_on_the_same_prepared_data(started, tmp_path):
    with pytest.raises(UserError, match=rf"another run_dir, with data\.dir={tmp_path}/run/data to share"):
        check_recipe(Recipe(started("train.batch_rows=16")), deep=False)


def test_another_file_with_the_same_documents_is_a_warning_and_the_run_goes_on(started, tmp_path, capsys):
    lines = [json.loads(line) for line in (tmp_path / "guidelines.jsonl").read_text().splitlines()]
    lines = [json.dumps({**line, "year": 2020}) for line in lines]
    (tmp_path / "guidelines.jsonl").write_text("\n".join(lines))
    assert re.search(
        r"source guidelines: its files changed \(\S+ in 1 file, now \S+ in 1 file\); preparing will show "
        r"whether its documents did\.",
        "\n".join(output_of(capsys, started())),
    )
    prepare_data(started())
    assert "files changed" not in "\n".join(output_of(capsys, started()))
    assert not train_phase(Recipe(started()), Recipe(started()).phase("detour", "clm"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.batch_rows=16", r"\(train\.batch_rows was 8, is now 16\)"),
        ("data.shuffle_seed=1", r"\(data\.shuffle_seed was 42, is now 1\)"),
        ("phases.clm.schedule.peak=1e-4", r"\(phases\.clm\.schedule\.peak was 0\.001, is now 0\.0001\)"),
        (
            "data={sources: {extra: {path: x}}, prepared: {extra: x}, mixtures: {all: {guidelines: 0.5, "
            "extra: 0.5}}}",
            r"shares\.guidelines was 1\.0, is now 0\.5; .*shares\.extra was not set, is now 0\.5\)",
        ),
        (
            "data.sources.guidelines.where=\"text != 'x'\"",
            r"\(data\.sources\.guidelines\.where was not set, is now text != 'x'\)",
        ),
        ("data.held_out=0.2", r"\(data\.held_out was 0\.1, is now 0\.2\)"),
    ],
)
def test_a_recipe_that_no_longer_fits_its_run_folder_says_what_changed(started, change, message):
    with pytest.raises(
        UserError, match=f"was started with other settings .*{message}; choose another run_dir"
    ):
        check_recipe(Recipe(started(change)), deep=False)


def test_another_sample_or_tokenizer_training_than_the_folder_holds_is_told(tiny_data, tmp_path):
    words = ["tokenizer={path: null, train: {vocab_size: 300}}", "data.sample={documents: 100}"]
    config = guidelines(tmp_path, tiny_data, 80, *words)
    prepare_data(config)
    check_recipe(Recipe(config), deep=False)
    for change, message in [
        (
            "data.sample.documents=200",
            r"run/sample was started with other settings \(documents was 100, is now 200\)",
        ),
        (
            "tokenizer.train.vocab_size=400",
            r"run/tokenizer was started with other settings \(vocab_size was 300, is now 400\)",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            check_recipe(Recipe(guidelines(tmp_path, tiny_data, None, *words, change)), deep=False)


def test_another_tokenizer_is_one_change_in_words(started, tiny_data, tmp_path):
    shutil.copytree(tiny_data / "tokenizer", tmp_path / "tokenizer")
    spec = read_json(tmp_path / "tokenizer" / "tokenizer.json")
    write_json(tmp_path / "tokenizer" / "tokenizer.json", {**spec, "normalizer": {"type": "Lowercase"}})
    with pytest.raises(UserError, match=r"settings \(the tokenizer changed\); choose another run_dir"):
        check_recipe(Recipe(started(f"tokenizer.path={tmp_path}/tokenizer")), deep=False)


def test_a_run_folder_of_the_first_release_is_still_the_same(started):
    config = started()
    path = Path(config.run_dir) / "phases" / "clm" / "settings.json"
    settings = read_json(path)
    del settings["documents"]  # which it did not write
    write_json(path, settings)
    check_recipe(Recipe(config), deep=False)
    assert not train_phase(Recipe(config), Recipe(config).phase("detour", "clm"))


# -- where a run writes


@pytest.mark.parametrize(
    "place", ["models/detour/precious", "phases/pretrain/model/precious", "report.html/precious"]
)
def test_what_the_run_would_write_over_is_told_first(load, place):
    config = load(ONE_ARM)
    precious = Path(config.run_dir) / place
    precious.parent.mkdir(parents=True)
    precious.write_text("of someone else")
    for refuses in (lambda: check_recipe(Recipe(config), deep=False), lambda: run_recipe(config)):
        with pytest.raises(UserError, match=r"would be lost|is a folder, where the page"):
            refuses()
    assert precious.read_text() == "of someone else"


@pytest.mark.parametrize("place", ["models", "evaluation", "analysis", "report", "phases"])
def test_a_file_in_the_place_of_a_folder_is_told_first(load, place):
    config = load(ONE_ARM)
    (Path(config.run_dir) / place).write_text("")
    with pytest.raises(UserError, match=f"Cannot write below .*{place}"):
        check_recipe(Recipe(config), deep=False)


def test_a_run_folder_where_even_an_administrator_cannot_write_is_refused(load):
    with pytest.raises(UserError, match="Cannot write below /proc"):
        check_recipe(Recipe(load(ONE_ARM, "run_dir=/proc/run")), deep=False)


@pytest.mark.parametrize("base", ["/no/such/model", "~/no-such-model"])
def test_a_base_that_is_a_path_and_not_there_is_said_not_to_exist(load, base):
    with pytest.raises(UserError, match=r"no.such.model does not exist"):
        check_recipe(Recipe(load("model={config: null, base: " + base + "}")), deep=False)


def test_a_duration_without_tokens_names_its_phase(load):
    with pytest.raises(UserError, match=r"^phases\.\w+\.duration: '10k' is not a duration"):
        load("phases.decay.duration=10k")


# -- what is doubtful


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            "phases.decay.duration=100tok",
            r"phases\.decay, phases\.decay_control: 100 tokens take 1 step of 8 rows of 64 tokens, which is "
            r"512 tokens, 412% more",
        ),
        (
            "phases.decay.duration=512tok",
            r"phases\.decay, phases\.decay_control: 512 tokens take 1 step of 8 rows of 64 tokens, which is "
            r"512 tokens; lower",
        ),
        (
            "phases.decay.duration=1200tok",
            r"phases\.decay, phases\.decay_control: 1,200 tokens take 3 steps of 8 rows of 64 tokens, which "
            r"is 1,536 tokens, 28% more",
        ),
        ("phases.decay.mask_rate=0.01", r"phases\.decay: mask_rate masks about 5\.1 tokens of a step"),
        (
            "data.mixtures.domain={abstracts: 3, notes: 0.8}",
            r"data\.mixtures\.domain: the shares sum to 4, not to 1; they are normalized to abstracts "
            r"0\.75, instructions 0\.05, notes 0\.2\.",
        ),
        (
            "evaluate.rows=5000",
            r"evaluate\.rows: 5000 of each source are wanted, and there are only abstracts \d+",
        ),
        (
            "evaluate.fill_masks=5000",
            r"evaluate\.fill_masks: 5000 sentences of each source are wanted, and there are at most "
            r"abstracts \d+",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning_and_no_error(tiny_recipe, tmp_path, capsys, change, warning):
    path = tiny_recipe(tmp_path / "run")
    prepare_data(load_config(path))
    assert output_of(capsys, load_config(path))[-1] == "Nothing wrong found."
    *_, found, summary = output_of(capsys, load_config(path, [change]))
    assert re.match(warning, found)
    assert summary == "No errors; 1 warning."


def test_a_phase_that_is_rounded_by_little_is_nothing_to_speak_of(load, capsys):
    assert output_of(capsys, load("phases.decay.duration=10001tok"))[-1] == "Nothing wrong found."


@pytest.mark.parametrize("prepared", [False, True])
def test_a_source_of_which_nothing_is_held_out_is_told_before_and_after_it_is_prepared(
    tiny_data, tmp_path, capsys, prepared
):
    config = guidelines(tmp_path, tiny_data, 6, "data.held_out=0.000001")
    if prepared:
        prepare_data(config)
    *_, source, comparison, summary = output_of(capsys, config)
    assert "source guidelines: none of its 6 documents is held out, so nothing is measured on it" in source
    assert (
        "There are 0 distinct held-out texts, and comparing the networks of detour and twin (CKA) takes 20"
        in comparison
    )
    assert summary == "No errors; 2 warnings."
    assert output_of(capsys, config, size_warnings=False)[-1] == "Nothing wrong found."  # under +debug


def test_copies_of_a_held_out_text_count_once_for_the_comparison(tiny_data, tmp_path, capsys):
    config = guidelines(tmp_path, tiny_data, 60, "data.held_out=0.2", "evaluate.fill_masks=1")
    path = tmp_path / "guidelines.jsonl"
    path.write_text("\n".join([path.read_text()] * 5))
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    distinct = {text for text in texts if is_held_out(text, 0.2)}
    assert len(distinct) < 20 < 5 * len(distinct)
    assert f"There are {len(distinct)} distinct held-out texts" in "\n".join(output_of(capsys, config))


def test_a_check_shows_how_a_text_is_framed(load, capsys):
    assert "A text is encoded as [CLS] the patient had fever [SEP]" in output_of(capsys, load())


def test_shares_are_shown_as_they_are_taken(load, tmp_path, capsys):
    from clm_detour.plan import make_plan, print_plan

    config = load("data.mixtures.domain={abstracts: 3, notes: 0.8}")
    print_plan(make_plan(Recipe(config)))
    assert re.search(r"abstracts +75\.0%", capsys.readouterr().err)


# -- what was not measured is no number


def test_no_held_out_text_has_no_score(tmp_path, base, tiny_data):
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    write_guidelines(tmp_path, 30)
    sources = {}
    for name, held_out in (("none", 0.0), ("some", 0.5)):
        path = str(tmp_path / "guidelines.jsonl")
        prepare_source(name, path, tmp_path / name, tokenizer, 64, 0, held_out, processes=1)
        sources[name] = PackedSource.open(tmp_path / name / "held_out", 64)
    network = ModernBertForPretraining.from_pretrained(base)
    nothing = {"loss": None, "accuracy": None, "predicted": 0}

    def score(*names: str):
        chosen = {name: sources[name] for name in names}
        held_out = HeldOut(chosen, tokenizer.vocabulary, 64, 0.5, 4, 0)
        return as_json(held_out.score(network, lambda rows: None))

    both, none = score("none", "some"), score("none")
    assert both["by_source"]["none"] == nothing
    assert both["by_source"]["some"]["loss"] > 1
    assert both["loss"] == both["by_source"]["some"]["loss"]
    assert none == {**nothing, "by_source": {"none": nothing}}


# -- the home folder


def test_a_tilde_is_the_home_folder_in_every_path_of_a_recipe(load, base, tmp_path, tiny_data, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_data / "sample", tmp_path / "sample")
    sources = ", ".join(f"{name}: {{path: ~/sample/{name}.jsonl.gz}}" for name in ("abstracts", "notes"))
    config = load(
        "run_dir=~/run",
        "data.dir=~/data",
        "data.cache_dir=~/cache",
        "data.prepared.notes=~/data/notes",
        "data.root=~/root",
        f"data.sources={{{sources}, rooted: {{path: '${{data.root}}/x.jsonl', "
        "decontaminate: [~/a.tsv], template: '~{text}'}}",
        "data.mixtures={general: {abstracts: 1.0}, domain: {notes: 1.0}}",
        "model={base: ~/base, config: null}",
        "train.loggers={tensorboard: {log_dir: ~/logs}}",
        "evaluate.tasks={tasks: [SampleVerdict], data: ~/tasks}",
    )
    rooted = config.data.sources["rooted"]
    found = [
        config.run_dir,
        config.data.dir,
        config.data.cache_dir,
        config.data.prepared["notes"],
        config.data.root,
        config.data.sources["notes"].path,
        rooted.path,
        *rooted.decontaminate,
        config.model.base,
        config.train.loggers["tensorboard"]["log_dir"],
        config.evaluate.tasks.data,
    ]
    names = [
        "run",
        "data",
        "cache",
        "data/notes",
        "root",
        "sample/notes.jsonl.gz",
        "root/x.jsonl",
        "a.tsv",
        "base",
        "logs",
        "tasks",
    ]
    assert found == [f"{tmp_path}/{name}" for name in names]
    assert rooted.template == "~{text}"  # no path
    assert (
        load("model={base: answerdotai/ModernBERT-base, config: null}").model.base
        == "answerdotai/ModernBERT-base"
    )


def test_a_tilde_is_the_home_folder_in_an_evaluation_and_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "e.yaml").write_text("{name: e, run_dir: ~/runs, tasks: [SampleVerdict], models: {a: ~/a}}")
    evaluation = load_evaluation(tmp_path / "e.yaml", models=["b=~/b"])
    assert (evaluation.run_dir, evaluation.models) == (
        f"{tmp_path}/runs",
        {"a": f"{tmp_path}/a", "b": f"{tmp_path}/b"},
    )
    program = "from clm_detour.__main__ import main; main()"
    words = [sys.executable, "-c", program, "tasks", "~/nowhere"]
    message = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert f"There is no folder {tmp_path}/nowhere." in message.stderr
