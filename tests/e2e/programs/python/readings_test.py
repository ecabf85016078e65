# SPDX-License-Identifier: Apache-2.0
"""A reading that was torn by a switch is taken again: fails unless `readings.read` sees to it."""

import time

import readings

clock = time.monotonic_ns
taken = []


def clock_after_a_wait() -> int:
    """The first time, the thread leaves its CPU between the counters and the clock."""
    if not taken:
        time.sleep(0.001)
    taken.append(clock())
    return taken[-1]


readings.time.monotonic_ns = clock_after_a_wait
reading = readings.read([])
assert len(taken) > 1, "the torn reading was believed"
assert reading.wall == taken[-1], "another clock than that of the whole reading"
