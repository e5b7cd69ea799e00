#!/usr/bin/env python3
"""Read database files by engine/FORMAT.md and frames by replicator/PROTOCOL.md, and by nothing else of the project.

usage: format.py FILE...        print what each holds, as the lines of expected.txt
       format.py --dump FILE    print every entry
       format.py --check DIR    compare each file that DIR/expected.txt names with its line
       format.py --make PROGRAM have golden_make write a folder and check that
Reading is strict: whatever the document says to be zero, ordered, bounded, counted or summed is looked at.
"""
import os
import subprocess
import sys
import tempfile

FORMAT = 1
META = 4096
SLOT_B = 32768
HEADER_AREA = 65536
LEAF, BRANCH, EXTENT, FREE_LOG = 1, 2, 3, 4
CATALOG, HISTORY, FREE_LOG_TREE, SNAPSHOTS, FIRST_BUCKET = 1, 2, 3, 4, 16
MASK = (1 << 64) - 1


class Bad(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Bad(text)


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xffffffff


def rotate(x, by):
    return (x << by | x >> (64 - by)) & MASK


def siphash(key, data):
    """SipHash-2-4 with 128 bits of output."""
    k0, k1 = int.from_bytes(key[:8], 'little'), int.from_bytes(key[8:], 'little')
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]

    def rounds(count):
        a, b, c, d = v
        for _ in range(count):
            a = (a + b) & MASK
            b = rotate(b, 13) ^ a
            a = rotate(a, 32)
            c = (c + d) & MASK
            d = rotate(d, 16) ^ c
            a = (a + d) & MASK
            d = rotate(d, 21) ^ a
            c = (c + b) & MASK
            b = rotate(b, 17) ^ c
            c = rotate(c, 32)
        v[:] = a, b, c, d

    whole = len(data) // 8 * 8
    last = data[whole:] + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for at in range(0, whole, 8):
        m = int.from_bytes(data[at:at + 8], 'little')
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    m = int.from_bytes(last, 'little')
    v[3] ^= m
    rounds(2)
    v[0] ^= m
    v[2] ^= 0xee
    rounds(4)
    out = (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, 'little')
    v[1] ^= 0xdd
    rounds(4)
    return out + (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, 'little')


class Bytes:
    """A bounded view with little-endian numbers."""

    def __init__(self, data):
        self.data = bytes(data)

    def number(self, at, size):
        need(at + size <= len(self.data), f'cut short at {at}')
        return int.from_bytes(self.data[at:at + size], 'little')

    def u8(self, at):
        return self.number(at, 1)

    def u16(self, at):
        return self.number(at, 2)

    def u32(self, at):
        return self.number(at, 4)

    def u48(self, at):
        return self.number(at, 6)

    def u64(self, at):
        return self.number(at, 8)

    def take(self, at, size):
        need(at + size <= len(self.data), f'cut short at {at}')
        return self.data[at:at + size]

    def zero(self, at, end, what):
        need(not any(self.data[at:end]), f'{what}: bytes {at} to {end} are not zero')

    def pointer(self, at):
        return (self.u48(at), self.u48(at + 6), self.u32(at + 12))

    def tree(self, at):
        return Tree(self.pointer(at), self.u32(at + 16), self.u32(at + 20), self.u64(at + 24), self.u64(at + 32),
                    self.u64(at + 40))


NONE = (0, 0, 0)


def pointer_bytes(ptr):
    return ptr[0].to_bytes(6, 'little') + ptr[1].to_bytes(6, 'little') + ptr[2].to_bytes(4, 'little')


class Tree:
    def __init__(self, root, ident, depth, entries, size, pages):
        self.root, self.id, self.depth, self.entries, self.bytes, self.pages = root, ident, depth, entries, size, pages
        need(depth <= 32, 'a tree deeper than 32')
        if depth == 0:
            need(root == NONE and entries == size == pages == 0, 'an empty tree with contents')


