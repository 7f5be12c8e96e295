"""A source from documents to packed rows: nothing lost, nothing twice, done once."""

from __future__ import annotations

import errno
import gzip
import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.config.schema import Source
from clm_detour.data import prepare, tokenization
from clm_detour.data import tokenizer as tokenizer_module
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import SourceReport, prepare_source
from clm_detour.data.shards import SPLITS
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer
from clm_detour.utils import files
from clm_detour.utils.errors import UserError

ROW = 64
TEXTS = [
    f"Patient {number} was given {number % 7} mg of aspirin é\u0301. " * (1 + number % 9)
    for number in range(300)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 300, folder)
    return load_tokenizer(str(folder))


@pytest.fixture
def corpus(tmp_path) -> Path:
    (tmp_path / "corpus").mkdir()
    return write_corpus(tmp_path / "corpus" / "a.jsonl.gz", TEXTS)


@pytest.fixture
def run(tmp_path, tokenizer, corpus) -> Callable[..., SourceReport]:
    """`prepare_source` of the corpus into a folder, with some arguments changed."""

    def prepared(**changes):
        arguments = {
            "name": "notes",
            "path": str(corpus),
            "folder": tmp_path / "data" / "notes",
            "tokenizer": tokenizer,
            "row_length": ROW,
            "seed": 1,
            "held_out": 0.1,
        }
        return prepare_source(**{**arguments, **changes})

    return prepared


def write_corpus(path: Path, texts: list[str]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode()))
    return path


def documents(folder: Path, row_length: int = ROW) -> list[np.ndarray]:
    """Every document of a split, put together from its rows."""
    source = PackedSource.open(folder, row_length)
    pieces: dict[int, list[tuple[int, np.ndarray]]] = {}
    for number in range(len(source)):
        row = source.row(number)
        parts = np.split(row.tokens, np.cumsum(row.lengths)[:-1])
        for part, document, start, _ in zip(parts, *source.pieces(number), strict=True):
            pieces.setdefault(int(document), []).append((int(start), part))
    ordered = [sorted(pieces[document], key=lambda piece: piece[0]) for document in range(len(pieces))]
    return [np.concatenate([part for _, part in document]) for document in ordered]


def texts_of(folder: Path, tokenizer: Tokenizer, row_length: int = ROW) -> list[str]:
    found = documents(folder, row_length)
    assert all((ids[0], ids[-1]) == (tokenizer.cls, tokenizer.sep) for ids in found)
    return [tokenizer.tokenizer.decode(ids[1:-1].tolist()) for ids in found]


def everything_in(folder: Path, patterns: tuple[str, ...] = ("*/*.bin", "*/*.npy")) -> dict[str, bytes]:
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def test_every_document_comes_back_from_the_rows_of_one_split(run, tokenizer, tmp_path):
    run()
    expected = [unicodedata.normalize("NFC", text) for text in TEXTS]
    held_out = [is_held_out(text, 0.1) for text in TEXTS]
    for split, wanted in (("train", False), ("held_out", True)):
        right = [text for text, held in zip(expected, held_out, strict=True) if held is wanted]
        assert texts_of(tmp_path / "data" / "notes" / split, tokenizer) == right
    assert 10 < sum(held_out) < 60


def test_the_report_counts_what_is_there_and_is_written_too(run, tmp_path):
    report = run()
    folder = tmp_path / "data" / "notes"
    assert sum(split.documents for split in report.splits.values()) == len(TEXTS)
    for split in SPLITS:
        tokens = sum(map(len, documents(folder / split)))
        rows = len(PackedSource.open(folder / split, ROW))
        assert (report.splits[split].tokens, report.splits[split].rows) == (tokens, rows)
        assert report.splits[split].fullness == pytest.approx(tokens / rows / ROW, abs=1e-5)
    card = json.loads((folder / "card.json").read_text())
    assert card["name"] == report.name
    assert card["dropped"] == report.dropped
    for split, figures in report.splits.items():
        assert asdict(figures).items() <= card["splits"][split].items()
    assert not report.skipped


def test_copies_of_a_text_are_never_on_both_sides(run, corpus, tokenizer, tmp_path):
    write_corpus(corpus, [text for text in TEXTS[:60] for _ in range(3)])
    run(held_out=0.5)
    sides = [set(texts_of(tmp_path / "data" / "notes" / split, tokenizer)) for split in SPLITS]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_the_held_out_part_grows_with_the_fraction_and_keeps_its_documents():
    small, large = ({text for text in TEXTS if is_held_out(text, part)} for part in (0.1, 0.5))
    assert small < large
    assert len(large) == pytest.approx(0.5 * len(TEXTS), rel=0.2)
    assert not any(is_held_out(text, 0.0) for text in TEXTS)


