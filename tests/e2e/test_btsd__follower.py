"""A follower behind a replicator: serves what was written, sends writes on, waits for tokens, says when it is behind."""
import base64
import shutil
import signal
import struct
import subprocess
import time
import unittest

import harness


class Follower(harness.Case):
    def setUp(self):
        super().setUp()
        self.p = self.started(harness.primary(self.dir))
        self.p.request("PUT", "/v1/buckets/b", b'{"content_type":"text/plain"}')
        self.p.put("b", "first", b"1")
        self.r = self.started(harness.replicator(self.dir))

    def follow(self, *args, **kwargs):
        f = self.started(harness.follower(self.dir, self.r, *args, **kwargs))
        harness.await_equal(self.p, f)
        return f

    def test_serves_what_was_written(self):
        f = self.follow()
        for i in range(50):
            token = self.p.put("b", "k%d" % i, b"v%d" % i * 1000).headers["BTS-Token"]
            got = f.value("b", "k%d" % i, {"BTS-After": token})
            self.assertEqual((got.status, got.body), (200, b"v%d" % i * 1000), got)
            self.assertEqual(got.headers["BTS-Role"], "follower")
            self.assertTrue(got.headers["BTS-Lag-Ms"].isdigit())
            self.assertEqual(got.headers["Content-Type"], "text/plain")
        harness.await_equal(self.p, f)
        self.assertEqual(self.p.get("/v1/buckets/b/keys?values=true").json()["items"],
                         f.get("/v1/buckets/b/keys?values=true").json()["items"])
        self.p.request("DELETE", "/v1/buckets/b/keys/k7")
        harness.await_equal(self.p, f)
        self.assertEqual(f.value("b", "k7").status, 404)
        self.assertEqual(f.get("/readyz?role=follower&max_lag=10s").status, 200)
        self.assertEqual(f.get("/readyz?role=primary").status, 503)
        self.assertEqual(f.get("/").status, 200)
        self.assertIn(b"bts_replication_lag_seconds", f.get("/metrics").body)

    def test_status_on_both_sides(self):
        f = self.follow(primary_url=self.p.url)
        s = f.status()
        self.assertEqual((s["role"], s["name"], s["upstream"], s["primary_url"]), ("follower", "f1", self.r.url, self.p.url))
        for member in ("state", "lag_ms", "lag_txids", "root_digest", "durable_txid"):
            self.assertIn(member, s)
        # Acknowledged by the next request of the follower.
        listed = harness.await_true(lambda: [x for x in self.p.status()["followers"] if x["txid"] == s["txid"]], what="its mark")
        self.assertEqual((listed[0]["name"], listed[0]["url"], listed[0]["lag_ms"], listed[0]["lag_bytes"]), ("f1", f.url, 0, 0))
        self.assertRegex(listed[0]["last_seen"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_writes_are_sent_on(self):
        f = self.follow(primary_url=self.p.url + "/")
        for method, path in (("PUT", "/v1/buckets/Yg/keys/YS9i?enc=b64u"), ("PUT", "/v1/buckets/b/keys/a%2Fb"), ("DELETE", "/v1/buckets/b/keys/x"), ("PUT", "/v1/buckets/new"),
                             ("DELETE", "/v1/buckets/b"), ("POST", "/v1/buckets/b/load")):
            reply = f.request(method, path, b"body" * 1000 if method != "DELETE" else None)
            self.assertEqual((reply.status, reply.code, reply.headers["Location"]), (307, "not-primary", self.p.url + path))
        alone = self.started(harness.follower(self.dir, self.r, name="f2"))
        harness.await_equal(self.p, alone)
        reply = alone.put("b", "k", b"v")
        self.assertEqual((reply.status, reply.code, reply.headers["Location"]), (503, "not-primary", None))
        self.assertEqual(alone.request("POST", "/v1/buckets", b"").status, 405)
        self.assertEqual(alone.put("b", "x" * 1025, b"v").status, 400)

    def test_before_the_first_sync(self):
        self.r.stop()
        f = self.started(harness.follower(self.dir, "http://127.0.0.1:1", name="lonely"))
        for path in ("/v1/buckets", "/v1/buckets/b/keys/first", "/v1/buckets/b/keys", "/readyz"):
            reply = f.get(path)
            self.assertEqual((reply.status, reply.code), (503, "unavailable"), path)
        self.assertEqual(f.get("/livez").status, 200)
        s = f.status()
        self.assertEqual((s["role"], s["txid"], s["root_digest"]), ("follower", 0, None))
        # All members are there, null where they are not known.
        self.assertEqual(set(self.p.status()) - set(s), set())
        self.assertEqual((s["chain"], s["pages"], s["clean_open"]), (None, None, None))
        self.assertEqual(f.get("/").status, 200)
        self.assertEqual(f.get("/metrics").status, 200)

    def begun(self, name="begun"):
        """A follower that is in the middle of its first sync."""
        self.p.put("b", "large", bytes(range(256)) * 8192)
        slow = self.started(harness.replicator(self.dir, "--serve-rate", "512K"))
        f = self.started(harness.follower(self.dir, slow, name=name))
        harness.await_true(lambda: f.status()["transfer"]["done_bytes"] > 200000, what="a part of the file")
        return f, slow

    def nothing_to_read(self, f):
        for path in ("/v1/buckets", "/v1/buckets/b/keys/first", "/v1/changes?wait=0s", "/v1/backup", "/v1/admin/promote", "/readyz"):
            reply = f.get(path)
            self.assertEqual((reply.status, reply.code), (503, "unavailable"), path)
        self.assertEqual(f.request("POST", "/v1/snapshots").status, 503)
        self.assertEqual((f.status()["txid"], f.status()["root_digest"]), (0, None))

    def test_in_the_middle_of_the_first_sync(self):
        """
        To follow somebody else, or a promotion that is refused, halts who follows for a moment.  The file that was begun was taken for
        one to read from then on: empty, and ready.
        """
        f, slow = self.begun()
        self.nothing_to_read(f)
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=" + slow.url).status, 200)
        self.nothing_to_read(f)
        reply = f.request("POST", "/v1/admin/promote?force=1")
        self.assertEqual((reply.status, reply.code), (409, "wrong-role"))
        self.nothing_to_read(f)
        # Nor is anybody asked for it to be elected: who promises is fenced.
        reply = f.request("POST", "/v1/admin/promote?members=" + self.p.url)
        self.assertEqual((reply.status, reply.code), (409, "wrong-role"))
        self.assertEqual(self.p.put("b", "second", b"2").status, 201)
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=" + self.r.url).status, 200)
        harness.await_equal(self.p, f)
        self.assertEqual((f.value("b", "second").body, f.get("/readyz").status), (b"2", 200))
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=" + slow.url).status, 200)
        self.assertEqual(f.value("b", "second").body, b"2")
        self.assertEqual(f.request("POST", "/v1/admin/promote?force=1").status, 200)
        self.assertEqual(f.put("b", "third", b"3").status, 201)

    def test_opened_in_the_middle_of_the_first_sync(self):
        """The same, where the file is opened for whatever role it has: by a node with failover that was started again."""
        f, _ = self.begun()
        f.kill()
        argv = [harness.binary("btsd"), "follower", "--data", self.dir.file("begun.bts"), "--listen", "127.0.0.1:0", "--name", "begun",
                "--failover", "etcd://127.0.0.1:1/none", "--failover-members", "http://127.0.0.1:1", "--survive", "1", "--members", "begun,other"]
        f = self.started(harness.Server(argv, self.dir.file("again.log")))
        self.nothing_to_read(f)
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=" + self.r.url).status, 200)
        harness.await_equal(self.p, f)
        self.assertEqual(f.value("b", "first").body, b"1")

    def test_a_token_it_lacks(self):
        f = self.follow()
        self.r.stop()
        token = self.p.put("b", "late", b"v").headers["BTS-Token"]
        start = time.monotonic()
        # A write is for the primary, and waits for nothing here: the one that may be only a read, too.
        for path, body in (("/v1/buckets/b/keys/x", b"v"), ("/v1/txn", b'{"then":[{"op":"put","bucket":"b","key":"x","value":"v"}]}')):
            for more in ({"BTS-After": token}, {"BTS-Max-Staleness": "0s"}):
                reply = f.request("POST" if path == "/v1/txn" else "PUT", path, body, more)
                self.assertEqual((reply.status, reply.code), (503, "not-primary"), (path, more))
        self.assertLess(time.monotonic() - start, 2)
        gets = b'{"then":[{"op":"get","bucket":"b","key":"late"}]}'
        reply = f.request("POST", "/v1/txn?wait=200ms", gets, {"BTS-After": token})
        self.assertEqual((reply.status, reply.code), (503, "behind"))
        self.assertEqual(self.p.request("POST", "/v1/txn", gets, {"BTS-After": token}).json()["results"][0]["value"], "v")
        start = time.monotonic()
        reply = f.get("/v1/buckets/b/keys/late?wait=300ms", {"BTS-After": token})
        self.assertEqual((reply.status, reply.code, reply.headers["Retry-After"]), (503, "behind", "1"))
        self.assertGreater(time.monotonic() - start, 0.25)
        self.assertEqual(f.value("b", "late").status, 404)
        # Many waiters do not keep others from being served, and go on when the commit comes.
        results = []

        def wait(i):
            if i % 2:
                results.append(f.get("/v1/buckets/b/keys/late?wait=30s", {"BTS-After": token}).status)
            else:
                results.append(f.request("POST", "/v1/txn?wait=30s", gets, {"BTS-After": token}).status)

        threads = [harness.threading.Thread(target=wait, args=(i,)) for i in range(20)]
        for t in threads:
            t.start()
        self.assertEqual(f.value("b", "first").status, 200)
        self.r = self.started(harness.replicator(self.dir, listen="127.0.0.1:%d" % self.r.port))
        for t in threads:
            t.join()
        self.assertEqual(results, [200] * 20)

    def test_without_contact_it_says_so(self):
        f = self.follow()
        self.r.stop()
        harness.await_true(lambda: f.get("/readyz?max_lag=500ms").status == 503, what="the lag to be told")
        self.assertEqual(f.get("/readyz").status, 200)
        reply = f.value("b", "first", {"BTS-Max-Staleness": "500ms"})
        self.assertEqual((reply.status, reply.code), (503, "behind"))
        self.assertEqual(f.value("b", "first").body, b"1")

    def test_a_source_that_hangs_is_no_contact(self):
        f = self.follow()
        self.r.signal(signal.SIGSTOP)
        self.addCleanup(self.r.signal, signal.SIGCONT)
        self.p.put("b", "first", b"2")
        # Also while the connection stands and nothing has failed yet.
        s = harness.await_true(lambda: [x for x in [f.status()] if x["contact_ms"] > 700], 10, "the silence")[0]
        self.assertGreaterEqual(s["lag_ms"], s["contact_ms"], s)
        harness.await_true(lambda: f.get("/readyz?max_lag=1500ms").status == 503, 10, "the lag to be told")
        reply = f.value("b", "first", {"BTS-Max-Staleness": "1500ms"})
        self.assertEqual((reply.status, reply.code), (503, "behind"))
        self.assertGreater(int(f.value("b", "first").headers["BTS-Lag-Ms"]), 1500)
        self.assertGreater(f.status()["lag_ms"], 1500)
        self.r.signal(signal.SIGCONT)
        harness.await_true(lambda: f.value("b", "first", {"BTS-Max-Staleness": "1500ms"}).body == b"2", 10, "the news")

    def test_no_fresher_for_an_answer(self):
        """
        A source that is back tells of commits from while it was away: how old what is here may be goes on from before, and does not begin
        anew with that answer.  It did, so bounded reads got what was older than their bound, until the frame was there.
        """
        f = self.follow()
        self.assertEqual(self.r.stop(), 0)
        self.p.put("b", "first", b"2")
        written = time.monotonic()
        self.p.put("b", "large", bytes(range(256)) * 4096)
        time.sleep(1.2)
        self.r = self.started(harness.replicator(self.dir, "--serve-rate", "512K", listen="127.0.0.1:%d" % self.r.port))
        seen = 0
        while f.value("b", "first").body == b"1":
            age, s = time.monotonic() - written, f.status()
            reply = f.value("b", "first", {"BTS-Max-Staleness": "1s"})
            if s["txid"] == s["upstream_txid"] or reply.body == b"2":
                continue
            seen += 1
            self.assertEqual(reply.status, 503, s)
            self.assertGreaterEqual(s["lag_ms"], int(age * 1000), s)
            time.sleep(0.02)
        self.assertGreater(seen, 5)
        harness.await_true(lambda: f.value("b", "first", {"BTS-Max-Staleness": "1s"}).body == b"2", 10, "the news")

    def test_not_heard_since_it_began(self):
        """A follower that is started while its source is away does not know how old its file is; it took it for as old as the process."""
        f = self.follow()
        self.assertEqual(f.stop(), 0)
        self.p.put("b", "first", b"2")
        self.assertEqual(self.r.stop(), 0)
        f = self.started(harness.follower(self.dir, self.r))
        self.assertEqual(f.value("b", "first", {"BTS-Max-Staleness": "30d"}).status, 503)
        self.assertEqual((f.get("/readyz?max_lag=30d").status, f.get("/readyz").status), (503, 200))
        # Another source changes nothing of that, nor does one that cannot be reached make what is known forgotten.
        self.r = self.started(harness.replicator(self.dir))
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=http://127.0.0.1:1").status, 200)
        self.assertEqual(f.value("b", "first", {"BTS-Max-Staleness": "30d"}).status, 503)
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=" + self.r.url).status, 200)
        harness.await_true(lambda: f.value("b", "first", {"BTS-Max-Staleness": "2s"}).body == b"2", 10, "the news")
        self.assertEqual(f.request("POST", "/v1/admin/follow?url=http://127.0.0.1:1").status, 200)
        self.assertEqual(f.value("b", "first", {"BTS-Max-Staleness": "10s"}).status, 200)
        lag = f.status()["lag_ms"]
        time.sleep(0.2)
        self.assertGreaterEqual(f.status()["lag_ms"], lag + 200)

    def fork(self):
        """Stop the primary, copy its file; the copy's primary, which begins another epoch."""
        self.assertEqual(self.p.stop(), 0)
        shutil.copy(self.dir.file("primary.bts"), self.dir.file("copy.bts"))
        copy = self.started(harness.primary(self.dir, data="copy.bts"))
        self.p = self.started(harness.primary(self.dir))
        return copy

    def test_a_token_of_a_lost_write(self):
        before = self.p.put("b", "before", b"1").headers["BTS-Token"]
        copy = self.fork()
        lost = self.p.put("b", "lost", b"1").headers["BTS-Token"]
        theirs = copy.put("b", "theirs", b"1").headers["BTS-Token"]
        for path in ("/v1/buckets/b/keys/lost?wait=30s", "/v1/buckets/b/keys?wait=30s", "/v1/buckets"):
            reply = copy.get(path, {"BTS-After": lost})
            self.assertEqual((reply.status, reply.code), (409, "write-lost"), path)
        for node, key, token in ((self.p, "lost", lost), (copy, "theirs", theirs), (self.p, "before", before),
                                 (copy, "before", before)):
            self.assertEqual(node.value("b", key, {"BTS-After": token}).status, 200, key)
        self.assertEqual(copy.stop(), 0)
        copy = self.started(harness.primary(self.dir, data="copy.bts"))
        self.assertEqual(copy.value("b", "lost", {"BTS-After": lost}).code, "write-lost")
        self.assertEqual(copy.value("b", "theirs", {"BTS-After": theirs}).status, 200)

    def test_a_token_of_a_later_epoch(self):
        f = self.follow()
        self.assertEqual(f.stop(), 0)
        copy = self.fork()
        token = copy.put("b", "theirs", b"1").headers["BTS-Token"]
        self.assertEqual(self.r.stop(), 0)
        f = self.started(harness.follower(self.dir, self.r))
        # The number of a later epoch's commit alone says nothing; nor may an unknown ancestor's.
        fields = list(struct.unpack("<BIQQ", base64.urlsafe_b64decode(token + "==")))
        for epoch, txid, want in ((fields[1], fields[3], (503, "behind")), (fields[1], 1, (503, "behind")),
                                  (0, 1, (409, "write-lost"))):
            made = base64.urlsafe_b64encode(struct.pack("<BIQQ", 1, epoch, fields[2], txid)).decode().rstrip("=")
            reply = f.get("/v1/buckets/b/keys/theirs?wait=0s", {"BTS-After": made})
            self.assertEqual((reply.status, reply.code), want, (epoch, txid))
        results = []
        t = harness.threading.Thread(target=lambda: results.append(f.get("/v1/buckets/b/keys/theirs?wait=30s", {"BTS-After": token})))
        t.start()
        self.r = self.started(harness.replicator(self.dir, data="copy.bts", listen="127.0.0.1:%d" % self.r.port))
        t.join()
        self.assertEqual((results[0].status, results[0].body), (200, b"1"), results[0])

    def test_stopped_for_ever_is_not_ready(self):
        f = self.follow()
        self.assertEqual(f.get("/readyz").status, 200)
        self.assertEqual(f.stop(), 0)
        self.assertEqual(self.r.stop(), 0)
        other = self.started(harness.primary(self.dir, data="other.bts"))
        other.request("PUT", "/v1/buckets/b")
        wrong = self.started(harness.replicator(self.dir, data="other.bts"))
        f = self.started(harness.follower(self.dir, wrong))
        reply = harness.await_true(lambda: [x for x in [f.get("/readyz")] if x.status == 503], 10, "readyz to tell")[0]
        self.assertEqual(reply.code, "stopped")
        self.assertIn("wrong-database", reply.json()["detail"])
        self.assertEqual(f.get("/readyz?max_lag=1h").code, "stopped")
        self.assertEqual((f.get("/livez").status, f.value("b", "first").body), (200, b"1"))

    def test_waiters_are_told_when_it_stops(self):
        f = self.follow()
        self.r.stop()
        token = self.p.put("b", "late", b"v").headers["BTS-Token"]
        results = []
        t = harness.threading.Thread(target=lambda: results.append(f.get("/v1/buckets/b/keys/late?wait=60s", {"BTS-After": token})))
        t.start()
        with f.client() as c:  # on one connection nothing of the question before is counted
            harness.await_true(lambda: b"\nbtsd_requests_in_flight 2\n" in c.request("GET", "/metrics").body, what="the reader to wait")
        self.assertEqual(f.stop(), 0)
        t.join()
        self.assertEqual((results[0].status, results[0].code), (503, "behind"))

    def test_restart_of_each(self):
        f = self.follow()
        before = f.status()
        self.assertEqual(f.stop(), 0)
        self.p.put("b", "meanwhile", b"m")
        f = self.follow()
        self.assertEqual(f.value("b", "meanwhile").body, b"m")
        self.assertGreater(f.status()["txid"], before["txid"])
        port = self.p.port
        self.assertEqual(self.p.stop(), 0)
        self.assertEqual(f.value("b", "meanwhile").body, b"m")
        self.p = self.started(harness.primary(self.dir, listen="127.0.0.1:%d" % port))
        self.p.put("b", "after", b"a")
        harness.await_equal(self.p, f)
        self.assertEqual(f.value("b", "after").body, b"a")

    def test_no_directory(self):
        """Nobody's source is to blame for it."""
        with harness.Dir() as d:
            with open(d.file("plain"), "w"):
                pass
            for where in (d.file("none"), d.file("plain")):
                data = ["--data", where + "/x.bts", "--listen", "127.0.0.1:0", "--from", "http://127.0.0.1:9"]
                for argv in ([harness.binary("btsd"), "follower"], [harness.binary("bts-replicator"), "--admin", "--name", "n"]):
                    done = subprocess.run(argv + data, capture_output=True, text=True, timeout=20)
                    self.assertEqual(done.returncode, 1, done)
                    self.assertIn(where, done.stderr)
                    self.assertNotIn("retrying", done.stderr)
                    self.assertNotIn("event=ready", done.stderr)

    def test_a_followers_file_is_no_primary(self):
        f = self.follow()
        self.assertEqual(f.stop(), 0)
        argv = [harness.binary("btsd"), "primary", "--data", self.dir.file("f1.bts"), "--listen", "127.0.0.1:0"]
        got = harness.subprocess.run(argv, capture_output=True, text=True, timeout=20)
        self.assertEqual(got.returncode, 1, got)
        self.assertIn("follower", got.stderr)


if __name__ == "__main__":
    harness.main()
