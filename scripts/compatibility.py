"""Check that this package and other releases of transformers read each other's folders, with equal logits.

    python scripts/compatibility.py [VERSION ...]    # 4.48.3, "4.*" (the newest 4), installed, ...

Each release is installed into its own environment under build/compatibility (about 100 MB), which otherwise
uses the packages that are installed here. A process in that environment saves tiny models with random weights
and their logits in fp32, and reads what was saved here. What it saved is then read here. A release takes half
a minute and needs the package index.
"""

from __future__ import annotations

import argparse
import os
import site
import subprocess
import sys
import tempfile
import textwrap
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich
import torch
import transformers
from rich.table import Table
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from clm_detour.model import ModernBertForPretraining
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.files import read_json, write_json
from clm_detour.utils.progress import progress

VERSIONS = ("4.48.3", "4.*", "installed", "5.*")
ENVIRONMENTS = Path(__file__).parents[1] / "build" / "compatibility"
TOLERANCE = 1e-5  # largest difference between logits, divided by the largest logit
VERSION_5 = int(transformers.__version__.split(".")[0]) >= 5

SIZE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4,
    "num_attention_heads": 2, "local_attention": 8, "pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1,
    "eos_token_id": 2, "sep_token_id": 2,
}  # fmt: skip
BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "decoder_bias")
# No case has only global layers: transformers 5.0 to 5.12 cannot build such a ModernBERT, or save a folder
# that later releases do not read.
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": dict.fromkeys(BIASES, True),
    "untied": {"tie_word_embeddings": False, "decoder_bias": False},
    "windows": {"local_attention": 12, "global_attn_every_n_layers": 2},
    "one global": {"global_attn_every_n_layers": 4},
    "thetas": {"global_rope_theta": 700.0, "local_rope_theta": 50.0},
}
if not VERSION_5:  # only release 4 reads None as "the theta of global layers"
    CASES["one theta"] = {"global_rope_theta": 700.0, "local_rope_theta": None}

Reader = Callable[[Path], Any]
Check = dict[str, str]  # case -> the problem, or ""
CHECKS: dict[str, tuple[str, Reader]] = {
    "theirs in ours": ("theirs", ModernBertForPretraining.from_pretrained),
    "ours in theirs": ("ours", AutoModelForMaskedLM.from_pretrained),
    "our decoder in theirs": ("decoder", AutoModelForCausalLM.from_pretrained),
}


def write(folder: Path) -> None:
    """Save every case with transformers' class, with ours and, under transformers 5, with our decoder."""
    for case, keys in CASES.items():
        theirs, ours = (
            randomised(network(ModernBertConfig(**{**SIZE, **keys})), seed)
            for seed, network in enumerate((ModernBertForMaskedLM, ModernBertForPretraining))
        )
        save(theirs, logits(theirs), folder / "theirs" / case)
        save(ours, logits(ours), folder / "ours" / case)
        if VERSION_5:
            ours.causal = True
            save(ours.to_decoder(), logits(ours), folder / "decoder" / case)


def save(model: Any, expected: torch.Tensor, folder: Path) -> None:
    """Write the folder of a model, and the expected logits next to it."""
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    save_file({"logits": expected}, f"{folder}.safetensors")


def read(folder: Path) -> dict[str, Check]:
    """Load what `write` wrote, here or in another environment, and compare the logits."""
    return {
        check: {case: compare(reader, folder / writer / case) for case in cases_in(folder / writer)}
        for check, (writer, reader) in CHECKS.items()
        if (folder / writer).is_dir() and (VERSION_5 or writer != "decoder")
    }


