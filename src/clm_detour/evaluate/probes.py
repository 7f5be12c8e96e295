"""`clm-detour probe`: quick measurements of a checkpoint without fine-tuning, which take seconds.

- *masked*: The share of masked tokens that the model's own head predicts correctly. 15 % of the tokens of the
  tasks' test texts are masked, the same ones for every model with the same tokenizer. It is measured only for
  a ModernBERT with a masked-LM head.
- *linear probe*, for classes of documents: logistic regression on the frozen states, averaged over each text.
- *entity-type probe*, for entities: logistic regression from the averaged states of an entity's words to its
  type. As many words outside of entities form a class of their own.

Both probes are fitted on the training split and scored on the test split by macro F1. Features are
standardized by the training split.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table as RichTable

from clm_detour.config.schema import FineTuning
from clm_detour.data.loader import Batch
from clm_detour.evaluate.finetune.tagger import touched
from clm_detour.evaluate.finetune.task_model import ENTITY_KINDS
from clm_detour.evaluate.finetune.windows import Window, WordEncoder, frame_text, words_of
from clm_detour.evaluate.read_tasks import read_tasks
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.evaluate.tasks.task import Document, Splits, Task
from clm_detour.measure.encoder import Encoder, load_encoder
from clm_detour.measure.scorer import score
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.families import is_known
from clm_detour.model.precision import best_device, fp32_products
from clm_detour.model.pretrained import can_fill_masks, check_encoder, read_encoder_config
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import progress, warn

BATCH = 32  # texts in a forward
MASK_RATE = 0.15
NO_TYPE = ""
SEED = 0
LabeledStates = tuple[np.ndarray, list[str]]  # (examples, E), and the class of each example


def probe_models(
    models: Sequence[str], tasks: Sequence[str] | None, data: str | None, documents: int
) -> dict[str, dict[str, Any]]:
    """Probe models on tasks, the two sample tasks by default.

    Args:
        data: Folder that holds the folders of the tasks.
        documents: Number of documents of each split to use at most.

    Returns:
        The result of `probe` for each model.

    Raises:
        UserError: If a model or task cannot be used.
    """
    settings = FineTuning(tasks=list(tasks or SAMPLE_TASKS), data=data, documents=documents)
    available, missing = read_tasks(settings)
    for task, reason in missing.items():
        warn(f"{task} is left out: {reason}")
    for path in models:
        check_encoder(path)
    found = {}
    with progress("Probes", len(models), "models") as advance:
        for path in models:
            found[path] = probe(path, available)
            advance(1)
    return found


def probe_table(found: Mapping[str, Mapping[str, Any]]) -> RichTable:
    """Return a table with one row a model, and a dash where nothing was measured."""
    columns = list(dict.fromkeys(name for row in found.values() for name in row["scores"]))
    table = RichTable("model", *columns, "seconds", box=None)
    for path, row in found.items():
        values = (row["scores"].get(name) for name in columns)
        scores = ["\u2013" if value is None else f"{value:.1f}" for value in values]
        table.add_row(path, *scores, f"{row['seconds']:.1f}")
    return table


def probe(path: str, tasks: Sequence[tuple[Task, Splits]], max_tokens: int = 512) -> dict[str, Any]:
    """Make all probes of one model.

    Returns:
        `scores`, in percent by probe (`masked` and the names of the tasks), None where nothing can be
        measured; and `seconds`.

    Raises:
        UserError: If the model cannot be opened, or a task has too few documents for a probe.
    """
    started = time.monotonic()
    encoder, tokenizer = load_encoder(path, with_head=False)
    encoder.to(best_device())
    max_tokens = min(max_tokens, encoder.longest or max_tokens)
    texts = [document.text for _, splits in tasks for document in splits["test"]]
    share = masked_accuracy(path, tokenizer, texts, max_tokens)
    scores = {"masked": None if share is None else 100 * share}
    for task, splits in tasks:
        features = entity_features if task.kind in ENTITY_KINDS else document_features
        train, test = (features(encoder, tokenizer, splits[split], max_tokens) for split in ("train", "test"))
        check_classes(task.name, train, test)
        scores[task.name] = 100 * linear_probe(train, test)
    return {"scores": scores, "seconds": time.monotonic() - started}


def check_classes(name: str, train: LabeledStates, test: LabeledStates) -> None:
    """Check that a probe has two classes to learn, and examples to be scored on.

    Raises:
        UserError: If not.
    """
    classes = len(set(train[1]))
    if classes < 2 or not test[1]:
        raise UserError(
            f"{name} cannot be probed: its training documents have {classes} classes of text or entity, and "
            f"its test documents {len(test[1])} examples; give more documents or leave the task out."
        )


def linear_probe(train: LabeledStates, test: LabeledStates) -> float:
    """Return the macro F1 of a logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    classifier.fit(*train)
    return float(f1_score(test[1], classifier.predict(test[0]), average="macro", zero_division=0))


