"""Training a tokenizer of ModernBERT's form on the texts of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from clm_detour.data.tokenizer import CONFIG_FILES, frame_template, read_object
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write, write_json

TRAINED = {
    role: f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")
}  # in ModernBERT's order
SMALLEST_VOCABULARY = 256 + len(TRAINED)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, folder: Path, max_length: int | None = None
) -> None:
    """Train a byte-level BPE tokenizer of ModernBERT's form, for `AutoTokenizer.from_pretrained(folder)`.

    The vocabulary is smaller than `vocab_size` if the texts do not have enough pairs to merge.

    Args:
        max_length: Tokens of the longest text that the model is trained on, written as `model_max_length`.

    Raises:
        UserError: If the vocabulary is too small for all bytes, there is no text, or the folder cannot be
            written.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"A vocabulary of {vocab_size} is too small: byte-level BPE needs {SMALLEST_VOCABULARY} or more."
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [
        AddedToken(token, special=True, lstrip=role == "mask", normalized=False)
        for role, token in TRAINED.items()
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_at_least_one(texts), trainer)
    cls, sep, ids = TRAINED["cls"], TRAINED["sep"], tokenizer.get_vocab()
    tokenizer.post_processor = frame_template(cls, ids[cls], sep, ids[sep])
    names = {f"{role}_token": token for role, token in TRAINED.items()}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    length = {} if max_length is None else {"model_max_length": max_length}
    write_json(folder / CONFIG_FILES[0], {**config, **names, "clean_up_tokenization_spaces": False, **length})
    write_json(folder / CONFIG_FILES[1], names)
    with atomic_write(folder / "tokenizer.json", "w") as file:  # last: where it is, the folder is whole
        file.write(tokenizer.to_str(pretty=True))


def set_max_length(folder: Path, max_length: int) -> None:
    """Write `model_max_length` into the configuration of a tokenizer that a run has trained, if it differs
    there.
    """
    config = read_object(folder / CONFIG_FILES[0])
    if config.get("model_max_length") != max_length:
        write_json(folder / CONFIG_FILES[0], {**config, "model_max_length": max_length})


def _at_least_one(texts: Iterable[str]) -> Iterable[str]:
    text = None
    for text in texts:
        yield text
    if text is None:
        raise UserError("There is no text to train a tokenizer on.")
