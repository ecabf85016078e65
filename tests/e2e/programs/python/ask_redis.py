# SPDX-License-Identifier: Apache-2.0
"""Reads a key of Redis, each time in a span, and in the last ones while a script of another client runs.

What is known without Lacuna: by schedstat, how long the server's one thread that serves was on a CPU
meanwhile (as that of a rival, metered.py); and by the server's own slow log, how long the script took. Of
each of the last spans it prints a line:

    script SPAN_ID SCRIPT_NS

Usage: ask_redis.py PORT SERVER_PID WARM_UP LONG
"""

import sys
import threading
import time

import redis
from opentelemetry import trace

from metered import metered

tracer = trace.get_tracer("ask-redis")

SCRIPT = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i % 7 end return n"
# Some 300 ms of Lua's time.
ROUNDS = 40_000_000
# Of the server's time on a CPU: it is in the script, and by far not at its end.
UNDER_WAY_NS = 12_000_000


def ran_clock(pid: int) -> int:
    """The clock of another process's time on CPUs, as clock_getcpuclockid(3) makes it.

    It is exact also while the process runs; and to read it brings schedstat up to date, which else is as
    of the latest tick.
    """
    return (~pid << 3) | 2


def behind_a_script(client: redis.Redis, other: redis.Redis, server_pid: str) -> None:
    """One read while a script of another client runs."""
    ran = ran_clock(int(server_pid))
    ran_before = time.clock_gettime_ns(ran)
    thread = threading.Thread(target=other.eval, args=(SCRIPT, 0, ROUNDS), name="scripting")
    thread.start()
    while time.clock_gettime_ns(ran) - ran_before < UNDER_WAY_NS:
        time.sleep(0.001)
    with metered(tracer, "get", [server_pid]) as name:
        client.get("key")
    thread.join()
    script = client.slowlog_get(1)[0]
    assert script["command"].startswith(b"EVAL"), script
    print("script", name, script["duration"] * 1000, flush=True)


def main(port: str, server_pid: str, warm_up: str, long: str) -> None:
    with redis.Redis(port=int(port)) as client, redis.Redis(port=int(port)) as other:
        other.ping()
        for _ in range(int(warm_up)):
            with metered(tracer, "get", [server_pid]):
                client.get("key")
        for _ in range(int(long)):
            behind_a_script(client, other, server_pid)


main(*sys.argv[1:])
