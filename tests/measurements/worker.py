# SPDX-License-Identifier: Apache-2.0
"""What `lacuna events` is held against: a program that reads its own counters, as the kernel gives them to
getrusage(2) and /proc/self/io, around work that it knows.

worker.py once FILE            works once; prints its counters before and after
worker.py beside               prints them, beside a hog on its own CPU, until that took it off five times
worker.py family               threads and a child; prints its counters with them before and after
worker.py segments             sends bytes to itself over TCP
worker.py on FILE              works until its input ends, with a line of counters in FILE each time

Each line of counters is JSON. Nothing here knows what Lacuna will say.
"""
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time


def counters():
    """One reading, with the children that were waited for: the shell script that `python3` may be, too.

    Its own cost is a read call.
    """
    at = time.monotonic_ns()
    file = os.open("/proc/self/io", os.O_RDONLY)
    io = dict(line.split(": ") for line in os.read(file, 4096).decode().splitlines())
    os.close(file)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "at_ns": at,
        "read_syscalls": int(io["syscr"]),
        "write_syscalls": int(io["syscw"]),
        "bytes_read_from_storage": int(io["read_bytes"]),
        "bytes_written_to_storage": int(io["write_bytes"]),
        "voluntary_switches": sum(usage.ru_nvcsw for usage in usages),
        "involuntary_switches": sum(usage.ru_nivcsw for usage in usages),
        "minor_faults": sum(usage.ru_minflt for usage in usages),
        "major_faults": sum(usage.ru_majflt for usage in usages),
    }


def say(value):
    os.write(1, (json.dumps(value) + "\n").encode())


def work(path):
    """100 writes, 200 reads, 50 short sleeps, and 1,000 pages that nobody has touched."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for _ in range(100):
        os.write(file, b"x" * 8192)
    zero = os.open("/dev/zero", os.O_RDONLY)
    for _ in range(200):
        os.read(zero, 1)
    for _ in range(50):
        time.sleep(0.0001)
    pages = bytearray(4096 * 1000)
    for at in range(0, len(pages), 4096):
        pages[at] = 1
    os.close(zero)
    os.close(file)


def once(path):
    before = counters()
    work(path)
    say({"before": before, "after": counters()})
    os._exit(0)


def beside():
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    hog = os.fork()
    if hog == 0:
        while True:
            pass
    before = counters()
    while counters()["involuntary_switches"] < before["involuntary_switches"] + 5:
        sum(range(10_000))
    os.kill(hog, signal.SIGKILL)
    os.wait4(hog, 0)
    say({"before": before, "after": counters()})
    os._exit(0)


def family():
    sleepers = [
        threading.Thread(target=lambda: [time.sleep(0.0005) for _ in range(50)]) for _ in range(4)
    ]
    before = counters()
    for sleeper in sleepers:
        sleeper.start()
    for sleeper in sleepers:
        sleeper.join()
    child = os.posix_spawn(
        "/bin/dd",
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=3000", "status=none"],
        os.environ,
    )
    os.wait4(child, 0)
    say({"before": before, "after": counters()})
    os._exit(0)


def segments():
    listener = socket.create_server(("127.0.0.1", 0))
    here = socket.create_connection(listener.getsockname())
    there, _ = listener.accept()
    for _ in range(100):
        here.sendall(b"?")
        there.recv(1)
        there.sendall(b"!")
        here.recv(1)
    os._exit(0)


def on(path):
    note = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    say("ready")
    while not select.select([0], [], [], 0)[0]:
        work(path + ".work")
        os.write(note, (json.dumps(counters()) + "\n").encode())


what, *words = sys.argv[1:]
{"once": once, "beside": beside, "family": family, "segments": segments, "on": on}[what](*words)
