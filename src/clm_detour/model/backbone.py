"""The base class of all classes of this network: config, mask, attention back end, initialization, folders.

A subclass adds its last projection and a forward. Its parameters are named as in transformers' class of the
same kind.

Shapes: B rows, L positions of a row, T tokens, E hidden size.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from clm_detour.model import hf
from clm_detour.model.attention import Choice, choose_backend
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.documents import Unpadded, unpad
from clm_detour.model.families import architecture_of
from clm_detour.model.input_checks import check_causal, check_ids, check_inputs, check_longest
from clm_detour.model.layers import MLP, Attention, Body, Embeddings, Head
from clm_detour.model.named_weights import read_named
from clm_detour.model.precision import best_device, product_dtype, without_slow_autocast
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

logger = logging.getLogger(__name__)


class ModernBertPreTrainedModel(hf.FolderModel):
    """Body and prediction head. A subclass adds its modules and calls `post_init`.

    Args:
        config: Config of a model of any family (`clm_detour.model.families`); it is copied.
        attention_backend: A name of `clm_detour.model.attention.BACKENDS`, or None for the best one by device
            and precision.

    Attributes:
        causal: Whether a token sees only itself and what is to its left. Set it at any time, also on a
            wrapper such as PEFT's, DDP or `torch.compile`'s; or give `causal` to a forward. It is saved with
            the model.
        architecture: The description of the network that is read from the config.
        transformers_class: Name of transformers' class with the same weights, which is written to
            `config.json`.

    Raises:
        UserError: If the config asks for something that the network does not compute exactly.
    """

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # for transformers' Trainer: the loss is the mean of the batch

    def __init__(self, config: PreTrainedConfig, attention_backend: str | None = None):
        architecture = architecture_of(config)
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"  # transformers checks the kernels that it would use
        vars(config).pop(hf.CAUSAL, None)  # the attribute decides
        super().__init__(config)
        self.causal = False
        if attention_backend is not None:
            choose_backend(attention_backend)  # raises now rather than at the first batch
        self._attention_asked = attention_backend
        self.architecture = architecture
        self.model = Body(architecture)
        parts = architecture.head_before(self.kind)
        self.head: Any = nn.Identity() if parts is None else Head(architecture, parts)

    @property
    def _has_head(self) -> bool:
        """Return whether there is a head between the body and the output layer."""
        return self.architecture.head_before(self.kind) is not None

    def _renew_head(self) -> nn.Module:
        """Replace the head by a new one on the CPU, from torch's global random number generator."""
        parts = self.architecture.head_before(self.kind)
        assert parts is not None
        self.head = Head(self.architecture, parts)
        self.head.apply(self._init_weights)
        return self.head

    @property
    def attention_choice(self) -> Choice:
        """The attention back end for the current device and precision of the model, and the reason."""
        device = self.device.type
        dtype = product_dtype(device, self.dtype)
        return choose_backend(self._attention_asked, device, dtype, self.architecture.head_dim)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, in fp32 where autocast would be slower; see `clm_detour.model.precision`."""
        with without_slow_autocast(self.device):
            return super().__call__(*args, **kwargs)

    @property
    def causal(self) -> bool:
        """Return whether a token sees only itself and what is to its left."""
        return self._causal

    @causal.setter
    def causal(self, value: bool) -> None:
        self._causal = check_causal(value)

    def extra_repr(self) -> str:
        """Return the mask, for `repr`."""
        return f"causal={self.causal}"

    def generate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse to generate text: `to_decoder` returns a model that can.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"{type(self).__name__} does not generate text; set causal = True on a ModernBertForPretraining "
            "and call model.to_decoder().generate(...)."
        )

    prepare_inputs_for_generation = generate  # PEFT's CAUSAL_LM looks for it and for the next line
    generation_config: Any = None

    @classmethod
    def can_generate(cls) -> bool:
        """Return whether the model generates text, for transformers."""
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
        row_numbers: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, Unpadded]:
        """Run the body over the tokens of a batch.

        Args:
            input_ids: (B, L) int64.
            attention_mask, document_ids, document_lengths: See `clm_detour.model.documents.unpad`.
            each: A list to which the embeddings and the output of each layer are appended, (T, E).
            inputs_embeds: (B, L, E) in place of `input_ids`: token embeddings before their norm.
            causal: Mask of this call. None uses the attribute.
            position_ids: (1, L) or (B, L), as transformers takes them. They must count up by one inside each
                document, as positions do here anyway. The host waits for them.
            token_type_ids: Must be zeros. The host waits for them.
            row_numbers: (B,) int64, the numbers of the rows in the training stream, on which the dropout of
                `model.output_dropout` depends. None draws random ones.
            others: Further keywords of transformers, none of which may ask for anything; see
                `clm_detour.model.unsupported`.

        Returns:
            The states after the final norm, (T, E), and the places of the T tokens in the rows.

        Raises:
            UserError: If shapes or lengths differ, an id is not in the vocabulary (checked on a CPU only), a
                document is longer than the network's positions, a keyword asks for something that is not
                supported, or in training with attention dropout.
        """
        check_keywords(type(self), "forward", others, FORWARD)
        shape = check_inputs(input_ids, inputs_embeds, self.config.hidden_size)
        inputs: Any = input_ids if inputs_embeds is None else inputs_embeds
        rows = unpad(shape, inputs.device, attention_mask, document_ids, document_lengths)
        check_longest(rows.documents.longest, self.architecture.longest)
        if position_ids is not None:
            check_positions(position_ids, rows)
        if token_type_ids is not None:
            check_token_types(token_type_ids)
        inputs_T = rows.take(inputs)
        if inputs_embeds is None:
            entries = self.model.embeddings.tok_embeddings.num_embeddings
            check_ids("input_ids", "token id", inputs_T, entries, (torch.int64, torch.int32))
        with without_slow_autocast(self.device):
            backend = self.attention_choice.name
            keys_T = self._dropout_keys(rows, row_numbers)
            causal = self._is_causal(causal)
            return self.model(inputs_T, rows.documents, causal, backend, each, keys_T), rows

    def _dropout_keys(self, rows: Unpadded, row_numbers: Tensor | None) -> Tensor | None:
        """Return random numbers of the tokens for the dropout of this call, (T,), None without dropout."""
        dropout, (count, length) = self.model.output_dropout, rows.shape
        if dropout is None or not self.training:
            return None
        if row_numbers is None:
            row_numbers = torch.randint(1 << 62, (count,), device=rows.documents.device)
        return rows.take(dropout.token_keys(row_numbers.to(rows.documents.device), length))

    def _is_causal(self, asked: bool | None) -> bool:
        """Return the mask of a call."""
        return self._causal if asked is None else check_causal(asked)

    def _returned(self, output: Any, return_dict: bool | None) -> Any:
        """Return the output, or its content as a tuple."""
        return output.to_tuple() if return_dict is False else output

    def compile_layers(self) -> None:
        """Run the layers through `torch.compile` from now on. Each shape of a batch is compiled once.

        Raises:
            UserError: If torch cannot compile here, for the GPU if there is one.
        """
        if reason := cannot_compile(best_device().type):
            raise UserError(
                f"The layers cannot be compiled here: {reason}; install it, or do without (train.compile: "
                "false of a recipe)."
            )
        for layer in self.model.layers:
            layer.compiled = True

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.model.embeddings.tok_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.model.embeddings.tok_embeddings = value

    def init_weights(self) -> None:
        """Initialize new weights and tie those that are tied. `post_init` calls it.

        transformers 5 treats a module without parameters of its own as initialized if its class is not one of
        transformers'.
        """
        if self.model.embeddings.tok_embeddings.weight.device.type != "meta":
            self.apply(self._init_weights)
        self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize with truncated normals, which in ModernBERT are smaller before the residual stream."""
        narrow, out = self.architecture.std, self.architecture.out_std
        if isinstance(module, Embeddings):
            for table in (module.tok_embeddings, module.position_embeddings, module.token_type_embeddings):
                if table is not None:
                    self._fill(table, narrow)
        elif isinstance(module, MLP):
            self._fill(module.Wi, narrow)
            self._fill(module.Wo, out)
        elif isinstance(module, Attention):
            self._fill(module.Wqkv, narrow)
            self._fill(module.Wo, out)
        elif isinstance(module, Head):
            self._fill(module.dense, out)

    def _fill(self, module: nn.Linear | nn.Embedding, std: float) -> None:
        cutoff = std * self.architecture.cutoff
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
            pretrained_model_name_or_path: Folder or hub id of a model of the same class.
            dtype: Type of the weights, or its name. None or "auto" keeps the stored one. Training needs fp32
                weights, whatever the folder holds.
            torch_dtype: The same under the name of older releases.
            causal: Mask. None takes that of the folder; if it is causal, a warning in the log says so.
            attention_backend: See the class.
            device_map: The one device for the whole model, such as "cuda" or {"": 0}. None is the CPU.
            revision, cache_dir, force_download, local_files_only, token: Options of `huggingface_hub` for a
                model of the Hub.
            others: Further keywords of transformers, none of which may ask for anything; see
                `clm_detour.model.unsupported`.

        Raises:
            UserError: If there is no such model, it is of another architecture, its config asks for something
                that the network does not compute exactly, its weights do not fit, or a keyword asks for
                something that is not supported.
        """
        check_keywords(cls, "from_pretrained", others, FROM_PRETRAINED)
        path, device = pretrained_model_name_or_path, hf.one_device(device_map)
        kept_dtype = hf.one_dtype(dtype, torch_dtype)
        folder = hf.fetch(
            path,
            revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        config = hf.read_config(folder)
        hf.check_architecture(cls, config, path)
        model = hf.without_weights(cls, config, attention_backend)
        weights = cls._from_folder(read_named(folder, config, cls.kind, path), path)
        hf.fill(model, weights, str(path), kept_dtype)
        model.causal = bool(getattr(config, hf.CAUSAL, False)) if causal is None else causal
        if causal is None and model.causal:
            logger.warning(
                "%s was saved with the causal mask and is opened with it; for the bidirectional mask set "
                "causal = False.",
                path,
            )
        if device is not None:
            torch.nn.Module.to(model, device)
        return model.eval()

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
            save_directory: The folder.
            is_main_process: Whether this process writes. The others write nothing.
            state_dict: All weights of this model, by their names in it. None takes the model's own.
            max_shard_size: Accepted because `push_to_hub` gives it. The weights are one file, whatever their
                size.
            others: Further keywords of transformers, none of which may ask for anything; see
                `clm_detour.model.unsupported`.

        Raises:
            UserError: If the weights are not those of the config, as with adapters that are not merged, the
                folder cannot be written, or a keyword asks for something that is not supported.
        """
        check_keywords(type(self), "save_pretrained", others, SAVE_PRETRAINED)
        if is_main_process:
            hf.save(self, save_directory, state_dict)


pass_causal_on(ModernBertPreTrainedModel)
