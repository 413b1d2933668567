# SPDX-License-Identifier: Apache-2.0
"""A project that is written on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = """
project: acme
description: A test.
owner: growth
tags: [one, two]
schedule: "0 5 * * *"
warehouse: {connection: wh, schema: acme}
sources:
  crm:
    type: files
    connection: files
    streams:
      customers: &customers
        path: customers.csv
        format: csv
        primary_key: id
        columns: {id: string, email: string, phone: string}
        identifiers: {email: email}
        optional: true
      staff: {<<: *customers, optional: false}
  web:
    type: files
    streams:
      visitors: {<<: *customers, optional: false}
identity:
  identifiers: {email: {normalize: email}}
profiles:
  fields: {email: {from: [crm.customers.email]}}
  traits: {rows: {type: count, stream: crm.customers}}
segments:
  known: {description: With an address., where: {trait: email, exists: true}}
  busy: {where: {trait: rows, at_least: 5}}
destinations:
  mail:
    type: http
    connection: mail
    rate: {requests: 20, per: 1 second}
    upsert: {method: POST, path: /members, body: members}
    key: email
    fields: fields
    answer: {results: results, key: email, status: status, accepted: [ok], reason: reason}
syncs:
  known_to_mail: {segment: known, destination: mail, key: email, fields: {rows: rows}}
  all_to_mail: {destination: mail, key: email}
"""


@pytest.fixture
def project_file(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function: writes the project, after the given replacements, and returns its path."""

    def write(*replacements: tuple[str, str], name: str = "cdp.yaml") -> Path:
        text = TEXT
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
