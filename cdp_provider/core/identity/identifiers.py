# SPDX-License-Identifier: Apache-2.0
"""From what a source wrote to an identifier that can be compared, or to why it identifies nobody.

Columns hold millions of values, so all of this works on whole Arrow columns; but for phone numbers and a
project's own functions, Python never sees a single value.
"""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.patterns import pattern_fault, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.project.identity import Identifier

#: Why a value that is there did not become an identifier.
BLOCKED, INVALID, EXCLUDED = "blocked", "invalid", "excluded"

_COUNTS, _NONE = 0, -1
_CODES = {BLOCKED: -2, INVALID: -3, EXCLUDED: -4}
_REASONS = {code: reason for reason, code in _CODES.items()}

_TEXT = pa.large_string()
_NOTHING = pa.scalar(None, _TEXT)
_TRAILING_ZEROS = r"(\.[0-9]*?[1-9])0+$|\.0*$"

#: What Unicode calls white space, for a class of RE2, whose own ``\s`` knows ASCII only.
_SPACE = r"\t-\r\x1c-\x20\x{85}\p{Z}"
_EMAIL = rf"^[^@{_SPACE}]{{1,64}}@[^@.{_SPACE}]+(?:\.[^@.{_SPACE}]+)+$"
_EMAIL_LENGTH = 254


def _trimmed(texts: pa.Array, regions: pa.Array | None) -> pa.Array:
    return texts


def _lower(texts: pa.Array, regions: pa.Array | None) -> pa.Array:
    """Case folded letter by letter, never by a letter's neighbours: all forms of sigma are one."""
    if pc.all(pc.string_is_ascii(texts)).as_py():
        return pc.ascii_lower(texts)
    return pc.replace_substring(pc.utf8_lower(texts), "ς", "σ")


def _email(texts: pa.Array, regions: pa.Array | None) -> pa.Array:
    """One ``@``, a dotted domain, no white space; no provider's own folding (dots, plus signs)."""
    addresses = _lower(texts, None)
    fits = pc.less_equal(pc.utf8_length(addresses), _EMAIL_LENGTH)
    return pc.if_else(pc.and_(fits, pc.match_substring_regex(addresses, _EMAIL)), addresses, _NOTHING)


def _digits(texts: pa.Array, regions: pa.Array | None) -> pa.Array:
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        texts = _without_foreign_digits(texts)
    digits = pc.replace_substring_regex(texts, "[^0-9]+", "")
    return pc.if_else(pc.equal(digits, ""), _NOTHING, digits)


def _without_foreign_digits(texts: pa.Array) -> pa.Array:
    foreign = _foreign_digits()
    if pc.any(pc.match_substring_regex(texts, f"[{''.join(foreign)}]")).as_py():
        for digit, characters in enumerate(foreign):
            texts = pc.replace_substring_regex(texts, f"[{characters}]", str(digit))
    return texts


@cache
def _foreign_digits() -> tuple[str, ...]:
    """Per digit, all characters beyond ASCII that stand for it in one script or another."""
    found: list[list[str]] = [[] for _ in range(10)]
    for character in map(chr, range(128, sys.maxunicode + 1)):
        if character.isdecimal():
            found[unicodedata.decimal(character)].append(character)
    return tuple(map("".join, found))


def _phone(texts: pa.Array, regions: pa.Array | None, region: str | None) -> pa.Array:
    """E.164 under the first region in which the number is valid: the row's own, then the rule's."""
    rows = [None] * len(texts) if regions is None else regions.to_pylist()
    found = (_e164(text, _tried(own, region)) for text, own in zip(texts.to_pylist(), rows, strict=True))
    return pa.array(found, _TEXT)


def _tried(own: str | None, region: str | None) -> Iterable[str | None]:
    own = own.strip().upper() if own else None
    return [own, region] if own in phonenumbers.SUPPORTED_REGIONS else [region]


def _e164(text: str, regions: Iterable[str | None]) -> str | None:
    for region in regions:
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return None


_FOLDS: dict[str, Callable[[pa.Array, pa.Array | None], pa.Array]] = {
    "trim": _trimmed,
    "lower": _lower,
    "email": _email,
    "digits": _digits,
}


