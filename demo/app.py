# SPDX-License-Identifier: Apache-2.0
"""The sample service of the demo: a payments service as it could stand anywhere.

An ordinary multi-threaded Flask application on Flask's own threaded server, which makes one thread
per request. It knows nothing of Lacuna: the stock `opentelemetry-instrument` command makes its
spans, and the standard OTEL_EXPORTER_OTLP_ENDPOINT says where they go.

Each route takes the amount of its work from the request, so that one route can be asked for a
little many times and for a lot once. Nothing here sleeps: where a request is slow, the kernel knows
why and the application does not.
"""

import hashlib
import os
import threading

from flask import Flask
from flask import request

app = Flask("payments")

# One ledger, one writer at a time.
ledger = threading.Lock()


def hash_rounds(salt: bytes, thousands: int) -> str:
    """Real work on the CPU: a third of a millisecond, or less, for each thousand, without the GIL."""
    return hashlib.pbkdf2_hmac("sha256", b"payment", salt, 1000 * thousands).hex()


def asked_work() -> int:
    """How many thousand rounds the caller wants; between 1 and 10,000."""
    return min(max(request.args.get("work", default=1, type=int), 1), 10_000)


@app.get("/healthz")
def healthz():
    """Is the service up?"""
    return {"ok": True}


@app.post("/payments")
def authorise_payment():
    """Scores the risk of a payment; needs a CPU and nothing else."""
    return {"score": hash_rounds(b"risk", asked_work())[:8]}


@app.get("/statements/<account>")
def render_statement(account: str):
    """Renders and signs a statement; needs a CPU and nothing else."""
    return {"account": account, "signature": hash_rounds(account.encode(), asked_work())[:8]}


@app.post("/settlements")
def settle():
    """Closes the books; holds the ledger for as long as that takes."""
    with ledger:
        return {"batch": hash_rounds(b"settlement", asked_work())[:8]}


@app.post("/transfers")
def transfer():
    """Books one transfer; needs the ledger for a moment."""
    with ledger:
        return {"entry": hash_rounds(b"transfer", asked_work())[:8]}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "0")), threaded=True)
