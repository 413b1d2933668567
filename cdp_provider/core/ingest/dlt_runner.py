# SPDX-License-Identifier: Apache-2.0
"""Runs a dlt resource; a script for the environment in which dlt is, which is not ours.

Started by :mod:`~cdp_provider.core.ingest.dlt`. Its argument is a file that says what to run; into the file
that is named there it writes what came of it: ``state`` and ``tables`` (name -> folder with Parquet files),
or a ``fault`` that a person has to mend. For all else it fails, and says why on stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


class Fault(Exception):
    """Somebody has to change something.

    :param facts: for the file of results: what it is (``fault``) and what an error says of it.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts["fault"])
        self.facts = facts


def main() -> int:
    """Run the job.

    :returns: the exit code.
    """
    job = json.loads(Path(sys.argv[1]).read_bytes())
    # Before dlt is imported, for then it looks around.
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DLT_DATA_DIR": job["work"],
        # One after the other, so that of two rows the later one stays the later one.
        "NORMALIZE__WORKERS": "1",
    }
    try:
        result = _run(job)
    except Fault as fault:
        result = fault.facts
    except Exception as error:  # noqa: BLE001 - this is the end of the program
        known = _known(error)
        if known is None:
            # What dlt wraps around it says little, and may quote rows.
            traceback.print_exception(_causes(error)[-1], chain=False)
            return 1
        result = known
    Path(job["result"]).write_text(json.dumps(result))
    return 0


def _run(job: dict[str, Any]) -> dict[str, Any]:
    try:
        import dlt
        from dlt.common.versioned_state import json_decode_state, json_encode_state
    except ImportError as error:
        raise Fault({"fault": "no dlt", "missing": error.name}) from error
    for key, value in job["secrets"].items():
        text = value if isinstance(value, str) else json.dumps(value)
        os.environ[key.upper().replace(".", "__")] = text
    resource, source = _resource(job)
    _hint(resource, source, job)
    pipeline = dlt.pipeline(
        "cdp",
        pipelines_dir=job["work"],
        destination=dlt.destinations.filesystem(bucket_url=Path(job["out"]).as_uri()),
        dataset_name="data",
        progress=dlt.progress.log(60, sys.stderr),
    )
    if job["state"] is not None:
        with pipeline.managed_state() as state:
            state.update(json_decode_state(json.dumps({**state, "sources": job["state"]})))
    pipeline.run(
        source,
        loader_file_format="parquet",
        # The destination is empty every time; what a table gets is what is new.
        write_disposition="append",
        schema_contract={"tables": "evolve", "columns": "evolve", "data_type": "freeze"},
    )
    naming = pipeline.default_schema.naming if pipeline.schemas else None
    return {
        "state": json.loads(json_encode_state(pipeline.state)).get("sources", {}),
        "table": _table(job, resource, naming),
        "tables": [
            p.name for p in sorted(Path(job["out"], "data").glob("*")) if next(p.glob("*.parquet"), 0)
        ],
    }


def _resource(job: dict[str, Any]) -> tuple[Any, Any]:
    """The resource, and the source it is part of."""
    from dlt.extract import DltResource, DltSource

    given = _called(_attribute(job), job["arguments"])
    if isinstance(given, DltSource):
        wanted = job["select"] or job["stream"]
        if wanted not in given.resources:
            raise Fault({"fault": "no resource", "name": wanted, "known": sorted(given.resources)})
        source = given.with_resources(wanted)
    else:
        import dlt

        alone = given if isinstance(given, DltResource) else dlt.resource(given, name=job["stream"])
        wanted, source = alone.name, DltSource(dlt.Schema("cdp"), alone.section, [alone])
    # A source has copies of what it was made of.
    return source.resources[wanted], source


def _attribute(job: dict[str, Any]) -> Any:
    module, _, name = job["resource"].partition(":")
    sys.path.insert(0, job["folder"])
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise Fault({"fault": "no module", "name": module}) from error
        raise
    if not hasattr(found, name):
        raise Fault({"fault": "no attribute", "name": name})
    return getattr(found, name)


def _called(found: Any, arguments: dict[str, Any]) -> Any:
    from dlt.extract import DltSource

    # A resource without arguments that was called is still one that can be called.
    return found if isinstance(found, DltSource) and not arguments else found(**arguments)


def _hint(resource: Any, source: Any, job: dict[str, Any]) -> None:
    """Tell dlt what the project knows of the columns, so that it need not guess types from the first rows."""
    table = job["table"]
    hints = {name: {"name": name, "data_type": kind} for name, kind in job["columns"].items()}
    own = resource.table_name if isinstance(resource.table_name, str) else resource.name
    if table is None or table == own:
        resource.apply_hints(columns=hints)
    else:
        # Of a table that is nested in the resource's own, dlt wants to know the path.
        resource.apply_hints(nested_hints={tuple(table.split("__")[1:]): {"columns": hints}})
    if job["root_key"]:
        from dlt.common.normalizers.json.relational import DataItemNormalizer

        names = {name: f"_root_{name}" for name in job["root_key"]}
        DataItemNormalizer.update_normalizer_config(
            source.schema, {"propagation": {"root": names, "tables": {}}}
        )


def _table(job: dict[str, Any], resource: Any, naming: Any) -> str:
    own = resource.table_name if isinstance(resource.table_name, str) else resource.name
    name = job["table"] or own
    return name if naming is None or job["table"] else naming.normalize_table_identifier(name)


def _known(error: BaseException) -> dict[str, Any] | None:
    """What dlt has against it, as far as somebody can mend that; without the values that it may quote."""
    from dlt.common.configuration.exceptions import ConfigFieldMissingException
    from dlt.common.schema.exceptions import DataValidationError

    for cause in _causes(error):
        if isinstance(cause, DataValidationError):
            return {"fault": "type", "table": cause.table_name, "column": cause.column_name}
        if isinstance(cause, ConfigFieldMissingException):
            return {"fault": "no value", "names": list(cause.fields)}
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return {"fault": "refused", "status": status}
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and what it came from."""
    found = [error]
    while cause := found[-1].__cause__ or found[-1].__context__:
        found.append(cause)
    return found


if __name__ == "__main__":
    sys.exit(main())
