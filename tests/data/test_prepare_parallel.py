"""Preparing in many processes, stopped anywhere, with files added: the same bytes, and nothing done twice."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from reading import write

from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data import groups, prepare
from clm_detour.data.groups import divide
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import SourceReport, prepare_source
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources.records import Unit
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer
from clm_detour.utils import files
from clm_detour.utils.errors import UserError

FILES, DOCUMENTS = 4, 60
AGAIN = 35  # documents in a part of a split, in what the other split had begun, and in a batch under way


def text_of(file: int, number: int) -> str:
    """Every fifth text comes in all files."""
    name = f"patient {number}" if number % 5 == 0 else f"patient {number} of hospital {file}"
    return f"The {name} was given {number % 7} mg of aspirin. " * (1 + number % 9)


def write_file(folder: Path, file: int) -> str:
    lines = (json.dumps({"text": text_of(file, number), "score": number % 3}) for number in range(DOCUMENTS))
    return write(folder / f"{file}.jsonl.gz", "\n".join(lines))


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([text_of(1, number) for number in range(DOCUMENTS)], 300, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture
def corpus(tmp_path) -> Path:
    (tmp_path / "corpus").mkdir()
    for file in range(FILES):
        write_file(tmp_path / "corpus", file)
    return tmp_path / "corpus"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sizes at which a small corpus has several parts, shards and groups."""
    monkeypatch.setattr(prepare, "PART_TOKENS", 1500)
    monkeypatch.setattr(prepare, "SHARD_TOKENS", 4000)
    monkeypatch.setattr(groups, "LARGE_BYTES", 0)
    monkeypatch.setattr("clm_detour.data.tokenization.BATCH_CHARACTERS", 200)


@pytest.fixture
def run(corpus, tokenizer) -> Callable[..., SourceReport]:
    def prepared(folder: Path, processes: int = 1, seed: int = 1, **settings: Any) -> SourceReport:
        source = Source(path=str(corpus), **settings)
        return prepare_source("notes", source, folder, tokenizer, 64, seed, 0.1, processes=processes)

    return prepared


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The texts that were tokenised."""
    found: list[str] = []
    encode_batch = Tokenizer.encode_batch

    def recorded(self, texts):
        found.extend(texts)
        return encode_batch(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_batch", recorded)
    return found


def everything_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def texts_in(folder: Path, tokenizer: Tokenizer) -> list[str]:
    shards, texts = TokenShards.open(folder), []
    for shard in range(len(shards)):
        documents = np.split(shards.tokens(shard), np.cumsum(shards.lengths(shard))[:-1])
        texts += [tokenizer.tokenizer.decode(ids[1:-1].tolist()) for ids in documents]
    return texts


SETTINGS: list[dict[str, Any]] = [
    {},
    {"deduplicate": True, "repeat": {"score == 1": 2.5}, "where": "score < 2"},
    {"deduplicate": NearDuplicates(near=0.5), "where": "score < 2"},
    {"deduplicate": NearDuplicates(near=0.5, by="paragraph")},
]


def test_the_bytes_are_the_same_for_any_number_of_processes(run, tmp_path, monkeypatch):
    run(tmp_path / "one", **SETTINGS[1])
    monkeypatch.setattr(prepare, "SMALL_BYTES", 0)
    run(tmp_path / "three", processes=3, **SETTINGS[1])
    assert everything_in(tmp_path / "one") == everything_in(tmp_path / "three")
    assert len(TokenShards.open(tmp_path / "one" / "train")) > 2


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize(("first", "settings"), enumerate(SETTINGS, start=1))
def test_killed_at_any_write_and_run_again_gives_the_same_bytes(
    run, corpus, tmp_path, monkeypatch, first, settings, encoded
):
    for file in range(2, FILES):
        (corpus / f"{file}.jsonl.gz").unlink()
    monkeypatch.setattr(files.os, "fsync", lambda _: None)
    replace, writes = os.replace, 0

    def counted(temporary, path):
        nonlocal writes
        writes += 1
        if writes == fatal:
            shutil.copy(temporary, f"{temporary}0")  # a process that is really killed deletes nothing
            raise Killed
        replace(temporary, path)

    monkeypatch.setattr(files.os, "replace", counted)
    fatal = 0
    run(tmp_path / "whole", **settings)
    whole, in_all = everything_in(tmp_path / "whole"), len(encoded)
    assert writes > 35
    moments = range(first, writes, 6)
    for fatal in moments:
        encoded.clear()
        folder, writes = tmp_path / str(fatal), 0
        with pytest.raises(Killed):
            run(folder, **settings)
        run(folder, **settings)
        assert everything_in(folder) == whole
        assert len(encoded) - in_all <= AGAIN


PROGRAM = """
import sys
from clm_detour.data import groups, prepare
from clm_detour.data.tokenizer import load_tokenizer
if __name__ == "__main__":
    prepare.PART_TOKENS, prepare.SHARD_TOKENS, prepare.SMALL_BYTES, groups.LARGE_BYTES = 1500, 4000, 0, 0
    corpus, folder, tokenizer = sys.argv[1:]
    loaded = load_tokenizer(tokenizer)
    prepare.prepare_source("notes", corpus, prepare.Path(folder), loaded, 64, 1, 0.1, processes=2)
