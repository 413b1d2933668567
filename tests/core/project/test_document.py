# SPDX-License-Identifier: Apache-2.0
"""YAML that is broken, hostile or merely surprising becomes faults with a place, never another error."""

from __future__ import annotations

import pytest

from cdp_provider.core.project.document import Document
from cdp_provider.core.project.faults import Fault, ProjectError
from cdp_provider.core.project.problems import Problem


def shown(text: str) -> list[str]:
    try:
        return [str(fault) for fault in Document(text, "f").faults]
    except ProjectError as error:
        return [str(fault) for fault in error.faults]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: [1", "f:1:", "expected ',' or ']'"),
        ("a:\n\tb: 1", "f:2:1:", "spaces"),
        ("s: @daily", "f:1:4:", "quotes"),
        ("a: b: c", "f:1:5:", "quotes"),
        ("a: 1\n---\nb: 2", "f:2:1:", "one document"),
        ("a: &x [*x]", "f:1:4 a[0]:", "contains itself"),
        ("a: *x", "f:1:4:", "undefined alias"),
        ("a: 1\nb: 2\na: 3", "f:3:1 a:", "it already stands in line 1"),
        ("s: {k: 1, k: 1}", "f:1:11 s.k:", "given twice"),
        ("a: 2026-13-45", "f:1:4 a:", "looks like a timestamp"),
        (f"a: {'9' * 5000}", "f:1:4 a:", "looks like a int"),
        ("no: 3", "f:1:1 no:", "put it in quotes: 'no'"),
        ("1: 3", "f:1:1 1:", "reads '1' as int"),
        ("? [a]\n: b", "f:1:3:", "a mapping or a list"),
        ("a: !!python/object/apply:os.system [x]", "f:1:4 a:", "tag 'python/object/apply:os.system'"),
        ("a: !!binary aGk=", "f:1:4 a:", "tag 'binary'"),
        ("a: !!set {x}", "f:1:4 a:", "tag 'set'"),
        ("a: !secret x", "f:1:4 a:", "tag '!secret'"),
        ('a: "\\0"', "f:1:4 a:", "NUL"),
        ("a: 1\n<<: 5", "f:1:1:", "takes an alias"),
        ("a: 1\nb: \x01", "f:2:1:", "does not allow"),
        ("[" * 100_000, "f:", "too deeply"),
        ("- " * 100_000, "f:", "too deeply"),
        ("[" * 100 + "]" * 100, "f:1:62", "deeper than 60"),
    ],
)
def test_faults_of_yaml(text: str, place: str, words: str):
    (fault,) = shown(text)
    assert fault.startswith(place)
    assert words in fault


def test_aliases_that_explode_are_refused():
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    faults = shown("\n".join(["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", *levels]))
    assert faults
    assert all("1,000,000 values" in fault for fault in faults)


def test_anchors_and_merges_are_resolved():
    document = Document("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a", "f")
    assert document.value == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
    assert not document.faults


def test_places():
    document = Document("a:\n  b: [1, {c: 2}]\n  d:\n    e: f", "f")

    def place(*path: str | int, at_key: bool = False) -> tuple[int, int, str]:
        fault = document.fault(Problem(path, "wrong", at_key=at_key))
        return fault.line, fault.column, fault.path

    assert place() == (1, 1, "")
    assert place("a", "b", 0) == (2, 7, "a.b[0]")
    assert place("a", "b", 1, "c") == (2, 14, "a.b[1].c")
    assert place("a", "b", 1, "c", at_key=True) == (2, 11, "a.b[1].c")
    assert place("a", "d") == (3, 3, "a.d")
    assert place("a", "d", "e", "is") == (4, 8, "a.d.e")
    assert place("a", "missing") == (1, 1, "a.missing")


def test_long_lines_are_cut_around_the_place_and_secrets_hidden():
    text = str(Fault("f", 1, 150, "p", "wrong", "hint", "x" * 149 + "!" + "y" * 100))
    line, caret = text.splitlines()[1:]
    assert len(line) < 120
    assert line[caret.index("^")] == "!"
    for secret in (
        "password: s3cret",
        "api_key: s3cret",
        "  client_secret: 's3cret'",
        "{token: s3cret, x: 1}",
    ):
        assert shown(f"{secret}\n{secret}\n\t:")
        assert "s3cret" not in "".join(shown(f"a: 1\n{secret} : : @"))
