"""The report of a whole run."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from itertools import pairwise

from clm_detour.figures.renderers import csv_text
from clm_detour.figures.table import Table
from clm_detour.report.load import load_run
from clm_detour.report.markup import collected
from clm_detour.report.page import page_text, write_page

SCORE = {"loss": 1.0, "accuracy": 0.5, "predicted": 9}
VOID = {"meta", "link", "br", "img", "wbr"}


class Parsed(HTMLParser):
    """Tags, attributes and visible text of a page; complains about tags that do not match."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def tags_named(self, name: str) -> int:
        """The number of such tags."""
        return sum(tag == name for tag, _ in self.tags)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.text += data


def page_of(run) -> str:
    return page_text(load_run(run.path))


def page_and_sheets(run) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """Return the page and the content of its CSV files: name -> rows."""
    with collected() as found:
        page = page_of(run)
    sheets = {}
    for item in found:
        if isinstance(item, Table):
            head, *rows = csv.reader(io.StringIO(csv_text(item)))
            assert len(set(head)) == len(head), item.name
            sheets[item.name] = [dict(zip(head, row, strict=True)) for row in rows]
    return page, sheets


def table_rows(page: str, title: str) -> list[list[str]]:
    """The cells of the table called `title`, best ones in stars."""
    table = re.search(rf'<table aria-label="{re.escape(title)}">(.*?)</table>', page, re.DOTALL)
    assert table, f"no table {title}"
    marked = (
        table[1].replace('<strong class="best">', "*").replace('<span class="unseen"> (best)</span>', "*")
    )
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", marked, re.DOTALL)
    return [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_the_page_is_one_file_that_loads_nothing(whole_run, whole_page):
    parsed = Parsed(whole_page)
    assert not {tag for tag, _ in parsed.tags} & {"iframe", "img", "object", "embed", "base"}
    links = [
        value
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in {"href", "src", "xlink:href", "srcset", "action", "data", "poster"}
    ]
    assert all(link.startswith("#") or link == "data:," for link in links), links
    shown = re.sub(r"<script.*?</script>", "", whole_page, flags=re.DOTALL)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", shown))
    assert "@import" not in shown
    assert [
        path.name for path in sorted(whole_run.path.iterdir()) if path.name.startswith((".", "report"))
    ] == [
        "report",
        "report.html",
    ]


def test_every_id_is_there_once_and_every_reference_has_its_id(whole_page):
    tags = [attributes for _, attributes in Parsed(whole_page).tags]
    ids = [attributes["id"] for attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    names = ("href", "aria-labelledby", "clip-path", "fill", "stroke")
    values = [attributes.get(name) or "" for attributes in tags for name in names]
    references = [
        value.removeprefix("url(").strip("#)") for value in values if value.startswith(("#", "url(#"))
    ]
    references = [found for found in references if not re.fullmatch("[0-9a-f]{3}|[0-9a-f]{6}", found)]
    references += [attributes["aria-labelledby"] for attributes in tags if "aria-labelledby" in attributes]
    assert references
    assert set(references) <= set(ids)


def test_every_figure_says_what_it_shows(whole_page):
    parsed = Parsed(whole_page)
    charts = [attributes["data-name"] for _, attributes in parsed.tags if "data-name" in attributes]
    assert charts == [
        "tasks", "task-differences", "held-out-loss", "held-out-phases", "held-out-difference", "training",
        "divergence", "cka", "trajectory", "weight-change",
    ]  # fmt: skip
    figures = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert len([figure for figure in figures if figure["class"] == "static"]) == len(charts)
    assert all(figure["role"] == "img" and len(figure["aria-label"]) > 40 for figure in figures)


def test_headings_go_down_one_level_at_a_time(whole_page):
    levels = [int(tag[1]) for tag, _ in Parsed(whole_page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_every_table_has_a_box_of_its_own_to_scroll_in(whole_page):
    assert (
        whole_page.count("<table aria-label")
        == len(re.findall(r'<div class="scroll" tabindex="0"[^>]*>\s*<table', whole_page))
        > 8
    )


def test_the_held_out_tables_show_the_records_figures(whole_run, whole_page):
    models = whole_run.json("evaluation/held_out.json")["models"]
    losses, accuracies = table_rows(whole_page, "Loss"), table_rows(whole_page, "Accuracy")
    sources = losses[0][3:]
    assert sources == list(models["base"]["by_source"])
    for line, (name, scores) in enumerate(models.items(), start=1):
        picked = [scores, *(scores["by_source"][source] for source in sources)]
        shown = [cell.strip("*") for cell in losses[line]]
        assert [shown[0], shown[1], *shown[3:]] == [name, *(f"{score['loss']:.3f}" for score in picked)]
        shown = [cell.strip("*") for cell in accuracies[line]]
        assert shown == [name, *(f"{100 * score['accuracy']:.1f}\u202f%" for score in picked)]
    predicted = [models["twin"]["by_source"][source]["predicted"] for source in sources]
    assert losses[-1] == ["masked tokens", f"{sum(predicted):,}", "", *(f"{count:,}" for count in predicted)]


def test_the_best_of_a_column_is_marked_and_nothing_else(whole_run, whole_page):
    models = whole_run.json("evaluation/held_out.json")["models"]
    for title, key, best in (("Loss", "loss", min), ("Accuracy", "accuracy", max)):
        head, *rows = table_rows(whole_page, title)
        for column, source in enumerate(head):
            if source in models["base"]["by_source"]:
                values = {name: scores["by_source"][source][key] for name, scores in models.items()}
                marked = [row[0] for row in rows if row[column].startswith("*")]
                assert marked == [best(values, key=values.get)]


def test_what_reads_the_same_is_best_together(fake_run):
    def tie(record):
        record["models"]["detour"]["loss"] = 3.0001
        record["models"]["twin"]["loss"] = 2.9999

    fake_run.edit("evaluation/held_out.json", tie)
    rows = table_rows(page_of(fake_run), "Loss")
    assert [row[1] for row in rows[2:4]] == ["*3.000*", "*3.000*"]


def test_the_end_of_every_phase_is_shown(whole_run, whole_page):
    phases = whole_run.json("evaluation/held_out.json")["phases"]
    rows = table_rows(whole_page, "Ends of the phases")[1:]
    assert [row[0] for row in rows] == [id.rsplit(".")[-1] for id in phases]
    assert [row[3] for row in rows] == [f"{scores['loss']:.3f}" for scores in phases.values()]


def test_the_phases_show_their_rows_tokens_and_speed(whole_run, whole_page):
    by_id = {row[0]: row for row in table_rows(whole_page, "Rows")}
    for id, row in {row[0]: row for row in table_rows(whole_page, "Phases")[1:]}.items():
        record = whole_run.json(f"phases/{id}/phase.json")
        assert row[-1] == f"{record['tokens']:,}"
        assert by_id[id][1:3] == [f"{record['first_row']:,}", f"{record['next_row']:,}"]
    assert "read the same rows in the same order" in whole_page


def test_target_and_observed_shares_stand_together(whole_page):
    rows = {row[0]: row for row in table_rows(whole_page, "Shares of the sources")}
    assert rows["pretrain.clm"] == ["pretrain.clm", "–", "60.12 / 60.00", "19.97 / 20.00", "19.91 / 20.00"]


def test_dropped_documents_are_shown_with_their_reason(whole_page):
    assert ["notes", "duplicate", "41"] in table_rows(whole_page, "Dropped documents")


def test_every_sentence_has_its_mask_its_answer_and_five_guesses_a_model(whole_run, whole_page):
    items = whole_run.json("evaluation/fill_mask.json")
    assert whole_page.count("<mark>[MASK]</mark>") == len(items)
    assert whole_page.count('<span class="bar"') == 5 * 3 * len(items)
    hits = sum(
        guess["token"] == item["answer"]
        for item in items
        for guesses in item["models"].values()
        for guess in guesses
    )
    assert whole_page.count('<li class="hit">') == hits == 20
    assert table_rows(whole_page, "Answers found")[1:] == [
        ["base", "0", "4", "8"],
        ["detour", "8", "8", "8"],
        ["twin", "0", "8", "8"],
    ]


def test_text_from_the_data_is_never_html(fake_run, whole_page):
    bad = '<script>alert("x")</script>&amp;<img src=x onerror=y>'

    def spoil(items):
        for item in items:
            item["text"] = f"{bad} [MASK] {bad}"
            item["answer"] = bad
            item["source"] = bad
            item["models"] = {bad: [{"token": bad, "score": 0.5}]}

    fake_run.edit("evaluation/fill_mask.json", spoil)
    fake_run.edit("environment.json", lambda record: record.update(cpu=bad))
    fake_run.edit(
        "evaluation/held_out.json",
        lambda record: record["models"]["base"]["by_source"].update({bad + "$x$": dict(SCORE)}),
    )
    page = page_of(fake_run)
    parsed = Parsed(page)
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert "<script>alert" not in page
    assert parsed.tags_named("script") == Parsed(whole_page).tags_named("script")
    assert parsed.text.count(bad) > 3 * len(fake_run.json("evaluation/fill_mask.json"))


def test_a_long_run_stays_a_small_file(fake_run):
    path = fake_run.path / "phases" / "pretrain.clm" / "metrics.jsonl"
    line = '{{"step": {0}, "tokens": {0}, "loss": 3.{0}, "learning_rate": 0.1, "tokens_per_second": 9.0}}\n'
    path.write_text("".join(line.format(step) for step in range(1, 30_001)), encoding="utf-8")
    assert write_page(fake_run.path).stat().st_size < 2_000_000