"""


def test_a_killed_run_takes_its_processes_with_it_and_another_ends_the_work(
    run, corpus, tmp_path, tokenizer_folder
):
    for file in range(FILES, 16):
        write_file(corpus, file)
    run(tmp_path / "whole")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(corpus), str(tmp_path / "broken")]
    process = subprocess.Popen([*command, str(tokenizer_folder)], stderr=subprocess.DEVNULL)
    parts = tmp_path / "broken" / "parts"
    while process.poll() is None and len(list(parts.glob("*/group.json"))) < 3:
        time.sleep(0.005)
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(runs, workers))
    assert 3 <= len(list(parts.glob("*/group.json"))) < 16
    run(tmp_path / "broken")
    assert everything_in(tmp_path / "broken") == everything_in(tmp_path / "whole")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("added", ["00.jsonl.gz", "2a.jsonl.gz", "9.jsonl.gz"])
def test_a_file_more_is_all_that_is_tokenised(run, corpus, tmp_path, encoded, added):
    run(tmp_path / "grown")
    write(corpus / added, json.dumps({"text": "One more. " * 400}))
    encoded.clear()
    run(tmp_path / "grown")
    assert encoded == ["One more. " * 400]
    run(tmp_path / "anew")
    assert everything_in(tmp_path / "grown") == everything_in(tmp_path / "anew")
    (corpus / added).unlink()
    encoded.clear()
    run(tmp_path / "grown")
    assert encoded == []


def test_a_changed_file_is_all_that_is_tokenised_again(run, corpus, tmp_path, encoded):
    run(tmp_path / "data")
    encoded.clear()
    os.utime(corpus / "2.jsonl.gz", (1, 1))
    run(tmp_path / "data")
    assert encoded == [text_of(2, number) for number in range(DOCUMENTS)]
    assert len(list((tmp_path / "data" / "parts").iterdir())) == FILES


def test_a_file_before_others_takes_their_copies_and_only_theirs(run, corpus, tmp_path, tokenizer, encoded):
    report = run(tmp_path / "grown", deduplicate=True)
    assert report.dropped == {"duplicate": (FILES - 1) * DOCUMENTS // 5}
    (corpus / "0.jsonl.gz").rename(corpus / "8.jsonl.gz")
    encoded.clear()
    run(tmp_path / "grown", deduplicate=True)
    again = {text_of(1, number) for number in range(DOCUMENTS)} | {
        text_of(0, number) for number in range(DOCUMENTS)
    }
    assert set(encoded) <= again
    order = [1, 2, 3, 0]
    expected = list(dict.fromkeys(text_of(file, number) for file in order for number in range(DOCUMENTS)))
    found = [
        text for split in ("train", "held_out") for text in texts_in(tmp_path / "grown" / split, tokenizer)
    ]
    assert sorted(found) == sorted(expected)
    run(tmp_path / "anew", deduplicate=True)
    assert everything_in(tmp_path / "grown") == everything_in(tmp_path / "anew")


def test_small_files_are_taken_together_and_a_new_one_changes_the_group_around_it_only(monkeypatch):
    monkeypatch.undo()
    names = [f"note-{number:06d}.txt" for number in range(5000)]
    before = divide([Unit(name, "text", 1000) for name in names])
    after = divide([Unit(name, "text", 1000) for name in sorted([*names, "note-002500a.txt"])])
    assert 40 < len(before) < 160
    assert [unit for group in before for unit in group] == [Unit(name, "text", 1000) for name in names]
    assert len(set(after) - set(before)) <= 2


def test_files_together_give_the_bytes_of_files_apart(run, tmp_path, monkeypatch):
    run(tmp_path / "apart")
    monkeypatch.setattr(groups, "LARGE_BYTES", 2**30)
    run(tmp_path / "together")
    for split in ("train", "held_out"):
        one, other = (TokenShards.open(tmp_path / name / split) for name in ("apart", "together"))
        tokens = [np.concatenate([shards.tokens(n) for n in range(len(shards))]) for shards in (one, other)]
        np.testing.assert_array_equal(*tokens)


def test_an_error_in_a_process_is_the_sentence_it_would_be_here(run, corpus, tmp_path, monkeypatch):
    content = gzip.decompress((corpus / "2.jsonl.gz").read_bytes())
    (corpus / "2.jsonl.gz").write_bytes(gzip.compress(content + b"\n{broken"))
    monkeypatch.setattr(prepare, "SMALL_BYTES", 0)
    with pytest.raises(UserError, match=r"2\.jsonl\.gz line 61 is not valid JSON"):
        run(tmp_path / "data", processes=2)


def test_two_runs_at_once_do_the_work_once(run, tmp_path, encoded):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: run(tmp_path / "data"), range(2)))
    assert len(encoded) == FILES * DOCUMENTS
    assert sorted(report.skipped for report in reports) == [False, True]
    PackedSource.open(tmp_path / "data" / "train", 64).verify()
