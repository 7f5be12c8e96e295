"""Remote shards give the stream of the local folder, and the cache keeps its limit with many users."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from clm_detour.data import cache as cache_module
from clm_detour.data.batch_size import StepRows
from clm_detour.data.cache import ShardCache
from clm_detour.data.loader import RowStream, StepBatches, make_loader
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import Objective
from clm_detour.data.packing import PackedSource
from clm_detour.data.shards import checksum
from clm_detour.utils.errors import UserError

LENGTH, SIZE = 16, 1000


@pytest.fixture
def files() -> list[tuple[str, int, str]]:
    """URL, bytes and checksum of ten remote files."""
    memory = fsspec.filesystem("memory")
    found = []
    for number in range(10):
        content = np.random.default_rng(number).bytes(SIZE)
        memory.pipe(f"/files/{number}", content)
        found.append((f"memory://files/{number}", SIZE, checksum(content)))
    return found


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """The URLs that were fetched."""
    fetched: list[str] = []

    def counted(url, target):
        fetched.append(url)
        time.sleep(0.01)
        return download(url, target)

    download = cache_module.download
    monkeypatch.setattr(cache_module, "download", counted)
    return fetched


def names(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.name != ".lock"}


def bytes_in(cache: ShardCache) -> int:
    """Return the files in the cache while their names cannot change; a download in the background may be in
    progress.
    """
    with cache._exclusive():
        return sum(path.stat().st_size for path in cache.folder.iterdir())


def touch(cache: ShardCache, file: tuple[str, int, str]) -> bytes:
    with cache.open(*file) as copy:
        return copy.read()


def test_many_users_fetch_a_file_once_and_all_read_it_whole(tmp_path, files, downloads):
    cache = ShardCache(tmp_path / "cache", limit=100 * SIZE)
    with ThreadPoolExecutor(8) as users:
        contents = list(users.map(lambda number: touch(cache, files[number % 10]), range(200)))
    assert [checksum(content) for content in contents] == [files[number % 10][2] for number in range(200)]
    assert sorted(downloads) == sorted(url for url, _, _ in files)
    assert names(cache) == {file[2] for file in files}


def test_the_least_recently_opened_goes_first_and_the_limit_is_kept(tmp_path, files):
    cache = ShardCache(tmp_path, limit=3 * SIZE)
    for number in (0, 1, 2, 0, 3):
        touch(cache, files[number])
        time.sleep(0.01)
    assert names(cache) == {files[number][2] for number in (0, 2, 3)}


def test_the_limit_is_kept_by_many_users_at_once(tmp_path, files):
    cache, most = ShardCache(tmp_path / "cache", limit=9 * SIZE), []

    def use(number: int) -> None:
        touch(cache, files[number % 10])
        most.append(bytes_in(cache))

    with ThreadPoolExecutor(8) as users:
        list(users.map(use, range(200)))
    assert max(most) <= 9 * SIZE


def test_what_is_mapped_stays_until_the_map_is_gone(tmp_path, files):
    cache = ShardCache(tmp_path, limit=2 * SIZE)
    with cache.open(*files[0]) as copy:
        mapped = np.memmap(copy, mode="r")
    view = np.asarray(mapped)[10:]
    del mapped
    for file in files[1:6]:
        touch(cache, file)
        assert files[0][2] in names(cache)
    with (
        cache.open(*files[1]),
        pytest.raises(UserError, match=r"no room for memory://files/2 .* data\.cache_limit"),
    ):
        touch(cache, files[2])
    del view
    touch(cache, files[2])
    touch(cache, files[3])
    assert files[0][2] not in names(cache)


def test_a_killed_process_neither_holds_a_file_nor_leaves_half_of_one(tmp_path, files):
    cache = ShardCache(tmp_path, limit=2 * SIZE)
    touch(cache, files[0])
    program = (
        "import fcntl, sys, time\n"
        "held, part = open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb')\n"
        "fcntl.flock(held, fcntl.LOCK_SH); fcntl.flock(part, fcntl.LOCK_EX)\n"
        "part.write(b'half'); part.flush()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    paths = [str(tmp_path / files[0][2]), str(tmp_path / f"{files[1][2]}.part")]
    process = subprocess.Popen([sys.executable, "-c", program, *paths], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert checksum(touch(cache, files[1])) == files[1][2]
    touch(cache, files[2])
    assert names(cache) == {files[1][2], files[2][2]}


def test_a_half_that_nobody_wants_any_more_makes_room(tmp_path, files):
    (tmp_path / "gone.part").write_bytes(bytes(SIZE))
    touch(ShardCache(tmp_path, limit=SIZE), files[0])
    assert names(ShardCache(tmp_path, SIZE)) == {files[0][2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda memory: memory.pipe("/files/3", bytes(SIZE)), "memory://files/3 is damaged"),
        (lambda memory: memory.rm("/files/3"), "memory://files/3 is missing"),
    ],
)
def test_what_is_not_what_was_prepared_is_named_and_not_kept(tmp_path, files, change, message):
    cache = ShardCache(tmp_path, limit=100 * SIZE)
    change(fsspec.filesystem("memory"))
    with pytest.raises(UserError, match=message):
        touch(cache, files[3])
    assert names(cache) == set()


def test_a_store_that_fails_now_and_then_is_asked_again(tmp_path, files, monkeypatch):
    failures = iter([OSError("connection reset")])
    monkeypatch.setattr(cache_module.time, "sleep", lambda seconds: None)
    opened = fsspec.filesystem("memory").open

    def unsteady(*arguments, **options):
        for error in failures:
            raise error
        return opened(*arguments, **options)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", lambda self, *a, **o: unsteady(*a, **o))
    assert checksum(touch(ShardCache(tmp_path, SIZE), files[0])) == files[0][2]


def test_an_unknown_protocol_says_so(tmp_path):
    with pytest.raises(UserError, match="nowhere://x/a cannot be reached"):
        ShardCache(tmp_path, SIZE).open("nowhere://x/a", SIZE, "0")


@pytest.fixture
def remote(tmp_path, write_source) -> tuple[Path, str]:
    """A prepared folder of many shards, and its URL in memory."""
    folder = write_source(tmp_path / "local", 900, LENGTH, shard_tokens=200)
    memory = fsspec.filesystem("memory")
    memory.rm("/prepared", recursive=True) if memory.exists("/prepared") else None
    for path in folder.iterdir():
        memory.pipe(f"/prepared/{path.name}", path.read_bytes())
    return folder, "memory://prepared"


def stream(source: PackedSource, vocabulary) -> RowStream:
    mixture = Mixture({"a": 1}, {"a": source.shard_rows}, 42)
    return RowStream(mixture, {"a": source}, Objective("mlm", 0.3), vocabulary, LENGTH, 17)


def test_a_remote_stream_through_a_small_cache_is_the_local_stream(tmp_path, remote, vocabulary):
    folder, url = remote
    local = PackedSource.open(folder, LENGTH)
    whole = sum(path.stat().st_size for path in folder.iterdir())
    cache = ShardCache(tmp_path / "cache", limit=local.bytes_at_a_time)
    assert cache.limit < 0.7 * whole
    source = PackedSource.open(url, LENGTH, cache=cache)
    assert source.fingerprint == local.fingerprint
    ours, theirs = (StepBatches(stream(s, vocabulary), 0, StepRows.constant(8)) for s in (source, local))
    for step in range(len(local) // 8 + 20):
        one, other = ours.step(step), theirs.step(step)
        assert one["input_ids"].equal(other["input_ids"])
        assert one["labels"].equal(other["labels"])
        assert bytes_in(cache) <= cache.limit


def test_shards_are_fetched_before_they_are_read(tmp_path, remote, vocabulary):
    cache = ShardCache(tmp_path / "cache", limit=10**9)
    rows = stream(PackedSource.open(remote[1], LENGTH, cache=cache), vocabulary)
    now, after = rows.mixture.shards_at(0)["a"]
    rows.fetch_ahead(0)
    wanted = {rows.sources["a"].shards.index["shards"][shard]["checksum"] for shard in [*now, *after]}
    for _ in range(500):
        if cache.folder.exists() and wanted <= names(cache):
            break
        time.sleep(0.02)
    assert wanted <= names(cache)
    assert len(wanted) < len(rows.sources["a"].shards)


def test_loader_processes_share_a_cache(tmp_path, write_source, vocabulary):
    folder = write_source(tmp_path / "local", 900, LENGTH, shard_tokens=200)
    cache = ShardCache(tmp_path / "cache", limit=10**9)
    remote = stream(PackedSource.open(f"file://{folder}", LENGTH, cache=cache), vocabulary)
    local = stream(PackedSource.open(folder, LENGTH), vocabulary)
    steps = StepRows.constant(8)
    batches = iter(make_loader(StepBatches(remote, 0, steps), workers=2))
    for step in range(20):
        assert next(batches)["input_ids"].equal(StepBatches(local, 0, steps).step(step)["input_ids"])


def test_a_url_needs_a_cache_and_a_sound_listing(tmp_path, remote):
    _, url = remote
    with pytest.raises(UserError, match=r"memory://prepared is remote: set data\.cache_dir"):
        PackedSource.open(url, LENGTH)
    cache = ShardCache(tmp_path / "cache", limit=10**9)
    with pytest.raises(UserError, match="memory://elsewhere holds no finished shards"):
        PackedSource.open("memory://elsewhere", LENGTH, cache=cache)
    memory = fsspec.filesystem("memory")
    memory.pipe("/prepared/tokens-00003.bin", memory.cat("/prepared/tokens-00003.bin")[:-1])
    with pytest.raises(UserError, match=r"memory://prepared/tokens-00003\.bin is truncated"):
        PackedSource.open(url, LENGTH, cache=cache)
    memory.rm("/prepared/tokens-00003.bin")
    with pytest.raises(UserError, match=r"memory://prepared/tokens-00003\.bin is missing"):
        PackedSource.open(url, LENGTH, cache=cache)


def test_every_checksum_of_a_remote_folder_is_verified_without_filling_the_cache(tmp_path, remote):
    cache = ShardCache(tmp_path / "cache", limit=10**9)
    source = PackedSource.open(remote[1], LENGTH, cache=cache)
    source.verify()
    assert not cache.folder.exists()
    memory = fsspec.filesystem("memory")
    for name in ("tokens-00002.bin", "lengths-00002.npy", f"rows-{LENGTH}-00002.bin"):
        content = bytearray(memory.cat(f"/prepared/{name}"))
        content[-3] ^= 1
        memory.pipe(f"/prepared/{name}", bytes(content))
        with pytest.raises(UserError, match=f"memory://prepared/{name} is damaged"):
            source.verify()
        content[-3] ^= 1
        memory.pipe(f"/prepared/{name}", bytes(content))


def test_sending_a_remote_source_to_another_process_sends_its_address(tmp_path, remote):
    source = PackedSource.open(remote[1], LENGTH, cache=ShardCache(tmp_path / "cache", 10**9))
    sent = pickle.dumps(source)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).row(5).tokens, source.row(5).tokens)
    assert os.listdir(tmp_path / "cache")
