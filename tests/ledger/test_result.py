"""Values are read from the records of runs, and become verdicts, a table, JSON and a page."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from clm_detour.ledger.command import chosen_claims, reproduce
from clm_detour.ledger.load import load_ledger
from clm_detour.ledger.page import notes, page_text, terminal_table
from clm_detour.ledger.result import make_result
from clm_detour.ledger.runs import LedgerRun
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.evaluation import Group, MeanScore, Summary
from clm_detour.records.ledger import LedgerRecord
from clm_detour.records.needles import NeedlesRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import parse, read, write
from clm_detour.utils.errors import UserError

TWIN = {1: 3.0, 2: 3.4, 3: 2.9}  # seed -> loss
GAIN = {1: 0.31, 2: 0.28, 3: 0.33}


@pytest.fixture
def runs(made_up):
    """Three seeds in which the detour gains as much as `GAIN` says."""
    for seed, loss in TWIN.items():
        made_up("main", seed, {"detour": loss - GAIN[seed], "twin": loss, "low-frozen": loss})


def test_effects_are_paired_by_seed_and_decide(loaded, runs):
    found = make_result(loaded).claims
    better = found["lower-loss"]
    assert [each.effect for each in better.seeds.values()] == pytest.approx([-gain for gain in GAIN.values()])
    assert better.effect == pytest.approx(-0.92 / 3)
    assert better.deviation == pytest.approx(0.02517, rel=1e-3)  # twins differ by 0.26, but that is paired
    assert better.verdict == "supported"
    assert better.more_seeds is None
    assert better.interval[1] < 0
    assert found["frozen"].verdict == "refuted"  # it was expected to be equal


def test_what_was_not_measured_is_no_number(loaded, runs):
    missing = make_result(loaded).claims["with-dropout"]
    assert (missing.verdict, missing.effect, missing.interval, missing.more_seeds) == (
        "undecided",
        None,
        None,
        None,
    )
    assert "not measured" in missing.reason
    assert all(value is None for each in missing.seeds.values() for value in each.values.values())


def test_one_seed_is_undecided_for_every_claim(loaded, made_up):
    made_up("main", 1, {"detour": 1.0, "twin": 3.0, "low-frozen": 1.0})
    made_up("dropout", 1, {"detour": 1.0, "twin": 3.0})
    result = make_result(loaded)
    assert {claim.verdict for claim in result.claims.values()} == {"undecided"}
    assert result.claims["lower-loss"].effect == -2.0
    assert {claim.interval for claim in result.claims.values()} == {None}
    assert {claim.words for claim in result.claims.values()} == {"undecided (one seed)"}


def test_a_noisy_claim_is_undecided_and_says_how_many_seeds_it_takes(loaded, made_up):
    for seed, gain in {1: 0.5, 2: 0.0, 3: 0.4}.items():
        made_up("main", seed, {"detour": 3 - gain, "twin": 3.0})
    claim = make_result(loaded).claims["lower-loss"]
    assert claim.verdict == "undecided"
    assert 1 <= claim.more_seeds <= 20
    assert claim.words == f"undecided (about {claim.more_seeds} more seeds)"


def test_an_incomplete_seed_is_left_out(loaded, made_up):
    made_up("main", 1, {"detour": 2.7, "twin": 3.0})
    made_up("main", 2, {"detour": 2.6})
    made_up("main", 3, {"detour": 2.6, "twin": 2.95})
    claim = make_result(loaded).claims["lower-loss"]
    assert claim.seeds["2"].effect is None
    assert claim.seeds["2"].values == {"detour": 2.6, "twin": None}
    assert claim.effect == pytest.approx(-0.325)


def test_a_difference_of_differences(loaded, made_up):
    claim = loaded.ledger.claims["frozen"]
    claim.of, claim.against = ["detour", "dropout/twin"], ["twin", "dropout/detour"]
    made_up("main", 1, {"detour": 2.0, "twin": 3.0})
    made_up("dropout", 1, {"detour": 2.5, "twin": 2.75})
    found = make_result(loaded).claims["frozen"]
    assert found.effect == pytest.approx((2.0 - 3.0) - (2.5 - 2.75))


def test_a_value_against_a_number(loaded, made_up):
    loaded.ledger.claims["frozen"].against = 1.5
    made_up("main", 1, {"low-frozen": 2.0})
    found = make_result(loaded).claims["frozen"]
    assert (found.effect, found.against) == (0.5, 1.5)


def test_a_ledger_that_is_changed_after_its_first_run_is_said_so(ledger_file, loaded, runs):
    assert make_result(loaded).changes == []
    assert make_result(load_ledger(ledger_file)).changes == []
    ledger_file.write_text(ledger_file.read_text().replace("smallest: 0.1", "smallest: 0.4", 1))
    result = make_result(load_ledger(ledger_file))
    assert result.hash != result.hash_at_start == loaded.hash
    assert result.changes == ["claims.lower-loss.smallest was 0.1, is now 0.4."]
    assert result.claims["lower-loss"].verdict == "refuted"
    assert any("changed after its first run: claims.lower-loss" in note for note in notes(result))
    assert "was changed after its first run" in page_text(result)


def test_the_table_fits_80_columns_and_has_verdict_effect_and_interval(loaded, runs):
    result, out = make_result(loaded), io.StringIO()
    Console(file=out, width=80).print(terminal_table(result, list(result.claims)))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    line = next(line for line in lines if line.startswith("lower-loss"))
    assert "supported" in line
    assert "−0.307 [−0.369, −0.244]" in line
    assert {"undecided", "(not", "–"} <= set(
        next(line for line in lines if line.startswith("with-dropout")).split()
    )


def test_only_the_chosen_claims_are_run_but_all_are_written(loaded, runs, monkeypatch):
    asked: list[LedgerRun] = []
    monkeypatch.setattr("clm_detour.ledger.command.run_one", lambda run, *_: asked.append(run))
    result, folder = reproduce(loaded, ["with-dropout"])
    assert [(run.variant, run.seed) for run in asked] == [("dropout", seed) for seed in (1, 2, 3)]
    assert read(LedgerRecord, folder / "ledger.json") == result
    assert set(json.loads((folder / "ledger.json").read_text())["claims"]) == set(loaded.claims)
    page = (folder / "ledger.html").read_text()
    assert "Of 3 claims, 1 supported, 1 refuted, 1 undecided" in page
    for claim in loaded.claims.values():
        assert claim.claim in page
        assert claim.refuted_if in page


def test_an_unknown_claim_is_one_sentence(ledger_file, loaded):
    with pytest.raises(UserError, match=r"--only: 'lower-los' is not known; did you mean lower-loss\?"):
        chosen_claims(loaded, ["lower-los"])
    with pytest.raises(UserError, match="other does not have the variant dropout"):
        chosen_claims(load_ledger(ledger_file, "other"), ["with-dropout"])


def comparison(divergences: dict[str, list[float]]) -> NetworkComparison:
    """Return a comparison of models with six layers, with the debiased divergences of all pairs of layers."""
    layers = ["embeddings", *map(str, range(6)), "final norm"]

    def variant(values: list[float]) -> dict:
        model = {"divergence": sum(values[1:-1]) / 6, "interval": None}
        return {"matrix": None, "divergence": values, "interval": None, "model": model}

    quotient = {"debiased": {"model": 0.8, "interval": None}}
    content = {
        "models": {role: {"layers": layers, "hidden": 8} for role in ("a", "b", "control")},
        "texts": {"distinct": 9, "samples": 1, "per_sample": 9, "overlap": False},
        "comparisons": {
            name: {
                "models": roles,
                "pairs": [(one, one) for one in layers],
                "variants": {"debiased": variant(divergences[name])},
            }
            for name, roles in (("detour_twin", ["a", "b"]), ("control", ["b", "control"]))
        },
        "ratio": {"debiased": {"model": 1.5, "interval": None}},
        "retention": quotient,
        "notes": [],
    }
    return parse(NetworkComparison, content)


def test_statistics_of_the_networks(tmp_path):
    folder = RunFolder(tmp_path)
    low, middle, high = [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]
    found = comparison(
        {
            "detour_twin": [9.0, *low, *middle, *high, 9.0],
            "control": [9.0, 0.05, 0.05, 0.15, 0.15, 0.4, 0.4, 9.0],
        }
    )
    write(found, folder.comparison)
    values = {
        name: STATISTICS[name].read(folder, "detour")
        for name in (
            "divergence",
            "noise_ratio",
            "low_noise_ratio",
            "low_against_middle",
            "retention",
            "task_score",
        )
    }
    expected = {"divergence": 0.3, "noise_ratio": 1.5, "low_noise_ratio": 4.0, "low_against_middle": 2.0}
    assert values == pytest.approx({**expected, "retention": 0.8, "task_score": None})


@pytest.mark.parametrize(("of", "expected"), [(1, 70.0), (2, None)])
def test_a_mean_over_tasks_is_not_measured_where_a_task_is_missing(tmp_path, of, expected):
    folder = RunFolder(tmp_path)
    mean = MeanScore(mean=70.0, std=None, interval=None)
    summary = Summary(
        models=[], tasks=[], scores={}, groups=[Group("all", ["GAD"], of, {"detour": mean})], comparisons=[],
        published={}, missing=[],
    )  # fmt: skip
    folder.tasks.mkdir(parents=True)
    write(summary, folder.tasks / "summary.json")
    assert STATISTICS["task_score"].read(folder, "detour") == expected


def test_needles_are_those_of_the_longest_texts(tmp_path):
    folder = RunFolder(tmp_path)
    paths = [f"{tmp_path}/models/{arm}" for arm in ("detour", "twin")]
    record = NeedlesRecord(
        models=paths,
        lengths=[512, 128],
        positions=[0.0, 1.0],
        trials=10,
        candidates=20,
        accuracy={paths[0]: [[0.2, 0.6], [1.0, 1.0]], paths[1]: [[0.1, 0.1], [1.0, 1.0]]},
        chance=0.05,
        control={path: [0.0, 0.0] for path in paths},
    )
    write(record, folder.analysis / "needles.json")
    assert STATISTICS["needles"].read(folder, "detour") == pytest.approx(40)
    assert STATISTICS["needles"].read(folder, "twin") == pytest.approx(10)
    assert STATISTICS["needles"].read(folder, "control") is None


def test_the_chance_of_an_error_is_that_of_claims_that_do_not_hold(loaded, runs):
    # Without an effect a claim of equality holds, and is supported more often than by chance.
    expected = "a claim that does not hold is called supported with a chance of up to 2.5 %"
    assert any(expected in note for note in notes(make_result(loaded)))


def test_a_statistic_says_its_unit_and_direction(loaded, runs):
    page = page_text(make_result(loaded))
    assert "masked loss on held-out text in nats (lower is better)" in page
