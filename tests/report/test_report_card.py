"""The model card, and what push would do with it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.repocard import metadata_load
from typer.testing import CliRunner

from clm_detour.cli.main import app
from clm_detour.report.card import model_card, write_cards
from clm_detour.report.generated import generated_sources
from clm_detour.report.load import load_run
from clm_detour.report.push import plan_upload, upload
from clm_detour.utils.errors import UserError


class StandIn:
    """Takes what would go to the hub."""

    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, **options):
        self.calls.append(("create_repo", repo_id, options))
        return f"hub/{repo_id}"

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", options["repo_id"], options))


def rows_under(card: str, first: str) -> dict[str, list[str]]:
    """The rows of the Markdown table whose head begins with `first`."""
    table = re.search(rf"^\| {first} \|.*?(?=^$)", card, re.DOTALL | re.MULTILINE)[0]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines if not line[0].startswith("---")}


def test_every_exported_model_gets_a_card_that_the_hubs_library_reads(fake_run):
    for path in write_cards(fake_run.path):
        data = ModelCard.load(path).data
        assert data.pipeline_tag == "fill-mask"
        assert "clm-detour" in data.tags
        assert {result.task_type for result in data.eval_results} == {
            "fill-mask", "text-classification", "token-classification",
        }  # fmt: skip
        assert metadata_load(path)["model-index"][0]["name"] == f"made-up-{path.parent.name}"
    assert len(write_cards(fake_run.path)) == 3


def test_the_cards_table_and_its_model_index_are_the_summarys_figures(whole_run):
    summary = whole_run.json("evaluation/tasks/summary.json")
    card = model_card(load_run(whole_run.path), "detour")
    rows = rows_under(str(card), "task")
    assert rows["task"][:2] == ["measure", "test texts"]
    models = [model.strip("*") for model in rows["task"][2:]]
    for task in ("GAD", "JNLPBA"):
        scores = [summary["scores"][model][task] for model in models]
        assert rows[task][2:] == [f"{score['mean']:.2f} ± {score['std']:.2f}" for score in scores]
    for group in summary["groups"]:
        averages = [f"{group['averages'][model]['mean']:.2f}" for model in models]
        cells = rows[f"average, {group['name']}, {len(group['tasks'])} of {group['of']}"]
        assert [cell.split()[0] for cell in cells[2:]] == averages
    indexed = {result.dataset_name: result.metric_value for result in card.data.eval_results}
    for task, score in summary["scores"]["detour"].items():
        assert indexed[task] == round(score["mean"], 2)
    held_out = whole_run.json("evaluation/held_out.json")["models"]
    assert {model.strip("*"): row[0] for model, row in rows_under(str(card), "model").items()} == {
        "model": "loss (nats)",
        **{model: f"{scores['loss']:.3f}" for model, scores in held_out.items()},
    }


def test_the_card_compares_detour_and_twin_on_tasks_and_names_the_kind_of_interval(whole_run):
    card = str(model_card(load_run(whole_run.path), "detour"))
    assert "test scores in percent, ± their standard deviation over 3 seeds:" in card
    assert "Fine-tuned on 2 tasks, the detour is " in card
    assert "(95 % interval over seeds, on these tasks only: " in card
    assert "p = " not in card  # two tasks are too few for a test over tasks


def test_the_training_table_has_every_phase_of_the_arm(whole_run):
    rows = rows_under(str(model_card(load_run(whole_run.path), "detour")), "setting")
    assert rows["setting"] == ["pretrain", "clm", "decay"]
    assert rows["tokens"][1] == f"{whole_run.json('phases/pretrain.clm/phase.json')['tokens']:,}"
    assert rows["objective"][1].startswith("causal")
    assert rows["learning rate"][2] == "1-sqrt decay from 0.002 to 0.0002"
    assert "not trained" not in rows


def test_names_with_a_bar_or_a_line_break_stay_in_their_cells(fake_run):
    name = "notes|2019\nlate"
    fake_run.edit(
        "phases/pretrain.clm/phase.json",
        lambda record: record["shares"].update({name: record["shares"].pop("notes")}),
    )
    card = str(model_card(load_run(fake_run.path), "detour"))
    (line,) = (line for line in card.splitlines() if "2019" in line)
    assert line == "| notes\\|2019 late | – | – |  | 19.9 % |  | – |"


def test_a_hub_base_is_named_with_its_licence_and_a_folder_is_not(fake_run):
    run = load_run(fake_run.path)
    run.config.model.base = "answerdotai/ModernBERT-base"
    card = model_card(run, "detour")
    assert (card.data.base_model, card.data.license) == ("answerdotai/ModernBERT-base", "apache-2.0")
    assert "No license is named" not in str(card)
    run.config.model.base = "/somewhere/else/model"
    card = model_card(run, "detour")
    assert card.data.base_model is None
    assert "/somewhere" not in str(card)
    assert "No license is named" in str(card)


@pytest.mark.parametrize("name", ["runs/base", "../base", "./base"])
def test_a_base_that_is_a_folder_here_is_not_linked_to_the_hub(fake_run, tmp_path, monkeypatch, name):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / name).mkdir(parents=True)
    run = load_run(fake_run.path)
    run.config.model.base = name
    card = model_card(run, "detour")
    assert card.data.base_model is None
    assert "huggingface.co" not in str(card)


def record_hub(run, *names) -> None:
    """What a phase's record says of the recipe's names."""
    for path in (run.path / "phases").iterdir():
        run.edit(f"phases/{path.name}/phase.json", lambda record: record.update(hub=list(names)))


@pytest.mark.parametrize(
    ("names", "base"), [([], None), (["models_in/hospital-base"], "models_in/hospital-base")]
)
def test_a_base_is_the_hubs_as_it_was_when_the_phases_ran_wherever_the_card_is_written(
    fake_run, tmp_path, monkeypatch, names, base
):
    record_hub(fake_run, *names)
    run = load_run(fake_run.path)
    run.config.model.base = "models_in/hospital-base"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    card = model_card(run, "detour")
    assert card.data.base_model == base
    assert ("huggingface.co/models_in" in str(card)) == (base is not None)
    (elsewhere / "models_in" / "hospital-base").mkdir(parents=True)  # another one of this name
    assert model_card(run, "detour").data.base_model == base


def test_a_data_set_that_was_a_local_copy_when_the_phases_ran_is_not_named(fake_run):
    record_hub(fake_run, "microsoft/mediflow")
    run = load_run(fake_run.path)
    for source, path in zip(
        run.config.data.sources.values(), ["microsoft/mediflow", "data/copy"], strict=False
    ):
        source.format, source.path = "hub", path
    assert model_card(run, "detour").data.datasets == ["microsoft/mediflow"]


@pytest.mark.parametrize("above", [0, 1, 2])
def test_in_a_run_of_the_first_version_a_folder_beside_or_above_the_run_is_no_hub_model(
    fake_run, tmp_path, monkeypatch, above
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = load_run(fake_run.path)
    run.config.model.base = "models_in/hospital-base"
    assert model_card(run, "detour").data.base_model == "models_in/hospital-base"
    ([fake_run.path, *fake_run.path.parents][above] / "models_in" / "hospital-base").mkdir(parents=True)
    assert model_card(run, "detour").data.base_model is None


def test_the_card_of_a_run_on_the_bundled_sample_says_that_its_text_is_generated(fake_run):
    words = "All text that this run trained on is generated (synthetic)"
    run = load_run(fake_run.path)
    assert words in str(model_card(run, "detour"))
    run.config.data.sources["notes"].path = "data/notes.jsonl"
    card = str(model_card(run, "detour"))
    assert words not in card
    assert "The text of general, abstracts and instructions is generated (synthetic)" in card
    for source in run.config.data.sources.values():
        source.path = "data/notes.jsonl"
    assert "generated (synthetic)" not in str(model_card(run, "detour"))


def test_text_of_another_runs_sample_is_generated_and_a_folder_of_that_name_need_not_be(fake_run, tmp_path):
    run = load_run(fake_run.path)
    run.config.data.sample = None
    path = tmp_path / "other" / "sample" / "notes.jsonl.gz"
    path.parent.mkdir(parents=True)
    for source in run.config.data.sources.values():
        source.path = str(path)
    assert generated_sources(run) == []
    (path.parent / "settings.json").write_text("{}", encoding="utf-8")
    assert generated_sources(run) == list(run.config.data.sources)


def test_data_sets_are_those_of_the_hub_and_no_local_copies(fake_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "copy").mkdir(parents=True)
    run = load_run(fake_run.path)
    paths = ["microsoft/mediflow", "imdb", "data/copy", "/mnt/data/notes"]
    for source, path in zip(run.config.data.sources.values(), paths, strict=True):
        source.format, source.path = "hub", path
    card = model_card(run, "detour")
    assert card.data.datasets == ["microsoft/mediflow", "imdb"]
    assert "/mnt" not in str(card)


def test_the_language_of_the_tasks_is_not_claimed_for_the_model(fake_run):
    fake_run.edit("evaluation/tasks/summary.json", lambda record: record["tasks"][0].update(language="es"))
    run = load_run(fake_run.path)
    assert model_card(run, "detour").data.language == "en"  # of the bundled text
    run.config.data.sources["notes"].path = "data/notes.jsonl"
    assert model_card(run, "detour").data.language is None
    assert model_card(run, "detour", metadata={"language": ["fr"]}).data.language == ["fr"]


def test_an_arm_that_ends_causal_is_not_said_to_fill_masks(fake_run):
    fake_run.edit("phases/pretrain.clm.decay/phase.json", lambda record: record.update(objective="clm"))
    run = load_run(fake_run.path)
    card, twin = (model_card(run, arm, "me/model") for arm in ("detour", "twin"))
    assert "fill-mask" not in str(card.data.pipeline_tag)
    for words in ("it fills masks", "causal detour", 'pipeline("fill-mask"', "encoder for masked"):
        assert words not in str(card)
        assert words in str(twin)
    assert "ends as a causal language model" in str(card)
    assert 'ModernBertForPretraining.from_pretrained("me/model")' in str(card)


@pytest.mark.parametrize("card", ["", "no metadata", "---\n: [\n---\n", "---\n- a\n---\n", b"\xff"])
def test_a_readme_that_is_no_card_is_replaced(fake_run, card):
    path = fake_run.path / "models" / "detour" / "README.md"
    path.write_bytes(card if isinstance(card, bytes) else card.encode())
    write_cards(fake_run.path)
    assert ModelCard.load(path).data.license is None


def test_licence_and_language_given_to_push_outlive_a_later_report(fake_run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "made-up")
    given = {"license": "cc-by-4.0", "language": ["fr"]}
    upload(plan_upload(fake_run.path, "detour", "me/model", given), public=False, api=StandIn())
    assert CliRunner().invoke(app, ["report", str(fake_run.path)]).exit_code == 0
    card = ModelCard.load(fake_run.path / "models" / "detour" / "README.md")
    again = plan_upload(fake_run.path, "detour", "me/model", {"license": None, "language": None}).card
    for data in (card.data, again.data):
        assert (data.license, data.language) == ("cc-by-4.0", ["fr"])
    assert "No license is named" not in str(card)
    assert plan_upload(fake_run.path, "detour", "me/model", {"license": "mit"}).card.data.license == "mit"
    assert ModelCard.load(fake_run.path / "models" / "twin" / "README.md").data.license is None


def test_a_run_without_scores_has_a_card_without_them(fake_run):
    for record in ("held_out.json", "tasks/summary.json"):
        (fake_run.path / "evaluation" / record).unlink()
    card = model_card(load_run(fake_run.path), "twin")
    assert "has not been evaluated" in str(card)
    assert card.data.eval_results is None


def test_report_prints_the_pages_path_as_it_is_to_the_output(fake_run):
    folder = fake_run.path.rename(fake_run.path.with_name("run [old] :x:"))
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0
    assert result.stdout == f"Open {folder / 'report.html'}\n"


def test_push_shows_files_and_card_and_uploads_nothing_without_yes(fake_run, monkeypatch):
    monkeypatch.setattr(
        "clm_detour.report.push.HfApi", lambda **_: pytest.fail("no connection was asked for")
    )
    before = sorted(fake_run.path.rglob("*"))
    result = CliRunner().invoke(app, ["push", str(fake_run.path), "detour", "me/model", "--license", "mit"])
    assert result.exit_code == 0
    for words in ("model.safetensors", "license: mit", 'from_pretrained("me/model")'):
        assert words in result.output
    assert sorted(fake_run.path.rglob("*")) == before


def test_push_uploads_exactly_what_it_showed_into_a_private_repository(fake_run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "made-up")
    planned, api = plan_upload(fake_run.path, "detour", "me/model"), StandIn()
    upload(planned, public=False, api=api)
    (_, created, options), (_, uploaded, sent) = api.calls
    assert created == uploaded == "me/model"
    assert options["private"] is True
    assert sent["allow_patterns"] == ["README.md", "figure.png", "config.json", "model.safetensors"]
    assert planned.files["figure.png"] == (sent["folder_path"] / "figure.png").stat().st_size
    readme = (sent["folder_path"] / "README.md").read_text(encoding="utf-8")
    assert readme == str(planned.card)
    assert planned.files["README.md"] == len(readme.encode())


def test_push_takes_its_token_from_the_environment_alone(fake_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    api = StandIn()
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        upload(plan_upload(fake_run.path, "detour", "me/model"), public=False, api=api)
    assert not api.calls


def refused(status: int, words: str) -> HfHubHTTPError:
    """What the hub's library raises."""
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("Client error", response=response, server_message=words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused(401, "Invalid username or password."), r"password\); set HF_TOKEN to a valid token"),
        (refused(403, "You may not."), "set HF_TOKEN to a token that may write to me"),
        (ValueError('Invalid metadata in README.md.\n- "license" must be one of'), "with --license"),
        (ConnectionError("no route\nto the hub"), "no route to the hub.*can be reached"),
        (RuntimeError("Illegal header b'Bearer made-up'"), "Bearer HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_without_the_token(fake_run, monkeypatch, error, words):
    monkeypatch.setenv("HF_TOKEN", "made-up")
    planned, api = plan_upload(fake_run.path, "detour", "me/model"), StandIn()
    monkeypatch.setattr(api, "upload_folder", lambda **_: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match=words) as raised:
        upload(planned, public=False, api=api)
    assert "made-up" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arm", "repository", "words"),
    [
        ("detuor", "me/model", "no arm detuor"),
        ("detour", "model", "no owner"),
        ("detour", "a/b/c", "not a valid repository"),
    ],
)
def test_push_refuses_what_is_not_there(fake_run, arm, repository, words):
    with pytest.raises(UserError, match=words):
        plan_upload(fake_run.path, arm, repository)


def test_push_refuses_an_arm_that_has_not_finished(fake_run):
    (fake_run.path / "phases" / "pretrain.clm.decay" / "phase.json").unlink()
    with pytest.raises(UserError, match="has not finished"):
        plan_upload(fake_run.path, "detour", "me/model")
    plan_upload(fake_run.path, "twin", "me/model")
