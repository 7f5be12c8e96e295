"""Datasets of Hugging Face: folders saved to disk, and repositories through `datasets`, from local copies."""

from __future__ import annotations

from pathlib import Path

import datasets
import huggingface_hub
import pytest
from reading import read_all, read_rest

from clm_detour.config.schema import Source
from clm_detour.data.sources import hub, source_stamps, units
from clm_detour.utils.errors import UserError

ROWS = {
    "text": ["one", "two", "three"],
    "score": [1.0, 4.5, None],
    "note": [{"kind": "a"}, {"kind": "b"}, None],
}


@pytest.fixture
def dataset() -> datasets.Dataset:
    return datasets.Dataset.from_dict(ROWS)


@pytest.fixture
def repository(tmp_path, dataset) -> Path:
    """A dataset's repository with two configurations, of which one has two files."""
    (tmp_path / "repository" / "data").mkdir(parents=True)
    dataset.to_parquet(tmp_path / "repository" / "data" / "first.parquet")
    dataset.select([2, 1]).to_parquet(tmp_path / "repository" / "data" / "second.parquet")
    dataset.select([1]).to_parquet(tmp_path / "repository" / "data" / "small.parquet")
    (tmp_path / "repository" / "README.md").write_text(
        "---\nconfigs:\n"
        "- {config_name: default, data_files: [{split: train, path: "
        "[data/first.parquet, data/second.parquet]}]}\n"
        "- {config_name: small, data_files: [{split: train, path: data/small.parquet}, "
        "{split: validation, path: data/first.parquet}]}\n---\n"
    )
    return tmp_path / "repository"


def test_a_saved_dataset_is_read_with_its_filters(tmp_path, dataset):
    dataset.save_to_disk(tmp_path / "saved", num_shards=2)
    assert read_all(tmp_path / "saved") == ROWS["text"]
    assert read_all(tmp_path / "saved", where="score >= 3 and note.kind == 'b'") == ["two"]


def test_what_datasets_cached_beside_a_saved_dataset_is_no_part_of_it(tmp_path, dataset):
    dataset.save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    (tmp_path / "saved" / "cache-0123.arrow").write_bytes(file.read_bytes())
    assert read_all(tmp_path / "saved") == ROWS["text"]
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"state\.json is damaged \(KeyError: '_data_files'\); save the dataset again"
    ):
        read_all(tmp_path / "saved")


def test_one_split_of_several_that_were_saved(tmp_path, dataset):
    datasets.DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(tmp_path / "saved")
    assert read_all(tmp_path / "saved", split="test") == ["one"]
    for split in (None, "dev"):
        with pytest.raises(UserError, match="holds the splits train, test; choose one of them with split"):
            read_all(tmp_path / "saved", split=split)


def test_a_saved_dataset_is_read_from_a_url(dataset):
    dataset.save_to_disk("memory://saved")
    assert read_all("memory://saved") == ROWS["text"]


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-8], lambda content: content[:300], lambda _: b"x"]
)
def test_a_truncated_arrow_file_is_noticed_even_between_two_batches(tmp_path, dataset, damage):
    dataset.save_to_disk(tmp_path / "a")
    (file,) = (tmp_path / "a").glob("*.arrow")
    (tmp_path / "whole.arrow").write_bytes(file.read_bytes())
    (tmp_path / "cut.arrow").write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="is not a sound Arrow stream after row 0"):
        read_all(tmp_path)
    assert read_rest(tmp_path) == (ROWS["text"], {"rest of a damaged file": 1})


