"""`clm-detour init` finds the text in files, and writes a recipe that passes the check and runs."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.config.schema import Source
from clm_detour.data.sources import BadRecord, read_documents
from clm_detour.plan import make_plan
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.init import look
from clm_detour.run.init.files import find_sources
from clm_detour.run.init.look import look_at
from clm_detour.run.init.recipe import shares
from clm_detour.run.init.sizes import PAPER_RATE, choose

WORDS = "the patient was admitted with fever and a cough that had lasted for two weeks before"


def sentence(number: int, words: int = 40) -> str:
    known = WORDS.split()
    return f"Case {number}. " + " ".join(known[(number * 7 + place) % len(known)] for place in range(words))


def write_lines(path: Path, records: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    open_as = gzip.open if path.suffix == ".gz" else open
    with open_as(path, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


@pytest.fixture(autouse=True)
def in_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_cli(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["clm-detour", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def settings(source: Source) -> dict:
    usual = Source(path=source.path)
    return {key: value for key, value in vars(source).items() if value != getattr(usual, key)}


def test_files_whose_names_differ_in_numbers_are_one_source(tmp_path):
    for name in ("part-001.jsonl", "part-002.jsonl", "notes.jsonl", "more/a.csv", "more/b.csv", "more/c.tsv"):
        write_lines(tmp_path / "data" / name, [])
    paths = {name: source.path for name, source in find_sources(["data", "data/more"]).items()}
    assert paths == {
        "part": "data/part-*.jsonl",
        "notes": "data/notes.jsonl",
        "a": "data/more/a.csv",
        "b": "data/more/b.csv",
        "c": "data/more/c.tsv",
    }


def test_a_folder_of_one_kind_is_one_source_and_a_part_of_it_is_not(tmp_path):
    for number in range(12):
        write_lines(tmp_path / "data" / f"{number}.jsonl.gz", [])
        (tmp_path / "data" / f"letter {'abcdefghijkl'[number]}.txt").write_text("x")
    found = find_sources(["data/"])
    assert {name: settings(source) for name, source in found.items()} == {
        "data": {"format": "jsonl"},
        "data-text": {"format": "text"},
    }
    some = find_sources(["data/1.jsonl.gz", "data/2.jsonl.gz"])
    assert [source.path for source in some.values()] == ["data/1.jsonl.gz", "data/2.jsonl.gz"]


def test_a_folder_of_folders_and_files_outside_the_current_folder(tmp_path, monkeypatch):
    write_lines(tmp_path / "corpus/one/x.jsonl", [])
    write_lines(tmp_path / "corpus/two/y.json", [])
    (tmp_path / "elsewhere").mkdir()
    assert [source.path for source in find_sources(["corpus"]).values()] == ["corpus/one/x.jsonl"]
    (only,) = find_sources(["corpus/two"]).values()
    assert settings(only) == {"format": "jsonl"}
    assert only.path == "corpus/two/y.json"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_sources([f"{tmp_path}/corpus/one"])["x"].path == f"{tmp_path}/corpus/one/x.jsonl"


def test_files_of_one_name_in_different_folders_have_different_names(tmp_path):
    for folder in ("pubmed", "notes"):
        write_lines(tmp_path / folder / "train.jsonl", [])
    assert list(find_sources(["pubmed", "notes"])) == ["train", "notes-train"]


def test_the_current_folder_and_a_folder_that_datasets_saved(tmp_path):
    write_lines(tmp_path / "notes.jsonl", [])
    assert [source.path for source in find_sources(["."]).values()] == ["notes.jsonl"]
    Dataset.from_dict({"note": TEXT}).save_to_disk("saved")
    (source,) = find_sources(["saved"]).values()
    found = look_at(source, None)
    assert settings(found.source) == {"format": "arrow", "text": "note"}
    assert found.documents == 30


TEXT = [sentence(number) for number in range(30)]
IDS = [f"id-{number}" for number in range(30)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"id": IDS, "text": TEXT}, {}),
        ({"ID": IDS, "Body": TEXT, "summary": TEXT}, {"text": "Body"}),
        ({"id": IDS, "remark": TEXT, "source": ["a hospital in France"] * 30}, {"text": "remark"}),
        ({"meta": [{"content": text} for text in TEXT], "id": IDS}, {"text": "meta.content"}),
        ({"title": [*IDS[:29], None], "abstract": TEXT}, {"template": "{title?}\n\n{abstract}"}),
        (
            {"instruction": IDS, "input": [None] * 30, "output": TEXT},
            {"template": "{instruction}\n\n{output}"},
        ),
        ({"prompt": TEXT, "response": TEXT}, {"template": "{prompt}\n\n{response}"}),
        ({"id": IDS, "note": [*TEXT[:29], None]}, {"template": "{note?}"}),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_field_with_text_is_found(tmp_path, columns, expected, kind):
    path = tmp_path / f"docs.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        write_lines(
            path, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )
    found = look_at(Source(path=str(path)), None)
    assert settings(found.source) == expected
    assert found.documents == len(list(read_documents(found.source)))
    assert (found.complete, found.bad) == (True, None)


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("\n\n".join(TEXT), "paragraph"),
        ("\n".join(TEXT), "line"),
        ("\n".join(text[:30] for text in TEXT), "file"),
    ],
)
def test_what_is_a_document_of_plain_text_is_found(tmp_path, text, document):
    (tmp_path / "all.txt").write_text(text)
    found = look_at(Source(path="all.txt"), None)
    assert found.source.document == document
    assert found.documents == len(list(read_documents(found.source)))


def test_many_short_text_files_are_a_document_each(tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(100):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"{sentence(number)}\n\n{sentence(number + 1)}")
    found = look_at(Source(path="texts"), None)
    assert (found.source.document, found.documents, found.files) == ("file", 100, 100)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_numbers_of_large_files_are_estimated_from_a_bounded_sample(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(look, "PART_BYTES", 2**13)
    texts = [sentence(number, 20 + number % 40) for number in range(20_000)]
    path = tmp_path / f"docs.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=500)
    elif suffix == "csv":
        path.write_text("id,text\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(texts)))
    else:
        write_lines(path, [{"text": text} for text in texts])
    read = []
    monkeypatch.setattr(
        look, "token_lengths", lambda some, _: (read.append(len(some)), [len(t) for t in some])[1]
    )
    found = look_at(Source(path=str(path)), None)
    assert not found.complete
    assert found.documents == pytest.approx(20_000, rel=0.15)
    assert found.tokens == pytest.approx(sum(map(len, texts)), rel=0.15)
    assert len(found.lengths) < 15_000


def test_records_that_cannot_be_used_are_left_out_with_a_comment(tmp_path, tiny_base, monkeypatch, capsys):
    path = write_lines(tmp_path / "docs.jsonl", [{"text": sentence(number)} for number in range(400)])
    path.write_text(path.read_text() + '{"text": "cut\n')
    found = look_at(Source(path="docs.jsonl"), None)
    assert isinstance(found.bad, BadRecord)
    assert run_cli(monkeypatch, "init", "mine.yaml", "docs.jsonl", "--base", tiny_base) == 0
    assert load_config("mine.yaml").data.on_error == "skip"
    assert "docs.jsonl line 401 is not valid JSON" in (tmp_path / "mine.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("docs.jsonl", "", "docs.jsonl holds no text"),
        ("docs.jsonl", '{"id": "a", "n": 3}\n', "docs.jsonl has no field with text: its fields 'id'"),
        ("docs.jsonl", '[{"text": "a"}]\n', "one JSON array"),
        ("docs.jsonl", '{"text": "a b c d\n', "line 1 is not valid JSON"),
        ("docs.parquet", "no parquet", "not a sound parquet file"),
        ("docs.jsonl", '{"text": "a b c d"}\n', "hold about 4 tokens, which are too few"),
        ("docs.md", "text", "unknown kind"),
    ],
)
def test_files_without_text_are_refused_in_a_sentence(tmp_path, name, content, said, monkeypatch, capsys):
    (tmp_path / name).write_text(content)
    assert run_cli(monkeypatch, "init", "mine.yaml", name) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "mine.yaml").exists()


def test_nothing_is_overwritten_unless_it_is_asked_for(tmp_path, tiny_base, monkeypatch, capsys):
    write_lines(tmp_path / "docs.jsonl", [{"text": sentence(number)} for number in range(400)])
    (tmp_path / "mine.yaml").write_text("run_dir: mine\n")
    words = ["init", "mine.yaml", "docs.jsonl", "--base", tiny_base]
    assert run_cli(monkeypatch, *words) == 2
    assert "mine.yaml exists; choose another name, or add --force" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "run_dir: mine\n"
    assert run_cli(monkeypatch, *words, "--force") == 0
    assert load_config("mine.yaml").run_dir == "runs/mine"
    assert run_cli(monkeypatch, "init", "docs.jsonl") == 2
    assert "give it a name like mine.yaml" in capsys.readouterr().err
    assert run_cli(monkeypatch, "init", "new.yaml", "nowhere") == 2
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("gpus", [0, 1, 3])
@pytest.mark.parametrize("tokens", [10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 10**11])
@pytest.mark.parametrize("length", [30, 400, 20_000])
def test_sizes_fit_any_amount_of_text(tokens, length, gpus):
    sizes = choose(tokens, [length] * 10, tokens // length + 1, 8192, gpus)
    step = sizes.rows * sizes.row
    assert sizes.decay == sizes.phase // 10
    assert sizes.passes <= 4
    assert sizes.phase <= 10**10
    assert sizes.warmup <= sizes.phase / 10
    assert sizes.rows % max(gpus, 1) == 0
    assert 64 <= sizes.row <= 8192
    assert 0.01 <= sizes.held_out <= 0.1
    assert sizes.rate <= PAPER_RATE
    if gpus < 2 and tokens >= 10**5:
        assert sizes.decay / step >= 20


def test_much_text_gets_the_numbers_of_the_paper():
    sizes = choose(10**11, [9000] * 10, 10**8, 8192, 4)
    assert (sizes.phase, sizes.decay, sizes.warmup) == (10**10, 10**9, 10**8)
    assert (sizes.row, sizes.rows, sizes.rate, sizes.held_out) == (8192, 384, 2e-4, 0.01)


def test_shares_sum_to_1():
    found = shares({"a": 333_333, "b": 333_333, "c": 333_334, "d": 1})
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert min(found.values()) == 0.0001


@pytest.fixture
def written(tmp_path, tiny_data, tiny_base, monkeypatch, capsys) -> str:
    """What `init` prints for two sources, of which it wrote mine.yaml."""
    sample = tiny_data / "sample"
    words = [sample / "abstracts.jsonl.gz", sample / "notes.jsonl.gz"]
    assert run_cli(monkeypatch, "init", "mine.yaml", *words, "--base", tiny_base) == 0
    return capsys.readouterr().err


def test_the_recipe_passes_the_check(written, monkeypatch, capsys):
    for verb in ("check", "plan", "run"):
        assert f"clm-detour {verb} mine.yaml" in written
    assert "abstracts" in written
    assert run_cli(monkeypatch, "check", "mine.yaml") == 0
    assert "No errors" in (said := capsys.readouterr().err) or "Nothing wrong found" in said
    config = load_config("mine.yaml")
    assert set(config.data.mixtures["domain"]) == {"abstracts", "notes"}
    assert config.train.micro_rows == "auto"
    for phase in make_plan(Recipe(config), read_data=False).phases:
        assert phase.run.steps >= 20


def test_every_line_is_short_and_the_control_in_the_comment_works(written, tmp_path):
    lines = (tmp_path / "mine.yaml").read_text().splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= 100
    start = lines.index("#   phases:")
    control = [line.removeprefix("#   ") for line in lines[start:] if line.startswith("#   ")]
    (tmp_path / "more.yaml").write_text("\n".join(["extends: mine.yaml", *control]))
    assert list(load_config("more.yaml").arms) == ["detour", "twin", "control"]


@pytest.mark.slow
def test_the_recipe_runs_under_debug(written, tmp_path, monkeypatch):
    assert run_cli(monkeypatch, "run", "mine.yaml", "+debug") == 0
    assert (tmp_path / "runs/mine-debug/report.html").is_file()
