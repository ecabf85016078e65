# SPDX-License-Identifier: Apache-2.0
"""Known waits inside known spans: sleep, lock, pipe, CPU contention on all CPUs and on one, CPU limit.

Each kind of span runs many times with a trifling wait first, so that the join learns it, and then
a few times with a long one. The truth of a long wait comes from this program's own clock and from
what the kernel counts (metered.py). It never comes from Lacuna.

CPU hogs and the CPU limit are the test's: before the long waits of a kind the program prints
`ready KIND`, and goes on when it has read a line, of the process ids of the rivals if there are any.
Usage: waits.py WARM_UP LONG
"""

import hashlib
import os
import sys
import threading
import time

from opentelemetry import trace

from metered import metered

tracer = trace.get_tracer("waits")

LONG_WAIT_S = 0.2
SHORT_WAIT_S = 0.001
LONG_WORK = 400
SHORT_WORK = 1

CPUS = os.sched_getaffinity(0)

# Process ids of the hogs, while there are any.
rivals: list[str] = []


def hash_rounds(thousands: int) -> None:
    """Work on the CPU without the GIL: a third of a millisecond, or less, for each thousand."""
    hashlib.pbkdf2_hmac("sha256", b"wait", b"salt", 1000 * thousands)


def sleep(long: bool) -> None:
    """Asked to sleep."""
    with metered(tracer, "sleep", rivals):
        time.sleep(LONG_WAIT_S if long else SHORT_WAIT_S)


def lock(long: bool) -> None:
    """Needs a lock that a thread within a span of its own holds: Python's is a semaphore."""
    held = threading.Event()
    the_lock = threading.Lock()

    def holder() -> None:
        with tracer.start_as_current_span("lock.holder"):
            with the_lock:
                held.set()
                time.sleep(LONG_WAIT_S if long else SHORT_WAIT_S)

    thread = threading.Thread(target=holder, name="lock-holder")
    thread.start()
    held.wait()
    with metered(tracer, "lock", rivals):
        the_lock.acquire()
    thread.join()


def pipe(long: bool) -> None:
    """Reads a pipe into which another thread writes later."""
    reader, writer = os.pipe()

    def answer() -> None:
        time.sleep(LONG_WAIT_S if long else SHORT_WAIT_S)
        os.write(writer, b"x")

    thread = threading.Thread(target=answer, name="pipe-writer")
    thread.start()
    with metered(tracer, "pipe", rivals):
        os.read(reader, 1)
    thread.join()
    os.close(reader)
    os.close(writer)


def contend(long: bool) -> None:
    """Needs a CPU that others are on; the test starts the hogs."""
    with metered(tracer, "contend", rivals):
        hash_rounds(LONG_WORK if long else SHORT_WORK)


def share(long: bool) -> None:
    """Needs the only CPU that its rivals may be on: it waits for as long as they have it."""
    for process in (0, *map(int, rivals)):
        os.sched_setaffinity(process, {min(CPUS)})
    with metered(tracer, "share", rivals):
        hash_rounds(LONG_WORK if long else SHORT_WORK)
    os.sched_setaffinity(0, CPUS)


def throttle(long: bool) -> None:
    """Needs more CPU than its cgroup may have; the test sets the limit."""
    with metered(tracer, "throttle", rivals):
        hash_rounds(LONG_WORK if long else SHORT_WORK)


def main(warm_up: int, long: int) -> None:
    for kind in (sleep, lock, pipe, contend, share, throttle):
        for _ in range(warm_up):
            kind(long=False)
        print("ready", kind.__name__, flush=True)
        rivals[:] = sys.stdin.readline().split()
        for _ in range(long):
            kind(long=True)
    print("ready end", flush=True)
    sys.stdin.readline()


main(int(sys.argv[1]), int(sys.argv[2]))
