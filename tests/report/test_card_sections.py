"""The sections of a model card, and the code in it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedTokenizerFast, pipeline

from clm_detour.config.shipped import CONFIGS
from clm_detour.evaluate.published import published_scores
from clm_detour.report.card import model_card, write_cards
from clm_detour.report.card.base_models import BASE_MODELS, FORMER_IDS, base_model, citations
from clm_detour.report.load import load_run
from clm_detour.report.push import plan_upload

ROOT = Path(__file__).parents[2]
SPECIAL = {name: f"<{name}>" for name in ("unk", "cls", "sep", "pad", "mask")}
SECTIONS = [
    "How to use", "Intended use", "Architecture", "Training data", "Training", "Why a detour", "Evaluation",
    "Limits", "License", "Citation",
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(original, tmp_path_factory):
    """A run whose detour is a tiny model that transformers opens; its mask token is `<mask>`."""
    run = shutil.copytree(original, tmp_path_factory.mktemp("exported") / "made-up")
    words = [*SPECIAL.values(), "Paris", "is", "the", "capital", "of", "a", "text", "."]
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, SPECIAL["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name}_token": token for name, token in SPECIAL.items()}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    config = ModernBertConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=4,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=vocabulary["<pad>"],
        cls_token_id=vocabulary["<cls>"], sep_token_id=vocabulary["<sep>"],
    )  # fmt: skip
    for part in (fast, ModernBertForMaskedLM(config)):
        part.save_pretrained(run / "models" / "detour")
    masks = run / "evaluation" / "fill_mask.json"
    masks.write_text(masks.read_text(encoding="utf-8").replace("[MASK]", "<mask>"), encoding="utf-8")
    write_cards(run)
    return run


def card_of(run: Path, arm: str = "detour") -> str:
    return (run / "models" / arm / "README.md").read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    """The text under a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)[1]


def test_a_card_has_every_section_and_each_has_content(exported):
    card = card_of(exported)
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == SECTIONS
    for title in SECTIONS:
        assert section(card, title).strip()
        assert f"\n\n## {title}\n\n" in card
    assert not re.search(r"^\|.*\n(?!\||$)", card, re.MULTILINE)  # a table ends with an empty line
    assert "**Result.** The masked-LM loss on held-out text is " in card


