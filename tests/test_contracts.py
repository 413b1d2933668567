# SPDX-License-Identifier: Apache-2.0
"""The contracts take what they should and refuse what they should: one that cannot be compiled would take
everything."""

from __future__ import annotations

import json

import pytest

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor
from tests.contracts import CONTRACTS, audit, audited

#: Names of the cases -> folder, and an answer that the contract forbids.
VENDORS = {
    "klaviyo": ("klaviyo", FakeAnswer(202, {"data": {"type": "profile"}})),
    "sendgrid": ("sendgrid", FakeAnswer(202, {"job_id": 5})),
    "iterable": ("iterable", FakeAnswer(200, {"successCount": "1"})),
    "google-dm": ("google-data-manager", FakeAnswer(200, {"requestId": 5})),
    "slack(form)": ("slack", FakeAnswer(200, {"ok": False})),
}


class Fixed(FakeVendor):
    """Answers the same to everything."""

    def __init__(self, answer: FakeAnswer) -> None:
        super().__init__()
        self.fixed = answer
        self.asked = 0

    def answer(self, request: FakeRequest) -> FakeAnswer:
        self.asked += 1
        return self.fixed

    def holds(self) -> dict[str, dict[str, object]]:
        return {}


def request_of(case: dict[str, object], body: object, **headers: str) -> FakeRequest:
    data = body if isinstance(body, str) else json.dumps(body)
    given = {name.lower(): value for name, value in case["headers"].items()}
    kind = {"content-type": f"{case['content_type']}; charset=utf-8"}
    return FakeRequest(case["method"], case["path"], {}, {**given, **kind, **headers}, data.encode())


@pytest.fixture(params=VENDORS)
def case(request):
    if not (CONTRACTS / "cases.json").is_file():
        pytest.skip("a public clone has no contracts of vendors")
    folder, wrong = VENDORS[request.param]
    return folder, wrong, json.loads((CONTRACTS / "cases.json").read_text())[request.param]


def test_a_request_passes_or_never_reaches_the_fake(case):
    folder, wrong, given = case
    vendor = Fixed(FakeAnswer(200))
    watched = audited(vendor, folder)
    assert watched.answer(request_of(given, given["bad"])).status == 422
    assert vendor.asked == 0
    watched.answer(request_of(given, given["good"]))
    assert vendor.asked == 1
    with pytest.raises(AssertionError, match=given["path"]):
        watched.assert_kept()


def test_an_answer_that_the_contract_forbids_is_kept(case):
    folder, wrong, given = case
    watched = audited(Fixed(wrong), folder)
    assert watched.answer(request_of(given, given["good"])).status == wrong.status
    (violation,) = watched.violations
    assert f"answered {wrong.status}" in violation


def test_a_request_without_credentials_is_refused(case):
    folder, _, given = case
    request = request_of(given, given["good"])
    secrets = {"authorization", "api-key"}
    headers = {name: value for name, value in request.headers.items() if name not in secrets}
    bare = FakeRequest(request.method, request.path, request.query, headers, request.body)
    assert audited(Fixed(FakeAnswer()), folder).answer(bare).status == 422


def test_paths_outside_of_the_slice_are_refused_unless_named(case):
    folder, _, given = case
    other = FakeRequest("POST", "/elsewhere/1", {}, {}, b"")
    assert audited(Fixed(FakeAnswer()), folder).answer(other).status == 422
    with audit(Fixed(FakeAnswer()), folder, unpublished=("/elsewhere/",)) as watched:
        assert watched.answer(other).status == 200


def test_the_wrapped_fake_is_at_hand(case):
    folder, _, _ = case
    vendor = Fixed(FakeAnswer())
    watched = audited(vendor, folder)
    watched.refuses = {"a"}
    watched.refuses.add("b")
    vendor.applied["a"] += 1
    assert vendor.refuses == {"a", "b"}
    assert watched.applied == {"a": 1}
    watched.asked = 7
    assert vendor.asked == watched.asked == 7
