# SPDX-License-Identifier: Apache-2.0
"""Made-up orders of 13 columns, one of them an object: as CSV, as NDJSON, as a table; and changes of a table.

Imported by peers too, whose Python has nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Name -> type, in the words of a project.
COLUMNS = {
    "order_id": "integer",
    "customer_id": "string",
    "first_name": "string",
    "last_name": "string",
    "email": "string",
    "country": "string",
    "quantity": "integer",
    "total": "decimal",
    "score": "number",
    "paid": "boolean",
    "ordered_at": "timestamp",
    "updated_at": "timestamp",
    "shipping": "json",
}
COUNTRIES = ("DE", "FR", "IT", "ES", "NL", "AT", "PL")
#: The source's table, and the one whose changes are captured.
_SCHEMA = "bench_source"
TABLE, CHANGING = f"{_SCHEMA}.orders", f"{_SCHEMA}.customers"
#: Of the changes, so many are inserts and updates; the rest are deletions.
_INSERTS, _UPDATES = 0.625, 0.25
_TRANSACTIONS = 40

_NAMES = "['Ada', 'Zoë', 'Grace', 'Seán', 'Mary', 'Linus', 'Nora', 'Paul', 'Irène', 'Tom', 'Jürgen']"
_SURNAMES = "['Lovelace', 'O''Neil', 'Hopper', 'Müller', 'Jackson', 'Li', 'de la Cruz', 'Núñez', 'Smith-Lee']"
_ROW = f"""
    select i as order_id, 'c' || (i * 7919 % 300007) as customer_id,
        {_NAMES}[1 + i % 11] as first_name, {_SURNAMES}[1 + i % 9] as last_name,
        'person.' || (i * 7919 % 300007) || '@mail' || (i % 97) || '.example.com' as email,
        ['{"', '".join(COUNTRIES)}'][1 + i % 7] as country, i % 9 + 1 as quantity,
        cast((i * 7919 % 1000000) / 100.0 + 1 as decimal(12, 2)) as total,
        round((i * 104729 % 1000003) / 1000003.0, 6) as score, i % 3 <> 0 as paid,
        strftime(timestamp '2026-01-01' + to_seconds(i * 37 % 15000000), '%Y-%m-%dT%H:%M:%SZ') as ordered_at,
        strftime(timestamp '2026-06-25' + to_seconds(i * 41 % 400000), '%Y-%m-%dT%H:%M:%S.%fZ') as updated_at,
        {{'street': (i % 211) || ' Long Street', 'city': 'City ' || (i % 997),
          'zip': lpad(cast(i % 99991 as varchar), 5, '0'), 'floor': i % 12, 'gift': i % 5 = 0}} as shipping
    from range(1, $rows + 1) r(i)
"""

#: What every way must find; with the name of a table.
SUMS = (
    "select count(*), sum(order_id), sum(quantity), cast(sum(total) as decimal(28, 2)),"
    " count(case when paid then 1 end), sum(length(email)), count(shipping),"
    " cast(max(extract(epoch from ordered_at)) as bigint),"
    " cast(round(sum(extract(epoch from updated_at))) as bigint), cast(round(sum(score)) as bigint) from {}"
)
#: The same of the table whose changes are captured.
CHANGED_SUMS = (
    "select count(*), sum(id), sum(quantity), cast(sum(total) as decimal(28, 2)), max(length(name)) from {}"
)
CHANGING_COLUMNS = {
    "id": "integer",
    "name": "string",
    "email": "string",
    "quantity": "integer",
    "total": "decimal",
    "paid": "boolean",
    "updated_at": "timestamp",
}

#: Lines of the short file.
_FEW = 1000


@dataclass(frozen=True)
class Files:
    """The orders on disk.

    :param few: the first of them, alone in their folder, as `csv` is.
    """

    csv: Path
    ndjson: Path
    few: Path


def write_files(folder: Path, rows: int) -> Files:
    """Write the orders, the same on every machine, into an empty folder."""
    import duckdb

    files = Files(folder / "csv" / "orders.csv", folder / "orders.ndjson", folder / "few" / "orders.csv")
    for path in (files.csv, files.few):
        path.parent.mkdir(parents=True)
    with duckdb.connect() as engine:
        # In order, as a source would have written them.
        engine.execute("set preserve_insertion_order = true")
        flat = f"select * replace (cast(to_json(shipping) as varchar) as shipping) from ({_ROW})"
        engine.execute(f"copy ({flat}) to '{files.csv}' (format csv, header)", {"rows": rows})
        engine.execute(f"copy ({_ROW}) to '{files.ndjson}' (format json)", {"rows": rows})
    with files.csv.open("rb") as all_lines:
        files.few.write_bytes(b"".join(islice(all_lines, _FEW + 1)))
    return files


def fields(types: dict[str, str]) -> str:
    """The columns with an engine's types, as a table declares them.

    :param types: of the engine, by those of a project.
    """
    return ", ".join(f"{name} {types[kind]}" for name, kind in COLUMNS.items())


def fill_table(connection: Any, files: Files, types: dict[str, str]) -> None:
    """The orders as a table of PostgreSQL; psycopg's connection commits by itself."""
    connection.execute(f"create schema if not exists {_SCHEMA}")
    connection.execute(f"drop table if exists {TABLE}")
    connection.execute(f"create table {TABLE} ({fields(types)}, primary key (order_id))")
    with (
        files.csv.open("rb") as file,
        connection.cursor() as cursor,
        cursor.copy(f"copy {TABLE} from stdin (format csv, header)") as copy,
    ):
        while piece := file.read(1 << 20):
            copy.write(piece)
    connection.execute(f"vacuum analyze {TABLE}")


def make_changing(connection: Any) -> None:
    """The empty table whose changes are captured."""
    connection.execute(f"create schema if not exists {_SCHEMA}")
    connection.execute(f"drop table if exists {CHANGING}")
    connection.execute(
        f"create table {CHANGING} (id bigint primary key, name text, email text, quantity bigint,"
        " total numeric(12, 2), paid boolean, updated_at timestamptz)"
    )


def change(connection: Any, changes: int) -> int:
    """Insert, update and delete, in 40 transactions; returns how many changes there were."""
    done = 0
    for statement, values in _statements(changes):
        done += connection.execute(statement, values).rowcount
    return done


def _statements(changes: int) -> Iterator[tuple[str, dict[str, int]]]:
    inserts, updates = int(changes * _INSERTS), int(changes * _UPDATES)
    insert = (
        f"insert into {CHANGING} select i, 'Person ' || i, 'person.' || i || '@example.com', i %% 9,"
        " (i %% 100000) / 100.0, i %% 3 = 0, timestamptz '2026-06-01 00:00Z' + i * interval '1 second'"
        " from generate_series(cast(%(first)s as bigint), %(last)s) g(i)"
    )
    update = f"update {CHANGING} set quantity = quantity + 10, name = 'Renamed ' || id"
    delete = f"delete from {CHANGING}"
    some = " where id between %(first)s and %(last)s"
    for statement, rows, share in (
        (insert, inserts, _INSERTS),
        (update + some, updates, _UPDATES),
        (delete + some, changes - inserts - updates, 1 - _INSERTS - _UPDATES),
    ):
        transactions = int(_TRANSACTIONS * share)
        bounds = [rows * n // transactions for n in range(transactions + 1)]
        for first, last in zip(bounds, bounds[1:], strict=False):
            yield statement, {"first": first + 1, "last": last}
