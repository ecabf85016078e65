#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes for tests/ladder.rs: sick and healthy ones, each with a clock of its own.

worker.py KIND NOTES [ADDRESS]: prints `ready` and goes on until it is killed. In NOTES, 8 bytes that the
test maps, is for how long it was kept waiting so far, nanoseconds, by its own clock: a step of its work
that took much longer than it can take. It knows nothing of the kernel's counters, so it is a truth.
"""

import mmap
import os
import select
import socket
import struct
import sys
import threading
import time

# A step of any of these takes some microseconds; what took longer than this was kept waiting.
STEP_NS = 200_000
# epoll_wait rounds its timeout up, and is woken by a timer.
TIMER_NS = 3_000_000

clock = time.perf_counter_ns


class Notes:
    def __init__(self, path):
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 8)
        self.late = 0

    def add(self, late):
        self.late += late
        struct.pack_into("=Q", self.map, 0, self.late)


def spin(notes, until=None):
    last = clock()
    while until is None or last < until:
        now = clock()
        if now - last > STEP_NS:
            notes.add(now - last)
        last = now


def rest(notes, ns):
    due = clock() + ns
    time.sleep(ns / 1e9)
    if clock() - due > STEP_NS:
        notes.add(clock() - due)


def spin_most(notes):
    while True:
        spin(notes, clock() + 90_000_000)
        rest(notes, 10_000_000)


def idle(_notes):
    time.sleep(3600)


def ping_pong(notes, rest_ns=0):
    there, back = os.pipe(), os.pipe()
    if os.fork() == 0:
        # The parent's end is the end of its pipe, so this ends with it.
        os.close(there[1])
        while os.read(there[0], 1):
            os.write(back[1], b"x")
        os._exit(0)
    os.close(there[0])
    while True:
        last = begun = clock()
        while not rest_ns or last - begun < 50_000_000:
            os.write(there[1], b"x")
            os.read(back[0], 1)
            now = clock()
            if now - last > STEP_NS:
                notes.add(now - last)
            last = now
        rest(notes, rest_ns)


def ping_pong_most(notes):
    ping_pong(notes, 30_000_000)


def event_loop(notes):
    poll = select.epoll()
    reader, writer = os.pipe()
    poll.register(reader, select.EPOLLIN)
    while True:
        due = clock() + 5_000_000
        poll.poll(0.005)
        late = clock() - due
        if late > TIMER_NS:
            notes.add(late)
        os.write(writer, b"x")
        poll.poll()
        os.read(reader, 1)
        spin(notes, clock() + 1_000_000)


def serve(_notes, address):
    listener = socket.create_server((address, 0))
    print(f"port {listener.getsockname()[1]}", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection):
    while data := connection.recv(4096):
        connection.sendall(data)


def ask(notes, address):
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    while True:
        asked = clock()
        connection.sendall(b"question")
        left = len(b"question")
        while left:
            left -= len(connection.recv(4096))
        # On a link without losses this takes well under a millisecond.
        if clock() - asked > TIMER_NS:
            notes.add(clock() - asked)


def crowd(_notes, threads):
    for _ in range(int(threads) - 1):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    print("all", flush=True)
    time.sleep(3600)


KINDS = {
    "spin": spin,
    "spin-most": spin_most,
    "idle": idle,
    "ping-pong": ping_pong,
    "ping-pong-most": ping_pong_most,
    "event-loop": event_loop,
    "serve": serve,
    "ask": ask,
    "crowd": crowd,
}


def main():
    kind, notes, *rest = sys.argv[1:]
    print("ready", flush=True)
    KINDS[kind](Notes(notes), *rest)


main()