def cases_in(folder: Path) -> list[str]:
    """Return the cases of a folder. They depend on the release that wrote it."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def compare(reader: Reader, folder: Path) -> str:
    """Return the problem with a saved model, or an empty string."""
    expected = load_file(f"{folder}.safetensors")["logits"]
    try:
        actual = logits(reader(folder).eval())
    except Exception as error:  # any error is the result of this check
        return textwrap.shorten(f"{type(error).__name__}: {error}", 400)
    difference = ((actual - expected).abs().max() / expected.abs().max()).item()
    return "" if difference <= TOLERANCE else f"the logits differ by {difference:.1e}"


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Return the logits of two rows, of which the second is padded, without those of padding."""
    ids = torch.randint(3, SIZE["vocab_size"], (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, 25:], mask[1, 25:] = SIZE["pad_token_id"], 0
    return model(input_ids=ids, attention_mask=mask).logits[mask.bool()]


@torch.no_grad()
def randomised(model: Any, seed: int) -> Any:
    """Give a model random weights that are large enough for each one to change the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(1 + 0.1 * noise if "norm.weight" in name else 0.2 * noise)
    return model.eval()


def python_with(version: str) -> str:
    """Return a Python that uses the packages installed here, except for this release of transformers.

    Raises:
        UserError: If pip cannot install the release.
    """
    if version == "installed":
        return sys.executable
    folder = ENVIRONMENTS / version.replace("*", "newest")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = "; ".join(f"site.addsitedir({path!r})" for path in site.getsitepackages())
    (packages / "here.pth").write_text(f"import site; {here}\n")
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--upgrade"]
    done = subprocess.run([*pip, f"transformers=={version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"pip cannot install transformers=={version} ({last_line(done.stderr)}); check the version and "
            "the network."
        )
    return python


def last_line(text: str) -> str:
    """Return the last line of a text, in which pip and Python name the error."""
    return textwrap.shorten((text.strip().splitlines() or ["no message"])[-1], 400)


def check_version(version: str, here: Path, folder: Path) -> tuple[str, dict[str, dict[str, Check]]]:
    """Exchange folders with a release of transformers.

    Args:
        here: Folder that `write` wrote in this process.

    Returns:
        Number of the release, and the problems by direction, check and case.
    """
    there, report = folder / "there", folder / "report.json"
    command = [python_with(version), __file__, "--exchange", str(here), str(there), str(report)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        problem = {"process": last_line(done.stderr)}
        return version, {"there": dict.fromkeys(CHECKS, problem)}
    answer = read_json(report)
    return answer["version"], {**answer["directions"], "there → here": read(there)}


def exchange(here: Path, there: Path, report: Path) -> None:
    """Write folders and read those of `here`; runs in the process with the other release."""
    write(there)
    directions = {"there → there": read(there), "here → there": read(here)}
    write_json(report, {"version": transformers.__version__, "directions": directions})


def show(results: dict[str, dict[str, dict[str, Check]]]) -> bool:
    """Print a table of results and each failure in full, and return whether every check passed."""
    table = Table(title=f"Folders and logits; `here` is transformers {transformers.__version__}")
    for heading in ("transformers", "saved → read", *CHECKS):
        table.add_column(heading, no_wrap=heading == "saved → read")
    failures = []
    for version, directions in results.items():
        for direction, checks in directions.items():
            bad = {check: [case for case, problem in checks[check].items() if problem] for check in checks}
            cells = {check: "failed: " + ", ".join(cases) if cases else "ok" for check, cases in bad.items()}
            table.add_row(version, direction, *(cells.get(check, "-") for check in CHECKS))
            failures += [
                f"{version}, {direction}, {check}, {case}: {checks[check][case]}"
                for check, cases in bad.items()
                for case in cases
            ]
    rich.print(table)
    for failure in failures:
        print(failure)
    return not failures


def main() -> None:
    """Check the releases that the command line names, and exit with 1 if a check fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", metavar="VERSION", default=VERSIONS)
    parser.add_argument("--exchange", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.exchange:
        return exchange(*arguments.exchange)
    transformers.utils.logging.disable_progress_bar()
    results = {}
    with exit_on_user_error(), tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary, "here")
        write(here)
        with progress("compatibility", len(arguments.versions), "releases") as advance:
            for number, wanted in enumerate(arguments.versions):
                version, directions = check_version(wanted, here, Path(temporary, str(number)))
                results[version] = directions
                advance(1, note=version)
    sys.exit(0 if show(results) else 1)


if __name__ == "__main__":
    main()
