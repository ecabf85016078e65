# SPDX-License-Identifier: Apache-2.0
"""What the kernel has counted for this thread, all of it at one instant.

The counters are in several files, and the clock in none. A thread that is switched out between two
of them would put that wait into the one and not into the other: behind CPU hogs this happened to
one reading in a hundred, and was mistaken for an error of the measured program. So a reading counts
only if the thread stayed on its CPU from the first file to the last.
"""

import os
import time
from typing import NamedTuple

CPU_STAT_FILE = os.environ.get("CPU_STAT_FILE")


class Reading(NamedTuple):
    """Nanoseconds: the clock, then what has been counted so far."""

    wall: int
    on_cpu: int
    queued: int
    throttled: int
    rivals: int

    def until(self, later: "Reading") -> str:
        """What was counted from here to a later reading, as words of a line."""
        return " ".join(str(b - a) for a, b in zip(self, later))


def schedstat(task: str) -> tuple[int, int, int]:
    """Of a thread: nanoseconds on a CPU, nanoseconds queued for one, how often it came on one."""
    with open(f"/proc/{task}/schedstat", encoding="ascii") as file:
        on_cpu, queued, runs = map(int, file.read().split())
    return on_cpu, queued, runs


def throttled_ns() -> int:
    """What the cgroup's own `cpu.stat` says: `throttled_time` (v1, ns) or `throttled_usec` (v2)."""
    if not CPU_STAT_FILE:
        return 0
    with open(CPU_STAT_FILE, encoding="ascii") as file:
        counts = dict(line.split() for line in file)
    if "throttled_time" in counts:
        return int(counts["throttled_time"])
    return 1000 * int(counts["throttled_usec"])


def read(rivals: list[str]) -> Reading:
    """Of this thread, and how long those processes of one thread have been on CPUs."""
    while True:
        on_cpu, queued, runs = schedstat("thread-self")
        wall = time.monotonic_ns()
        reading = Reading(
            wall, on_cpu, queued, throttled_ns(), sum(schedstat(pid)[0] for pid in rivals)
        )
        if schedstat("thread-self")[2] == runs:
            return reading