@fp32_products(tf32=False)
@torch.no_grad()
def states_of(encoder: Encoder, ids: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return the states (tokens, E) of each text in fp32, computed with texts of similar length together."""
    found: list[Any] = [None] * len(ids)
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        lengths = [len(ids[place]) for place in places]
        tokens = torch.tensor([token for place in places for token in ids[place]], device=best_device())
        states = encoder(tokens, lengths).float().cpu()
        for place, each in zip(places, states.split(lengths), strict=True):
            found[place] = each
    return found


def document_features(
    encoder: Encoder, tokenizer: Any, documents: Sequence[Document], max_tokens: int
) -> LabeledStates:
    """Return the mean state of each text. A set of several labels counts as a class of its own."""
    ids, _ = frame_text(tokenizer, [document.text for document in documents], max_tokens)
    means = np.stack([states.mean(0).numpy() for states in states_of(encoder, ids)])
    return means, ["|".join(sorted(document.labels)) for document in documents]


def entity_features(
    encoder: Encoder, tokenizer: Any, documents: Sequence[Document], max_tokens: int
) -> LabeledStates:
    """Return the mean state of each entity's words, and the states of as many words outside of entities.

    Only the first window of each text is used.
    """
    windows: dict[int, Window] = {}
    for window in WordEncoder(tokenizer).windows(documents, max_tokens):
        windows.setdefault(window.document, window)
    states = states_of(encoder, [window.ids for window in windows.values()])
    rng = np.random.default_rng(SEED)
    features, types = [], []
    for window, each in zip(windows.values(), states, strict=True):
        document = documents[window.document]
        words = words_of(document)[: len(window.starts)]
        spans = [(*touched(words, entity.start, entity.end), entity.label) for entity in document.entities]
        spans = [span for span in spans if span[0] < span[1]]
        covered = {word for first, last, _ in spans for word in range(first, last)}
        outside = [word for word in range(len(words)) if word not in covered]
        drawn = rng.permutation(outside)[: len(spans)].tolist()
        for first, last, label in [*spans, *((word, word + 1, NO_TYPE) for word in drawn)]:
            features.append(each[window.starts[first:last]].mean(0).numpy())
            types.append(label)
    return np.array(features, np.float32).reshape(-1, encoder.hidden_size), types


def masked_accuracy(path: str, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> float | None:
    """Return the share of masked tokens that a model predicts correctly, from 0 to 1.

    Returns None if the network does not compute the model, it has no masked-LM head, or no token is masked.
    """
    if not is_known(read_encoder_config(path).model_type) or not can_fill_masks(path):
        return None
    network = ModernBertForPretraining.from_pretrained(path, causal=False)
    ids, _ = frame_text(tokenizer, texts, max_tokens)
    return score(network, masked_batches(tokenizer, ids)).means().accuracy


def masked_batches(tokenizer: Any, ids: Sequence[list[int]]) -> Iterator[Batch]:
    """Yield batches of one row in which each chosen token is replaced by the mask token."""
    rng = np.random.default_rng(SEED)
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    for first in range(0, len(ids), BATCH):
        batch = ids[first : first + BATCH]
        tokens = torch.tensor([token for each in batch for token in each])
        masked = torch.from_numpy(rng.random(len(tokens)) < MASK_RATE) & ~torch.isin(tokens, special)
        yield {
            "input_ids": torch.where(masked, tokenizer.mask_token_id, tokens)[None],
            "labels": torch.where(masked, tokens, -100)[None],
            "document_lengths": [[len(each) for each in batch]],
        }
