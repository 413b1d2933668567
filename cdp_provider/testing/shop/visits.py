# SPDX-License-Identifier: Apache-2.0
"""What visitors of the invented shop's web site do: visits, and the events of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from cdp_provider.testing.shop.people import open_moment, spelled_email

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from cdp_provider.testing.shop.orders import Order, Product
    from cdp_provider.testing.shop.people import Person

DAYS = 60
Event = dict[str, Any]

_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
)


@dataclass(slots=True)
class Visit:
    """One sitting at one browser.

    :param person: who sits there; None for somebody who never says.
    :param customer_id: the account that is logged in to; None without a login.
    :param order: what is bought at the end of the visit, at the order's time.
    """

    anonymous_id: str
    person: Person | None
    customer_id: str | None
    moment: datetime
    order: Order | None = None


class Visitors:
    """Decides who visits when, with which browser.

    :ivar shared_laptops: anonymousId to the people who log in there.
    """

    def __init__(self, rng: Random, anchor: datetime, people: list[Person], orders: list[Order]) -> None:
        self._rng = rng
        self._start, self._anchor = anchor - timedelta(days=DAYS), anchor
        self._people = people
        self._orders = orders
        self._browsers: dict[int, list[str]] = {}
        self._strangers: list[str] = []
        sharing = rng.sample(people, min(max(len(people) // 80, 3), len(people)))
        self.shared_laptops: dict[str, list[Person]] = {}
        while len(sharing) >= 2:
            users = [sharing.pop() for _ in range(min(rng.choice((2, 2, 3)), len(sharing)))]
            self.shared_laptops[self._new_browser()] = users

    def visits(self) -> Iterator[Visit]:
        """Yield visits without end: those that must be first, then people who look around."""
        for browser, users in self.shared_laptops.items():
            for person in users * 2:
                yield Visit(browser, person, person.customer_ids[0], self._moment(person))
        yield from self._buyers()
        weights = list(accumulate(person.weight for person in self._people))
        while True:
            yield self._browsing(weights)

    def _buyers(self) -> Iterator[Visit]:
        for order in self._orders:
            is_recent = order.ordered_at >= self._start
            if order.person and is_recent and self._rng.random() < 0.85:
                browser = self._browser_of(order.person)
                yield Visit(browser, order.person, order.customer_id, order.ordered_at, order)

    def _browsing(self, weights: list[float]) -> Visit:
        rng = self._rng
        if rng.random() < 0.55:
            (person,) = rng.choices(self._people, cum_weights=weights)
            moment = self._moment(person)
            customer_id = rng.choice(person.customer_ids) if rng.random() < 0.6 else None
            return Visit(self._browser_of(person), person, customer_id, moment)
        if rng.random() < 0.02:
            return Visit(rng.choice(list(self.shared_laptops)), None, None, self._moment())
        if not self._strangers or rng.random() < 0.6:
            self._strangers.append(self._new_browser())
        return Visit(rng.choice(self._strangers[-500:]), None, None, self._moment())

    def _moment(self, person: Person | None = None) -> datetime:
        return open_moment(
            self._rng, max(self._start, person.created_at) if person else self._start, self._anchor
        )

    def _browser_of(self, person: Person) -> str:
        browsers = self._browsers.get(id(person))
        if browsers is None:
            browsers = [self._new_browser() for _ in range(self._rng.choice((1, 1, 1, 2)))]
            self._browsers[id(person)] = browsers
        return self._rng.choice(browsers)

    def _new_browser(self) -> str:
        digits = f"{self._rng.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class Recorder:
    """Writes down the events of a visit, as the script on a web page does.

    :ivar events: all events so far, in the order of their making.
    """

    def __init__(self, rng: Random, catalogue: list[Product]) -> None:
        self.events: list[Event] = []
        self._rng = rng
        self._catalogue = catalogue
        self._user_id: str | None = None
        self._browser = ""
        self._context: Event = {}
        self._clock = datetime.min

    def record(self, visit: Visit) -> None:
        """Append the visit's events; one with an order ends at the order's time, others begin at theirs."""
        rng, first = self._rng, len(self.events)
        self._user_id, self._browser, self._clock = None, visit.anonymous_id, visit.moment
        self._context = {"userAgent": rng.choice(_AGENTS), "ip": f"192.0.2.{rng.randrange(1, 255)}"}
        self._page("/")
        if visit.customer_id:
            self._user_id = visit.customer_id
            self._identify(visit)
        basket = (
            visit.order.basket if visit.order else rng.choices(self._catalogue, k=rng.choice((1, 1, 2, 3)))
        )
        for product in basket:
            self._page(f"/{product.category}/{product.product_id}")
            self._track("Product Viewed", _described(product))
        if visit.order:
            self._buy(visit, visit.order)
            self._shift(first, visit.moment)
        else:
            self._look_around(visit, basket)

    def _buy(self, visit: Visit, order: Order) -> None:
        for product in order.basket:
            self._track("Product Added", _described(product))
        self._page("/checkout")
        self._track("Checkout Started", {"order_id": order.order_id})
        if visit.customer_id is None:
            self._identify(visit)
        properties = {"order_id": order.order_id, "total": order.cents / 100, "currency": order.currency}
        self._track("Order Completed", properties)

    def _look_around(self, visit: Visit, basket: list[Product]) -> None:
        roll = self._rng.random()
        if roll < 0.30:
            self._track("Product Added", _described(basket[-1]))
        if roll < 0.08:
            self._page("/checkout")
            self._track("Checkout Started", {})
        if roll > 0.97 and visit.person:
            if visit.customer_id is None:
                self._identify(visit)
            self._track("Newsletter Subscribed", {"list": "newsletter"})

    def _shift(self, first: int, end: datetime) -> None:
        """Move the events from ``first`` on so that the last one happens at ``end``."""
        late_by = self.events[-1]["timestamp"] - end
        for event in self.events[first:]:
            event["timestamp"] -= late_by

    def _identify(self, visit: Visit) -> None:
        person = visit.person
        if person is None:
            return
        email = spelled_email(self._rng, person.email_at(visit.moment, visit.customer_id))
        traits = {"email": email}
        if self._rng.random() < 0.3:
            traits["phone"] = person.phone.spelled(self._rng, nationally=person.country == "DE")
        self._append("identify", None, "/account", {}, traits)

    def _page(self, path: str) -> None:
        self._append("page", None, path, {}, {})

    def _track(self, event: str, properties: Event) -> None:
        self._append("track", event, self.events[-1]["context"]["page"]["path"], properties, {})

    def _append(self, kind: str, event: str | None, path: str, properties: Event, traits: Event) -> None:
        self._clock += timedelta(milliseconds=self._rng.randrange(2_000, 50_000))
        self.events.append(
            {
                "type": kind,
                "messageId": f"ajs-{self._rng.getrandbits(96):024x}",
                "anonymousId": self._browser,
                "userId": self._user_id,
                "event": event,
                "timestamp": self._clock,
                "receivedAt": self._clock,
                "context": {"page": {"path": path}, **self._context},
                "properties": properties,
                "traits": traits,
            }
        )


def _described(product: Product) -> Event:
    return {"product_id": product.product_id, "category": product.category, "price": product.cents / 100}
