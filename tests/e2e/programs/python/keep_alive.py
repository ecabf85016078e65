# SPDX-License-Identifier: Apache-2.0
"""A Flask application in a server with a thread for each connection, which clients keep open.

The stock instrumentation says of each request's span from which port it came, and the thread that
runs the request has waited for that connection: it is the second evidence of the join, beside the
time stamps. The work is done without the GIL, so that several threads are on CPUs at once.
The clients are a process of their own that is not traced, and think a little between requests. (The
server is the standard library's; Flask's own closes a connection after each request.)
Usage: keep_alive.py SPANS
"""

import hashlib
import os
import subprocess
import sys
import threading

from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer

from flask import Flask
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

CLIENTS = 12
CLIENT = """
import http.client, sys, threading, time
def ask(port, requests):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(requests):
        connection.request("GET", f"/lookup/{number}")
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        answer.read()
        time.sleep(0.001 * (number % 7))
port, clients, requests = map(int, sys.argv[1:])
threads = [threading.Thread(target=ask, args=(port, requests)) for _ in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""

app = Flask("keep-alive")


@app.get("/lookup/<int:number>")
def lookup(number: int) -> str:
    """A little work, most of it outside the GIL."""
    hashlib.pbkdf2_hmac("sha256", b"row", b"salt", 500 + 200 * (number % 5))
    return "found"


class Handler(BaseHTTPRequestHandler):
    """Serves the application, with what a WSGI server says of the other end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        builder = EnvironBuilder(self.path, headers=dict(self.headers))
        host, port = self.client_address
        environ = builder.get_environ() | {"REMOTE_ADDR": host, "REMOTE_PORT": port}
        response = Response.from_app(app, environ)
        body = response.get_data()
        self.send_response(response.status_code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        response.close()

    def log_request(self, code="-", size="-"):
        pass


class Server(ThreadingHTTPServer):
    """All clients connect at once."""

    request_queue_size = CLIENTS


def main(spans: int) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, name="accept")
    serving.start()
    arguments = [str(number) for number in (server.server_port, CLIENTS, spans // CLIENTS)]
    untraced = {"PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", CLIENT, *arguments], env=untraced, check=True)
    server.shutdown()
    serving.join()


main(int(sys.argv[1]))
