# SPDX-License-Identifier: Apache-2.0
"""A vendor in trouble: refusals, throttles, cut connections, dead hours; and what is written down of them."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cdp_provider.core.exceptions import (
    AccessError,
    DeliveryError,
    RateLimitedError,
    UnavailableError,
)
from tests.core.activation.scene import QUICK, mail, person, put_profiles

LIST = "/mail/lists/news/members"


def expected(*numbers, **changed):
    return {person(n)["email"]: {"FIRSTNAME": f"Person {n}", "COUNTRY": "DE", **changed} for n in numbers}


def test_whole_refusal_is_halved_until_the_culprit_stands_alone(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(1, 41)])
    vendor.inject(LIST, status=422, times=4)  # 40 -> 20 -> 10 -> 5, then the vendor takes the rest
    report = scene.sync(0, destination=mail(batch=40))
    assert report.rows_out == 40
    assert [r.records for r in vendor.requests(LIST) if r.status == 200] == [2, 3, 5, 10, 20]
    assert vendor.doubled() == []


def test_culprit_alone_is_rejected_with_the_vendors_words(scene, vendor):
    put_profiles(scene.warehouse, [person(1), person(2)])
    scene.sync(0)
    vendor.inject(LIST, status=400, times=2)
    put_profiles(scene.warehouse, [person(1, country="AT"), person(2, country="AT"), person(3)])
    report = scene.sync(1, destination=mail(batch=3))
    assert (report.rows_out, report.rows_refused) == (2, 1)
    state, attempts, reason = scene.ledger()[person(1)["email"]]
    assert (state, attempts) == ("rejected", 1)
    assert reason.startswith("answered 400: ")


def test_a_batch_refused_record_by_record_stops_the_sync(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(1, 51)])
    vendor.inject(LIST, status=422, times=None)
    with pytest.raises(DeliveryError, match="refused a batch of 10 records and then each of them alone"):
        scene.sync(0, destination=mail(batch=10))
    assert len(vendor.requests()) == 19
    vendor.clear_faults()
    report = scene.sync(1, destination=mail(batch=10))
    assert report.rows_out == 50


def test_throttled_waits_as_told(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(1, 4)])
    vendor.inject(LIST, status=429, headers={"Retry-After": "1"})
    report = scene.sync(0, destination=mail(batch=1))
    assert report.rows_out == 3
    assert [r.status for r in vendor.requests()] == [429, 200, 200, 200]


def test_long_throttle_is_raised_with_its_seconds_and_blocks_the_account(scene, vendor):
    put_profiles(scene.warehouse, [person(1)])
    vendor.inject(LIST, status=429, headers={"Retry-After": "3600"})
    for _ in range(2):
        with pytest.raises(RateLimitedError) as raised:
            scene.sync(0)
        assert 3590 < raised.value.retry_after <= 3600
    assert len(vendor.requests()) == 1, "the block holds for the next task too"
    assert scene.ledger()[person(1)["email"]][0] == "pending"


@pytest.mark.parametrize("acts", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("trouble", [{"cut": True}, {"status": 500}, {"malformed": True}, {"down": True}])
def test_trouble_before_and_after_the_vendor_acted_ends_once_applied(scene, vendor, acts, trouble):
    put_profiles(scene.warehouse, [person(n) for n in range(1, 6)])
    vendor.inject(LIST, times=2, after=1, acts=acts, **trouble)
    report = scene.sync(0, destination=mail(batch=2))
    assert report.rows_out == 5
    assert vendor.contacts("news") == expected(1, 2, 3, 4, 5)
    assert all(write.times == 1 for write in vendor.applied())
    assert len(vendor.requests()) == report.detail["requests"] == 5


def test_dead_destination_stops_and_goes_on_later_where_it_was(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(1, 7)])
    vendor.inject(LIST, times=4, after=1, cut=True, acts=True)
    with pytest.raises(UnavailableError, match="tried 4 times"):
        scene.sync(0, destination=mail(batch=2))
    states = [state for _, (state, _, _) in sorted(scene.ledger().items())]
    assert states == ["accepted"] * 2 + ["pending"] * 4
    assert [entry[2] for entry in scene.log()] == ["accepted"] * 2 + ["ambiguous"] * 2
    report = scene.sync(0, destination=mail(batch=2))
    assert report.rows_out == 6
    assert all(write.times == 1 for write in vendor.applied()), "the idempotency key made it once"


def test_what_may_have_arrived_is_taken_back(scene, vendor):
    """Sent, no answer, and by the next run the person has left: the ledger still knows."""
    put_profiles(scene.warehouse, [person(1), person(2)])
    vendor.inject(LIST, times=4, cut=True, acts=True)
    with pytest.raises(UnavailableError):
        scene.sync(0)
    put_profiles(scene.warehouse, [person(1)])
    scene.sync(1)
    assert vendor.contacts("news") == expected(1)


def test_an_older_value_wins_over_one_that_may_have_arrived(scene, vendor):
    put_profiles(scene.warehouse, [person(1)])
    scene.sync(0)
    put_profiles(scene.warehouse, [person(1, country="FR")])
    vendor.inject(LIST, times=4, cut=True, acts=True)
    with pytest.raises(UnavailableError):
        scene.sync(1)
    put_profiles(scene.warehouse, [person(1)])
    scene.sync(2)
    assert vendor.contacts("news") == expected(1)


def test_open_batches_of_an_earlier_window_keep_their_keys(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in (2, 4, 6)])
    vendor.inject(LIST, times=4, cut=True, acts=True)
    with pytest.raises(UnavailableError):
        scene.sync(0)
    put_profiles(scene.warehouse, [person(n) for n in range(1, 7)])
    scene.sync(1)
    assert len(vendor.contacts("news")) == 6
    assert all(write.times == 1 for write in vendor.applied())


def test_refused_token_fails_at_once_and_stays_secret(scene, vendor, caplog):
    caplog.set_level(logging.DEBUG)
    scene.token = "a-secret-that-is-wrong"
    put_profiles(scene.warehouse, [person(1)])
    with pytest.raises(AccessError, match="check the") as raised:
        scene.sync(0)
    assert len(vendor.requests()) == 1
    told = f"{raised.value!r} {caplog.text} {scene.everything()}"
    assert scene.token not in told
    assert "failed" in {row[1] for row in scene.runs()}


def test_payload_is_in_no_table_and_no_error(scene, vendor, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "Rumpelstiltskin"
    put_profiles(
        scene.warehouse,
        [person(1, first_name=secret), person(2, email="x@bounce.invalid", first_name=secret)],
    )
    scene.sync(0)
    put_profiles(scene.warehouse, [person(1, first_name=secret * 2)])
    vendor.inject(LIST, times=None, down=True)
    with pytest.raises(UnavailableError) as raised:
        scene.sync(1)
    told = f"{raised.value!r} {raised.value.__cause__!r} {caplog.text} {scene.everything()}"
    assert secret not in told
    assert person(1)["email"] not in f"{raised.value!r} {caplog.text} {scene.runs()!r}"


def test_a_proven_destination_may_refuse_some_batches_but_not_all(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(8)])
    scene.sync(0)
    put_profiles(scene.warehouse, [person(n, country="AT") for n in range(8)])
    vendor.inject(LIST, status=400, times=6)
    report = scene.sync(1, destination=mail(batch=2))
    assert (report.rows_out, report.rows_refused) == (4, 4)

    put_profiles(scene.warehouse, [person(n, country="CH") for n in range(8)])
    vendor.inject(LIST, status=400, times=None)
    with pytest.raises(DeliveryError, match="each of them alone"):
        scene.sync(2, destination=mail(batch=2))
    assert sum(state == "pending" for state, _, _ in scene.ledger().values()) == 2


def test_a_ledger_that_cannot_be_written_is_told(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(4)])
    with scene.warehouse.session() as session:
        session.execute(f"alter table {scene.warehouse.table('sync_answers')} drop column fields")
    with pytest.raises(Exception, match="fields"):
        scene.sync(0, destination=mail(batch=2))
    with scene.warehouse.session() as session:
        session.execute(f"drop table {scene.warehouse.table('product')}")
    report = scene.sync(0, destination=mail(batch=2))
    assert report.rows_out == 4
    assert all(write.times == 1 for write in vendor.applied())


def test_a_destination_that_keeps_failing_is_probed_with_one_batch(scene, vendor):
    put_profiles(scene.warehouse, [person(n) for n in range(40)])
    destination = mail(batch=10).model_copy(update={"circuit": 2})
    scene.patience = replace(QUICK, in_flight=4)
    vendor.inject(LIST, down=True, times=None)
    for day in range(2):
        for _ in range(2):  # a retry of the same run is no further failure
            with pytest.raises(UnavailableError):
                scene.sync(day, destination=destination)
    sent = len(vendor.requests())
    with pytest.raises(UnavailableError):
        scene.sync(2, destination=destination)
    assert len(vendor.requests()) == sent + 1, "one batch, once"

    vendor.clear_faults()
    assert scene.sync(3, destination=destination).rows_out == 40
    vendor.inject(LIST, down=True, times=None)
    put_profiles(scene.warehouse, [person(n, country="AT") for n in range(40)])
    sent = len(vendor.requests())
    with pytest.raises(UnavailableError):
        scene.sync(4, destination=destination)
    assert len(vendor.requests()) > sent + 1, "the success closed the circuit"
