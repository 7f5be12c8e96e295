"""What README tells a user to write and to run works as it is printed there."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import pytest
from transformers import ModernBertConfig

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.plan import make_plan
from clm_detour.plan.hardware import Hardware
from clm_detour.recipe.recipe import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = {
    language: re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL) for language in ("yaml", "csv")
}
SMALL, FULL = BLOCKS["yaml"]


def paragraphs(count: int) -> str:
    """Some text of a user: drawn from a few hundred made-up words, the first of which are frequent."""
    draw = random.Random(0)
    words = [
        "".join(draw.choice("bdfglmnprst") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))
        for _ in range(500)
    ]
    weights = [1 / place for place in range(1, len(words) + 1)]
    return "\n\n".join(" ".join(draw.choices(words, weights, k=draw.randint(30, 80))) for _ in range(count))


def run(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["clm-detour", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code


@pytest.mark.slow
def test_the_small_recipe_runs_as_printed(tmp_path, monkeypatch, capsys):
    # It takes half a minute: all steps with three arms and a task, exactly as printed.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks" / "urgent").mkdir(parents=True)
    (tmp_path / "tasks" / "urgent" / "urgent.csv").write_text(BLOCKS["csv"][0])
    (tmp_path / "texts.txt").write_text(paragraphs(300))
    (tmp_path / "small.yaml").write_text(SMALL)
    run(monkeypatch, "check", "small.yaml")
    assert "Warning" not in capsys.readouterr().err
    run(monkeypatch, "run", "small.yaml")
    summary = json.loads((tmp_path / "runs/small/evaluation/tasks/summary.json").read_text())
    assert summary["tasks"][0]["n"] == 2
    assert set(summary["scores"]) == {"base", "detour", "twin"}
    assert (tmp_path / "runs/small/report.html").is_file()


def test_the_full_recipe_fits_into_a_gpu(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(FULL)
    monkeypatch.setattr("clm_detour.plan.make.base_config", lambda path: ModernBertConfig())
    config = load_config(tmp_path / "mine.yaml")
    assert list(config.arms) == ["detour", "twin"]
    assert (config.train.micro_rows, config.train.compile) == ("auto", "auto")
    for gpus in (1, 4):
        for device in ("H100", "RTX4090"):
            memory = Hardware(gpus, device).memory
            sizes = make_plan(Recipe(config), gpus, read_data=False, gpu_memory=memory).sizes
            assert sum(sizes.memory.values()) <= 0.9 * memory


def test_the_small_recipe_has_steps_to_learn_in(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    config = load_config(tmp_path / "small.yaml")
    for phase in make_plan(Recipe(config), read_data=False).phases:
        assert phase.run.steps >= 10
