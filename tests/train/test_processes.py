"""Time limits of processes that wait for each other, and when sharded ones communicate."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import pytest

from clm_detour.train import parallel
from clm_detour.train.callbacks.gradient_sync import GradientSync
from clm_detour.train.callbacks.step_start import DataArrives
from clm_detour.utils.errors import UserError


@pytest.mark.parametrize(("asked", "seconds"), [(None, 600), ("90", 90)])
def test_a_step_waits_ten_minutes_or_what_the_environment_says_and_the_first_process_has_days(
    monkeypatch, asked, seconds
):
    given = {}
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        parallel.dist, "initialize_dist", lambda device, timeout=300.0: given.update(step=timeout)
    )
    monkeypatch.setattr(parallel.torch.distributed, "new_group", lambda **settings: given.update(settings))
    parallel.waiting_group.cache_clear()
    monkeypatch.delenv(parallel.TIMEOUT_VARIABLE, raising=False)
    if asked is not None:
        monkeypatch.setenv(parallel.TIMEOUT_VARIABLE, asked)
    parallel.start_processes()
    parallel.waiting_group.cache_clear()
    assert given["step"] == seconds
    assert given["backend"] == "gloo"
    assert given["timeout"] >= datetime.timedelta(days=1)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_time_limit_that_is_no_number_is_one_sentence(monkeypatch, text):
    monkeypatch.setenv(parallel.TIMEOUT_VARIABLE, text)
    with pytest.raises(UserError, match=f"CLM_DETOUR_TIMEOUT is {text}; set it to a number of seconds"):
        parallel.timeout()


def test_processes_that_gloo_cannot_connect_are_told_how(monkeypatch):
    def fail(**settings: object) -> None:
        raise RuntimeError("[../gloo/transport/tcp/device.cc:84] ifa != nullptr\nmore")

    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(parallel.dist, "initialize_dist", lambda *_, **__: None)
    monkeypatch.setattr(parallel.torch.distributed, "new_group", fail)
    parallel.waiting_group.cache_clear()
    with pytest.raises(UserError, match="set GLOO_SOCKET_IFNAME"):
        parallel.start_processes()


@pytest.mark.parametrize(("here", "sizes"), [(4, [4] * 4 + [2] * 4), (3, [3] * 4)])
def test_machines_with_different_numbers_of_processes_cannot_shard_within_each(monkeypatch, here, sizes):
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: len(sizes))
    monkeypatch.setattr(parallel.dist, "get_local_world_size", lambda: here)
    monkeypatch.setattr(parallel, "waiting_group", lambda: None)
    monkeypatch.setattr(
        parallel.torch.distributed,
        "all_gather_object",
        lambda found, *_, **__: found.__setitem__(slice(None), sizes),
    )
    with pytest.raises(UserError, match=r"train\.parallel: hsdp needs the same number of processes"):
        parallel.make_mesh(by_node=True)


@pytest.mark.parametrize("micro_rows", [1, 3, 4, 9])
def test_only_the_last_micro_batch_of_a_step_communicates(micro_rows):
    flags: list[bool] = []
    network = SimpleNamespace(
        set_requires_gradient_sync=flags.append, set_reshard_after_backward=lambda on: None
    )
    sync, step = GradientSync(network), [0] * 9
    for _ in range(2):
        flags.clear()
        sync.before_train_batch(SimpleNamespace(batch={"predicted": step}), None)
        for first in range(0, 9, micro_rows):
            rows = step[first : first + micro_rows]
            if len(rows) < micro_rows:
                rows = [0] * micro_rows  # compiled layers want full micro-batches
            sync.before_forward(SimpleNamespace(batch={"predicted": rows}), None)
        assert flags == [False] * (len(flags) - 1) + [True]


def test_processes_wait_for_rows_that_are_downloaded_before_they_begin_a_step(monkeypatch):
    asked = []
    monkeypatch.setattr("clm_detour.train.callbacks.step_start.is_true_on_any_process", asked.append)
    DataArrives().after_dataloader(None, None)
    assert asked == [False]
