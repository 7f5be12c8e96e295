"""Describe a network: everything in which the families of encoders differ, apart from the names of weights.

One network computes all families. The modules of `layers` are built from this description, and the plan and
the counts of operations read it. A reader for each family (`families/`) makes it from transformers' config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers.activations import ACT2FN

from clm_detour.utils.errors import UserError

Kind = Literal["ForMaskedLM", "Model", "ForSequenceClassification", "ForTokenClassification"]


@dataclass(frozen=True)
class HeadParts:
    """A head between the body and an output layer: a dense layer, an activation and perhaps a norm.

    Args:
        activation: Name of the activation in transformers.
        bias: Whether the dense layer has a bias.
        norm: Whether a norm follows.
    """

    activation: str
    bias: bool = True
    norm: bool = True


@dataclass(frozen=True)
class Positions:
    """Learned absolute positions.

    Args:
        rows: Number of rows of the table.
        first: Row of the first token of a document. RoBERTa's is the padding id + 1.
    """

    rows: int
    first: int = 0

    @property
    def longest(self) -> int:
        """Number of tokens of the longest document."""
        return self.rows - self.first


@dataclass(frozen=True)
class Architecture:
    """A network of any family.

    Args:
        vocabulary, hidden, inner, heads, layers: Sizes; `inner` is that of the MLP.
        padding: Padding id, whose embedding is not trained.
        pre_norm: Whether a norm stands before attention and MLP, with a final norm after the last layer and
            none before the first attention. False: it follows each sum, and there is no final norm.
        norm_eps, norm_bias: Of every norm.
        attention_bias, mlp_bias: Whether the projections have biases.
        activation: Name of the MLP's activation in transformers.
        gated: Whether the MLP is a gated linear unit.
        every: Layers 0, every, 2 * every, ... are global, the others local.
        window: Number of tokens that a local layer sees on each side, inclusive.
        thetas: Bases of the rotary positions in global and in local layers; None: positions are not rotary.
        positions: Learned absolute positions, if the network has them.
        token_types: Rows of the table of token types, of which only the first is used; 0 if there is none.
        head: Prediction head before the vocabulary.
        document_head, token_head: Heads before a classifier of documents and of tokens; None: there is none.
        decoder_bias, tied: Whether the vocabulary's projection has a bias, and whether it is the embedding.
        attention_dropout: Dropout of attention probabilities, with which the network cannot train.
        embedding_dropout, mlp_dropout, classifier_dropout: Dropout after the embeddings, inside the MLP and
            before a classifier.
        std, out_std, classifier_std: Standard deviations of new weights, of those before the residual stream,
            and of those of a classifier.
        cutoff: Number of standard deviations at which new weights are truncated.
    """

    vocabulary: int
    hidden: int
    inner: int
    heads: int
    layers: int
    padding: int | None
    pre_norm: bool
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    activation: str
    gated: bool
    head: HeadParts
    document_head: HeadParts
    token_head: HeadParts | None
    decoder_bias: bool
    tied: bool
    std: float
    out_std: float
    classifier_std: float
    cutoff: float = 3.0
    every: int = 1
    window: int | None = None
    thetas: tuple[float, float] | None = None
    positions: Positions | None = None
    token_types: int = 0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float = 0.0

    @property
    def head_dim(self) -> int:
        """Size of an attention head."""
        return self.hidden // self.heads

    @property
    def longest(self) -> int | None:
        """Number of tokens of the longest document; None if there is no limit."""
        return None if self.positions is None else self.positions.longest

    @property
    def one_head(self) -> bool:
        """Return whether classifiers have the prediction head of the masked language model."""
        return self.document_head == self.token_head == self.head

    @property
    def layer_weights(self) -> int:
        """Number of elements of the matrices of a layer."""
        return 4 * self.hidden * self.hidden + (3 if self.gated else 2) * self.hidden * self.inner

    def is_local(self, layer: int) -> bool:
        """Return whether this layer sees only a window."""
        return layer % self.every != 0

    def head_before(self, kind: Kind) -> HeadParts | None:
        """Return the head of a class of this kind."""
        heads = {
            "ForSequenceClassification": self.document_head,
            "ForTokenClassification": self.token_head,
        }
        return heads.get(kind, self.head)


def check_sizes(config: Any, activations: tuple[str, ...], example: str) -> None:
    """Check the sizes and activations that the configs of all families name alike.

    Args:
        config: A config of transformers.
        activations: Keys of the activations.
        example: The family with its usual activation, for the error.

    Raises:
        UserError: If heads do not divide the hidden size, or an id or an activation does not exist.
    """
    heads, hidden, padding = config.num_attention_heads, config.hidden_size, config.pad_token_id
    if heads < 1 or hidden % heads or hidden // heads % 2:
        raise UserError(
            f"hidden_size {hidden} over num_attention_heads {heads} is no even number; change one of them."
        )
    if padding is not None and not 0 <= padding < config.vocab_size:
        raise UserError(
            f"pad_token_id {padding} is not in the vocabulary of {config.vocab_size}; change one of them."
        )
    for key in activations:
        if getattr(config, key) not in ACT2FN:
            raise UserError(f"{key} {getattr(config, key)!r} is not known to transformers; {example}.")
