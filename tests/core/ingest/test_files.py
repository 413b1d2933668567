# SPDX-License-Identifier: Apache-2.0
"""Which files a batch takes."""

from __future__ import annotations

import gzip
import os

import pytest
from pydantic import ValidationError

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest.files import FileOptions, FilesConnector


def fetched(root, tmp_path, stream, run, taken=()):
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    return FilesConnector(root).fetch(stream, None, run().window, spool, taken=taken)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "in"
    for name in ("b.csv", "a.csv", "deep/er/c.csv", "x.txt", ".hidden.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    (folder / "folder.csv").mkdir()
    return folder


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "deep/er/c.csv"]),
        ("[b-z].csv", ["b.csv"]),
        ("a.csv", ["a.csv"]),
        ("none*.csv", []),
    ],
)
def test_patterns(root, tmp_path, orders, run, pattern, names):
    found = fetched(root, tmp_path, orders(path=pattern), run)
    assert [file.source for file in found.files] == names
    assert [file.path.read_text() for file in found.files] == [f"{name}\n" for name in names]
    assert found.cursor is None


def test_a_taken_file_is_left_and_a_namesake_is_not(root, tmp_path, orders, run):
    stream = orders(path="*.csv")
    keys = [file.key for file in fetched(root, tmp_path, stream, run).files]
    assert fetched(root, tmp_path, stream, run, taken=keys).files == []
    (root / "a.csv").write_text("A.csv\n")
    again = fetched(root, tmp_path, stream, run, taken=keys)
    assert [file.source for file in again.files] == ["a.csv"]
    assert again.detail == {"files": 1, "files_matched": 2}


def test_gzip_by_its_name(root, tmp_path, orders, run):
    (root / "z.csv.gz").write_bytes(gzip.compress(b"x"))
    (file,) = fetched(root, tmp_path, orders(path="*.csv.gz"), run).files
    assert file.compression == "gzip"


@pytest.mark.parametrize("pattern", ["/etc/*", "../x.csv", "a/../../x", "", "."])
def test_a_path_out_of_the_folder_is_no_option(pattern):
    with pytest.raises(ValidationError, match="must lie below the folder"):
        FileOptions(path=pattern, format="csv")


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "é"])
def test_a_delimiter_is_one_plain_character(delimiter):
    with pytest.raises(ValidationError):
        FileOptions(path="*", format="csv", delimiter=delimiter)


def test_a_link_out_of_the_folder_is_refused(root, tmp_path, orders, run):
    outside = tmp_path / "secret.csv"
    outside.write_text("x")
    os.symlink(outside, root / "link.csv")
    with pytest.raises(ConfigurationError, match=r"'link.csv' is a link that leads out"):
        fetched(root, tmp_path, orders(), run)
    os.unlink(root / "link.csv")
    os.symlink(root / "a.csv", root / "link.csv")
    assert len(fetched(root, tmp_path, orders(), run).files) == 3


def test_what_is_not_there(root, tmp_path, orders, run):
    with pytest.raises(NotFoundError, match=r"the file 'gone.csv' does not exist below"):
        fetched(root, tmp_path, orders(path="gone.csv"), run)
    with pytest.raises(NotFoundError, match="the folder .*nowhere does not exist"):
        fetched(tmp_path / "nowhere", tmp_path, orders(), run)
