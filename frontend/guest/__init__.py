"""The guest's side of memory: blocks at guest addresses, and buffers in them."""

from __future__ import annotations

from frontend.guest.layout import LayoutError, Place
from frontend.guest.memory import Buffer, GuestBlock, GuestRam, NotShareable, OutOfGuestMemory

__all__ = ["Buffer", "GuestBlock", "GuestRam", "LayoutError", "NotShareable", "OutOfGuestMemory", "Place"]
