# SPDX-License-Identifier: Apache-2.0
"""A project without faults that uses all of the language of profiles and segments."""

from __future__ import annotations

from tests.core.project.example import GOOD

_PROFILES = """\
profiles:
  timezone: Europe/Berlin
  history: [spent, email]
  fields:
    email: {from: [crm.customers.email, web.products.owner], keep: source_priority, empty: keep}
    emails: {from: [crm.customers.email, web.products.owner], keep: list, limit: 5}
    country: {from: [crm.customers.country], keep: most_frequent}
    agreed: {from: [crm.customers.consent], keep: any}
    consent: {from: [crm.customers.consent]}
    born: {from: [crm.customers.born], keep: min}
    raw: {from: [web.events.raw]}
    lat: {from: [web.events.seconds], keep: average}
    lon: {from: [web.events.seconds], keep: first}
    own: {keep: sql, type: string, sql: "select profile_id, email as value from {crm.customers}"}
  traits:
    visits: {type: count, stream: web.events, event: Visit, within_last: 30 days}
    january: {type: exists, stream: web.events, within_last: 90 days, between: [2026-01-01, 2026-01-31]}
    spent: {type: sum, stream: web.events, column: price, where: {name: {is: Buy}}, nulls: zero, default: 0}
    prices: {type: distinct_count, stream: web.events, column: price, nulls: keep}
    last_seen: {type: last, stream: web.events, column: at}
    title: {type: first, stream: web.products, column: title, default: none}
    usual: {type: most_frequent, stream: web.events, column: name}
    names: {type: list, stream: web.events, column: name, limit: 20}
    idle: {type: days_since_last, stream: web.events}
    known_for: {type: days_since_first, stream: crm.customers}
    decile: {type: quantile, of: spent, buckets: 10, order: descending}
    rfm: {type: rfm, recency: idle, frequency: visits, monetary: spent}
    basket: {type: ratio, of: spent, over: visits, default: 0.0}
    worth: {type: formula, formula: "round(spent * 1.2, 2) if basket > 0 else 0"}
    label: {type: formula, formula: "concat(country, '!')", as: string}
    largest:
      type: sql
      as: decimal
      sql: "select profile_id, max(price) as value from {web.events} where at < :now group by profile_id"
  accounts:
    key: country
    traits:
      seats: {type: count}
      revenue: {type: sum, of: spent}
      reachable: {type: any, of: consent}
"""

_SEGMENTS = """\
segments:
  reachable:
    where: {consent: newsletters}
  staff:
    where: {trait: email, ends_with: "@example.com", ignore_case: false}
  vip:
    description: Spent 500 or more.
    where:
      all:
        - {segment: reachable}
        - {trait: spent, at_least: 500}
        - {trait: emails, contains: jo@example.com}
        - {trait: usual, like: "Vis*", matches: "[A-Z]\\\\w+"}
        - {trait: born, between_ago: [36500 days, 6570 days]}
        - {trait: last_seen, between: [2026-01-01, 2026-03-29], before_last: 7 days}
        - any:
            - {trait: last_seen, today: true}
            - {stream: web.events, event: Order, where: {price: {between: [1, 99.5]}}, at_least: 2}
            - {stream: web.events, between: [2026-01-01, 2026-12-31], sum: price, more_than: 9}
    limit: {count: 1000, by: spent, per: country, ties: include}
    except: [staff]
  abandoned:
    where:
      funnel:
        - {stream: web.events, event: View}
        - {stream: web.events, event: Hide, absent: true}
        - {stream: crm.customers, within: 1 hour, columns: {name: phone}}
        - {stream: web.events, event: Order, absent: true, within: 3 days}
      same: [name]
      within_last: 30 days
  careful:
    where:
      related: web.events
      which: all
      where: {price: {more_than: 1}}
      having:
        - related: web.products
          on: {sku: name}
          at_least: 1
  by_owner:
    where: {related: web.products, on: {title: country}, exactly: 2}
  accounts:
    where:
      all:
        - {account: revenue, at_least: 1000}
        - {members: none, where: {trait: consent, is: true}}
  mailed:
    where: {all: [{split: spring, group: mail}, {segment: reachable}]}
  nearby:
    where: {near: [52.52, 13.40], latitude: lat, longitude: lon, kilometres: 50}
  own:
    where:
      sql: "with p as (select * from {profiles}) select profile_id from p natural join {web.events}"
splits:
  spring:
    segment: reachable
    groups: {holdout: 10 %, mail: 45 %, letter: 0.45}
    stratify: [country]
exclusive:
  offers: [abandoned, careful]
suppression: [staff]
"""

LANGUAGE = GOOD[: GOOD.index("profiles:\n")] + _PROFILES + _SEGMENTS + GOOD[GOOD.index("destinations:\n") :]
