"""The head of the French benchmark over spans, and what its protocol adds: lines, rounds, labels."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_finetune import PROTOCOL, fine_tune, make_task
from torch import nn

from clm_detour.config.protocols import SINCE_0_2, Protocol, recorded
from clm_detour.evaluate.finetune.batch import Batch
from clm_detour.evaluate.finetune.classifier import DocumentClassifier
from clm_detour.evaluate.finetune.crf import BEGIN, LAST
from clm_detour.evaluate.finetune.crf_biaffine import CrfBiaffineHead
from clm_detour.evaluate.finetune.span_classifier import SpanClassifier
from clm_detour.evaluate.finetune.task_model import make_examples, make_task_model
from clm_detour.evaluate.finetune.training import length_of
from clm_detour.evaluate.finetune.windows import WordEncoder, find_words, lines_of
from clm_detour.evaluate.read_tasks import check_selection
from clm_detour.evaluate.tasks import TASKS
from clm_detour.evaluate.tasks.task import Document, Entity
from clm_detour.measure.encoder import load_encoder
from clm_detour.utils.errors import UserError

HEAD = dataclasses.replace(PROTOCOL, head="crf_biaffine", head_learning_rate=3e-3, clip_norm=10.0, epochs=8)


def test_nested_entities_are_learned_with_the_head_of_the_benchmark(encoders):
    assert fine_tune(encoders["modernbert"], "nested_entities", protocol=HEAD).scores["micro_f1"] > 0.9


def test_a_windows_scores_do_not_depend_on_its_batch(encoders):
    task, splits = make_task("nested_entities", HEAD)
    network, tokenizer = load_encoder(encoders["modernbert"])
    examples, _ = make_examples(task, splits["test"], tokenizer, 16)  # windows of different lengths
    torch.manual_seed(0)
    model = make_task_model(task, network, splits["test"], examples).eval()
    assert isinstance(model, SpanClassifier)
    cpu = torch.device("cpu")
    for example, scores_ODC in zip(examples[:6], model.logits(Batch(examples[:6], cpu)), strict=True):
        (alone_ODC,) = model.logits(Batch([example], cpu))
        real = torch.arange(example.owned)[:, None] + torch.arange(model.widest) < len(example.places)
        torch.testing.assert_close(scores_ODC[real], alone_ODC[real], rtol=1e-4, atol=1e-4)


class Given(nn.Module):
    """Returns given emissions."""

    def __init__(self, emissions: torch.Tensor):
        super().__init__()
        self.emissions = emissions

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.emissions


def test_a_span_scores_by_the_tags_of_its_first_and_last_word_and_all_between():
    """Words tagged B, L and O: of all spans only the first two words are an entity of the type."""
    head = CrfBiaffineHead(8, labels=2).eval()
    emissions = torch.zeros(1, 3, 9)
    emissions[0, 0, 1 + BEGIN] = emissions[0, 1, 1 + LAST] = emissions[0, 2, 0] = 30.0
    head.tags = Given(emissions)
    scores_WDC = head.crf_scores(torch.zeros(1, 3, 400), torch.tensor([3]), widest=3)[0]
    assert scores_WDC[0, 1, 0] > -0.01
    real = (torch.arange(3)[:, None] + torch.arange(3) < 3)[..., None].expand(-1, -1, 2).clone()
    real[0, 1, 0] = False
    assert scores_WDC[real].max() < -10


def test_a_span_is_dropped_beside_a_better_one_of_its_type_only():
    head = CrfBiaffineHead(8, labels=2)
    scores = torch.full((3, 3, 2), -9.0)
    scores[0, 2, 0] = 2.0  # all three words
    scores[1, 0, 0] = 1.0  # inside, of the same type
    scores[1, 1, 1] = 0.5  # inside, of another type
    scores[2, 0, 0] = -0.1  # below one half
    assert head.choose(scores, torch.ones(3, 3, dtype=torch.bool), offset=4) == [(4, 6, 1), (5, 6, 2)]


def test_lines_are_windows_of_their_own_and_every_word_is_read_once(encoders):
    text = "One two three\n\nfour five\nsix seven eight nine ten"
    document = Document("1", text, entities=(Entity("Drug", 8, 19),))  # three .. four
    words = find_words(text)
    assert [text[words[a][0] : words[b - 1][1]] for a, b in lines_of(document)] == [
        "One two three", "four five", "six seven eight nine ten",
    ]  # fmt: skip
    tokenizer = load_encoder(encoders["bert"])[1]
    for room in (64, 8):
        windows = list(WordEncoder(tokenizer).windows([document], room, by_line=True))
        assert [word for window in windows for word in range(*window.owned)] == list(range(len(words)))
        for window in windows:
            last = window.first + len(window.starts)
            assert "\n" not in text[words[window.first][0] : words[last - 1][1]]
    _, whole = SpanClassifier.examples([document], ("Drug",), tokenizer, 64)
    _, lines = SpanClassifier.examples([document], ("Drug",), tokenizer, 64, by_line=True)
    assert (whole["inexact_entities"], lines["inexact_entities"]) == (0, 1)


def test_where_no_label_passes_the_most_likely_one_is_predicted_if_the_protocol_says_so(encoders):
    encoder = load_encoder(encoders["bert"])[0]
    strict, lenient = (DocumentClassifier("abc", encoder, True, at_least_one=one) for one in (False, True))
    assert (strict.chosen([-3, -1, -2]), lenient.chosen([-3, -1, -2])) == ([], ["b"])
    assert strict.chosen([1, -1, 2]) == lenient.chosen([1, -1, 2]) == ["a", "c"]


def test_the_score_that_chooses_the_round_may_be_another_than_that_of_the_tables(encoders, monkeypatch):
    told = iter([{"accuracy": 0.1, "micro_f1": 0.9}, {"accuracy": 0.8, "micro_f1": 0.2}, {}])
    monkeypatch.setattr("clm_detour.evaluate.finetune.training.score", lambda *_: next(told))
    protocol = dataclasses.replace(PROTOCOL, epochs=2, select_by="accuracy")
    assert fine_tune(encoders["bert"], "single_label", protocol=protocol).best["epoch"] == 2


@pytest.mark.parametrize("score", ["samples_f1", "positive_f1", "f1"])
def test_a_score_that_the_kind_of_task_does_not_have_cannot_choose_the_round(score):
    task, _ = make_task("single_label")  # without a class that stands for none
    with pytest.raises(UserError, match="select_by of made-single_label"):
        check_selection(task, dataclasses.replace(PROTOCOL, select_by=score))
    check_selection(task, dataclasses.replace(PROTOCOL, select_by="weighted_f1"))


def test_rounds_end_every_so_many_steps_and_with_the_last_one():
    protocol = dataclasses.replace(PROTOCOL, steps=1200, validate_every=500)
    assert length_of(protocol, epoch_steps=7) == (1200, [500, 1000, 1200])
    assert length_of(dataclasses.replace(protocol, steps=None, epochs=100), 7) == (700, [500, 700])


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("EMEA", {"head": "crf_biaffine", "validate_every": 500, "clip_norm": 10.0, "by_line": True}),
        ("Medline", {"head": "crf_biaffine", "validate_every": 500, "clip_norm": 10.0, "by_line": False}),
        ("FRACCO-30", {"at_least_one": True, "select_by": "micro_f1"}),
        ("DiaMED", {"at_least_one": False, "select_by": "weighted_f1"}),
        ("HoC", {"at_least_one": False, "select_by": None, "clip_norm": 1.0, "validate_every": None}),
    ],
)
def test_french_tasks_are_fine_tuned_as_in_the_authors_code(task, expected):
    protocol = TASKS[task].protocol
    assert {key: getattr(protocol, key) for key in expected} == expected


def test_settings_of_an_earlier_release_are_still_those_of_the_same_protocol():
    assert not recorded(Protocol()).keys() & set(SINCE_0_2)
    assert recorded(TASKS["EMEA"].protocol)["head"] == "crf_biaffine"
