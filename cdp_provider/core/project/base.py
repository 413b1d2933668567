# SPDX-License-Identifier: Apache-2.0
"""What all parts of a project file share: frozen models that refuse unknown keys, names, durations."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints

_DURATION = re.compile(r"^\s*(\d+)\s*(second|minute|hour|day|week)s?\s*$")


class Model(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Options(Model):
    """Base of what only one kind of source or destination understands; each kind subclasses it in its file."""


#: Names become parts of table names, task ids and asset names, so they are short and plain.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=28)]

#: A column may be spelt as its source spells it.
ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=60)]


def parse_duration(value: Any) -> Any:
    """``"7 days"`` -> timedelta. A day is always 24 hours, a week seven such days."""
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if not match:
        msg = f"{value!r} is no duration; write a whole number and a unit, such as '7 days' or '36 hours'"
        raise ValueError(msg)
    return timedelta(**{match.group(2) + "s": int(match.group(1))})


Duration = Annotated[timedelta, BeforeValidator(parse_duration, json_schema_input_type=str)]
