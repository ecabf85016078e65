#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes whose waits are known, and what the kernel itself counted of them.

Each worker is forked and never executes anything, so all of its life lies between its first and its last
switch; once it is dead and not yet reaped, the kernel's counters of it are final. One line of JSON is
printed for each. Called as `workers.py SCENE [ARGUMENT]`; a scene is a function below.
"""

import json
import os
import signal
import sys
import time

SLEEPS = 6
SLEEP_S = 0.06
PIPE_S = 0.3
BURN_S = 0.4
LONG_BURN_S = 1.2


def burn(cpu_s):
    """Runs until this process has had that much CPU time."""
    while time.process_time() < cpu_s:
        pass


def name(comm):
    with open("/proc/self/comm", "w") as file:
        file.write(comm)


def fork(body):
    """A child that does that and ends; what it returns are its own notes."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        notes = body() or {}
        os.write(write_end, json.dumps(notes).encode())
        os._exit(0)
    os.close(write_end)
    return pid, read_end


def counted(kind, child):
    """Waits for its death and prints what the kernel counted, with its own notes."""
    pid, read_end = child
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    # It is seen dead a moment before it leaves its CPU for good, and only then its counters rest.
    before = None
    while True:
        with open(f"/proc/{pid}/schedstat") as file:
            now = [int(word) for word in file.read().split()]
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rsplit(")", 1)[1].split()[0]
        if now == before and state in "ZX":
            break
        before = now
        time.sleep(0.02)
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    notes = json.loads(os.read(read_end, 4096) or b"{}")
    os.waitpid(pid, 0)
    line = {
        "kind": kind,
        "pid": pid,
        "on_cpu_ns": now[0],
        "queued_ns": now[1],
        "voluntary": int(status["voluntary_ctxt_switches"]),
        "involuntary": int(status["nonvoluntary_ctxt_switches"]),
    }
    print(json.dumps(line | notes), flush=True)


def sleeper():
    """Sleeps; the kernel cannot wake it early, and its own clock bounds how long it was away."""
    away_ns = 0
    for _ in range(SLEEPS):
        before = time.monotonic_ns()
        time.sleep(SLEEP_S)
        away_ns += time.monotonic_ns() - before
    return {"least_ns": int(SLEEPS * SLEEP_S * 1e9), "most_ns": away_ns}


def waits():
    """One sleeps, one waits for a pipe."""
    counted("sleep", fork(sleeper))
    read_end, write_end = os.pipe()
    told, tell = os.pipe()

    def reader():
        os.close(write_end)
        began = time.monotonic_ns()
        os.write(tell, b"x")
        os.read(read_end, 1)
        return {"began_ns": began, "most_ns": time.monotonic_ns() - began}

    child = fork(reader)
    os.read(told, 1)
    time.sleep(PIPE_S)
    print(json.dumps({"kind": "written", "at_ns": time.monotonic_ns()}), flush=True)
    os.write(write_end, b"x")
    counted("pipe", child)


def contended():
    """Shares CPU 0 with a hog that is there before and after it."""
    os.sched_setaffinity(0, {0})
    hog = os.fork()
    if hog == 0:
        name("hog")
        while True:
            pass
    try:
        counted("contended", fork(lambda: burn(BURN_S)))
    finally:
        os.kill(hog, signal.SIGKILL)
        os.waitpid(hog, 0)


def throttled():
    """Runs against the CPU limit of the group whose `cgroup.procs` is the argument."""

    def limited():
        with open(sys.argv[2], "w") as file:
            file.write("0")
        burn(BURN_S)
        with open(os.path.join(os.path.dirname(sys.argv[2]), "cpu.stat")) as file:
            stat = dict(line.split() for line in file)
        in_ns = stat.get("throttled_time")
        return {"throttled_ns": int(in_ns or int(stat["throttled_usec"]) * 1000)}

    counted("throttled", fork(limited))


def burning():
    """Several that start on the last CPUs and burn; the argument says on which, as `1,2`, how many on
    each, and where they may go on after the others have gone: anywhere."""
    cpus = [int(word) for word in sys.argv[2].split(",")]

    def burner(cpu):
        os.sched_setaffinity(0, {cpu})
        burn(LONG_BURN_S)
        time.sleep(0.01)

    children = [fork(lambda cpu=cpu: burner(cpu)) for cpu in cpus for _ in range(2)]
    print("burning", flush=True)
    for child in children:
        counted("burner", child)


def crowd():
    """As many threads as the argument says, which wait, are all there at once, and end one by one."""
    import threading

    threading.stack_size(128 << 10)
    gates = [threading.Lock() for _ in range(int(sys.argv[2]))]
    threads = []
    for gate in gates:
        gate.acquire()
        threads.append(threading.Thread(target=gate.acquire))
        threads[-1].start()
    print("crowded", flush=True)
    sys.stdin.readline()
    for gate, thread in zip(gates, threads):
        gate.release()
        thread.join()
    print("gone", flush=True)


{
    "waits": waits,
    "contended": contended,
    "throttled": throttled,
    "burning": burning,
    "crowd": crowd,
}[sys.argv[1]]()
