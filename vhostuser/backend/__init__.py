"""The back-end: one device, served to one front-end at a time."""

from __future__ import annotations

from vhostuser.backend.connection import Backend
from vhostuser.backend.server import serve, serve_one

__all__ = ["Backend", "serve", "serve_one"]
