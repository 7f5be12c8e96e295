"""A mistake on the command line or in a recipe is one sentence and exit code 2, before any work is done."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from clm_detour.__main__ import main


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Run the command in this process; gives its exit code and the last line of what it output."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clm-detour", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), (err or out).strip()

    return run


def assert_one_sentence(result: tuple[int, str], *expected: str) -> None:
    code, output = result
    lines = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert code == 2
    assert len(lines) == 1
    assert output.endswith(lines[0])
    assert "Traceback" not in output
    for words in expected:
        assert words in lines[0]


@pytest.fixture
def recipe(tiny_recipe, tmp_path) -> Path:
    """A recipe with its own folder of prepared data."""
    path = tiny_recipe(tmp_path / "run")
    path.write_text(path.read_text() + f"# {tmp_path}\n")
    return path


@pytest.mark.parametrize("verb", ["run", "prepare", "check"])
def test_an_unknown_key(run_cli, recipe, verb):
    assert_one_sentence(run_cli(verb, recipe, "phases.clm.duraton=1tok"), "did you mean phases.clm.duration?")


@pytest.mark.parametrize("verb", ["run", "check"])
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.attention=flahs", "did you mean flash?"),
        ("model.config.attention_dropout=0.1", "attention_dropout is 0.1"),
        ("train.loggers={tensorboard: {log_dri: x}}", "did you mean log_dir?"),
    ],
)
def test_what_would_stop_training_is_said_before_anything_is_prepared(
    run_cli, recipe, tmp_path, verb, override, expected
):
    words = [override, f"data.dir={tmp_path}/data"]
    assert_one_sentence(run_cli(verb, recipe, *words), expected)
    assert not list((tmp_path / "data").rglob("*.bin"))


@pytest.mark.parametrize("verb", ["run", "check"])
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.batch_rows=9", "9 rows do not divide over 4 processes"),
        ("model.config.pad_token_id=17", "use the tokenizer that the model was trained with"),
        ("data.sources.notes.text=note", "note"),
        ("data.sources.notes.path=nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_batches_tokenizer_and_sources_are_checked_before_anything_is_prepared(
    run_cli, recipe, tmp_path, monkeypatch, verb, override, expected
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    words = [override, f"data.dir={tmp_path}/data", "train.micro_rows=2"]
    assert_one_sentence(run_cli(verb, recipe, *words), expected)
    assert not (tmp_path / "data").exists()


def test_the_processes_are_those_of_all_machines(run_cli, recipe, tmp_path, monkeypatch):
    environment = {"WORLD_SIZE": "3", "NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    output = run_cli("run", recipe, f"data.dir={tmp_path}/data")
    assert_one_sentence(output, "8 rows do not divide over 3 processes")
    assert not (tmp_path / "data").exists()


def test_a_tokenizer_that_the_run_trains_is_checked_before_the_sources_are_prepared(
    run_cli, recipe, tmp_path
):
    words = ["tokenizer={path: null, train: {vocab_size: 300}}", "model.config.pad_token_id=17"]
    assert_one_sentence(run_cli("run", recipe, *words, f"data.dir={tmp_path}/data"), "[PAD]", "17")
    assert not (tmp_path / "data").exists()


def test_a_first_record_without_the_field_is_no_reason_to_refuse_where_such_are_skipped(
    run_cli, recipe, tmp_path
):
    (tmp_path / "notes.jsonl").write_text('{"txt": "one"}\n{"text": "two"}\n')
    words = source(tmp_path / "notes.jsonl")
    assert_one_sentence(run_cli("check", recipe, *words), "notes.jsonl", "text")
    assert run_cli("check", recipe, *words, "data.on_error=skip")[0] == 0


def test_a_duration_without_unit(run_cli, recipe):
    assert_one_sentence(run_cli("run", recipe, "phases.clm.duration=5000"), "write 5000tok")


def test_a_missing_config(run_cli):
    assert_one_sentence(run_cli("run", "nowhere.yaml"), "nowhere.yaml")


def source(path: Path) -> list[str]:
    return [f"data.sources.notes.path={path}", f"data.dir={path.parent}/data"]


@pytest.mark.parametrize("verb", ["run", "prepare", "check"])
def test_a_missing_source(run_cli, recipe, tmp_path, verb):
    assert_one_sentence(run_cli(verb, recipe, *source(tmp_path / "absent.jsonl")), "absent.jsonl")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["notes.jsonl"]),
        (b'{"text": "one"}\n{"text": \n', ["notes.jsonl", "line 2", "on_error"]),
        (b'{"txt": "one"}\n', ["notes.jsonl", "text"]),
        (b'{"text": "\xff\xfe"}\n', ["notes.jsonl"]),
    ],
    ids=["empty", "broken JSON", "no text field", "not UTF-8"],
)
def test_a_source_that_cannot_be_used(run_cli, recipe, tmp_path, content, expected):
    (tmp_path / "notes.jsonl").write_bytes(content)
    assert_one_sentence(run_cli("prepare", recipe, *source(tmp_path / "notes.jsonl")), *expected)


def test_a_truncated_gzip_file(run_cli, recipe, tmp_path):
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(5000)))
    (tmp_path / "notes.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert_one_sentence(run_cli("prepare", recipe, *source(tmp_path / "notes.jsonl.gz")), "notes.jsonl.gz")


def test_broken_records_are_counted_and_reported_where_asked(run_cli, recipe, tmp_path):
    good = "".join(json.dumps({"text": f"A note on patient {i}."}) + "\n" for i in range(300))
    (tmp_path / "notes.jsonl").write_text(good + "{broken\n" + '{"text": "  "}\n')
    code, output = run_cli("prepare", recipe, *source(tmp_path / "notes.jsonl"), "data.on_error=skip")
    assert code == 0
    assert "1 left out (broken JSON)" in output
    report = json.loads((tmp_path / "data" / "notes" / "card.json").read_text())
    assert report["dropped"] == {"broken JSON": 1, "empty": 1}


def test_a_tokenizer_that_is_too_large_for_the_model(run_cli, recipe):
    assert_one_sentence(
        run_cli("check", recipe, "model.config.vocab_size=100"), "vocabulary only 100", "tokenizer.path"
    )


def test_a_tokenizer_whose_special_tokens_are_not_the_models(run_cli, recipe):
    assert_one_sentence(run_cli("run", recipe, "model.config.pad_token_id=17"), "[PAD]", "17")


def test_an_unknown_key_of_the_model(run_cli, recipe):
    assert_one_sentence(
        run_cli("check", recipe, "model.config.hiden_size=64"), "did you mean model.config.hidden_size?"
    )


def test_a_folder_that_cannot_be_written(run_cli, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_sentence(run_cli("run", recipe, f"run_dir={tmp_path}/file/run"), "Cannot write")
    assert_one_sentence(run_cli("check", recipe, f"run_dir={tmp_path}/file/run"), "Cannot write")


@pytest.fixture
def damaged(run_cli, recipe, tiny_data, tmp_path):
    """The arguments of a run on prepared data, and one of its shards."""
    assert run_cli("prepare", recipe)[0] == 0
    shutil.copytree(tiny_data / "data", tmp_path / "data")
    return [recipe, f"data.dir={tmp_path}/data"], tmp_path / "data" / "general" / "train" / "tokens-00000.bin"


def test_a_flipped_byte_in_a_shard(run_cli, damaged):
    words, shard = damaged
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert run_cli("check", *words)[0] == 0
    assert_one_sentence(run_cli("check", "--deep", *words), str(shard), "damaged", "clm-detour prepare")


def test_a_damaged_row_is_not_trained_on(run_cli, damaged):
    words, shard = damaged
    content = bytearray(shard.read_bytes())
    content[::64] = bytes(byte ^ 1 for byte in content[::64])  # every row has one
    shard.write_bytes(content)
    assert_one_sentence(run_cli("run", *words), str(shard), "damaged", "clm-detour prepare")


@pytest.mark.parametrize("name", ["tokens-00000.bin", "lengths-00000.npy", "rows-64-00000.bin"])
@pytest.mark.parametrize(
    ("damage", "output"),
    [
        (
            lambda file: file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
            "is damaged",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "is truncated"),
        (lambda file: file.unlink(), "is missing"),
    ],
    ids=["flipped byte", "truncated", "missing"],
)
def test_a_deep_check_names_the_file_that_is_not_whole(run_cli, damaged, name, damage, output):
    words, shard = damaged
    damage(shard.with_name(name))
    assert_one_sentence(run_cli("check", "--deep", *words), str(shard.with_name(name)), output)


def test_a_check_refuses_data_of_another_tokenizer(run_cli, damaged):
    words, shard = damaged
    index = shard.with_name("index.json")
    index.write_text(re.sub(r'"fingerprint": ".{8}', '"fingerprint": "00000000', index.read_text()))
    assert_one_sentence(run_cli("check", *words), str(shard.parent), "another tokenizer")


def test_a_truncated_shard(run_cli, damaged):
    words, shard = damaged
    shard.write_bytes(shard.read_bytes()[:-2])
    assert_one_sentence(run_cli("check", *words), str(shard), "truncated")


def test_a_damaged_shard_read_by_a_loader_process(run_cli, damaged):
    words, shard = damaged
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert_one_sentence(run_cli("run", *words, "train.workers=1"), str(shard), "damaged")


def test_a_run_folder_is_never_continued_with_other_settings(run_cli, recipe):
    assert run_cli("prepare", recipe)[0] == 0
    words = ["train", recipe, "arm=base", "phase=pretrain"]
    assert run_cli(*words)[0] == 0
    code, output = run_cli(*words)
    assert code == 0
    assert "nothing to do" in output
    other = run_cli(*words, "phases.pretrain.schedule.peak=1e-4")
    assert_one_sentence(other, "schedule.peak was 0.0015, is now 0.0001", "run_dir")


def test_training_a_phase_before_its_parent(run_cli, recipe):
    assert_one_sentence(run_cli("train", recipe, "arm=detour", "phase=clm"), "pretrain", "has not finished")
    assert_one_sentence(run_cli("train", recipe), "arm=ARM phase=PHASE", "detour")
    assert_one_sentence(run_cli("export", recipe, "detour", "somewhere"), "has not finished")


def test_export_says_which_arguments_belong_together(run_cli, tmp_path):
    with_onnx = "clm-detour export MODEL OUT --onnx"
    for words in (("third",), ("third", "seed=1"), ("--dtype", "bf16"), ("--ema",)):
        assert_one_sentence(run_cli("export", "model", tmp_path / "out", *words, "--onnx"), with_onnx)
    without = "clm-detour export CONFIG ARM FOLDER"
    for words in ((), ("third", "--int8"), ("third", "--head", "features")):
        result = run_cli("export", "model", "arm", *words)
        assert_one_sentence(result, without, "--int8 and --head need --onnx")
    missing = run_cli("export", "./nothing", tmp_path / "out", "--onnx")
    assert_one_sentence(missing, "./nothing does not exist")


def test_check_finds_nothing_wrong_and_lists_the_phases(run_cli, recipe):
    code, output = run_cli("check", recipe)
    assert code == 0
    assert "pretrain.clm.decay" in output
    assert "Nothing wrong" in output


def test_check_counts_its_warnings_and_debug_keeps_quiet_about_sizes(run_cli, recipe):
    words = ["phases.decay.duration=100tok", "data.mixtures.domain.notes=0.3"]
    code, output = run_cli("check", recipe, *words)
    assert (code, output.splitlines()[-1]) == (0, "No errors; 2 warnings.")
    code, output = run_cli("check", recipe, "+debug", *words)
    assert (code, output.splitlines()[-1]) == (0, "No errors; 1 warning.")
    assert "they are normalized" in output


def test_check_warns_where_the_disk_is_too_small(run_cli, recipe, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1))
    code, output = run_cli("check", recipe)
    assert code == 0
    assert "1B are free there" in output


def test_doctor_names_versions_and_the_attention_back_end(run_cli):
    code, output = run_cli("doctor")
    assert code == 0
    for word in ("torch", "composer", "attention", "portable"):
        assert word in output


def test_help_does_not_import_the_heavy_libraries():
    heavy = ("torch", "composer", "transformers", "altair", "vl_convert")
    program = f"import sys, clm_detour.cli.main; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.parametrize("verb", ["run", "train", "bench"])
def test_without_composer_a_training_verb_names_the_command_that_adds_it(
    run_cli, recipe, tmp_path, monkeypatch, verb
):
    monkeypatch.setattr("clm_detour.train.importlib.util.find_spec", lambda name: None)
    result = run_cli(verb, recipe, "arm=base", "phase=pretrain") if verb != "run" else run_cli(verb, recipe)
    assert_one_sentence(result, "Composer", "pip install 'clm-detour[train]'")
    assert not list((tmp_path / "run").iterdir())
