"""Chains as a device sees them, compiled: the twins of `Chain`, `Reader` and `Writer` in ``virtqueue/chain.py``.

What a device can do with them, and what each call promises, stands there.  Here nothing is sliced before somebody
asks for a view: a header is copied straight out of guest memory, a status straight into it.

The driver may write to the bytes while we copy them; where they are is known from private memory alone.
"""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove
from posix.uio cimport iovec

cimport cython

from vhostuser.virtqueue.engine.memory cimport NativeMemory
from vhostuser.virtqueue.engine.types cimport Chain

from vhostuser.virtqueue.chain import ShortChain

cdef dict sizes = {}  # construct adds a size up anew each time, in 8 µs


cdef iovec *copied(const iovec *pieces, uint32_t count, iovec *few) except NULL:
    """A copy of these pieces: in ``few`` if they fit, else to be freed."""
    cdef iovec *copy = few
    if count > FEW:
        copy = <iovec *> malloc(count * sizeof(iovec))
        if copy == NULL:
            raise MemoryError
    if count:
        memcpy(copy, pieces, count * sizeof(iovec))
    return copy


@cython.no_gc
cdef class Stream:
    """Pieces of memory, used up from the front."""

    _what = "stream"

    def __dealloc__(self):
        if self.pieces != self.few:
            free(self.pieces)

    cdef int fill(self, NativeMemory memory, const iovec *pieces, uint32_t count, uint64_t total) except -1:
        self.pieces = copied(pieces, count, self.few)
        self.memory = memory
        self.end = count
        self.remaining = total
        return 0

    cdef int check(self, uint64_t length) except -1:
        if length > self.remaining:
            raise ShortChain(f"{length} {self._what} bytes needed, the chain has {self.remaining} left")
        return 0

    cdef uint64_t asked(self, object length) except? 0:
        """A number of bytes that somebody asks for; None stands for all."""
        if length is None:
            return self.remaining
        if length < 0:
            raise ValueError(f"{length} bytes asked for")
        if length > self.remaining:
            raise ShortChain(f"{length} {self._what} bytes needed, the chain has {self.remaining} left")
        return length

    cdef void skip_bytes(self, uint64_t length) noexcept:
        """Use up bytes that are known to be there."""
        cdef iovec *piece
        self.remaining -= length
        while length:
            piece = self.pieces + self.first
            if piece.iov_len > length:
                piece.iov_base = <char *> piece.iov_base + length
                piece.iov_len -= length
                return
            length -= piece.iov_len
            self.first += 1

    cdef list peek(self, uint64_t length):
        """Views of the next bytes, which are known to be there."""
        cdef list shown = []
        cdef uint32_t index = self.first
        cdef uint64_t taken
        while length:
            taken = min(length, self.pieces[index].iov_len)
            shown.append(self.memory.piece(<char *> self.pieces[index].iov_base, taken))
            length -= taken
            index += 1
        return shown


@cython.final
@cython.no_gc
cdef class NativeReader(Stream):
    """See `vhostuser.virtqueue.chain.Reader`."""

    _what = "readable"

    def read(self, length=None):
        """A copy of the next ``length`` bytes, or of all that remain."""
        cdef uint64_t wanted = self.asked(length), done = 0, taken
        cdef uint32_t index = self.first
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> wanted)
        cdef char *to = PyBytes_AsString(copy)
        while done < wanted:
            taken = min(wanted - done, self.pieces[index].iov_len)
            memcpy(to + done, self.pieces[index].iov_base, taken)
            done += taken
            index += 1
        self.skip_bytes(wanted)
        return copy

    def read_record(self, cls):
        """The next record, of a type with a fixed size."""
        size = sizes.get(cls)
        if size is None:
            size = sizes[cls] = cls.wire_size()
        return cls.parse(self.read(size))

    def skip(self, length):
        """Use up ``length`` bytes without looking."""
        self.skip_bytes(self.asked(length))

    def views(self, length=None):
        """The next ``length`` bytes, or all that remain, where they are: read-only, not copied, not consumed."""
        return [view.toreadonly() for view in self.peek(self.asked(length))]


@cython.final
@cython.no_gc
cdef class NativeWriter(Stream):
    """See `vhostuser.virtqueue.chain.Writer`."""

    _what = "writable"

    cdef uint64_t count_written(self) noexcept:
        if self.remaining or self.tail is None:
            return self.size - self.remaining
        return self.size + self.tail.count_written()

    @property
    def written(self):
        """Bytes written from the start without a gap: the used length."""
        return self.count_written()

    def write(self, data):
        """Append ``data``, all of it or nothing."""
        cdef Py_buffer source
        cdef uint64_t done = 0, length, taken
        cdef uint32_t index = self.first
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            length = <uint64_t> source.len
            self.check(length)
            while done < length:
                taken = min(length - done, self.pieces[index].iov_len)
                memmove(self.pieces[index].iov_base, <char *> source.buf + done, taken)  # it may be guest memory too
                done += taken
                index += 1
            self.skip_bytes(length)
        finally:
            PyBuffer_Release(&source)

    def write_record(self, record):
        """Append the bytes of ``record``."""
        self.write(record.build())

    def views(self, length=None):
        """The next ``length`` bytes to fill, or all that remain."""
        return self.peek(self.asked(length))

    def wrote(self, length):
        """Say that the first ``length`` bytes of `views` have been filled."""
        self.skip_bytes(self.asked(length))

    def reserve_last(self, length):
        """Set the last ``length`` bytes of the stream aside."""
        cdef uint64_t wanted = self.asked(length), left = wanted
        cdef uint32_t begin = self.end
        cdef iovec *piece
        cdef NativeWriter tail = NativeWriter.__new__(NativeWriter)
        while left:
            begin -= 1
            if self.pieces[begin].iov_len > left:
                break
            left -= self.pieces[begin].iov_len
        tail.fill(self.memory, self.pieces + begin, self.end - begin, wanted)
        tail.size = wanted
        if left:  # the first of these pieces is shared: its end is the tail's
            piece = self.pieces + begin
            piece.iov_len -= left
            tail.pieces[0].iov_base = <char *> piece.iov_base + piece.iov_len
            tail.pieces[0].iov_len = left
            begin += 1
        self.end = begin
        self.remaining -= wanted
        self.size -= wanted
        tail.tail = self.tail
        self.tail = tail
        return tail


