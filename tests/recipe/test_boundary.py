"""What crosses the boundary between two phases is what the guide's table says."""

from __future__ import annotations

import pytest
from transformers import ModernBertModel

from clm_detour.config import load_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.recipe import boundary
from clm_detour.recipe.boundary import OPTIMIZER_STATE, Start, boundary_table, cross_boundary
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.errors import UserError

QUICKSTART = CONFIGS / "quickstart.yaml"


@pytest.fixture
def recipe_of(tmp_path):
    """Return a function from overrides to the quickstart with all phases marked as finished."""

    def make(*overrides: str) -> Recipe:
        recipe = Recipe(load_config(QUICKSTART, [f"run_dir={tmp_path}/run", *overrides]))
        for run in recipe.phases:
            recipe.folder.phase(run).root.mkdir(parents=True, exist_ok=True)
            recipe.folder.phase(run).record.write_text("{}")
        return recipe

    return make


def cells(start: Start, resumes_after: str | None = None) -> dict[str, str]:
    names, values = boundary_table(start, resumes_after).columns
    return dict(zip(names.cells, values.cells, strict=True))


def test_the_first_phase_starts_with_random_weights_or_those_of_the_base(recipe_of):
    recipe = recipe_of()
    start = cross_boundary(recipe, recipe.arm("detour")[0])
    assert (start.weights, start.optimizer_state, start.first_row) == (None, None, 0)
    assert cells(start)["weights"] == "new, random"
    recipe = recipe_of("model={base: some/model, config: null}")
    assert cross_boundary(recipe, recipe.arm("detour")[0]).weights == "some/model"


def test_weights_optimizer_state_and_position_are_kept_and_the_mask_changes(recipe_of):
    recipe = recipe_of()
    _, clm, decay = recipe.arm("detour")
    start, folder = cross_boundary(recipe, decay), recipe.folder.phase(clm.id)
    assert (start.weights, start.optimizer_state) == (str(folder.model), folder.moments)
    assert start.first_row == clm.next_row
    assert cross_boundary(recipe, clm).objective.causal
    assert not start.objective.causal
    assert cells(start)["optimizer state"] == f"kept, end of {clm.id}"
    assert cells(start)["clock and schedule"].startswith("new: one_minus_sqrt")


def test_a_phase_may_ask_for_a_new_optimizer_and_a_new_head(recipe_of):
    recipe = recipe_of("phases.decay.moments=fresh", "phases.decay.reset_head=true")
    start = cross_boundary(recipe, recipe.arm("detour")[-1])
    assert start.optimizer_state is None
    assert start.reset_head
    assert cells(start)["prediction head"] == "initialized again, without optimizer state"


BASE = "model={base: some/model, config: null}"
SEPARATE = ("phases.clm.separate_head=true", "phases.decay.separate_head=true")


def heads(recipe: Recipe, arm: str) -> list[tuple[bool, str | None]]:
    starts = [cross_boundary(recipe, run) for run in recipe.arm(arm)]
    return [(start.reset_head, start.head) for start in starts]


def test_separate_heads_take_turns_and_that_of_the_base_waits_for_its_objective(recipe_of, monkeypatch):
    arms = "arms={detour: [clm, decay], twin: [mlm, decay]}"
    monkeypatch.setattr(boundary, "is_decoder", lambda path: True)
    monkeypatch.setattr(boundary, "fills_masks", lambda path: False)
    assert heads(recipe_of(BASE, *SEPARATE, arms), "detour") == [(False, None), (True, None)]
    monkeypatch.setattr(boundary, "is_decoder", lambda path: False)
    monkeypatch.setattr(boundary, "fills_masks", lambda path: True)
    recipe = recipe_of(BASE, *SEPARATE, arms)
    assert heads(recipe, "detour") == [(True, None), (False, "some/model")]
    assert heads(recipe, "twin") == [(False, None), (False, None)]
    start = cross_boundary(recipe, recipe.arm("detour")[-1])
    assert cells(start)["prediction head"] == "that of some/model, without optimizer state"


def test_separate_heads_go_on_where_the_last_phase_of_the_same_objective_ended(recipe_of):
    recipe = recipe_of(*SEPARATE)
    pretrain = recipe.arm("detour")[0]
    assert pretrain.phase.objective == "mlm"
    assert heads(recipe, "detour") == [
        (False, None),
        (True, None),
        (False, str(recipe.folder.phase(pretrain.id).model)),
    ]


def test_a_base_without_a_head_has_none_to_go_back_to(recipe_of, tiny_base, tmp_path):
    body = tmp_path / "body"
    ModernBertModel.from_pretrained(tiny_base).save_pretrained(body)
    arms = "arms={detour: [clm, decay]}"
    recipe = recipe_of(f"model={{base: {body}, config: null}}", *SEPARATE, arms)
    assert heads(recipe, "detour") == [(True, None), (True, None)]


def test_a_random_network_has_no_head_to_go_back_to(recipe_of):
    recipe = recipe_of(*SEPARATE, "arms={detour: [clm, decay]}")
    assert heads(recipe, "detour") == [(True, None), (True, None)]


def test_what_the_phase_before_froze_has_no_optimizer_state_to_keep(recipe_of):
    recipe = recipe_of("phases.clm.freeze={embeddings: true}")
    _, clm, decay = recipe.arm("detour")
    assert (
        cross_boundary(recipe, clm).frozen == cross_boundary(recipe, decay).frozen_before == clm.phase.freeze
    )
    assert cross_boundary(recipe, decay).frozen is None


def test_a_phase_that_resumes_takes_everything_from_its_checkpoint(recipe_of, tmp_path):
    recipe = recipe_of("phases.decay.reset_head=true", "phases.decay.moments=fresh")
    start = cross_boundary(recipe, recipe.arm("detour")[-1], tmp_path / "step-00000004")
    assert start.weights == str(tmp_path / "step-00000004")
    assert start.optimizer_state == tmp_path / "step-00000004" / OPTIMIZER_STATE
    assert not start.reset_head
    assert cells(start, "step 4 of 9")["resumes after"] == "step 4 of 9"


def test_the_phase_before_must_have_finished(recipe_of):
    recipe = recipe_of()
    _, clm, decay = recipe.arm("detour")
    recipe.folder.phase(clm.id).record.unlink()
    with pytest.raises(UserError, match=rf"starts from the end of {clm.id}, which has not finished"):
        cross_boundary(recipe, decay)
