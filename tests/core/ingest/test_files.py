# SPDX-License-Identifier: Apache-2.0
"""Which files a batch takes, wherever they lie, and in which form they are handed on."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import ObjectStoragePath
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from cdp_provider.core import tables
from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    NotFoundError,
    UnavailableError,
)
from cdp_provider.core.ingest.arrivals import waiting
from cdp_provider.core.ingest.batches import taken_files
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.folder import Folder
from cdp_provider.core.ingest.landing import land

#: One way to reach a folder each; the last two are what the rest of the world looks like to us.
WAYS = {
    "path": lambda folder: folder,
    "airflow": lambda folder: ObjectStoragePath(f"file://{folder}"),
    "server": lambda folder: SimpleNamespace(protocol="sftp", path=str(folder), fs=LocalFileSystem()),
    "bucket": lambda folder: SimpleNamespace(
        protocol="s3", path=f"{folder.parent.name}/{folder.name}", fs=DirFileSystem(folder.parent.parent)
    ),
}


def fetched(root, tmp_path, stream, run, taken=()):
    spool = tmp_path / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir()
    return FilesConnector(root).fetch(stream, None, run().window, spool, taken=taken)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    for name in ("b.csv", "a.csv", "deep/er/c.csv", "deep/d.csv", "[1]/ü #?.csv", "x.txt", ".hidden.csv"):
        put(folder / name, f"{name}\n")
    (folder / "folder.csv").mkdir()
    return folder


@pytest.fixture(params=WAYS)
def root(request, folder):
    return WAYS[request.param](folder)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("**/*.csv", ["[1]/ü #?.csv", "a.csv", "b.csv", "deep/d.csv", "deep/er/c.csv"]),
        ("deep/**/*.csv", ["deep/d.csv", "deep/er/c.csv"]),
        ("**/er/*", ["deep/er/c.csv"]),
        ("**/**/c.csv", ["deep/er/c.csv"]),
        ("*/*.csv", ["[1]/ü #?.csv", "deep/d.csv"]),
        ("*/er/?.csv", ["deep/er/c.csv"]),
        ("[b-z].csv", ["b.csv"]),
        ("[!b].csv", ["a.csv"]),
        ("a.csv", ["a.csv"]),
        ("deep/er/c.csv", ["deep/er/c.csv"]),
        ("none*.csv", []),
        ("none/*.csv", []),
        ("A.*", []),
    ],
)
def test_patterns_mean_the_same_everywhere(root, tmp_path, orders, run, pattern, names):
    found = fetched(root, tmp_path, orders(path=pattern), run)
    assert [file.source for file in found.files] == names
    assert [file.path.read_text() for file in found.files] == [f"{name}\n" for name in names]
    assert [file.key.size for file in found.files] == [len(f"{name}\n".encode()) for name in names]
    assert found.cursor is None


def test_a_taken_file_is_left_and_a_namesake_is_not(root, folder, tmp_path, orders, run):
    stream = orders(path="*.csv")
    keys = [file.key for file in fetched(root, tmp_path, stream, run).files]
    assert fetched(root, tmp_path, stream, run, taken=keys).files == []
    time.sleep(0.02)  # times of file systems are coarser than processors
    (folder / "a.csv").write_text("A.csv\n")
    again = fetched(root, tmp_path, stream, run, taken=keys)
    assert [file.source for file in again.files] == ["a.csv"]
    assert again.detail == {"files": 1, "files_matched": 2}
    assert os.listdir(tmp_path / "spool") == ["000000"]


def test_what_looks_the_same_is_not_read_again(root, folder, tmp_path, orders, run):
    stream = orders(path="*.csv")
    keys = [file.key for file in fetched(root, tmp_path, stream, run).files]
    assert all(key.modified for key in keys)
    before = (folder / "a.csv").stat()
    (folder / "a.csv").write_text("A.csv\n")
    os.utime(folder / "a.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetched(root, tmp_path, stream, run, taken=keys).files == []
    # Of what an earlier version landed no time is known, so it is read.
    plain = [key[:3] for key in keys]
    assert [file.source for file in fetched(root, tmp_path, stream, run, taken=plain).files] == ["a.csv"]


def test_a_file_that_is_only_touched_is_not_landed_again(root, folder, tmp_path, orders, run):
    stream = orders(path="*.csv")
    keys = [file.key for file in fetched(root, tmp_path, stream, run).files]
    os.utime(folder / "a.csv", (1, 1))
    assert fetched(root, tmp_path, stream, run, taken=keys).files == []


class Busy(LocalFileSystem):
    """Somebody writes to each file while it is read, or takes it away."""

    cachable = False

    def __init__(self, meddle):
        super().__init__()
        self._meddle = meddle

    def get_file(self, rpath, lpath, **kwargs):
        super().get_file(rpath, lpath, **kwargs)
        self._meddle(rpath)


def append(path):
    with open(path, "a") as file:
        file.write("more\n")


@pytest.mark.parametrize(("meddle", "left"), [(append, 2), (os.unlink, 2), (lambda _: None, 0)])
def test_a_file_that_is_being_written_waits(folder, tmp_path, orders, run, meddle, left):
    root = SimpleNamespace(protocol="sftp", path=str(folder), fs=Busy(meddle))
    found = fetched(root, tmp_path, orders(), run)
    assert len(found.files) == 2 - left
    assert found.detail.get("files_changing", 0) == left
    assert len(os.listdir(tmp_path / "spool")) == 2 - left


def test_a_new_listing_sees_what_came_since(root, folder):
    looking = Folder(root)
    assert len(looking.find("*.csv")) == 2
    put(folder / "new.csv", "x")
    assert [entry.name for entry in looking.find("*.csv")] == ["a.csv", "b.csv", "new.csv"]


@pytest.mark.parametrize(
    ("name", "option", "compression"),
    [
        ("z.csv.gz", "auto", "gzip"),
        ("z.csv.zst", "auto", "zstd"),
        ("z.csv", "auto", ""),
        ("z.dat", "zstd", "zstd"),
        ("z.csv.gz", "none", ""),
    ],
)
def test_compression_goes_by_the_name_or_the_option(tmp_path, orders, run, name, option, compression):
    put(tmp_path / "in" / name, "x")
    stream = orders(path=name, options={"compression": option})
    (file,) = fetched(tmp_path / "in", tmp_path, stream, run).files
    assert (file.format, file.compression) == ("csv", compression)


def test_parquet_is_handed_on_as_it_is(tmp_path, orders, run):
    pq.write_table(pa.table({"order_id": ["1"]}), tmp_path / "a.parquet")
    (file,) = fetched(tmp_path, tmp_path, orders(path="*.parquet", form="parquet"), run).files
    assert (file.format, file.compression) == ("parquet", "")
    assert file.path.read_bytes() == (tmp_path / "a.parquet").read_bytes()
    put(tmp_path / "a.parquet.gz", "x")
    with pytest.raises(DataError, match=r"a.parquet.gz is a Parquet file inside gzip"):
        fetched(tmp_path, tmp_path, orders(path="*.parquet.gz", form="parquet"), run)


ROWS = [{"order_id": str(n), "total": "1.5", "email": "ü@x.example"} for n in range(3)]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_json_document_becomes_lines(tmp_path, orders, run, ending):
    document = json.dumps({"meta": {"n": 3}, "data": {"items": ROWS}}, indent=2).encode()
    packed = {
        "": bytes,
        ".gz": gzip.compress,
        ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    }[ending](document)
    put(tmp_path / "in" / f"o.json{ending}", packed)
    stream = orders(path="o.json*", form="json", options={"records": "data.items"})
    found = fetched(tmp_path / "in", tmp_path, stream, run)
    (file,) = found.files
    assert (file.format, file.compression, file.source) == ("ndjson", "", f"o.json{ending}")
    assert [json.loads(line) for line in file.path.read_text().splitlines()] == ROWS
    assert (found.bytes, file.key.size) == (len(packed), len(packed))
    assert os.listdir(tmp_path / "spool") == [file.path.name]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda _: b"not packed at all, only named so"])
def test_a_damaged_archive_is_said_so(tmp_path, orders, run, ending, damage):
    body = json.dumps([{"n": n * 7919} for n in range(999)]).encode()
    packed = gzip.compress(body) if ending == ".gz" else pa.compress(body, codec="zstd", asbytes=True)
    put(tmp_path / f"a.json{ending}", damage(packed))
    with pytest.raises(DataError, match=rf"a.json{ending} is not a whole"):
        fetched(tmp_path, tmp_path, orders(path="a.json*", form="json"), run)


@pytest.mark.parametrize("pattern", ["/etc/*", "../x.csv", "a/../../x", "", "."])
def test_a_path_out_of_the_folder_is_no_option(pattern):
    with pytest.raises(ValidationError, match="must lie below the folder"):
        FileOptions(path=pattern, format="csv")


@pytest.mark.parametrize("pattern", ["a**.csv", "orders/**", "**"])
def test_two_stars_stand_alone(pattern):
    with pytest.raises(ValidationError, match=r"\*\* stands alone"):
        FileOptions(path=pattern, format="csv")


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "é"])
def test_a_delimiter_is_one_plain_character(delimiter):
    with pytest.raises(ValidationError):
        FileOptions(path="*", format="csv", delimiter=delimiter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "ndjson", "records": "data"}, "only format json"),
        ({"format": "parquet", "compression": "gzip"}, "compressed inside"),
    ],
)
def test_options_that_do_not_fit_the_format(options, message):
    with pytest.raises(ValidationError, match=message):
        FileOptions(path="*", **options)


@pytest.mark.parametrize("way", ["path", "airflow"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, orders, run, way):
    root = WAYS[way](folder)
    put(tmp_path / "secret.csv", "x")
    os.symlink(tmp_path / "secret.csv", folder / "link.csv")
    with pytest.raises(ConfigurationError, match=r"'link.csv' is a link that leads out"):
        fetched(root, tmp_path, orders(), run)
    os.unlink(folder / "link.csv")
    os.symlink(folder / "a.csv", folder / "link.csv")
    assert len(fetched(root, tmp_path, orders(), run).files) == 3


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_there(folder, tmp_path, orders, run, way):
    with pytest.raises(NotFoundError, match=r"the file 'gone.csv' does not exist below"):
        fetched(WAYS[way](folder), tmp_path, orders(path="gone.csv"), run)
    nowhere = tmp_path / "no" / "where"
    with pytest.raises(NotFoundError, match="the folder .*no/where does not exist"):
        fetched(WAYS[way](nowhere), tmp_path, orders(), run)


def test_a_prefix_that_no_object_has_yet_is_an_empty_folder(folder, tmp_path, orders, run):
    soon = WAYS["bucket"](folder.parent / "soon")
    assert fetched(soon, tmp_path, orders(), run).detail == {"files": 0, "files_matched": 0}


class Failing(LocalFileSystem):
    """A storage that does not answer as it should."""

    cachable = False

    def __init__(self, error):
        super().__init__()
        self._error = error

    def ls(self, path, detail=False, **kwargs):
        raise self._error


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (PermissionError("secret"), AccessError),
        (ConnectionResetError("secret"), UnavailableError),
        (RuntimeError("secret"), UnavailableError),  # libraries of storages raise anything
        (NotADirectoryError("secret"), ConfigurationError),
    ],
)
def test_faults_of_a_storage_are_told_as_ours(folder, error, ours):
    root = SimpleNamespace(protocol="sftp", path=str(folder), fs=Failing(error))
    with pytest.raises(ours, match="sftp://") as caught:
        Folder(root).find("*.csv")
    assert "secret" not in str(caught.value)


def test_a_storage_that_cannot_even_be_connected_to():
    class Root:
        protocol, path = "sftp", "/in"

        @property
        def fs(self):
            raise ConnectionRefusedError

    with pytest.raises(UnavailableError, match=r"sftp:///in cannot be read right now \(ConnectionRefused"):
        Folder(Root()).find("*.csv")


def test_a_json_document_lands_with_all_digits(warehouse, tmp_path, orders, run):
    put(
        tmp_path / "a.json",
        '{"data": [\n {"order_id": "1", "total": 1234567890123456.789012, "ordered_at": "2026-07-01"},\n'
        ' {"order_id": "2", "total": "none"}, 7]}',
    )
    stream = orders(path="*.json", form="json", options={"records": "data"}, quarantine={"max_share": 1})
    report = land(warehouse, stream, FilesConnector(tmp_path), run())
    assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 1, 2)
    check(warehouse, stream, run())
    with warehouse.session() as session:
        rows = session.fetch(f"select order_id, cast(total as text) from {warehouse.table(stream.view)}")
        bad = session.fetch(f"select source, line from {warehouse.table('quarantine')} order by line")
    assert rows == [("1", "1234567890123456.789012")]
    assert bad == [("a.json", 2), ("a.json", 3)]


def test_every_format_lands(warehouse, tmp_path, orders, run):
    rows = [{"order_id": str(n), "total": n / 4} for n in range(1000)]
    text = "\n".join(map(json.dumps, rows)).encode()
    put(tmp_path / "a.csv.gz", gzip.compress(b"order_id,total\n" + b"1,0.25\n"))
    put(tmp_path / "a.ndjson.zst", pa.compress(text, codec="zstd", asbytes=True))
    put(tmp_path / "a.json.gz", gzip.compress(json.dumps(rows).encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for form, expected in (("csv", 1), ("ndjson", 1000), ("json", 1000), ("parquet", 1000)):
        stream = orders(path=f"a.{form}*", form=form, name=form)
        report = land(warehouse, stream, FilesConnector(tmp_path), run())
        assert (report.rows_out, report.rows_refused) == (expected, 0)
        check(warehouse, stream, run())
        with warehouse.session() as session:
            total = session.scalar(f"select sum(total) from {warehouse.table(stream.view)}")
        assert float(total) == (0.25 if form == "csv" else sum(range(1000)) / 4)


def test_the_ledger_remembers_how_a_file_looked(warehouse, root, folder, orders, run):
    for name in ("a.csv", "b.csv"):
        put(folder / name, f"order_id,total\n{name},1\n")
    stream = orders(columns={"order_id": "string", "total": "decimal"}, time=None)
    land(warehouse, stream, FilesConnector(root), run(1))
    listed = Folder(root).find("*.csv")
    with warehouse.session() as session:
        taken = taken_files(session, stream.ref)
    assert {key.modified for key in taken} == {entry.modified for entry in listed}
    assert waiting(listed, taken) == []
    put(folder / "c.csv", "order_id,total\nc,1\n")
    assert [entry.name for entry in waiting(Folder(root).find("*.csv"), taken)] == ["c.csv"]
    assert land(warehouse, stream, FilesConnector(root), run(2)).detail["files"] == 1


def test_files_of_an_earlier_version_do_not_wait(warehouse, tmp_path, orders, run):
    put(tmp_path / "a.csv", "order_id,total\na,1\n")
    stream = orders(columns={"order_id": "string", "total": "decimal"}, time=None)
    land(warehouse, stream, FilesConnector(tmp_path), run())
    files = warehouse.table("files")
    with warehouse.session() as session:
        session.execute(f"alter table {files} drop column modified")
    with warehouse.session() as session:
        taken = taken_files(session, stream.ref)
        assert [key.modified for key in taken] == [None]
        assert waiting(Folder(tmp_path).find("*.csv"), taken) == []
        session.execute(f"drop table {warehouse.table('product')}")
        tables.ensure(session)
        assert taken_files(session, stream.ref) == taken
    assert land(warehouse, stream, FilesConnector(tmp_path), run(2)).detail["files"] == 0
