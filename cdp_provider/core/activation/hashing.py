# SPDX-License-Identifier: Apache-2.0
"""Identifiers of persons as advertising tools want them: normalised, then hashed.

Tools compare hashes, so a person is found only if both sides normalised alike. Every rule below stands in
one of the two pages:

- Google: https://developers.google.com/data-manager/api/devguides/concepts/formatting
- Meta: https://developers.facebook.com/docs/marketing-api/audiences/guides/custom-audiences#hash

All functions return None for a text that cannot be such an identifier.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import phonenumbers

_GOOGLE_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
_SPACE = re.compile(r"\s+")
_ZIP_PLUS_FOUR = re.compile(r"(\d{5})-\d{4}")
_COUNTRY = re.compile(r"[A-Za-z]{2}")


def sha256(text: str) -> str:
    """SHA-256 of the UTF-8 text, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def email(text: str, *, gmail: bool = False) -> str | None:
    """``" John_Smith@Example.com "`` -> ``john_smith@example.com``.

    :param gmail: take dots and what follows a plus sign out of Google's own addresses, as Google wants it
        and Meta does not.
    """
    user, at, domain = _SPACE.sub("", text).lower().partition("@")
    if gmail and domain in _GOOGLE_DOMAINS:
        user = user.partition("+")[0].replace(".", "")
    return f"{user}@{domain}" if at and user and domain and "@" not in domain else None


def phone(text: str, region: str | None) -> str | None:
    """``"(650) 555-1212"`` -> ``+16505551212`` (E.164).

    :param region: country (two letters) of numbers without a country code; without one, those are None.
    """
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def name(text: str) -> str | None:
    """``"O'Brien-Smith"`` -> ``obriensmith``, ``"Valéry"`` -> ``valéry``: lower case, letters and digits of
    any script, nothing else. Meta's rule for names, cities and states."""
    kept = (c for c in text.lower() if unicodedata.category(c)[0] in "LMN")
    return "".join(kept) or None


def plain_name(text: str) -> str | None:
    """``" O'Brien "`` -> ``o'brien``. Google's rule for given and family names."""
    return text.strip().lower() or None


def postcode(text: str) -> str | None:
    """``"94035-1234"`` -> ``94035``, ``"M1 1AE"`` -> ``m11ae``. Meta's rule."""
    text = text.strip()
    short = _ZIP_PLUS_FOUR.fullmatch(text)
    return short[1] if short else name(text)


def country(text: str) -> str | None:
    """``" us "`` -> ``US`` (ISO 3166-1 alpha-2)."""
    text = text.strip()
    return text.upper() if _COUNTRY.fullmatch(text) else None


def gender(text: str) -> str | None:
    """``"Female"`` -> ``f``. Meta knows ``f`` and ``m``."""
    text = text.strip().lower()
    return text[0] if text in {"f", "m", "female", "male"} else None