def options(data, what, known=()):
    """Those known, by type."""
    at, found = 0, {}
    b = Bytes(data)
    while at < len(data):
        kind, size = b.u16(at), b.u16(at + 2)
        need(kind in known or not kind & 0x8000, f'{what}: option {kind:#x} must be understood')
        found[kind] = data[at + 4:at + 4 + size]
        b.take(at + 4, size)
        at += 4 + size
    return found


class Segment:
    def __init__(self, data):
        b = Bytes(data)
        self.epoch, self.random, self.last, self.first = b.u32(0), b.u64(4), b.u48(12), b.u48(18)
        self.chain = b.take(24, 16)
        need(self.last < self.first, 'a segment without a gap')


class Record:
    """The commit record."""

    def __init__(self, data):
        b = Bytes(data)
        self.data = data
        need(b.take(0, 4) == b'BTRC', 'commit record: no magic')
        need(b.u16(4) == FORMAT, f'commit record: version {b.u16(4)}')
        need(b.u16(6) == len(data), 'commit record: wrong size')
        need(b.u64(8) == 0, 'commit record: must-understand bits')
        self.database = b.take(16, 16)
        self.epoch, self.next_tree, self.random = b.u32(32), b.u32(36), b.u64(40)
        self.txid = b.u48(48)
        need(12 <= b.u8(54) <= 16, 'page size')
        self.page_size = 1 << b.u8(54)
        b.zero(55, 56, 'commit record')
        self.chain, self.time = b.take(56, 16), b.u64(72)
        self.first, self.high = b.u48(80), b.u48(86)
        b.zero(92, 96, 'commit record')
        self.buckets = b.u64(96)
        self.catalog, self.history, self.snapshots = b.tree(104), b.tree(152), b.tree(200)
        need((self.catalog.id, self.history.id, self.snapshots.id) == (CATALOG, HISTORY, SNAPSHOTS), 'ids of trees')
        self.log, self.generation = b.pointer(248), b.u32(264)
        self.log_pages, self.log_entries = b.u32(268), b.u64(272)
        inline, positions, segments, size = b.u16(280), b.u16(282), b.u16(284), b.u16(286)
        need(inline <= 96 and positions <= 40 and segments <= 8, 'commit record: a table is too long')
        need(288 + 8 * inline + 22 * positions + 40 * segments + size == len(data), 'commit record: tables')
        self.inline = [b.u64(288 + 8 * i) for i in range(inline)]
        at = 288 + 8 * inline
        self.positions = [(b.u48(at + 22 * i), b.take(at + 22 * i + 6, 16)) for i in range(positions)]
        at += 22 * positions
        self.segments = [Segment(b.take(at + 40 * i, 40)) for i in range(segments)]
        options(b.take(at + 40 * segments, size), 'commit record')
        self.judge()

    def judge(self):
        need(self.first == HEADER_AREA // self.page_size, 'first page')
        need(self.first <= self.high <= 1 << 46, 'high-water mark')
        need(self.txid < (1 << 48) - (1 << 32), 'transaction number')
        need(self.next_tree >= FIRST_BUCKET, 'next tree')
        numbers = [n for n, _ in self.positions]
        need(numbers == sorted(set(numbers)), 'positions do not ascend')
        if self.txid == 0:
            need(not self.positions and not self.segments, 'an empty database with a history')
        else:
            need(self.epoch >= 1, 'epoch')
            need(self.positions[-1] == (self.txid, self.chain), 'the newest position')


class Slot:
    def __init__(self, data):
        b = Bytes(data)
        need(b.take(0, 8) == b'BTSTORE\n', 'slot: no magic')
        need(b.take(8, 4) == b'\4\3\2\1', 'slot: byte order')
        need(b.u32(16) == crc32c(data[:16] + bytes(4) + data[20:]), 'slot: checksum')
        need(b.u16(12) == FORMAT, f'slot: version {b.u16(12)}')
        b.zero(14, 16, 'slot')
        b.zero(20, 24, 'slot')
        need(b.u64(24) <= 7, 'slot: must-understand bits')
        self.log = bool(b.u64(24) & 4)
        self.sequence, self.mode, self.role = b.u64(32), b.u8(40), b.u8(41)
        need(1 <= self.mode <= 3 and 1 <= self.role <= 3, 'slot: mode or role')
        need((self.role == 3) == (b.u64(24) & 1), 'slot: role and bits')
        runs, self.pending, self.durable, size = b.u16(42), b.u32(44), b.u48(48), b.u16(54)
        self.durable_sequence, self.salt, record = b.u64(56), b.u64(96), b.u32(104)
        b.zero(108, 112, 'slot')
        need(self.pending or not self.log, 'slot: a log without records')
        need(runs <= 128 and (runs == 0 or self.mode == 1), 'slot: manifest')
        at = 112
        self.manifest = [(b.u48(at + 12 * i), b.u16(at + 12 * i + 6), b.u32(at + 12 * i + 8)) for i in range(runs)]
        at += 12 * runs
        promise = options(b.take(at, size), 'slot', (0x8001,)).get(0x8001)
        self.record = Record(b.take(at + size, record))
        need((promise is not None) == bool(b.u64(24) & 2), 'slot: promise and bits')
        need(promise is None or (len(promise) == 12 and Bytes(promise).u32(0) > self.record.epoch), 'slot: promise')
        b.zero(at + size + record, META, 'slot')
        need(self.durable <= self.record.txid and self.durable_sequence < self.sequence, 'slot: D')
        need(sum(n for _, n, _ in self.manifest) * self.record.page_size <= 2 << 20, 'slot: manifest over 2 MiB')
        for page, count, _ in self.manifest:
            need(count and self.record.first <= page and page + count <= self.record.high, 'slot: manifest run')


class Node:
    def __init__(self, b, size):
        self.count, self.slots, heap, at = b.u16(6), [], b.u32(40), size
        kind, prefix = b.u8(4), b.u16(14)
        need(b.u32(36) == 1, 'node: pages')
        need(b.u32(44) == 0, 'node: dead bytes')
        need(48 + 8 * self.count <= heap <= size, 'node: heap')
        for i in range(self.count):
            offset, length, head = b.u16(48 + 8 * i), b.u16(50 + 8 * i), b.u32(52 + 8 * i)
            extent, key_size = length >> 15, length & 0x7ff
            need(not length & 0x7800, 'node: reserved bits of a length')
            if kind == LEAF:
                value = b.u16(offset + 6)
                need(not (extent and value), 'extent: u16 of value bytes')
                key = b.take(offset + 8, key_size)
                end = offset + 8 + key_size + (24 if extent else value)
                need(key_size >= 1, 'a key without bytes')
                body = b.take(offset + 8 + key_size, 24 if extent else value)
                self.slots.append((key, b.u48(offset), bool(extent), body))
                whole = Bytes(body).u64(0) if extent else value
                small = whole <= size // 4 and 16 + key_size + whole <= (size - 48) // 2
                need(small != bool(extent), 'a value in the wrong place')
            else:
                need(not extent and (key_size == 0) == (i == 0), 'branch: key')
                key = b.take(offset + 16, key_size)
                end = offset + 16 + key_size
                self.slots.append((key, b.pointer(offset)))
            need(key_size <= 1024, 'key too long')
            need(end == at, 'cells do not adjoin')
            at = offset
            keyed = kind == LEAF or i > 0
            need(head == (int.from_bytes((key[prefix:prefix + 4] + bytes(4))[:4], 'big') if keyed else 0), 'head')
        need(at == heap, 'heap')
        b.zero(48 + 8 * self.count, heap, 'node')
        keys = [s[0] for s in self.slots][0 if kind == LEAF else 1:]
        need(all(x < y for x, y in zip(keys, keys[1:])), 'keys out of order')
        need(len({k[:prefix] for k in keys}) <= 1 and all(len(k) >= prefix for k in keys), 'prefix')
        need(keys or prefix == 0, 'a prefix without keys')


class File:
    def __init__(self, data, pending=b''):
        self.data, self.used = bytearray(data), {}
        self.choose(pending)
        self.record = self.slot.record
        self.size = self.record.page_size

    # Which slot is believed.

    def verified(self, slot):
        size = slot.record.page_size
        if len(self.data) < slot.record.high * size:
            return False
        return slot.mode != 1 or all(crc32c(self.data[p * size:(p + n) * size]) == crc for p, n, crc in slot.manifest)

    def choose(self, pending):
        slots = []
        for at in (0, SLOT_B):
            try:
                slots.append(Slot(bytes(self.data[at:at + META])))
            except Bad as bad:
                need(str(bad) in ('slot: checksum', 'slot: no magic'), str(bad))
        for at, end in ((META, SLOT_B), (SLOT_B + META, HEADER_AREA)):
            need(not any(self.data[at:end]), 'header area')
        need(slots, 'no slot')
        slots.sort(key=lambda s: s.sequence)
        newest, other = slots[-1], slots[0] if len(slots) == 2 else None
        self.clean = bool(other and newest.mode == 3 and newest.durable_sequence == other.sequence
                          and newest.record.data == other.record.data)
        self.fell_back = other is None
        if not self.verified(newest):
            need(newest.mode == 1 and other, 'incomplete')
            need((other.record.txid, other.sequence) == (newest.durable, newest.durable_sequence), 'not the D it names')
            need(self.verified(other), 'D is incomplete')
            newest, self.clean, self.fell_back = other, False, True
        self.slot = newest
        need(newest.role == 2 or newest.pending == 0, 'a primary with pending pages')
        if newest.pending:
            (self.redo_log if newest.log else self.redo)(pending)

    def redo(self, data):
        b, slot, record = Bytes(data), self.slot, self.slot.record
        need(b.take(0, 8) == b'BTSPEND\n' and b.u32(8) == 1, 'pending: magic or version')
        need(b.u32(92) == crc32c(data[:92]), 'pending: header checksum')
        need(b.u32(12) == record.page_size and b.take(16, 16) == record.database and b.u64(32) == slot.salt
             and b.u32(48) == record.epoch and b.u64(56) == record.random and b.u64(64) == record.txid
             and b.take(72, 16) == record.chain, 'pending: of another commit')
        b.zero(52, 56, 'pending')
        b.zero(88, 92, 'pending')
        at = 96
        for ordinal in range(slot.pending):
            pages, page, size = b.u32(at + 12), b.u64(at + 16), b.u64(at + 40)
            need(b.u64(at) == slot.salt and b.u32(at + 8) == ordinal, 'pending: record')
            need(size == pages * record.page_size and record.first <= page and page + pages <= record.high, 'pending: run')
            need(b.u32(at + 48 + size) == crc32c(b.take(at, 48 + size)), 'pending: checksum')
            b.zero(at + 52 + size, at + 56 + size, 'pending')
            self.data[page * record.page_size:(page + pages) * record.page_size] = b.take(at + 48, size)
            at += 56 + size

    def redo_log(self, data):
        b, slot, record = Bytes(data), self.slot, self.slot.record
        need(b.take(0, 8) == b'BTSPEND\n' and b.u32(8) == 2, 'log: magic or version')
        need(b.u32(92) == crc32c(data[:92]), 'log: header checksum')
        need(b.u32(12) == record.page_size and b.take(16, 16) == record.database and b.u64(32) == slot.salt, 'log: another')
        b.zero(40, 92, 'log')
        b.zero(96, 136, 'log')
        at = 136
        for ordinal in range(slot.pending):
            pages, page, kind = b.u32(at + 12), b.u64(at + 16), b.u32(at + 36)
            size = pages * record.page_size
            need(b.u64(at) == slot.salt and b.u32(at + 8) == ordinal, 'log: record')
            need(b.u32(at + 52) == crc32c(b.take(at, 52)), 'log: checksum of a head')
            need(pages >= 1 and 1 <= kind <= 3 and b.u64(at + 24) <= b.u64(at + 40) <= record.txid, 'log: head')
            b.zero(at + 48, at + 52, 'log')
            need(b.u32(at + 56 + size) == crc32c(b.take(at, 56 + size)), 'log: checksum')
            b.zero(at + 60 + size, at + 64 + size, 'log')
            if record.first <= page and page + pages <= record.high:
                self.data[page * record.page_size:(page + pages) * record.page_size] = b.take(at + 56, size)
            at += 64 + size

    # Pages.

    def mark(self, page, count, what):
        for p in range(page, page + count):
            need(self.record.first <= p < self.record.high, f'{what}: page {p} outside the file')
            need(self.used.setdefault(p, (page, what)) == (page, what), f'page {p} is used twice')

    def page(self, ptr, kinds, tree, what, newest):
        """The page's bytes; of an extent, its header pages."""
        number, birth, crc = ptr
        start = number * self.size
        b = Bytes(self.data[start:start + self.size])
        need(b.u8(4) in kinds, f'{what}: type {b.u8(4)}')
        if b.u8(4) == EXTENT:
            headers = b.u32(56)
            b = Bytes(self.data[start:start + headers * self.size])
        need(b.u32(0) == crc == crc32c(b.data[4:]), f'{what}: page {number}: checksum')
        need((b.u48(8), b.u48(16)) == (number, birth) and birth <= newest, f'{what}: page {number}: number or birth')
        need(b.u32(32) == tree, f'{what}: tree {b.u32(32)}')
        b.zero(30, 32, what)
        return b

    def extent(self, body, what, newest):
        size, ptr = Bytes(body).u64(0), Bytes(body).pointer(8)
        chunks = (size + 65535) // 65536
        headers = -(-(64 + 4 * chunks) // self.size)
        pages = headers + -(-size // self.size)
        b = self.page(ptr, (EXTENT,), 0, what, newest)
        need((b.u64(48), b.u32(56), b.u32(36)) == (size, headers, pages), f'{what}: extent header')
        for at, end in ((5, 8), (14, 16), (22, 32), (40, 48), (60, 64), (64 + 4 * chunks, headers * self.size)):
            b.zero(at, end, what + ': extent')
        start = (ptr[0] + headers) * self.size
        end = (ptr[0] + pages) * self.size
        value = bytes(self.data[start:start + size])
        need(len(value) == size, f'{what}: extent past the end')
        need(not any(self.data[start + size:end]), f'{what}: bytes behind a value')
        for i in range(chunks):
            need(b.u32(64 + 4 * i) == crc32c(value[65536 * i:65536 * (i + 1)]), f'{what}: chunk {i}')
        self.mark(ptr[0], pages, f'extent {ptr}')
        return value

    def entries(self, tree, what, newest):
        """All of a tree's (key, version, value), its counters checked."""
        out, pages = [], 0
        stack = [(tree.root, tree.depth - 1, b'', None)] if tree.depth else []
        while stack:
            ptr, level, low, high = stack.pop()
            b = self.page(ptr, (LEAF, BRANCH), tree.id, what, newest)
            self.mark(ptr[0], 1, f'node {ptr}')
            pages += 1
            need(b.u8(5) == level and (b.u8(4) == LEAF) == (level == 0), f'{what}: level')
            node = Node(b, self.size)
            for slot in node.slots if level == 0 else node.slots[1:]:
                need(low <= slot[0] and (high is None or slot[0] < high), f'{what}: a key beyond its separators')
            need(b.u48(24) <= ptr[1], f'{what}: last deletion')
            if level == 0:
                need(node.count or tree.depth == 1, f'{what}: an empty leaf')
                for key, version, extent, body in node.slots:
                    need(version <= ptr[1], f'{what}: version')
                    if extent:
                        need(Bytes(body).pointer(8)[1] <= ptr[1], f'{what}: birth')
                        body = self.extent(body, what, newest)
                    out.append((key, version, body))
                continue
            need(node.count >= 2, f'{what}: a branch of one child')
            for i in reversed(range(node.count)):
                key, child = node.slots[i]
                need(child[1] <= ptr[1], f'{what}: a child born after its parent')
                stack.append((child, level - 1, key if i else low, node.slots[i + 1][0] if i + 1 < node.count else high))
        need(pages == tree.pages and len(out) == tree.entries, f'{what}: counters')
        need(sum(len(k) + len(v) for k, _, v in out) == tree.bytes, f'{what}: bytes')
        return out

    # States.

    def bucket(self, name, value, newest):
        b = Bytes(value)
        note = b.u16(48)
        room = b.u16(50 + note)
        need(1 <= len(name) <= 255 and note <= 255, 'bucket: name or note')
        need(len(value) == 52 + note + room, 'bucket: size')
        options(b.take(52 + note, room), 'bucket')
        tree = Tree(b.pointer(8), b.u32(0), b.u32(4), b.u64(24), b.u64(32), b.u64(40))
        need(FIRST_BUCKET <= tree.id < self.record.next_tree, 'bucket: tree id')
        return b.take(50, note), self.entries(tree, f'bucket {name}', newest)

    def state(self, catalog, newest):
        out = []
        for name, version, value in self.entries(catalog, 'catalog', newest):
            out.append((name, version) + self.bucket(name, value, newest))
        return out

    def named(self):
        for name, _, value in self.entries(self.record.snapshots, 'snapshots', self.record.txid):
            b = Bytes(value)
            room = b.u16(80)
            need(len(value) == 82 + room and 1 <= len(name) <= 255, 'snapshot: size')
            options(b.take(82, room), 'snapshot')
            b.zero(6, 8, 'snapshot')
            b.zero(22, 24, 'snapshot')
            catalog = b.tree(32)
            need(1 <= b.u48(0) <= self.record.txid and catalog.id == CATALOG, 'snapshot')
            need(catalog.entries == b.u64(24), 'snapshot: buckets')
            yield name, b.u48(0), b.u64(8), self.state(catalog, b.u48(0))

    def check_history(self):
        positions = []
        for key, _, value in self.entries(self.record.history, 'history', self.record.txid):
            kind, number = key[:1], int.from_bytes(key[1:], 'big')
            if kind == b't':
                need(key == b't' and len(value) == 8, 'history: t')
                continue
            need(len(key) == 9 and kind in (b'h', b's'), 'history: key')
            if kind == b'h':
                need(len(value) == 16, 'history: h')
                positions.append((number, value))
            else:
                need(len(value) == 40 and Segment(value).first == number, 'history: s')
        need(not positions or positions[-1][0] < self.record.positions[0][0], 'history: order')
        return positions + self.record.positions

    # The free set.

    def free(self):
        r, pages, ptr = self.record, [], self.record.log
        rest = r.log_entries
        for _ in range(r.log_pages):
            b = self.page(ptr, (FREE_LOG,), FREE_LOG_TREE, 'free log', r.txid)
            self.mark(ptr[0], 1, 'free log')
            count = b.u32(76)
            need(b.u32(72) == r.generation and b.u64(64) + count == rest, 'free log: generation or order')
            for at, end in ((5, 8), (14, 16), (22, 30), (44, 48), (80 + 8 * count, self.size)):
                b.zero(at, end, 'free log')
            need((b.u32(36), b.u32(40)) == (1, self.size), 'free log: pages or heap')
            pages.insert(0, [b.u64(80 + 8 * i) for i in range(count)])
            rest, ptr = b.u64(64), b.pointer(48)
        need(rest == 0 and ptr == NONE, 'free log: chain')
        free = set()
        for entry in sum(pages, []) + r.inline:
            run = range(entry >> 16, (entry >> 16) + (entry & 0x7fff))
            need(len(run) and run[0] >= r.first, 'free log: entry')
            for page in run:
                if page >= r.high:
                    continue
                freed = bool(entry & 0x8000)
                need((page in free) != freed, f'free log: page {page}')
                (free.add if freed else free.discard)(page)
        return free

    # All of it.

    def chain(self, positions):
        """What the newest commit's chain must be, or None when the history does not go back so far."""
        r = self.record
        before = positions[-2][1] if len(positions) > 1 else bytes(16) if r.txid == 1 else None
        if before is None:
            return None
        data = before + r.epoch.to_bytes(4, 'little') + r.random.to_bytes(8, 'little')
        data += r.txid.to_bytes(8, 'little')
        for root in (r.catalog.root, r.history.root, r.snapshots.root, r.log):
            data += pointer_bytes(root)
        new = {p for p, (first, _) in self.used.items() if first == p and self.birth(p) == r.txid}
        for page in sorted(new):
            data += pointer_bytes((page, r.txid, Bytes(self.data[page * self.size:page * self.size + 4]).u32(0)))
        return siphash(r.database, data)

    def birth(self, page):
        return Bytes(self.data[page * self.size:(page + 1) * self.size]).u48(16)

    def read(self):
        r = self.record
        head = self.state(r.catalog, r.txid)
        need(len(head) == r.buckets, 'buckets')
        states = [(b'', 0, 0, head)] + list(self.named())
        positions = self.check_history()
        free = self.free()
        need(not free & set(self.used), 'free and in use')
        need(len(free) + len(self.used) == r.high - r.first, 'neither free nor in use')
        self.chain_ok = self.chain(positions) in (None, r.chain)
        return states, len(free)


class Frame:
    """A frame of the replication protocol, from an empty follower on: the pages and the commit record."""

    def __init__(self, data):
        b = Bytes(data)
        need(b.take(0, 8) == b'BTSFRAME' and b.u16(8) == 1 and b.u16(10) == 120, 'frame: magic, version or size')
        need(b.u32(12) == 0, 'frame: must-understand bits')
        need(b.u32(116) == crc32c(data[:116]), 'frame: header checksum')
        self.database, self.size = b.take(16, 16), b.u32(112)
        b.zero(32, 72, 'frame: base')
        b.zero(76, 80, 'frame')
        self.target = (b.u32(72), b.u64(80), b.u64(88), b.take(96, 16))
        hashed, at, self.units, self.pages, unit = data[:120], 120, {}, {}, None
        while b.take(at, 4) == b'CHNK':
            entries, pages = b.u32(at + 4), b.u32(at + 8)
            need(1 <= entries <= pages <= min(256, (1 << 20) // self.size), 'frame: chunk')
            b.zero(at + 12, at + 16, 'frame: chunk')
            body = at + 16 + 28 * entries
            need(b.u32(body) == crc32c(data[at:body]), 'frame: index checksum')
            end = body + 4 + pages * self.size
            need(b.u32(end) == crc32c(data[body + 4:end]), 'frame: checksum of pages')
            hashed += data[at:body] + data[end:end + 4]
            start = body + 4
            for entry in range(at + 16, body, 28):
                unit = self.entry(b, entry, unit)
                first, count = b.u32(entry + 20), b.u16(entry + 24)
                for i in range(count):
                    self.pages[unit[0] + first + i] = b.take(start + i * self.size, self.size)
                start += count * self.size
            need(start == end, 'frame: pages of a chunk')
            at = end + 4
        need(unit is None or unit[5] == unit[4], 'frame: a unit is incomplete')
        size = b.u32(at + 4)
        need(b.take(at, 4) == b'TEND' and 1 <= size <= 4096, 'frame: trailer')
        need((b.u64(at + 8), b.u64(at + 16)) == (len(self.units), len(self.pages)), 'frame: counts')
        record = b.take(at + 40, size)
        need(b.take(at + 24, 16) == siphash(self.database, hashed + data[at:at + 24] + record), 'frame: digest')
        need(b.u32(at + 40 + size) == crc32c(data[at:at + 40 + size]), 'frame: trailer checksum')
        need(len(data) == at + 44 + size, 'frame: bytes behind the trailer')
        self.record = Record(record)
        r = self.record
        need((r.epoch, r.random, r.txid, r.chain) == self.target and r.database == self.database, 'frame: target')
        need(r.page_size == self.size, 'frame: page size')

    def entry(self, b, at, unit):
        b.zero(at + 27, at + 28, 'frame: entry')
        page, birth, crc, kind, count = b.u48(at), b.u48(at + 6), b.u32(at + 12), b.u8(at + 26), b.u32(at + 16)
        first, pages = b.u32(at + 20), b.u16(at + 24)
        if unit is None or unit[5] == unit[4]:
            need(first == 0 and page > max(self.units, default=0), 'frame: a unit in its middle, twice or out of order')
            need(1 <= birth <= self.target[2] and 1 <= kind <= 3 and (count == 1 or kind == 2), 'frame: unit')
            self.units[page] = (birth, crc)
        else:
            need((page, birth, crc, kind, count) == unit[:5] and first == unit[5], 'frame: pieces')
        need(1 <= pages <= count - first, 'frame: piece')
        return (page, birth, crc, kind, count, first + pages)

    def read(self):
        """The states; what is not in the frame must be free."""
        file = File.__new__(File)
        file.record, file.size, file.used = self.record, self.size, {}
        file.data = bytearray(self.record.high * self.size)
        for page, content in self.pages.items():
            file.data[page * self.size:(page + 1) * self.size] = content
        states, _ = file.read()
        need(set(file.used) == set(self.pages), 'frame: pages that are not of the state')
        return states


def number(value, size):
    return value.to_bytes(size, 'little')


def digest(states):
    out = []
    for name, txid, time, buckets in states:
        out += [b'S', number(len(name), 4), name, number(txid, 8), number(time, 8)]
        for name, version, note, entries in buckets:
            out += [b'B', number(len(name), 4), name, number(len(note), 4), note, number(version, 8)]
            for key, version, value in entries:
                out += [b'E', number(len(key), 4), key, number(len(value), 8), value, number(version, 8)]
    return siphash(bytes(16), b''.join(out))


def load(path):
    def content(name):
        with open(name, 'rb') as f:
            return f.read()
    return File(content(path), content(path + '.pending') if os.path.exists(path + '.pending') else b'')


def line(path):
    file = load(path)
    states, free = file.read()
    r = file.record
    roots = b''.join(pointer_bytes(p) for p in (r.catalog.root, r.history.root, r.snapshots.root, r.log))
    need(file.chain_ok, 'chain')
    return (f'dump={digest(states).hex()} root={siphash(r.database, roots).hex()} chain={r.chain.hex()} epoch={r.epoch} '
            f'txid={r.txid} first={r.first} pages={r.high} free={free} buckets={len(states[0][3])} '
            f'snapshots={len(states) - 1} follower={int(file.slot.role == 2)} clean={int(file.clean)} '
            f'fell_back={int(file.fell_back)}')


def dump(path):
    for name, txid, time, buckets in load(path).read()[0]:
        print(f'state {name!r} {txid} {time}')
        for name, version, note, entries in buckets:
            print(f'  bucket {name!r} version {version} note {note!r}')
            for key, version, value in entries:
                print(f'    {key!r} version {version}: {value!r}')


def check(folder):
    passed = failed = 0
    with open(os.path.join(folder, 'expected.txt'), encoding='ascii') as f:
        expected = [tuple(row.rstrip('\n').split(' ', 1)) for row in f]
    names = {name for name, _ in expected}
    strangers = [n for n in os.listdir(folder) if n.endswith('.bts') and n not in names]
    for name, want in expected + [(n, 'a line in expected.txt') for n in strangers]:
        try:
            got = line(os.path.join(folder, name))
        except Bad as bad:
            got = str(bad)
        if got == want:
            passed += 1
        else:
            failed += 1
            print(f'{name}:\n  expected {want}\n  found    {got}')
    try:
        with open(os.path.join(folder, 'follower.frame'), 'rb') as f:
            got = digest(Frame(f.read()).read()).hex()
    except Bad as bad:
        got = str(bad)
    if dict(expected)['follower.bts'].startswith(f'dump={got} '):
        passed += 1
    else:
        failed += 1
        print(f'follower.frame: {got}')
    print(f'{passed} passed, {failed} failed')
    return 0 if passed and not failed else 1


def make(program):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True)
        return check(folder)


def main(args):
    if len(args) == 2 and args[0] == '--check':
        return check(args[1])
    if len(args) == 2 and args[0] == '--make':
        return make(args[1])
    if len(args) == 2 and args[0] == '--dump':
        return dump(args[1])
    if not args or args[0].startswith('-'):
        print(__doc__)
        return 2
    for path in args:
        print(os.path.basename(path), line(path))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
