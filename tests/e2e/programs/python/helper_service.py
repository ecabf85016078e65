# SPDX-License-Identifier: Apache-2.0
"""A thread pool of six beside a helper thread that is on a CPU more than half of the time.

The helper is a candidate for most time stamps and runs none of the spans: whoever believes a sole
candidate blindly names it. Usage: helper_service.py SPANS
"""

import hashlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace

tracer = trace.get_tracer("helper-service")

WORKERS = 6


def hash_rounds(thousands: float) -> None:
    """Work on the CPU without the GIL: a third of a millisecond, or less, for each thousand."""
    hashlib.pbkdf2_hmac("sha256", b"index", b"salt", int(1000 * thousands))


def helper(stop: threading.Event) -> None:
    """Compacts an index, for ever: about two thirds of the time on a CPU."""
    while not stop.is_set():
        hash_rounds(4)
        time.sleep(0.001)


def handle(number: int) -> None:
    """One request: a little work, a wait, a little work."""
    with tracer.start_as_current_span("lookup"):
        hash_rounds(0.5)
        time.sleep(0.001 * (1 + number % 7))
        hash_rounds(0.2)
    time.sleep(0.002)


def main(spans: int) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=helper, args=(stop,), name="compactor")
    thread.start()
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for future in [pool.submit(handle, number) for number in range(spans)]:
                future.result()
    finally:
        stop.set()
        thread.join()


main(int(sys.argv[1]))
