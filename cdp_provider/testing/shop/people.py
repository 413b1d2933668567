# SPDX-License-Identifier: Apache-2.0
"""The people of the invented shop, and the rows that its CRM keeps about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from cdp_provider.testing.shop.truth import CrmTruth

if TYPE_CHECKING:
    from random import Random

TEST_ADDRESS = "test@example.com"
BOUNCING_DOMAIN = "bounce.invalid"
#: Seconds of the day, UTC. Visits begin or end in between, so nothing at all happens from midnight to five.
OPENS, CLOSES = 19_800, 84_000

_FIRST_NAMES = (
    "Anna Ben Carla David Elif Finn Greta Hannes Ida Jonas Klara Lukas Mia Noah Olga Paul Rosa Simon Tilda "
    "Yusuf Amélie Björn Chloé Daan Emine Felix Gül Henri Inès Jörg Käthe Léon Maëlle Nils Özlem Pim Ruth "
    "Sven Thérèse Urs Vera Wim Zoë Jürgen Marie Mehmet Sofie Tom Lena Max"
).split()
_LAST_NAMES = (
    "Ackermann Bauer Conrad Dietrich Ebert Fischer Graf Huber Ivanov Jansen Keller Lange Meier Neumann Otto "
    "Peters Richter Schulz Thomas Ulrich Vogel Weber Yilmaz Ziegler Böhm Dupont Günther Hofstätter Kaya "
    "Lefèvre Müller Núñez Öztürk Roux Schäfer van-Dijk de-Vries Wyss Zürcher Brunner Egger Moser Gruber "
    "Bernard Moreau Bakker Visser Kowalski Novak Rossi"
).split()
_DOMAINS = ("example.org", "example.net", "mail.example.com", "post.example.org", "web.example.net")
_CITIES = {
    "DE": ["Berlin", "Hamburg", "München", "Köln", "Leipzig", "Bonn", "Fürth"],
    "AT": ["Wien", "Graz", "Linz"],
    "CH": ["Zürich", "Bern", "Basel"],
    "FR": ["Paris", "Lyon", "Strasbourg"],
    "NL": ["Amsterdam", "Utrecht"],
}
_COUNTRY_SHARES = {"DE": 80, "AT": 8, "CH": 6, "FR": 3, "NL": 3}
#: Calling code, and (area or mobile code, first digits, number of further digits).
_PHONE_PLANS: dict[str, tuple[str, list[tuple[str, str, int]]]] = {
    "DE": (
        "49",
        [("151", "12", 7), ("176", "234", 7), ("170", "23", 6), ("30", "345", 7), ("89", "2345", 7)],
    ),
    "AT": ("43", [("660", "123456", 6), ("664", "123456", 6)]),
    "CH": ("41", [("78", "678", 6), ("79", "2345", 6)]),
    "FR": ("33", [("6", "12", 7)]),
    "NL": ("31", [("6", "1245", 7)]),
}
_NONSENSE_PHONES = ("123", "unknown", "0000000000", "+49", "n/a", "see note")
_ASCII = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e", "è": "e", "ë": "e", "ç": "c", "ú": "u", "ñ": "n"}
)


class Phone(NamedTuple):
    """A phone number in its parts; no two people have the same."""

    calling_code: str
    area: str
    number: str

    @property
    def e164(self) -> str:
        """The number as one writes it for machines."""
        return f"+{self.calling_code}{self.area}{self.number}"

    def spelled(self, rng: Random, *, nationally: bool) -> str:
        """Return the number as somebody might type it; ``nationally`` allows it without country code."""
        code, area, number = self
        forms = [
            f"+{code} {area} {number}",
            f"00{code}-{area}-{number}",
            self.e164,
            f"+{code} (0){area} {number}",
        ]
        if nationally:
            forms += [f"0{area}/{number}", f"0{area} {number[:3]} {number[3:]}", f"0{area}{number}"]
        return rng.choice(forms)


@dataclass(slots=True)
class Person:
    """Somebody who exists once, however many accounts and addresses they have.

    :param email: today's address in lower case.
    :param email_before: address before ``email_changed_at``.
    :param second_email: address of a second account.
    :param weight: how much this person buys and browses, relative to others.
    """

    country: str
    first_name: str
    last_name: str
    email: str
    phone: Phone
    created_at: datetime
    weight: float
    email_before: str | None = None
    email_changed_at: datetime | None = None
    second_email: str | None = None
    customer_ids: list[str] = field(default_factory=list)
    anonymous_ids: list[str] = field(default_factory=list)

    def email_at(self, moment: datetime, customer_id: str | None = None) -> str:
        """Return the address that the person used then, as a guest or with this account."""
        if self.second_email and customer_id == self.customer_ids[1]:
            return self.second_email
        if self.email_before and self.email_changed_at and moment < self.email_changed_at:
            return self.email_before
        return self.email

    def to_json(self, name: str) -> dict[str, Any]:
        """Return the person's line of ``people.ndjson``."""
        emails = [self.email, self.email_before, self.second_email]
        return {
            "person": name,
            "customer_ids": self.customer_ids,
            "emails": [email for email in emails if email],
            "phones": [self.phone.e164],
            "anonymous_ids": self.anonymous_ids,
        }


