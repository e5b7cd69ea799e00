"""Tokens through forks: what was lost is said to be lost, what may still come is waited for, what is there is read, on every node."""
import shutil
import unittest

import harness


class Tokens(harness.Case):
    def follow(self, source, name):
        return self.started(harness.follower(self.dir, source, name=name))

    def read(self, node, key, token, wait="0s"):
        got = node.get("/v1/buckets/b/keys/%s?wait=%s" % (key, wait), {"BTS-After": token})
        return got.status if got.status == 200 else (got.status, got.code)

    def test_promotion(self):
        p = self.started(harness.primary(self.dir, "--name", "p"))
        p.request("PUT", "/v1/buckets/b")
        f1 = self.follow(p, "f1")
        harness.await_equal(p, f1)
        f2 = self.follow(f1, "f2")
        kept = p.put("b", "kept", b"1").headers["BTS-Token"]
        harness.await_equal(p, f1)
        harness.await_equal(p, f2)
        # These reach nobody: the followers are away.
        p1, p2 = f1.port, f2.port
        f1.stop()
        f2.stop()
        lost = [p.put("b", "lost", b"%d" % i).headers["BTS-Token"] for i in range(5)]
        p.kill()
        f1 = self.started(harness.follower(self.dir, p, name="f1", listen="127.0.0.1:%d" % p1))
        f2 = self.started(harness.follower(self.dir, f1, name="f2", listen="127.0.0.1:%d" % p2))
        # Before anybody is promoted they may still come.
        for node in (f1, f2):
            self.assertEqual(self.read(node, "kept", kept), 200)
            self.assertEqual(self.read(node, "lost", lost[-1]), (503, "behind"))
        reply = f1.request("POST", "/v1/admin/promote?force=true")
        self.assertEqual(reply.status, 200, reply)
        # The new primary may ask for copies at once; only those of its own epoch count.
        reply = f1.request("PUT", "/v1/buckets/b/keys/new?durability=replicated:1&timeout=30s", b"2")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (201, "replicated:1"))
        new = reply.headers["BTS-Token"]
        harness.await_equal(f1, f2)
        for node in (f1, f2):
            self.assertEqual(self.read(node, "kept", kept), 200)
            self.assertEqual(self.read(node, "new", new, "5s"), 200)
            for token in lost:
                self.assertEqual(self.read(node, "kept", token, "5s"), (409, "write-lost"))
        # The old primary knows nothing of the new epoch, and says that it does not.
        old = self.started(harness.primary(self.dir, "--name", "p"))
        self.assertEqual(self.read(old, "kept", new), (503, "behind"))
        self.assertEqual(self.read(old, "lost", lost[-1]), 200)
        # Reads give tokens as good as writes do, on both sides of the fork.
        read = f2.value("b", "new").headers["BTS-Token"]
        self.assertEqual(self.read(f1, "new", read), 200)
        self.assertEqual(self.read(old, "new", read), (503, "behind"))
        read = old.value("b", "lost").headers["BTS-Token"]
        self.assertEqual(self.read(f1, "kept", read), (409, "write-lost"))

    def test_a_copy_of_yesterday(self):
        p = self.started(harness.primary(self.dir, "--name", "p"))
        p.request("PUT", "/v1/buckets/b")
        kept = p.put("b", "k", b"1").headers["BTS-Token"]
        p.stop()
        shutil.copy(self.dir.file("primary.bts"), self.dir.file("copy.bts"))
        p = self.started(harness.primary(self.dir, "--name", "p"))
        lost = p.put("b", "k", b"2").headers["BTS-Token"]
        p.stop()
        p = self.started(harness.primary(self.dir, "--name", "p", data="copy.bts"))
        p.put("b", "k", b"3")
        self.assertEqual(self.read(p, "k", kept), 200)
        self.assertEqual(self.read(p, "k", lost), (409, "write-lost"))
        f = self.follow(p, "f")
        harness.await_equal(p, f)
        self.assertEqual(self.read(f, "k", kept), 200)
        self.assertEqual(self.read(f, "k", lost), (409, "write-lost"))

    def test_nonsense(self):
        p = self.started(harness.primary(self.dir, "--name", "p"))
        for token in ("", "x", "AQ", "!" * 28, "A" * 28, "A" * 400):
            self.assertEqual(p.get("/v1/buckets", {"BTS-After": token}).code, "invalid-token", token)


if __name__ == "__main__":
    harness.main()
