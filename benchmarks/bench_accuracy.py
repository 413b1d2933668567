# SPDX-License-Identifier: Apache-2.0
"""How many of the true pairs of labelled data sets are found, and how many of the found ones are true.

``make bench-accuracy``. Each data set goes the whole road on DuckDB and on PostgreSQL: landed, resolved by
identifiers alone, built into profiles; then splink proposes, every pair from the threshold on is accepted,
and identity resolution takes them in. Both engines must end with the same persons. Nothing is tuned per data
set but what a project declares: identifiers, which fields are compared how, and that Febrl 1 and fake_1000
were made to be full of doubles. Compound identifiers (name and birthday) are made here, as a source or a view
would make them.

The data sets (Febrl 1, Splink's fake_1000, Fodors-Zagats) are not part of this repository; their folder is
``CDP_DATASETS``, or ``datasets`` in the folder ``shared`` next to the checkout.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import psycopg

from benchmarks.postgres import postgres
from benchmarks.table import NotHere, Scored
from cdp_provider.core.identity import fuzzy
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.fuzzy import Fuzzy
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.project.profiles import FieldFrom, ProfileField, Profiles
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.core.run import Run, Window
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from cdp_provider.core.warehouse import Warehouse

FOLDER = (
    Path(os.environ.get("CDP_DATASETS") or Path(__file__).parents[2] / "shared" / "datasets") / "identity"
)
THRESHOLD = 0.9
_DAY = datetime(2026, 1, 1, tzinfo=UTC)
#: So many values of a type may one person have: nothing in these data sets should meet a limit.
_MANY = 1_000


@dataclass(frozen=True)
class DataSet:
    """Labelled records.

    :param files: below :data:`FOLDER`; their paths fill the places of `sql`.
    :param sql: DuckDB query for the records: ``record``, ``person`` (the label), identifiers and fields.
    :param identifiers: types besides ``record``, each a column.
    :param dates: compared fields that are dates.
    """

    name: str
    files: tuple[str, ...]
    sql: str
    identifiers: Mapping[str, Identifier]
    compared: Fuzzy
    dates: frozenset[str] = field(default_factory=frozenset)

    def stream(self) -> Stream:
        """The records as rows of a file; the label is not among the columns."""
        kinds = ("record", *self.identifiers)
        dates = {name: Column(type="date") for name in self.dates}
        return Stream(
            source="labelled",
            name="records",
            primary_key=("record",),
            columns={name: Column() for name in (*kinds, *self.compared.fields())} | dates,
            identifiers={kind: (kind,) for kind in kinds},
            options=FileOptions(path="records.ndjson", format="ndjson"),
        )

    def identity(self) -> Identity:
        """Every record is a profile of its own unless identifiers say otherwise."""
        identifiers = {**self.identifiers, "record": Identifier(limit=_MANY)}
        return Identity(identifiers=identifiers, fuzzy=self.compared)


DATA_SETS = (
    DataSet(
        "Febrl 1",
        ("febrl/dataset1.csv",),
        r"""
        with read as (
            select trim(rec_id) as record, nullif(trim(given_name), '') as given_name,
                nullif(trim(surname), '') as surname, nullif(trim(address_1), '') as address,
                nullif(trim(suburb), '') as suburb, nullif(trim(postcode), '') as postcode,
                cast(try_strptime(trim(date_of_birth), '%Y%m%d') as date) as birthday,
                nullif(trim(soc_sec_id), '') as social
            from read_csv('{0}', all_varchar = true, normalize_names = true))
        select *, regexp_extract(record, 'rec-(\d+)', 1) as person,
            given_name || '|' || surname || '|' || birthday as name_birthday
        from read
        """,
        {"social": Identifier(limit=_MANY), "name_birthday": Identifier(limit=_MANY)},
        Fuzzy(
            compare={
                "given_name": "name",
                "surname": "name",
                "birthday": "date",
                "address": "text",
                "suburb": "text",
                "postcode": "code",
            },
            block_on=("given_name", "surname", "birthday", "postcode"),
            threshold=THRESHOLD,
            accept_from=THRESHOLD,
            duplicates=1,
        ),
        frozenset({"birthday"}),
    ),
    DataSet(
        "fake_1000",
        ("splink/fake_1000.csv",),
        """
        select 'r' || unique_id as record, cluster as person, first_name, surname, city,
            lower(email) as email, try_cast(dob as date) as birthday,
            lower(first_name || '|' || surname) || '|' || dob as name_birthday
        from read_csv('{0}', all_varchar = true)
        """,
        {"email": Identifier(limit=_MANY, normalize="email"), "name_birthday": Identifier(limit=_MANY)},
        Fuzzy(
            compare={
                "first_name": "name",
                "surname": "name",
                "birthday": "date",
                "city": "exact",
                "email": "email",
            },
            block_on=("first_name", "surname", "birthday", "email"),
            threshold=THRESHOLD,
            accept_from=THRESHOLD,
            duplicates=1,
        ),
        frozenset({"birthday"}),
    ),
    DataSet(
        "Fodors-Zagats",
        (
            "fodors_zagats/fodors.csv",
            "fodors_zagats/zagats.csv",
            "fodors_zagats/matches_fodors_zagats.csv",
        ),
        """
        with read as (
            select 'f' || id as record, * exclude (id) from read_csv('{0}', all_varchar = true)
            union all
            select 'z' || id as record, * exclude (id) from read_csv('{1}', all_varchar = true)),
        same as (select 'f' || fodors_id as of_f, 'z' || zagats_id as record
            from read_csv('{2}', all_varchar = true))
        select record, coalesce(of_f, record) as person, name, addr as address, city, phone,
            name || '|' || city as name_city
        from read left join same using (record)
        """,
        {"phone": Identifier(limit=_MANY, normalize="digits"), "name_city": Identifier(limit=_MANY)},
        Fuzzy(
            compare={"name": "text", "address": "text", "city": "name", "phone": "code"},
            block_on=("name", "phone", "address", "city"),
            threshold=THRESHOLD,
            accept_from=THRESHOLD,
        ),
    ),
)


def run() -> list[Scored]:
    """Two lines per data set: identifiers alone, and with splink."""
    missing = [name for data in DATA_SETS for name in data.files if not (FOLDER / name).is_file()]
    if missing:
        msg = (
            f"bench-accuracy needs labelled data sets, and {', '.join(missing)} are not in {FOLDER}; they are"
            " not part of this repository. Put them there, or name their folder's parent in CDP_DATASETS"
        )
        raise NotHere(msg)
    lines = []
    with tempfile.TemporaryDirectory(prefix="cdp-accuracy-") as folder, postgres() as url:
        for number, data in enumerate(DATA_SETS):
            work = Path(folder) / str(number)
            work.mkdir()
            persons = _prepare(data, work)
            path, schema = str(work / "accuracy.duckdb"), f"cdp_accuracy_{os.getpid()}_{number}"
            engines: Sequence[Warehouse] = (
                DuckDBWarehouse(lambda path=path: duckdb.connect(path)),  # type: ignore[misc]
                PostgresWarehouse(lambda: psycopg.connect(url), schema=schema),
            )
            found = [_resolved(warehouse, data, work) for warehouse in engines]
            with engines[1].session() as session:
                session.execute(f"drop schema {engines[1].quote(schema)} cascade")
            if found[0] != found[1]:
                msg = f"{data.name}: DuckDB and PostgreSQL end with different persons"
                raise RuntimeError(msg)
            note = f"{len(persons)} records, {len(set(persons.values()))} persons"
            for method, profiles in zip(("identifiers", "identifiers and splink"), found[0], strict=True):
                scores = pairwise(persons, profiles)
                lines.append(Scored(f"{data.name}, {method}", *scores, note=note))
    return lines


def _prepare(data: DataSet, work: Path) -> dict[str, str]:
    """Write the records as NDJSON.

    :returns: record -> label.
    """
    query = data.sql.format(*(FOLDER / name for name in data.files))
    with duckdb.connect() as engine:
        engine.execute(f"create table records as {query}")  # noqa: S608 - from this file
        target = work / "records.ndjson"
        engine.execute(
            f"copy (select * exclude (person) from records order by record) to '{target}' (format json)"
        )
        return dict(engine.execute("select record, person from records").fetchall())


def _resolved(warehouse: Warehouse, data: DataSet, work: Path) -> list[dict[str, int]]:
    """The whole road.

    :returns: record -> profile id, by identifiers alone; the same with splink.
    """
    records, identity = data.stream(), data.identity()
    streams = [records]
    first, second = (Run("accuracy", f"run_{day}", _window(day)) for day in (1, 2))
    land(warehouse, records, FilesConnector(str(work)), first)
    check(warehouse, records, first)
    resolve(warehouse, identity, streams, first)
    by_identifiers = _profiles(warehouse)
    fields = {
        name: ProfileField(sources=(FieldFrom(stream=records.ref, column=name),))
        for name in data.compared.fields()
    }
    build_profiles(warehouse, Profiles(fields=fields), streams, first)
    fuzzy.propose(warehouse, identity, first)
    fuzzy.decide(warehouse, identity, first, approved=None)
    resolve(warehouse, identity, streams, second)
    return [by_identifiers, _profiles(warehouse)]


def _window(day: int) -> Window:
    return Window(_DAY + timedelta(days=day - 1), _DAY + timedelta(days=day))


def _profiles(warehouse: Warehouse) -> dict[str, int]:
    table = warehouse.table("identifiers")
    with warehouse.session() as session:
        return dict(session.fetch(f"select value, profile_id from {table} where type = 'record'"))  # noqa: S608


def pairwise(persons: Mapping[str, str], profiles: Mapping[str, int]) -> tuple[float, float, float]:
    """Precision, recall and F1 over pairs of records: true ones share a person, found ones a profile.

    :raises ValueError: the two do not speak of the same records.
    """
    if persons.keys() != profiles.keys():
        msg = f"{len(persons)} records have a label and {len(profiles)} a profile, and they are not the same"
        raise ValueError(msg)
    true, found = _pairs(persons.values()), _pairs(profiles.values())
    both = _pairs((person, profiles[record]) for record, person in persons.items())
    precision, recall = both / found if found else 1.0, both / true if true else 1.0
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0


def _pairs(groups: Iterable[Hashable]) -> int:
    return sum(size * (size - 1) // 2 for size in Counter(groups).values())
