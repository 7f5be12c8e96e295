"""Compare a training step of our network with one of transformers': forward, backward and AdamW.

    python benchmarks/train_step.py --papers PAPERS.jsonl.gz --tokenizer FOLDER

Both have the same weights and the same documents, and take turns in one process. Ours reads the documents
packed; transformers reads them padded to the longest, as its collator pads them. If its step does not fit
into memory, `--peer-micro-batches` divides the padded rows, as Composer divides a collated batch. Padding
does not count as tokens. The GEMM peak is measured between the rounds, since the speed of a machine changes.
For CLM the network of transformers is its causal class.

`--family bert` or `roberta` compares the networks of that family, for example:

    python benchmarks/train_step.py --family bert --papers PAPERS --tokenizer FOLDER --workloads abstracts

A BERT reads at most 512 tokens, so documents are cut there. Dropout is off in both networks.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import peers
import torch
import typer
from peak import data_sheet_peak, gemm_peak, peak_memory, timed
from record import ResultName, record
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, PreTrainedConfig
from workloads import documents_of

from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.families import architecture_of
from clm_detour.model.flops import flops_per_batch
from clm_detour.utils.allocator import give_back_freed_memory, keep_freed_memory

SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "hidden_size": 1024,
        "intermediate_size": 2624,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
    "mini": {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 6, "num_attention_heads": 4},
}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DTYPES = {"fp32": [torch.float32], "bf16": [torch.float32, torch.bfloat16]}  # for the GEMM peak
CASES = {  # objective, mask rate, options of transformers' network
    "mlm15": ("mlm", 0.15, {}),
    "mlm15-sparse": ("mlm", 0.15, {"sparse_prediction": True}),
    "mlm30": ("mlm", 0.30, {}),
    "clm": ("clm", None, {}),
}
Papers = Annotated[Path, typer.Option(help="A .jsonl.gz file of full papers, in a field `text`.")]
TokenizerFolder = Annotated[str, typer.Option(help="Folder or hub id of the tokenizer.")]
Layers = Annotated[int, typer.Option(help="Number of layers; 0 for all that the size has.")]
console = Console(width=140)


@dataclasses.dataclass
class Competitor:
    """A network with its optimizer and its batch. The loss of a batch is the sum over its micro-batches."""

    network: torch.nn.Module
    micro_batches: Sequence[Callable[[], torch.Tensor]]
    precision: str

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-6, fused=True)
        self.device = next(self.network.parameters()).device
        self.seconds: list[float] = []

    def step(self) -> None:
        """Run forward and backward of all micro-batches, and update the weights."""
        losses = []
        for forward in self.micro_batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                loss = forward()
            loss.backward()
            losses.append(loss.detach())
        self.update()
        self.loss = sum(losses)

    def update(self) -> None:
        """Update the weights."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_tensors(self) -> list[torch.Tensor]:
        """Return weights and optimizer state."""
        state = [tensor for values in self.optimizer.state.values() for tensor in values.values()]
        return [*self.network.parameters(), *state]

    def first_step(self) -> None:
        """Measure the memory of weights and optimizer state, and the peak of a step beyond it."""
        if self.device.type == "cuda":
            self.step()
        before = sum(t.nbytes for t in self.state_tensors())
        self.peak_bytes = peak_memory(self.step, self.device)
        self.state_bytes = sum(t.nbytes for t in self.state_tensors())
        self.peak_bytes -= self.state_bytes - before  # optimizer state that this step created

    def warm_up(self, steps: int) -> None:
        """Run steps that do not count. On a CPU the first ones wait until the kernel provides memory."""
        for _ in range(steps):
            self.step()

    def time(self, give_back: bool) -> None:
        """Time one step. With `give_back`, first free unused memory and run a step that is not timed."""
        if give_back:
            give_back_freed_memory()
            self.step()
        self.seconds.append(timed(self.step, self.device))


def config_of(size: str, layers: int, family: str = "modernbert") -> PreTrainedConfig:
    """Return the config of a size of a family, with fewer layers if `layers` is not 0.

    Of other families than ModernBERT there is the base size alone, which is that of transformers' config.

    The time of a step is linear in the number of layers, so fewer serve where memory is too small for all.
    """
    keys = SIZES[size] if family == "modernbert" else WITHOUT_DROPOUT
    return AutoConfig.for_model(family, **keys | ({"num_hidden_layers": layers} if layers else {}))


