"""A source's settings are checked before any file is opened."""

from __future__ import annotations

import pytest

from clm_detour.config import load_config
from clm_detour.config.annotations import describe, fields_of
from clm_detour.config.expressions.formats import FORMATS
from clm_detour.config.schema import Source
from clm_detour.config.shipped import CONFIGS
from clm_detour.utils.errors import UserError

QUICKSTART = CONFIGS / "quickstart.yaml"
RIGHT = """
notes:
  path: NOTEEVENTS.csv.gz
  text: TEXT
  where: "CATEGORY == 'Discharge summary' and ISERROR != 1"
  deidentified: ""
papers:
  path: hf.parquet
  where: educational_score >= 3
  repeat: {"document_type == 'Clinical case'": 100, "a > 1": 4.3}
hub:
  {path: user/name, format: hub, subset: en, split: commercial, revision: v1, streaming: false}
baseline:
  path: pubmed/*.xml.gz
  format: pubmed
  where: abstract and language == 'eng'
  template: "{title}. {abstract?}"
instructions:
  {path: folder, template: "{prompt}\\n\\n{input?}\\n\\n{response}", deduplicate: true}
copied:
  {path: notes.jsonl, deduplicate: {near: 0.5, by: paragraph}}
books:
  {path: books, format: text, document: paragraph, min_words: 5, max_words: 5,
   decontaminate: [tasks], ngram: 20}
"""
WRONG = {
    "unknown format": ("{path: x, format: jsnl}", "format: 'jsnl' is not known; did you mean jsonl?"),
    "unknown document": ("{path: x.txt, document: word}", "document"),
    "a broken template": ("{path: x, template: '{prompt'}", "a.template: '{prompt' is not a template"),
    "template without fields": ("{path: x, template: text}", "a.template: 'text' names no field"),
    "text and template": ("{path: x, text: a, template: '{b}'}", "either text or template, not both"),
    "a broken condition": (
        "{path: x, where: 'score >'}",
        "a.where: 'score >' is not a condition (invalid syntax)",
    ),
    "a call": ("{path: x, where: exit()}", "a.where: 'exit()' is not a condition ('exit()' is not allowed)"),
    "a broken repeat": (
        "{path: x, template: '{b}', repeat: {'a =': 3}}",
        "a.repeat: 'a =' is not a condition",
    ),
    "copies": (
        "{path: x, repeat: {'a == 1': 0}}",
        "a.repeat['a == 1']: 0 is too small; use a number above 0",
    ),
    "many copies": ("{path: x, repeat: {'a == 1': .inf}}", "a.repeat['a == 1']: inf is not finite"),
    "unknown field of pubmed": (
        "{path: x.xml.gz, where: titel != ''}",
        "a.where, a field of pubmed: 'titel' is not known; did you mean title?",
    ),
    "field of text": ("{path: x.txt, text: body}", "a field of text: 'body' is not known; it can be text"),
    "no effect": (
        "{path: x.jsonl, quoted: false}",
        "quoted is for csv and has no effect on jsonl; remove it",
    ),
    "no split": ("{path: x.parquet, split: train}", "split is for arrow and has no effect on parquet"),
    "revision of files": (
        "{path: x, format: csv, revision: main}",
        "revision is for hub and has no effect on csv",
    ),
    "ngram alone": ("{path: x, ngram: 8}", "ngram has no effect without decontaminate"),
    "ngram": ("{path: x, ngram: 0, decontaminate: [y]}", "ngram: 0 is too small"),
    "a threshold": (
        "{path: x, deduplicate: {near: 0.3}}",
        "a.deduplicate.near: 0.3 is too small; use a number from 0.5 to 1",
    ),
    "a threshold of nothing": ("{path: x, deduplicate: {by: document}}", "a.deduplicate.near is not set"),
    "what is compared": (
        "{path: x, deduplicate: {near: 0.5, by: sentence}}",
        "a.deduplicate.by: 'sentence' is not known; it can be document, paragraph",
    ),
    "a misspelled threshold": (
        "{path: x, deduplicate: {nea: 0.5}}",
        "Unknown key data.sources.a.deduplicate.nea; did you mean data.sources.a.deduplicate.near?",
    ),
    "neither true nor a section": ("{path: x, deduplicate: near}", "use true or false or a section"),
    "limits": ("{path: x, min_words: 9, max_words: 3}", "min_words (9) is above max_words (3)"),
    "a limit of nothing": ("{path: x, max_characters: 0}", "max_characters: 0 is too small"),
    "unknown key": ("{path: x, filter: a}", "Unknown key data.sources.a.filter"),
}


def test_the_formats_that_a_source_can_have_are_those_that_can_be_read():
    assert (
        describe(fields_of(Source)["format"]) == f"{', '.join([*FORMATS][:-1])} or {[*FORMATS][-1]}, or null"
    )


def test_what_the_guide_promises_is_accepted(tmp_path):
    sources = "".join(f"    {line}\n" for line in RIGHT.strip().splitlines())
    (tmp_path / "a.yaml").write_text(f"extends: {QUICKSTART}\ndata:\n  sources:\n{sources}")
    config = load_config(tmp_path / "a.yaml")
    assert config.data.sources["papers"].repeat == {"document_type == 'Clinical case'": 100, "a > 1": 4.3}
    assert config.data.sources["instructions"].template == "{prompt}\n\n{input?}\n\n{response}"


@pytest.mark.parametrize(("source", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_one_clear_sentence(tmp_path, source, expected):
    (tmp_path / "a.yaml").write_text(f"extends: {QUICKSTART}\ndata:\n  sources:\n    a: {source}\n")
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "a.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            "{deduplicate: true, sources: {general: {deduplicate: true}}}",
            "sources.general.deduplicate has no",
        ),
        ("{deduplicate: {near: 0.5}, prepared: {general: x}}", "those of data.prepared have only tokens"),
        ("{deduplicate: {near: 2}}", "data.deduplicate.near: 2 is too large; use a number from 0.5 to 1"),
    ],
)
def test_copies_are_searched_for_in_one_source_or_across_all(tmp_path, data, expected):
    (tmp_path / "a.yaml").write_text(f"extends: {QUICKSTART}\ndata: {data}\n")
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "a.yaml")
    assert expected in str(caught.value)
