"""PubMed's XML: title and abstract as they read, with the labels of structured abstracts."""

from __future__ import annotations

import gzip

import pytest
from reading import read_all, read_rest, write

from clm_detour.utils.errors import UserError

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
<PubmedArticleSet>
"""
ARTICLE = """<PubmedArticle>
  <MedlineCitation Status="MEDLINE" Owner="NLM">
    <PMID Version="1">{pmid}</PMID>
    <Article PubModel="Print">
      <Journal><ISSN IssnType="Print">0006-2944</ISSN>
        <JournalIssue CitedMedium="Print"><Volume>13</Volume><PubDate>{date}</PubDate></JournalIssue>
        <Title>Biochemical medicine</Title></Journal>
      <ArticleTitle>{title}</ArticleTitle>
      {abstract}
      <Language>{language}</Language>
      <PublicationTypeList><PublicationType UI="D016428">Journal Article</PublicationType>
        <PublicationType UI="D016454">Review</PublicationType></PublicationTypeList>
    </Article>
  </MedlineCitation>
  <PubmedData><ArticleIdList><ArticleId IdType="pubmed">{pmid}</ArticleId></ArticleIdList></PubmedData>
</PubmedArticle>
"""
STRUCTURED = """<Abstract>
        <AbstractText Label="BACKGROUND" NlmCategory="BACKGROUND">CO<sub>2</sub> in <i>Escherichia
          coli</i> &amp; yeast.</AbstractText>
        <AbstractText Label="RESULTS">Up to 10<sup>3</sup> (p &lt; 0.05).</AbstractText>
        <AbstractText Label="UNLABELLED">No label.</AbstractText>
        <AbstractText Label="FUNDING"/>
        <CopyrightInformation>Copyright 1975.</CopyrightInformation>
      </Abstract>"""


def article(pmid=1, title="Formate assay.", abstract="", language="eng", date="<Year>1975</Year>") -> str:
    return ARTICLE.format(pmid=pmid, title=title, abstract=abstract, language=language, date=date)


def whole(*articles: str) -> str:
    return HEAD + "".join(articles) + "</PubmedArticleSet>\n"


def test_versions_of_an_article_are_records_and_citations_to_delete_are_not(tmp_path):
    deleted = '<DeleteCitation><PMID Version="1">7</PMID></DeleteCitation>'
    versions = [article(7, "Old."), article(7, "New.").replace('Version="1"', 'Version="2"')]
    path = write(tmp_path / "pubmed25n1500.xml", whole(*versions, deleted))
    assert read_all(path) == ["Old.", "New."]


@pytest.fixture
def baseline(tmp_path) -> str:
    plain = "<Abstract><AbstractText>Un résumé.</AbstractText></Abstract>"
    return write(
        tmp_path / "pubmed25n0001.xml.gz",
        whole(
            article(1, "Formate in <i>body</i> <b>fluids</b>.", STRUCTURED),
            article(2, "[Sans titre].", plain, "fre", "<MedlineDate>1998 Dec-1999 Jan</MedlineDate>"),
            article(3, "Only a title."),
        ),
    )


def test_title_and_abstract_with_labels_and_without_tags(baseline):
    assert read_all(baseline) == [
        "Formate in body fluids.\n\nBACKGROUND: CO2 in Escherichia coli & yeast.\n"
        "RESULTS: Up to 103 (p < 0.05).\nNo label.",
        "[Sans titre].\n\nUn résumé.",
        "Only a title.",
    ]


def test_every_field_can_be_asked_for(baseline):
    assert read_all(baseline, where="abstract and language == 'eng' and 'Review' in publication_types") == [
        read_all(baseline)[0]
    ]
    template = "{pmid} {year} {journal}: {title} {abstract?}"
    assert read_all(baseline, template=template, where="year < 1999 and pmid > 1") == [
        "2 1998 Biochemical medicine: [Sans titre]. Un résumé.",
        "3 1975 Biochemical medicine: Only a title.",
    ]


def test_a_chapter_of_a_book_is_an_article_too(tmp_path):
    chapter = (
        '<PubmedBookArticle><BookDocument><PMID Version="1">9</PMID><ArticleTitle>Ataxia.</ArticleTitle>'
        "<Abstract><AbstractText>Clinical.</AbstractText></Abstract></BookDocument></PubmedBookArticle>"
    )
    assert read_all(write(tmp_path / "a.xml", whole(chapter))) == ["Ataxia.\n\nClinical."]


def test_an_article_without_text_is_counted(tmp_path):
    path = write(tmp_path / "a.xml", whole(article(1, ""), article(2), "<PubmedArticle/>"))
    assert read_rest(path) == (["Formate assay."], {"empty": 1, "no citation": 1})
    with pytest.raises(UserError, match="article 3 has no citation"):
        read_all(path)


def test_malformed_xml_names_line_and_column_and_keeps_what_came_before(tmp_path):
    path = write(tmp_path / "a.xml.zst", whole(article(1), article(2, "patient-name & co"), article(3)))
    with pytest.raises(
        UserError, match=r"not well-formed XML after article 1 .*line \d+, column \d+"
    ) as caught:
        read_all(path)
    assert "patient-name" not in str(caught.value)
    assert read_rest(path) == (["Formate assay."], {"rest of a damaged file": 1})


def test_a_truncated_file_keeps_what_came_before(tmp_path):
    content = gzip.compress(
        whole(*(article(number, f"Title {number * 7919}.") for number in range(3000))).encode()
    )
    path = tmp_path / "a.xml.gz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"is damaged after article \d+"):
        read_all(path)
    texts, counts = read_rest(path)
    assert 500 < len(texts) < 3000
    assert counts == {"rest of a damaged file": 1}


@pytest.mark.parametrize(
    "content", ["<html><body/></html>", "not XML at all", "\0\0\0", "<PubmedArticleSet/>", ""]
)
def test_what_is_not_of_pubmed_says_so(tmp_path, content):
    with pytest.raises(
        UserError, match=r"not of PubMed: it opens with html|not well-formed|holds no document"
    ):
        read_all(write(tmp_path / "a.xml", content))


def test_entities_that_grow_without_bound_are_refused(tmp_path):
    entities = '<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">'
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    bomb = f"<?xml version='1.0'?><!DOCTYPE x [{entities}]>" + whole(article(1, "&j;")).split("\n", 2)[2]
    with pytest.raises(UserError, match="not well-formed XML"):
        read_all(write(tmp_path / "a.xml", bomb))
