#!/usr/bin/env python3
"""qmp.py SOCKET COMMAND [NAME=VALUE...]: tells a running QEMU something; waits for its answer."""

import json
import os
import socket
import sys


def value(text):
    """`true`, `false` and numbers are themselves, all else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def ask(stream, command, arguments):
    """One command; events that come before its answer are passed over."""
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "error" in answer:
            sys.exit(f"{command}: {answer['error']['desc']}")
        if "return" in answer:
            return


def main():
    # The path of a socket may be no longer than 107 bytes.
    os.chdir(os.path.dirname(sys.argv[1]))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.basename(sys.argv[1]))
    stream = connection.makefile("rw")
    stream.readline()  # its greeting
    ask(stream, "qmp_capabilities", {})
    pairs = (word.split("=", 1) for word in sys.argv[3:])
    ask(stream, sys.argv[2], {name: value(text) for name, text in pairs})


main()