@cython.final
@cython.no_gc
cdef class NativeChain:
    """See `vhostuser.virtqueue.chain.Chain`."""

    def __dealloc__(self):
        if self.pieces != self.few:
            free(self.pieces)

    cdef int begin(self, NativeMemory memory, object token, const Chain *chain) except -1:
        self.pieces = copied(chain.pieces, chain.readable + chain.writable, self.few)
        self.memory = memory
        self.token = token
        self.head = chain.head
        self.entries = chain.entries
        self.readable_count = chain.readable
        self.writable_count = chain.writable
        self.readable_bytes = chain.readable_bytes
        self.writable_bytes = chain.writable_bytes
        return 0

    cdef uint64_t count_written(self) noexcept:
        if self.answered:
            return self.writable_bytes
        return 0 if self.writer is None else self.writer.count_written()

    @property
    def readable(self):
        """The stream of bytes to read."""
        if self.reader is None:
            self.reader = NativeReader.__new__(NativeReader)
            self.reader.fill(self.memory, self.pieces, self.readable_count, self.readable_bytes)
        return self.reader

    @property
    def writable(self):
        """The stream of bytes to fill."""
        if self.writer is None:
            self.writer = NativeWriter.__new__(NativeWriter)
            self.writer.fill(
                self.memory, self.pieces + self.readable_count, self.writable_count, self.writable_bytes
            )
            self.writer.size = self.writable_bytes
        return self.writer

    @property
    def written(self):
        """Bytes written from the start without a gap: the used length."""
        return self.count_written()

    def frame(self, header, Py_ssize_t trailer):
        """See `vhostuser.virtqueue.chain.Chain.frame`."""
        cdef Py_ssize_t size = header.size
        cdef iovec *last = self.pieces + self.readable_count + self.writable_count - 1
        if not (self.reader is None and self.writer is None and self.readable_count and self.writable_count):
            return None
        if self.pieces.iov_len < <size_t> size or last.iov_len < <size_t> trailer:
            return None
        self.header = <size_t> size
        self.trailer = <size_t> trailer
        fields = header.unpack(PyBytes_FromStringAndSize(<char *> self.pieces.iov_base, size))
        return fields, self.readable_bytes - self.header, self.writable_bytes - self.trailer

    def dataout(self):
        """See `vhostuser.virtqueue.chain.Chain.dataout`."""
        return [view.toreadonly() for view in self.views(0, self.readable_count, self.header, 0)]

    def datain(self):
        """See `vhostuser.virtqueue.chain.Chain.datain`."""
        return self.views(self.readable_count, self.writable_count, 0, self.trailer)

    cdef list views(self, uint32_t first, uint32_t count, size_t before, size_t behind):
        """Views of ``count`` pieces, without so many bytes of the first and of the last, which are known to be there."""
        cdef list shown = []
        cdef uint32_t index
        cdef char *begin
        cdef size_t length
        for index in range(first, first + count):
            begin = <char *> self.pieces[index].iov_base
            length = self.pieces[index].iov_len
            if index == first:
                begin += before
                length -= before
            if index == first + count - 1:
                length -= behind
            if length:
                shown.append(self.memory.piece(begin, length))
        return shown

    def fill(self, data):
        """See `vhostuser.virtqueue.chain.Chain.fill`."""
        cdef Py_buffer source
        cdef uint64_t done = 0, length, taken
        cdef iovec *piece = self.pieces + self.readable_count
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            length = <uint64_t> source.len
            if length + self.trailer != self.writable_bytes:
                raise ValueError(f"{length} bytes, the frame has room for {self.writable_bytes - self.trailer}")
            while done < length:
                taken = min(length - done, piece.iov_len)
                memmove(piece.iov_base, <char *> source.buf + done, taken)  # it may be guest memory too
                done += taken
                piece += 1
        finally:
            PyBuffer_Release(&source)

    def answer(self, bytes trailer not None):
        """See `vhostuser.virtqueue.chain.Chain.answer`."""
        cdef iovec *last = self.pieces + self.readable_count + self.writable_count - 1
        if <size_t> len(trailer) != self.trailer:
            raise ValueError(f"a trailer of {len(trailer)} bytes, the frame has {self.trailer}")
        if self.trailer:
            memcpy(<char *> last.iov_base + last.iov_len - self.trailer, PyBytes_AsString(trailer), self.trailer)
        self.answered = True

    def __repr__(self):
        to_read, to_write = self.readable.remaining, self.writable.remaining
        return f"<Chain {self.head}: {to_read} to read, {self.count_written()} written, {to_write} to write>"
