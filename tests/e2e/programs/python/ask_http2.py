# SPDX-License-Identifier: Apache-2.0
"""Asks two slow services through one HTTP/2 connection over TLS, each request in a span.

The client is `httpx`, unmodified. A span `alone` is the only request on the connection. In a span `shared`
another thread asks for something quicker meanwhile, so that its answer arrives on the same connection while
the span's own is still owed. The services are the rivals of the truth (metered.py).
Usage: ask_http2.py PORT CERTIFICATE SERVICE_PID,SERVICE_PID WARM_UP LONG
"""

import ssl
import sys
import threading
import time

import httpx
from opentelemetry import trace

from metered import metered

tracer = trace.get_tracer("ask-http2")

LONG_MS = 400
# The other request begins and ends well within the long one.
QUICK_AFTER_MS = 80
QUICK_MS = 80


def main(port: str, certificate: str, services: str, warm_up: str, long: str) -> None:
    # The environment may name a proxy, and other certificates.
    context = ssl.create_default_context(cafile=certificate)
    base = f"https://127.0.0.1:{port}"
    with httpx.Client(
        http2=True, verify=context, trust_env=False, base_url=base, timeout=60
    ) as client:

        def get(path: str) -> None:
            answer = client.get(path)
            answer.raise_for_status()
            if answer.http_version != "HTTP/2":
                sys.exit(f"the server speaks {answer.http_version}")

        def ask(what: str, milliseconds: int) -> None:
            with metered(tracer, what, services.split(",")) as name:
                get(f"/sleep/{milliseconds}/{name}")

        def disturb() -> None:
            time.sleep(QUICK_AFTER_MS / 1e3)
            get(f"/other/sleep/{QUICK_MS}/quick")

        for what in ("alone", "shared"):
            for _ in range(int(warm_up)):
                ask(what, 1)
            for _ in range(int(long)):
                other = threading.Thread(target=disturb if what == "shared" else lambda: None)
                other.start()
                ask(what, LONG_MS)
                other.join()


main(*sys.argv[1:])
