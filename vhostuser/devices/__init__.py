"""Devices: blk, rng.  They know chains and configuration space, and nothing of vhost-user messages."""
