"""Who is primary: handoff without loss, promotion after a death, fencing, two promotions at once."""
import http.client
import json
import signal
import socket
import subprocess
import threading
import time

import harness


class Failover(harness.Case):
    def setUp(self):
        super().setUp()
        self.nodes = []

    def node(self, name):
        n = harness.Node(self.dir, name)
        self.nodes.append(n)
        self.addCleanup(n.stop)
        return n

    def pair(self, more=()):
        a = self.node("a").start("primary")
        a.d.request("PUT", "/v1/buckets/b")
        a.d.put("b", "first", b"1")
        a.replicate()
        others = [self.node(name).follow(a.r.url) for name in ("b",) + tuple(more)]
        for n in others:
            harness.await_equal(a.d, n.d)
            n.replicate()
        return [a] + others

    def bts(self, *args):
        return subprocess.run([harness.binary("bts")] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def writers(self, nodes, count=4):
        """Threads that write to whichever node takes it; what was acknowledged."""
        done, stop, acked = threading.Event(), [], {}

        def write(t):
            i = at = 0
            while not done.is_set():
                key = "w%d-%d" % (t, i)
                try:
                    reply = nodes[at].d.put("b", key, b"%d" % i)
                except OSError:
                    reply = None
                if reply is not None and reply.status in (200, 201):
                    acked[key] = str(i)
                    i += 1
                else:
                    self.assertTrue(reply is None or reply.status in (503, 307), reply)
                    at = (at + 1) % len(nodes)
                    time.sleep(0.005)

        threads = [threading.Thread(target=write, args=(t,)) for t in range(count)]
        for t in threads:
            t.start()
        stop.append(lambda: (done.set(), [t.join() for t in threads]))
        return acked, stop[0]

    def handoff(self, old, new):
        reply = old.post("demote")
        self.assertEqual(reply.status, 200, reply)
        last = reply.json()
        self.assertEqual(last["role"], "fenced")
        self.assertEqual(old.d.put("b", "late", b"x").code, "not-primary")
        early = new.post("promote", expect=last["position"], digest="0" * 32)
        self.assertEqual((early.status, early.code), (409, "unexpected-position"), early)
        harness.await_true(lambda: new.role()["position"] == last["position"], what="the last commit to arrive")
        reply = new.post("promote", expect=last["position"], digest=last["root_digest"])
        self.assertEqual(reply.status, 200, reply)
        self.assertEqual(reply.json()["role"], "primary")
        self.assertEqual(reply.json()["epoch"], last["epoch"] + 1)
        reply = old.post("follow", url=new.r.url, primary_url=new.url)
        self.assertEqual(reply.status, 200, reply)

    def test_handoff_under_load(self):
        a, b = self.pair()
        acked, stop = self.writers([a, b])
        try:
            for old, new in ((a, b), (b, a), (a, b)):
                before = len(acked)
                harness.await_true(lambda: len(acked) > before + 50, what="writes")
                self.handoff(old, new)
        finally:
            stop()
        harness.await_equal(a.d, b.d)
        for n in (a, b):
            got = n.values()
            lost = [k for k, v in acked.items() if got.get(k) != v]
            self.assertEqual(lost, [])
        self.assertEqual((a.d.status()["role"], b.d.status()["role"]), ("follower", "primary"))
        self.assertEqual(a.d.put("b", "k", b"v").headers["Location"], b.url + "/v1/buckets/b/keys/k")
        self.assertEqual(b.post("promote", force=1).code, "already-primary")
        for n in (a, b):
            n.stop()
            self.assertEqual(self.bts("check", n.file).returncode, 0)

    def test_promotion_after_death(self):
        a, b, c = self.pair(["c"])
        replicated = {}
        acked, stop = self.writers([a])

        def has_replicated():
            # Read before the followers' marks: what is counted is older than they are.
            now, status = dict(acked), a.d.status()
            for n in status["followers"]:
                txid = n["txid"]
                for k, v in now.items():
                    got = a.d.value("b", k)
                    if int(got.headers["ETag"].strip('"')) <= txid:
                        replicated[k] = v
            return len(replicated) > 100

        harness.await_true(has_replicated, what="replicated writes")
        a.kill()
        stop()
        self.assertEqual(b.post("promote").status, 400)
        self.assertEqual((b.post("promote", members="").status, b.role()["role"]), (400, "follower"))
        few = b.post("promote", members="%s,http://127.0.0.1:1" % a.url, survive=1)
        self.assertEqual((few.status, few.code), (409, "no-quorum"), few)
        first = b.post("promote", members="%s,%s" % (a.url, c.url), survive=1)
        winner, other = b, c
        if first.status != 200:
            self.assertEqual((first.status, first.code), (409, "ahead"), first)
            self.assertIn(c.url, first.json()["detail"])
            second = c.post("promote", members="%s,%s" % (a.url, b.url), survive=1)
            self.assertEqual(second.status, 200, second)
            winner, other = c, b
        self.assertEqual(other.post("follow", url=winner.r.url).status, 200)
        self.assertEqual(winner.d.put("b", "new", b"era").status, 201)
        harness.await_equal(winner.d, other.d)
        got = other.values()
        self.assertEqual([k for k, v in replicated.items() if got.get(k) != v], [])
        # The old one is fenced as it stands, and follows where nothing of it is beyond the fork.
        done = self.bts("demote", a.file, "--json")
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(json.loads(done.stdout)["role"], "fenced")
        self.assertEqual(self.bts("put", a.file, "b", "k", "v").returncode, 1)
        a.follow(winner.r.url, "--rejoin")
        harness.await_equal(winner.d, a.d)
        self.assertEqual(a.values(), winner.values())
        segments = winner.r.get("/v1/replication/segments").json()
        self.assertEqual(segments["position"], winner.role()["position"])
        self.assertEqual(len([s for s in segments["segments"] if s["first"] and s["last"].startswith("1-")]), 1, segments)

    def test_set_back(self):
        """The primary's file gets its content of yesterday back, in place: who is ahead of it says so, and so does it."""
        a, b = self.pair()
        a.stop()
        with open(a.file, "rb") as f:
            old = f.read()
        port = a.r.port
        a.start("primary")
        for i in range(20):
            self.assertEqual(a.d.put("b", "k%d" % i, b"v").status, 201)
        a.replicate("127.0.0.1:%d" % port)
        harness.await_equal(a.d, b.d)
        a.stop()
        with open(a.file, "r+b") as f:
            f.write(old)
            f.truncate(len(old))
        a.start("primary")
        a.replicate("127.0.0.1:%d" % port)
        harness.await_true(lambda: b.d.status()["state"] == "stopped", what="the follower to notice")
        self.assertIn("ahead", b.d.status()["last_error"])
        self.assertEqual(b.d.value("b", "k19").status, 200)
        self.assertRegex(a.r.get("/metrics").body.decode(), r"(?m)^bts_replication_ahead_total [1-9]")

    def test_set_back_unclean(self):
        """The same with content from while it was open: the numbers it leaves out hold commits that only the follower has."""
        a, b = self.pair()
        with open(a.file, "rb") as f:
            old = f.read()
        for i in range(20):
            self.assertEqual(a.d.put("b", "k%d" % i, b"v").status, 201)
        harness.await_equal(a.d, b.d)
        port = a.r.port
        a.stop()
        with open(a.file, "r+b") as f:
            f.write(old)
            f.truncate(len(old))
        a.start("primary")
        self.assertEqual(a.d.put("b", "after", b"v").status, 201)
        a.replicate("127.0.0.1:%d" % port)
        harness.await_true(lambda: b.d.status()["state"] == "stopped" or b.d.status()["grafts"], what="the follower to notice")
        self.assertIn("diverged", b.d.status()["last_error"])
        self.assertEqual(b.d.value("b", "k19").status, 200)

    def test_fenced(self):
        a, b = self.pair()
        last = a.post("demote").json()
        self.assertEqual(a.role()["role"], "fenced")
        self.assertEqual(a.d.get("/readyz?role=primary").status, 503)
        self.assertEqual(a.d.value("b", "first").body, b"1")
        for reply in (a.d.put("b", "k", b"v"), a.d.request("DELETE", "/v1/buckets/b"),
                      a.d.request("POST", "/v1/buckets/b/load", b'{"key":"k","value":"v"}\n')):
            self.assertEqual((reply.status, reply.code), (503, "not-primary"), reply)
        put = self.bts("put", a.file, "b", "k", "v")
        self.assertEqual(put.returncode, 1)
        self.assertIn(b"fenced", put.stderr)
        self.assertEqual(a.post("demote").json()["position"], last["position"])
        # Where writes are to go may be known already, though it is not followed yet.
        self.assertEqual(a.post("demote", primary_url=b.url).json()["position"], last["position"])
        reply = a.d.put("b", "k", b"v")
        self.assertEqual((reply.status, reply.code, reply.headers["Location"]), (307, "not-primary", b.url + "/v1/buckets/b/keys/k"))
        for url in ("garbage", "//host", "ftp://host", "http://", "http:///", "http://user@host", "http://host?x"):
            self.assertEqual(a.post("demote", primary_url=url).code, "invalid-parameter", url)
        self.assertEqual(a.post("demote", primary_url=b.url + "/").status, 200)
        self.assertEqual(a.d.put("b", "k", b"v").headers["Location"], b.url + "/v1/buckets/b/keys/k")
        a.stop()
        again = harness.Process(a.d.argv, self.dir.file("again.log"), ready=None)
        self.assertEqual(again.child.wait(30), 1)
        self.assertIn("fenced", again.log_text())
        # Nobody else: it may be promoted again.
        self.assertEqual(self.bts("promote", a.file).returncode, 0)
        a.start("primary")
        self.assertEqual(a.d.put("b", "k", b"v").status, 201)

    def test_asked_until_it_is_there(self):
        """A handoff that asks for the promotion again and again.  Each refusal broke off the frame that was awaited, so it never came."""
        a = self.node("a").start("primary", "--serve-rate", "512K")
        a.d.request("PUT", "/v1/buckets/b")
        b = self.node("b").follow(a.url)
        harness.await_equal(a.d, b.d)
        self.assertEqual(a.d.put("b", "large", bytes(range(256)) * 4096).status, 201)
        last = a.post("demote").json()
        refused, deadline = 0, time.monotonic() + 20
        while True:
            reply = b.post("promote", expect=last["position"], digest=last["root_digest"])
            if reply.status == 200:
                break
            self.assertEqual((reply.status, reply.code), (409, "unexpected-position"), reply)
            self.assertLess(time.monotonic(), deadline, b.d.status())
            refused += 1
            time.sleep(0.1)
        self.assertGreater(refused, 3)
        self.assertEqual(b.d.value("b", "large").status, 200)

    def test_what_follows_the_fenced(self):
        """It knows how old its data is at most: as old as what fenced the primary.  A source that was fenced said nothing of that, which counted as a year."""
        a, b = self.pair()
        c = self.node("c").follow(a.url)
        harness.await_equal(a.d, c.d)
        self.assertEqual(a.post("demote").status, 200)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            for n in (a, b, c):
                self.assertEqual(n.d.value("b", "first", {"BTS-Max-Staleness": "10s"}).status, 200, n.d.status())
            time.sleep(0.1)
        for n in (a, b, c):
            self.assertGreater(n.d.status()["lag_ms"], 400)
        self.assertEqual(a.post("promote", force=1).status, 200)
        for n in (b, c):
            harness.await_equal(a.d, n.d)
            harness.await_true(lambda: n.d.status()["lag_ms"] < 1000, what="the lag to end")

    def test_embedded_writer_is_fenced(self):
        """A tool in another process demotes the file under a server that writes it."""
        a = self.node("a").start("primary")
        a.d.request("PUT", "/v1/buckets/b")
        self.assertEqual(a.d.put("b", "k", b"1").status, 201)
        self.assertEqual(self.bts("demote", a.file).returncode, 0)
        self.assertEqual(a.d.put("b", "k", b"2").code, "not-primary")
        self.assertEqual(a.d.status()["role"], "fenced")
        self.assertEqual(a.post("promote", force=1).status, 200)
        self.assertEqual(a.d.put("b", "k", b"3").status, 200)

    def test_two_promotions(self):
        a, b, c = self.pair(["c"])
        a.kill()
        for n in (b, c):
            self.assertEqual(n.post("promote", force=1).status, 200)
            n.d.put("b", "by-" + n.name, b"x")
        one, other = b.role(), c.role()
        self.assertEqual(one["epoch"], other["epoch"])
        self.assertNotEqual(one["epoch_random"], other["epoch_random"])
        # Neither promises to the other, nor is one promoted over the other, and frames do not mix.
        both = b.d.request("POST", "/v1/replication/promise?epoch=%d-%s&database=%s" %
                           (other["epoch"], other["epoch_random"], other["database_id"]))
        self.assertEqual((both.status, both.code, both.headers["BTS-Promised"]), (409, "promised", str(one["epoch"])), both)
        c.post("demote", upstream=b.r.url)
        harness.await_true(lambda: c.d.status()["state"] == "stopped", what="the divergence to be noticed")
        self.assertRegex(c.d.status()["last_error"], "history|diverged")
        self.assertEqual(c.d.value("b", "by-b").status, 404)
        self.assertEqual(c.d.value("b", "by-c").status, 200)

    def test_fork_is_told(self):
        """Where histories part: by the source as a header and as JSON, by the refused in its status and log."""
        a, b = self.pair()
        common = a.role()["position"]
        self.assertEqual(b.post("promote", force=1).status, 200)
        self.assertEqual(a.d.put("b", "only-a", b"x").status, 201)
        a.post("demote", upstream=b.r.url)
        harness.await_true(lambda: a.d.status()["state"] == "stopped", what="the divergence to be noticed")
        self.assertEqual(a.d.status()["fork"], common)
        self.assertIn("both have " + common, a.d.status()["last_error"])
        self.assertIn("both have " + common, a.d.log_text())
        frames = b.d.get("/v1/replication/frames?after=%(txid)d&epoch=%(epoch)d-%(epoch_random)s&chain=%(chain)s"
                         "&database=%(database_id)s" % a.role())
        self.assertEqual((frames.status, frames.code, frames.headers["BTS-Fork"]), (409, "diverged", common), frames)
        self.assertEqual("%(epoch)d-%(epoch_random)s/%(txid)d/%(chain)s" % frames.json()["fork"], common)

    def test_failed_elections(self):
        """What they leave are promises; to repeat them is right."""
        a, b, c = self.pair(["c"])
        self.assertEqual(a.d.put("b", "acked", b"1").status, 201)
        for n in (b, c):
            harness.await_equal(a.d, n.d)
        everybody = "%s,%s" % (a.url, c.url)
        c.d.signal(signal.SIGSTOP)
        few = b.post("promote", members=everybody, survive=0)
        c.d.signal(signal.SIGCONT)
        self.assertEqual((few.status, few.code), (409, "no-quorum"), few)
        # Nobody has won, and the primary that was asked is fenced for good.
        self.assertEqual((a.role()["role"], b.role()["role"]), ("fenced", "follower"))
        promised = b.role()["promised_epoch"]
        self.assertEqual(a.role()["promised_epoch"], promised)
        self.assertEqual(a.d.put("b", "late", b"x").code, "not-primary")
        won = b.post("promote", members=everybody, survive=0)
        self.assertEqual(won.status, 200, won)
        self.assertGreater(won.json()["epoch"], promised)
        self.assertEqual(b.d.value("b", "acked").body, b"1")
        self.assertEqual(b.d.put("b", "new", b"2").status, 201)
        # One that lacks this runs with a higher number: it loses, the winner is fenced, and is promoted anew.
        lost = c.post("promote", members=b.url, survive=0)
        self.assertEqual((lost.status, lost.code), (409, "ahead"), lost)
        self.assertIn(b.url, lost.json()["detail"])
        self.assertEqual(b.d.put("b", "late", b"x").code, "not-primary")
        again = b.post("promote", members=c.url, survive=0)
        self.assertEqual(again.status, 200, again)
        self.assertGreater(again.json()["epoch"], won.json()["epoch"])
        self.assertEqual(b.d.put("b", "newer", b"3").status, 201)
        for n in (a, c):
            self.assertEqual(n.post("follow", url=b.r.url).status, 200)
            harness.await_equal(b.d, n.d)
        self.assertEqual(a.values(), {"first": "1", "acked": "1", "new": "2", "newer": "3"})

    def test_stop_during_an_election(self):
        """A stop cuts it short: the members here would take 45 s to be found silent."""
        a, b = self.pair()
        r = harness.Server([harness.binary("bts-replicator"), "--data", self.dir.file("c.bts"), "--listen", "127.0.0.1:0", "--admin",
                            "--name", "c", "--from", a.r.url], self.dir.file("c.log"))
        self.addCleanup(lambda: r.alive() and r.stop())
        for server in (b.d, r):
            silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(15)]
            replies = []
            target = "/v1/admin/promote?survive=1&members=" + harness.quote(
                ",".join("http://127.0.0.1:%d" % s.getsockname()[1] for s in silent))

            def ask():
                try:
                    replies.append(server.request("POST", target))
                except (OSError, http.client.HTTPException):
                    pass  # the connection went with the server

            asks = threading.Thread(target=ask)
            asks.start()
            silent[0].settimeout(30)
            asked, _ = silent[0].accept()
            self.assertEqual(server.stop(), 0)
            asks.join()
            self.assertEqual([(reply.status, reply.code) for reply in replies], [(503, "stopping")] * len(replies))
            asked.close()
            for s in silent:
                s.close()


if __name__ == "__main__":
    harness.main()
