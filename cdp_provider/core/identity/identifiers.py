# SPDX-License-Identifier: Apache-2.0
"""From what a source wrote to an identifier that can be compared, or to why it identifies nobody."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from cdp_provider.core.project.identity import Identifier

#: Why a value that is there did not become an identifier.
BLOCKED, INVALID = "blocked", "invalid"

_NONE = -1
_CODES = {BLOCKED: -2, INVALID: -3}

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)+")
_EMAIL_LENGTH = 254
_NO_DIGIT = re.compile(r"[^0-9]")
_TRAILING_ZEROS = r"(\.[0-9]*?[1-9])0+$|\.0*$"


def _email(text: str) -> str | None:
    """One ``@``, a dotted domain, no white space; no provider's own folding (dots, plus signs)."""
    address = text.lower()
    return address if len(address) <= _EMAIL_LENGTH and _EMAIL.fullmatch(address) else None


def _phone(text: str, regions: Iterable[str | None]) -> str | None:
    """The E.164 form under the first region in which the number is valid."""
    for region in regions:
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return None


def _digits(text: str) -> str | None:
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    return _NO_DIGIT.sub("", text) or None


_FOLDS: dict[str, Callable[[str], str | None]] = {
    "trim": lambda text: text,
    "lower": str.lower,
    "email": _email,
    "digits": _digits,
}


class Normalizer:
    """The rules of one identifier type, applied to one value at a time.

    :param name: the identifier type, for messages.
    :raises ConfigurationError: a block pattern is no regular expression.
    """

    def __init__(self, name: str, rule: Identifier) -> None:
        self._fold = _FOLDS.get(rule.normalize)
        self._region = rule.region
        self._patterns = [_pattern(name, pattern).fullmatch for pattern in rule.block_patterns]
        self._blocked = {self._fit(value.strip(), None) or value.strip() for value in rule.block}

    def __call__(self, text: str, region: str | None = None) -> tuple[str | None, str | None]:
        """The comparable value and None; or None and the reason; or twice None for a blank text.

        A value is blocked in the form in which it was written as well as in the one it is compared in, so
        that ``-1`` stays blocked where only digits are kept.

        :param region: two-letter country of the row, for phone numbers.
        """
        written = text.strip()
        if not written:
            return None, None
        value = self._fit(written, region)
        if self._is_blocked(written) or (value is not None and value != written and self._is_blocked(value)):
            return None, BLOCKED
        return (value, None) if value is not None else (None, INVALID)

    def _fit(self, text: str, region: str | None) -> str | None:
        if self._fold is not None:
            return self._fold(text)
        own = region.strip().upper() if region else None
        tried = [own, self._region] if own in phonenumbers.SUPPORTED_REGIONS else [self._region]
        return _phone(text, tried)

    def _is_blocked(self, text: str) -> bool:
        if text in self._blocked:
            return True
        for matches in self._patterns:  # noqa: SIM110 - any() would triple the time of the commonest path
            if matches(text):
                return True
        return False


def _pattern(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        msg = (
            f"identifier {name!r} has the block pattern {pattern!r}, which is no regular expression:"
            f" {error}; correct it, or put a plain value under block"
        )
        raise ConfigurationError(msg) from error


class Dictionary:
    """Numbers the distinct identifiers of one type in the order in which they are met.

    Python looks at each distinct (value, region) of a column once, however many rows carry it.
    """

    def __init__(self, name: str, rule: Identifier) -> None:
        self._normalize = Normalizer(name, rule)
        self._codes: dict[str, int] = {}
        #: reason -> number of rows whose value was refused for it.
        self.refused: Counter[str] = Counter()

    @property
    def values(self) -> list[str]:
        """The identifiers by their number."""
        return list(self._codes)

    def encode(self, column: pa.ChunkedArray, regions: pa.ChunkedArray | None = None) -> NDArray[np.int64]:
        """The number of each row's identifier; -1 where the row has none that counts."""
        texts = _as_text(column).dictionary_encode()
        written = texts.dictionary.to_pylist()
        places = _indices(texts)
        if regions is None:
            distinct = np.fromiter((self._code(text, None) for text in written), np.int64, len(written))
        else:
            countries = _as_text(regions).dictionary_encode()
            names = [*countries.dictionary.to_pylist(), None]
            pairs = pa.array(places * len(names) + _indices(countries) % len(names)).dictionary_encode()
            distinct = np.fromiter(
                (
                    self._code(written[pair // len(names)], names[pair % len(names)]) if pair >= 0 else _NONE
                    for pair in pairs.dictionary.to_pylist()
                ),
                np.int64,
                len(pairs.dictionary),
            )
            places = _indices(pairs)
        codes: NDArray[np.int64] = np.append(distinct, _NONE)[places]
        for reason, code in _CODES.items():
            if count := int(np.count_nonzero(codes == code)):
                self.refused[reason] += count
        return np.maximum(codes, _NONE)

    def _code(self, text: str, region: str | None) -> int:
        value, reason = self._normalize(text, region)
        if value is None:
            return _CODES[reason] if reason else _NONE
        return self._codes.setdefault(value, len(self._codes))


def _indices(encoded: Any) -> NDArray[np.int64]:
    """Dictionary places as numbers, -1 for null."""
    places: NDArray[np.int32] = encoded.indices.fill_null(_NONE).to_numpy(zero_copy_only=False)
    return places.astype(np.int64)


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array of text, written alike whichever engine it came from."""
    array = column.combine_chunks()
    decimal = pa.types.is_decimal(array.type)
    array = array.cast(pa.string())
    return pc.replace_substring_regex(array, _TRAILING_ZEROS, r"\1") if decimal else array
