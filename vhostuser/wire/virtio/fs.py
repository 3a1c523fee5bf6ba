"""File system device (virtio 1.3, section 5.11).  A request is a FUSE request, its reply a FUSE reply.

Queue 0 is for requests that must not wait (FORGET, INTERRUPT).  Request queues begin at 1, or at 2 when the
notification queue was negotiated.  FUSE structures are in the guest's byte order, which its FUSE_INIT tells; like
Linux guests on the machines we know, these are little-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from construct import Bytes, Int32sl

from vhostuser.wire.schema import Structure, code, le16, le32, le64, pad, structure, wire

HIPRIO_QUEUE = 0
TAG_SIZE = 36


class FsFeature(IntFlag):
    """5.11.3 Feature bits."""

    NOTIFICATION = 1 << 0


@structure
class FsConfig(Structure):
    """5.11.4 Device configuration layout.  ``tag`` is UTF-8, padded with NUL; all 36 bytes may be used.

    ``notify_buf_size`` is there with NOTIFICATION only.
    """

    tag: bytes = wire(Bytes(TAG_SIZE))
    num_request_queues: int = wire(le32, default=1)
    notify_buf_size: int = wire(le32, default=0)


class FuseOpcode(IntEnum):
    """What a FUSE request asks for (Linux's ``enum fuse_opcode``)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


ROOT_NODEID = 1


@structure
class FuseInHeader(Structure):
    """``fuse_in_header``: the first 40 bytes that the device reads.  ``len`` counts all of them."""

    len: int = wire(le32)
    opcode: FuseOpcode | int = wire(code(le32, FuseOpcode))
    unique: int = wire(le64)
    nodeid: int = wire(le64)
    uid: int = wire(le32, default=0)
    gid: int = wire(le32, default=0)
    pid: int = wire(le32, default=0)
    total_extlen: int = wire(le16, default=0)
    _: None = pad(2)


@structure
class FuseOutHeader(Structure):
    """``fuse_out_header``: the first 16 bytes that the device writes.  ``error`` is 0 or a negative errno."""

    len: int = wire(le32)
    error: int = wire(Int32sl)
    unique: int = wire(le64)
