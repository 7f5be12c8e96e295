"""Run the snippets of docs/interop.md on a small random model, check what they give, and write the table.

    python scripts/interop.py            # all, about two minutes; writes the table
    python scripts/interop.py ONNX       # one section; prints its row

A snippet in Python or bash is run as it stands in the page, in a folder with `my-model`. What servers in
other languages read is compared with recorded lists of fields (interop_fields.json), which name source and
date.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForMaskedLM, ModernBertConfig

from clm_detour import ModernBertForPretraining, ModernBertModel
from clm_detour.data.sample import shipped
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer_training import train_tokenizer
from clm_detour.recipe.export import write_model
from clm_detour.utils.errors import on_one_line
from clm_detour.utils.files import atomic_write, read_json

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "interop.md"
MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
FIELDS = read_json(Path(__file__).with_name("interop_fields.json"))
TYPES: dict[str, Any] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
    "list": list,
    "dict": dict,
}
BODY = (
    r"embeddings\.(tok_embeddings|norm)\.weight|final_norm\.weight|"
    r"layers\.\d+\.(attn\.(Wqkv|Wo)|attn_norm|mlp\.(Wi|Wo)|mlp_norm)\.weight"
)
HEAD = r"head\.(dense|norm)\.weight|decoder\.bias"

Names = dict[str, Any]  # the variables of a snippet


def make_model(folder: Path) -> None:
    """Write a model of four layers with large random weights, and a tokenizer of the bundled text."""
    texts = (text for _, text in zip(range(400), read_documents(str(shipped("abstracts"))), strict=False))
    train_tokenizer(texts, 800, folder.with_name("tokenizer"))
    config = ModernBertConfig(
        vocab_size=800, hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        local_attention=16, max_position_embeddings=256, initializer_range=0.2, pad_token_id=3,
        bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    write_model(ModernBertForPretraining(config), str(folder.with_name("tokenizer")), folder)


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the snippets below each heading of the page: language and code."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {
        heading: re.findall(r"^```(python|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {heading: snippets for heading, snippets in found.items() if snippets}


def run_snippets(snippets: list[tuple[str, str]]) -> Names:
    """Run snippets in the current folder and return their variables."""
    names: Names = {}
    for language, code in snippets:
        if language == "python":
            exec(code, names)  # the code is that of the page
            continue
        for line in code.splitlines():
            command = line.replace("clm-detour", f"{shlex.quote(sys.executable)} -m clm_detour", 1)
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
            names["printed"] = done.stderr
    return names


def close(actual: Any, expected: Any) -> None:
    """Check that two arrays are equal up to rounding."""
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected).detach(), rtol=1e-4, atol=1e-4
    )


def fell(losses: list[float]) -> str:
    """Check that a loss fell, and say so."""
    assert sum(losses[-3:]) < sum(losses[:3]), losses
    return "the loss falls"


def logged(names: Names) -> list[float]:
    """Return the losses that a Trainer logged."""
    return [line["loss"] for line in names["trainer"].state.log_history if "loss" in line]


def masks(names: Names) -> str:
    """Check the answers of the pipeline."""
    ids = names["fill"].tokenizer("The patient was treated with [MASK].", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = ModernBertForPretraining.from_pretrained("my-model").eval()(ids).logits
    best = logits[ids == names["fill"].tokenizer.mask_token_id].softmax(-1).topk(3)
    assert [answer["token"] for answer in names["answers"]] == best.indices[0].tolist()
    close([answer["score"] for answer in names["answers"]], best.values[0])
    return "works: the answers and probabilities of our network"


def texts(names: Names) -> str:
    """Check that a classifier of texts learns, and that this package opens it."""
    from clm_detour import ModernBertForSequenceClassification

    batch = names["tokenizer"](names["texts"], padding=True, return_tensors="pt")
    ours = ModernBertForSequenceClassification.from_pretrained("tuned").eval()
    with torch.no_grad():
        close(names["model"].eval()(**batch).logits, ours(**batch).logits)
    return f"works: {fell(logged(names))}, and this package opens the classifier with equal logits"


def mean_states(texts: list[str], embedder: Any) -> torch.Tensor:
    """Return the mean states of texts by the body of this package."""
    batch = embedder.tokenizer(texts, padding=True, return_tensors="pt")
    states = ModernBertModel.from_pretrained("my-model").eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return (states * mask).sum(1) / mask.sum(1)


def vectors(names: Names) -> str:
    """Check sentence embeddings."""
    sentences = ["Chest pain for an hour.", "A trial of aspirin."]
    close(names["vectors"], mean_states(sentences, names["embedder"]))
    return "works: the means over tokens of our states"


def adapters(names: Names) -> str:
    """Check that adapters learn, come back and can be merged."""
    batch, real = names["batch"], names["batch"]["attention_mask"].bool()
    ours = ModernBertForPretraining.from_pretrained("merged").eval()
    with torch.no_grad():
        expected = names["model"](**batch).logits[real]
        close(names["merged"].eval()(**batch).logits[real], expected)
        close(ours(**batch).logits[real], expected)
    return f"works: {fell(names['losses'])}; saved, opened and merged with equal logits, also in this package"


def onnx(names: Names) -> str:
    """Check the answers of the ONNX file, and that the command prints sizes, parity and agreement."""
    batch = names["batch"].convert_to_tensors("pt")
    with torch.no_grad():
        expected = AutoModelForMaskedLM.from_pretrained("my-model").eval()(**batch).logits
    real = batch["attention_mask"].bool()
    close(torch.as_tensor(names["logits"])[real], expected[real])
    assert re.search(r"Largest difference from torch .*\n.*% equal top answers", names["printed"])
    assert Path("served/onnx/model_quantized.onnx").stat().st_size < 1e6
    return (
        "works in fp32 (equal logits, padded batches) and in int8 (the command prints the share of equal "
        "answers)"
    )


def problems(tool: str, folder: str, head: bool = False) -> list[str]:
    """Return what a tool looks for in a folder and does not find, or finds and does not know."""
    wanted, config = FIELDS[tool], read_json(Path(folder, "config.json"))
    found = [
        key for key, kind in wanted["config"].items() if not isinstance(config.get(key), TYPES[kind])
    ] + [name for name in wanted["files"] if not Path(folder, name).is_file()]
    known = re.compile(f"{wanted['prefix']}({BODY})" + (f"|{HEAD}" if head else ""))
    with safe_open(Path(folder, "model.safetensors"), "pt") as file:
        return found + [name for name in file.keys() if not known.fullmatch(name)]  # noqa: SIM118


def router(names: Names) -> str:
    """Check the fields that text-embeddings-inference reads."""
    assert problems("text-embeddings-inference", "my-model", head=True) == []
    assert problems("text-embeddings-inference", "repaired") == []
    missing = {"global_rope_theta", "local_rope_theta"}
    again = set(problems("text-embeddings-inference", "saved-again")) - {"tokenizer.json"}
    if version("transformers") >= "5":
        assert again == missing, again
    return (
        "fields are there (not run); a folder that transformers 5 saved again lacks `global_rope_theta`, and "
        "`ModernBertModel` repairs it"
    )


def body_fields(tool: str, why: str) -> Callable[[Names], str]:
    """Return a check of the fields that a tool reads from the folder of a body."""

    def check(names: Names) -> str:
        assert problems(tool, "my-body") == []
        assert read_json(Path("my-body/config.json"))["architectures"] == ["ModernBertModel"]
        assert problems(tool, "my-model"), "the whole model would do"
        return f"fields and tensor names of the body are there (not run); {why}"

    return check


def decoder(names: Names) -> str:
    """Check the logits and the generation of the decoder."""
    ids = names["prompt"]["input_ids"]
    with torch.no_grad():
        close(names["decoder"].eval()(ids).logits, names["model"].eval()(ids).logits)
    assert names["generated"].shape[1] == ids.shape[1] + 5
    return "works: equal logits, and `generate` continues a text (transformers 5)"


ROWS: dict[str, tuple[tuple[str, ...], Callable[[Names], str]]] = {
    "Fill masks": (("transformers",), masks),
    "Classify texts": (("transformers", "accelerate"), texts),
    "Classify tokens": (("transformers", "accelerate"), lambda names: f"works: {fell(logged(names))}"),
    "Embed sentences": (("sentence-transformers",), vectors),
    "Train sentence embeddings": (("sentence-transformers",), lambda names: f"works: {fell(logged(names))}"),
    "Train adapters": (("peft",), adapters),
    "ONNX": (("torch", "onnxscript", "onnxruntime"), onnx),
    "text-embeddings-inference": ((), router),
    "vLLM": ((), body_fields("vLLM", "the whole model is not: no entry for `ModernBertForMaskedLM`")),
    "llama.cpp": ((), body_fields("llama.cpp", "the whole model is not: no name for `decoder.bias`")),
    "As a decoder": (("transformers",), decoder),
}


def run(heading: str, folder: Path) -> str:
    """Run the snippets of a section in a folder with `my-model`. Return the result, a failure included."""
    try:
        with chdir(folder):
            return ROWS[heading][1](run_snippets(sections()[heading]))
    except Exception as error:  # any error is the result of this row
        return f"fails: {type(error).__name__}: {on_one_line(error)[:200]}"


def table(results: dict[str, str]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| use | checked with | result |"
    yield "|---|---|---|"
    for heading, result in results.items():
        packages = ", ".join(f"{name} {version(name).split('+')[0]}" for name in ROWS[heading][0])
        fields = FIELDS.get(heading)
        checked = packages or f"its source, read {fields['read']}"
        anchor = re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        yield f"| [{heading}](#{anchor}) | {checked} | {result} |"


def write_table(lines: Iterator[str]) -> None:
    """Write the table and the sources of the recorded fields into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    sources = " ".join(f"{tool}: {fields['source']}." for tool, fields in FIELDS.items())
    content = "\n".join(["", *lines, "", f"Sources of the recorded fields: {sources}", "", ""])
    with atomic_write(PAGE, "w") as file:
        file.write(before + MARKS[0] + content + MARKS[1] + after)


def main() -> None:
    """Run all sections and write the table, or print the rows of the sections that are named."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    wanted = sys.argv[1:] or list(ROWS)
    with tempfile.TemporaryDirectory() as temporary:
        make_model(Path(temporary, "my-model"))
        results = {heading: run(heading, Path(temporary)) for heading in wanted}
    print(*table(results), sep="\n")
    if not sys.argv[1:]:
        write_table(table(results))
    sys.exit(any(result.startswith("fails") for result in results.values()))


if __name__ == "__main__":
    main()
