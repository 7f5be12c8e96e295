"""Preparation on a cluster that loses a machine gives the bytes of one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clm_detour.data import groups, prepare
from clm_detour.data.groups import Group
from clm_detour.data.prepare import prepare_source
from clm_detour.data.tokenization import Settings, write_tokens
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.utils.parallel import Engine, Worker
from ray_nodes import HALF_DONE, hang_if_lost, ray_cluster, second_node_lost

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow
FILES, DOCUMENTS = 6, 120


def write_tokens_half(settings: Settings, group: Group, worker: Worker) -> dict[str, Any]:
    """Tokenize a group; on the node that is lost, hang once a shard of it is on disk."""

    def report(*amounts: int) -> None:
        worker.report(*amounts)
        if any(group.folder.rglob("shard-*.json")):
            hang_if_lost(Path(settings.source.path).parent)

    return write_tokens(settings, group, replace(worker, report=report))


def everything_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_source_has_the_same_bytes_although_a_machine_is_lost(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PART_TOKENS", 1500)
    monkeypatch.setattr(prepare, "SHARD_TOKENS", 4000)
    monkeypatch.setattr(prepare, "SMALL_BYTES", 0)
    monkeypatch.setattr(groups, "LARGE_BYTES", 0)
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    (tmp_path / "corpus").mkdir()
    for number in range(FILES):
        texts = (f"Patient {number} was given {dose} mg of aspirin. " * 9 for dose in range(DOCUMENTS))
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        (tmp_path / "corpus" / f"{number}.jsonl").write_text(lines)

    def prepared(name: str, processes: int | None) -> dict[str, bytes]:
        path, folder = f"{tmp_path}/corpus", tmp_path / name
        prepare_source("notes", path, folder, tokenizer, 64, 1, 0.1, processes=processes)
        return everything_in(folder)

    alone = prepared("alone", 1)
    monkeypatch.setattr(prepare, "write_tokens", write_tokens_half)
    with ray_cluster(2, Path(__file__).parent) as cluster, second_node_lost(cluster, tmp_path):
        with Engine(cluster.address).serving([tmp_path]):
            assert prepared("cluster", None) == alone
        assert (tmp_path / HALF_DONE).exists()
