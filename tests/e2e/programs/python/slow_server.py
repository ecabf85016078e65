# SPDX-License-Identifier: Apache-2.0
"""A slow service over HTTP, one connection at a time, that says by its own clock what it did.

It knows nothing of spans or of Lacuna. `GET /sleep/MS/ID` sleeps that long and `GET /compute/MS/ID` computes
that long; ID is the caller's name for the request. When it listens it prints `port PORT`, and for each
request a line: nanoseconds blocked by its clock less what schedstat says it ran and queued, then both of
these:

    served ID BLOCKED_NS ON_CPU_NS QUEUED_NS
"""

import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import readings


class Handler(BaseHTTPRequestHandler):
    """Keeps its connections; an answer is one segment."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        _, what, milliseconds, name = self.path.split("/")
        begin = readings.read([])
        if what == "sleep":
            time.sleep(int(milliseconds) / 1e3)
        else:
            until = time.thread_time_ns() + int(milliseconds) * 1_000_000
            while time.thread_time_ns() < until:
                pass
        end = readings.read([])
        on_cpu, queued = end.on_cpu - begin.on_cpu, end.queued - begin.queued
        blocked = max(0, end.wall - begin.wall - on_cpu - queued)
        # Before the answer, so that whoever has the answer finds the line.
        print("served", name, blocked, on_cpu, queued, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
