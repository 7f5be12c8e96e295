"""Documents: text streamed from files of many formats and from datasets of the hub, wherever fsspec can
reach.

A source is a file, a folder or a glob. Its files are read one after another in sorted order, one document at
a time, so memory does not grow with the corpus. A bad record either stops the run with one sentence that
names the file and the place, or, if asked for, is skipped and counted by its reason. Nothing disappears
uncounted, and no text of a document is ever part of a message.

    files.py, lines.py, columns.py      shared by the readers
    jsonl.py ... hub.py, readers.py     a reader for each format: `units` of a file, `records` of a unit
    selection.py                        record -> document: where, template, limits, decontamination, copies
    read.py                             units -> documents, and what needs the whole source: duplicates
"""

from clm_detour.data.sources.files import file_stamp, list_files
from clm_detour.data.sources.read import (
    OnError,
    check_first_record,
    chosen_settings,
    documents,
    read_documents,
    source_stamps,
)
from clm_detour.data.sources.readers import units
from clm_detour.data.sources.records import BadRecord, Record, Unit
from clm_detour.data.sources.selection import Document, Selection

__all__ = [
    "BadRecord",
    "Document",
    "OnError",
    "Record",
    "Selection",
    "Unit",
    "check_first_record",
    "chosen_settings",
    "documents",
    "file_stamp",
    "list_files",
    "read_documents",
    "source_stamps",
    "units",
]
