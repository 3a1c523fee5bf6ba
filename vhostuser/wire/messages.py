"""The complete catalogue: importing this module imports every message, and so fills `CATALOG`."""

from __future__ import annotations

from vhostuser.wire import backend_messages, frontend_messages
from vhostuser.wire.catalog import CATALOG

__all__ = ["CATALOG", "backend_messages", "frontend_messages"]
