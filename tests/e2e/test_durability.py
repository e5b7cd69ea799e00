"""durability=replicated:K: what counts as a copy, what a client is told when there are too few, and who waits where."""
import json
import signal
import threading
import time
import unittest

import harness


class Durability(harness.Case):
    def cluster(self, *args, followers=2):
        self.p = self.started(harness.primary(self.dir, "--name", "p", *args))
        self.assertIn(self.p.request("PUT", "/v1/buckets/b?durability=local").status, (200, 201))
        self.r = self.started(harness.replicator(self.dir))
        self.f = [self.started(harness.follower(self.dir, self.r, name="f%d" % (i + 1))) for i in range(followers)]
        for f in self.f:
            harness.await_equal(self.p, f)

    def put(self, key, query, value=b"v"):
        return self.p.request("PUT", "/v1/buckets/b/keys/%s?%s" % (key, query), value)

    def test_copies_are_there_when_it_says_so(self):
        self.cluster()
        for i in range(100):
            reply = self.put("k%d" % i, "durability=replicated:2&timeout=30s", b"%d" % i)
            self.assertEqual(reply.status, 201, reply)
            self.assertEqual(reply.headers["Durability-Reached"], "replicated:2")
            for f in self.f:
                self.assertEqual(f.value("b", "k%d" % i).body, b"%d" % i)
        reply = self.put("k1", "durability=local")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (200, None))
        reply = self.p.request("DELETE", "/v1/buckets/b/keys/k1?durability=replicated:1")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (204, "replicated:1"))
        reply = self.p.request("DELETE", "/v1/buckets/b/keys/k1?durability=replicated:1")
        self.assertEqual(reply.status, 404)
        reply = self.p.request("PUT", "/v1/buckets/c?durability=replicated:2")
        self.assertEqual((reply.status, reply.json()["name"], reply.headers["Durability-Reached"]), (201, "c", "replicated:2"))
        lines = b"".join(b'{"key":"l%d","value":"x"}\n' % i for i in range(2500))
        reply = self.p.request("POST", "/v1/buckets/b/load?durability=replicated:2&timeout=30s", lines)
        self.assertEqual((reply.status, reply.json()["records"], reply.headers["Durability-Reached"]), (200, 2500, "replicated:2"))
        for f in self.f:
            self.assertEqual(f.value("b", "l2499").status, 200)

    def test_too_few(self):
        self.cluster(followers=1)
        began = time.monotonic()
        reply = self.put("a", "durability=replicated:2&timeout=300ms")
        self.assertGreater(time.monotonic() - began, 0.25)
        self.assertEqual(reply.status, 202, reply)
        self.assertEqual(reply.headers["Durability-Reached"], "local")
        told = reply.json()
        self.assertEqual((told["committed"], told["durability-reached"]), (True, "local"))
        self.assertEqual(told["txid"], int(reply.headers["BTS-Txid"]))
        self.assertTrue(reply.headers["BTS-Token"])
        self.assertTrue(reply.headers["ETag"])
        self.assertEqual(self.p.value("b", "a").body, b"v")  # the write stands
        self.assertEqual(self.f[0].value("b", "a", {"BTS-After": reply.headers["BTS-Token"]}).body, b"v")
        self.assertEqual(self.put("a", "durability=replicated:2&timeout=0s").status, 202)
        reply = self.p.request("DELETE", "/v1/buckets/b/keys/a?durability=replicated:3&timeout=0s")
        self.assertEqual((reply.status, reply.json()["committed"]), (202, True))
        reply = self.p.request("PUT", "/v1/buckets/x?durability=replicated:3&timeout=0s")
        self.assertEqual((reply.status, reply.json()["committed"]), (202, True))
        reply = self.p.request("POST", "/v1/buckets/b/load?durability=replicated:3&timeout=100ms", b'{"key":"k","value":"v"}\n')
        self.assertEqual((reply.status, reply.json()["committed"], reply.json()["records"]), (202, True, 1))
        text = self.p.get("/metrics").body.decode()
        self.assertIn("btsd_durability_unreached_total 5", text)

    def test_refused(self):
        self.p = self.started(harness.primary(self.dir, "--name", "p", "--members", "p,f1,f2"))
        self.p.request("PUT", "/v1/buckets/b")
        for query in ("durability=", "durability=replicated", "durability=replicated:", "durability=replicated:0", "durability=replicated:3",
                      "durability=replicated:-1", "durability=remote", "timeout=61s", "timeout=x", "durability=local&durability=local"):
            for target in ("/v1/buckets/b/keys/k?", "/v1/buckets/b?", "/v1/buckets/b/load?"):
                method = "POST" if "load" in target else "PUT"
                self.assertEqual(self.p.request(method, target + query, b"").status, 400, target + query)
        reply = self.put("k", "durability=archived")
        self.assertEqual((reply.status, reply.code), (400, "no-archive"))
        self.assertEqual(self.p.get("/v1/buckets/b/keys/k?durability=local").status, 400)
        self.assertEqual(self.p.value("b", "k").status, 404)

    def test_only_members_count(self):
        self.cluster("--members", "p,f1,other", "--durability", "replicated:1")
        reply = self.put("k", "timeout=30s")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (201, "replicated:1"))
        self.f[0].stop()
        # f2 has it, and is no member.
        reply = self.put("k", "timeout=500ms", b"2")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (202, "local"))
        self.assertEqual(self.f[1].value("b", "k", {"BTS-After": reply.headers["BTS-Token"]}).body, b"2")
        self.assertEqual(self.put("k", "durability=local").status, 200)
        s = self.p.status()
        self.assertEqual((s["durability"], s["members"]), ("replicated:1", ["f1", "other"]))

    def test_a_wait_ends_when_the_copy_comes(self):
        self.cluster(followers=1)
        self.f[0].signal(signal.SIGSTOP)
        replies = []
        writers = [threading.Thread(target=lambda i=i: replies.append(self.put("k%d" % i, "durability=replicated:1&timeout=60s"))) for i in range(32)]
        for t in writers:
            t.start()
        harness.await_true(lambda: b"btsd_durability_waiting 32" in self.p.get("/metrics").body, what="all to wait")
        self.assertEqual(self.p.get("/v1/buckets/b/keys?limit=100").status, 200)  # nobody is held up by them
        with open("/proc/%d/status" % self.p.pid) as f:
            threads = int([x for x in f if x.startswith("Threads:")][0].split()[1])
        self.assertLess(threads, 32)  # not one each
        self.f[0].signal(signal.SIGCONT)
        for t in writers:
            t.join()
        self.assertEqual({x.status for x in replies}, {201})
        self.assertEqual({x.headers["Durability-Reached"] for x in replies}, {"replicated:1"})

    def test_stopping_tells_them(self):
        self.cluster(followers=0)
        replies = []
        t = threading.Thread(target=lambda: replies.append(self.put("k", "durability=replicated:1&timeout=60s")))
        t.start()
        harness.await_true(lambda: b"btsd_durability_waiting 1" in self.p.get("/metrics").body, what="it to wait")
        self.assertEqual(self.p.stop(), 0)
        t.join()
        self.assertEqual((replies[0].status, replies[0].json()["committed"]), (202, True))

    def test_acknowledged_is_there_when_the_primary_is_lost(self):
        self.cluster(followers=2)
        stop = threading.Event()
        acknowledged = []

        def write(i):
            n = 0
            try:
                with self.p.client() as c:
                    while not stop.is_set():
                        reply = c.request("PUT", "/v1/buckets/b/keys/w%d-%d?durability=replicated:1&timeout=20s" % (i, n), b"x")
                        if reply.status == 201:
                            acknowledged.append("w%d-%d" % (i, n))
                        n += 1
            except (OSError, harness.http.client.HTTPException):
                pass

        writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for t in writers:
            t.start()
        harness.await_true(lambda: len(acknowledged) > 300, 120, "writes")
        self.p.kill()
        stop.set()
        for t in writers:
            t.join()
        self.r.kill()
        best = max(self.f, key=lambda f: f.status()["txid"])
        for key in acknowledged:
            self.assertEqual(best.value("b", key).status, 200, key)

    def test_after_a_crash_of_the_primary(self):
        self.cluster(followers=1)
        before = self.put("k", "durability=replicated:1&timeout=30s").headers["BTS-Token"]
        self.p.kill()
        self.p = self.started(harness.primary(self.dir, "--name", "p"))  # another epoch
        reply = self.put("k", "durability=replicated:1&timeout=30s", b"2")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (200, "replicated:1"))
        for token in (before, reply.headers["BTS-Token"]):
            got = self.f[0].value("b", "k", {"BTS-After": token})
            self.assertEqual((got.status, got.body), (200, b"2"))
            self.assertEqual(self.p.value("b", "k", {"BTS-After": got.headers["BTS-Token"]}).status, 200)

    def test_two_nodes_of_one_name(self):
        self.cluster(followers=1)
        twin = self.started(harness.Server(
            [harness.binary("btsd"), "follower", "--data", self.dir.file("twin.bts"), "--listen", "127.0.0.1:0", "--from", self.r.url, "--name", "f1"],
            self.dir.file("twin.log")))
        harness.await_equal(self.p, twin)
        # Two files, one name: one copy.
        reply = self.put("k", "durability=replicated:2&timeout=1500ms")
        self.assertEqual(reply.status, 202)
        harness.await_true(lambda: "event=node-name-twice" in self.r.log_text(), what="the event")
        harness.await_true(lambda: self.p.status()["followers"][0]["twins"] > 0, what="the count")
        self.assertEqual(len(self.p.status()["followers"]), 1)

    def test_a_restarted_follower_is_no_twin(self):
        self.cluster(followers=1)
        for _ in range(3):
            self.f[0].kill()
            self.f[0] = self.started(harness.follower(self.dir, self.r, name="f1"))
            self.assertEqual(self.put("k", "durability=replicated:1&timeout=30s").headers["Durability-Reached"], "replicated:1")
        self.assertEqual(self.p.status()["followers"][0]["twins"], 0)


if __name__ == "__main__":
    harness.main()
