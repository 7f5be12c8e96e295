"""The text files in the package are equal to those that the generator writes."""

from __future__ import annotations

import gzip
import json

import pytest

from clm_detour.data.sample import DOCUMENTS, SEED, counts_of
from clm_detour.data.sources.files import open_raw, unpacked
from sample_corpus.__main__ import PACKAGE, as_lines, write_corpus
from sample_corpus.documents import SOURCES, generate
from sample_corpus.tasks import TASKS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", SOURCES)
def test_the_text_that_ships_is_what_the_generator_writes(source):
    shipped = PACKAGE / "data" / "sample" / f"{source}.jsonl.zst"
    with open_raw(str(shipped)) as raw:
        lines = list(unpacked(raw, str(shipped)))
    assert len(lines) == counts_of(DOCUMENTS)[source]
    assert [json.loads(line) for line in lines[:50]] == list(generate(source, 50, SEED))


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks_that_ship_are_what_the_generator_writes(name):
    with gzip.open(PACKAGE / "evaluate" / "sample" / f"{name}.jsonl.gz", "rb") as shipped:
        assert shipped.read() == as_lines(TASKS[name]())


@pytest.mark.slow
def test_all_of_the_text_that_ships_is_what_the_generator_writes(tmp_path):
    write_corpus(tmp_path, DOCUMENTS, SEED)
    for source in SOURCES:
        file = f"{source}.jsonl.zst"
        assert (tmp_path / file).read_bytes() == (PACKAGE / "data" / "sample" / file).read_bytes()
