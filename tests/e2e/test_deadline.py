"""A primary that is held to a deadline (BTS_OPEN_DEADLINE), set by another process on the file: what it answers past it."""
import json
import subprocess
import threading

import harness


class Writer:
    """engine/examples/deadline_writer beside the server, or alone."""

    def __init__(self, path):
        self.process = subprocess.Popen([harness.binary("deadline_writer"), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, bufsize=1)
        assert self.process.stdout.readline() == "ready\n"

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()
        self.process.stdout.close()


HOUR = 3600000


class Deadline(harness.Case):
    def writer(self, path):
        w = Writer(path)
        self.addCleanup(w.stop)
        return w

    def begin(self, *args):
        self.p = self.started(harness.primary(self.dir, "--name", "p", *args))
        self.path = self.dir.file("primary.bts")
        self.assertEqual(self.p.request("PUT", "/v1/buckets/b").status, 201)
        self.assertIsNone(self.p.status()["deadline_ms"])

    def refused(self, reply, code="not-primary"):
        self.assertEqual((reply.status, reply.code), (503, code), reply)

    def test_past_it(self):
        self.begin()
        self.assertEqual(self.p.put("b", "k", b"1").status, 201)
        w = self.writer(self.path)
        # In use from now on, and none is set.
        before = self.p.status()
        self.assertEqual(before["deadline_ms"], 0)
        txn = json.dumps({"then": [{"op": "put", "bucket": "b", "key": "t", "value": "1"}]}).encode()
        for method, target, body in (("PUT", "/v1/buckets/b/keys/k", b"2"), ("DELETE", "/v1/buckets/b/keys/k", None),
                                     ("PUT", "/v1/buckets/c", None), ("DELETE", "/v1/buckets/b", None),
                                     ("DELETE", "/v1/buckets/b/keys?all=1", None), ("POST", "/v1/txn", txn),
                                     ("POST", "/v1/buckets/b/load", b'{"key":"l","value":"v"}\n'),
                                     ("PUT", "/v1/snapshots/named/s", None), ("POST", "/v1/admin/compact", None)):
            self.refused(self.p.request(method, target, body))
        self.refused(self.p.get("/readyz?role=primary"))
        self.assertEqual(self.p.get("/readyz").status, 200)
        self.assertEqual(self.p.value("b", "k").body, b"1")
        self.assertEqual(self.p.status()["txid"], before["txid"])
        read = json.dumps({"then": [{"op": "get", "bucket": "b", "key": "k"}]}).encode()
        self.assertEqual(self.p.request("POST", "/v1/txn", read).status, 200)
        self.assertEqual(w.say("for %d" % HOUR), "ok")
        self.assertEqual(self.p.put("b", "k", b"2").status, 200)
        self.assertEqual(self.p.request("POST", "/v1/txn", txn).status, 200)
        self.assertEqual(self.p.get("/readyz?role=primary").status, 200)
        left = self.p.status()["deadline_ms"]
        self.assertTrue(HOUR / 2 < left <= HOUR, left)
        # It outlives who set it, and ends with the last process.
        w.stop()
        self.assertEqual(self.p.put("b", "k", b"3").status, 200)
        w = self.writer(self.path)
        self.assertEqual(w.say("give-up"), "ok")
        self.refused(self.p.put("b", "k", b"4"))
        w.stop()
        self.refused(self.p.put("b", "k", b"4"))
        self.p.stop()
        self.p = self.started(harness.primary(self.dir, "--name", "p"))
        self.assertEqual(self.p.put("b", "k", b"4").status, 200)

    def waiting(self, requests, then=lambda: None):
        """The replies of requests that wait for a copy nobody will make, once the deadline is given up meanwhile."""
        replies = [None] * len(requests)

        def send(i):
            method, target, body, headers = requests[i]
            replies[i] = self.p.request(method, target, body, headers)

        threads = [threading.Thread(target=send, args=(i,)) for i in range(len(requests))]
        for t in threads:
            t.start()
        want = b"btsd_durability_waiting %d" % len(requests)
        harness.await_true(lambda: want in self.p.get("/metrics").body, what="all to wait")
        self.assertEqual(self.w.say("give-up"), "ok")
        then()
        for t in threads:
            t.join()
        return replies

    def test_while_copies_are_waited_for(self):
        """Committed in time and answered too late: never told as done, and not as refused either."""
        self.begin()
        self.w = self.writer(self.path)
        self.assertEqual(self.w.say("for %d" % HOUR), "ok")
        query = "?durability=replicated:1&timeout=4s"
        txn = json.dumps({"then": [{"op": "put", "bucket": "b", "key": "t", "value": "1"}]}).encode()
        keyed = {"Idempotency-Key": "once"}
        requests = [("PUT", "/v1/buckets/b/keys/k" + query, b"v", None), ("PUT", "/v1/buckets/c" + query, None, None),
                    ("POST", "/v1/txn" + query, txn, keyed), ("PUT", "/v1/snapshots/named/s" + query, None, None),
                    ("POST", "/v1/buckets/b/load" + query, b'{"key":"l","value":"v"}\n', None)]
        for reply in self.waiting(requests):
            self.refused(reply, "outcome-unknown")
            self.assertIsNone(reply.headers["Retry-After"])
            self.assertIsNone(reply.headers["ETag"])
            self.assertIsNone(reply.headers["Durability-Reached"])
        # They stand here, and readers see them.
        self.assertEqual(self.p.value("b", "k").body, b"v")
        self.assertEqual(self.p.value("b", "l").status, 200)
        self.assertEqual(self.p.get("/v1/snapshots/named/s").status, 200)
        self.refused(self.p.request("POST", "/v1/txn", txn, keyed))
        # With the lease again the same transaction is told what became of it.
        self.assertEqual(self.w.say("for %d" % HOUR), "ok")
        before = self.p.status()["txid"]
        self.assertEqual(self.p.request("POST", "/v1/txn", txn, keyed).status, 200)
        self.assertEqual(self.p.status()["txid"], before)
        self.assertTrue(self.p.alive())

    def test_elected_again_meanwhile(self):
        """What was committed before the deadline passed may have been taken back by another primary: it is not told of in a later epoch."""
        self.begin()
        self.w = self.writer(self.path)
        self.assertEqual(self.w.say("for %d" % HOUR), "ok")
        self.assertEqual(self.p.put("b", "k", b"1").status, 201)

        def again():
            self.assertEqual(self.p.request("POST", "/v1/admin/demote").status, 200)
            self.assertEqual(self.w.say("for %d" % HOUR), "ok")
            self.assertEqual(self.p.request("POST", "/v1/admin/promote?force=1").status, 200)

        reply, = self.waiting([("PUT", "/v1/buckets/b/keys/k?durability=replicated:1&timeout=10s", b"2", None)], again)
        self.refused(reply, "outcome-unknown")
        self.assertIsNone(reply.headers["BTS-Token"])  # of an epoch that it is not of
        self.assertEqual(self.p.put("b", "k", b"3").status, 200)

    def test_example(self):
        path = self.dir.file("example.bts")
        a = self.writer(path)
        self.assertEqual(a.say("put k v"), "fenced")
        self.assertEqual(a.say("get k"), "not-found")
        b = self.writer(path)
        self.assertEqual(b.say("for %d" % HOUR), "ok")
        self.assertEqual(a.say("put k v"), "ok")
        self.assertEqual(b.say("get k"), "v")
        self.assertTrue(0 < int(a.say("left")) <= HOUR)
        self.assertEqual(a.say("for 1"), "ok")  # is not later
        self.assertEqual(b.say("put k w"), "ok")
        self.assertEqual(a.say("give-up"), "ok")
        self.assertEqual(b.say("left"), "0")
        self.assertEqual(b.say("put k x"), "fenced")
        self.assertEqual(b.say("get k"), "w")


if __name__ == "__main__":
    harness.main()
