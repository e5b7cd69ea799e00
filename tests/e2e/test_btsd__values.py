"""Values of any size: ranges of them, uploads that go to the disk as they come, memory that stays what it was."""
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
import unittest

import harness
from test_btsd__ttl import Clock

MIB = 1 << 20


def blob(size, seed=0):
    """The same bytes for the same seed, quickly."""
    block = hashlib.shake_128(b"%d" % seed).digest(min(size, MIB + 7919))
    return (block * (size // len(block) + 1))[:size] if size else b""


def anonymous(p):
    with open("/proc/%d/status" % p.pid) as f:
        return int(re.search(r"RssAnon:\s+(\d+) kB", f.read()).group(1)) * 1024


class Values(harness.Case):
    def primary(self, *args):
        p = harness.primary(self.dir, *args).__enter__()
        self.addCleanup(p.__exit__, None, None, None)
        p.request("PUT", "/v1/buckets/b")
        return p


class Ranges(Values):
    def test_parts(self):
        p = self.primary()
        for size in (10, 5000, 3 * MIB + 17):
            value = blob(size, size)
            tag = p.put("b", "k", value).headers["ETag"]
            for text, first, last in (("0-0", 0, 0), ("0-", 0, size - 1), ("3-7", 3, 7), ("-4", size - 4, size - 1),
                                      ("5-%d" % (2 * size), 5, size - 1), ("-%d" % (3 * size), 0, size - 1)):
                got = p.value("b", "k", {"Range": "bytes=" + text})
                self.assertEqual((got.status, got.body == value[first:last + 1]), (206, True), (size, text))
                self.assertEqual(got.headers["Content-Range"], "bytes %d-%d/%d" % (first, last, size))
                self.assertEqual((got.headers["ETag"], got.headers["Accept-Ranges"]), (tag, "bytes"))
            for text in ("bytes=0-1,3-4", "bytes=4-3", "pages=1-2", "bytes=x", "1-2"):
                got = p.value("b", "k", {"Range": text})
                self.assertEqual((got.status, got.body == value, got.headers["Content-Range"]), (200, True, None), text)
            for text in ("bytes=%d-" % size, "bytes=-0"):
                got = p.value("b", "k", {"Range": text})
                self.assertEqual((got.status, got.code), (416, "range-not-satisfiable"))
                self.assertEqual(got.headers["Content-Range"], "bytes */%d" % size)
            self.assertEqual(p.put("b", "empty", b"").status in (200, 201), True)
            self.assertEqual(p.value("b", "empty", {"Range": "bytes=0-"}).status, 416)

    def test_conditions_come_first(self):
        p = self.primary()
        tag = p.put("b", "k", b"0123456789").headers["ETag"]

        def get(**headers):
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            reply = p.value("b", "k", dict(headers, Range="bytes=2-3"))
            return reply.status, reply.body

        self.assertEqual(get(If_Range=tag), (206, b"23"))
        for other in ('"1"', "W/" + tag, "Wed, 21 Oct 2026 07:28:00 GMT", tag.strip('"')):
            self.assertEqual(get(If_Range=other), (200, b"0123456789"), other)
        self.assertEqual(get(If_None_Match=tag)[0], 304)
        self.assertEqual(get(If_Match='"1"')[0], 412)
        self.assertEqual(get(If_Match=tag), (206, b"23"))

    def test_head_has_the_whole_size(self):
        p = self.primary()
        for size in (0, 10, 5000, 3 * MIB):
            p.put("b", "k", blob(size))
            with p.client() as c:
                for _ in range(2):
                    got = c.request("HEAD", "/v1/buckets/b/keys/k", None, {"Range": "bytes=0-0"})
                    self.assertEqual((got.status, got.headers["Content-Length"]), (200, str(size)))
                    self.assertEqual((got.headers["Accept-Ranges"], got.headers["Content-Range"]), ("bytes", None))


def pieces(size, seed=0, piece=3 * MIB + 1):
    """blob(size) a piece at a time, without holding all of it."""
    block = blob(min(size, MIB + 7919), seed)
    at = 0
    while at < size:
        n = min(piece, size - at)
        start = at % len(block)
        yield (block * (n // len(block) + 2))[start:start + n]
        at += n


def digest(parts):
    h = hashlib.sha256()
    size = 0
    for part in parts:
        h.update(part)
        size += len(part)
    return size, h.hexdigest()


def send(p, key, size, chunked, seed=0, headers=None, target=""):
    """PUT of pieces(size, seed); the reply."""
    with p.client(120) as c:
        headers = dict(headers or {}, **({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}))
        c.http.request("PUT", "/v1/buckets/b/keys/%s%s" % (key, target), body=pieces(size, seed), headers=headers, encode_chunked=chunked)
        response = c.http.getresponse()
        return harness.Reply(response, response.read())


def fetch(p, key, headers=None):
    """Status, size and digest of what comes, without holding it."""
    with p.client(120) as c:
        c.http.request("GET", "/v1/buckets/b/keys/" + key, headers=headers or {})
        response = c.http.getresponse()
        return (response.status,) + digest(iter(lambda: response.read(MIB), b""))


def begin(p, key, size, sent, extra=b"", target="", source="127.0.0.1"):
    """A connection that has sent the head of a PUT and so much of its body."""
    s = socket.create_connection(("127.0.0.1", p.port), source_address=(source, 0))
    s.sendall(b"PUT /v1/buckets/b/keys/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n" % ((key + target).encode(), size, extra))
    s.sendall(blob(sent))
    return s


def reply_of(s):
    s.settimeout(30)
    got = b""
    while b"\r\n\r\n" not in got:
        piece = s.recv(65536)
        if not piece:
            break
        got += piece
    return got


class Uploads(Values):
    def test_up_down_and_by_ranges_in_constant_memory(self):
        size = 300 * MIB
        p = self.primary("--threads", "1")
        with harness.follower(self.dir, p.url) as f:
            for chunked in (False, True):
                key = "chunked" if chunked else "announced"
                most = [0]
                done = []

                def watch():
                    while not done:
                        most[0] = max(most[0], anonymous(p))
                        time.sleep(0.02)

                watcher = threading.Thread(target=watch)
                watcher.start()
                try:
                    want = digest(pieces(size, 1))
                    self.assertEqual(send(p, key, size, chunked, 1).status, 201)
                    self.assertEqual(fetch(p, key), (200,) + want)
                    part = fetch(p, key, {"Range": "bytes=%d-" % (size - 1000)})
                    self.assertEqual(part[:2], (206, 1000))
                finally:
                    done.append(1)
                    watcher.join()
                self.assertLess(most[0], 64 * MIB)
                print("%s: at most %.1f MiB of anonymous memory" % (key, most[0] / MIB))
                harness.await_equal(p, f)
                self.assertEqual(fetch(f, key), (200,) + want)
                self.assertEqual(p.request("DELETE", "/v1/buckets/b/keys/" + key).status, 204)

    def test_sizes_around_the_limits(self):
        p = self.primary()
        for size in (MIB - 1, MIB, MIB + 1, 2 * MIB + 65537):
            for chunked in (False, True):
                reply = send(p, "k%d" % size, size, chunked, size)
                self.assertEqual((reply.status, reply.body), (200 if chunked else 201, b""))
                got = p.value("b", "k%d" % size)
                self.assertEqual((got.body == blob(size, size), got.headers["ETag"]), (True, reply.headers["ETag"]))
                self.assertEqual(int(got.headers["ETag"].strip('"')), int(reply.headers["BTS-Txid"]))

    def test_conditions_and_the_key_written_meanwhile(self):
        p = self.primary()
        size = 2 * MIB
        tag = p.put("b", "k", b"small").headers["ETag"]
        for chunked in (False, True):
            for headers in ({"If-None-Match": "*"}, {"If-Match": '"1"'}):
                reply = send(p, "k", size, chunked, 0, headers)
                self.assertEqual((reply.status, reply.code, reply.headers["ETag"]), (412, "precondition-failed", tag))
            self.assertEqual(send(p, "none", size, chunked, 0, {"If-Match": tag}).status, 412)
            reply = send(p, "k", size, chunked, 0, {"If-Match": tag})
            self.assertEqual(reply.status, 200)
            tag = reply.headers["ETag"]
        self.assertEqual(send(p, "new", size, False, 0, {"If-None-Match": "*"}).status, 201)
        with self.subTest("no bucket"):
            for chunked in (False, True):
                p.request("DELETE", "/v1/buckets/b")
                self.assertEqual(send(p, "k", size, chunked).code, "bucket-not-found")
        p.request("PUT", "/v1/buckets/b")
        for extra, status, code in ((b"", 409, "conflict"), (b"If-None-Match: *\r\n", 412, "precondition-failed")):
            p.request("DELETE", "/v1/buckets/b/keys/k")
            s = begin(p, "k", size, MIB, extra)
            harness.await_true(lambda: self.uploads(p) == 1, what="the upload to begin")
            self.assertEqual(p.put("b", "k", b"first").status, 201)
            self.assertIn(p.put("b", "beside", b"no conflict").status, (200, 201))
            s.sendall(blob(size - MIB))
            got = reply_of(s)
            self.assertIn(b"HTTP/1.1 %d " % status, got)
            s.close()
            self.assertEqual(p.value("b", "k").body, b"first")
        # Others that come and go beside a new key do not concern it, nor do those of the sweep.
        for key in ("j", "l", "soon?ttl=1s"):
            self.assertEqual(p.request("PUT", "/v1/buckets/b/keys/" + key, b"x").status, 201)
        for target in ("", "?ttl=1h"):
            with begin(p, "k1", size, MIB, target=target) as s:
                harness.await_true(lambda: self.uploads(p) == 1, what="the upload to begin")
                self.assertEqual(p.request("DELETE", "/v1/buckets/b/keys/" + ("l" if target else "j")).status, 204)
                if not target:
                    harness.await_true(lambda: p.get("/v1/buckets/b").json()["entries"] == 3, what="the sweep")
                s.sendall(blob(size - MIB))
                self.assertIn(b"HTTP/1.1 201 ", reply_of(s))
            self.assertEqual(p.request("DELETE", "/v1/buckets/b/keys/k1").status, 204)

    def uploads(self, p):
        return int(re.search(r"^btsd_uploads (\d+)$", p.get("/metrics").body.decode(), re.M).group(1))

    def test_refused_before_the_body_comes(self):
        p = self.primary("--max-value", "3000000")
        for target, code in (("/v1/buckets/none/keys/k", b"404"), ("/v1/buckets/b/keys/k", b"412")):
            with socket.create_connection(("127.0.0.1", p.port)) as s:
                s.sendall(b"PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n"
                          b"If-Match: \"1\"\r\n\r\n" % target.encode())
                self.assertIn(b"HTTP/1.1 %s " % code, reply_of(s))
        with begin(p, "k", 3000001, 0, b"Expect: 100-continue\r\n") as s:
            self.assertIn(b"HTTP/1.1 413 ", reply_of(s))
        self.assertEqual(send(p, "k", 3000001, True).code, "body-too-large")
        self.assertEqual(send(p, "k", 3000001, False).code, "body-too-large")
        self.assertEqual(send(p, "k", 3000000, False).status, 201)
        self.assertEqual(send(p, "k", 3000000, True).status, 200)
        for size in (10, 2000000):
            self.assertEqual(send(p, "k", size, False, 0, {"Content-Range": "bytes 0-9/20"}).code, "invalid-header")
        self.assertEqual(send(p, "k", 2000000, False, 0, None, "?ttl=x").code, "invalid-parameter")
        self.assertEqual(send(p, "k", 2000000, True, 0, None, "?ttl=x").code, "invalid-parameter")

    def test_copies_that_are_asked_for(self):
        p = self.primary("--members", "f1")
        for chunked in (False, True):
            reply = send(p, "k", 2 * MIB, chunked, 0, None, "?durability=replicated:1&timeout=0s")
            self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (202, "local"))
        with harness.follower(self.dir, p.url):
            for chunked in (False, True):
                reply = send(p, "k", 2 * MIB, chunked, 0, None, "?durability=replicated:1&timeout=30s")
                self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (200, "replicated:1"))

    def test_with_a_time_to_live(self):
        with Clock(self.dir) as clock:
            p = self.primary()
            for chunked in (False, True):
                reply = send(p, "k", 2 * MIB, chunked, 0, None, "?ttl=1h")
                self.assertEqual((reply.status, bool(reply.headers["BTS-Expires"])), (201, True))
                self.assertEqual(p.value("b", "k").headers["BTS-Expires"], reply.headers["BTS-Expires"])
                clock.set(7202 if chunked else 3601)
                self.assertEqual(p.value("b", "k").status, 404)
            # Over one that has expired, which the sweep removes before the upload begins or while it comes in.
            for i, target in enumerate(("", "?ttl=1h") * 3):
                p.request("PUT", "/v1/buckets/b/keys/again?ttl=1h", b"x")
                harness.await_true(lambda: p.get("/v1/buckets/b").json()["entries"] == 1, what="the end of the others")
                clock.set(7202 + 3700 * (i + 1))
                with begin(p, "again", 2 * MIB, MIB, target=target) as s:
                    harness.await_true(lambda: p.get("/v1/buckets/b").json()["entries"] == 0, what="the end of the one before")
                    s.sendall(blob(MIB))
                    self.assertIn(b"HTTP/1.1 201 ", reply_of(s))
                p.request("DELETE", "/v1/buckets/b/keys/again")
        s = begin(p, "between", 2 * MIB, MIB, target="?ttl=1h")  # its commit is made anew on top of the others'
        harness.await_true(lambda: self.uploads(p) == 1, what="the upload to begin")
        for i in range(20):
            self.assertEqual(p.request("PUT", "/v1/buckets/b/keys/small%d?ttl=1h" % i, b"v").status, 201)
        s.sendall(blob(MIB))
        self.assertIn(b"HTTP/1.1 201 ", reply_of(s))
        s.close()
        self.assertTrue(p.value("b", "between").headers["BTS-Expires"])
        self.assertEqual(send(p, "k", 2 * MIB, False, 0, None, "?ttl=1h").status, 201)
        self.assertIsNone(send(p, "k", 2 * MIB, False).headers["BTS-Expires"])
        self.assertIsNone(p.value("b", "k").headers["BTS-Expires"])

    def test_shares_of_addresses(self):
        """64 at a time, 32 of one address; what one gives back another can have."""
        p = self.primary("--max-connections-per-address", "100")
        held = []
        self.addCleanup(lambda: [s.close() for s in held])

        def refused(source):
            with begin(p, "more", 2 * MIB, 2 * MIB, source=source) as s:
                return b"HTTP/1.1 503 " in reply_of(s)

        for source in ("127.0.0.2", "127.0.0.3"):
            for _ in range(32):
                held.append(begin(p, "k%d" % len(held), 2 * MIB, MIB, source=source))
            harness.await_true(lambda: self.uploads(p) == len(held), what="the uploads to begin")
            self.assertTrue(refused(source))
        self.assertTrue(refused("127.0.0.4"))
        held.pop().close()
        harness.await_true(lambda: self.uploads(p) == 63, what="one to end")
        self.assertTrue(refused("127.0.0.2"))
        held.append(begin(p, "other", 2 * MIB, MIB, source="127.0.0.3"))
        harness.await_true(lambda: self.uploads(p) == 64, what="another in its place")
        for i, s in enumerate(held):
            s.sendall(blob(MIB))
            self.assertIn(b"HTTP/1.1 201 ", reply_of(s), i)
        harness.await_true(lambda: self.uploads(p) == 0, what="their end")

    def test_clients_that_go_away_leave_nothing(self):
        p = self.primary()
        self.assertEqual(send(p, "k", 8 * MIB, False).status, 201)
        before = None
        for i in range(40):
            s = begin(p, "k", 32 * MIB, 6 * MIB)
            harness.await_true(lambda: self.uploads(p) == 1, what="the upload to begin")
            s.close()
            harness.await_true(lambda: self.uploads(p) == 0, what="its end")
            if i == 4:
                before = p.status()["file_bytes"]
        self.assertEqual(p.status()["file_bytes"], before)
        self.assertEqual(fetch(p, "k"), (200,) + digest(pieces(8 * MIB)))
        self.assertEqual(p.status()["readers"], 0)
        p.stop()
        self.assertEqual(os.spawnv(os.P_WAIT, harness.binary("bts"), ["bts", "check", self.dir.file("primary.bts")]), 0)

    def test_many_at_once_and_small_ones_beside(self):
        p = self.primary()

        def body(i):
            if i < 6:
                self.assertEqual(send(p, "large%d" % i, 12 * MIB, i % 2 == 1, i).status, 201)
                self.assertEqual(fetch(p, "large%d" % i), (200,) + digest(pieces(12 * MIB, i)))
                return
            with p.client() as c:
                for k in range(100):
                    self.assertEqual(c.request("PUT", "/v1/buckets/b/keys/s%d-%d" % (i, k), b"v").status, 201)

        harness.parallel(8, body)
        self.assertEqual(p.get("/v1/buckets/b").json()["entries"], 206)

    def test_the_first_times_to_live_of_all(self):
        """Who makes the buckets for them, meeting others who do."""
        p = self.primary()
        s = begin(p, "k", 2 * MIB, MIB, target="?ttl=1h")
        harness.await_true(lambda: self.uploads(p) == 1, what="the upload to begin")
        self.assertEqual(p.request("PUT", "/v1/buckets/b/keys/small?ttl=1h", b"v").status, 201)
        s.sendall(blob(MIB))
        self.assertIn(b"HTTP/1.1 201 ", reply_of(s))
        s.close()
        self.assertTrue(p.value("b", "k").headers["BTS-Expires"])

    def test_a_slow_one_keeps_no_more_than_its_budget(self):
        p = self.primary("--snapshot-bytes-max", "1M")
        p.put("b", "big", blob(4 * MIB))
        with socket.create_connection(("127.0.0.1", p.port), timeout=60) as s:
            s.sendall(b"PUT /v1/buckets/b/keys/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
            s.sendall(blob(MIB))
            harness.await_true(lambda: p.status()["readers"] == 1, what="the upload's snapshot")
            p.put("b", "big", blob(4 * MIB, 1))
            p.wait_log("event=upload-expired")
            s.sendall(b"x")
            harness.await_true(lambda: p.status()["readers"] == 0, what="its end, before the body has ended")
            s.sendall(blob(7 * MIB - 1))
            reply = s.recv(65536)
        self.assertTrue(reply.startswith(b"HTTP/1.1 503 ") and b'"limit-reached"' in reply, reply)
        self.assertEqual(p.value("b", "slow").status, 404)
        # One that is quick beside the same writes is not.
        self.assertEqual(p.put("b", "quick", blob(8 * MIB)).status, 201)

    def test_killed_in_the_middle(self):
        p = self.primary()
        self.assertEqual(send(p, "k", 4 * MIB, False, 1).status, 201)
        s = begin(p, "k", 32 * MIB, 16 * MIB)
        harness.await_true(lambda: self.uploads(p) == 1, what="the upload to begin")
        p.kill()
        s.close()
        p = self.primary()
        self.assertEqual(fetch(p, "k"), (200,) + digest(pieces(4 * MIB, 1)))
        self.assertEqual(sorted(n for n in os.listdir(self.dir.path) if "primary.bts" in n), ["primary.bts", "primary.bts-lock"])

    def test_a_full_disk(self):
        small = self.dir.file("small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], capture_output=True).returncode:
            self.skipTest("mounting a small tmpfs needs root")
        try:
            with harness.primary(self.dir, data="small/p.bts") as p:
                p.request("PUT", "/v1/buckets/b")
                self.assertEqual(send(p, "kept", 4 * MIB, False, 1).status, 201)
                with begin(p, "k", 200 * MIB, 0, b"Expect: 100-continue\r\n") as s:
                    self.assertIn(b"HTTP/1.1 507 ", reply_of(s))
                for chunked in (False, True):
                    reply = send(p, "k", 40 * MIB, chunked)
                    self.assertEqual((reply.status, reply.code), (507, "storage-full"))
                    self.assertEqual(p.put("b", "beside", b"1" * 1000).status, 200 if chunked else 201)
                self.assertEqual(send(p, "k", 6 * MIB, False, 2).status, 201)
                self.assertEqual(fetch(p, "kept"), (200,) + digest(pieces(4 * MIB, 1)))
                self.assertEqual(fetch(p, "k"), (200,) + digest(pieces(6 * MIB, 2)))
                self.assertEqual(p.get("/readyz").status, 200)
        finally:
            subprocess.run(["umount", small], check=True)


if __name__ == "__main__":
    harness.main()
