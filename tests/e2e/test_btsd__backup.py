"""Backups over HTTP: the image under write load, downloads that break off and go on, damage, limits."""
import hashlib
import http.client
import json
import os
import random
import subprocess
import threading
import time
import unittest

import harness

PAGE = 4096


def tool(*args, data=None):
    done = subprocess.run([harness.binary("bts")] + list(args), input=data, capture_output=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def fill(server, count=3000, big=3):
    server.request("PUT", "/v1/buckets/b")
    lines = b"".join(b'{"key":"k%05d","value":"%s"}\n' % (i, b"v%d" % i * 40) for i in range(count))
    assert server.request("POST", "/v1/buckets/b/load", lines).status == 200
    for i in range(big):
        server.put("b", "big%d" % i, os.urandom(3000000 + i * 777))


class Case(harness.Case):
    def primary(self, *args):
        return self.started(harness.primary(self.dir, *args))

    def refused(self, reply, status, code):
        self.assertEqual((reply.status, reply.code), (status, code), reply)

    def restored(self, image, name, digest):
        """The image as a database: whole, of that digest; a primary on a restored copy of it."""
        with open(self.dir.file(name + ".img"), "wb") as f:
            f.write(image)
        for file, options in ((name + "-same.bts", ["--same-id"]), (name + ".bts", [])):
            code, text = tool("restore", self.dir.file(file), self.dir.file(name + ".img"), *options)
            self.assertEqual(code, 0, text)
            code, text = tool("check", self.dir.file(file))
            self.assertEqual(code, 0, text)
        code, text = tool("stat", self.dir.file(name + "-same.bts"), "--json")
        self.assertEqual((code, json.loads(text)["root_digest"]), (0, digest))
        return self.started(harness.primary(self.dir, data=name + ".bts"))


class Writer(threading.Thread):
    """Puts, each key's newest value being its number, until told to stop."""

    def __init__(self, server):
        super().__init__()
        self.server = server
        self.stop = False
        self.count = 0
        self.start()

    def run(self):
        with self.server.client() as c:
            while not self.stop:
                for key in ("left", "right"):
                    c.request("PUT", "/v1/buckets/b/keys/" + key, b"%d" % self.count)
                c.request("PUT", "/v1/buckets/b/keys/k%05d" % (self.count * 37 % 3000), b"%d" % self.count * 50)
                self.count += 1

    def __exit__(self, *exc):
        self.stop = True
        self.join()

    def __enter__(self):
        return self


class Image(Case):
    def test_under_writes(self):
        p = self.primary()
        fill(p)
        p.request("PUT", "/v1/snapshots/named/one")
        with Writer(p) as w:
            harness.await_true(lambda: w.count > 20, what="writes")
            got = p.get("/v1/backup")
            before = w.count
            harness.await_true(lambda: w.count > before + 20, what="writes")
        self.assertEqual((got.status, len(got.body)), (200, int(got.headers["Content-Length"])))
        self.assertEqual(len(got.body) % PAGE, 0)
        self.assertTrue(got.headers["BTS-Position"].split("/")[1] == got.headers["BTS-Txid"], got)
        s = self.restored(got.body, "copy", got.headers["BTS-Digest"])
        # A commit's state: the two keys are written one after the other.
        left, right = int(s.value("b", "left").body), int(s.value("b", "right").body)
        self.assertIn(left - right, (0, 1))
        self.assertEqual(s.get("/v1/buckets/b/keys/k00007?snapshot=name:one").body, b"v7" * 40)
        self.assertNotEqual(p.status()["root_digest"], got.headers["BTS-Digest"])

    def test_a_download_goes_on(self):
        p = self.primary()
        fill(p)
        with Writer(p) as w:
            c = p.client()
            c.http.request("GET", "/v1/backup")
            r = c.http.getresponse()
            tag, size, place = r.headers["ETag"], int(r.headers["Content-Length"]), r.headers["Content-Location"]
            self.assertEqual(r.headers["Accept-Ranges"], "bytes")
            image = r.read(size // 3)
            c.close()  # broken off
            harness.await_true(lambda: w.count > 50, what="writes")
            some = p.get("/v1/backup", {"Range": "bytes=%d-%d" % (len(image), len(image) + 100000), "If-Range": tag})
            self.assertEqual((some.status, some.headers["ETag"], len(some.body)), (206, tag, 100001))
            self.assertEqual(some.headers["Content-Range"], "bytes %d-%d/%d" % (len(image), len(image) + 100000, size))
            image += some.body
            rest = p.get(place, {"Range": "bytes=%d-" % len(image)})
            self.assertEqual(rest.status, 206)
            image += rest.body
            self.assertEqual(len(image), size)
            self.assertEqual(hashlib.sha256(image).digest(), hashlib.sha256(p.get(place).body).digest())
            # Any part, several at once.
            wrong = []

            def part(seed):
                rng = random.Random(seed)
                with p.client() as c:
                    for _ in range(15):
                        at = rng.randrange(size)
                        end = min(size, at + rng.choice([1, 5000, 700000]))
                        got = c.request("GET", place, None, {"Range": "bytes=%d-%d" % (at, end - 1)})
                        if got.status != 206 or got.body != image[at:end]:
                            wrong.append((at, end, got.status))

            threads = [threading.Thread(target=part, args=(i,)) for i in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual(wrong, [])
        self.restored(image, "copy", r.headers["BTS-Digest"])
        self.refused(p.get(place, {"Range": "bytes=%d-" % size}), 416, "range-not-satisfiable")
        for only, status in ((tag, 206), (tag + " ", 206), ('"zz"', 200), ("W/" + tag, 200), (tag[:-1], 200), ("", 200)):
            got = p.get(place, {"Range": "bytes=5-9", "If-Range": only})
            self.assertEqual((got.status, len(got.body), got.headers["ETag"]), (status, 5 if status == 206 else size, tag), only)
        # Of no image, or of another one: the whole of a new one.
        for headers in ({"Range": "bytes=5-"}, {"Range": "bytes=5-", "If-Range": '"%s"' % ("0" * 32)}):
            new = p.get("/v1/backup?ttl=0s", headers)
            self.assertEqual((new.status, len(new.body)), (200, int(new.headers["Content-Length"])))
            self.assertNotEqual(new.headers["ETag"], tag)
        self.assertEqual(p.request("DELETE", place).status, 204)
        self.refused(p.get(place), 410, "snapshot-expired")
        self.refused(p.request("DELETE", place), 410, "snapshot-expired")
        harness.await_true(lambda: p.status()["readers"] == 0, 10, "the images to be let go")

    def test_head_and_time(self):
        p = self.primary()
        fill(p, 10, 1)
        head = p.request("HEAD", "/v1/backup?ttl=60s")
        place = head.headers["Content-Location"]
        self.assertEqual(head.status, 200)
        self.assertEqual(len(p.get(place).body), int(head.headers["Content-Length"]))
        part = p.request("HEAD", place, headers={"Range": "bytes=0-9"})
        self.assertEqual((part.status, part.headers["Content-Length"]), (200, head.headers["Content-Length"]))
        self.assertEqual(p.request("DELETE", place).status, 204)
        place = p.request("HEAD", "/v1/backup?ttl=1s").headers["Content-Location"]
        harness.await_true(lambda: p.get("/v1/status").json()["readers"] == 0, 10, "its end")
        self.refused(p.get(place), 410, "snapshot-expired")
        self.refused(p.get("/v1/backup?ttl=2h"), 400, "invalid-parameter")
        self.refused(p.get("/v1/backup?image=x"), 410, "snapshot-expired")

    def test_how_many(self):
        p = self.primary("--backups-max", "2")
        fill(p, 10, 3)
        clients = [p.client() for _ in range(2)]
        for c in clients:
            c.http.request("GET", "/v1/backup")
            c.response = c.http.getresponse()
            c.response.read(1000)
        reply = p.get("/v1/backup")
        self.refused(reply, 503, "too-many-backups")
        self.assertEqual(reply.headers["Retry-After"], "1")
        tag = clients[0].response.headers["ETag"]
        clients[0].close()
        harness.await_true(lambda: b"btsd_backup_downloads 1\n" in p.get("/metrics").body, 10, "the end of it")
        # One that broke off keeps its place; one that was read to its end gives it up.
        self.refused(p.get("/v1/backup"), 503, "too-many-backups")
        again = p.get("/v1/backup", {"Range": "bytes=1000-", "If-Range": tag})
        self.assertEqual(again.status, 206)
        harness.await_true(lambda: p.get("/v1/backup").status == 200, 10, "a place")
        clients[1].close()

    def test_damage_cuts_it(self):
        p = self.primary()
        fill(p, 2000, 2)
        p.stop()
        path = self.dir.file("primary.bts")
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) * 2 // 3)
            at = f.tell()
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 4]))
        p = self.primary()
        cut = 0
        c = p.client()
        c.http.request("GET", "/v1/backup")
        r = c.http.getresponse()
        if r.status == 200:
            size = int(r.headers["Content-Length"])
            with self.assertRaises(http.client.IncompleteRead) as e:
                r.read()
            self.assertLess(len(e.exception.partial), size)
            p.wait_log("event=backup-cut")
        else:  # in a node, which the walk at the beginning reads
            self.assertEqual((r.status, json.loads(r.read())["code"]), (500, "corrupt"))
        c.close()

    def test_memory_stays(self):
        p = self.primary()
        p.request("PUT", "/v1/buckets/b")
        for i in range(3):
            p.put("b", "big%d" % i, os.urandom(30000000))

        def anonymous():
            with open("/proc/%d/smaps_rollup" % p.pid) as f:
                return [int(line.split()[1]) for line in f if line.startswith("Anonymous:")][0]

        p.get("/v1/backup?ttl=0s")
        before = anonymous()
        clients = [p.client() for _ in range(4)]
        for c in clients:
            c.http.request("GET", "/v1/backup")
            c.response = c.http.getresponse()
        for c in clients:
            while c.response.read(1 << 20):
                pass
            c.close()
        self.assertLess(anonymous() - before, 16384)

    def test_a_follower_too(self):
        p = self.primary()
        fill(p, 500, 1)
        f = self.started(harness.follower(self.dir, p))
        harness.await_equal(p, f)
        got = f.get("/v1/backup")
        self.assertEqual(got.headers["BTS-Digest"], p.status()["root_digest"])
        with Writer(p) as w:
            harness.await_true(lambda: w.count > 20, what="writes")
            self.assertEqual(f.get(got.headers["Content-Location"]).body, got.body)
        s = self.restored(got.body, "copy", got.headers["BTS-Digest"])
        self.assertEqual(s.value("b", "k00007").body, b"v7" * 40)
        # A promotion goes ahead whatever was kept, which holds pages of frames from their places.
        p.request("DELETE", "/v1/buckets/b/keys/big0")
        for i in range(20):
            p.put("b", "x%d" % i, b"x" * 300000)
        harness.await_equal(p, f)
        self.assertGreater(f.status()["redirected_pages"], 0)
        self.assertEqual(f.get(got.headers["Content-Location"]).body, got.body)
        self.assertEqual(p.request("POST", "/v1/admin/demote").status, 200)
        harness.await_equal(p, f)
        self.assertEqual(f.request("POST", "/v1/admin/promote?force=1").status, 200)
        self.refused(f.get(got.headers["Content-Location"]), 410, "snapshot-expired")

    def test_parts_have_no_token(self):
        """It was that of the newest epoch with the image's number: after a promotion a commit that never was."""
        p = self.primary()
        fill(p, 20, 0)
        f = self.started(harness.follower(self.dir, p))
        harness.await_equal(p, f)
        got = f.get("/v1/backup")
        self.assertEqual(got.headers["BTS-Token"], p.value("b", "k00001").headers["BTS-Token"])
        self.assertEqual(f.request("POST", "/v1/admin/promote?force=1").status, 200)
        self.assertEqual(f.put("b", "new", b"x").status, 201)
        for headers in ({}, {"Range": "bytes=0-9"}):
            part = f.get(got.headers["Content-Location"], headers)
            self.assertEqual((part.headers["BTS-Position"], part.headers["BTS-Token"]), (got.headers["BTS-Position"], None))
        part = f.get("/v1/backup", {"Range": "bytes=0-9", "If-Range": got.headers["ETag"]})
        self.assertEqual((part.status, part.headers["BTS-Token"]), (206, None))


