"""What the classes of this network share: config, mask, attention back end, initialisation, folders.

A subclass adds its last projection and a forward; its parameters are named as in transformers' class of the same kind.

Shapes: B rows, L positions of a row, T tokens, E hidden size.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import ModernBertConfig, PreTrainedModel

from clm_detour.errors import UserError
from clm_detour.model import hf
from clm_detour.model.attention import Choice, choose_backend
from clm_detour.model.checks import check_ids, check_rows
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.documents import Unpadded, unpad
from clm_detour.model.layers import MLP, Attention, Body, Embeddings, Head
from clm_detour.model.layout import layout_of
from clm_detour.model.precision import autocast_that_pays, best_device, product_dtype


class ModernBertPreTrainedModel(PreTrainedModel):
    """Body and prediction head; a subclass adds its modules and calls `post_init`.

    Args:
        config: of any ModernBERT; copied.
        attention_backend: a name of `clm_detour.model.attention.BACKENDS`, or None for the best one, by device and precision.

    Attributes:
        causal: a token sees only itself and what is left of it. Switch it at any time.
        architecture: the name of transformers' class with the same weights; stands in a saved `config.json`.

    Raises:
        UserError: the config asks for something that the network does not do exactly.
    """

    config: ModernBertConfig
    config_class = ModernBertConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    architecture: ClassVar[str]

    def __init__(self, config: ModernBertConfig, attention_backend: str | None = None):
        layout = layout_of(config)
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"  # transformers checks its own kernels; ours are chosen below
        super().__init__(config)
        self.causal = False
        if attention_backend is not None:
            choose_backend(attention_backend)  # refuse it now rather than at the first batch
        self._attention_asked = attention_backend
        self.model = Body(config, layout)
        self.head = Head(config)

    @property
    def attention_choice(self) -> Choice:
        """The attention back end for the device and precision that the model runs in at this moment, and why."""
        device = self.device.type
        dtype = product_dtype(device, self.dtype)
        return choose_backend(self._attention_asked, device, dtype, self.model.head_dim)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, in fp32 under an autocast that would not pay; see `clm_detour.model.precision`."""
        with autocast_that_pays(self.device):
            return super().__call__(*args, **kwargs)

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        each: list[Tensor] | None = None,
    ) -> tuple[Tensor, Unpadded]:
        """Run the body over the tokens of a batch.

        Args:
            input_ids: (B, L) int64.
            attention_mask, document_ids, document_lengths: see `clm_detour.model.documents.unpad`.
            each: a list to which the embeddings and each layer's output are appended, (T, E).

        Returns:
            (T, E) after the final norm, and how the T tokens lie in the rows.

        Raises:
            UserError: shapes or lengths differ, an id is not in the vocabulary (seen on a CPU), or training with attention dropout.
        """
        shape = check_rows(input_ids)
        rows = unpad(shape, input_ids.device, attention_mask, document_ids, document_lengths)
        ids_T = rows.take(input_ids)
        entries = self.model.embeddings.tok_embeddings.num_embeddings
        check_ids("input_ids", "token id", ids_T, entries, (torch.int64, torch.int32))
        with autocast_that_pays(self.device):
            backend = self.attention_choice.name
            return self.model(ids_T, rows.documents, self.causal, backend, each), rows

    def compile_layers(self) -> None:
        """Run the layers through `torch.compile` from now on; each shape of a batch is compiled once.

        Raises:
            UserError: torch cannot compile here, for the GPU if there is one.
        """
        if reason := cannot_compile(best_device().type):
            raise UserError(
                f"The layers cannot be compiled here: {reason}; install it, or do without (train.compile: false of a recipe)."
            )
        for layer in self.model.layers:
            layer.compiled = True

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.model.embeddings.tok_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.model.embeddings.tok_embeddings = value

    def init_weights(self) -> None:
        """Fill fresh weights and tie those that are tied; called by `post_init`.

        transformers 5 takes a module without parameters of its own for initialised if its class is not one of transformers'.
        """
        if self.model.embeddings.tok_embeddings.weight.device.type != "meta":
            self.apply(self._init_weights)
        self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """ModernBERT's initialisation: truncated normals; projections back to the residual stream are smaller."""
        narrow, out = self.config.initializer_range, self._out_std
        if isinstance(module, Embeddings):
            self._fill(module.tok_embeddings, narrow)
        elif isinstance(module, MLP):
            self._fill(module.Wi, narrow)
            self._fill(module.Wo, out)
        elif isinstance(module, Attention):
            self._fill(module.Wqkv, narrow)
            self._fill(module.Wo, out)
        elif isinstance(module, Head):
            self._fill(module.dense, out)

    @property
    def _out_std(self) -> float:
        return self.config.initializer_range / math.sqrt(2.0 * self.config.num_hidden_layers)

    def _fill(self, module: nn.Linear | nn.Embedding, std: float) -> None:
        cutoff = std * (self.config.initializer_cutoff_factor or 3)
        nn.init.trunc_normal_(module.weight, 0.0, std, -cutoff, cutoff)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @classmethod
    def _from_folder(
        cls, weights: Mapping[str, Tensor], path: str | os.PathLike[str]
    ) -> Mapping[str, Tensor]:
        """Return the weights of a folder as this class names them."""
        return weights

    def _to_folder(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the weights as a folder of this class names them."""
        return weights

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls: type[hf.Model],
        path: str | os.PathLike[str],
        *,
        dtype: torch.dtype | str | None = torch.float32,
        revision: str | None = None,
        attention_backend: str | None = None,
    ) -> hf.Model:
        """Load a folder or hub id of the same class, strictly; see `clm_detour.model.hf.load`."""
        return hf.load(cls, path, dtype=dtype, revision=revision, attention_backend=attention_backend)

    def save_pretrained(  # type: ignore[override]
        self,
        folder: str | os.PathLike[str],
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        is_main_process: bool = True,
        max_shard_size: int | str | None = None,
    ) -> None:
        """Write a folder that transformers' class of any version opens; see `clm_detour.model.hf.save`.

        Args:
            state_dict, is_main_process: as transformers' Trainer gives them; other processes write nothing.
            max_shard_size: as `push_to_hub` gives it; the weights are one file, whatever their size.
        """
        if is_main_process:
            hf.save(self, folder, state_dict)
