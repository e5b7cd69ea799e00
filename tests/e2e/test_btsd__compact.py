"""Compaction over HTTP: it makes the file smaller beside writes, tells how far it is, what holds it, and stops."""
import os
import unittest

import harness


class Compact(harness.Case):
    def sparse(self):
        """A primary whose file is mostly free, with what lives at its end."""
        p = self.started(harness.primary(self.dir, "--admin-listen", "127.0.0.1:0"))
        p.request("PUT", "/v1/buckets/b")
        for i in range(20):
            p.put("b", "big%02d" % i, os.urandom(1000000))
        p.put("b", "last", b"at the end" * 2000)
        for i in range(20):
            p.request("DELETE", "/v1/buckets/b/keys/big%02d" % i)
        return p

    def refused(self, reply, status, code):
        self.assertEqual((reply.status, reply.code), (status, code), reply)

    def ended(self, p):
        harness.await_true(lambda: not p.get("/v1/admin/compact").json()["running"], 30, "its end")
        return p.get("/v1/admin/compact").json()

    def test_smaller(self):
        p = self.sparse()
        self.refused(p.get("/v1/admin/compact"), 404, "not-found")
        self.refused(p.request("DELETE", "/v1/admin/compact"), 404, "not-found")
        self.refused(p.request("POST", "/v1/admin/compact?rate=1"), 400, "invalid-parameter")
        before = p.status()["file_bytes"]
        began = p.request("POST", "/v1/admin/compact")
        self.assertEqual(began.status, 202, began)
        for i in range(30):
            p.put("b", "k%d" % i, b"v" * 1000)
        now = self.ended(p)
        self.assertTrue(now["ended"], now)
        self.assertEqual((now["error"], now["bytes_before"]), ("", before))
        self.assertGreater(now["pages_truncated"], 0)
        self.assertLess(p.status()["file_bytes"], before / 3)
        self.assertEqual(p.value("b", "last").body, b"at the end" * 2000)
        # What it committed is what readers are told of.
        self.assertEqual(p.status()["txid"], p.status()["durable_txid"])
        p.wait_log("event=compaction-ended")

    def test_what_holds_it(self):
        p = self.sparse()
        id = p.request("POST", "/v1/snapshots", b'{"ttl":"60s"}').json()
        p.put("b", "last", b"elsewhere")
        before = p.status()["file_bytes"]
        p.request("POST", "/v1/admin/compact")
        now = self.ended(p)
        self.assertEqual(now["held_by_reader"], id["txid"], now)
        self.assertGreater(p.status()["file_bytes"], before * 2 / 3)
        p.request("DELETE", "/v1/snapshots/" + id["id"])
        self.assertEqual(p.request("POST", "/v1/admin/compact").status, 202)
        self.ended(p)
        self.assertLess(p.status()["file_bytes"], before / 3)

    def test_stop(self):
        p = self.sparse()
        for i in range(20):
            p.put("b", "k%02d" % i, os.urandom(300000))
        admin = int(p.wait_log(r"admin=127\.0\.0\.1:(\d+)").group(1))
        with harness.Client(admin) as c:
            self.assertEqual(c.request("POST", "/v1/admin/compact?rate=65536").status, 202)
            self.refused(c.request("POST", "/v1/admin/compact"), 409, "busy")
            stopped = c.request("DELETE", "/v1/admin/compact")
            self.assertEqual((stopped.status, stopped.json()["running"], stopped.json()["ended"]), (200, False, False))
            self.assertEqual(c.request("POST", "/v1/admin/compact?rate=65536").status, 202)
        # A stop of the server does not wait for its pause.

    def test_of_a_follower(self):
        p = self.sparse()
        f = self.started(harness.follower(self.dir, p))
        harness.await_equal(p, f)
        self.refused(f.request("POST", "/v1/admin/compact"), 409, "wrong-role")
        p.request("POST", "/v1/admin/compact")
        self.ended(p)
        harness.await_equal(p, f)
        self.assertEqual(f.value("b", "last").body, b"at the end" * 2000)


if __name__ == "__main__":
    unittest.main()
