"""Virtqueues, both sides: chains of guest memory in, used elements out.

`vhostuser.virtqueue.queue` has the two interfaces and opens them; `vhostuser.virtqueue.chain` is what a device works
on.  Knows no message and no file descriptor.
"""
