# SPDX-License-Identifier: Apache-2.0
"""Files that are made of hostile texts."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.core.hostile import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cdp_provider.core.project.streams import Stream
    from tests.core.hostile import Words


def rows(stream: str, words: Words) -> Iterator[dict[str, Any]]:
    """Rows of a stream of which every text is a word; people are told apart by a letter behind it."""
    for n in range(len(words.words)):
        person, moment = f"{words[n]}u", (NOW - timedelta(days=n, hours=1)).isoformat()
        later = (NOW - timedelta(days=n, minutes=30)).isoformat()
        match stream:
            case "crm.customers":
                yield {
                    **{"customer_id": person, "email": f"p{n}@example.com", "city": words[n + 1]},
                    **{"country": words[n // 3], "first_name": words[n + 3], "last_name": f"{words[n]}z"},
                    **{"marketing_consent": n % 2 == 0, "updated_at": moment},
                }
            case "web.events":
                told = [(n + 2 * m, n + 2 * m + 1) for m in range(4)]
                for m, (event, product) in enumerate([*told, (n + 3, n)]):
                    yield {
                        **{"messageId": f"{words[n]}{m}", "type": words[product], "event": words[event]},
                        **{"userId": person, "anonymousId": f"{words[n]}a", "product_id": words[product]},
                        **{"page": words[n + 5], "timestamp": moment, "price": m},
                    }
            case "till.orders":
                for m in range(2):
                    yield {
                        **{"order_id": f"{words[n]}{m}", "customer_id": person, "status": words[n + m + 3]},
                        **{"currency": words[n + 4 * m], "total": 10 * n + m, "ordered_at": later},
                    }


def write(folder: Path, stream: Stream, words: Words) -> None:
    """The stream's rows as its file, each value where the stream looks for it."""
    paths = {name: column.path or name for name, column in stream.columns.items()}
    found = [{paths[name]: value for name, value in row.items()} for row in rows(stream.ref, words)]
    file = folder / str(stream.options.path).replace("*", "1")
    file.parent.mkdir(parents=True, exist_ok=True)
    if stream.options.format == "csv":
        names = list(dict.fromkeys(name for row in found for name in row))
        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, names, quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(found)
        return
    file.write_text("".join(f"{json.dumps(_nested(row))}\n" for row in found))


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in row.items():
        *parents, last = path.split(".")
        owner = found
        for parent in parents:
            owner = owner.setdefault(parent, {})
        owner[last] = value
    return found
