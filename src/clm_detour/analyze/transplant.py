"""Put parts of one model into another, to see which part carries the difference: `transplant.json`.

donor, recipient    folders
texts, max_tokens   number of texts on which the masked loss was measured, and their length
loss                {donor, recipient}: nats per masked token
gap, gap_interval   recipient - donor; [low, high], 95 % over texts
transplants         [{name, layers ([first, last]), part, loss, closed, interval}...]
                    closed: share of the gap that the transplant closes, (recipient - transplant) /
                    (recipient - donor), with its interval; null without a gap
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from clm_detour.analyze.cka import half_samples, interval
from clm_detour.analyze.show import percent
from clm_detour.analyze.weights import layer_and_kind
from clm_detour.config.units import layer_thirds, parse_layers
from clm_detour.measure.encoder import check_fills_masks
from clm_detour.measure.scorer import masked_loss, open_masked, readable
from clm_detour.model import ModernBertForPretraining, hf
from clm_detour.recipe.export import write_model
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import finite
from clm_detour.utils.progress import progress

FOLDS = 20  # parts of the texts, of which random halves give the intervals
HALVES = 200
PARTS = ("all", "attention", "mlp")


class Graft(NamedTuple):
    """The part that is transplanted: layers, whole or only their attention or MLP with the norm before it."""

    name: str
    first: int
    last: int
    part: str = "all"

    def takes(self, weight: str) -> bool:
        """Return whether a weight comes from the donor."""
        layer, kind = layer_and_kind(weight)
        if not layer.isdigit() or not self.first <= int(layer) <= self.last:
            return False
        if kind == "norms":
            kind = "attention" if "attn_norm" in weight else "mlp"
        return self.part in ("all", kind)


def standard_grafts(layers: int) -> list[Graft]:
    """Return the paper's transplants: thirds of the layers, all attention, all MLPs, and all layers."""
    last = layers - 1
    by_third = [Graft(name, *span) for name, span in layer_thirds(layers).items()]
    return [
        *by_third,
        Graft("attention", 0, last, "attention"),
        Graft("mlp", 0, last, "mlp"),
        Graft("layers", 0, last),
    ]


def chosen_graft(recipient: str, layers: str | None, part: str) -> Graft:
    """Return the transplant that a command line describes, checked against the config of the recipient.

    Raises:
        UserError: If there are no such layers or part, or the recipient is not a ModernBERT.
    """
    if part not in PARTS:
        raise UserError(f"--part {part!r} is not known; use one of {', '.join(PARTS)}.")
    count = hf.read_config(hf.fetch(recipient)).num_hidden_layers
    chosen = range(count) if layers is None else parse_layers(layers, "--layers", count)
    first, last = min(chosen), max(chosen)
    if len(chosen) != last - first + 1:
        raise UserError(f"--layers: {layers} has gaps; give one range, like {first}-{last}.")
    return Graft("chosen", first, last, part)


def transplant(
    donor: ModernBertForPretraining, recipient: ModernBertForPretraining, graft: Graft
) -> dict[str, Tensor]:
    """Return the weights of the recipient, with those of the donor for the graft. No tensor is copied.

    Raises:
        UserError: If the models differ in the shape of a weight.
    """
    theirs, ours = donor.state_dict(), recipient.state_dict()
    if {name: w.shape for name, w in theirs.items()} != {name: w.shape for name, w in ours.items()}:
        raise UserError(
            "Donor and recipient do not have the same weights; take two checkpoints of one model."
        )
    return {name: (theirs if graft.takes(name) else ours)[name] for name in ours}


def write_transplant(donor: str, recipient: str, graft: Graft, folder: Path) -> None:
    """Write the recipient with its graft as a Hugging Face folder that records where it comes from."""
    check_fills_masks(recipient)
    network = ModernBertForPretraining.from_pretrained(recipient)  # with its own mask
    network.load_state_dict(transplant(open_masked(donor)[0], network, graft))
    about = {"transplant": {"donor": donor, "recipient": recipient, **graft._asdict()}}
    write_model(network, recipient, folder, about)


