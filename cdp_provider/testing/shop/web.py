# SPDX-License-Identifier: Apache-2.0
"""The invented shop's web events as files: one NDJSON file per day of receipt."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cdp_provider.testing.shop.orders import find, weave
from cdp_provider.testing.shop.people import open_moment
from cdp_provider.testing.shop.truth import WebTruth
from cdp_provider.testing.shop.visits import DAYS, Event, Recorder, Visitors

if TYPE_CHECKING:
    from random import Random

    from cdp_provider.testing.shop.orders import Order, Product
    from cdp_provider.testing.shop.people import Person

_LATE_SHARE = 0.02
_DOUBLED_SHARE = 0.01


def make_web(
    rng: Random,
    anchor: datetime,
    count: int,
    people: list[Person],
    orders: list[Order],
    catalogue: list[Product],
) -> tuple[dict[str, str], WebTruth]:
    """Return the text of each day's file by its path, with ``count`` sound events in all, and the truth."""
    visitors = Visitors(rng, anchor, people, orders)
    recorder = Recorder(rng, catalogue)
    for visit in visitors.visits():
        recorder.record(visit)
        if len(recorder.events) >= count:
            break
    events = recorder.events[:count]
    late = sum(_receive(rng, anchor, event) for event in events)
    _remember_browsers(events, people, orders, set(visitors.shared_laptops))

    copies, in_same_file = _doubles(rng, anchor, events)
    received = sorted(events + copies, key=lambda event: (event["receivedAt"], event["messageId"]))
    days = [anchor - timedelta(days=day) for day in range(DAYS, 0, -1)]
    lines: dict[str, list[str]] = {_path(day): [] for day in days}
    for event in received:
        lines[_path(event["receivedAt"])].append(_line(event))
    broken = _broken_lines(rng, events)
    weave(rng, lines, broken)
    truth = WebTruth(
        lines=sum(map(len, lines.values())),
        events=len(events),
        duplicates=len(copies),
        duplicates_in_same_file=in_same_file,
        late=late,
        anonymous_ids=len({event["anonymousId"] for event in events}),
        shared_laptops={
            browser: [person.customer_ids[0] for person in users]
            for browser, users in visitors.shared_laptops.items()
        },
        by_name=dict(sorted(Counter(event["event"] or event["type"] for event in events).items())),
        broken=find(lines, broken, first=1),
    )
    return {path: "".join(rows) for path, rows in lines.items()}, truth


def _receive(rng: Random, anchor: datetime, event: Event) -> bool:
    """Set when the event arrives: at once, or (True) on one of the next days."""
    happened = event["timestamp"]
    next_midnight = happened.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if rng.random() < _LATE_SHARE and next_midnight < anchor:
        until = min(next_midnight + timedelta(days=5), anchor)
        event["receivedAt"] = open_moment(rng, next_midnight, until)
        return True
    event["receivedAt"] = happened + timedelta(milliseconds=rng.randrange(50, 3_000))
    return False


def _doubles(rng: Random, anchor: datetime, events: list[Event]) -> tuple[list[Event], int]:
    """Return events that arrive again, and how many of them arrive in the same file as before."""
    copies = []
    in_same_file = 0
    for event in rng.sample(events, round(len(events) * _DOUBLED_SHARE)):
        received = event["receivedAt"]
        next_midnight = received.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        if rng.random() < 0.5 or next_midnight >= anchor:
            copies.append(event)
            in_same_file += 1
        else:
            until = min(next_midnight + timedelta(days=3), anchor)
            copies.append({**event, "receivedAt": open_moment(rng, next_midnight, until)})
    return copies, in_same_file


def _remember_browsers(
    events: list[Event], people: list[Person], orders: list[Order], shared: set[str]
) -> None:
    """Note with each person the browsers on which nobody else said who they are."""
    owners: dict[str, Person] = {}
    for person in [*people, *(order.person for order in orders if order.person)]:
        owners.update(dict.fromkeys(person.customer_ids, person))
        for email in (person.email, person.email_before, person.second_email):
            if email:
                owners[email] = person
    for event in events:
        if event["type"] == "identify" and event["anonymousId"] not in shared:
            person = owners[event["userId"] or event["traits"]["email"].strip().lower()]
            if event["anonymousId"] not in person.anonymous_ids:
                person.anonymous_ids.append(event["anonymousId"])


def _broken_lines(rng: Random, events: list[Event]) -> list[tuple[str, str]]:
    kinds = ("truncated", "no object", "no messageId", "no timestamp")
    broken = []
    for number in range(max(len(kinds), len(events) // 2500)):
        kind = kinds[number % len(kinds)]
        event = {**rng.choice(events), "messageId": f"ajs-broken-{number}"}
        if kind == "truncated":
            line = _line(event)
            line = line[: rng.randrange(20, len(line) - 5)] + "\n"
        elif kind == "no object":
            line = json.dumps(rng.choice([["a list", number], f"a text {number}", 10_000 + number])) + "\n"
        elif kind == "no messageId":
            event["properties"] = {"broken": number}
            del event["messageId"]
            line = _line(event)
        else:
            line = _line(event).replace(f'"timestamp":"{_iso(event["timestamp"])}"', '"timestamp":"soon"')
        broken.append((line, kind))
    return broken


def _path(moment: datetime) -> str:
    return f"web/{moment.isoformat()[:10]}.ndjson"


def _line(event: Event) -> str:
    times = {"timestamp": _iso(event["timestamp"]), "receivedAt": _iso(event["receivedAt"])}
    return json.dumps({**event, **times}, ensure_ascii=False, separators=(",", ":")) + "\n"


def _iso(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='milliseconds')[:23]}Z"