class People:
    """Makes people whose addresses and numbers are theirs alone."""

    def __init__(self, rng: Random, anchor: datetime) -> None:
        self._rng = rng
        self._anchor = anchor
        self._phones: set[Phone] = set()
        self._emails = 0

    def person(self) -> Person:
        """Return a new person, known to the shop for up to three years."""
        rng = self._rng
        (country,) = rng.choices(list(_COUNTRY_SHARES), list(_COUNTRY_SHARES.values()))
        first_name, last_name = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
        return Person(
            country=country,
            first_name=first_name,
            last_name=last_name.replace("-", " "),
            email=self.email(first_name, last_name),
            phone=self._phone(country),
            created_at=open_moment(rng, self._anchor - timedelta(days=1095), self._anchor),
            weight=min(rng.paretovariate(1.1), 80.0),
        )

    def email(self, first_name: str, last_name: str) -> str:
        """Return an address that nobody has yet."""
        self._emails += 1
        local = f"{first_name}.{last_name}{self._emails}".lower().translate(_ASCII)
        return f"{local}@{self._rng.choice(_DOMAINS)}"

    def _phone(self, country: str) -> Phone:
        calling_code, plans = _PHONE_PLANS[country]
        while True:
            area, first, digits = self._rng.choice(plans)
            number = f"{self._rng.choice(first)}{self._rng.randrange(10**digits):0{digits}}"
            phone = Phone(calling_code, area, number)
            if phone not in self._phones:
                self._phones.add(phone)
                return phone


def open_moment(rng: Random, start: datetime, end: datetime) -> datetime:
    """Return a moment in opening hours of a day from ``start``'s to the one before ``end``'s.

    On the first day it is not before ``start``, which lies in opening hours itself (or at midnight).
    """
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    day = rng.randrange(max((end - midnight).days, 1))
    earliest = max(OPENS, (start - midnight).seconds) if day == 0 else OPENS
    return midnight + timedelta(days=day, seconds=rng.randrange(earliest, CLOSES))


def spelled_email(rng: Random, email: str) -> str:
    """Return an address as somebody might type it: mostly as it is, at times in capitals or with spaces."""
    roll = rng.random()
    if roll < 0.90:
        return email
    if roll < 0.94:
        return email.upper()
    return email.title() if roll < 0.97 else f" {email} "


def iso(moment: datetime) -> str:
    """Return a UTC moment in ISO 8601 with seconds and Z."""
    return f"{moment.isoformat(timespec='seconds')[:19]}Z"


@dataclass(slots=True)
class _Counts:
    test_address: int = 0
    without_email: int = 0
    broken_email: int = 0
    bouncing_email: int = 0
    without_phone: int = 0
    nonsense_phone: int = 0


