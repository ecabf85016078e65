# SPDX-License-Identifier: Apache-2.0
"""A span around a wait, and the truth about that wait, by this program's own clock and by what the
kernel counts (readings.py): for the thread (schedstat: nanoseconds on a CPU and nanoseconds queued for
one), for its rivals (nanoseconds on a CPU, together) and, where CPU_STAT_FILE names its cgroup's
`cpu.stat`, throttled time. It never comes from Lacuna. It is a line of the truth:

    wait TRACE_ID SPAN_ID KIND WALL_NS ON_CPU_NS QUEUED_NS THROTTLED_NS RIVALS_NS
"""

import contextlib

import readings
from with_truth import write_truth


@contextlib.contextmanager
def metered(tracer, kind: str, rivals: list[str]):
    """A span of that name around what is done within, given the span's id, and the truth about it."""
    with tracer.start_as_current_span(kind) as span:
        context = span.get_span_context()
        begin = readings.read(rivals)
        yield f"{context.span_id:016x}"
        amounts = begin.until(readings.read(rivals))
    write_truth(f"wait {context.trace_id:032x} {context.span_id:016x} {kind} {amounts}")
