"""bts-replicator as a program: its options, and what it does when it is out of descriptors."""
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
import unittest

import harness

LIMIT = 40  # descriptors


def cpu_seconds(process):
    with open("/proc/%d/stat" % process.pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Replicator(unittest.TestCase):
    def setUp(self):
        self.dir = harness.Dir().__enter__()
        self.addCleanup(self.dir.__exit__)
        self.p = p = harness.primary(self.dir)
        p.__enter__()
        self.addCleanup(p.__exit__, None, None, None)
        p.request("PUT", "/v1/buckets/b")

    def limited(self, soft, hard):
        """A replicator with these limits of descriptors."""
        mine = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, mine[1]))
        try:
            r = harness.replicator(self.dir)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, mine)
        self.addCleanup(r.stop)
        if hard:
            resource.prlimit(r.pid, resource.RLIMIT_NOFILE, (soft, hard))
        return r

    def test_soft_limit_is_raised(self):
        r = self.limited(256, None)
        soft, hard = resource.prlimit(r.pid, resource.RLIMIT_NOFILE)
        self.assertEqual(soft, hard)

    def test_out_of_descriptors(self):
        r = self.limited(LIMIT, LIMIT)
        idle = [socket.create_connection(("127.0.0.1", r.port)) for _ in range(2 * LIMIT)]
        harness.await_true(lambda: len(os.listdir("/proc/%d/fd" % r.pid)) >= LIMIT, what="the limit to be reached")
        before = cpu_seconds(r)
        time.sleep(1)
        used = cpu_seconds(r) - before
        for s in idle:
            s.close()
        self.assertLess(used, 0.5, "it spins")
        harness.await_true(lambda: r.get("/livez").status == 200, what="it to serve again")
        self.assertIn(r.log_text().count("event=accept-failed"), (1, 2, 3))

    def count(self, server, name):
        return int(re.search(r"(?m)^%s (\d+)$" % name, server.get("/metrics").body.decode()).group(1))

    def paced(self, rate, source):
        """Two first syncs at once under a rate: they pause as often as they must, and never wake in vain."""
        value = os.urandom(500000)
        for i in range(20):
            self.assertEqual(self.p.put("b", "k%d" % i, value).status, 201)
        with harness.follower(self.dir, source, name="f1") as f1, harness.follower(self.dir, source, name="f2") as f2:
            for f in (f1, f2):
                harness.await_equal(self.p, f)
                self.assertEqual(f.value("b", "k19").body, value)
            sent, paused = self.count(source, "bts_replication_sent_bytes_total"), self.count(source, "bts_replication_paused_total")
        self.assertGreater(sent, 20000000)
        # Between two pauses at most the burst, a tenth of a second's, goes out, and what comes in while it does.
        self.assertGreater(paused, sent / (2 * rate / 10))
        # Each is woken for 16 KiB at least, and waits once more when it was not its turn.
        self.assertLess(paused, 2 * sent / 16384 + 100)

    def metrics(self, server):
        """name -> {labels: value}, each name described once."""
        found, described = {}, []
        for line in server.get("/metrics").body.decode().splitlines():
            if line.startswith("# TYPE "):
                described.append(line.split()[2])
            elif not line.startswith("#"):
                name, labels, value = re.match(r"([a-z_]+)(?:\{(.*)\})? (\S+)$", line).groups()
                found.setdefault(name, {})[labels] = float(value)
        self.assertEqual(len(described), len(set(described)))
        return found

    def test_metrics(self):
        """A chain: what each says of its followers, and of its own source where it has one, under the same names."""
        r = harness.replicator(self.dir)
        self.addCleanup(r.stop)
        value = os.urandom(400000)
        for i in range(20):
            self.assertEqual(self.p.put("b", "k%d" % i, value).status, 201)
        slow = harness.follower(self.dir, r, "--max-rate", "2000000", name="slow")
        self.addCleanup(slow.stop)
        done = []

        def moves():
            found = self.metrics(slow)
            if found["bts_replication_transfer_done_bytes"][None] and not found["bts_replication_mode"]['mode="first-sync"']:
                self.fail("a transfer in mode %r" % found["bts_replication_mode"])
            done.append((found["bts_replication_transfer_done_bytes"][None], found["bts_replication_transfer_total_bytes"][None]))
            return done[-1][0] > 0 and done[-1][0] != done[0][0] or found.get("bts_txid")

        harness.await_true(moves, what="the transfer to move")
        done = [pair for pair in done if pair[0]]
        self.assertEqual(done, sorted(done))
        size = os.path.getsize(self.dir.file("primary.bts"))
        for at, total in done:
            self.assertLess(at, total + 1)
            self.assertLess(total, size + 1)
            self.assertGreater(total, 20 * 400000)
        self.assertIn("total_bytes", slow.status()["transfer"])
        harness.await_equal(self.p, slow)
        self.assertEqual(self.metrics(slow)["bts_replication_transfer_done_bytes"][None], 0)
        harness.await_true(lambda: self.metrics(slow)["bts_replication_mode"]['mode="idle"'] == 1, what="it to be idle")

        middle = harness.Server([harness.binary("bts-replicator"), "--data", self.dir.file("middle.bts"), "--listen", "127.0.0.1:0",
                                 "--admin", "--name", "middle", "--from", r.url], self.dir.file("middle.log"))
        self.addCleanup(middle.stop)
        for i in range(20):  # frames between commits, so that it is known what they take
            self.assertEqual(self.p.put("b", "small", b"%d" % i).status // 100, 2)
            harness.await_equal(self.p, slow)
        slow.signal(signal.SIGSTOP)
        for i in range(20):
            self.assertEqual(self.p.put("b", "small", b"more %d" % i).status // 100, 2)
        txid = self.p.status()["txid"]
        harness.await_true(lambda: self.metrics(middle)["bts_txid"][None] == txid, what="the middle to have it")
        for server in (self.p, r):
            def told():  # the middle has it, and says so with its next question
                found = self.metrics(server)
                age = found["bts_follower_lag_seconds"]
                return found["bts_follower_lag_bytes"] if age.get('follower="slow"') and age['follower="middle"'] == 0 else None

            lag = harness.await_true(told, what="the age of one of them")
            self.assertEqual(lag['follower="middle"'], 0)
            self.assertGreater(lag['follower="slow"'], 4096)
        slow.signal(signal.SIGCONT)
        harness.await_equal(self.p, slow)
        harness.await_equal(self.p, middle)
        mine, theirs = self.metrics(middle), self.metrics(slow)
        same = {n for n in theirs if n.startswith("bts_replication_")}
        self.assertGreater(len(same), 20)
        self.assertEqual(same - set(mine) - {"bts_replication_lag_bytes"}, set())
        self.assertEqual(mine["bts_replication_pending_pages"][None] > 0, mine["bts_replication_pending_bytes"][None] > 0)
        # And the same as JSON.
        harness.await_true(lambda: all(n.status()["mode"] == "idle" and n.status()["state"] == "following" for n in (middle, slow)),
                           what="both to be idle")
        mine, theirs = middle.status(), slow.status()
        ours = r.status()
        for key in ("database_id", "epoch", "txid", "chain", "root_digest", "page_size"):
            self.assertEqual(mine[key], theirs[key], key)
            self.assertEqual(ours[key], theirs[key], key)
        self.assertEqual((ours["role"], mine["role"], mine["name"]), ("primary", "follower", "middle"))
        for key in ("upstream", "state", "mode", "transfer", "lag_bytes", "lag_txids", "fork", "last_error"):
            self.assertEqual(mine[key], theirs[key], key)
            self.assertNotIn(key, ours)
        harness.await_true(lambda: {f["name"]: f["lag_txids"] for f in r.status()["followers"]} == {"slow": 0, "middle": 0},
                           what="both to have acknowledged")

    def test_promtool(self):
        """Prometheus' own linter has nothing to say, of any of the programs (promtool comes with Debian's prometheus)."""
        linter = shutil.which("promtool")
        with harness.replicator(self.dir) as r, harness.follower(self.dir, r) as f:
            self.p.put("b", "k", b"v")
            harness.await_equal(self.p, f)
            texts = [server.get("/metrics").body for server in (self.p, r, f)]
        for text in texts:
            self.assertNotRegex(text, rb"(?m)^[a-z_]+_(milli|micro|nano)seconds")
            self.assertIn(b"_seconds", text)
            if linter:
                done = subprocess.run([linter, "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
                self.assertEqual((done.returncode, done.stdout), (0, b""))
        if not linter:
            self.skipTest("SKIP: no promtool")

    def test_rate(self):
        r = harness.replicator(self.dir, "--serve-rate", "16M")
        self.addCleanup(r.stop)
        self.paced(16 << 20, r)

    def test_rate_of_btsd(self):
        self.p.stop()
        self.p = harness.primary(self.dir, "--serve-rate", str(16 << 20))
        self.addCleanup(self.p.stop)
        self.paced(16 << 20, self.p)

    def test_stop_while_paced(self):
        """Neither a stop nor a follower that goes away waits for the rate."""
        r = harness.replicator(self.dir, "--serve-rate", "64K")
        self.assertEqual(self.p.put("b", "k", os.urandom(5000000)).status, 201)
        f = harness.follower(self.dir, r)
        harness.await_true(lambda: self.count(r, "bts_replication_paused_total") > 2, what="pauses")
        f.kill()
        f = harness.follower(self.dir, r)
        self.assertEqual(r.stop(), 0)
        self.assertEqual(f.stop(), 0)

    def test_log_of_requests(self):
        r = harness.replicator(self.dir, "--log-requests")
        self.addCleanup(r.stop)
        self.p.put("b", "k", b"v")
        with harness.follower(self.dir, r, name="f1") as f:
            harness.await_equal(self.p, f)
            self.assertEqual(r.get("/v1/nothing?secret=1", {"X-Request-Id": "mine"}).status, 404)
            self.assertEqual(r.raw(b"POST /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")[:12], b"HTTP/1.1 405")
            r.wait_log(r"event=request text=\"GET /v1/replication/frames 200 \d+ ms id=\S+ follower=f1\"")
            r.wait_log(r"event=request text=\"GET /v1/nothing 404 \d+ ms id=mine follower=-\"")
            r.wait_log(r"event=request text=\"POST /livez 405 ")
        self.assertNotIn("secret", r.log_text())
        self.assertEqual(r.stop(), 0)  # into one log with the other
        with harness.replicator(self.dir) as silent:
            silent.get("/livez")
        self.assertNotIn("event=request", silent.log_text())

    def test_before_the_first_commit(self):
        """With no file yet: health and nothing else, at the address that it keeps."""
        argv = [harness.binary("bts-replicator"), "--data", self.dir.file("new.bts"), "--listen", "127.0.0.1:0", "--admin", "--name", "n2",
                "--from"]
        source = socket.socket()
        source.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d" % source.getsockname()[1]
        r = harness.Server(argv + [url], self.dir.file("n2.log"), ready=r"event=awaits-first-commit .*listen=127\.0\.0\.1:(\d+)")
        self.addCleanup(r.stop)
        for path, status in (("/livez", 200), ("/healthz", 200), ("/readyz", 503), ("/metrics", 503), ("/v1/status", 503),
                             ("/v1/replication/position", 503), ("/v1/replication/frames?after=0", 503), ("/v1/admin/x", 503)):
            reply = r.get(path)
            self.assertEqual((path, reply.status), (path, status))
            self.assertTrue(status == 200 or reply.code == "unavailable", reply)
        promise = "/v1/replication/promise?epoch=9-0000000000000001&database=" + "0" * 32
        self.assertEqual(r.request("POST", promise).status, 503)
        source.close()
        self.p.put("b", "k", b"v")
        with harness.Server([harness.binary("bts-replicator"), "--data", self.dir.file("primary.bts"), "--listen", url[7:]],
                            self.dir.file("source.log")):
            r.wait_log("event=ready .*listen=127.0.0.1:%d " % r.port)
            self.assertEqual(r.get("/readyz").status, 200)
            self.assertEqual(r.get("/v1/replication/position").json()["txid"], self.p.get("/v1/status").json()["txid"])

    def test_stopped_before_the_first_commit(self):
        argv = [harness.binary("bts-replicator"), "--data", self.dir.file("none.bts"), "--listen", "127.0.0.1:0", "--admin", "--name", "n3",
                "--from", "http://127.0.0.1:1"]
        r = harness.Server(argv, self.dir.file("n3.log"), ready=r"event=awaits-first-commit .*listen=127\.0\.0\.1:(\d+)")
        self.assertEqual(r.stop(), 0)

    def test_wait_max(self):
        for text in ("0s", "199ms", "61s", "1h"):
            done = subprocess.run([harness.binary("bts-replicator"), "--data", "x", "--listen", "127.0.0.1:0", "--wait-max", text],
                                  stderr=subprocess.PIPE, timeout=30)
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"--wait-max", done.stderr)


if __name__ == "__main__":
    harness.main()
