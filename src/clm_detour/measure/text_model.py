"""A network with its tokenizer, to try out on texts under both masks.

Shapes: T tokens, E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from clm_detour.measure.scorer import open_masked
from clm_detour.model import ModernBertForPretraining, next_token_labels
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class TextModel:
    """A network with its tokenizer. Each method takes the mask of attention as an argument."""

    network: ModernBertForPretraining
    tokenizer: PreTrainedTokenizerBase

    @torch.no_grad()
    def fill(self, text: str, top: int = 5, causal: bool = False) -> list[tuple[str, float]]:
        """Return the best tokens for the mask of a text, with their probabilities.

        Under the bidirectional mask the whole text is read. Under the causal mask the network reads the text
        before the mask and predicts the next token.

        Args:
            text: A text with one mask token, such as "The patient was treated with [MASK]."
            top: Number of tokens to return.
            causal: The mask of attention.

        Raises:
            UserError: If the text has no mask token or several.
        """
        ids_T = self._ids(text)
        places = (ids_T == self.tokenizer.mask_token_id).nonzero()
        if len(places) != 1:
            raise UserError(
                f"{text!r} has {len(places)} mask tokens; write {self.tokenizer.mask_token} once, where a "
                "word is to be found."
            )
        place = int(places) - 1 if causal else int(places)
        logits = self.network(ids_T[None], causal=causal).logits[0, place]
        best = logits.softmax(-1).topk(top)
        words = [str(self.tokenizer.decode(id)).strip() for id in best.indices.tolist()]
        return list(zip(words, best.values.tolist(), strict=True))

    @torch.no_grad()
    def perplexity(self, texts: Sequence[str]) -> list[float]:
        """Return the next-token perplexity of each text under the causal mask.

        It is 1 where the network is certain, and the size of the vocabulary for a uniform guess. The texts
        are packed into one row, in which they do not see each other.
        """
        ids = [self._ids(text) for text in texts]
        row = torch.cat(ids)[None]
        numbers = torch.cat([torch.full_like(text, i) for i, text in enumerate(ids)])[None]
        labels_T = next_token_labels(row, numbers)[0]
        logits = self.network(row, document_ids=numbers, causal=True).logits[0]
        losses_T = cross_entropy(logits, labels_T, reduction="none")
        return [losses_T[(numbers[0] == i) & (labels_T >= 0)].mean().exp().item() for i in range(len(ids))]

    @torch.no_grad()
    def hidden_states(self, text: str, causal: bool = False) -> list[Tensor]:
        """Return the embeddings of a text and the output of each layer, each (T, E)."""
        output = self.network(self._ids(text)[None], output_hidden_states=True, causal=causal)
        return [states[0] for states in output.hidden_states]

    def _ids(self, text: str) -> Tensor:
        """Return the ids of a text with its special tokens, (T,)."""
        return torch.tensor(self.tokenizer(text).input_ids)


def open_model(path: str) -> TextModel:
    """Open a ModernBERT with a masked-LM head and its tokenizer, in evaluation mode.

    Args:
        path: Folder or hub id.

    Raises:
        UserError: If it is another model, has no masked-LM head, or its tokenizer does not fit.
    """
    network, _ = open_masked(path)
    return TextModel(network.eval(), AutoTokenizer.from_pretrained(path, clean_up_tokenization_spaces=False))
