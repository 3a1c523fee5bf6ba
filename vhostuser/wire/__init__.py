"""The bytes of vhost-user and virtio as data: layouts, codes, feature bits, and one `CATALOG` of messages.

Nothing in this package decides anything or does any I/O; it is the part one can read against the specifications.
"""
