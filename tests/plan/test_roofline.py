"""The roofline counts the operations of the model exactly, and bytes by the shapes."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from transformers import ModernBertConfig

from clm_detour.__main__ import main
from clm_detour.config.shipped import CONFIGS
from clm_detour.model.flops import Frozen, flops_per_batch
from clm_detour.plan.hardware import DEVICES
from clm_detour.plan.kernels import Kernel, MicroBatch, kernels
from clm_detour.plan.roofline import roofline

LENGTHS = [700, 1, 64, 259]
T, E, V = sum(LENGTHS), 768, 50368


def base(**keys: object) -> ModernBertConfig:
    return ModernBertConfig(**{"vocab_size": V, "global_attn_every_n_layers": 3, **keys})


def batch(**changes: object) -> MicroBatch:
    return dataclasses.replace(MicroBatch(LENGTHS, 300, causal=False, per_step=4), **changes)


FROZEN = {
    "nothing": Frozen(),
    "embeddings": Frozen(embeddings=True),
    "low layers": Frozen(frozenset(range(5)), embeddings=True),
    "middle layers": Frozen(frozenset((3, 4))),
    "all but the head": Frozen(frozenset(range(22)), embeddings=True),
    "head": Frozen(head=True),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
def test_operations_are_those_that_the_model_counts(
    frozen: Frozen, causal: bool, tied: bool, checkpointing: bool
) -> None:
    config = base(tie_word_embeddings=tied)
    found = kernels(config, batch(causal=causal, checkpointing=checkpointing), frozen)
    expected = flops_per_batch(config, LENGTHS, 300, causal, frozen=frozen)
    by_row: dict[str, float] = {}
    for kernel in found:
        by_row[kernel.row] = by_row.get(kernel.row, 0) + kernel.flops
    linear = sum(by_row[row] for row in ("QKV product", "output product", "MLP products"))
    assert linear == expected.linear
    assert by_row["attention, global"] + by_row["attention, local"] == expected.attention
    assert by_row["head product"] + by_row["vocabulary products"] == expected.head
    assert sum(by_row.values()) == expected.total


def bytes_of(row: str, found: list[Kernel], backward: bool) -> float:
    return sum(kernel.bytes for kernel in found if kernel.row == row and kernel.backward is backward)


def test_bytes_follow_from_shapes() -> None:
    found = list(kernels(base(num_hidden_layers=1), batch()))
    assert bytes_of("QKV product", found, False) == 2 * (T * E + T * 3 * E + 3 * E * E)
    assert bytes_of("QKV product", found, True) == 2 * bytes_of("QKV product", found, False)
    assert bytes_of("attention, global", found, False) == 2 * 4 * T * E
    assert bytes_of("rotary", found, False) == T * (2 * 4 * E + 4 * 64)
    assert bytes_of("rotary", found, True) == T * (2 * 6 * E + 4 * 64)
    assert bytes_of("GeGLU", found, False) == 2 * 3 * T * 1152
    assert bytes_of("softmax", found, False) == 2 * 2 * 300 * V


def test_a_residual_stream_in_bf16_moves_fewer_bytes_and_computes_the_same() -> None:
    wide, narrow = (roofline(kernels(base(), batch(stream=size)), "H100") for size in (4, 2))
    for one, other in zip(wide.rows, narrow.rows, strict=True):
        assert one.flops == other.flops
        assert one.bytes >= other.bytes
    assert narrow.mfu > wide.mfu


def test_newer_releases_of_torch_move_fewer_bytes_and_compute_the_same() -> None:
    old, new = (roofline(kernels(base(), batch(fused=fused)), "H100") for fused in (False, True))
    saved = {one.name: one.bytes - other.bytes for one, other in zip(old.rows, new.rows, strict=True)}
    assert {name: size for name, size in saved.items() if size} == {
        "residual sum": 22 * 3 * 4 * T * E,
        "vocabulary products": -6 * V * E,  # the product reads and writes the fp32 sum, of one chunk here
        "vocabulary gradient": 10 * V * E,
    }


def test_a_kernel_takes_the_longer_of_its_two_times_and_no_mfu_exceeds_the_peaks() -> None:
    peak, bandwidth = DEVICES["H100"].bf16, DEVICES["H100"].bandwidth
    found = roofline(
        [
            Kernel("a", False, "product", bandwidth, peak, peak * 3),
            Kernel("a", True, "memory", 2 * bandwidth, 0, peak),
        ],
        "H100",
    )
    (row,) = found.rows
    assert (row.forward, row.backward) == (3, 2)
    assert found.mfu == pytest.approx(1 / 5)
    assert found.expected_mfu == pytest.approx(1 / (3 / 0.7 + 2 / 0.9))


def test_checkpointing_runs_the_forward_of_layers_again() -> None:
    once, again = (list(kernels(base(), batch(checkpointing=on))) for on in (False, True))
    for row in ("QKV product", "rotary", "attention, local", "GeGLU"):
        forward = bytes_of(row, once, False)
        assert bytes_of(row, again, True) - bytes_of(row, once, True) == forward > 0
    assert bytes_of("softmax", again, False) == bytes_of("softmax", once, False)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A recipe of the paper without data and weights: only the base model's config is there."""
    folder = tmp_path_factory.mktemp("base") / "ModernBERT-base"
    base().save_pretrained(folder)
    path = CONFIGS / "paper" / "en-base-10b.yaml"
    return [str(path), f"model.base={folder}", f"data.dir={folder}/nothing"]


def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["clm-detour", "plan", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), capsys.readouterr().err


def test_the_command_prints_a_table_for_each_objective(words, monkeypatch, capsys) -> None:
    code, said = plan(monkeypatch, capsys, *words, "--roofline", "--device", "H100", "--gpus", "4")
    assert code == 0, said
    assert said.count("MFU at the peaks") == 3  # clm, mlm at 30 % and the decay, which both arms share
    for text in ("clm (clm)", "mlm (mlm 30%)", "decay (mlm 15%)", "rotary", "not a measurement"):
        assert text in said


@pytest.mark.parametrize(
    ("further", "expected"),
    [
        (["--roofline"], "--roofline needs --device"),
        (["--roofline", "--device", "H10"], "did you mean H100?"),
        (["--roofline", "--device", "H100", "train.precision=fp32"], "set train.precision=bf16"),
    ],
)
def test_what_it_cannot_show_is_one_clear_sentence(words, monkeypatch, capsys, further, expected) -> None:
    code, said = plan(monkeypatch, capsys, *words, *further)
    assert code == 2
    assert expected in said
