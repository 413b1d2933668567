# SPDX-License-Identifier: Apache-2.0
"""What this package gives to those who test their own pipelines, connectors and destinations.

``cdp_provider.testing.vendor``
    A stand-in for the vendors around a customer data platform: a CRM to read from and to write back to, and
    an e-mail tool with lists. It is a real HTTP server on the loopback interface that authenticates, pages,
    throttles, refuses single records, honours idempotency keys, keeps its state across restarts and can be
    asked afterwards what it holds and what was sent to it. Faults are injected on demand, among them the
    nasty one: the vendor did the work, and the answer got lost. ::

        with VendorServer(throttle_every=None, fail_every=None) as vendor:
            vendor.inject("/mail", cut=True, acts=True)
            send_contacts(vendor.url, token="shop-mail-token")
            assert vendor.doubled() == []

    Or as a process: ``python -m cdp_provider.testing.vendor --port 9100 --state FILE --data DIR``.

``cdp_provider.testing.shop``
    The data of an invented shop, the same bytes for the same seed: CRM customers, web events, orders, with
    the troubles of real ones, and the truth about them (who is who, which lines are broken).
    ``python -m cdp_provider.testing.shop FOLDER`` writes it.

Nothing here is needed in production, and nothing here needs more than the standard library.
"""
