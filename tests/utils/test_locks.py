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


def test_who_waits_can_say_so_in_the_meantime(tmp_path, monkeypatch):
    monkeypatch.setattr("clm_detour.utils.locks.POLL_SECONDS", 0.01)
    rounds, enough = [], threading.Event()

    def meanwhile() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            enough.set()

    def second() -> None:
        with exclusive(tmp_path, "Another run works", meanwhile):
            rounds.append(0)

    thread = threading.Thread(target=second)
    with exclusive(tmp_path, "Another run works"):
        thread.start()
        assert enough.wait(timeout=10)
    thread.join(timeout=10)
    assert rounds[:3] == [1, 1, 1]
    assert rounds[-1] == 0


def test_a_file_system_without_locks_is_named_and_does_not_stop_the_work(tmp_path, capsys, monkeypatch):
    def refuse(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with exclusive(tmp_path, "Another run works"):
        done = True
    assert done
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err
