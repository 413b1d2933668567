# SPDX-License-Identifier: Apache-2.0
"""A large project is read in well under a second: Airflow does it at every parse."""

from __future__ import annotations

import time

from tests.core.project.example import GOOD, load_text


def large(streams: int, traits: int, segments: int) -> str:
    """The good project with many more parts."""
    stream = GOOD[GOOD.index("      products:\n") : GOOD.index("identity:")]
    more_streams = "".join(stream.replace("products:", f"more_{i}:") for i in range(streams))
    more_traits = "".join(
        f"    t{i}: {{type: sum, stream: web.events, column: price, where: {{name: N{i}}}}}\n"
        for i in range(traits)
    )
    more_segments = "".join(
        f"  s{i}:\n    where:\n      all:\n"
        f"        - {{trait: t{i % traits}, at_least: {i}}}\n"
        f"        - {{stream: web.events, event: E{i}, within_last: 7 days}}\n"
        f"        - any: [{{trait: consent, is: true}}, {{segment: reachable}}]\n"
        for i in range(segments)
    )
    return (
        GOOD.replace("identity:\n", f"{more_streams}identity:\n", 1)
        .replace("segments:\n", f"{more_traits}segments:\n", 1)
        .replace("destinations:\n", f"{more_segments}destinations:\n", 1)
    )


def test_a_large_project_loads_in_a_second():
    text = large(streams=100, traits=200, segments=500)
    start = time.process_time()
    project = load_text(text)
    seconds = time.process_time() - start
    assert len(project.segments) == 502
    assert len(project.profiles.traits) == 204
    assert len(list(project.streams())) == 103
    assert seconds < 1, f"{seconds:.2f} s"