def config_for(tokenizer: Tokenizer, size: str, layers: int, family: str) -> PreTrainedConfig:
    """Return the config of `config_of`, changed so that any tokenizer will do for other families."""
    config = config_of(size, layers, family)
    if family != "modernbert":
        config.vocab_size = max(config.vocab_size, tokenizer.vocab_size)
        config.pad_token_id = tokenizer.pad  # RoBERTa counts its positions from it
    return config


def make_ours(config: PreTrainedConfig, batch: peers.Batch, settings: dict[str, Any]) -> Competitor:
    """Return our network with the packed documents."""
    torch.manual_seed(0)
    network = ModernBertForPretraining(config, settings["backend"]).to(settings["device"]).train()
    network.causal = batch.causal
    network.model.half_residual = settings["residual"] == "bf16"
    if settings["compile"]:
        network.compile_layers()
    if settings["checkpointing"]:
        network.gradient_checkpointing_enable()
    inputs = batch.packed(settings["device"])
    return Competitor(network, [lambda: network(**inputs).loss], settings["precision"])


def make_theirs(
    ours: Competitor, batch: peers.Batch, options: dict[str, Any], settings: dict[str, Any]
) -> Competitor:
    """Return transformers' network with our weights and the padded documents."""
    network = peers.same_network(ours.network, settings["device"], options, settings["peer_attention"])
    if settings["compile"]:
        network.compile()
    parts = batch.padded(settings["device"], settings["peer_micro_batches"])

    def share_of_loss(inputs: dict[str, torch.Tensor], share: float) -> torch.Tensor:
        return network(**inputs).loss * share

    return Competitor(network, [partial(share_of_loss, *part) for part in parts], settings["precision"])


def make_batch(
    workload: str,
    case: str,
    papers: Path,
    tokenizer: Tokenizer,
    tokens: int,
    rows: int = 1,
    config: PreTrainedConfig | None = None,
) -> peers.Batch:
    """Return the documents of a workload with the inputs and labels of a case.

    Args:
        config: Config of the network, whose positions may be fewer than the tokens of a document.
    """
    objective, mask_rate, _ = CASES[case]
    documents = documents_of(workload, papers, tokenizer, tokens, rows)
    longest = None if config is None else architecture_of(config).longest
    documents = [document[:longest] for document in documents]
    return peers.Batch.make(documents, objective, mask_rate, tokenizer)