class Normalizer:
    """The rules of one identifier type.

    :param name: the identifier type, for messages.
    :param excluded: further values that identify nobody, as a source writes them.
    :raises ConfigurationError: a block pattern is no regular expression, or the project's own function cannot
        be had.
    """

    def __init__(self, name: str, rule: Identifier, excluded: Sequence[str] = ()) -> None:
        #: whether a value means one thing in one region and another in another.
        self.regional = rule.normalize == "phone"
        if self.regional:
            self._fold: Callable[[pa.Array, pa.Array | None], pa.Array] = partial(_phone, region=rule.region)
        else:
            self._fold = _FOLDS.get(rule.normalize) or _own(name, rule.normalize)
        self._pattern = _pattern(name, rule.block_patterns)
        self._blocked = self._forms(rule.block)
        self._excluded = self._forms(excluded)

    def __call__(self, text: str, region: str | None = None) -> tuple[str | None, str | None]:
        """The comparable value and None; or None and the reason; or twice None for a blank text.

        :param region: two-letter country of the row, for phone numbers.
        """
        values, codes = self.column(pa.array([text], _TEXT), pa.array([region], _TEXT))
        code = int(codes[0])
        return (values[0].as_py(), None) if code == _COUNTS else (None, _REASONS.get(code))

    def column(self, texts: pa.Array, regions: pa.Array | None = None) -> tuple[pa.Array, NDArray[np.int32]]:
        """The same for many texts: comparable values, and per value 0 where it counts, else a negative code.

        A value is blocked in the form in which it was written as well as in the one it is compared in, so
        that ``-1`` stays blocked where only digits are kept.

        :param texts: without nulls.
        """
        written = pc.utf8_trim_whitespace(texts)
        values = self._fold(written, regions)
        blocked = self._is_blocked(values)
        if not values.equals(written):
            blocked = pc.or_(blocked, self._is_blocked(written))
        codes = np.full(len(texts), _COUNTS, np.int32)
        codes[_mask(pc.is_in(values, value_set=self._excluded))] = _CODES[EXCLUDED]
        codes[_mask(pc.is_null(values))] = _CODES[INVALID]
        codes[_mask(blocked)] = _CODES[BLOCKED]
        codes[_mask(pc.equal(written, ""))] = _NONE
        return values, codes

    def _forms(self, values: Sequence[str]) -> pa.Array:
        """Values in the form they are compared in; those that have none as they are."""
        written = pc.utf8_trim_whitespace(pa.array(values, _TEXT))
        return pc.coalesce(self._fold(written, None), written)

    def _is_blocked(self, values: pa.Array) -> pa.Array:
        blocked = pc.is_in(values, value_set=self._blocked)
        if self._pattern is None:
            return blocked
        return pc.or_(blocked, pc.fill_null(pc.match_substring_regex(values, self._pattern), False))


def _pattern(name: str, patterns: Sequence[str]) -> str | None:
    for pattern in patterns:
        if fault := pattern_fault(pattern):
            msg = (
                f"identifier {name!r} has the block pattern {pattern!r}, which is no regular expression that"
                f" RE2 takes: {fault}; correct it, or put a plain value under block"
            )
            raise ConfigurationError(msg)
    return whole(patterns) if patterns else None


def _own(name: str, path: str) -> Callable[[pa.Array, pa.Array | None], pa.Array]:
    """The project's own function, for columns.

    :raises ConfigurationError: there is no such function; while it works, that it does not do what is asked.
    """
    module, _, attribute = path.partition(":")
    try:
        function = getattr(import_module(module), attribute, None)
    except Exception as error:
        msg = (
            f"identifier {name!r} is normalised by {path!r}, and the import of {module!r} ends with"
            f" {type(error).__name__}: {error}; let every worker find the module, or correct the name"
        )
        raise ConfigurationError(msg) from error
    if not callable(function):
        msg = f"identifier {name!r} is normalised by {path!r}, and {module!r} has no function {attribute!r}"
        raise ConfigurationError(msg)

    def fold(texts: pa.Array, regions: pa.Array | None) -> pa.Array:
        encoded = texts.dictionary_encode()
        values = [_called(name, path, function, text) for text in encoded.dictionary.to_pylist()]
        return pa.array(values, _TEXT).take(encoded.indices)

    return fold


