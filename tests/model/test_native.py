"""C++ is compiled once and kept; where it cannot be, the reason is said."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clm_detour.model.cpu import compiler as native
from clm_detour.model.cpu import softmax

REASON = softmax.unavailable()
compiles_here = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing compiled yet; the cache to be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path / "clm-detour"
    native.library.cache_clear()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with code."""
    folder = tmp_path / "sources"
    folder.mkdir()
    write(folder, 'extern "C" int number() { return 1; }')
    return folder


def write(folder: Path, code: str) -> None:
    (folder / native.MAIN).write_text(code)


def test_without_a_compiler_the_reason_is_said(
    cache_folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "no C++ compiler" in native.library(sources, ())
    assert not cache_folder.exists()


def test_a_compiler_that_is_not_there_or_stops_is_named(
    cache_folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in native.library(sources, ())
    native.library.cache_clear()
    monkeypatch.setenv("CXX", "false")
    assert native.library(sources, ()) == "false does not compile it (it says nothing)"
    assert list(cache_folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(cache_folder: Path, sources: Path) -> None:
    cache_folder.write_text("a file where the folder should be")
    assert str(cache_folder) in native.library(sources, ())


@compiles_here
def test_compiled_once_and_again_when_the_source_or_a_flag_is_another(
    cache_folder: Path, sources: Path
) -> None:
    for number, flags in ((1, ()), (1, ()), (2, ()), (2, ("-g",))):
        write(sources, f'extern "C" int number() {{ return {number}; }}')
        assert (
            native.load(sources, (*native.compiler(), *native.FLAGS, *flags), cache_folder).number() == number
        )
    assert len(list(cache_folder.iterdir())) == 3


@compiles_here
def test_a_compiler_may_be_named_with_options(
    cache_folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"{native.compiler()[0]} -DNUMBER=7")
    write(sources, 'extern "C" int number() { return NUMBER; }')
    found = native.library(sources, ())
    assert isinstance(found, ctypes.CDLL)
    assert found.number() == 7


@compiles_here
def test_an_error_of_the_compiler_is_said_in_a_line(cache_folder: Path, sources: Path) -> None:
    write(sources, "this is no C++")
    assert "error: " in native.library(sources, ())


@compiles_here
@pytest.mark.slow
def test_processes_that_compile_at_once_do_not_disturb_each_other(cache_folder: Path) -> None:
    code = "from clm_detour.model.cpu import softmax; assert softmax.unavailable() is None"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(list(cache_folder.iterdir())) == 1


@compiles_here
def test_threads_are_those_of_torch(cache_folder: Path, sources: Path) -> None:
    """A second OpenMP would bring as many threads again, which then wait for each other."""
    write(
        sources,
        'extern "C" void count(int* n) {\n#pragma omp parallel for\n  for (int i = 0; i < 9; ++i) n[i]++;\n}',
    )
    ours = native.library(sources, ())
    theirs = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    assert isinstance(ours, ctypes.CDLL)
    assert address(ours.GOMP_parallel) == address(theirs.GOMP_parallel)


def address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
