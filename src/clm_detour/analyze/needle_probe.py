"""The needle probe of the paper: a small network tells true statements from false ones by frozen states.

A fact stands in running text, and a statement about it follows (`needle_pairs`). The encoder reads both as
one input, [CLS] text [SEP] statement [SEP], and stays as it is. The probe gets the state of the first token:
dropout, linear, GELU, dropout, linear. It is trained for 3 epochs with AdamW at 2e-5 and batches of 4; the
epoch that is best on validation answers the test pairs. docs/evaluation.md says which of these settings the
paper states.

Shapes: P pairs, E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clm_detour.analyze.needle_pairs import POSITIONS, Pair, make_pairs, read_templates
from clm_detour.analyze.needles import running_text
from clm_detour.evaluate.finetune.windows import frame_around
from clm_detour.figures.wording import short_names
from clm_detour.measure.encoder import Encoder, check_measurable, load_encoder
from clm_detour.measure.states import batches_by_length
from clm_detour.model.precision import best_device, fp32_products
from clm_detour.model.pretrained import longest_input, read_encoder_config
from clm_detour.records.needles import NeedleProbeRecord, ProbeResult, ProbeShare
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import Advance, progress

LENGTHS = (512, 1024, 2048, 4096, 8192)
PAIRS = 1500
EPOCHS, LEARNING_RATE, BATCH, DROPOUT = 3, 2e-5, 4, 0.1
LEVEL = 0.95


def probe_needles(
    models: Sequence[str],
    texts: Sequence[str],
    language: str,
    lengths: Sequence[int] = LENGTHS,
    pairs: int = PAIRS,
    seed: int = 0,
) -> NeedleProbeRecord:
    """Train a probe on the states of each model and test it. All models get the same pairs.

    On a CPU the same arguments give the same result.

    Args:
        models: Folders or hub ids of encoders.
        texts: Running text in which the needles are hidden.
        pairs: Number of pairs of all splits.

    Raises:
        UserError: If a model cannot be opened or cannot read the longest text, or there is too little text.
    """
    for path in models:
        check_measurable(path)
        longest = longest_input(read_encoder_config(path))
        if longest is not None and longest < max(lengths):
            raise UserError(f"{path} reads {longest} tokens at most; give --lengths up to that.")
    made = make_pairs(read_templates(language), lengths, pairs, seed)
    with progress("Needles", len(models) * len(made), "texts") as advance:
        results = {path: probe_model(path, texts, made, seed, advance) for path in models}
    sizes = {split: sum(pair.split == split for pair in made) for split in ("train", "validation", "test")}
    return NeedleProbeRecord(
        language=language,
        lengths=list(lengths),
        positions=list(POSITIONS),
        pairs=sizes,
        seed=seed,
        level=LEVEL,
        models=results,
    )


def probe_model(
    path: str, texts: Sequence[str], pairs: Sequence[Pair], seed: int, advance: Advance
) -> ProbeResult:
    """Return the result of one model."""
    encoder, tokenizer = load_encoder(path, with_head=False)
    encoder.to(best_device())
    states_PE = first_states(encoder, encode(tokenizer, texts, pairs, seed), advance)
    return train_probe(states_PE, pairs, seed)


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pairs: Sequence[Pair], seed: int
) -> list[np.ndarray]:
    """Return the token ids of each pair: running text with the needle in it, then the statement.

    Raises:
        UserError: If there is too little text, or a length is too short for a needle and a statement.
    """

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    flow = running_text(ids, texts, max(pair.length for pair in pairs))
    opening, closing = frame_around(tokenizer)
    encoded = []
    for pair in pairs:
        needle, statement = ids(f" {pair.needle}"), ids(f" {pair.statement}")
        room = pair.length - len(opening) - 2 * len(closing) - len(needle) - len(statement)
        if room < 1:
            raise UserError(
                f"--lengths: a fact and its statement take {pair.length - room} tokens, more than the "
                f"{pair.length} of a text; give longer ones."
            )
        rng = np.random.default_rng((seed, pair.number))
        start = int(rng.integers(len(flow) - room + 1))
        hay = [int(id) for id in flow[start : start + room]]
        at = round(pair.position * room)
        text = [*hay[:at], *needle, *hay[at:]]
        encoded.append(np.array([*opening, *text, *closing, *statement, *closing], dtype=np.int64))
    return encoded


@torch.no_grad()
@fp32_products(tf32=False)
def first_states(encoder: Encoder, ids: Sequence[np.ndarray], advance: Advance) -> Tensor:
    """Return the last layer's state of the first token of each text, (P, E), on the CPU."""
    states = torch.empty(len(ids), encoder.hidden_size)
    for numbers in batches_by_length([len(text) for text in ids]):
        lengths = [len(ids[i]) for i in numbers]
        flat = torch.from_numpy(np.concatenate([ids[i] for i in numbers])).to(best_device())
        starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
        states[numbers] = encoder(flat, lengths)[starts.to(flat.device)].float().cpu()
        advance(len(numbers))
    return states


