"""Near copies of earlier texts are left out, whatever the division into groups and processes, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from near import WORDS, brute_jaccard, edited, greedy, new_text
from reading import write

from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data import fingerprints, groups, prepare
from clm_detour.data.copies import LISTING
from clm_detour.data.prepare import SourceReport, prepare_source
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer

NEAR = NearDuplicates(near=0.5)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([" ".join(WORDS)], 400, folder)
    return load_tokenizer(str(folder))


@pytest.fixture
def run(tmp_path, tokenizer) -> Callable[..., SourceReport]:
    """Prepare texts, divided among files, and report."""

    def prepared(texts: list[str], name: str = "a", files: int = 1, **settings: Any) -> SourceReport:
        arguments = {"held_out": 0.2, "processes": 1, "rule": NEAR} | settings
        corpus = tmp_path / f"{name}-corpus"
        corpus.mkdir(exist_ok=True)
        for number, some in enumerate(np.array_split(np.array(texts, dtype=object), files)):
            lines = "".join(json.dumps({"text": text}) + "\n" for text in some)
            path = corpus / f"{number:03}.jsonl"
            if not path.exists() or path.read_text() != lines:
                write(path, lines)
        source = Source(path=str(corpus), deduplicate=arguments.pop("rule"))
        return prepare_source(name, source, tmp_path / name, tokenizer, 64, 1, **arguments)

    return prepared


def texts_in(folder: Path, tokenizer: Tokenizer, split: str) -> list[str]:
    shards, texts = TokenShards.open(folder / split), []
    for shard in range(len(shards)):
        documents = np.split(shards.tokens(shard), np.cumsum(shards.lengths(shard))[:-1])
        texts += [tokenizer.tokenizer.decode(ids[1:-1].tolist()) for ids in documents]
    return texts


def listed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LISTING).read_text().splitlines()]


def everything_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def with_copies(rng: random.Random, originals: int, words: int, shares: list[float]) -> list[str]:
    """Texts, and of each an edited copy somewhere behind it."""
    texts = [new_text(rng, words) for _ in range(originals)]
    copies = [edited(rng, text, rng.choice(shares)) for text in texts]
    rng.shuffle(copies)
    return texts + copies


def test_copies_are_found_by_how_much_of_them_was_edited(run, tmp_path, capsys):
    rng = random.Random(1)
    originals = [new_text(rng, 120) for _ in range(400)]
    recall = {}
    for share in (0, 0.05, 0.1, 0.2, 0.4):
        copies = [edited(rng, text, share).replace(".", " ;") for text in originals]
        report = run(originals + copies, f"edited-{share}")
        assert all(line["document"] > len(originals) for line in listed(tmp_path / f"edited-{share}"))
        recall[share] = report.dropped.get("near duplicate", 0) / len(originals)
    with capsys.disabled():
        print("\nrecall by share of edited words:", recall)
    assert recall[0] == 1
    assert recall[0.05] >= recall[0.1] >= 0.95
    assert recall[0.4] == 0


def test_what_is_left_out_is_what_comparing_all_texts_leaves_out(run, tmp_path, tokenizer):
    rng = random.Random(2)
    texts = with_copies(rng, 60, 80, [0.02, 0.05, 0.08, 0.1, 0.15, 0.3])
    texts += with_copies(rng, 30, 8, [0, 0.1, 0.2]) + ["one", "one two", "one", "", "Two, one"]
    report = run(texts)
    kept = [text for split in ("train", "held_out") for text in texts_in(tmp_path / "a", tokenizer, split)]
    distinct = [text for text in dict.fromkeys(texts) if text]
    expected = greedy(distinct, 0.5)
    assert len(set(kept) ^ set(expected)) <= 1  # a pair at the threshold is found with 98 %
    assert set(expected) <= set(kept)
    assert report.dropped["duplicate"] == 1
    for line in listed(tmp_path / "a"):
        late, early = (texts_as_read(texts)[place["document"] - 1] for place in (line, line["near"]))
        assert line["jaccard"] == round(brute_jaccard(late, early), 6) >= 0.5
        assert early in kept
        assert late not in kept


def texts_as_read(texts: list[str]) -> list[str]:
    return [text for text in texts if text]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1, 7, 2**12]), st.sampled_from([50, 10**6]))
def test_any_division_leaves_out_the_same(run, tmp_path, monkeypatch, tokenizer, seed, files, block, batch):
    texts = with_copies(random.Random(seed), 20, 40, [0, 0.05, 0.1, 0.2])
    with monkeypatch.context() as patch:
        run(texts, f"whole-{seed}")
        patch.setattr(groups, "LARGE_BYTES", 0)
        patch.setattr(fingerprints, "BLOCK", block)
        patch.setattr(fingerprints, "BATCH_CHARACTERS", batch)
        run(texts, f"parts-{seed}-{files}-{block}-{batch}", files)
    whole, parts = tmp_path / f"whole-{seed}", tmp_path / f"parts-{seed}-{files}-{block}-{batch}"
    for split in ("train", "held_out"):
        assert texts_in(whole, tokenizer, split) == texts_in(parts, tokenizer, split)
    assert [line["jaccard"] for line in listed(whole)] == [line["jaccard"] for line in listed(parts)]
    assert len(listed(whole)) > 3


def test_the_bytes_are_the_same_for_any_number_of_processes(run, tmp_path, monkeypatch):
    texts = with_copies(random.Random(3), 60, 60, [0, 0.05, 0.1])
    monkeypatch.setattr(groups, "LARGE_BYTES", 0)
    run(texts, "notes", 4)
    (tmp_path / "notes").rename(tmp_path / "one")
    monkeypatch.setattr(prepare, "SMALL_BYTES", 0)
    run(texts, "notes", 4, processes=3)
    assert everything_in(tmp_path / "one") == everything_in(tmp_path / "notes")
    assert not list((tmp_path / "notes" / "parts").glob("*.bands"))


def test_no_near_copy_is_on_the_other_side_of_the_split(run, tmp_path, tokenizer):
    texts = with_copies(random.Random(4), 150, 50, [0.02, 0.05])
    run(texts, held_out=0.5)
    train, held_out = (texts_in(tmp_path / "a", tokenizer, split) for split in ("train", "held_out"))
    assert min(len(train), len(held_out)) > 40
    assert not any(brute_jaccard(one, other) >= 0.5 for one in train for other in held_out)


def test_a_changed_threshold_tokenizes_only_the_files_whose_copies_changed(run, monkeypatch):
    rng = random.Random(5)
    texts = [new_text(rng, 60) for _ in range(90)]
    texts[-1] = edited(rng, texts[0], 0.1)  # near at 0.5, and not at 0.9
    monkeypatch.setattr(groups, "LARGE_BYTES", 0)
    assert run(texts, files=3).dropped == {"near duplicate": 1}
    encoded: list[str] = []
    encode = Tokenizer.encode_batch
    monkeypatch.setattr(
        Tokenizer, "encode_batch", lambda self, texts: encoded.extend(texts) or encode(self, texts)
    )
    assert run(texts, files=3, rule=NearDuplicates(near=0.9)).dropped == {}
    assert encoded == texts[60:]
    assert run(texts, files=3, rule=NearDuplicates(near=0.9)).skipped


def test_equal_texts_are_counted_apart_and_a_plain_true_lists_nothing(run, tmp_path):
    rng = random.Random(6)
    texts = [new_text(rng, 50) for _ in range(50)]
    texts += [*texts[:5], texts[7].upper(), edited(rng, texts[8], 0.04)]
    assert run(texts).dropped == {"duplicate": 5, "near duplicate": 2}
    assert [line["jaccard"] == 1 for line in listed(tmp_path / "a")] == [True, False]
    assert run(texts, rule=True).dropped == {"duplicate": 5}
    assert not (tmp_path / "a" / LISTING).exists()


def test_a_copy_of_a_copy_is_kept_if_it_is_near_no_text_that_is_kept(run, tmp_path, tokenizer):
    rng = random.Random(7)
    first = new_text(rng, 200)
    second = edited(rng, first, 0.08)
    third = edited(rng, second, 0.08)
    assert brute_jaccard(first, third) < 0.5 < min(brute_jaccard(first, second), brute_jaccard(second, third))
    others = [new_text(rng, 20) for _ in range(20)]
    run([first, second, third, second.upper(), *others])
    kept = [text for split in ("train", "held_out") for text in texts_in(tmp_path / "a", tokenizer, split)]
    assert set(kept) == {first, third, *others}
    assert [(line["document"], line["near"]["document"]) for line in listed(tmp_path / "a")] == [(2, 1), (4, 1)]


def test_many_copies_of_one_text_do_not_take_quadratic_time(run, monkeypatch):
    rng = random.Random(8)
    first = new_text(rng, 100)
    compared = 0
    jaccard = fingerprints_jaccard()

    def counted(one, other):
        nonlocal compared
        compared += 1
        return jaccard(one, other)

    monkeypatch.setattr("clm_detour.data.near_duplicates.jaccard", counted)
    assert run([first, *(edited(rng, first, 0.02) for _ in range(300))]).dropped == {"near duplicate": 300}
    assert compared < 300 * 300 / 4


def fingerprints_jaccard() -> Callable[..., float]:
    from clm_detour.data.shingles import jaccard

    return jaccard


@pytest.mark.shared
def test_no_distinct_note_is_left_out(shared_data, tmp_path, tokenizer, capsys):
    path = str(shared_data / "corpus" / "notes.jsonl.gz")
    report = prepare_source("notes", Source(path=path, deduplicate=NEAR), tmp_path, tokenizer, 512, 1, 0.1)
    texts = list(read_documents(path))
    false = sum(
        brute_jaccard(texts[line["document"] - 1], texts[line["near"]["document"] - 1]) < 0.5
        for line in listed(tmp_path)
    )
    with capsys.disabled():
        print(f"\n{len(texts)} notes, left out: {report.dropped}; of the near copies {false} are false")
    assert report.dropped["near duplicate"] == len(listed(tmp_path)) > 0
    assert false == 0


def test_signatures_agree_with_datasketch_as_often():
    datasketch = pytest.importorskip("datasketch")
    from clm_detour.data.shingles import band_keys, shingle_sets

    rng = random.Random(9)
    ours, theirs = [], []
    for _ in range(60):
        one = new_text(rng, 100)
        pair = [one, edited(rng, one, 0.3)]
        keys = band_keys(*shingle_sets(pair))
        ours.append(np.mean(keys[0] == keys[1]))
        hashes = [datasketch.MinHash(256, seed=3) for _ in pair]
        for text, minhash in zip(pair, hashes, strict=True):
            minhash.update_batch([" ".join(words).encode() for words in set(three_words(text))])
        theirs.append(hashes[0].jaccard(hashes[1]) ** 4)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.01)


def three_words(text: str) -> list[tuple[str, ...]]:
    from near import shingles

    return list(shingles(text))
