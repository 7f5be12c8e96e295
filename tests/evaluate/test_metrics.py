"""Scores equal those of seqeval, scikit-learn and the BRAT evaluator, case by random case."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.metrics import precision_score as seqeval_precision
from seqeval.metrics import recall_score as seqeval_recall
from seqeval.scheme import IOB2
from sklearn import metrics as sk

from clm_detour.evaluate.metrics import score, strict_chunks
from clm_detour.evaluate.tasks import METRICS, Document, Entity, Task

warnings.filterwarnings("ignore", module="(seqeval|sklearn|numpy)")
TYPES = ("Chemical", "Disease", "Gene")
MANY = settings(max_examples=300, deadline=None)


def task(kind, labels=TYPES, negative=None) -> Task:
    return Task("made up", "en", kind, labels, "micro_f1", lambda folder: {}, negative=negative)


TAGS = st.lists(
    st.lists(
        st.sampled_from(["O", *(f"{prefix}-{label}" for prefix in "BI" for label in TYPES)]),
        min_size=1,
        max_size=12,
    ),
    min_size=1,
    max_size=5,
)


def as_tags(words: int, entities: tuple[Entity, ...]) -> list[str]:
    tags = ["O"] * words
    for entity in entities:
        for place in range(entity.start // 3, (entity.end + 1) // 3):
            tags[place] = ("B-" if 3 * place == entity.start else "I-") + entity.label
    return tags


@st.composite
def flat(draw) -> tuple[list[Document], list[Document]]:
    """Return true and predicted documents of two-letter words; entities cover whole words, none overlap."""
    gold, predicted = [], []
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 10))
        words = tuple((3 * place, 3 * place + 2) for place in range(count))
        for side in (gold, predicted):
            entities, place = [], 0
            while place < count:
                length = draw(st.integers(0, 3))
                if length:
                    last = min(place + length, count) - 1
                    entities.append(Entity(draw(st.sampled_from(TYPES)), 3 * place, 3 * last + 2))
                place += max(length, 1)
            side.append(Document(str(number), " ".join(["ab"] * count), words, tuple(entities)))
    return gold, predicted


@MANY
@given(flat())
def test_flat_entities_score_as_seqeval_does_by_tag_and_by_span(documents):
    gold, predicted = documents
    ours = score(task("entities"), gold, predicted)
    true, said = ([as_tags(len(one.words), one.entities) for one in side] for side in documents)
    for mode in ({}, {"mode": "strict", "scheme": IOB2}):
        mode = {"average": "micro", "zero_division": 0, **mode}
        assert ours["micro_f1"] == pytest.approx(seqeval_f1(true, said, **mode))
        assert ours["tag_f1"] == ours["micro_f1"]
        assert ours["micro_precision"] == pytest.approx(seqeval_precision(true, said, **mode))
        assert ours["micro_recall"] == pytest.approx(seqeval_recall(true, said, **mode))
    for average in ("macro", "weighted"):
        expected = seqeval_f1(true, said, average=average, zero_division=0, mode="strict", scheme=IOB2)
        if any(tag != "O" for sentence in true + said for tag in sentence):
            assert ours[f"{average}_f1"] == pytest.approx(expected)


@MANY
@given(TAGS, st.randoms(use_true_random=False))
def test_any_sequence_of_tags_holds_the_entities_that_seqeval_finds_in_strict_mode(true, random):
    said = [random.sample(sentence, len(sentence)) for sentence in true]
    found = [
        (set(strict_chunks(one)), set(strict_chunks(other))) for one, other in zip(true, said, strict=True)
    ]
    hits = sum(len(one & other) for one, other in found)
    both = sum(len(one) + len(other) for one, other in found)
    expected = seqeval_f1(true, said, mode="strict", scheme=IOB2, zero_division=0)
    assert 2 * hits / max(both, 1) == pytest.approx(expected)


@st.composite
def nested(draw) -> tuple[list[Document], list[Document]]:
    """Entities anywhere, nested, crossing, twice, in pieces."""
    bounds = st.lists(st.integers(0, 8), min_size=2, max_size=4, unique=True).filter(
        lambda some: len(some) % 2 == 0
    )

    def entity(label: str, bounds: list[int]) -> Entity:
        cuts = sorted(bounds)
        pieces = tuple(zip(cuts[::2], cuts[1::2], strict=True))
        return Entity(label, cuts[0], cuts[-1], pieces if len(pieces) > 1 else ())

    entities = st.lists(st.builds(entity, st.sampled_from(TYPES[:2]), bounds), max_size=8).map(tuple)
    texts = range(draw(st.integers(1, 3)))
    gold, predicted = (
        [Document(str(one), "aspirin x", entities=draw(entities)) for one in texts] for _ in range(2)
    )
    return gold, predicted


def brateval(gold: list[Document], predicted: list[Document]) -> tuple[int, int, int]:
    """CompareEntities and Entity.entityComparisonExact of READ-BioMed/brateval, loop by loop."""

    def pieces(entity: Entity) -> list[tuple[int, int]]:
        return list(entity.fragments) or [(entity.start, entity.end)]

    def words(entity: Entity, text: str) -> str:
        return " ".join(text[start:end] for start, end in pieces(entity)).lower()

    def exact(one: Entity, other: Entity, text: str) -> bool:
        spans = all(any(piece == there for there in pieces(other)) for piece in pieces(one))
        return one.label == other.label and words(one, text) == words(other, text) and spans

    tp = fp = fn = 0
    for there, said in zip(gold, predicted, strict=True):
        for entity in said.entities:
            if any(exact(entity, other, there.text) for other in there.entities):
                tp += 1
            else:
                fp += 1
        fn += sum(
            not any(exact(entity, other, there.text) for other in said.entities) for entity in there.entities
        )
    return tp, fp, fn


@MANY
@given(nested())
def test_nested_entities_score_as_the_brat_evaluator_does(documents):
    tp, fp, fn = brateval(*documents)
    precision, recall = tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0
    ours = score(task("nested_entities", TYPES[:2]), *documents)
    assert ours["micro_precision"] == pytest.approx(precision)
    assert ours["micro_recall"] == pytest.approx(recall)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert ours["micro_f1"] == pytest.approx(f1)


def labelled(sets: list[set[str]]) -> list[Document]:
    return [Document(str(place), "text", labels=tuple(sorted(some))) for place, some in enumerate(sets)]


PAIRS = st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(TYPES)), min_size=1, max_size=15)


@MANY
@given(PAIRS)
@pytest.mark.slow
def test_one_label_scores_as_scikit_learn_does(pairs):
    true, said = map(list, zip(*pairs, strict=True))
    ours = score(
        task("single_label", negative="Gene"),
        labelled([{one} for one in true]),
        labelled([{one} for one in said]),
    )
    for average in ("micro", "macro", "weighted"):
        assert ours[f"{average}_f1"] == pytest.approx(
            sk.f1_score(true, said, average=average, zero_division=0)
        )
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    kept = {"labels": list(TYPES[:2]), "average": "micro", "zero_division": 0}
    assert ours["positive_f1"] == pytest.approx(sk.f1_score(true, said, **kept))
    for label in set(true) | set(said):
        expected = sk.f1_score(true, said, labels=[label], average="macro", zero_division=0)
        assert ours[f"f1/{label}"] == pytest.approx(expected)


@MANY
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=15))
def test_of_two_classes_the_positive_one_scores_as_scikit_learns_binary_f1(pairs):
    true, said = zip(*pairs, strict=True)
    classes = ("no", "yes")
    ours = score(
        task("single_label", classes, negative="no"),
        *(labelled([{classes[one]} for one in side]) for side in (true, said)),
    )
    for name in ("f1", "precision", "recall"):
        expected = getattr(sk, f"{name}_score")(true, said, zero_division=0)
        assert ours[f"positive_{name}"] == pytest.approx(expected)
    assert ours["micro_f1"] == pytest.approx(sk.accuracy_score(true, said))


@MANY
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=15))
def test_a_task_of_one_label_scores_as_scikit_learns_binary_f1(pairs):
    true, said = zip(*pairs, strict=True)
    ours = score(
        task("multi_label", ("ICU",)),
        *(labelled([{"ICU"} if one else set() for one in side]) for side in (true, said)),
    )
    expected = sk.f1_score(true, said, zero_division=0)
    for name in ("micro_f1", "macro_f1", "weighted_f1", "f1/ICU"):
        assert ours[name] == pytest.approx(expected)
    assert ours["samples_f1"] == pytest.approx(np.mean(np.logical_and(true, said)))


@MANY
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(TYPES)), st.sets(st.sampled_from(TYPES))), min_size=1, max_size=15
    )
)
@pytest.mark.slow
def test_several_labels_score_as_scikit_learn_does(pairs):
    true, said = (
        np.array([[label in one for label in TYPES] for one in side], int)
        for side in zip(*pairs, strict=True)
    )
    ours = score(task("multi_label"), *(labelled(list(side)) for side in zip(*pairs, strict=True)))
    for average in ("micro", "macro", "weighted", "samples"):
        assert ours[f"{average}_f1"] == pytest.approx(
            sk.f1_score(true, said, average=average, zero_division=0)
        )
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(true, said))


@MANY
@given(PAIRS, st.integers(0, 2**32 - 1))
def test_auroc_is_scikit_learns_where_it_is_defined_and_absent_where_not(pairs, seed):
    true = [one for one, _ in pairs]
    beliefs = np.random.default_rng(seed).dirichlet(np.ones(3), len(true))
    gold = labelled([{one} for one in true])
    ours = score(task("single_label"), gold, gold, beliefs)
    if set(true) == set(TYPES):
        expected = sk.roc_auc_score(true, beliefs, multi_class="ovr", labels=list(TYPES))
        assert ours["auroc"] == pytest.approx(expected)
    assert ("auroc" in ours) == (len(set(true)) > 1)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_without_finite_beliefs_there_is_no_auroc_and_all_else_is_as_before(broken):
    gold = labelled([{"Gene"}, {"Disease"}])
    ours = score(task("single_label"), gold, gold, np.array([[0.0, 1, broken], [0, 1, 0]]))
    assert ours == score(task("single_label"), gold, gold)


def test_auroc_of_two_classes_is_that_of_either():
    gold = labelled([{"0"}, {"1"}, {"1"}, {"0"}])
    beliefs = np.array([0.1, 0.4, 0.35, 0.8])
    ours = score(task("single_label", ("0", "1")), gold, gold, np.stack([1 - beliefs, beliefs], axis=1))
    assert ours["auroc"] == pytest.approx(sk.roc_auc_score([0, 1, 1, 0], beliefs))


def test_a_perfect_answer_scores_one_and_an_empty_one_zero_in_everything():
    gold = [Document("1", "a b", ((0, 1), (2, 3)), (Entity("Gene", 0, 3),))]
    for kind in ("entities", "nested_entities"):
        ours = score(task(kind), gold, gold)
        nothing = score(task(kind), gold, [replace(gold[0], entities=())])
        for name in METRICS[kind]:
            assert ours[name] == 1
            assert nothing[name] == 0


def test_an_entity_that_covers_part_of_a_word_differs_by_span_but_not_by_tag():
    words = ((0, 4), (5, 9))
    gold = [Document("1", "aaaa bbbb", words, (Entity("Gene", 0, 3),))]
    said = [Document("1", "aaaa bbbb", words, (Entity("Gene", 0, 4),))]
    ours = score(task("entities"), gold, said)
    assert (ours["micro_f1"], ours["tag_f1"]) == (0, 1)


def test_other_documents_and_unknown_labels_are_refused():
    gold = labelled([{"Gene"}, {"Disease"}])
    with pytest.raises(ValueError, match="same documents"):
        score(task("single_label"), gold, gold[::-1])
    with pytest.raises(ValueError, match="Protein"):
        score(task("single_label"), labelled([{"Gene"}]), labelled([{"Protein"}]))
    with pytest.raises(ValueError, match="0 labels"):
        score(task("single_label"), labelled([{"Gene"}]), labelled([set()]))
