"""Convert tokenizers that come without `tokenizer.json`, such as the `vocab.txt` of a BERT."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from transformers import AutoTokenizer

from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_folder, cache_folder

OLDER = ("vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json")


def converted(path_or_hub_id: str) -> Path | None:
    """Return a folder in the user's cache with the `tokenizer.json` that transformers makes of older files.

    Returns None for a folder that holds none of `OLDER`.

    Raises:
        UserError: If transformers cannot convert them.
    """
    place = Path(path_or_hub_id).expanduser()
    files = [place / name for name in OLDER if (place / name).is_file()]
    if place.is_dir() and not files:
        return None
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = sha256(f"{place.resolve() if files else path_or_hub_id} {stamps}".encode()).hexdigest()[:16]
    folder = cache_folder() / "tokenizers" / f"{place.name}-{key}"
    if not folder.exists():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path_or_hub_id, use_fast=True)
            fast = tokenizer.is_fast and len(tokenizer) > len(tokenizer.all_special_tokens)
        except Exception as error:  # its type differs between releases and tokenizers
            raise UserError(
                f"{path_or_hub_id} has no tokenizer.json, and transformers cannot make one of its files "
                f"({on_one_line(error)}); name another tokenizer (tokenizer.path)."
            ) from None
        if not fast:
            return None
        with atomic_folder(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return folder
