"""PubMed's baseline files: title and abstract of each article, structured abstracts with their labels.

A record has the fields of `formats.PUBMED_FIELDS`; `text` is the title, a blank line and the abstract, or the
part that exists. Tags inside a text (italics, superscripts, formulas) are removed and their content is kept.
Elements are deleted as soon as they have been read, so memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source
from clm_detour.data.sources.files import open_raw, unpacked, whole_file
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit, lost
from clm_detour.utils.errors import UserError

ROOT = "PubmedArticleSet"
ARTICLES = {"PubmedArticle": "MedlineCitation", "PubmedBookArticle": "BookDocument"}
JATS = ("article", "pmc-articleset")
JATS_HINT = (
    ", as JATS does, the form of PubMed Central's full texts; write their text to .txt or .jsonl files"
)
UNLABELLED = ("", "UNLABELLED", "UNLABELED")


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return the file as one unit; it holds at most 30,000 articles."""
    return [whole_file(file, format)]


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield a record for each article."""
    count = reported = 0
    if not unit.size:
        return
    try:
        with open_raw(unit.file) as raw:
            for element in articles(raw, unit.file):
                count += 1
                citation = element.find(ARTICLES[element.tag])
                if citation is None:
                    yield BadRecord("no citation", f"{unit.file} article {count} has no citation")
                    continue
                pmid = citation.findtext("PMID", "")
                yield Record(f"{unit.file} article {count} (PMID {pmid})", article_fields(pmid, citation))
                if raw.tell() > reported:
                    on_bytes(raw.tell() - reported)
                    reported = raw.tell()
    except ElementTree.ParseError as error:
        raise lost(f"{unit.file} is not well-formed XML after article {count} ({error})") from None
    except UserError:
        raise
    except (LookupError, ValueError) as error:  # expat knows a few encodings and asks Python for the others
        raise lost(f"{unit.file} is in an encoding that cannot be read ({error})") from None
    except OSError as error:
        raise lost(f"{unit.file} is damaged after article {count} ({error})") from error
    on_bytes(unit.size - reported)


def articles(raw: Any, file: str) -> Iterator[ElementTree.Element]:
    """Yield the articles one by one.

    Raises:
        BadRecord: If this is other XML.
    """
    events = ElementTree.iterparse(unpacked(raw, file), events=("start", "end"))
    _, root = next(events)
    if root.tag != ROOT:
        hint = JATS_HINT if root.tag in JATS else ""
        raise BadRecord(
            "not PubMed", f"{file} is XML, but not of PubMed: it opens with {root.tag[:40]}{hint}"
        )
    for event, element in events:
        if event == "end" and element.tag in ARTICLES:
            yield element
            root.clear()


def article_fields(pmid: str, citation: ElementTree.Element) -> dict[str, Any]:
    """Return the fields of an article or of a book chapter."""
    found = citation.find("Article")
    article = citation if found is None else found
    title = content(article.find("ArticleTitle"))
    abstract = "\n".join(part for part in map(section, article.iterfind("Abstract/AbstractText")) if part)
    year = article.findtext("Journal/JournalIssue/PubDate/Year", "")
    medline_date = article.findtext("Journal/JournalIssue/PubDate/MedlineDate", "")
    return {
        "pmid": pmid,
        "title": title,
        "abstract": abstract,
        "text": "\n\n".join(part for part in (title, abstract) if part),
        "journal": article.findtext("Journal/Title", ""),
        "year": year or medline_date[:4],
        "language": article.findtext("Language", ""),
        "publication_types": [
            content(kind) for kind in article.iterfind("PublicationTypeList/PublicationType")
        ],
    }


def section(element: ElementTree.Element) -> str:
    """Return a section of an abstract, after its label."""
    text, label = content(element), element.get("Label", "")
    return text if label in UNLABELLED or not text else f"{label}: {text}"


def content(element: ElementTree.Element | None) -> str:
    """Return the text of an element and all elements inside it, with single blanks."""
    return "" if element is None else " ".join("".join(element.itertext()).split())
