# SPDX-License-Identifier: Apache-2.0
"""A client whose clock is wrong by a constant: its spans say 180 ms later than it was.

With such time stamps the threads that were on a CPU then are the wrong ones; nothing may be joined.
Usage: biased_clock.py SPANS
"""

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace

tracer = trace.get_tracer("biased-clock")

WORKERS = 4
BIAS_NS = 180_000_000


def biased_now() -> int:
    """The client's own idea of the time, Unix nanoseconds."""
    return time.time_ns() + BIAS_NS


def handle(number: int) -> None:
    """One request; it holds a CPU for a short part of its time."""
    span = tracer.start_span("quote", start_time=biased_now())
    hashlib.pbkdf2_hmac("sha256", b"quote", b"salt", 1000)
    time.sleep(0.001 * (1 + number % 5))
    span.end(end_time=biased_now())
    time.sleep(0.001 * (number % 3))


def main(spans: int) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(handle, number) for number in range(spans)]:
            future.result()


main(int(sys.argv[1]))