def test_the_code_of_a_card_runs_in_the_folder_of_the_model(exported, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(exported / "models" / "detour", tmp_path / "model")
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", card_of(exported), re.DOTALL)
    assert len(blocks) == 3
    printed, vectors, trainer = {}, {}, {}
    exec(blocks[0], printed)
    assert len(capsys.readouterr().out.splitlines()) == 5
    exec(blocks[1], vectors)
    assert vectors["vectors"].shape == (2, 16)
    exec(blocks[2], trainer)
    assert trainer["model"].num_labels == 2


def test_the_examples_of_a_card_have_the_mask_token_of_the_tokenizer(exported):
    folder = exported / "models" / "detour"
    widget = ModelCard.load(folder / "README.md").data.to_dict()["widget"]
    assert len(widget) == 3
    fill = pipeline("fill-mask", str(folder))
    for example in widget:
        assert len(fill(example["text"])) == 5


def test_text_that_is_not_generated_is_in_no_card(exported):
    run = load_run(exported)
    texts = [item.text for item in run.filled_masks]
    for source in run.config.data.sources.values():
        source.path = "data/notes.jsonl"
    card = model_card(run, "detour")
    assert "widget" not in card.data.to_dict()
    run.config.model.base = "almanach/moderncamembert-base"
    card = model_card(run, "detour")
    assert card.data.to_dict()["widget"] == [{"text": "Paris est la capitale de la <mask>."}]
    assert card.data.language == "fr"
    assert not any(text in str(card) for text in texts)


def test_the_architecture_is_that_of_the_exported_config_and_weights(exported):
    model = ModernBertForMaskedLM.from_pretrained(exported / "models" / "detour")
    rows = dict(
        re.findall(r"^\| (.*?) \| (.*) \|$", section(card_of(exported), "Architecture"), re.MULTILINE)
    )
    assert rows["parameters"] == f"{model.num_parameters():,}"
    assert rows["layers"] == "4"
    assert rows["attention"] == "layers 0 and 3 see the whole text, the others 64 tokens on each side"
    assert "## Architecture" in card_of(exported, "twin")  # of the recipe's rows only
    assert "parameters" not in section(card_of(exported, "twin"), "Architecture")


def test_data_are_described_and_counted_as_the_recipe_and_the_cards_of_the_sources_say(fake_run):
    run = load_run(fake_run.path)
    source = run.config.data.sources["notes"]
    source.path, source.description, source.license = "data/n.jsonl", "Notes of one hospital.", "private"
    text = section(str(model_card(run, "detour")), "Training data")
    assert "- **notes**: Notes of one hospital; license private." in text
    assert "- **abstracts**: synthetic text" in text
    cards = [run.sources[name].splits["train"] for name in run.sources]
    total = f"| all | {sum(c.documents for c in cards):,} | {sum(c.tokens for c in cards):,} |"
    assert total in text


def test_a_card_says_that_test_texts_were_not_kept_out_of_training_unless_they_were(fake_run):
    run, words = load_run(fake_run.path), "It was not checked whether test texts"
    assert words in str(model_card(run, "detour"))
    run.config.data.sources["notes"].decontaminate = ["tasks/**/test.tsv"]
    assert words not in str(model_card(run, "detour"))


def test_description_and_license_of_a_source_change_no_prepared_data():
    from clm_detour.config.schema import Source
    from clm_detour.data.sources.read import chosen_settings

    plain = Source("a.jsonl", min_words=3)
    described = Source("a.jsonl", min_words=3, description="Notes", license="mit")
    assert chosen_settings(plain) == chosen_settings(described) == {"min_words": 3}


def test_published_scores_are_apart_and_named_as_published(fake_run):
    text = section(str(model_card(load_run(fake_run.path), "detour")), "Evaluation")
    own, published = text.split("as published in arXiv 2605.12438")
    summary = fake_run.json("evaluation/tasks/summary.json")
    assert summary["published"]
    for model in summary["published"]:
        assert f"| {model} |" in published
        assert f"| {model} |" not in own


def test_the_twin_is_judged_the_other_way_round(fake_run):
    """The control ends closer to the twin than the detour does, so the difference is above the noise."""

    def add_control(record):
        twin = record["models"]["twin"]
        record["models"]["control"] = {**twin, "loss": twin["loss"] + 0.001}

    fake_run.edit("evaluation/held_out.json", add_control)
    run = load_run(fake_run.path)
    losses = {name: score.loss for name, score in run.held_out.totals.items()}
    assert losses["detour"] > losses["twin"] + 0.001
    for arm, word in (("detour", "worse"), ("twin", "better")):
        assert f"({word}; two equal twins are 0.001 apart)" in str(model_card(run, arm))


def test_the_figure_is_linked_where_it_is_and_goes_away_with_the_scores(fake_run):
    for path in write_cards(fake_run.path):
        assert "](figure.png)" in path.read_text(encoding="utf-8")
        assert (path.parent / "figure.png").read_bytes().startswith(b"\x89PNG")
    (fake_run.path / "evaluation" / "tasks" / "summary.json").unlink()
    for path in write_cards(fake_run.path):
        assert "figure.png" not in path.read_text(encoding="utf-8")
        assert not (path.parent / "figure.png").exists()


def test_a_new_size_of_a_figure_is_that_which_is_uploaded(fake_run):
    write_cards(fake_run.path)
    planned = plan_upload(fake_run.path, "detour", "me/model")
    assert planned.files["figure.png"] == len(planned.drawn.png)


def test_the_license_and_citation_of_a_known_base_are_given(fake_run):
    run = load_run(fake_run.path)
    run.config.model.base = "answerdotai/ModernBERT-base"
    card = model_card(run, "detour")
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert "2412.13663" in section(str(card), "Citation")
    assert section(str(card), "License").strip().startswith("apache-2.0.")


def test_every_citation_that_a_base_names_exists():
    for base in [None, *BASE_MODELS, *FORMER_IDS]:
        entries = citations(base)
        assert "2605.12438" in entries
        assert entries.count("{") == entries.count("}")


@pytest.mark.parametrize(("former", "id"), FORMER_IDS.items())
def test_the_models_of_the_paper_are_known_by_their_former_and_their_present_ids(former, id):
    """Each is named in the config that reproduces it and in the published scores, under both names."""
    assert base_model(former) == base_model(id) == BASE_MODELS[id]
    config = (CONFIGS / "paper" / f"{former.partition('/')[2]}.yaml").read_text(encoding="utf-8")
    assert f"{id} (formerly {former})" in " ".join(config.replace("#", "").split())
    language = BASE_MODELS[id].language
    published = next(name for name in published_scores(language) if former.partition("/")[2] in name)
    assert published.endswith(f"({id.partition('/')[2]}, {former.partition('/')[2]})")
    assert citations(former).count("2605.12438") == 1


def test_the_citations_are_those_of_the_repository():
    """The readme and CITATION.cff are what people find first."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paper, library = citations(None).split("\n\n")
    assert paper in readme
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for value in re.findall(r"= \{+(.*?)\}", library):
        assert value in cff


def test_an_unfinished_run_has_a_card_that_shows_no_number_it_does_not_have(fake_run):
    (fake_run.path / "phases" / "pretrain.clm.decay" / "phase.json").unlink()
    (fake_run.path / "evaluation" / "held_out.json").unlink()
    (fake_run.path / "evaluation" / "tasks" / "summary.json").unlink()
    card = str(model_card(load_run(fake_run.path), "detour"))
    assert "The training of this model has not ended." in card
    assert "**Result.**" not in card
    assert "This model has not been evaluated." in card
    for word in ("nan", "None", "NaN"):
        assert word not in re.sub(r"```.*?```", "", card, flags=re.DOTALL)


def test_the_metadata_is_read_back_by_the_hubs_library(exported):
    data = ModelCard.load(exported / "models" / "detour" / "README.md").data
    summary = json.loads((exported / "evaluation" / "tasks" / "summary.json").read_text(encoding="utf-8"))
    assert (data.library_name, data.pipeline_tag, data.language) == ("transformers", "fill-mask", "en")
    measured = {result.dataset_name: result.metric_value for result in data.eval_results}
    for task, score in summary["scores"]["detour"].items():
        assert measured[task] == round(score["mean"], 2)
