"""Hidden states of texts at every layer: the mean over the tokens of each text, and those of chosen tokens.

Shapes: N texts, T tokens, E hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clm_detour.measure.encoder import Encoder, Ids, load_encoder
from clm_detour.model.precision import best_device, fp32_products
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import Advance

BATCH_TOKENS = 4096  # tokens of a forward, padding included


def open_encoder(path: str, tokenizer: str | None = None) -> Encoder:
    """Load an encoder onto the GPU if there is one, and check that it attends in both directions.

    Args:
        path: Folder or hub id.
        tokenizer: Folder or hub id of the tokenizer. None means the model's own.

    Raises:
        UserError: If there is no such model, weights are missing, the tokenizer has ids that the model does
            not have, or it is not a bidirectional encoder.
    """
    encoder, _ = load_encoder(path, tokenizer=tokenizer, with_head=False)
    encoder.to(best_device())
    if not encoder.packed:
        _check_bidirectional(path, encoder)
    return encoder


def _check_bidirectional(path: str, encoder: Encoder) -> None:
    """Check that the state of the first token depends on the last token."""
    (ids,) = encoder.tokenize(["One two three four five six."], 16)
    other = ids.copy()
    other[-1] = ids[1]
    if torch.equal(_hidden_states(encoder, [ids])[-1][0], _hidden_states(encoder, [other])[-1][0]):
        raise UserError(
            f"{path} is no encoder: its tokens do not see what is right of them. Compare bidirectional "
            "models only."
        )


def _hidden_states(encoder: Encoder, ids: Ids) -> list[Tensor]:
    device = next(encoder.parameters()).device
    return encoder.hidden_states(
        torch.from_numpy(np.concatenate(ids)).to(device), [len(text) for text in ids]
    )


def batches_by_length(lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield indices of texts of about equal length, at most `BATCH_TOKENS` tokens a batch with padding."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > BATCH_TOKENS:
            yield order[start:end]
            start = end


@fp32_products(tf32=False)
def read_states(
    encoder: Encoder, ids: Ids, places: Sequence[np.ndarray] | None, advance: Advance
) -> tuple[list[Tensor], list[Tensor]]:
    """Compute the states of texts at every layer.

    Args:
        encoder: The encoder, on any device.
        ids: Token ids of each text.
        places: Positions of the tokens of each text whose own states are kept, the same number in each. None
            keeps none.
        advance: Called with the number of texts of each batch.

    Returns:
        For each layer the mean over the tokens of each text (special tokens included), (N, E); and for each
        layer the states at `places`, (N * places, E), in the order of the texts. float64, on the CPU.
    """
    n, layers = len(ids), len(encoder.layers)
    offsets = [np.empty(0, np.int64)] * n if places is None else places
    means = [torch.empty(n, encoder.hidden_size, dtype=torch.float64) for _ in range(layers)]
    single = [
        torch.empty(n, len(offsets[0]), encoder.hidden_size, dtype=torch.float64) for _ in range(layers)
    ]
    for numbers in batches_by_length([len(text) for text in ids]):
        chosen = [ids[i] for i in numbers]
        lengths = torch.tensor([len(text) for text in chosen])
        states = _hidden_states(encoder, chosen)
        starts = (lengths.cumsum(0) - lengths).tolist()
        kept = np.array([start + offsets[i] for start, i in zip(starts, numbers, strict=True)])
        for layer, state in enumerate(states):
            state = state.double().cpu()
            means[layer][numbers] = torch.segment_reduce(state, "mean", lengths=lengths, axis=0)
            single[layer][numbers] = state[kept]
        advance(len(numbers))
    return means, [state.flatten(0, 1) for state in single]