def test_nothing_held_out_leaves_an_empty_split_that_opens(run, tmp_path):
    report = run(held_out=0.0)
    assert (
        report.splits["held_out"].rows
        == len(PackedSource.open(tmp_path / "data" / "notes" / "held_out", ROW))
        == 0
    )


def test_a_second_call_does_nothing(run, tmp_path):
    first = run()
    before = everything_in(tmp_path / "data" / "notes")
    second = run()
    assert (second.skipped, second.splits) == (True, first.splits)
    assert everything_in(tmp_path / "data" / "notes") == before
    assert run(on_error="skip").skipped  # nothing was bad, so there is nothing to skip


@pytest.mark.parametrize(
    "change", [{"held_out": 0.2}, {"text_field": "body"}, {"tokenizer": "other"}, {"path": "more"}]
)
def test_a_change_of_inputs_is_noticed(run, corpus, tmp_path, change):
    records = [json.dumps({"text": text, "body": text + "!"}) for text in TEXTS]
    corpus.write_bytes(gzip.compress("\n".join(records).encode()))
    before = run()
    if "tokenizer" in change:
        train_tokenizer(TEXTS, 290, tmp_path / "tokenizer")
        change = {"tokenizer": load_tokenizer(str(tmp_path / "tokenizer"))}
    if "path" in change:
        write_corpus(corpus.with_name("b.jsonl.gz"), ["One more."])
        change = {"path": str(corpus.parent)}
    after = run(**change)
    assert not after.skipped
    assert after.splits != before.splits


def test_a_replaced_file_is_noticed(run, corpus):
    run()
    write_corpus(corpus, TEXTS[:-1])
    assert not run().skipped
    assert run().skipped
    os.utime(corpus, (1, 1))
    assert not run().skipped


@pytest.mark.parametrize("change", [{"row_length": 32}, {"seed": 2}])
def test_another_row_length_or_seed_packs_again_without_tokenising(run, monkeypatch, change):
    before = run()
    monkeypatch.setattr(prepare, "write_tokens", lambda *_: pytest.fail("tokenised again"))
    after = run(**change)
    assert not after.skipped
    assert after.splits["train"].tokens == before.splits["train"].tokens
    assert run(**change).skipped


@pytest.mark.parametrize(
    "damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-2])]
)
def test_damaged_shards_are_made_again(run, tmp_path, damage):
    run()
    before = everything_in(tmp_path / "data" / "notes")
    damage(tmp_path / "data" / "notes" / "train" / "tokens-00000.bin")
    assert not run().skipped
    assert everything_in(tmp_path / "data" / "notes") == before


def test_bad_records_stop_the_run_or_stand_in_the_report(run, corpus):
    lines = gzip.decompress(corpus.read_bytes()) + b'{"text": "  "}\n{"text": 1}\n{broken\n'
    corpus.write_bytes(gzip.compress(lines))
    with pytest.raises(UserError, match=r"a\.jsonl\.gz line 302: 'text' is int, not a string"):
        run()
    report = run(on_error="skip")
    assert report.dropped == {"empty": 1, "text not a string": 1, "broken JSON": 1}
    assert sum(split.documents for split in report.splits.values()) == len(TEXTS)
    assert run(on_error="skip").dropped == report.dropped
    with pytest.raises(UserError, match="line 302"):  # what was skipped is not forgotten
        run()


def test_a_source_with_nothing_to_train_on_is_an_error(run, corpus):
    write_corpus(corpus, [" "])
    with pytest.raises(UserError, match=r"holds no document \(1 x empty\)"):
        run()
    write_corpus(corpus, [next(text for text in TEXTS if is_held_out(text, 0.1))])
    with pytest.raises(UserError, match=r"All 1 documents of .* are in the held-out split: lower held_out"):
        run()
    for held_out in (-0.1, 1.0):
        with pytest.raises(UserError, match="held_out is a fraction"):
            run(held_out=held_out)


def test_a_full_disk_or_a_folder_that_cannot_be_written_is_one_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"Cannot write .*Not a directory"):
        run(folder=tmp_path / "file" / "notes")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        UserError, match=r"Cannot write .*tokens-00000\.bin: No space left on device\. Free some space"
    ):
        run()
    assert not list((tmp_path / "data").rglob("*.bin"))


