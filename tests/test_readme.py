"""What README tells a user to write and to run works as it is printed there."""

from __future__ import annotations

import json
import random
import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import ModernBertConfig

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.evaluate.published import published_scores
from clm_detour.plan import make_plan
from clm_detour.plan.hardware import Hardware
from clm_detour.recipe.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
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


LARGEST_IMAGE = 300_000  # bytes
GAINS = {  # row of the table -> language, published models before, without and with the detour
    "ModernCamemBERT-base": ("fr", "ModernCamemBERT", "base MLM", "base CLM"),
    "ModernCamemBERT-large": ("fr", None, "large MLM", "large CLM"),
    "ModernBERT-base": ("en", "ModernBERT-base", "base 50B MLM", "base 50B CLM"),
    "ModernBERT-large": ("en", None, "large 50B MLM", "large 50B CLM"),
}


def images() -> dict[str, str]:
    """Path -> text of every image."""
    found = {path: text for text, path in re.findall(r"!\[(.*?)\]\((.*?)\)", README)}
    for picture in re.findall(r"<picture>.*?</picture>", README, re.DOTALL):
        (text,) = re.findall(r'alt="(.*?)"', picture)
        found |= dict.fromkeys(re.findall(r'src(?:set)?="(.*?)"', picture), text)
    return found


def test_images_exist_are_small_and_are_described():
    assert len(images()) >= 4
    for path, text in images().items():
        assert 0 < (ROOT / path).stat().st_size < LARGEST_IMAGE
        assert len(text) > 20


def test_the_diagram_is_what_its_script_draws():
    script = runpy.run_path(str(ROOT / "scripts" / "diagram.py"))
    light = script["drawing"]()
    for name, content in (("recipe", light), ("recipe-dark", script["on_dark"](light))):
        assert (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8") == content
    assert light != script["on_dark"](light)


def test_the_gains_are_the_published_averages():
    rows = re.findall(
        r"^\| (Modern[^,|]+), .*? \| (\d+) .*? \| (.*?) \| (.*?) \| (.*?) \| \*\*(.*?)\*\* \|$", README, re.M
    )
    assert [row[0] for row in rows] == list(GAINS)
    for name, tasks, *cells in rows:
        language, *models = GAINS[name]
        scores = {model.partition(" (")[0]: found for model, found in published_scores(language).items()}
        averages = [scores[model]["average"] if model else None for model in models]
        assert int(tasks) == len(scores[models[-1]]) - 1
        assert cells[:3] == ["–" if value is None else f"{value:.1f}" for value in averages]
        assert cells[3] == f"{averages[2] - averages[1]:+.1f}"