class Since(Case):
    def stat(self, file):
        code, text = tool("stat", self.dir.file(file), "--json")
        self.assertEqual(code, 0, text)
        return json.loads(text)

    def apply(self, file, frames):
        """The exit status of a bts-replicator that puts these frames onto the file, and its log."""
        done = subprocess.run([harness.binary("bts-replicator"), "--data", self.dir.file(file), "--apply", "-"], input=frames,
                              capture_output=True, timeout=100)
        return done.returncode, done.stderr.decode()

    def test_full_and_incrementals(self):
        p = self.primary()
        fill(p)
        full = p.get("/v1/backup")
        with open(self.dir.file("full.img"), "wb") as f:
            f.write(full.body)
        self.assertEqual(tool("restore", self.dir.file("copy.bts"), self.dir.file("full.img"), "--same-id")[0], 0)
        position, frames, digests = full.headers["BTS-Position"], [], []
        for i in range(4):
            with Writer(p) as w:
                harness.await_true(lambda: w.count > 30, what="writes")
                if i == 1:
                    p.request("PUT", "/v1/snapshots/named/one")
                    p.request("DELETE", "/v1/buckets/b/keys/big0")
                if i == 2:
                    p.put("b", "big9", b"9" * 5000000)
                    p.request("POST", "/v1/admin/compact")
                got = p.get("/v1/backup?since=" + harness.quote(position))
            self.assertEqual(got.status, 200, got)
            self.assertNotEqual(got.headers["BTS-Position"], position)
            position = got.headers["BTS-Position"]
            frames.append(got.body)
            digests.append(got.headers["BTS-Digest"])
        self.assertLess(len(frames[0]), len(full.body) / 3)
        self.assertEqual(p.stop(), 0)
        # Not for this file: it is as it was, not even fenced.
        whole = self.stat("copy.bts")
        for bad in (frames[1], b"nothing of the kind" * 10, b""):
            status, log = self.apply("copy.bts", bad)
            self.assertEqual(status, 0 if not bad else 1, log)
            self.assertEqual(self.stat("copy.bts"), whole)
        # Out of order, cut, flipped: refused, and its state is as it was.
        before = whole["root_digest"]
        flipped = bytearray(frames[0])
        flipped[len(flipped) // 2] ^= 1
        for bad in (frames[1], frames[0][:-1], bytes(flipped), b"nothing of the kind" * 10):
            status, log = self.apply("copy.bts", bad)
            self.assertEqual(status, 1, log)
            self.assertEqual(self.stat("copy.bts")["root_digest"], before)
        # One, the same again, then two in one stream, the rest.
        for part, digest in ((frames[0], 0), (frames[0], 0), (frames[1] + frames[2], 2), (frames[2] + frames[3], 3)):
            status, log = self.apply("copy.bts", part)
            self.assertEqual(status, 0, log)
            self.assertEqual(self.stat("copy.bts")["root_digest"], digests[digest])
            code, text = tool("check", self.dir.file("copy.bts"))
            self.assertEqual(code, 0, text)
        # And it can be served.
        self.assertEqual(tool("promote", self.dir.file("copy.bts"))[0], 0)
        s = self.started(harness.primary(self.dir, data="copy.bts"))
        self.assertEqual(s.value("b", "big9").body, b"9" * 5000000)
        self.assertEqual(s.value("b", "big0").status, 404)
        self.assertEqual(len(s.get("/v1/buckets/b/keys/big0?snapshot=name:one").body), 3000000)

    def test_what_is_refused(self):
        p = self.primary("--backups-max", "1")
        fill(p, 100, 1)
        position = p.get("/v1/backup?ttl=0s").headers["BTS-Position"]
        harness.await_true(lambda: p.status()["readers"] == 0, 10, "its end")
        same = p.get("/v1/backup?since=" + harness.quote(position))
        self.assertEqual((same.status, same.headers["BTS-Position"]), (204, position))
        epoch, txid, chain = position.split("/")
        for bad in ("", "x", txid, position + "0", "%s/0/%s" % (epoch, chain)):
            self.refused(p.get("/v1/backup?since=" + harness.quote(bad)), 400, "invalid-parameter")
        for wrong in ("%s/%d/%s" % (epoch, int(txid) + 100, chain), "%s/%s/%s" % (epoch, txid, "0" * 32)):
            self.assertEqual(p.get("/v1/backup?since=" + harness.quote(wrong)).status, 409)
        self.refused(p.get("/v1/backup?image=a&since=" + harness.quote(position)), 400, "invalid-parameter")
        p.put("b", "big", os.urandom(20000000))
        with p.client() as c:
            c.http.request("GET", "/v1/backup?since=" + harness.quote(position))
            c.http.getresponse().read(1000)
            self.refused(p.get("/v1/backup?since=" + harness.quote(position)), 503, "too-many-backups")
        harness.await_true(lambda: p.get("/v1/backup?since=" + harness.quote(position)).status == 200, 10, "a place")


if __name__ == "__main__":
    unittest.main()