def run_case(
    workload: str, case: str, papers: Path, tokenizer: Tokenizer, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the measurements of one workload and one case."""
    config = config_for(tokenizer, settings["size"], settings["layers"], settings["family"])
    batch = make_batch(workload, case, papers, tokenizer, settings["tokens"], settings["rows"], config)
    options = CASES[case][2]
    ours = make_ours(config, batch, settings)
    theirs = make_theirs(ours, batch, options, settings) if settings["peer"] else None
    competitors = [ours] if theirs is None else [ours, theirs]
    for competitor in competitors:
        give_back_freed_memory()
        competitor.first_step()
        competitor.warm_up(settings["warm_up"])
    if theirs is not None:
        check_same_loss(ours, theirs)
    device, dtypes = settings["device"], DTYPES[settings["precision"]]
    peaks = []
    for _ in range(settings["rounds"]):
        peaks.append(gemm_peak(device, dtypes))
        for competitor in competitors:
            competitor.time(settings["give_back"])
    useful = flops_per_batch(config, batch.lengths, batch.predicted, batch.causal).total
    result = {
        "workload": workload,
        "case": case,
        "documents": len(batch.lengths),
        "tokens": batch.tokens,
        "padded_tokens": batch.padded_tokens,
        "flops": useful,
        "gemm_peak": statistics.median(peaks),
        "data_sheet_peak": data_sheet_peak(device),
        "ours": figures(ours, batch.tokens, useful, peaks),
    }
    if theirs is not None:
        pairs = zip(ours.seconds, theirs.seconds, strict=True)
        result["theirs"] = figures(theirs, batch.tokens, useful, peaks)
        result["ratio"] = statistics.median(their / our for our, their in pairs)
    return result


def check_same_loss(ours: Competitor, theirs: Competitor) -> None:
    """Exit if the two networks do not compute the same loss."""
    one, other = float(ours.loss), float(theirs.loss)
    if abs(one - other) > (1e-4 if ours.precision == "fp32" else 3e-2) * abs(other):
        raise SystemExit(f"The losses differ, so times cannot be compared: ours {one}, transformers {other}.")


def figures(competitor: Competitor, tokens: int, flops: int, peaks: list[float]) -> dict[str, Any]:
    """Return the medians over the rounds."""
    speeds = [flops / seconds for seconds in competitor.seconds]
    return {
        "seconds": competitor.seconds,
        "tokens_per_second": tokens / statistics.median(competitor.seconds),
        "flops_per_second": statistics.median(speeds),
        "of_gemm_peak": statistics.median(s / p for s, p in zip(speeds, peaks, strict=True)),
        "state_bytes": competitor.state_bytes,
        "step_bytes": competitor.peak_bytes,
    }


def mfu(result: dict[str, Any], whose: str) -> str:
    """Return the model FLOPs utilization by the GPU's data sheet; empty on a CPU."""
    sheet = result["data_sheet_peak"]
    return f"{result[whose]['flops_per_second'] / sheet:.1%}" if sheet else ""


def show(results: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Print a table of results."""
    title = ", ".join(f"{key} {value}" for key, value in settings.items())
    columns = "workload, case, documents, tokens (padded), network, tokens/s, ratio, GEMM peak, MFU, memory"
    table = Table(*columns.split(", "), title=title)
    for result in results:
        for whose in ("ours", "theirs") if "theirs" in result else ("ours",):
            found = result[whose]
            table.add_row(
                result["workload"],
                result["case"],
                str(result["documents"]),
                f"{result['tokens']} ({result['padded_tokens']})",
                whose,
                f"{found['tokens_per_second']:.0f}",
                f"{result['ratio']:.2f}" if whose == "ours" and "ratio" in result else "",
                f"{found['of_gemm_peak']:.0%}",
                mfu(result, whose),
                f"{(found['state_bytes'] + found['step_bytes']) / 2**30:.1f} GiB",
            )
    console.print(table)


def main(
    papers: Papers,
    tokenizer: TokenizerFolder = "answerdotai/ModernBERT-base",
    size: str = "base",
    family: Annotated[str, typer.Option(help="modernbert, bert or roberta.")] = "modernbert",
    layers: Layers = 0,
    workloads: str = "abstracts,document,packed",
    cases: str = "mlm15,mlm15-sparse,clm",
    tokens: Annotated[int, typer.Option(help="Tokens of a row, or of a document.")] = 8192,
    rows: Annotated[int, typer.Option(help="Rows in a batch; a GPU takes several.")] = 1,
    precision: str = "bf16",
    residual: Annotated[
        str, typer.Option(help="Residual stream of ours under bf16, as train.residual.")
    ] = "bf16",
    rounds: int = 3,
    warm_up: Annotated[int, typer.Option(help="Steps before the first one that counts.")] = 2,
    backend: Annotated[str, typer.Option(help="Attention back end of our network.")] = "auto",
    compile: Annotated[bool, typer.Option(help="Compile both networks.")] = False,
    checkpointing: Annotated[bool, typer.Option(help="Use activation checkpointing in our network.")] = False,
    keep_memory: Annotated[bool, typer.Option(help="Keep freed memory, as our trainer does.")] = True,
    peer: Annotated[bool, typer.Option(help="Measure transformers too.")] = True,
    peer_micro_batches: Annotated[int, typer.Option(help="Micro-batches of transformers' padded rows.")] = 1,
    peer_attention: Annotated[
        str | None, typer.Option(help="sdpa or flash_attention_2; default: the latter where installed.")
    ] = None,
    give_back: Annotated[
        bool, typer.Option(help="Free unused memory between turns, if both networks do not fit into it.")
    ] = False,
    name: ResultName = "train-step",
) -> None:
    """Measure, print the table, and write it to benchmarks/results."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if keep_memory:
        keep_freed_memory()
    settings = {
        "size": size, "family": family, "layers": layers, "tokens": tokens, "rows": rows,
        "precision": precision, "residual": residual if precision == "bf16" else precision,
        "device": device, "backend": backend, "compile": compile, "checkpointing": checkpointing,
        "keep_memory": keep_memory, "give_back": give_back, "peer": peer,
        "peer_micro_batches": peer_micro_batches, "peer_attention": peer_attention, "rounds": rounds,
        "warm_up": warm_up,
    }  # fmt: skip
    shown = {**settings, "device": str(device), "threads": torch.get_num_threads()}
    known = load_tokenizer(tokenizer)
    results: list[dict[str, Any]] = []
    for workload, case in itertools.product(workloads.split(","), cases.split(",")):
        results.append(run_case(workload, case, papers, known, settings))
        show(results[-1:], settings)
        if name:  # written after each case, since a later one may run out of memory
            written = record(name, {"settings": shown, "cases": results})
    show(results, settings)
    if name:
        console.print(f"Wrote {written}")


if __name__ == "__main__":
    typer.run(main)
