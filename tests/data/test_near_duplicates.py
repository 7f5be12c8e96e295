"""Near copies of earlier texts are left out, and nothing else, for any division into groups and processes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from near import (
    as_lines,
    brute_jaccard,
    edited,
    greedy,
    listed,
    new_text,
    shingles,
    texts_in,
    write_tokenizer,
)
from reading import write

from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data import fingerprints, groups, near_duplicates, prepare
from clm_detour.data.copies import LISTING
from clm_detour.data.prepare import SourceReport, prepare_source
from clm_detour.data.shingles import band_keys, jaccard, shingle_sets
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer

NEAR = NearDuplicates(near=0.5)
BOTH = ("train", "held_out")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return load_tokenizer(str(write_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


@pytest.fixture
def run(tmp_path, tokenizer) -> Callable[..., SourceReport]:
    """A function that prepares texts, divided among files, and reports."""

    def prepared(
        texts: list[str],
        name: str = "a",
        files: int = 1,
        rule: Any = NEAR,
        held_out: float = 0.2,
        processes: int = 1,
    ) -> SourceReport:
        corpus = tmp_path / f"{name}-corpus"
        corpus.mkdir(exist_ok=True)
        for number, some in enumerate(np.array_split(np.array(texts, dtype=object), files)):
            path, lines = corpus / f"{number:03}.jsonl", as_lines(some)
            if not path.exists() or path.read_text() != lines:
                write(path, lines)
        source = Source(path=str(corpus), deduplicate=rule)
        return prepare_source(name, source, tmp_path / name, tokenizer, 64, 1, held_out, processes=processes)

    return prepared


def everything_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def with_copies(rng: random.Random, originals: int, words: int, shares: list[float]) -> list[str]:
    """Texts, and of each an edited copy somewhere behind them."""
    texts = [new_text(rng, words) for _ in range(originals)]
    copies = [edited(rng, text, rng.choice(shares)) for text in texts]
    rng.shuffle(copies)
    return texts + copies


def test_copies_are_found_by_how_much_of_them_was_edited(run, tmp_path, capsys):
    rng = random.Random(1)
    originals = [new_text(rng, 120) for _ in range(300)]
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
    texts += [*with_copies(rng, 30, 8, [0, 0.1, 0.2]), "one", "one two", "one", "Two, one"]
    report = run(texts)
    kept = set(texts_in(tmp_path / "a", tokenizer, *BOTH))
    expected = set(greedy(dict.fromkeys(texts), 0.5))
    assert expected <= kept
    assert len(kept - expected) <= 1  # a pair at the threshold is found with a probability of 98 %
    assert report.dropped["duplicate"] == len(texts) - len(set(texts))
    assert report.dropped["near duplicate"] == len(listed(tmp_path / "a")) == len(set(texts)) - len(kept) > 40
    for line in listed(tmp_path / "a"):
        late, early = (texts[place["document"] - 1] for place in (line, line["near"]))
        assert line["jaccard"] == round(brute_jaccard(late, early), 6) >= 0.5
        assert late not in kept
        assert early in kept


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1, 7, 2**12]), st.sampled_from([50, 10**6]))
def test_any_division_leaves_out_the_same(run, tmp_path, monkeypatch, tokenizer, seed, files, block, batch):
    texts = with_copies(random.Random(seed), 20, 40, [0, 0.05, 0.1, 0.2])
    whole, parts = f"whole-{seed}", f"parts-{seed}-{files}-{block}-{batch}"
    run(texts, whole)
    with monkeypatch.context() as patch:
        patch.setattr(groups, "LARGE_BYTES", 0)
        patch.setattr(fingerprints, "BLOCK", block)
        patch.setattr(fingerprints, "BATCH_CHARACTERS", batch)
        run(texts, parts, files)
    for split in BOTH:
        assert texts_in(tmp_path / whole, tokenizer, split) == texts_in(tmp_path / parts, tokenizer, split)
    likeness = [[line["jaccard"] for line in listed(tmp_path / name)] for name in (whole, parts)]
    assert likeness[0] == likeness[1]
    assert len(likeness[0]) > 3


@pytest.mark.slow
def test_the_bytes_are_the_same_for_any_number_of_processes(run, tmp_path, monkeypatch):
    texts = with_copies(random.Random(3), 60, 60, [0, 0.05, 0.1])
    monkeypatch.setattr(groups, "LARGE_BYTES", 0)
    run(texts, files=4)
    (tmp_path / "a").rename(tmp_path / "one")
    monkeypatch.setattr(prepare, "SMALL_BYTES", 0)
    run(texts, files=4, processes=3)
    assert everything_in(tmp_path / "one") == everything_in(tmp_path / "a")
    assert not [*(tmp_path / "a").rglob("*.bands"), *(tmp_path / "a").rglob("*.shingles")]


def test_no_near_copy_is_on_the_other_side_of_the_split(run, tmp_path, tokenizer):
    texts = with_copies(random.Random(4), 150, 50, [0.02, 0.05])
    run(texts, held_out=0.5)
    train, held_out = (texts_in(tmp_path / "a", tokenizer, split) for split in BOTH)
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
    assert set(texts_in(tmp_path / "a", tokenizer, *BOTH)) == {first, third, *others}
    assert [(line["document"], line["near"]["document"]) for line in listed(tmp_path / "a")] == [
        (2, 1),
        (4, 1),
    ]


def test_many_copies_of_one_text_are_not_all_compared_with_each_other(run, monkeypatch):
    rng = random.Random(8)
    first = new_text(rng, 100)
    compared = []

    def counted(sets, one, other):
        compared.extend(one)
        return jaccard(sets, one, other)

    monkeypatch.setattr(near_duplicates, "jaccard", counted)
    report = run([first, *(edited(rng, first, 0.02) for _ in range(300))], held_out=0)
    assert report.dropped == {"near duplicate": 300}
    assert len(compared) < 300 * 300 / 4


def test_bands_agree_as_often_as_signatures_of_datasketch():
    datasketch = pytest.importorskip("datasketch")
    rng = random.Random(9)
    ours, theirs = [], []
    for _ in range(60):
        one = new_text(rng, 100)
        pair = [one, edited(rng, one, 0.1)]
        hashes, sizes = shingle_sets(pair)
        keys = band_keys(hashes, sizes)
        ours.append(np.mean(keys[0] == keys[1]))
        signatures = [datasketch.MinHash(256, seed=3) for _ in pair]
        for text, signature in zip(pair, signatures, strict=True):
            signature.update_batch([" ".join(words).encode() for words in shingles(text)])
        equal = signatures[0].hashvalues == signatures[1].hashvalues
        theirs.append(np.mean(equal.reshape(64, 4).all(axis=1)))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.02)
    assert np.mean(ours) == pytest.approx(0.57**4, abs=0.02)


@pytest.mark.shared
def test_no_distinct_note_is_left_out(shared_data, tmp_path, tokenizer, capsys):
    path = str(shared_data / "corpus" / "notes.jsonl.gz")
    report = prepare_source("notes", Source(path=path, deduplicate=NEAR), tmp_path, tokenizer, 512, 1, 0.1)
    texts = list(read_documents(path))
    pairs = [[texts[place["document"] - 1] for place in (line, line["near"])] for line in listed(tmp_path)]
    false = sum(brute_jaccard(*pair) < 0.5 for pair in pairs)
    with capsys.disabled():
        print(f"\n{len(texts)} notes, left out: {report.dropped}; of the near copies {false} are none")
    assert report.dropped["near duplicate"] == len(pairs) > 0
    assert false == 0
