"""Entropy device (virtio 1.3, section 5.4): one queue of device-writable buffers; no features, no configuration."""

from __future__ import annotations

REQUEST_QUEUE = 0