def try_grafts(
    donor: str, recipient: str, grafts: Sequence[Graft] | None, texts: Sequence[str], max_tokens: int = 512
) -> dict[str, Any]:
    """Measure the masked loss of donor, recipient and transplants. See the module for the result.

    Args:
        donor, recipient: Folders or hub ids.
        grafts: The transplants. None means `standard_grafts`.
        texts: Texts.
        max_tokens: Length at which texts are cut.

    Raises:
        UserError: If there are too few texts, or the models differ in shape or tokenizer.
    """
    source, tokenizer = open_masked(donor)
    target, other_tokenizer = open_masked(recipient)
    if tokenizer.fingerprint != other_tokenizer.fingerprint:
        raise UserError(
            f"{donor} and {recipient} have different tokenizers; a transplant between them means nothing."
        )
    max_tokens = readable(target, max_tokens)
    grafts = standard_grafts(target.config.num_hidden_layers) if grafts is None else grafts
    grafted_network = copy.deepcopy(target)  # one model for all grafts
    weights = {graft: transplant(source, target, graft) for graft in grafts}

    with progress("Masked loss", 2 + len(grafts), "models") as advance:

        def losses_of(network: ModernBertForPretraining) -> Tensor:
            sums = masked_loss(network, tokenizer, texts, max_tokens, folds=min(FOLDS, len(texts)))
            advance(1)
            return _over_halves(sums)

        of_donor, of_recipient = losses_of(source), losses_of(target)
        gap = of_recipient - of_donor
        found = []
        for graft, state in weights.items():
            grafted_network.load_state_dict(state)
            grafted = losses_of(grafted_network)
            closed, bounds = _with_interval((of_recipient - grafted) / gap)
            found.append(
                {
                    "name": graft.name,
                    "layers": [graft.first, graft.last],
                    "part": graft.part,
                    "loss": float(grafted[0]),
                    "closed": closed,
                    "interval": bounds,
                }
            )
    value, bounds = _with_interval(gap)
    return finite(
        {
            "donor": donor,
            "recipient": recipient,
            "texts": len(texts),
            "max_tokens": max_tokens,
            "loss": {"donor": float(of_donor[0]), "recipient": float(of_recipient[0])},
            "gap": value,
            "gap_interval": bounds,
            "transplants": found,
        }
    )


def _over_halves(sums: Tensor) -> Tensor:
    """Return the loss per token on all folds, (folds, 2), and on half-samples of them, (1 + R,).

    Raises:
        UserError: If a half has no masked token, so that there is no interval.
    """
    weights = torch.cat([torch.ones(1, len(sums), dtype=torch.float64), half_samples(len(sums), HALVES, 0)])
    totals = weights @ sums
    if not totals[:, 1].all():
        raise UserError(
            "The texts are too few: an interval comes from halves of them, and one half has no masked "
            "token; give more texts (--texts, --count)."
        )
    return totals[:, 0] / totals[:, 1]


def _with_interval(values: Tensor) -> tuple[float, list[float]]:
    """Return a number and its interval, given its values on everything and on half-samples, (1 + R,)."""
    return float(values[0]), interval(values[0], values[1:]).tolist()


def transplant_table(result: dict[str, Any]) -> Table:
    """Return a table with a row for each transplant."""
    low, high = result["gap_interval"]
    title = f"Masked loss after transplants; gap {result['gap']:.3f} ({low:.3f} to {high:.3f})"
    remark = ": none to speak of" if low <= 0 <= high else ": the donor is the worse one" if high < 0 else ""
    table = Table(title=title + remark)
    for column in ("transplant", "layers", "part", "loss", "gap closed (%)"):
        table.add_column(column, justify="right")
    for name, loss in result["loss"].items():
        table.add_row(name, "", "", f"{loss:.3f}", "")
    for item in result["transplants"]:
        layers, closed = "{}-{}".format(*item["layers"]), percent(item["closed"], item["interval"])
        table.add_row(item["name"], layers, item["part"], f"{item['loss']:.3f}", closed)
    return table
