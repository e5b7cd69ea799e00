"""Archives made by hand (replicator/manifest.h), so that restores are tested against every shape of them.

Frames are asked of a real bts-replicator; parts and manifests are written here, by the documents alone.
"""
import os
import struct

PART = 16 << 20
BLOCK = 256


def _table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


TABLE = _table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Position:
    def __init__(self, epoch, random, txid, chain):
        self.epoch, self.random, self.txid, self.chain = epoch, random, txid, chain

    @classmethod
    def at(cls, data):
        """Of 40 bytes of a frame's header."""
        epoch, zero, random, txid = struct.unpack("<IIQQ", data[:24])
        return cls(epoch, random, txid, data[24:40].hex())

    def __str__(self):
        return "%d-%016x/%d/%s" % (self.epoch, self.random, self.txid, self.chain) if self.txid else "-"

    @property
    def folder(self):
        return "%08x-%016x" % (self.epoch, self.random)


def fetch(replicator, base=None, zstd=False):
    """The frame from base (None: from nothing) to the newest commit; None: there is no news."""
    target = "/v1/replication/frames?wait=0ms&after=%d" % (base.txid if base else 0)
    if base:
        target += "&epoch=%d-%016x&chain=%s" % (base.epoch, base.random, base.chain)
    if zstd:
        target += "&zstd=1"
    reply = replicator.get(target)
    assert reply.status in (200, 204), reply
    return reply.body if reply.status == 200 else None


class Entry:
    def __init__(self, frame, nonce, time_ms):
        assert frame[:8] == b"BTSFRAME" and struct.unpack("<H", frame[10:12])[0] == 120
        self.frame, self.nonce, self.time_ms = frame, nonce, time_ms
        self.database = frame[16:32].hex()
        self.base, self.to = Position.at(frame[32:72]), Position.at(frame[72:112])
        end = frame.rindex(b"TEND")
        self.pages = struct.unpack("<Q", frame[end + 16:end + 24])[0]
        self.parts = -(-len(frame) // PART)
        self.crc = crc32c(frame)

    @property
    def name(self):
        return "frames/%s/%012x-%012x-%08x" % (self.to.folder, self.to.txid, self.base.txid, self.nonce)

    @property
    def line(self):
        return "frame %s parts %d bytes %d pages %d crc %08x from %s to %s time %d\n" % (
            self.name, self.parts, len(self.frame), self.pages, self.crc, self.base, self.to, self.time_ms)


def manifest(entries):
    text = "btree_store archive manifest 1\n" + "".join(e.line for e in entries)
    return (text + "sum %08x\n" % crc32c(text.encode())).encode()


class Maker:
    """An archive in the folder path."""

    def __init__(self, path):
        self.path = path
        self.entries = {}  # by epoch's folder
        self.nonce = 0

    @property
    def url(self):
        return "file://" + self.path

    def write(self, key, data):
        file = os.path.join(self.path, key)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as f:
            f.write(data)
        return file

    def add(self, frame, time_ms):
        """Stores a frame and names it; its entry."""
        self.nonce += 1
        entry = Entry(frame, self.nonce, time_ms)
        for part in range(entry.parts):
            self.write("%s/%s.%06d" % (entry.database, entry.name, part), frame[part * PART:(part + 1) * PART])
        mine = self.entries.setdefault(entry.to.folder, [])
        mine.append(entry)
        self.put_manifest(entry.to.folder, len(mine) - 1)
        return entry

    def part(self, entry, part=0):
        return os.path.join(self.path, entry.database, "%s.%06d" % (entry.name, part))

    def manifest_key(self, folder, sequence):
        return "%s/manifest/%s/%012d" % (self.entries[folder][0].database, folder, sequence)

    def put_manifest(self, folder, sequence):
        entries = self.entries[folder][sequence - sequence % BLOCK:sequence + 1]
        return self.write(self.manifest_key(folder, sequence), manifest(entries))
