"""Damage on disk under running servers: found, repaired over HTTP from the other node, told."""
import os
import struct
import unittest

import harness

PAGE = 4096


def leaf_pages(path):
    """Pages of buckets' leaves, by their header: type 1, tree 16 or above, own number, live or not."""
    with open(path, "rb") as f:
        data = f.read()
    for n in range(65536 // PAGE, len(data) // PAGE):
        page = data[n * PAGE:(n + 1) * PAGE]
        number = int.from_bytes(page[8:14], "little")
        if page[4] == 1 and number == n and struct.unpack_from("<I", page, 32)[0] >= 16:
            yield n


def flip(path, page, at):
    with open(path, "r+b") as f:
        f.seek(page * PAGE + at)
        byte = f.read(1)[0]
        f.seek(page * PAGE + at)
        f.write(bytes([byte ^ 8]))


class Scrub(harness.Case):
    def setUp(self):
        super().setUp()
        self.p = self.started(harness.primary(self.dir, "--name", "p"))
        self.r = self.started(harness.replicator(self.dir))
        self.p.request("PUT", "/v1/buckets/b")
        for i in range(300):
            self.p.put("b", "k%04d" % i, b"v%d" % i * 20)
        self.f = self.started(harness.follower(self.dir, self.r, name="f"))
        harness.await_equal(self.p, self.f)

    def path(self, name):
        return self.dir.file(name)

    def scrub(self, node, query=""):
        reply = node.request("POST", "/v1/admin/scrub" + query)
        self.assertEqual(reply.status, 202, reply)

        def ended():
            now = node.request("GET", "/v1/admin/scrub").json()
            return now if not now["running"] else None

        return harness.await_true(ended, what="the end of the scrub")

    def test_follower_heals_from_its_source(self):
        self.assertEqual(self.f.request("GET", "/v1/admin/scrub").status, 404)
        damaged = list(leaf_pages(self.path("f.bts")))[-1]
        clean = self.scrub(self.f)
        self.assertEqual((clean["damaged"], clean["lost"]), (0, 0))
        flip(self.path("f.bts"), damaged, 3000)
        now = self.scrub(self.f)
        self.assertEqual(now["damaged"], now["repaired"])
        self.assertEqual((now["lost"], now["ended"], now["error"]), (0, True, ""))
        harness.await_equal(self.p, self.f)
        self.assertEqual(self.f.request("POST", "/v1/admin/scrub?rate=1").status, 400)
        self.assertEqual(self.f.request("POST", "/v1/admin/scrub?from=garbage").status, 400)

    def test_a_page_nobody_has(self):
        live = [n for n in leaf_pages(self.path("primary.bts"))]
        for n in live:
            flip(self.path("primary.bts"), n, 2000)
        now = self.scrub(self.p)
        self.assertGreater(now["damaged"], 0)
        self.assertEqual(now["lost"], now["damaged"])
        self.assertIn(now["lost_pages"][0]["page"], live)
        for n in live:
            flip(self.path("primary.bts"), n, 2000)
        self.assertEqual(self.scrub(self.p)["damaged"], 0)


if __name__ == "__main__":
    unittest.main()
