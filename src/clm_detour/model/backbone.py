"""What the classes of this network share: config, mask, attention back end, initialisation, folders.

A subclass adds its last projection and a forward; its parameters are named as in transformers' class of the same kind.

Shapes: B rows, L positions of a row, T tokens, E hidden size.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import ModernBertConfig

from clm_detour.model import hf
from clm_detour.model.attention import Choice, choose_backend
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.documents import Unpadded, unpad
from clm_detour.model.input_checks import check_causal, check_ids, check_inputs
from clm_detour.model.layers import MLP, Attention, Body, Embeddings, Head
from clm_detour.model.layout import layout_of
from clm_detour.model.precision import autocast_that_pays, best_device, product_dtype
from clm_detour.model.unsupported import (
    FORWARD,
    FROM_PRETRAINED,
    SAVE_PRETRAINED,
    check_keywords,
    check_positions,
    check_token_types,
)
from clm_detour.model.wrappers import pass_causal_on
from clm_detour.utils.errors import UserError


class ModernBertPreTrainedModel(hf.FolderModel):
    """Body and prediction head; a subclass adds its modules and calls `post_init`.

    Args:
        config: of any ModernBERT; copied.
        attention_backend: a name of `clm_detour.model.attention.BACKENDS`, or None for the best one, by device and precision.

    Attributes:
        causal: a token sees only itself and what is left of it. Switch it at any time, also on a wrapper such as PEFT's, DDP or
            `torch.compile`'s; or give `causal` to a forward. It is saved with the model.
        architecture: the name of transformers' class with the same weights; stands in a saved `config.json`.

    Raises:
        UserError: the config asks for something that the network does not do exactly.
    """

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # transformers' Trainer: the loss is the mean of the batch that is given

    def __init__(self, config: ModernBertConfig, attention_backend: str | None = None):
        layout = layout_of(config)
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"  # transformers checks its own kernels; ours are chosen below
        vars(config).pop(hf.CAUSAL, None)  # what the attribute says is true
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

    @property
    def causal(self) -> bool:
        """Whether a token sees only itself and what is left of it."""
        return self._causal

    @causal.setter
    def causal(self, value: bool) -> None:
        self._causal = check_causal(value)

    def extra_repr(self) -> str:
        """The mask, for `repr`."""
        return f"causal={self.causal}"

    def generate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Generate nothing: `to_decoder` gives the model that does.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"{type(self).__name__} does not generate text; set causal = True on a ModernBertForPretraining and call "
            "model.to_decoder().generate(...)."
        )

    prepare_inputs_for_generation = generate  # PEFT's CAUSAL_LM wants to find it, and the next line
    generation_config: Any = None

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there is a `generate` that generates, for transformers."""
        return False

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        each: list[Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
        causal: bool | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, Unpadded]:
        """Run the body over the tokens of a batch.

        Args:
            input_ids: (B, L) int64.
            attention_mask, document_ids, document_lengths: see `clm_detour.model.documents.unpad`.
            each: a list to which the embeddings and each layer's output are appended, (T, E).
            inputs_embeds: (B, L, E) in place of `input_ids`: what the token embeddings would give, before their norm.
            causal: the mask of this call; None: the attribute's.
            position_ids: (1, L) or (B, L), as transformers takes them; they must count up by one inside each document, as positions
                do here anyway. The host waits for them.
            token_type_ids: must be zeros. The host waits for them.
            others: further keywords of transformers, none of which may ask for anything; see `clm_detour.model.unsupported`.

        Returns:
            (T, E) after the final norm, and how the T tokens lie in the rows.

        Raises:
            UserError: shapes or lengths differ, an id is not in the vocabulary (seen on a CPU), a keyword asks for what this network
                does not do, or training with attention dropout.
        """
        check_keywords(type(self), "forward", others, FORWARD)
        shape = check_inputs(input_ids, inputs_embeds, self.config.hidden_size)
        inputs: Any = input_ids if inputs_embeds is None else inputs_embeds
        rows = unpad(shape, inputs.device, attention_mask, document_ids, document_lengths)
        if position_ids is not None:
            check_positions(position_ids, rows)
        if token_type_ids is not None:
            check_token_types(token_type_ids)
        inputs_T = rows.take(inputs)
        if inputs_embeds is None:
            entries = self.model.embeddings.tok_embeddings.num_embeddings
            check_ids("input_ids", "token id", inputs_T, entries, (torch.int64, torch.int32))
        with autocast_that_pays(self.device):
            backend = self.attention_choice.name
            return self.model(inputs_T, rows.documents, self._is_causal(causal), backend, each), rows

    def _is_causal(self, asked: bool | None) -> bool:
        """The mask of a call."""
        return self._causal if asked is None else check_causal(asked)

    def _as_asked(self, output: Any, return_dict: bool | None) -> Any:
        """The output, or what it holds as a tuple."""
        return output.to_tuple() if return_dict is False else output

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
    def from_pretrained(  # type: ignore[override]
        cls: type[hf.Model],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: torch.dtype | str | None = torch.float32,
        torch_dtype: torch.dtype | str | None = None,
        causal: bool | None = None,
        attention_backend: str | None = None,
        device_map: Any = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **others: Any,
    ) -> hf.Model:
        """Load a folder or a model of the Hugging Face Hub, strictly, in evaluation mode.

        Args:
            pretrained_model_name_or_path: the folder or hub id of a model of the same class.
            dtype: of the weights, or its name; None or "auto": as stored. Training wants fp32 weights, whatever the folder holds.
            torch_dtype: the same under the name of older releases.
            causal: the mask; None: as the folder says, and if it says causal, so does a warning in the log.
            attention_backend: see the class.
            device_map: the one device that the model goes to, such as "cuda" or {"": 0}; None: the CPU.
            revision, cache_dir, force_download, local_files_only, token: for a model of the Hub, as `huggingface_hub` takes them.
            others: further keywords of transformers, none of which may ask for anything; see `clm_detour.model.unsupported`.

        Raises:
            UserError: there is no such model, it is of another architecture, its config cannot be honoured exactly, its weights
                do not fit, or a keyword asks for what is not done here.
        """
        check_keywords(cls, "from_pretrained", others, FROM_PRETRAINED)
        return hf.load(
            cls,
            pretrained_model_name_or_path,
            dtype=hf.one_dtype(dtype, torch_dtype),
            attention_backend=attention_backend,
            causal=causal,
            device=hf.one_device(device_map),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        max_shard_size: int | str | None = None,
        **others: Any,
    ) -> None:
        """Write a folder that transformers' class of any version opens; see `clm_detour.model.hf.save`.

        Args:
            save_directory: the folder.
            is_main_process: others write nothing.
            state_dict: all weights of this model, by their names in it; None: the model's own.
            max_shard_size: as `push_to_hub` gives it; the weights are one file, whatever their size.
            others: further keywords of transformers, none of which may ask for anything; see `clm_detour.model.unsupported`.

        Raises:
            UserError: the weights are not those of the config, as with adapters that are not merged, the folder cannot be
                written, or a keyword asks for what is not done here.
        """
        check_keywords(type(self), "save_pretrained", others, SAVE_PRETRAINED)
        if is_main_process:
            hf.save(self, save_directory, state_dict)


pass_causal_on(ModernBertPreTrainedModel)
