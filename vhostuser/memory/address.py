"""Where a buffer lies in this process: for the few calls that want an address and not an object."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

_SIMPLE = 0  # PyBUF_SIMPLE: a run of bytes, which may be read-only


class _PyBuffer(ctypes.Structure):
    """Py_buffer, part of the stable ABI since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(buffer: mmap.mmap | memoryview) -> int:
    """The address of the buffer's first byte; it is good for as long as the caller keeps the buffer.

    ctypes' own way, ``from_buffer``, takes only what can be written to, and memory that the guest sees as ROM cannot.
    """
    found = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(found), _SIMPLE)
    try:
        return found.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))
