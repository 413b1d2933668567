# SPDX-License-Identifier: Apache-2.0
"""What all parts of a project file share: frozen models that refuse unknown keys, names, durations, sizes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cdp_provider.core.project.problems import Path, Problem

NAME_PATTERN = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"
COLUMN_PATTERN = r"^[A-Za-z][A-Za-z0-9_]*$"
DURATION_PATTERN = r"^\s*(\d{1,9})\s*(second|minute|hour|day|week)s?\s*$"
SIZE_PATTERN = r"^\s*(\d{1,9})\s*(kB|MB|GB|TB)\s*$"

#: A ``{place}`` in a text of the options, which a sync's parameter fills.
PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(SIZE_PATTERN)

#: Far beyond any use, and near enough that date arithmetic with it never overflows.
_LONGEST = timedelta(days=36_525)


class Model(BaseModel):
    """Frozen, and an unknown key is an error.

    What a model checks across its own values stands in ``model_post_init``: unlike a validator it runs once,
    and not again when the model becomes a part of another one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Options(Model):
    """Base of what only one kind of source or destination understands; each kind subclasses it in its file.

    A kind that can find more faults than its types express overrides the methods below; they are called once
    the options themselves are valid.
    """

    # The owners are not typed here: their modules build on this one.

    #: A kind that cannot work without an Airflow connection says so, and validation asks for one.
    needs_connection: ClassVar[bool] = False

    #: What a person must have agreed to before any destination of the kind may get their data.
    purposes: ClassVar[tuple[str, ...]] = ()

    def places(self) -> frozenset[str]:
        """Names of the ``{places}`` in the texts of these options, which a sync's parameters fill."""
        return frozenset(PLACE.findall(self.model_dump_json()))

    def by_arrival(self) -> bool:
        """Whether a stream's rows come in the order in which they changed, deletions among them.

        The row of a key that was landed last is then the one that counts, whatever time it names, and a
        record with a true ``_deleted`` says that the row is gone. Elsewhere the newest time counts.
        """
        return False

    def after(self) -> tuple[str, ...]:
        """Streams (``source.stream``) that must have landed and passed before a stream of these is read."""
        return ()

    def beside(self, streams: Mapping[str, Any]) -> Options:  # noqa: ARG002
        """These options, completed by what the project's other streams tell.

        :param streams: every ``Stream`` by reference.
        """
        return self

    def stream_problems(self, stream: Any) -> Iterator[Problem]:
        """What is wrong between these options and their ``Stream``; paths are relative to the stream."""
        yield from ()

    def project_problems(
        self, stream: Any, find: Callable[[str, Path], tuple[Any, list[Problem]]]
    ) -> Iterator[Problem]:
        """What is wrong between these options and other streams; paths are relative to the stream.

        :param find: reference and place of it -> the other ``Stream``, None where it has no valid model, and
            what is wrong with the reference.
        """
        yield from ()

    def sync_problems(self, sync: Any) -> Iterator[Problem]:
        """What is wrong between these options and a ``Sync``; paths are relative to the sync."""
        yield from ()


#: Names become parts of table names, task ids and asset names, so they are short and plain.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=28)]

#: A column may be spelt as its source spells it.
ColumnName = Annotated[str, StringConstraints(pattern=COLUMN_PATTERN, max_length=60)]

#: A whole number; neither ``true`` nor ``"5"`` passes for one.
Whole = Annotated[int, Strict()]


def parse_duration(value: Any) -> Any:
    """``"7 days"`` -> timedelta, longer than nothing. A day is always 24 hours, a week seven such days."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(value) if isinstance(value, str) else None
    if not match:
        msg = f"{value!r} is no duration; write a whole number and a unit, such as '7 days' or '36 hours'"
        raise ValueError(msg)
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _LONGEST.total_seconds():
        msg = f"{value!r} is out of range; a duration is longer than nothing and at most 100 years"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=Annotated[str, Field(pattern=DURATION_PATTERN)]),
]


def parse_size(value: Any) -> Any:
    """``"4 GB"`` -> bytes, in decimal units. A plain whole number is bytes already."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.match(value) if isinstance(value, str) else None
    if not match:
        msg = f"{value!r} is no size; write a whole number and a unit, such as '4 GB' or '512 MB'"
        raise ValueError(msg)
    return int(match[1]) * _BYTES[match[2]]


_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

Size = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(
        parse_size,
        json_schema_input_type=Annotated[int, Field(gt=0)] | Annotated[str, Field(pattern=SIZE_PATTERN)],
    ),
]
