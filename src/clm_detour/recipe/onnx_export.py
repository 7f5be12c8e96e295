"""Write a model as ONNX, for onnxruntime, text-embeddings-inference and transformers.js.

What is exported is transformers' own network of the folder, by torch's exporter: its attention takes a padded
batch and a mask, which is what these runtimes pass. The network of this package packs documents into rows,
so its shapes depend on the data.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.model import hf
from clm_detour.model.pretrained import load_fast_tokenizer, read_encoder_config
from clm_detour.recipe.export import ABOUT, check_replaceable
from clm_detour.recipe.onnx_check import HEADS, Head, Parity, answers_kept, check_parity, read_batches
from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_folder, read_json, write_json
from clm_detour.utils.rules import one_of, require

OPSET = 18
FOLDER, MODEL, QUANTIZED = "onnx", "model.onnx", "model_quantized.onnx"  # names that the runtimes look for
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LONGEST = 1 << 20  # torch 2.7 asks for an upper bound of a dynamic size


@dataclass(frozen=True)
class OnnxExport:
    """The result of an export: the head, bytes of each file, and how the files answer."""

    head: str
    files: dict[str, int]
    parity: Parity
    kept: float | None  # agreement of int8 with fp32 by the measure of the head; None without int8


class _TwoInputs(nn.Module):
    """A model as a function of ids and attention mask, with one output."""

    def __init__(self, model: nn.Module, output: str):
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the output for a batch of B rows of T tokens.

        Args:
            input_ids: Token ids (B, T).
            attention_mask: 1 at tokens and 0 at padding (B, T).
        """
        result: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[self.output]
        return result


def export_onnx(path: str, folder: Path, head: str | None = None, int8: bool = False) -> OnnxExport:
    """Write `folder/onnx/model.onnx` with the config and the tokenizer, completely or not at all.

    Args:
        path: Folder or hub id of the model.
        folder: Folder to write. If it is the model's own, only `onnx/` is added to it.
        head: A key of `HEADS`. None takes the one of the model's architecture.
        int8: Also write `onnx/model_quantized.onnx` with int8 weights (dynamic quantization).

    Raises:
        UserError: If a package is missing, the model cannot be opened or exported, the folder holds something
            else, or the logits differ from those of torch.
    """
    _check_packages()
    transformers.logging.disable_progress_bar()
    config = read_encoder_config(path)
    if getattr(config, hf.CAUSAL, False):
        raise UserError(
            f"{path} was trained under the causal mask, but would be exported under the bidirectional one; "
            "export a model after a masked-LM phase, such as the decay."
        )
    name = head or _default_head(path, config)
    one_of(name, HEADS, "--head")
    inside = Path(path).is_dir() and folder.resolve() == Path(path).resolve()
    if not inside:
        check_no_weights(folder)
        check_replaceable(folder.resolve())
    network = load_network(path, HEADS[name])
    with atomic_folder(folder.resolve() / FOLDER if inside else folder.resolve()) as temporary:
        onnx_folder = temporary if inside else temporary / FOLDER
        onnx_folder.mkdir(exist_ok=True)
        if not inside:
            shutil.copyfile(hf.fetch(path) / hf.CONFIG, temporary / hf.CONFIG)
            copy_tokenizer(path, temporary)
        batches = read_batches(load_fast_tokenizer(path if inside else str(temporary)), config, name)
        fp32, quantized = onnx_folder / MODEL, onnx_folder / QUANTIZED
        with quiet():
            convert(network, batches[0], fp32)
        parity = check_parity(network, fp32, batches)
        kept = None
        if int8:
            quantize(fp32, quantized)
            kept = answers_kept(fp32, quantized, batches, name)
        files = {f"{FOLDER}/{file.name}": file.stat().st_size for file in sorted(onnx_folder.iterdir())}
        result = OnnxExport(name, files, parity, kept)
        if not inside:
            write_json(temporary / ABOUT, _about(path, result))
    return result


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Export to ONNX needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed; run pip install 'clm-detour[onnx]'."
        )


def _default_head(path: str, config: Any) -> str:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    for name, head in HEADS.items():
        if architecture.endswith(head.suffix):
            return name
    raise UserError(
        f"The config of {path} names the architecture {architecture or 'of no model'}, for which there is no "
        f"default; say --head {' or --head '.join(HEADS)}."
    )


def check_no_weights(folder: Path) -> None:
    """Check that a folder to write holds no model with weights, which would be lost.

    Raises:
        UserError: If it does.
    """
    require(
        not any(folder.glob("*.safetensors")),
        f"{folder} holds the weights of another model, which would be lost; name a folder that does not "
        "exist yet, or the model's own, to which onnx/ is added.",
    )


def load_network(path: str, head: Head) -> nn.Module:
    """Load transformers' network with a head, in fp32, as a function of two inputs.

    Raises:
        UserError: If it cannot be opened, or its weights have no such head.
    """
    auto = getattr(transformers, head.auto)
    try:
        with quiet():
            model, info = auto.from_pretrained(
                path, attn_implementation="eager", use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # its type differs between releases and models
        raise UserError(f"{path} cannot be opened as a model ({on_one_line(error)}).") from None
    if missing := sorted(key for key in info["missing_keys"] if "pooler" not in key):
        raise UserError(
            f"{path} has no weights for {head.auto} (it lacks {missing[0]}); choose another --head, or use "
            "the folder of a model with this head."
        )
    return _TwoInputs(model.float().eval(), head.output)


def convert(network: nn.Module, batch: dict[str, Tensor], file: Path) -> None:
    """Write a network as an ONNX file with dynamic batch and length.

    Args:
        network: A function of `input_ids` and `attention_mask` with one output.
        batch: An example of both (B, T).
        file: File to write.

    Raises:
        UserError: If torch cannot export it.
    """
    sizes = {0: torch.export.Dim("batch", max=LONGEST), 1: torch.export.Dim("sequence", max=LONGEST)}
    try:
        program = torch.onnx.export(
            network,
            kwargs=batch,
            input_names=list(batch),
            output_names=[str(network.output)],
            dynamic_shapes=dict.fromkeys(batch, sizes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # it is None only where torch writes the file itself
        program.save(str(file))
    except Exception as error:  # its type differs between releases
        raise UserError(
            f"torch {torch.__version__} cannot export this model ({on_one_line(error)[:300]}); try the "
            "newest torch, transformers and onnxscript."
        ) from None


def quantize(fp32: Path, int8: Path) -> None:
    """Write an ONNX file again with int8 weights, one scale a channel. Activations are quantized in a run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(fp32, int8, weight_type=QuantType.QInt8, per_channel=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch, transformers and onnxruntime say about their own code while they convert."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _about(path: str, result: OnnxExport) -> dict[str, Any]:
    """Return the content of `clm_detour.json`: that of the model, and how the ONNX files were made."""
    source = Path(path) / ABOUT
    return {
        **(read_json(source) if source.is_file() else {"clm_detour": VERSION}),
        "onnx": {**asdict(result), "opset": OPSET, "torch": torch.__version__},
    }