@pytest.mark.parametrize("streaming", [True, False])
def test_a_repository_is_read_in_its_order_by_subset_and_split(repository, streaming, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    settings = {"format": "hub", "streaming": streaming}
    assert read_all(repository, **settings) == [*ROWS["text"], "three", "two"]
    assert read_all(repository, subset="small", **settings) == ["two"]
    assert read_all(repository, subset="small", split="validation", **settings) == ROWS["text"]
    assert (
        read_all(repository, where="score? >= 3", template="{note.kind}: {text}", **settings)
        == ["b: two"] * 2
    )


def test_units_of_a_repository_are_its_files_or_stretches_of_rows(repository, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "ROWS_PER_UNIT", 4)
    streamed = units(Source(path=str(repository), format="hub"))
    stored = units(Source(path=str(repository), format="hub", streaming=False))
    assert [(unit.start, unit.end) for unit in streamed] == [(0, 1), (1, 2)]
    assert [(unit.start, unit.end) for unit in stored] == [(0, 4), (4, 5)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "Bad split: dev. Available splits"),
        ({"subset": "large"}, "'large' not found. Available"),
        ({"text": "txt"}, "has no field 'txt'; its fields: 'text', 'score', 'note'; did you mean 'text'"),
    ],
)
def test_a_wrong_name_says_which_there_are(repository, settings, message):
    with pytest.raises(UserError, match=message):
        read_all(repository, format="hub", **settings)


def test_what_tells_that_a_dataset_has_changed(repository, monkeypatch):
    def info(_self, name, revision):
        assert name == "user/name"
        return huggingface_hub.DatasetInfo(id=name, sha={None: "0" * 40, "v2": "1" * 40}[revision], tags=[])

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    hub.commit.cache_clear()
    newest, tagged, pinned = (
        source_stamps(Source(path="user/name", format="hub", revision=revision))
        for revision in (None, "v2", "1" * 40)
    )
    assert newest != tagged == pinned
    before = source_stamps(Source(path=str(repository), format="hub"))
    (repository / "data" / "small.parquet").write_bytes(b"")
    assert source_stamps(Source(path=str(repository), format="hub")) != before


def test_without_the_hub_only_a_commit_says_what_a_dataset_is(monkeypatch):
    hub.commit.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot be reached for user/name .* give a full commit as revision"):
        read_all("user/name", format="hub")
    with pytest.raises(UserError, match="neither a folder nor the id of a dataset"):
        read_all("no such/name/here", format="hub")


def test_a_dataset_that_is_a_script_says_so_and_where_its_conversion_is(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.py").write_text("import datasets")
    with pytest.raises(
        UserError, match=r"scripts .*corpus\.py.* set revision: refs/convert/parquet"
    ) as caught:
        read_all(tmp_path / "corpus", format="hub")
    assert "RuntimeError" not in str(caught.value)


def test_a_repository_without_data_says_so(tmp_path):
    (tmp_path / "README.md").write_text("about")
    with pytest.raises(UserError, match=r"cannot be read: .*data files"):
        read_all(tmp_path, format="hub")


def test_the_cause_that_datasets_wraps_is_told_but_never_what_a_file_holds(repository, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def failing(cause):
        def load(*_, **__):
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from cause

        return load

    for cause, said in (
        (OSError("Not enough disk space"), "Not enough disk space"),
        (ValueError("cannot parse 'patient-name'"), r"cannot be read: ValueError\."),
    ):
        hub.load_cached.cache_clear()
        monkeypatch.setattr(datasets, "load_dataset", failing(cause))
        with pytest.raises(UserError, match=said) as caught:
            read_all(repository, format="hub")
        assert "patient-name" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (huggingface_hub.errors.GatedRepoError, "its terms must be accepted on its page first"),
        (huggingface_hub.errors.RepositoryNotFoundError, "it does not exist, or it is private"),
        (huggingface_hub.errors.RevisionNotFoundError, "it has no such revision"),
    ],
)
def test_why_the_hub_refuses_a_dataset_is_said(monkeypatch, kind, said):
    def refuse(*_, **__):
        raise kind.__new__(kind)  # the library's releases differ in what it is made from

    hub.commit.cache_clear()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(UserError, match=said):
        source_stamps(Source(path="user/name", format="hub"))


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: content.replace(b"two", b"\xff\xff\xff")]
)
def test_a_damaged_file_of_a_repository_is_one_sentence_with_a_remedy(repository, damage):
    file = repository / "data" / "small.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"repository.* cannot be read: .+\. Try again; .*download it"):
        read_all(repository, format="hub", subset="small")
