"""Two never work in one folder at a time."""

from __future__ import annotations

import threading

from clm_detour.utils.locks import exclusive


def test_the_second_waits_for_the_first_and_says_so(tmp_path, capsys):
    order, begun = [], threading.Event()

    def second() -> None:
        begun.set()
        with exclusive(tmp_path / "run", "Another run works"):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(tmp_path / "run", "Another run works"):
        thread.start()
        begun.wait()
        thread.join(timeout=0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert "Another run works in" in capsys.readouterr().err


def test_a_file_system_without_locks_is_named_and_does_not_stop_the_work(tmp_path, capsys, monkeypatch):
    def refuse(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with exclusive(tmp_path, "Another run works"):
        done = True
    assert done
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err
