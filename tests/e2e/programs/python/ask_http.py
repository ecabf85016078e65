# SPDX-License-Identifier: Apache-2.0
"""Asks a slow service through whatever stands at a port, each request in a span.

The client is `requests`, which keeps its connection. The kind of span runs many times with a trifling
wait first, so that the join learns it; the last ones sleep there, or compute there. The service is the
rival of its truth (metered.py): schedstat says how long it was on a CPU meanwhile.
Usage: ask_http.py PORT SERVICE_PID WARM_UP LONG
"""

import sys

import requests
from opentelemetry import trace

from metered import metered

tracer = trace.get_tracer("ask-http")

LONG_MS = 300


def main(port: str, service_pid: str, warm_up: str, long: str) -> None:
    with requests.Session() as session:
        # The environment may name a proxy, and the user's home a password file.
        session.trust_env = False

        def ask(what: str, milliseconds: int) -> None:
            with metered(tracer, what, [service_pid]) as name:
                url = f"http://127.0.0.1:{port}/{what}/{milliseconds}/{name}"
                session.get(url, timeout=60).raise_for_status()

        for what in ("sleep", "compute"):
            for _ in range(int(warm_up)):
                ask(what, 1)
            for _ in range(int(long)):
                ask(what, LONG_MS)


main(*sys.argv[1:])