def train_probe(states_PE: Tensor, pairs: Sequence[Pair], seed: int) -> ProbeResult:
    """Train a probe on the training pairs and test it, on the CPU."""
    holds_P = torch.tensor([float(pair.holds) for pair in pairs])
    rows = {
        split: torch.tensor([i for i, pair in enumerate(pairs) if pair.split == split])
        for split in ("train", "validation", "test")
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = make_probe(states_PE.shape[1])
        optimizer = torch.optim.AdamW(probe.parameters(), lr=LEARNING_RATE)
        best, epoch, answers = -1.0, 0, torch.empty(0)
        for number in range(1, EPOCHS + 1):
            probe.train()
            order = rows["train"][torch.randperm(len(rows["train"]))]
            for chosen in order.split(BATCH):
                optimizer.zero_grad()
                logits = probe(states_PE[chosen])[:, 0]
                F.binary_cross_entropy_with_logits(logits, holds_P[chosen]).backward()
                optimizer.step()
            right_P = answered(probe, states_PE) == holds_P.bool()
            validation = float(right_P[rows["validation"]].float().mean())
            if validation > best:
                best, epoch, answers = validation, number, right_P
    tested = [(pairs[i].length, bool(answers[i])) for i in rows["test"].tolist()]
    lengths = dict.fromkeys(pair.length for pair in pairs)
    return ProbeResult(
        total=share([right for _, right in tested]),
        by_length=[share([right for length, right in tested if length == each]) for each in lengths],
        epoch=epoch,
        validation=best,
    )


def make_probe(hidden_size: int) -> nn.Sequential:
    """Return a new probe: (P, E) -> (P, 1), the logit that the statement holds."""
    return nn.Sequential(
        nn.Dropout(DROPOUT),
        nn.Linear(hidden_size, hidden_size),
        nn.GELU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden_size, 1),
    )


@torch.no_grad()
def answered(probe: nn.Sequential, states_PE: Tensor) -> Tensor:
    """Return (P,): whether the probe says that the statement holds."""
    probe.eval()
    answers: Tensor = probe(states_PE)[:, 0] > 0
    return answers


def share(right: Sequence[bool]) -> ProbeShare:
    """Return the share of right answers, with its Wilson interval."""
    found = binomtest(sum(right), len(right)).proportion_ci(LEVEL, method="wilson")
    return ProbeShare(sum(right), len(right), sum(right) / len(right), (float(found.low), float(found.high)))


def probe_table(record: NeedleProbeRecord) -> Table:
    """Return a table with a row for each model."""
    tested = record.pairs["test"]
    title = (
        f"Statements judged rightly by a trained probe (%; chance 50 %; {tested} test pairs, 95 % interval)"
    )
    table = Table(title=title)
    for column in ("model", "all", *(f"{length} tokens" for length in record.lengths)):
        table.add_column(column, justify="left" if column == "model" else "right")
    names = short_names(list(record.models))
    for path, result in record.models.items():
        table.add_row(names[path], *(in_words(each) for each in (result.total, *result.by_length)))
    return table


def in_words(found: ProbeShare) -> str:
    """Return a share in percent with its interval."""
    low, high = found.interval
    return f"{100 * found.accuracy:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
