#!/usr/bin/env python3
"""delay.py NAMESPACE_A NAMESPACE_B MILLISECONDS: joins two network namespaces by a slow link.

A TAP device `link0` in each; a frame that goes into one comes out of the other so much
later, in both directions. For kernels without the netem queueing discipline.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def tap(namespace):
    """A TAP device in a network namespace. This process stays in the last one it entered."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", encoding="ascii") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"link0", IFF_TAP | IFF_NO_PI))
    return device


def main():
    first, second = tap(sys.argv[1]), tap(sys.argv[2])
    delay = float(sys.argv[3]) / 1000
    other = {first: second, second: first}
    # (due, device, frame); one delay for all frames, so they are due in order.
    queue = collections.deque()
    poll = select.poll()
    poll.register(first, select.POLLIN)
    poll.register(second, select.POLLIN)
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) * 1000 if queue else None
        for device, _ in poll.poll(wait):
            try:
                for _ in range(64):
                    frame = os.read(device, 65536)
                    queue.append((time.monotonic() + delay, other[device], frame))
            except BlockingIOError:
                pass
            except OSError:
                time.sleep(0.01)  # the device is not up yet
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, device, frame = queue.popleft()
            try:
                os.write(device, frame)
            except OSError:
                pass  # full or down: lost, as on a real link


main()
