"""The readers of all formats, and the units of a source.

A new reader is a module with `units` and `records`, an entry here, and an entry in `formats.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from clm_detour.config.expressions.formats import guess
from clm_detour.config.schema import Source
from clm_detour.data.sources import arrow, delimited, hub, jsonl, parquet, pubmed, text
from clm_detour.data.sources.files import list_files
from clm_detour.data.sources.records import BadRecord, Reader, Record, Unit

READERS: dict[str, Reader] = {
    "jsonl": jsonl,
    "parquet": parquet,
    "csv": delimited,
    "tsv": delimited,
    "text": text,
    "pubmed": pubmed,
    "arrow": arrow,
    "hub": hub,
}


def units(source: Source) -> list[Unit]:
    """Return the parts of a source in their order, which is the same every time.

    Raises:
        UserError: If there are none.
    """
    if source.format == "hub":
        return READERS["hub"].units(source.path, "hub", source)
    found = []
    for file in list_files(source.path, source.format, source.split):
        format = source.format or guess(file)
        assert format is not None
        found += READERS[format].units(file, format, source)
    return found


def until_lost(unit: Unit, records: Iterator[Record | BadRecord]) -> Iterator[Record | BadRecord]:
    """Yield a reader's records. A BadRecord that it raises, after which its unit cannot be read, becomes the
    last one.
    """
    any_record = False
    try:
        for record in records:
            any_record = True
            yield record
    except BadRecord as error:
        error.whole_file |= unit.start == 0 and not any_record
        yield error
