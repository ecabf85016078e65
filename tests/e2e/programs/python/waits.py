# SPDX-License-Identifier: Apache-2.0
"""Known waits inside known spans: sleep, lock, pipe, CPU contention, CPU limit.

Each kind of span runs many times with a trifling wait first, so that the join learns it, and then
a few times with a long one. The truth of a long wait comes from this program's own clock and from
what the kernel counts: for the thread (/proc/thread-self/schedstat: nanoseconds on a CPU and
nanoseconds queued for one) and, where CPU_STAT_FILE names its cgroup's `cpu.stat`, throttled time.
It never comes from Lacuna:

    wait TRACE_ID SPAN_ID KIND WALL_NS ON_CPU_NS QUEUED_NS THROTTLED_NS

CPU hogs and the CPU limit are the test's: before the long waits of a kind the program prints
`ready KIND`, and goes on when it has read a line. Usage: waits.py WARM_UP LONG
"""

import contextlib
import hashlib
import os
import sys
import threading
import time

from opentelemetry import trace

from with_truth import write_truth

tracer = trace.get_tracer("waits")

LONG_WAIT_S = 0.2
SHORT_WAIT_S = 0.001
LONG_WORK = 400
SHORT_WORK = 1

CPU_STAT_FILE = os.environ.get("CPU_STAT_FILE")


def throttled_ns() -> int:
    """What the cgroup's own `cpu.stat` says: `throttled_time` (v1, ns) or `throttled_usec` (v2)."""
    if not CPU_STAT_FILE:
        return 0
    with open(CPU_STAT_FILE, encoding="ascii") as file:
        counts = dict(line.split() for line in file)
    if "throttled_time" in counts:
        return int(counts["throttled_time"])
    return 1000 * int(counts["throttled_usec"])


def readings() -> tuple[int, int, int, int]:
    """This thread's wall time, time on a CPU, time queued, and its cgroup's throttled time; ns."""
    with open("/proc/thread-self/schedstat", encoding="ascii") as file:
        on_cpu, queued, _ = map(int, file.read().split())
    return time.monotonic_ns(), on_cpu, queued, throttled_ns()


@contextlib.contextmanager
def metered(kind: str):
    """A span of that name around what is done within, and the truth about it in a line."""
    with tracer.start_as_current_span(kind) as span:
        begin = readings()
        yield
        amounts = " ".join(str(b - a) for a, b in zip(begin, readings()))
        context = span.get_span_context()
    write_truth(f"wait {context.trace_id:032x} {context.span_id:016x} {kind} {amounts}")


def hash_rounds(thousands: int) -> None:
    """Work on the CPU without the GIL: a third of a millisecond, or less, for each thousand."""
    hashlib.pbkdf2_hmac("sha256", b"wait", b"salt", 1000 * thousands)


def sleep(long: bool) -> None:
    """Asked to sleep."""
    with metered("sleep"):
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
    with metered("lock"):
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
    with metered("pipe"):
        os.read(reader, 1)
    thread.join()
    os.close(reader)
    os.close(writer)


def contend(long: bool) -> None:
    """Needs a CPU that others are on; the test starts the hogs."""
    with metered("contend"):
        hash_rounds(LONG_WORK if long else SHORT_WORK)


def throttle(long: bool) -> None:
    """Needs more CPU than its cgroup may have; the test sets the limit."""
    with metered("throttle"):
        hash_rounds(LONG_WORK if long else SHORT_WORK)


def main(warm_up: int, long: int) -> None:
    for kind in (sleep, lock, pipe, contend, throttle):
        for _ in range(warm_up):
            kind(long=False)
        print("ready", kind.__name__, flush=True)
        sys.stdin.readline()
        for _ in range(long):
            kind(long=True)
    print("ready end", flush=True)
    sys.stdin.readline()


main(int(sys.argv[1]), int(sys.argv[2]))