def _called(name: str, path: str, function: Callable[[str], Any], text: str) -> str | None:
    """What the project's function makes of a text; errors name the function and never the text."""
    try:
        value = function(text) if text else None
        if isinstance(value, str):
            value.encode()
    except Exception as error:  # noqa: BLE001 - the project's function may raise anything
        fault = f"raised {type(error).__name__}"
    else:
        if value is None or isinstance(value, str):
            return value or None
        fault = f"returned {type(value).__name__}"
    msg = (
        f"identifier {name!r} is normalised by {path!r}, which {fault} for a value; it must return text, or"
        " None for a value that identifies nobody"
    )
    # Outside of the handler, so that the error that may quote the value is not shown with this one.
    raise ConfigurationError(msg)


class Dictionary:
    """Numbers the distinct identifiers of one type in the order in which they are met.

    Each distinct (value, region) of a column is normalised once, however many rows carry it.

    :param excluded: values that a rule set by hand excludes, as a source writes them.
    """

    def __init__(self, name: str, rule: Identifier, excluded: Sequence[str] = ()) -> None:
        self._normalizer = Normalizer(name, rule, excluded)
        #: the identifiers by their number.
        self.values: pa.Array = pa.array([], _TEXT)
        #: reason -> number of rows whose value was refused for it.
        self.refused: Counter[str] = Counter()

    def encode(self, column: pa.ChunkedArray, regions: pa.ChunkedArray | None = None) -> NDArray[np.int32]:
        """The number of each row's identifier; -1 where the row has none that counts.

        :param regions: country of each row; read for phone numbers only.
        """
        encoded = _as_text(column).dictionary_encode().combine_chunks()
        texts, places, countries = encoded.dictionary, _places(encoded), None
        if regions is not None and self._normalizer.regional:
            texts, countries, places = _pairs(texts, places, regions)
        values, codes = self._normalizer.column(texts, countries)
        counts = codes == _COUNTS
        kept = values.filter(pa.array(counts))
        # Distinct texts that normalising left alone are still distinct, which saves looking.
        alone = countries is None and kept.equals(texts.filter(pa.array(counts)))
        codes[counts] = self._number(kept) if alone else self._number_repeated(kept)
        found: NDArray[np.int32] = np.append(codes, np.int32(_NONE))[places]
        for reason, code in _CODES.items():
            if count := int(np.count_nonzero(found == code)):
                self.refused[reason] += count
        return np.maximum(found, np.int32(_NONE))

    def _number_repeated(self, values: pa.Array) -> NDArray[np.int32]:
        encoded = values.dictionary_encode()
        numbers: NDArray[np.int32] = self._number(encoded.dictionary)[_places(encoded)]
        return numbers

    def _number(self, values: pa.Array) -> NDArray[np.int32]:
        """Numbers of distinct identifiers; those not met before get the next ones."""
        known = pc.index_in(values, value_set=self.values).fill_null(_NONE)
        numbers: NDArray[np.int32] = known.to_numpy(zero_copy_only=False).copy()
        fresh = numbers == _NONE
        numbers[fresh] = np.arange(np.count_nonzero(fresh)) + len(self.values)
        self.values = pa.concat_arrays([self.values, values.filter(pa.array(fresh))])
        return numbers


def _pairs(
    written: pa.Array, places: NDArray[np.int32], regions: pa.ChunkedArray
) -> tuple[pa.Array, pa.Array, NDArray[np.int32]]:
    """The distinct pairs of text and region: texts, regions (null: none), and each row's pair or -1."""
    encoded = _as_text(regions).dictionary_encode().combine_chunks()
    countries = pa.concat_arrays([encoded.dictionary, pa.nulls(1, _TEXT)])
    width = len(countries)
    of_row = places.astype(np.int64) * width + _places(encoded) % width
    pairs = pa.array(of_row, mask=places == _NONE).dictionary_encode()
    text, country = np.divmod(pairs.dictionary.to_numpy(), width)
    return written.take(pa.array(text)), countries.take(pa.array(country)), _places(pairs)


def _places(encoded: Any) -> NDArray[np.int32]:
    """Dictionary places as numbers, -1 for null."""
    places: NDArray[np.int32] = encoded.indices.fill_null(_NONE).to_numpy(zero_copy_only=False)
    return places


def _mask(flags: pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = flags.to_numpy(zero_copy_only=False)
    return mask


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as text, written alike whichever engine it came from."""
    texts = column.cast(_TEXT)
    return (
        pc.replace_substring_regex(texts, _TRAILING_ZEROS, r"\1")
        if pa.types.is_decimal(column.type)
        else texts
    )
