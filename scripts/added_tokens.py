"""Print how many tokens per word `tokenizer.add` saves on each corpus of a folder.

    python scripts/added_tokens.py --tokenizer TOKENIZER --corpus DIR --tokens 83 --tokens 1024

Each corpus (a file of JSON lines with the field "text", possibly compressed) gets tokens of its own, chosen
on nine of ten documents. Tokens per word are measured on the tenth; words are divided by white space.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from clm_detour.data.extend_tokenizer import extend_tokenizer
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer


def main(
    tokenizer: Annotated[str, typer.Option(help="Folder or hub id of the tokenizer.")],
    corpus: Annotated[Path, typer.Option(help="Folder of corpora.")],
    tokens: Annotated[list[int], typer.Option(help="Numbers of tokens to add.")],
    documents: Annotated[int, typer.Option(help="Documents read of each corpus.")] = 3000,
) -> None:
    """Print a line for each corpus, as soon as it is measured."""
    before = load_tokenizer(tokenizer)
    print("corpus", "tokens per word", *(f"with {count:,} more" for count in tokens), "the first", sep=" | ")
    for file in sorted(corpus.glob("*.jsonl*")):
        texts = list(islice(read_documents(str(file)), documents))
        chosen, measured = [text for i, text in enumerate(texts) if i % 10], texts[::10]
        old, cells, names = tokens_per_word(before, measured), [], ""
        for count in tokens:
            with tempfile.TemporaryDirectory() as folder:
                added = extend_tokenizer(tokenizer, Path(folder), chosen, count)
                after = load_tokenizer(folder)
            new = tokens_per_word(after, measured)
            cells.append(f"{new:.3f} ({new / old - 1:+.1%})")
            names = ", ".join(after.tokenizer.decode([id]).strip() for id in islice(added.pieces, 4))
        print(file.name.partition(".")[0], f"{old:.3f}", *cells, names, sep=" | ", flush=True)


def tokens_per_word(tokenizer: Tokenizer, texts: list[str]) -> float:
    """Return the number of tokens, without those around a text, for each word."""
    tokens = sum(len(ids) - 2 for ids in tokenizer.encode_batch(texts))
    return tokens / sum(len(text.split()) for text in texts)


if __name__ == "__main__":
    typer.run(main)
