# SPDX-License-Identifier: Apache-2.0
"""The stand-in vendor's own behaviour, over real HTTP."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cdp_provider.testing.vendor import Applied, VendorServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CRM = {"Authorization": "Bearer shop-crm-token"}
MAIL = {"Authorization": "Bearer shop-mail-token"}
MEMBERS = "/mail/lists/news/members"


def customer(number: int, updated_at: str = "2026-06-01T10:00:00Z") -> dict[str, Any]:
    return {"customer_id": f"C{number:06}", "email": f"c{number}@example.org", "updated_at": updated_at}


@pytest.fixture
def start() -> Iterator[Callable[..., VendorServer]]:
    """Start vendors without troubles or rates (unless asked for) that are stopped after the test."""
    started: list[VendorServer] = []

    def start_one(**options: Any) -> VendorServer:
        calm = {"throttle_every": None, "fail_every": None, "mail_rate": None, "crm_rate": None}
        started.append(VendorServer(**{**calm, **options}))
        return started[-1]

    yield start_one
    for vendor in started:
        vendor.close()


@pytest.fixture
def vendor(start: Callable[..., VendorServer]) -> VendorServer:
    return start(customers=[customer(number) for number in range(1, 8)])


def add(vendor: VendorServer, *emails: str, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {**MAIL, "Idempotency-Key": key} if key else MAIL
    members = [{"email": email, "fields": fields} for email in emails]
    return httpx.post(f"{vendor.url}{MEMBERS}", json={"members": members}, headers=headers)


def read_all(vendor: VendorServer, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        query = {**params, "cursor": cursor} if cursor else params
        page = httpx.get(f"{vendor.url}/crm/customers", params=query, headers=CRM).raise_for_status().json()
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


class TestReadingTheCrm:
    def test_pages_in_order_of_update_and_id(self, vendor: VendorServer) -> None:
        vendor.put_customers([customer(2, "2026-06-02T10:00:00Z")])
        assert [found["customer_id"][-1] for found in read_all(vendor, limit=3)] == list("1345672")
        assert [request.query.count("cursor") for request in vendor.requests("/crm")] == [0, 1, 1]

    def test_an_exactly_full_last_page_has_no_successor(self, vendor: VendorServer) -> None:
        page = httpx.get(f"{vendor.url}/crm/customers?limit=7", headers=CRM).json()
        assert len(page["data"]) == 7
        assert page["next_cursor"] is None

    def test_a_page_never_holds_more_than_five_hundred(self, start: Callable[..., VendorServer]) -> None:
        vendor = start(customers=[customer(number) for number in range(1, 502)])
        page = httpx.get(f"{vendor.url}/crm/customers?limit=1000", headers=CRM).json()
        assert len(page["data"]) == 500
        assert len(read_all(vendor, limit=1000)) == 501

    def test_updated_since_is_inclusive_and_knows_time_zones(self, vendor: VendorServer) -> None:
        vendor.put_customers([customer(9, "2026-06-02T10:00:00.5Z")])
        found = read_all(vendor, updated_since="2026-06-02T12:00:00.500000+02:00", limit=2)
        assert [one["customer_id"] for one in found] == ["C000009"]
        assert read_all(vendor, updated_since="2026-06-02T10:00:00.500001Z") == []

    def test_updated_since_holds_on_later_pages_too(self, vendor: VendorServer) -> None:
        vendor.put_customers([customer(number, "2026-06-03T10:00:00Z") for number in range(4, 8)])
        found = read_all(vendor, updated_since="2026-06-03T10:00:00Z", limit=1)
        assert [one["customer_id"][-1] for one in found] == list("4567")

    @pytest.mark.parametrize("headers", [{}, MAIL, {"Authorization": "shop-crm-token"}])
    def test_refuses_strangers(self, vendor: VendorServer, headers: dict[str, str]) -> None:
        answer = httpx.get(f"{vendor.url}/crm/customers", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "unauthorized"

    @pytest.mark.parametrize(
        "query",
        ["limit=0", "limit=-1", "limit=x", "updated_since=soon", "cursor=x", "cursor=WzFd", "page=2"],
    )
    def test_refuses_parameters_it_cannot_read(self, vendor: VendorServer, query: str) -> None:
        answer = httpx.get(f"{vendor.url}/crm/customers?{query}", headers=CRM)
        assert answer.status_code == 400
        assert query.split("=")[0] in answer.json()["error"]["message"]

    def test_makes_trouble_at_fixed_requests(self, start: Callable[..., VendorServer]) -> None:
        vendor = start(throttle_every=3, fail_every=5)
        with httpx.Client(base_url=vendor.url, headers=CRM) as client:
            answers = [client.get("/crm/customers") for _ in range(15)]
        assert [number for number, one in enumerate(answers, 1) if one.status_code == 429] == [
            3,
            6,
            9,
            12,
            15,
        ]
        assert [number for number, one in enumerate(answers, 1) if one.status_code == 500] == [5, 10]
        assert answers[2].headers["Retry-After"] == "1"


class TestMailLists:
    def test_answers_per_record(self, vendor: VendorServer) -> None:
        answer = add(vendor, "a@example.org", "no address", "b@bounce.invalid", " A@Example.org", tier="gold")
        assert answer.status_code == 200
        statuses = [(one["email"], one["status"]) for one in answer.json()["results"]]
        assert statuses == [
            ("a@example.org", "created"),
            ("no address", "rejected"),
            ("b@bounce.invalid", "rejected"),
            (" A@Example.org", "updated"),
        ]
        assert answer.json()["results"][1]["reason"] == "invalid e-mail address"
        assert vendor.contacts("news") == {"a@example.org": {"tier": "gold"}}

    def test_merges_fields(self, vendor: VendorServer) -> None:
        add(vendor, "a@example.org", tier="gold", city="Bonn")
        add(vendor, "a@example.org", tier="silver")
        assert vendor.contacts("news") == {"a@example.org": {"tier": "silver", "city": "Bonn"}}
        assert vendor.contacts("other") == {}

    def test_removes(self, vendor: VendorServer) -> None:
        add(vendor, "a@example.org")
        body = {"members": [{"email": "A@example.org"}, {"email": "b@example.org"}]}
        answer = httpx.post(f"{vendor.url}{MEMBERS}/remove", json=body, headers=MAIL)
        assert [one["status"] for one in answer.json()["results"]] == ["removed", "not_found"]
        assert vendor.contacts("news") == {}

    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            (b"{", 400, "no JSON"),
            (b"[]", 422, '"members"'),
            (b'{"members": []}', 422, "at least one"),
            (b'{"members": [{"email": "a@example.org"}, {"email": null}]}', 422, "members[1].email"),
            (b'{"members": [{"email": "a@example.org", "fields": 1}]}', 422, "members[0].fields"),
        ],
    )
    def test_refuses_a_malformed_batch_as_a_whole(
        self, vendor: VendorServer, body: bytes, status: int, says: str
    ) -> None:
        answer = httpx.post(f"{vendor.url}{MEMBERS}", content=body, headers=MAIL)
        assert answer.status_code == status
        assert says in answer.json()["error"]["message"]
        assert vendor.contacts("news") == {}

    def test_refuses_more_than_a_hundred(self, vendor: VendorServer) -> None:
        assert add(vendor, *(f"c{number}@example.org" for number in range(100))).status_code == 200
        refused = add(vendor, *(f"d{number}@example.org" for number in range(101)))
        assert refused.status_code == 422
        assert "101 records were sent; at most 100" in refused.json()["error"]["message"]

    def test_refuses_the_crm_token(self, vendor: VendorServer) -> None:
        assert httpx.post(f"{vendor.url}{MEMBERS}", json={}, headers=CRM).status_code == 401


class TestWritingBackToTheCrm:
    def test_answers_per_record(self, vendor: VendorServer) -> None:
        records = [{"customer_id": name, "fields": {"ltv": 9.5}} for name in ("C000001", "C999999")]
        answer = httpx.post(f"{vendor.url}/crm/customers/batch", json={"customers": records}, headers=CRM)
        assert answer.status_code == 207
        updated, unknown = answer.json()["results"]
        assert updated == {"customer_id": "C000001", "status": "updated"}
        assert unknown["error"]["code"] == "unknown_customer"
        assert vendor.customers() == {"C000001": {"ltv": 9.5}}

    def test_is_not_read_again_as_news(self, vendor: VendorServer) -> None:
        before = read_all(vendor)
        records = {"customers": [{"customer_id": "C000001", "fields": {"ltv": 9.5}}]}
        httpx.post(f"{vendor.url}/crm/customers/batch", json=records, headers=CRM).raise_for_status()
        assert read_all(vendor) == before
        vendor.put_customers([customer(1, "2026-06-09T10:00:00Z")])
        assert vendor.customers() == {"C000001": {"ltv": 9.5}}

    def test_refuses_more_than_fifty(self, vendor: VendorServer) -> None:
        records = {"customers": [{"customer_id": "C000001"}] * 51}
        answer = httpx.post(f"{vendor.url}/crm/customers/batch", json=records, headers=CRM)
        assert answer.status_code == 422


def test_unknown_paths_and_methods_are_told(vendor: VendorServer) -> None:
    assert httpx.get(f"{vendor.url}/crm/orders", headers=CRM).status_code == 404
    refused = httpx.put(f"{vendor.url}/crm/customers", headers=CRM, json={})
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
    assert httpx.get(f"{vendor.url}{MEMBERS}", headers=MAIL).status_code == 405


def test_a_body_without_a_length_is_refused_in_json(vendor: VendorServer) -> None:
    answer = httpx.post(f"{vendor.url}{MEMBERS}", content=iter([b"{}"]), headers=MAIL)
    assert answer.status_code == 411
    assert "Content-Length" in answer.json()["error"]["message"]


def test_a_batch_that_ends_early_is_not_applied(vendor: VendorServer) -> None:
    host, port = vendor.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {MEMBERS} HTTP/1.1\r\nHost: x\r\nAuthorization: {MAIL['Authorization']}\r\n"
        body = b'{"members": [{"email": "a@example.org"}]}'
        connection.sendall(f"{head}Content-Length: {len(body) + 1}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert vendor.contacts("news") == {}


class TestRateLimit:
    def test_refuses_above_the_rate_of_a_fixed_second(self, start: Callable[..., VendorServer]) -> None:
        vendor = start(mail_rate=5)
        while time.monotonic() % 1 > 0.3:  # a whole second is needed
            time.sleep(0.01)
        with httpx.Client(base_url=vendor.url, headers=MAIL) as client:
            body = {"members": [{"email": "a@example.org", "fields": {}}]}
            answers = [client.post(MEMBERS, json=body) for _ in range(8)]
            assert [one.status_code for one in answers] == [200] * 5 + [429] * 3
            assert answers[-1].json()["error"]["code"] == "rate_limited"
            time.sleep(int(answers[-1].headers["Retry-After"]))
            assert client.post(MEMBERS, json=body).status_code == 200
        assert [one.status for one in vendor.requests("/mail")].count(429) == 3

    def test_destinations_have_windows_of_their_own(self, start: Callable[..., VendorServer]) -> None:
        vendor = start(mail_rate=0, crm_rate=None, customers=[customer(1)])
        assert add(vendor, "a@example.org").status_code == 429
        records = {"customers": [{"customer_id": "C000001"}]}
        answer = httpx.post(f"{vendor.url}/crm/customers/batch", json=records, headers=CRM)
        assert answer.status_code == 207


class TestIdempotencyKeys:
    def test_the_same_request_gets_the_stored_answer(self, vendor: VendorServer) -> None:
        first = add(vendor, "a@example.org", key="k1", tier="gold")
        again = add(vendor, "a@example.org", key="k1", tier="gold")
        assert again.content == first.content
        assert again.json()["results"][0]["status"] == "created"
        expected = Applied("mail/news", "a@example.org", "upsert", {"tier": "gold"}, times=1)
        assert vendor.applied("a@example.org") == [expected]
        logged = [(one.idempotency_key, one.records, one.replayed) for one in vendor.requests()]
        assert logged == [("k1", 1, False), ("k1", 1, True)]

    def test_another_body_is_a_conflict(self, vendor: VendorServer) -> None:
        add(vendor, "a@example.org", key="k1")
        assert add(vendor, "b@example.org", key="k1").status_code == 409
        assert list(vendor.contacts("news")) == ["a@example.org"]

    def test_a_refused_request_does_not_use_up_its_key(self, vendor: VendorServer) -> None:
        vendor.inject("/mail", status=503)
        assert add(vendor, "a@example.org", key="k1").status_code == 503
        assert add(vendor, "a@example.org", key="k1").json()["results"][0]["status"] == "created"


class TestFaults:
    def test_cut_before_acting(self, vendor: VendorServer) -> None:
        vendor.inject("/mail", cut=True)
        with pytest.raises(httpx.ReadError, match="reset"):
            add(vendor, "a@example.org", key="k1")
        assert vendor.applied() == []
        assert add(vendor, "a@example.org", key="k1").status_code == 200
        assert [one.status for one in vendor.requests()] == [None, 200]

    def test_cut_after_acting_is_told_apart_by_the_key(self, vendor: VendorServer) -> None:
        vendor.inject("/mail", cut=True, acts=True, times=2)
        for key in ("k1", None):
            with pytest.raises(httpx.ReadError):
                add(vendor, "a@example.org", key=key)
        assert vendor.applied("a@example.org")[0].times == 2
        assert [one.times for one in vendor.doubled()] == [2]

        vendor.inject("/mail", cut=True, acts=True)
        with pytest.raises(httpx.ReadError):
            add(vendor, "b@example.org", key="k2")
        assert add(vendor, "b@example.org", key="k2").json()["results"][0]["status"] == "created"
        assert [one.key for one in vendor.doubled()] == ["a@example.org"]

    def test_status_with_headers_after_some_requests(self, vendor: VendorServer) -> None:
        vendor.inject("/mail", after=1, times=2, status=429, headers={"Retry-After": "7"})
        answers = [add(vendor, f"{name}@example.org") for name in "abcd"]
        assert [one.status_code for one in answers] == [200, 429, 429, 200]
        assert answers[1].headers["Retry-After"] == "7"
        assert list(vendor.contacts("news")) == ["a@example.org", "d@example.org"]

    @pytest.mark.parametrize("acts", [False, True])
    def test_malformed_answer(self, vendor: VendorServer, acts: bool) -> None:
        vendor.inject("/mail", malformed=True, acts=acts)
        answer = add(vendor, "a@example.org")
        assert answer.status_code == 200
        with pytest.raises(ValueError, match="Expecting"):
            answer.json()
        assert len(vendor.contacts("news")) == acts

    def test_huge_answer(self, vendor: VendorServer) -> None:
        vendor.inject("/crm", body_bytes=3_000_000)
        assert len(httpx.get(f"{vendor.url}/crm/customers", headers=CRM).content) == 3_000_000

    def test_delay_before_and_after_acting(self, vendor: VendorServer) -> None:
        for acts, contacts in ((False, 0), (True, 1)):
            vendor.inject("/mail", delay=0.3, acts=acts)
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(add, vendor, f"{acts}@example.org".lower())
                time.sleep(0.15)
                assert len(vendor.contacts("news")) == contacts + (1 if acts else 0)
                assert answer.result().status_code == 200

    def test_down_until_cleared(self, vendor: VendorServer) -> None:
        vendor.inject(down=True, times=None)
        assert [add(vendor, "a@example.org").status_code for _ in range(3)] == [503] * 3
        vendor.clear_faults()
        assert add(vendor, "a@example.org").status_code == 200

    def test_only_one_trouble_at_a_time(self, vendor: VendorServer) -> None:
        with pytest.raises(ValueError, match="cut and down"):
            vendor.inject(cut=True, down=True)
        with pytest.raises(ValueError, match="at least|shortest"):
            vendor.inject(body_bytes=1)


class TestControlOverHttp:
    def test_faults(self, vendor: VendorServer) -> None:
        ordered = httpx.post(
            f"{vendor.url}/_/faults", json={"path_prefix": "/mail", "status": 500, "times": 2}
        )
        assert [fault["left"] for fault in ordered.json()] == [2]
        assert add(vendor, "a@example.org").status_code == 500
        assert httpx.get(f"{vendor.url}/_/faults").json()[0]["left"] == 1
        assert httpx.delete(f"{vendor.url}/_/faults").json() == []
        assert add(vendor, "a@example.org").status_code == 200

    def test_says_what_is_wrong_with_an_order(self, vendor: VendorServer) -> None:
        refused = httpx.post(f"{vendor.url}/_/faults", json={"stauts": 500})
        assert refused.status_code == 400
        assert "stauts" in refused.json()["error"]["message"]
        assert httpx.post(f"{vendor.url}/_/faults", json=[]).status_code == 400
        assert httpx.get(f"{vendor.url}/_/nothing").status_code == 404

    def test_state_requests_and_writes(self, vendor: VendorServer) -> None:
        add(vendor, "a@example.org", tier="gold")
        state = httpx.get(f"{vendor.url}/_/state").json()
        assert state["contacts"] == {"news": {"a@example.org": {"tier": "gold"}}}
        assert state["requests"] == {f"POST {MEMBERS} 200": 1}
        logged = httpx.get(f"{vendor.url}/_/requests?path_prefix=/mail").json()
        assert [(one["method"], one["status"], one["records"]) for one in logged] == [("POST", 200, 1)]
        assert httpx.get(f"{vendor.url}/_/requests?path_prefix=/crm").json() == []
        applied = httpx.get(f"{vendor.url}/_/applied", params={"key": "a@example.org"}).json()
        assert [(one["payload"], one["times"]) for one in applied] == [({"tier": "gold"}, 1)]

    def test_new_customers(self, vendor: VendorServer) -> None:
        httpx.post(f"{vendor.url}/_/customers", json={"customers": [customer(8)]}).raise_for_status()
        assert len(read_all(vendor)) == 8
        refused = httpx.post(f"{vendor.url}/_/customers", json={"customers": [{"customer_id": "C1"}]})
        assert "lacks customer_id or updated_at" in refused.json()["error"]["message"]


class TestLifecycle:
    def test_state_survives_a_restart(self, start: Callable[..., VendorServer], tmp_path: Path) -> None:
        first = start(state=tmp_path / "vendor.sqlite", customers=[customer(1)])
        add(first, "a@example.org", key="k1")
        first.close()
        second = start(state=tmp_path / "vendor.sqlite")
        assert list(second.contacts("news")) == ["a@example.org"]
        assert [one["customer_id"] for one in read_all(second)] == ["C000001"]
        add(second, "a@example.org", key="k1")
        assert second.doubled() == []
        assert len(second.requests("/mail")) == 2

    def test_close_ends_idle_connections_and_delays(self, start: Callable[..., VendorServer]) -> None:
        vendor = start()
        vendor.inject("/mail", delay=60)
        with httpx.Client(base_url=vendor.url) as idle, ThreadPoolExecutor(1) as pool:
            idle.get("/_/health").raise_for_status()
            running = pool.submit(add, vendor, "a@example.org")
            time.sleep(0.1)
            began = time.perf_counter()
            vendor.close()
            vendor.close()
            assert time.perf_counter() - began < 2
            assert running.result().status_code == 200
            with pytest.raises(httpx.TransportError):
                idle.get("/_/health")

    def test_missing_data_says_how_to_make_it(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="cdp_provider.testing.shop"):
            VendorServer(data=tmp_path)

    def test_keeps_connections_and_serves_many_at_once(self, vendor: VendorServer) -> None:
        def send(worker: int) -> list[int]:
            with httpx.Client(base_url=vendor.url, headers=MAIL) as client:
                bodies = [{"members": [{"email": f"c{worker}.{n}@example.org"}]} for n in range(25)]
                return [client.post(MEMBERS, json=body).status_code for body in bodies]

        with ThreadPoolExecutor(8) as pool:
            assert set().union(*map(set, pool.map(send, range(8)))) == {200}
        assert len(vendor.contacts("news")) == 200
        assert len(vendor.requests()) == 200