def test_a_document_too_long_for_memory_is_tokenised_in_pieces_or_refused_by_place(run, corpus, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "LONG_CHARACTERS", 200)
    monkeypatch.setattr(tokenizer_module, "LONGEST_PIECE", 400)
    monkeypatch.setattr(tokenization, "LONG_CHARACTERS", 200)
    whole = run()
    assert sum(split.documents for split in whole.splits.values()) == len(TEXTS)
    write_corpus(corpus, [*TEXTS[:3], "x" * 500, "y"])
    message = r"a\.jsonl\.gz: document 4 of those kept has 500 characters and cannot be tokenized in pieces"
    with pytest.raises(UserError, match=message):
        run()
    assert run(on_error="skip").dropped == {"too long to tokenise": 1}


def test_copies_are_found_after_a_document_that_is_too_long_to_tokenise(
    run, corpus, tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(tokenizer_module, "LONG_CHARACTERS", 200)
    monkeypatch.setattr(tokenizer_module, "LONGEST_PIECE", 400)
    monkeypatch.setattr(tokenization, "LONG_CHARACTERS", 200)
    write_corpus(corpus, ["x" * 500, *TEXTS[:4], TEXTS[1], *TEXTS[4:6]])
    found = run(on_error="skip", path=Source(str(corpus), deduplicate=True), held_out=0.0)
    assert found.dropped == {"too long to tokenise": 1, "duplicate": 1}
    assert texts_of(tmp_path / "data" / "notes" / "train", tokenizer) == TEXTS[:6]


def test_the_split_does_not_depend_on_the_seed(run, tmp_path, tokenizer):
    run(seed=1, folder=tmp_path / "one")
    run(seed=2, folder=tmp_path / "two")
    one, two = (texts_of(tmp_path / name / "held_out", tokenizer) for name in ("one", "two"))
    assert one == two


ODDITIES = [
    "\u2028",
    "\x85",
    "\ufeff",
    "e\u0301",
    "\u1100\u1161",
    "\U0010ffff",
    "\r\n",
    "\x1c",
    "[MASK]",
    "\u202e",
    "İ",
    "👩\u200d⚕️",
]
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
SOME_TEXT = st.lists(st.text(CHARACTERS) | st.sampled_from(ODDITIES), max_size=20).map("".join)


@settings(max_examples=25, deadline=None)
@given(st.lists(SOME_TEXT, max_size=12), st.integers(3, 100), st.booleans())
def test_whatever_was_written_comes_back_from_its_rows(
    tokenizer, tmp_path_factory, texts, row_length, ascii_only
):
    root = tmp_path_factory.mktemp("random")
    texts = [TEXTS[0], *texts]
    lines = (json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n" for text in texts)
    (root / "a.jsonl").write_bytes("".join(lines).encode())
    report = prepare_source("a", str(root / "a.jsonl"), root / "a", tokenizer, row_length, 42, 0.0)
    kept = [unicodedata.normalize("NFC", text) for text in texts if text and not text.isspace()]
    assert texts_of(root / "a" / "train", tokenizer, row_length) == kept
    assert report.dropped == ({"empty": len(texts) - len(kept)} if len(kept) < len(texts) else {})


@pytest.mark.shared
@pytest.mark.parametrize("name", ["pubmed", "instructions", "notes", "general", "french"])
def test_real_documents_come_back_from_rows_of_the_real_tokenizer(shared_data, tmp_path, name):
    """Prepare the first 100 documents, or CLM_DETOUR_DOCUMENTS of them, in rows of two lengths. Use -s to see
    the numbers.
    """
    tokenizer = load_tokenizer(str(shared_data / "tokenizer" / "modernbert"))
    stream = read_documents(str(shared_data / "corpus" / f"{name}.jsonl.gz"))
    texts = list(islice(stream, int(os.environ.get("CLM_DETOUR_DOCUMENTS", 100))))
    path = write_corpus(tmp_path / "some.jsonl.gz", texts)
    right = {
        split: [
            unicodedata.normalize("NFC", text)
            for text in texts
            if is_held_out(text, 0.05) is (split == "held_out")
        ]
        for split in SPLITS
    }
    for row_length in (1024, 8192):
        report = prepare_source(name, str(path), tmp_path / name, tokenizer, row_length, 42, 0.05)
        for split in SPLITS:
            assert texts_of(tmp_path / name / split, tokenizer, row_length) == right[split]
        train, tokens = report.splits["train"], sum(split.tokens for split in report.splits.values())
        print(
            f"{name}: {len(texts):,} documents, {tokens:,} tokens, "
            f"rows of {row_length:,} {train.fullness:.3%} full"
        )
        assert train.fullness > 0.95 or train.rows < 20
    changed = sum(not unicodedata.is_normalized("NFC", text) for text in texts)
    print(f"{name}: {changed:,} documents are not NFC and come back so")