def make_customers(
    rng: Random, anchor: datetime, rows: int, makes: People
) -> tuple[list[Person], list[dict[str, Any]], CrmTruth]:
    """Return the people behind the CRM, its rows by customer id, and the truth about them."""
    people = [makes.person() for _ in range(rows - rows // 100)]
    _change_emails(rng, anchor, people, makes)
    twice = set(rng.sample(range(len(people)), rows - len(people)))
    accounts = sorted(
        [(person.created_at, number, False) for number, person in enumerate(people)]
        + [(open_moment(rng, people[number].created_at, anchor), number, True) for number in sorted(twice)]
    )
    bulk_import = anchor - timedelta(days=90) + timedelta(hours=6)
    counts = _Counts()
    customers = []
    for position, (created_at, number, is_second) in enumerate(accounts, 1):
        person = people[number]
        customer_id = f"C{position:06}"
        person.customer_ids.append(customer_id)
        email, phone, consents = _contact(rng, person, is_second, number in twice, makes, counts)
        customers.append(
            {
                "customer_id": customer_id,
                "email": email,
                "phone": phone,
                "first_name": person.first_name,
                "last_name": person.last_name,
                "country": person.country,
                "city": rng.choice(_CITIES[person.country]),
                "marketing_consent": consents,
                "birth_date": _birth_date(rng),
                "created_at": iso(created_at),
                "updated_at": iso(_updated_at(rng, person, created_at, anchor, bulk_import)),
            }
        )
    truth = CrmTruth(
        rows=len(customers),
        same_person=[person.customer_ids for person in people if len(person.customer_ids) > 1],
        changed_email={
            person.customer_ids[0]: person.email_before for person in people if person.email_before
        },
        **{name: getattr(counts, name) for name in _Counts.__slots__},
    )
    return people, customers, truth


def _change_emails(rng: Random, anchor: datetime, people: list[Person], makes: People) -> None:
    for person in people:
        start = max(person.created_at + timedelta(days=30), anchor - timedelta(days=300))
        if rng.random() < 0.02 and start < anchor - timedelta(days=10):
            person.email_before = person.email
            person.email = makes.email(person.first_name, person.last_name)
            midnight = start.replace(hour=0, minute=0, second=0)
            person.email_changed_at = open_moment(rng, midnight, anchor - timedelta(days=5))


def _contact(
    rng: Random, person: Person, is_second: bool, has_two: bool, makes: People, counts: _Counts
) -> tuple[str | None, str | None, bool]:
    """Return e-mail, phone and consent of an account; a person's two accounts share e-mail or phone."""
    email, consents = _email(rng, person, counts, spoils=not has_two)
    phone = _phone(rng, person, counts, spoils=not has_two)
    if is_second and rng.random() < 0.4:
        person.second_email = makes.email(person.first_name, person.last_name)
        return spelled_email(rng, person.second_email), phone, consents
    if is_second:
        counts.without_phone += 1
        return email, None, consents
    return email, phone, consents


def _email(rng: Random, person: Person, counts: _Counts, *, spoils: bool) -> tuple[str | None, bool]:
    roll = rng.random() if spoils else 1.0
    consents = rng.random() < 0.62
    if roll < 0.015:
        counts.test_address += 1
        return TEST_ADDRESS, consents
    if roll < 0.04:
        counts.without_email += 1
        return None, consents
    if roll < 0.042:
        counts.broken_email += 1
        return person.email.replace("@", " at "), consents
    if roll < 0.045 and not person.email_before:
        counts.bouncing_email += 1
        person.email = f"{person.email.partition('@')[0]}@{BOUNCING_DOMAIN}"
        return person.email, True
    return spelled_email(rng, person.email), consents


def _phone(rng: Random, person: Person, counts: _Counts, *, spoils: bool) -> str | None:
    roll = rng.random() if spoils else 1.0
    if roll < 0.12:
        counts.without_phone += 1
        return None
    if roll < 0.13:
        counts.nonsense_phone += 1
        return rng.choice(_NONSENSE_PHONES)
    return person.phone.spelled(rng, nationally=True)


def _birth_date(rng: Random) -> str | None:
    if rng.random() < 0.3:
        return None
    return f"{rng.randrange(1940, 2008)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"


def _updated_at(
    rng: Random, person: Person, created_at: datetime, anchor: datetime, bulk_import: datetime
) -> datetime:
    moments = [created_at]
    roll = rng.random()
    if roll < 0.05:
        moments.append(bulk_import)
    elif roll < 0.4:
        moments.append(open_moment(rng, created_at, anchor))
    if person.email_changed_at:
        moments.append(person.email_changed_at)
    return max(moments)
