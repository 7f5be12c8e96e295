"""A template writes what it says, and what is optional goes without a trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_detour.config.expressions.fields import Field, FieldProblem
from clm_detour.config.expressions.templates import Template
from clm_detour.config.schema import Source
from clm_detour.data.sources import read_documents
from clm_detour.utils.errors import UserError


def render(template: str, **record: object) -> str:
    return Template.parse(template).render(record)


@given(st.text(), st.text(), st.text())
def test_a_template_without_optional_fields_is_pythons_own_format_string(prompt, between, response):
    template = "{prompt}" + between.replace("{", "{{").replace("}", "}}") + "{response} {{end}}"
    assert render(template, prompt=prompt, response=response) == template.format(
        prompt=prompt, response=response
    )


@pytest.mark.parametrize("nothing", [{}, {"input": None}, {"input": ""}, {"input": " \n"}])
def test_an_optional_field_that_is_missing_goes_with_the_text_before_it(nothing):
    assert render("{prompt}\n\n{input?}\n\n{response}", prompt="P", response="R", **nothing) == "P\n\nR"
    assert render("{input?}\n\n{response}", response="R", **nothing) == "R"
    assert render("Q: {prompt}\nInput: {input?}", prompt="P", **nothing) == "Q: P"
    assert render("{input?}.", **nothing) == "."


def test_an_optional_field_that_is_there_is_written():
    assert render("{prompt}\n\n{input?}\n\n{response}", prompt="P", input="I", response="R") == "P\n\nI\n\nR"


def test_numbers_are_written_and_nested_fields_found():
    record = {"age": 7, "meta": {"score": 0.5}, "turns": [{"value": "hello"}]}
    assert render("{age} {meta.score} {turns[0].value}{turns[1].value?}", **record) == "7 0.5 hello"
    assert Field.parse("meta.score").of({"meta.score": 1, "meta": {"score": 2}}) == 1


@pytest.mark.parametrize("value", [None, ["patient-name"], {"patient-name": 1}])
def test_what_is_no_text_is_named_and_never_quoted(value):
    with pytest.raises(FieldProblem, match=r"'prompt' is (null|list|dict), not text") as caught:
        render("{prompt}", prompt=value)
    assert "patient-name" not in str(caught.value)


def test_a_missing_field_is_named_with_the_nearest_one():
    with pytest.raises(
        FieldProblem, match="has no field 'promt'; its fields: 'prompt'; did you mean 'prompt'"
    ):
        render("{promt}", prompt="P")
    with pytest.raises(FieldProblem, match=r"has no field 'turns\[3\]\.value'"):
        render("{turns[3].value}", turns=[])


@pytest.mark.parametrize("template", ["{", "}", "{}", "{?}", "{a!r}", "{a:>3}", "no field", ""])
def test_what_is_no_template_says_so(template):
    with pytest.raises(UserError, match=r"template|names no field"):
        Template.parse(template)


@pytest.mark.shared
def test_real_instructions_by_template_are_their_texts_but_for_white_space(shared_data):
    path = str(shared_data / "corpus" / "instructions.jsonl.gz")
    templated = read_documents(Source(path=path, template="{prompt}\n{response}"))
    differing = [
        number
        for number, (text, made) in enumerate(zip(read_documents(path), templated, strict=True))
        if text.split() != made.split()
    ]
    assert not differing
