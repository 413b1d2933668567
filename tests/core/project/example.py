# SPDX-License-Identifier: Apache-2.0
"""A compact project without faults, and kinds of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from cdp_provider.core.project.base import Model, Options
from cdp_provider.core.project.document import Document
from cdp_provider.core.project.faults import Fault, ProjectError
from cdp_provider.core.project.loader import Kinds, interpret
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.model import Project


class CursorPaging(Model):
    type: Literal["cursor"]
    next: str


class PagePaging(Model):
    type: Literal["page"]
    start: int = 1


class ApiOptions(Options):
    needs_connection: ClassVar[bool] = True

    path: str
    paging: CursorPaging | PagePaging | None = None
    cursor: str | None = None

    def stream_problems(self, stream: Any) -> Iterator[Problem]:
        if self.cursor is not None and self.cursor not in stream.columns:
            yield Problem(("cursor",), f"no column {self.cursor!r}")


class FileOptions(Options):
    path: str
    format: Literal["csv", "ndjson"] = "csv"


class ListAnswer(Model):
    type: Literal["list"]


class MapAnswer(Model):
    type: Literal["map"]
    key: str


class MailOptions(Options):
    upsert: str
    answer: Annotated[ListAnswer | MapAnswer, Field(discriminator="type")]


KINDS = Kinds(sources={"api": ApiOptions, "files": FileOptions}, destinations={"mail": MailOptions})

GOOD = """\
project: shop
schedule: "0 5 * * *"
warehouse: {connection: lake}
sources:
  crm:
    type: api
    connection: crm_api
    streams:
      customers:
        path: /customers
        paging: {type: cursor, next: next_cursor}
        cursor: updated_at
        primary_key: customer_id
        time: updated_at
        columns:
          customer_id: {type: string, required: true}
          email: string
          phone: string
          country: string
          consent: boolean
          born: date
          updated_at: timestamp
        identifiers: {user_id: customer_id, email: email, phone: phone}
  web:
    type: files
    streams:
      events:
        path: web/*.ndjson
        format: ndjson
        primary_key: [message_id]
        time: at
        event: name
        columns:
          message_id: string
          name: string
          at: timestamp
          user_id: string
          price: decimal
          seconds: number
          raw: json
        identifiers: {user_id: user_id}
      products:
        path: products.csv
        primary_key: sku
        columns: {sku: string, title: string, owner: string}
        identifiers: {email: owner}
identity:
  over_limit: refuse
  memory: 512 MB
  identifiers:
    user_id: {priority: 1}
    email: {priority: 2, limit: 3, within: annually, normalize: email, block: [test@example.com]}
    phone: {normalize: phone, region: DE, region_column: country, hub: 50}
    card: {within: 10 days, normalize: "shop.cards:number", block_patterns: ["9+"]}
  rules:
    - deny: [{email: eve@example.com}, {user_id: "17"}]
    - allow: [{email: jo@example.com}, {email: joanna@example.com}]
    - exclude: {phone: "+4930555000"}
    - exclude: {stream: crm.customers, key: C-1004}
    - exclude: {stream: web.events, key: [m-1]}
profiles:
  fields:
    email: {from: [crm.customers.email, web.products.owner], keep: source_priority}
    consent: {from: [crm.customers.consent]}
    born: {from: [crm.customers.born]}
  traits:
    visits: {type: count, stream: web.events, where: {name: Visit}, within_last: 30 days}
    spent: {type: sum, stream: web.events, column: price, where: {price: {more_than: 0}}}
    last_seen: {type: last, stream: web.events, column: at}
    idle: {type: days_since_last, stream: web.events}
segments:
  reachable:
    where: {trait: consent, is: true}
  vip:
    description: Spent 500 or more.
    where:
      all:
        - {segment: reachable}
        - {trait: spent, at_least: 500}
        - any:
            - {trait: born, before: 2000-01-01}
            - {trait: last_seen, after: 2026-01-01}
            - {stream: web.events, event: Order, where: {price: {between: [1, 99.5]}}, at_least: 2}
        - none: [{trait: email, ends_with: "@example.com"}]
destinations:
  mail:
    type: mail
    connection: mail_api
    rate: {requests: 20, per: 1 second}
    purposes: [newsletters]
    upsert: "/lists/{list}/members"
    answer: {type: list}
consent:
  purposes: {newsletters: consent}
  suppressed: [consent]
syncs:
  vip_to_mail:
    segment: vip
    destination: mail
    key: email
    fields: {SPENT: spent, BORN: {from: born, write: if_empty, null: skip}}
    mode: mirror
    approve_above: 0.2
    parameters: {list: vip}
"""


def load_text(text: str) -> Project:
    """The project that a text declares."""
    return interpret(Document(text, "cdp.yaml"), KINDS)


def faults(text: str) -> tuple[Fault, ...]:
    """All faults of a text; none if it is a good project."""
    try:
        load_text(text)
    except ProjectError as error:
        return error.faults
    return ()


def check_one_fault(good: str, old: str, new: str, pointed: str, path: str, message: str) -> None:
    """A good project with one replacement has exactly one fault: in `path`, at the text `pointed`."""
    assert good.count(old) >= 1
    start = good.index(old)
    text = good[:start] + new + good[start + len(old) :]
    found = faults(text)
    assert [(fault.path, message in fault.message) for fault in found] == [(path, True)], [*map(str, found)]
    position = text.index(pointed, max(text.rfind("\n", 0, start), 0) if new else 0)
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    assert (found[0].line, found[0].column) == (line, column), str(found[0])
    assert found[0].file == "cdp.yaml"
