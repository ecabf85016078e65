#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints every BPF program, map and link of the kernel by its number, whoever holds it or nobody.

By the system call itself (BPF_*_GET_NEXT_ID), so that it is no tool's view. Needs CAP_SYS_ADMIN.
"""

import ctypes
import errno
import os
import struct
import sys

BPF_SYSCALL_X86_64 = 321
KINDS = {"prog": 11, "map": 12, "link": 31}

libc = ctypes.CDLL(None, use_errno=True)


def numbers(command):
    number = 0
    while True:
        # start_id, next_id, open_flags; the rest of the attributes must be zero.
        attributes = ctypes.create_string_buffer(struct.pack("IIII", number, 0, 0, 0), 16)
        if libc.syscall(BPF_SYSCALL_X86_64, command, attributes, 12) < 0:
            if ctypes.get_errno() == errno.ENOENT:
                return
            sys.exit(os.strerror(ctypes.get_errno()))
        number = struct.unpack("IIII", attributes.raw)[1]
        yield number


for kind, command in KINDS.items():
    for number in numbers(command):
        print(kind, number)
