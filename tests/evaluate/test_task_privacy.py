"""No text of a task's documents in what is said of files that cannot be read: places, offsets and lengths only."""

from __future__ import annotations

import pytest

from clm_detour.evaluate.formats.biocreative import BioCreative
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.conll import Conll
from clm_detour.evaluate.formats.physionet import PhysioNet
from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.reading import Reader
from clm_detour.utils.errors import UserError

NAME = "Aldebaran"
NOTE = "START_OF_RECORD=1||||2||||\n{} came.\n||||END_OF_RECORD\n"
PAIR = {"a_abstracts.tsv": "1\ta\tb\n", "a_entities.tsv": f"1\tT1\tGENE\t{NAME}\t3\tx\n"}
LONG = f"{NAME} was seen on the ward and went home."
CASES = {
    "words of an annotation": (
        "entities",
        Brat("a.txt"),
        {"a.txt": f"{NAME} came", "a.ann": f"T1\tDrug 0 8\t{NAME}\n"},
    ),
    "an annotation": ("entities", Brat("a.txt"), {"a.txt": "x", "a.ann": f"T1 Drug 0 8 {NAME}\n"}),
    "a lonely word": ("entities", Conll("a.txt"), {"a.txt": f"{NAME}\n"}),
    "a word for a tag": ("entities", Conll("a.txt"), {"a.txt": f"x\t{NAME}\n"}),
    "a masked note": (
        "entities",
        PhysioNet("a.text"),
        {"a.text": NOTE.format(""), "a.res": NOTE.format(NAME)},
    ),
    "an offset": ("single_label", BioCreative("a_abstracts.tsv"), PAIR),
    "no header": ("single_label", Table("a.tsv"), {"a.tsv": f"7\t{NAME}\n8\tDeneb\n"}),
    "a near header": ("single_label", Table("a.csv", text="Alderaban"), {"a.csv": f"7,{NAME}\n8,Deneb\n"}),
    "a text for a label": ("single_label", Table("a.tsv"), {"a.tsv": f"text\tlabel\nx\t{LONG}\n"}),
    "a text for a flag": (
        "multi_label",
        Table("a.tsv", flags=("ICU",)),
        {"a.tsv": f"text\tICU\nx\t{NAME}\n"},
    ),
    "a text for labels": (
        "multi_label",
        Table("a.tsv", numbered_flags=("A", "B")),
        {"a.tsv": f"text\tlabel\nx\t{NAME}\n"},
    ),
    "a text for an id": (
        "multi_label",
        Table("a.tsv", id="id", document=r"(\d+)"),
        {"a.tsv": f"text\tlabel\tid\nx\tDrug\t{NAME}\n"},
    ),
}


@pytest.mark.parametrize(("kind", "form", "files"), CASES.values(), ids=CASES)
def test_no_text_in_the_sentence_about_a_file_that_cannot_be_read(tmp_path, kind, form, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"a\w*\.\w+ line \d") as error:
        Reader("mine", kind, ("Drug",), (form,))(tmp_path)
    assert NAME.lower() not in str(error.value).lower()
