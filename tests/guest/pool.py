#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A service with a few threads that sends its spans over OTLP/HTTP, and does as it is told line by line.

The first line is the port to send to. One more thread is there from the beginning and sleeps for ever.
`turn`: each thread serves some spans, sleeps of 1 to 12 ms. `step NS`: one thread serves a span of two
seconds at whose end the wall clock is set by so many nanoseconds. Each span is printed with the thread
that ran it, which is sent to nobody, and then `sent` with what the receiver answered.
"""

import http.client
import json
import os
import queue
import sys
import threading
import time

THREADS = 3
SPANS_IN_A_TURN = 24
STEPPED_S = 2

asked = [queue.Queue() for _ in range(THREADS)]
served = queue.Queue()


def in_a_span(body):
    start = time.time_ns()
    body()
    end = time.time_ns()
    trace = os.urandom(16).hex()
    return {"trace": trace, "tid": threading.get_native_id(), "start": start, "end": end}


def serve(work):
    while True:
        served.put([in_a_span(body) for body in work.get()])


def step(ns):
    time.sleep(STEPPED_S)
    time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() + ns)


def turn(number):
    for thread, work in enumerate(asked):
        microseconds = (
            1000 + (number * 7919 + thread * 3571 + at * 1237) % 11000
            for at in range(SPANS_IN_A_TURN)
        )
        work.put([lambda us=us: time.sleep(us / 1e6) for us in microseconds])
    return [span for _ in asked for span in served.get()]


def stepped(ns):
    asked[0].put([lambda: step(ns)])
    return served.get()


def otlp(spans):
    def one(span):
        return {
            "traceId": span["trace"],
            "spanId": span["trace"][:16],
            "name": "served",
            "kind": 2,
            "startTimeUnixNano": str(span["start"]),
            "endTimeUnixNano": str(span["end"]),
        }

    name = {"key": "service.name", "value": {"stringValue": "pool"}}
    scope = {"scope": {"name": "pool"}, "spans": [one(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [scope]}]}


threading.Thread(target=threading.Event().wait, daemon=True).start()
for work in asked:
    threading.Thread(target=serve, args=[work], daemon=True).start()
print("ready", flush=True)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.stdin.readline()))
for number, line in enumerate(sys.stdin):
    words = line.split()
    spans = turn(number) if words[0] == "turn" else stepped(int(words[1]))
    for span in spans:
        print(json.dumps(span))
    connection.request("POST", "/v1/traces", json.dumps(otlp(spans)), {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    print("sent", answer.status, flush=True)
