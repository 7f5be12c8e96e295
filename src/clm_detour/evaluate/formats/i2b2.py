"""The XML of i2b2 and n2c2.

2014: one note in each file, with character offsets in `TAGS` into `TEXT` (Stubbs and Uzuner 2015, track 1).
2006: several `RECORD`s in one file, with `<PHI TYPE="DATE">` around annotated words in `TEXT` (Uzuner et al.
2007). Both are implemented from these descriptions and from published readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from clm_detour.evaluate.formats.format import Annotation, Example, Files, Format
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class I2b2(Format):
    """XML files of 2006 or 2014.

    Args:
        attribute: Attribute of a tag that names the entity type; without it, the tag's own name is the type.
    """

    files: Files = "{split}/*.xml"
    attribute: str = "TYPE"

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each note."""
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise UserError(f"{file} line {error.position[0]} is not valid XML ({error}).") from None
        records = list(root.iter("RECORD"))
        notes = (self.record(file, one) for one in records) if records else iter([self.note(file, root)])
        for note in notes:
            if not note.text.strip():
                raise UserError(f"{note.place} has no text; get the data set again.")
            yield note

    def note(self, file: Path, root: ElementTree.Element) -> Example:
        """Return the note of a file of 2014."""
        found = [
            Annotation(
                tag.get(self.attribute, tag.tag), (offsets(file, tag),), place(file, tag), tag.get("text")
            )
            for tag in root.iterfind("TAGS/*")
        ]
        return Example(file.stem, root.findtext("TEXT") or "", str(file), annotations=tuple(found))

    def record(self, file: Path, record: ElementTree.Element) -> Example:
        """Return a record of 2006; its text is the text between and inside the tags."""
        id = record.get("ID", "")
        body = record.find("TEXT")
        text, found, nested = (body.text or "") if body is not None else "", [], 0
        for tag in body if body is not None else ():
            inside = "".join(tag.itertext())
            nested += sum(one.tag == "PHI" for one in tag.iter() if one is not tag)
            if tag.tag == "PHI":
                span = (len(text), len(text) + len(inside))
                found.append(Annotation(tag.get(self.attribute, tag.tag), (span,), f"{file} record {id}"))
            text += inside + (tag.tail or "")
        left_out = ("annotations inside another tag",) * nested
        return Example(id, text, f"{file} record {id}", annotations=tuple(found), left_out=left_out)


def place(file: Path, tag: ElementTree.Element) -> str:
    """Return a tag's name for messages, because parsed XML has no line numbers."""
    return f"{file} tag {tag.get('id', tag.tag)}"


def offsets(file: Path, tag: ElementTree.Element) -> tuple[int, int]:
    """Return the start and the end of a tag of 2014."""
    try:
        return int(tag.attrib["start"]), int(tag.attrib["end"])
    except (KeyError, ValueError):
        raise UserError(f"{place(file, tag)} has no start and end.") from None
