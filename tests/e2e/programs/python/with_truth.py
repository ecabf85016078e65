# SPDX-License-Identifier: Apache-2.0
"""Runs a Python program under `opentelemetry-instrument` and writes down which thread ran each span.

This is the test's own truth: a span processor notes the kernel thread id at the start and at the
end of each span, where the SDK calls it on the thread that took the time stamp. It goes to the file
that TRUTH_FILE names and nowhere else: no attribute is added, nothing that is sent changes.

A line is `span TRACE_ID SPAN_ID ROOT START_NS END_NS TIDS NAME`; ROOT is 1 where the span has no
parent in this process. When the program returns, its spans are flushed, `done` is printed, and the
process stays until its standard input closes, so that the test decides how long it lives.
"""

import os
import runpy
import sys
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

TRUTH_FD = os.open(os.environ["TRUTH_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def write_truth(line: str) -> None:
    """Appends one line; a single write, so that threads never mix."""
    os.write(TRUTH_FD, (line + "\n").encode())


class Truth(SpanProcessor):
    """Notes the threads of each span."""

    def __init__(self):
        self.started_on = {}

    def on_start(self, span, parent_context=None):
        self.started_on[span.context.span_id] = threading.get_native_id()

    def on_end(self, span):
        tids = {self.started_on.pop(span.context.span_id), threading.get_native_id()}
        root = int(span.parent is None or span.parent.is_remote)
        write_truth(
            f"span {span.context.trace_id:032x} {span.context.span_id:016x} {root} "
            f"{span.start_time} {span.end_time} {','.join(map(str, sorted(tids)))} {span.name}"
        )

    def shutdown(self):
        pass

    def force_flush(self, timeout_millis=30_000):
        return True


def main() -> None:
    provider = trace.get_tracer_provider()
    provider.add_span_processor(Truth())
    # The program imports `write_truth` from here; under its own name there would be a second file.
    sys.modules["with_truth"] = sys.modules["__main__"]
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
    provider.force_flush()
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
