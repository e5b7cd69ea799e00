"""Followers of followers: over btsd and over a bts-replicator beside a follower's file; loops, several sources, tokens all the way."""
import http.client
import signal
import threading
import time
import unittest

import harness


class Cascade(harness.Case):
    def setUp(self):
        super().setUp()
        self.p = self.started(harness.primary(self.dir, "--name", "p"))
        self.p.request("PUT", "/v1/buckets/b")

    def follow(self, source, name, *args, listen=None):
        return self.started(harness.follower(self.dir, source, *args, name=name, listen=listen))

    def same(self, *nodes):
        for n in nodes:
            harness.await_equal(self.p, n)

    def test_a_chain_of_btsd(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        f2 = self.follow(f1, "f2")
        f3 = self.follow(f2, "f3")
        self.same(f1, f2, f3)
        for i in range(30):
            token = self.p.put("b", "k%d" % i, b"v%d" % i * 3000).headers["BTS-Token"]
            for f in (f3, f2, f1):
                got = f.value("b", "k%d" % i, {"BTS-After": token})
                self.assertEqual((got.status, got.body), (200, b"v%d" % i * 3000), got)
        self.assertEqual(harness.await_true(lambda: f3.status()["via"], what="the chain"), "f2,f1,p")
        # Acknowledgements are of one hop: each node lists who asks it.
        self.assertEqual([x["name"] for x in self.p.status()["followers"]], ["f1"])
        self.assertEqual([x["name"] for x in f1.status()["followers"]], ["f2"])
        reply = self.p.request("PUT", "/v1/buckets/b/keys/k?durability=replicated:2&timeout=500ms", b"v")
        self.assertEqual(reply.status, 202)
        reply = self.p.request("PUT", "/v1/buckets/b/keys/k?durability=replicated:1&timeout=30s", b"v")
        self.assertEqual(reply.headers["Durability-Reached"], "replicated:1")

    def test_monotonic_wherever_one_reads(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        f2 = self.follow(f1, "f2")
        self.same(f2)
        # A reader takes the token of what it has read along: no node shows it an older state.
        seen, token, nodes = 0, None, [self.p, f2, f1]
        for i in range(60):
            self.p.put("b", "k", b"%d" % i)
            node = nodes[i % 3]
            got = node.value("b", "k", {"BTS-After": token} if token else {})
            self.assertEqual(got.status, 200, got)
            self.assertGreaterEqual(int(got.body), seen)
            seen, token = int(got.body), got.headers["BTS-Token"]
            self.assertTrue(token)

    def test_fresh_after_a_wait(self):
        """A bounded read that waited for a commit was answered when that came, from a source which had heard of nothing since."""
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        r1 = self.started(harness.replicator(self.dir, data="f1.bts"))
        f2 = self.follow(r1, "f2")
        self.same(f2)
        self.assertEqual(f2.value("b", "k", {"BTS-Max-Staleness": "10s"}).status, 404)
        r1.signal(signal.SIGSTOP)
        token = self.p.put("b", "k", b"v").headers["BTS-Token"]
        self.same(f1)
        self.p.signal(signal.SIGSTOP)
        replies = []
        asked = {"BTS-After": token, "BTS-Max-Staleness": "2s"}
        t = threading.Thread(target=lambda: replies.append(f2.get("/v1/buckets/b/keys/k?wait=30s", asked)))
        t.start()
        time.sleep(2.5)
        r1.signal(signal.SIGCONT)
        t.join()
        self.p.signal(signal.SIGCONT)
        self.assertEqual((replies[0].status, replies[0].headers["Retry-After"]), (503, "1"), replies[0])
        self.same(f2)
        harness.await_true(lambda: f2.value("b", "k", {"BTS-Max-Staleness": "2s"}).status == 200, what="the news")

    def test_replicator_beside_a_follower(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        r = self.started(harness.replicator(self.dir, data="f1.bts"))
        f2 = self.follow(r, "f2")
        self.same(f2)
        for i in range(30):
            token = self.p.put("b", "k%d" % i, b"x").headers["BTS-Token"]
            self.assertEqual(f2.value("b", "k%d" % i, {"BTS-After": token}).status, 200)
        self.assertEqual(f2.status()["via"], "f1,p")
        self.assertEqual([x["name"] for x in f1.status()["followers"]], ["f2"])
        self.assertEqual(r.get("/v1/replication/position").headers["BTS-Role"], "follower")

    def test_lag_adds_up(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        f2 = self.follow(f1, "f2")
        self.same(f2)
        harness.await_true(lambda: f2.value("b", "k", {"BTS-Max-Staleness": "5s"}).status == 404, what="freshness")
        # f2 hears from f1 all the time; what f1 has is old, and f2 knows.
        self.p.kill()
        harness.await_true(lambda: f2.value("b", "k", {"BTS-Max-Staleness": "3s"}).code == "behind" and f2.status()["contact_ms"] < 3000,
                           what="it to be stale, and to have heard from its source all the same")

    def test_loop_is_refused(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        f2 = self.follow(f1, "f2")
        self.same(f2)
        port = f1.port
        f1.stop()
        f1 = self.follow(f2, "f1", listen="127.0.0.1:%d" % port)
        harness.await_true(lambda: "through this node" in f1.status()["last_error"] or "through this node" in f2.status()["last_error"], what="the refusal")
        # Neither has stopped for ever: once one of them has another source all is well.
        f1.stop()
        f1 = self.follow(self.p, "f1", listen="127.0.0.1:%d" % port)
        self.p.put("b", "after", b"v")
        self.same(f1, f2)

    def test_loop_through_a_replicator(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        r = self.started(harness.replicator(self.dir, data="f1.bts"))
        f2 = self.follow(r, "f2")
        self.same(f2)
        port = f1.port
        f1.stop()
        f1 = self.follow(f2, "f1", listen="127.0.0.1:%d" % port)
        harness.await_true(lambda: "through this node" in f1.status()["last_error"] or "through this node" in f2.status()["last_error"], what="the refusal")

    def test_itself_is_a_loop(self):
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        # The source's half of it: its own name, and those that its commits come through.
        harness.await_true(lambda: f1.status()["via"] == "p", what="the chain")
        for node, name, want in ((f1, "f1", 409), (f1, "p", 409), (f1, "f2", 200), (self.p, "p", 409), (self.p, "pp", 200)):
            reply = node.get("/v1/replication/frames?after=0&wait=0ms&follower=" + name)
            self.assertEqual((reply.status, reply.headers["BTS-Error"]), (want, "loop" if want == 409 else None))
        self.assertIn(b"bts_replication_loops_total 2", f1.get("/metrics").body)
        other = self.started(harness.Server([harness.binary("btsd"), "follower", "--data", self.dir.file("other.bts"), "--listen", "127.0.0.1:0", "--from", f1.url, "--name", "f1"],
                                            self.dir.file("other.log")))
        harness.await_true(lambda: "through this node" in other.status()["last_error"], what="the refusal")

    def test_several_sources(self):
        r = self.started(harness.replicator(self.dir))
        f1 = self.follow(r, "f1")
        self.same(f1)
        f2 = self.follow("%s,%s,http://127.0.0.1:1" % (r.url, f1.url), "f2")
        self.same(f2)
        self.assertEqual(f2.status()["upstream"], r.url)
        r.kill()
        harness.await_true(lambda: f2.status()["upstream"] == f1.url and f2.status()["via"] == "f1", what="the other source")
        self.assertGreaterEqual(f2.status()["source_switches"], 1)
        r = self.started(harness.replicator(self.dir, listen="127.0.0.1:%d" % r.port))
        self.p.put("b", "k", b"v")
        self.same(f1, f2)

    def test_a_new_one_syncs_from_a_sibling(self):
        self.p.request("POST", "/v1/buckets/b/load", b"".join(b'{"key":"%06d","value":"%s"}\n' % (i, b"x" * 100) for i in range(5000)))
        f1 = self.follow(self.p, "f1")
        self.same(f1)
        self.p.stop()
        f2 = self.follow(f1, "f2")
        harness.await_equal(f1, f2)
        self.assertEqual(f2.value("b", "004999").status, 200)

    def test_before_there_is_a_file(self):
        lonely = self.follow("http://127.0.0.1:1", "lonely")
        reply = lonely.get("/v1/replication/position")
        self.assertEqual((reply.status, reply.code), (503, "unavailable"))

    def test_connections_of_their_own(self):
        with self.p.client() as c:
            self.assertEqual(c.request("GET", "/v1/replication/position").status, 200)
            self.assertEqual(c.request("GET", "/v1/replication/position").status, 200)
        with self.p.client() as c:
            self.assertEqual(c.request("GET", "/v1/buckets").status, 200)
            reply = c.request("GET", "/v1/replication/position")
            self.assertEqual((reply.status, reply.code, reply.headers["Connection"]), (421, "misdirected", "close"))
        # Those who say nothing for a while are served all the same.
        with self.p.client() as c:
            c.http.connect()
            time.sleep(1.5)
            self.assertEqual(c.request("GET", "/v1/buckets").status, 200)
        with self.p.client() as c:
            self.assertEqual(c.request("GET", "/v1/replication/nothing").status, 404)


if __name__ == "__main__":
    harness.main()
