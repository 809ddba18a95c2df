#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a 64-bit ELF of the given size whose code powers the machine off at once.

  big_kernel.py OUT BYTES
"""
import os
import struct
import sys

LOAD = 0x1000000
OFF = 0x1000
# mov dx, 0x600; mov al, 0x34; out dx, al; hlt
CODE = bytes.fromhex("66ba0006b034eef4")


def main():
    out, size = sys.argv[1], int(sys.argv[2])
    body = CODE + os.urandom(1 << 20) * (size // (1 << 20) + 1)
    body = body[:size - OFF]
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, LOAD, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    phdr = struct.pack("<IIQQQQQQ", 1, 7, OFF, LOAD, LOAD, len(body), len(body), 0x1000)
    with open(out, "wb") as f:
        f.write((head + phdr).ljust(OFF, b"\0") + body)


if __name__ == "__main__":
    main()
