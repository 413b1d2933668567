# SPDX-License-Identifier: Apache-2.0
"""Connected components on a cluster's engine: the SQL form unchanged, over Spark Connect.

Sail serves the protocol and the dialect of Spark, from a wheel and without a JVM. Tables are plain Parquet,
as those of Spark are by default: written once, then read.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from cdp_provider.core.identity.components import TempTables, components, components_sql
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.identity.test_components import shuffled_chain, sparse, star

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SailTables:
    """:class:`cdp_provider.core.identity.components.Tables` as Parquet files of a Spark session."""

    def __init__(self, spark: Any) -> None:
        self._spark = spark

    def create(self, name: str, select: str) -> str:
        self.drop(name)
        self._spark.sql(f"create table {name} using parquet as {select}").toArrow()
        return name

    def drop(self, table: str) -> None:
        self._spark.sql(f"drop table if exists {table}").toArrow()

    def count(self, select: str) -> int:
        return int(self._spark.sql(select).toArrow()[0][0].as_py())


@pytest.fixture
def spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A session at a server of its own, on the loopback; its tables are files in `tmp_path`."""
    server_module = pytest.importorskip("pysail.spark", reason="pysail is not installed")
    pytest.importorskip("pyspark.sql", reason="pyspark-client is not installed")
    monkeypatch.chdir(tmp_path)
    server = server_module.SparkConnectServer()
    server.start(background=True)
    host, port = server.listening_address
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        from pyspark.sql import SparkSession

        session = SparkSession.builder.remote(f"sc://{host}:{port}").create()
    yield session
    session.stop()
    server.stop()


# In a process that pytest-xdist made, a Spark session does not come up.
@pytest.mark.alone
@pytest.mark.parametrize(
    ("shape", "count"), [(shuffled_chain, 1_000), (star, 20_000), (sparse, 20_000), (star, 1)]
)
def test_sail_equals_the_process_and_takes_as_many_rounds_as_duckdb(spark, shape, count):
    left, right = shape(count)
    edges = pa.table({"na": left, "nb": right})
    spark.createDataFrame(edges, "na bigint, nb bigint").createOrReplaceTempView("edges_to_label")
    found = components_sql(SailTables(spark), "edges_to_label")
    labels = spark.table(found.table).toArrow()
    smallest = dict(zip(labels["v"].to_pylist(), labels["r"].to_pylist(), strict=True))
    nodes = np.union1d(left, right)
    whole = components(left, right, count)
    assert smallest == dict(zip(nodes.tolist(), whole[nodes].tolist(), strict=True))
    assert len(smallest) == labels.num_rows
    with DuckDBWarehouse(duckdb.connect).session() as session:
        table = session.temp("edges_to_label", edges)
        assert components_sql(TempTables(session), table).rounds == found.rounds
