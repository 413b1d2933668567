# SPDX-License-Identifier: Apache-2.0
"""The folder of a source of files: where a connection says that it is, or what is wrong with that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.ingest.folder import Folder
from cdp_provider.hooks.source import SourceHook

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    def add(**fields: Any) -> SourceHook:
        monkeypatch.setenv("AIRFLOW_CONN_TILL", json.dumps(fields))
        return SourceHook("till")

    return add


@pytest.mark.parametrize("kind", ["fs", "file"])
def test_a_folder_on_the_worker(connection: Any, tmp_path: Path, kind: str) -> None:
    assert connection(conn_type=kind, extra={"path": str(tmp_path)}).folder == tmp_path


def test_a_connection_of_any_type_whose_provider_opens_the_address(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a provider that nobody here has heard of would do it."""
    storage = MemoryFileSystem()
    storage.pipe_file("/lake/in/a.csv", b"x")
    opened = []

    def get_fs(conn_id: str | None, options: dict[str, Any]) -> MemoryFileSystem:
        opened.append(conn_id)
        return storage

    monkeypatch.setattr("airflow.sdk.io.fs._register_filesystems", lambda: {"memory": get_fs})
    folder = connection(conn_type="lakehouse", extra={"path": "memory://lake/in"}).folder
    assert isinstance(folder, ObjectStoragePath)
    assert [entry.name for entry in Folder(folder).find("*.csv")] == ["a.csv"]
    assert opened[0] == "till"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"conn_type": "fs"}, ConfigurationError, 'names no folder.*"path": "/the/folder"'),
        ({"conn_type": "aws"}, ConfigurationError, 'names no folder.*"path": "s3://bucket/folder"'),
        ({"conn_type": "sftp"}, ConfigurationError, 'names no folder.*"path": "/the/folder"'),
        ({"conn_type": "aws", "extra": {"path": 5}}, ConfigurationError, "names no folder"),
        ({"conn_type": "fs", "extra": {"path": "/gone/for/good"}}, NotFoundError, "not exist on this worker"),
        (
            {"conn_type": "fs", "extra": {"path": "s3://b/f"}},
            ConfigurationError,
            "'fs', which opens no 's3://b/f'.*aws, google_cloud_platform",
        ),
        ({"conn_type": "http", "extra": {"path": "/x"}}, ConfigurationError, "'http', which opens no '/x'"),
        ({"conn_type": "aws", "extra": {"path": "gs://b/f"}}, ConfigurationError, "such as 's3://bucket/fo"),
        ({"conn_type": "aws", "extra": {"path": "/b/f"}}, ConfigurationError, "such as 's3://bucket/folder'"),
        ({"conn_type": "aws", "extra": {"path": "s3://u@b/f"}}, ConfigurationError, "such as 's3://bucket"),
        (
            {"conn_type": "sftp", "host": "h", "extra": {"path": "sftp://in/orders"}},
            ConfigurationError,
            "such as '/the/folder'",
        ),
        (
            {"conn_type": "lakehouse", "extra": {"path": "lake://b/f"}},
            ConfigurationError,
            "no installed provider opens lake://",
        ),
    ],
)
def test_what_is_wrong(connection: Any, fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = connection(**fields).folder


@pytest.mark.parametrize(
    ("kind", "path", "package"),
    [
        ("aws", "s3://b/f", r"apache-airflow-providers-amazon\[s3fs\]"),
        ("google_cloud_platform", "gs://b/f", "apache-airflow-providers-google"),
        ("wasb", "abfs://c/f", "apache-airflow-providers-microsoft-azure"),
        ("adls", "abfs://c/f", "apache-airflow-providers-microsoft-azure"),
        ("sftp", "/in", r"apache-airflow-providers-sftp\[sshfs\]"),
        ("ssh", "sftp://h/in", r"apache-airflow-providers-sftp\[sshfs\]"),
    ],
)
def test_a_provider_that_is_missing_is_named(connection: Any, kind: str, path: str, package: str) -> None:
    """This environment has none of them."""
    hook = connection(conn_type=kind, host="h", extra={"path": path})
    with pytest.raises(ConfigurationError, match=rf"no installed provider opens .*pip install '{package}'"):
        _ = hook.folder
