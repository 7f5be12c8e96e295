"""The sample that ships with the package."""

from __future__ import annotations

import gzip
import json

import pytest

from clm_detour.data.sample import SOURCES, write_sample
from clm_detour.utils.errors import UserError


def test_the_same_number_of_documents_gives_the_same_bytes_and_a_smaller_one_the_first_of_them(tmp_path):
    first, again, fewer = (
        write_sample(tmp_path / name, count) for name, count in (("a", 60), ("b", 60), ("c", 40))
    )
    for source in SOURCES:
        assert first[source].read_bytes() == again[source].read_bytes()
        texts, some = (gzip.decompress(paths[source].read_bytes()) for paths in (first, fewer))
        assert texts.startswith(some)
        assert len(texts) > len(some)


def test_the_documents_are_divided_over_the_sources_and_none_is_left_empty(tmp_path):
    counts = {}
    for source, path in write_sample(tmp_path, 100).items():
        assert path == tmp_path / f"{source}.jsonl.gz"
        lines = gzip.decompress(path.read_bytes()).splitlines()
        assert all(json.loads(line)["text"] for line in lines)
        counts[source] = len(lines)
    assert counts == {"general": 40, "abstracts": 25, "instructions": 20, "notes": 15}
    assert all(path.stat().st_size for path in write_sample(tmp_path / "tiny", 1).values())
    assert not [path for path in tmp_path.rglob("*") if "tmp" in path.name]


@pytest.mark.parametrize("wanted", [{"documents": 24_001}, {"seed": 8}])
def test_text_that_does_not_ship_is_a_sentence(tmp_path, wanted):
    with pytest.raises(UserError, match="has 24000 documents and the seed 7"):
        write_sample(tmp_path, **wanted)
