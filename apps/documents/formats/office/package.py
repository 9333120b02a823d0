"""Zipped documents from somewhere that is not trusted: parts are read within limits, and copied as they lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from nlpkit.apps.documents.document import ReadOptions, broken

MAX_PART = 64 * 2**20
"""Largest part that is read, in bytes as it is unpacked."""

MAX_READ = 192 * 2**20
"""Most bytes of all parts that are read of one document."""

MAX_PARTS = 20_000
"""Most parts of a document."""

_END = b"PK\x05\x06"
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True)
class Entry:
    """A part of a zip archive.

    Attributes:
        name: Its name.
        record: Its record in the central directory, as it is.
        offset: Where its own header begins.
        flags: Its flags.
        method: How it is packed.
        packed: Its size in the archive.
        size: Its size unpacked.
        checksum: Its CRC-32.
    """

    name: str
    record: bytes
    offset: int
    flags: int
    method: int
    packed: int
    size: int
    checksum: int


class Package:
    """A zip archive in memory.

    Args:
        data: The archive.
        options: What it is called.
        title: What its format is called.

    Raises:
        InputError: It is no sound zip archive, or one that is not read here: encrypted, in pieces, or over 4 GB.
    """

    def __init__(self, data: bytes, options: ReadOptions, title: str) -> None:
        self.data = data
        self.options = options
        self.title = title
        self._read: set[str] = set()
        self._used = 0
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            raise broken(title, options, "it is encrypted with a password, or in the binary format of old programs")
        self.entries: dict[str, Entry] = {}
        self._begin, self._comment = self._directory()

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def _broken(self, why: str) -> Exception:
        return broken(self.title, self.options, why)

    def _directory(self) -> tuple[int, bytes]:
        data = self.data
        at = data.rfind(_END, max(0, len(data) - 65_557))
        if at < 0 or at + 22 > len(data):
            raise self._broken("it is no zip archive, or its end is missing")
        disk, first_disk, here, count, size, begin = struct.unpack_from("<4H2I", data, at + 4)
        if disk or first_disk or here != count:
            raise self._broken("it is one of several pieces of an archive")
        if count == 0xFFFF or begin == 0xFFFFFFFF or count > MAX_PARTS:
            raise self._broken(f"it has more than {MAX_PARTS:,} parts")
        if begin + size > at:
            raise self._broken("its table of contents is damaged")
        where = begin
        for _ in range(count):
            where = self._entry(where, begin + size)
        order = sorted(self.entries.values(), key=lambda entry: entry.offset)
        for entry, end in zip(order, [*(other.offset for other in order[1:]), begin], strict=True):
            if entry.offset + _LOCAL.size + entry.packed > end:
                raise self._broken(f"its part {entry.name!r} overlaps another")
        return begin, data[at + 20 :]

    def _entry(self, where: int, end: int) -> int:
        data = self.data
        if where + _CENTRAL.size > end:
            raise self._broken("its table of contents is cut off")
        fields = _CENTRAL.unpack_from(data, where)
        mark, _, _, flags, method, _, _, checksum, packed, size = fields[:10]
        name_length, extra_length, comment_length, _, _, _, offset = fields[10:]
        stop: int = where + _CENTRAL.size + name_length + extra_length + comment_length
        if mark != b"PK\x01\x02" or stop > end:
            raise self._broken("its table of contents is damaged")
        raw = data[where + _CENTRAL.size :][:name_length]
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        if 0xFFFFFFFF in (packed, size, offset):
            raise self._broken("it has parts of more than 4 GB")
        if name in self.entries:
            raise self._broken(f"it has two parts named {name!r}")
        if data[offset : offset + 4] != b"PK\x03\x04":
            raise self._broken(f"its part {name!r} is not where it should be")
        self.entries[name] = Entry(name, data[where:stop], offset, flags, method, packed, size, checksum)
        return stop

    def read(self, name: str) -> bytes:
        """Return a part, unpacked.

        Raises:
            InputError: There is none, it is damaged or encrypted, or larger than `MAX_PART`; or all parts that were
                read are larger than `MAX_READ` together.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise self._broken(f"its part {name!r} is missing")
        if entry.flags & _ENCRYPTED:
            raise self._broken("it is encrypted")
        if entry.size > MAX_PART:
            raise self._broken(f"its part {name!r} is too large ({entry.size / 2**20:.0f} MB)")
        # A part that is read again counts once.
        self._used += 0 if name in self._read else entry.size
        self._read.add(name)
        if self._used > MAX_READ:
            raise self._broken(f"all parts together that have text are too large (over {MAX_READ / 2**20:.0f} MB)")
        return self._unpacked(entry)

    def _unpacked(self, entry: Entry) -> bytes:
        name = entry.name
        begin = entry.offset + _LOCAL.size
        _, *_, name_length, extra_length = _LOCAL.unpack_from(self.data, entry.offset)
        begin += name_length + extra_length
        packed = self.data[begin : begin + entry.packed]
        if entry.method == _STORED:
            content = packed
        elif entry.method == _DEFLATED:
            try:
                # What a header says about sizes may be a lie: no more than that is ever unpacked.
                content = zlib.decompressobj(-15).decompress(packed, entry.size + 1)
            except zlib.error as error:
                raise self._broken(f"its part {name!r} is damaged ({error})") from error
        else:
            raise self._broken(f"its part {name!r} is packed in an unusual way (method {entry.method})")
        if len(content) != entry.size or zlib.crc32(content) != entry.checksum:
            raise self._broken(f"its part {name!r} is damaged: its checksum is wrong")
        return content

    def write(self, parts: Mapping[str, bytes]) -> bytes:
        """Return the archive with some parts replaced; all else, the order included, is copied as it lies.

        Args:
            parts: New content by name; a part that is what it was counts as none.
        """
        parts = {name: new for name, new in parts.items() if new != self._unpacked(self.entries[name])}
        if not parts:
            return self.data
        order = sorted(self.entries.values(), key=lambda entry: entry.offset)
        ends = [*(entry.offset for entry in order[1:]), self._begin]
        pieces = [self.data[: order[0].offset]]
        done = len(pieces[0])
        records: dict[str, bytes] = {}
        for entry, end in zip(order, ends, strict=True):
            if entry.name in parts:
                piece, record = self._packed(entry, parts[entry.name], done)
            else:
                piece = self.data[entry.offset : end]
                record = entry.record[:42] + struct.pack("<I", done) + entry.record[46:]
            records[entry.name] = record
            pieces.append(piece)
            done += len(piece)
        directory = b"".join(records[name] for name in self.entries)
        count = len(records)
        end_record = struct.pack("<4s4H2I", _END, 0, 0, count, count, len(directory), done)
        return b"".join([*pieces, directory, end_record, self._comment])

    def _packed(self, entry: Entry, content: bytes, offset: int) -> tuple[bytes, bytes]:
        """Return a part's own header and content, and its record for the directory."""
        packed = content
        if entry.method == _DEFLATED:
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            packed = packer.compress(content) + packer.flush()
        checksum = zlib.crc32(content)
        flags = entry.flags & ~_DESCRIPTOR
        _, needed, _, method, time, date, *_, name_length, _ = _LOCAL.unpack_from(self.data, entry.offset)
        begin = entry.offset + _LOCAL.size
        name = self.data[begin : begin + name_length]
        # An extra field may hold sizes of its own; what it holds beside them is for other programs' archives.
        header = _LOCAL.pack(
            *(b"PK\x03\x04", needed, flags, method, time, date, checksum, len(packed), len(content), name_length, 0)
        )
        record = bytearray(entry.record)
        struct.pack_into("<H", record, 8, flags)
        struct.pack_into("<3I", record, 16, checksum, len(packed), len(content))
        struct.pack_into("<I", record, 42, offset)
        return header + name + packed, bytes(record)
