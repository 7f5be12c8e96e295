"""The tokenizer as the data stage needs it: ids of a text, special ids, and a fingerprint.

It is read from `tokenizer.json` by the `tokenizers` library alone, which gives the same ids in every release
of transformers. Special ids come from the tokenizer's own files.

Special tokens are handled alike in preparation, training, fine-tuning, mask filling and export:

- A text is framed by the two tokens that the tokenizer's own post-processor writes. If it writes none, these
  are the tokens that are named as [CLS] and [SEP], and an exported tokenizer writes them too.
- Text that merely spells a special token, for example "[MASK]", is ordinary text.
- No other token serves as the mask, and the padding token is not part of the frame.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from tokenizers import models, processors

from clm_detour.data.added_tokens import ADDED, AddedTokens, read_added
from clm_detour.data.objectives import Vocabulary
from clm_detour.data.older_tokenizer import converted
from clm_detour.data.word_marks import word_marks
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, write_json
from clm_detour.utils.hub import hub_reason

ROLES = ("cls", "sep", "pad", "mask", "unk")
EXAMPLE = "the patient had fever"
# Roles that must not share a token: the embedding of the padding token is never trained, and a mask must be
# distinguishable from tokens that are not masked.
APART = (("mask", "cls"), ("mask", "sep"), ("mask", "pad"), ("mask", "unk"), ("pad", "cls"), ("pad", "sep"))
USUAL_NAMES = {  # for a tokenizer.json that comes without a configuration
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}
CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json")
LONG_CHARACTERS = 2**20  # encoding takes about a hundred bytes a character
LONGEST_PIECE = 2**24
SINGLE_BLANK, AROUND, TRIES = re.compile(r"(?<=\S)\s(?=\S)"), 256, 1000


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with its special ids.

    Args:
        vocab_size: Largest id plus one.
        cls, sep: Ids before and after every text.
        special_ids: Ids of all special tokens, sorted. A text is never encoded to one of them, except `unk`.
        fingerprint: Hash of everything that decides a document's ids, which excludes truncation, padding and
            decoder.
        spelled: Special ids that the library gives to text that spells them (it does for SentencePiece's
            unigram models); `encode_batch` writes `unk` instead.
        added: Tokens that were added to it, if it was extended by this library.
    """

    tokenizer: tokenizers.Tokenizer
    vocab_size: int
    cls: int
    sep: int
    pad: int
    mask: int
    unk: int
    special_ids: tuple[int, ...]
    fingerprint: str
    spelled: tuple[int, ...] = ()
    added: AddedTokens = field(default_factory=AddedTokens, compare=False)

    @property
    def vocabulary(self) -> Vocabulary:
        """The part of the tokenizer that masking needs."""
        return Vocabulary(self.vocab_size, self.pad, self.mask, self.special_ids)

    @property
    def vocabulary_of_words(self) -> Vocabulary:
        """The part of the tokenizer that whole-word masking needs.

        Raises:
            UserError: If tokens do not show where a word begins.
        """
        words = word_marks(self.tokenizer, self.special_ids, self.unk, self.vocab_size)
        return replace(self.vocabulary, words=words)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the tokenizer in another process."""
        self.__dict__.update(state)
        self.tokenizer.encode_special_tokens = True  # its own state does not include it

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text as `[CLS] ... [SEP]`, not truncated: arrays of uint32.

        All cores are used, unless TOKENIZERS_PARALLELISM is false. A text of more than LONG_CHARACTERS is
        encoded in pieces, with the same ids.

        Raises:
            UserError: If a long text cannot be divided.
        """
        short = [text for text in texts if len(text) <= LONG_CHARACTERS]
        encodings = iter(self.tokenizer.encode_batch_fast(short, add_special_tokens=False))
        found = (
            next(encodings).ids if len(text) <= LONG_CHARACTERS else self._encode_long(text) for text in texts
        )
        return [self._framed(ids) for ids in found]

    def frame_example(self) -> str:
        """Return an example text in its frame, such as "[CLS] the patient had fever [SEP]"."""
        (ids,) = self.encode_batch([EXAMPLE])
        text = self.tokenizer.decode(ids[1:-1].tolist(), skip_special_tokens=False).strip()
        return f"{name_of(self.tokenizer, self.cls)} {text} {name_of(self.tokenizer, self.sep)}"

    def spells_special(self, text: str) -> bool:
        """Return whether a text contains a special token, in any case, as pipelines would read it."""
        folded = text.casefold()
        return any(name_of(self.tokenizer, special).casefold() in folded for special in self.special_ids)

    def _framed(self, ids: list[int] | array[int]) -> np.ndarray:
        if self.spelled:
            ids = [self.unk if id in self.spelled else id for id in ids]
        # `array` takes a list of ints twice as fast as numpy.
        return np.frombuffer(
            array("I", [self.cls]) + array("I", ids) + array("I", [self.sep]), dtype=np.uint32
        )

    def _encode_long(self, text: str) -> array[int]:
        cuts, ids = self.cuts(text), array("I")
        if cuts is None:
            raise UserError(f"A text of {len(text):,} characters cannot be tokenized in pieces.")
        for start, end in pairwise([0, *cuts, len(text)]):
            ids.fromlist(self.tokenizer.encode(text[start:end], add_special_tokens=False).ids)
        return ids

    def cuts(self, text: str) -> list[int] | None:
        """Return where to cut a long text into pieces with the same ids, or None if a piece is too long.

        A cut is before a single blank at which the text around it has the same ids as its two sides together.
        That holds for the whole text too if words are tokenized one by one. A tokenizer that does not divide
        texts into words first has no cuts.
        """
        cuts: list[int] = []
        last = 0
        if self.tokenizer.pre_tokenizer is None:
            return cuts if len(text) <= LONGEST_PIECE else None
        while len(text) - last > LONG_CHARACTERS:
            places = SINGLE_BLANK.finditer(text, last + LONG_CHARACTERS // 2, last + LONGEST_PIECE)
            cut = next(
                (place.start() for place in islice(places, TRIES) if self._can_cut(text, place.start())), None
            )
            if cut is None:
                return cuts if len(text) - last <= LONGEST_PIECE else None
            cuts.append(cut)
            last = cut
        return cuts

    def _can_cut(self, text: str, place: int) -> bool:
        before, after = text[place - AROUND : place], text[place : place + AROUND]
        parts = self.tokenizer.encode_batch_fast([before, after, before + after], add_special_tokens=False)
        left, right, whole = (part.ids for part in parts)
        return left + right == whole


def load_tokenizer(path_or_hub_id: str) -> Tokenizer:
    """Load a tokenizer: a folder with `tokenizer.json`, or a model on the Hugging Face hub.

    Raises:
        UserError: If there is none, it is not a fast one, it does not write one token before a text and one
            after it, or a special token that ModernBERT needs is missing or serves as another one too.
    """
    fetch = _fetcher(path_or_hub_id)
    file = fetch("tokenizer.json")
    if file is None:
        raise UserError(f"{path_or_hub_id} has no tokenizer.json: it needs a fast tokenizer.")
    spec = read_object(file)
    tokenizer = _build(spec, file)
    configs = [read_object(found) for found in map(fetch, CONFIG_FILES) if found is not None]
    names = {**_special_names(spec, configs), **_frame_names(path_or_hub_id, tokenizer)}
    ids = {role: _id_of_role(path_or_hub_id, tokenizer, role, names.get(role)) for role in ROLES}
    for one, other in APART:
        if ids[one] == ids[other]:
            raise UserError(
                f"The tokenizer {path_or_hub_id} uses {names[one]} as its {one} token and as its {other} "
                f"token, which must differ: add a token to tokenizer.json and name it as {one}_token in "
                f"{CONFIG_FILES[0]}."
            )
    special = {token["id"] for token in spec.get("added_tokens", ()) if token["special"]} | set(ids.values())
    return Tokenizer(
        tokenizer=tokenizer,
        vocab_size=max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1,
        special_ids=tuple(sorted(special)),
        fingerprint=_fingerprint(spec, ids["cls"], ids["sep"]),
        spelled=_spelled(tokenizer, special - {ids["unk"]}),
        added=read_added(fetch(ADDED)),
        **ids,
    )


def name_of(tokenizer: tokenizers.Tokenizer, id: int) -> str:
    """Return the token of an existing id."""
    return str(tokenizer.id_to_token(id))


def frame_of(plain: Sequence[int], framed: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Return the ids that a tokenizer writes before and after a text, or None if it does something else.

    Args:
        plain: The ids of a text without special tokens.
        framed: The ids of the same text with them.
    """
    for before in range(len(framed) - len(plain) + 1):
        after = before + len(plain)
        if list(framed[before:after]) == list(plain):
            return list(framed[:before]), list(framed[after:])
    return None


def _frame_names(path_or_hub_id: str, tokenizer: tokenizers.Tokenizer) -> dict[str, str]:
    """Return the tokens that the post-processor writes around a text, as cls and sep, if any.

    Raises:
        UserError: If it writes anything other than one token before a text and one after it.
    """
    plain, framed = (tokenizer.encode(EXAMPLE, add_special_tokens=add).ids for add in (False, True))
    before, after = frame_of(plain, framed) or ([], [])
    if plain == framed:
        return {}
    if len(before) != 1 or len(after) != 1:
        written = " ".join(name_of(tokenizer, id) for id in framed)
        raise UserError(
            f'The tokenizer {path_or_hub_id} writes a text as "{written}", but training needs one special '
            "token before a text and one after it: give its tokenizer.json a post_processor of the type "
            'TemplateProcessing, like "[CLS] $A [SEP]".'
        )
    return {"cls": name_of(tokenizer, before[0]), "sep": name_of(tokenizer, after[0])}


def _id_of_role(path_or_hub_id: str, tokenizer: tokenizers.Tokenizer, role: str, name: str | None) -> int:
    if name is None:
        raise UserError(f"The tokenizer {path_or_hub_id} has no {role} token: name one in {CONFIG_FILES[0]}.")
    id = tokenizer.token_to_id(name)
    if id is None:
        raise UserError(
            f"The tokenizer {path_or_hub_id} has no {role} token {name} in its tokenizer.json, though "
            f"{CONFIG_FILES[0]} or {CONFIG_FILES[1]} names it: add it to tokenizer.json, or name one that is "
            "there."
        )
    return int(id)


def _spelled(tokenizer: tokenizers.Tokenizer, special: set[int]) -> tuple[int, ...]:
    names = [name_of(tokenizer, id) for id in special]
    texts = [*names, *(f"a {name}" for name in names)]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return tuple(sorted(special.intersection(id for encoding in encodings for id in encoding.ids)))


def copy_tokenizer(path_or_hub_id: str, folder: Path) -> None:
    """Copy a tokenizer's files, byte for byte, into a model's folder.

    If the tokenizer writes no special tokens around a text, the copy writes those of training, so that the
    model's users have them.

    Raises:
        UserError: If there is no tokenizer.
    """
    fetch = _fetcher(path_or_hub_id)
    for name in ("tokenizer.json", *CONFIG_FILES):
        if (file := fetch(name)) is not None:
            shutil.copyfile(file, folder / name)
    file = folder / "tokenizer.json"
    if file.is_file() and (template := _missing_template(path_or_hub_id, file)) is not None:
        write_json(file, {**read_object(file), "post_processor": template})


def _missing_template(path_or_hub_id: str, file: Path) -> dict[str, Any] | None:
    """Return the post-processor that writes the frame of training, or None if there is a frame."""
    spec = read_object(file)
    if _frame_names(path_or_hub_id, _build(spec, file)):
        return None
    loaded = load_tokenizer(path_or_hub_id)
    cls, sep = (name_of(loaded.tokenizer, id) for id in (loaded.cls, loaded.sep))
    bare = tokenizers.Tokenizer(models.BPE())
    bare.post_processor = frame_template(cls, loaded.cls, sep, loaded.sep)
    template: dict[str, Any] = json.loads(bare.to_str())["post_processor"]
    before = spec.get("post_processor")
    return template if before is None else {"type": "Sequence", "processors": [before, template]}


def frame_template(cls: str, cls_id: int, sep: str, sep_id: int) -> processors.TemplateProcessing:
    """Return a post-processor that writes one token before a text and one after it."""
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )


def _fetcher(path_or_hub_id: str) -> Callable[[str], Path | None]:
    """Return a function from a file's name to its path, or to None if there is no such file.

    Older files of a tokenizer are converted first.
    """
    fetch = _plain_fetcher(path_or_hub_id)
    if fetch("tokenizer.json") is None and (folder := converted(path_or_hub_id)) is not None:
        return _plain_fetcher(str(folder))
    return fetch


def _plain_fetcher(path_or_hub_id: str) -> Callable[[str], Path | None]:
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        return lambda name: folder / name if (folder / name).is_file() else None

    def fetch(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(path_or_hub_id, name))
        except (EntryNotFoundError, OSError, HFValidationError) as error:
            reached = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if reached or name in (*CONFIG_FILES, ADDED):
                return None
            raise UserError(
                f"The tokenizer {path_or_hub_id} is not a folder here and could not be fetched from the "
                f"Hugging Face hub ({hub_reason(error)}): check the name, the connection and your login."
            ) from error

    return fetch


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a tokenizer's file.

    Raises:
        UserError: If the file cannot be read, or holds something else.
    """
    value = read_json(file)
    if not isinstance(value, dict):
        raise UserError(f"{file} is not a JSON object, so not a tokenizer's file.")
    return value


def _build(spec: dict[str, Any], file: Path) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the library raises nothing more precise
        raise UserError(
            f"{file} is not a tokenizer that tokenizers {tokenizers.__version__} can read."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[MASK]" in a text is text
    return tokenizer


def _special_names(spec: dict[str, Any], configs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the token of each role, from the first configuration that names it or by its usual name."""
    special = [token["content"] for token in spec.get("added_tokens", ()) if token["special"]]
    names = {}
    for role in ROLES:
        named = [config[f"{role}_token"] for config in configs if config.get(f"{role}_token")]
        contents = [token["content"] if isinstance(token, dict) else token for token in named]
        usual = [name for name in USUAL_NAMES[role] if name in special]
        if contents or usual:
            names[role] = (contents or usual)[0]
    return names


def _fingerprint(spec: dict[str, Any], cls: int, sep: int) -> str:
    model = {key: value for key, value in spec["model"].items() if value is not None and value is not False}
    if "merges" in model:  # written "a b" by older releases, ["a", "b"] by newer ones
        model["merges"] = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    kept: dict[str, Any] = {key: spec.get(key) for key in ("normalizer", "pre_tokenizer", "added_tokens")}
    canonical = json.dumps({**kept, "model": model, "frame": [cls, sep]}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
