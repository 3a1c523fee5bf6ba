"""Devices: blk, echo, rng.  They know chains and configuration space, and nothing of vhost-user messages."""
