"""Automatic failover: three btsd, a real etcd, clients that follow redirects, and deaths, stalls, stops and an etcd that goes away.

Who leads may be another one at the next line: a process that stands still for the lease's two seconds, as on a busy machine, loses it.

BTS_LEASE_SECONDS: how long the random part goes on (default 12); BTS_LEASE_SEED: its faults.  Needs Debian's etcd-server.
"""
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest
import urllib.parse

import harness
from test_btsd__disk import FLUSH_FAILS
from test_deadline import Writer as Program

ETCD = shutil.which("etcd")
TTL = "2s"
PATIENCE = 40


class Etcd:
    def __init__(self, where):
        self.port, peer = harness.free_ports(2)
        self.log = where.file("etcd.log")
        client, peers = "http://127.0.0.1:%d" % self.port, "http://127.0.0.1:%d" % peer
        self.argv = [ETCD, "--data-dir", where.file("etcd"), "--name", "one", "--listen-client-urls", client, "--advertise-client-urls", client,
                     "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "one=" + peers,
                     "--unsafe-no-fsync" if self.knows("--unsafe-no-fsync") else "--logger=zap"]
        self.start()

    def knows(self, flag):
        got = subprocess.run([ETCD, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        return flag.encode() in got

    def start(self):
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        harness.await_true(self.healthy, PATIENCE, "etcd to answer")

    def healthy(self):
        try:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            c.request("GET", "/health")
            return json.loads(c.getresponse().read()).get("health") == "true"
        except (OSError, ValueError):
            return False
        finally:
            c.close()

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
        self.child.wait(30)


class Node:
    def __init__(self, test, name, port):
        self.test, self.name, self.port = test, name, port
        self.url = "http://127.0.0.1:%d" % port
        self.file = test.dir.file(name + ".bts")
        self.log = test.dir.file(name + ".log")
        self.fails = test.dir.file(name + ".fails")  # its disk, while this file is there
        self.d = None
        self.stalled = False

    def start(self, role="follower"):
        others = ",".join(n.url for n in self.test.nodes if n is not self)
        os.environ["FLUSH_FAILS_IF"] = self.fails
        self.d = harness.Server([harness.binary("btsd"), role, "--data", self.file, "--listen", "127.0.0.1:%d" % self.port,
                                 "--name", self.name, "--members", "a,b,c", "--rejoin", "--durability", "replicated:1", "--lease-ttl", TTL,
                                 "--failover", "etcd://127.0.0.1:%d/test/orders" % self.test.etcd.port,
                                 "--failover-members", others, "--survive", "1"], self.log)
        return self

    def up(self):
        return self.d is not None and self.d.alive() and not self.stalled

    def kill(self):
        if self.d:
            self.d.kill()

    def stall(self):
        self.d.signal(signal.SIGSTOP)
        self.stalled = True

    def resume(self):
        self.d.signal(signal.SIGCONT)
        self.stalled = False

    def status(self):
        """Soon, or nothing."""
        try:
            return self.ask("GET", "/v1/status", timeout=3).json()
        except (OSError, ValueError, http.client.HTTPException):
            return {}

    def bounded(self, target, bound):
        with harness.Client(self.port, 30) as c:
            return c.request("GET", target, None, {"BTS-Max-Staleness": bound})

    def ask(self, method, target, body=None, timeout=60):
        with harness.Client(self.port, timeout) as c:
            return c.request(method, target, body)

    def leads(self):
        s = self.status()
        return s.get("role") == "primary" and s["failover"]["state"] == "leader" and s["failover"]["lease_ms"] > 0


class Writer(threading.Thread):
    """Unique keys, to whoever takes them; what was acknowledged, and when each was asked for and answered."""

    def __init__(self, test, number):
        super().__init__()
        self.test, self.number, self.acked, self.done = test, number, {}, threading.Event()
        self.seen = set()

    def run(self):
        ports = [n.port for n in self.test.nodes]
        at, i = self.number % len(ports), 0
        port, hops = ports[at], 0
        while not self.done.is_set():
            key = "w%d-%d" % (self.number, i)
            i += 1
            try:
                with harness.Client(port, 3) as c:
                    reply = c.request("PUT", "/v1/buckets/b/keys/" + key, key.encode())
            except (OSError, http.client.HTTPException):
                reply = None
            if reply is not None:
                self.seen.add((reply.status, reply.code if reply.status >= 400 else ""))
            if reply is not None and reply.status in (200, 201):
                self.acked[key] = time.monotonic()
                hops = 0
            elif reply is not None and reply.status == 307 and hops < 3:
                port = urllib.parse.urlsplit(reply.headers["Location"]).port
                hops += 1
            else:
                at = (at + 1) % len(ports)
                port, hops = ports[at], 0
                time.sleep(0.02)

    def end(self):
        self.done.set()
        self.join()


@unittest.skipUnless(ETCD, "etcd is not installed (Debian: etcd-server)")
class Lease(harness.Case):
    def setUp(self):
        super().setUp()
        self.etcd = Etcd(self.dir)
        self.addCleanup(self.etcd.stop)
        self.preload()
        self.nodes = []
        self.nodes = [Node(self, name, port) for name, port in zip("abc", harness.free_ports(3))]
        for n in self.nodes:
            self.addCleanup(n.kill)
        self.nodes[0].start("primary")
        for n in self.nodes[1:]:
            n.start()
        self.writers = []
        self.addCleanup(lambda: [w.end() for w in self.writers])
        harness.await_true(lambda: self.leader().ask("PUT", "/v1/buckets/b?durability=local").status in (200, 201), PATIENCE, "a bucket")

    def preload(self):
        """Flushes that fail on demand, where there is a compiler."""
        old, compiler = dict(os.environ), shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(old)))
        if not compiler:
            return
        with open(self.dir.file("fails.c"), "w") as f:
            f.write(FLUSH_FAILS)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self.dir.file("fails.so"), self.dir.file("fails.c")], check=True)
        os.environ.update(LD_PRELOAD=self.dir.file("fails.so"),
                          ASAN_OPTIONS=old.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")

    def leader(self, but=None):
        """Whoever is primary and may write."""
        return harness.await_true(lambda: next((n for n in self.nodes if n.up() and n is not but and n.leads()), None), PATIENCE,
                                  lambda: "a primary: %r" % [(n.name, n.status()) for n in self.nodes if n.up()])

    def other(self):
        """One that does not lead."""
        leader = self.leader()
        return next(n for n in self.nodes if n is not leader)

    def demote(self):
        """Demote whoever leads, by hand."""
        def demoted():
            node = self.leader()
            reply = node.ask("POST", "/v1/admin/demote")
            if reply.status == 200:
                self.assertEqual(reply.json()["role"], "fenced")
                return node
            self.assertIn((reply.status, reply.code), ((409, "wrong-role"), (409, "busy")), reply)  # the lead was lost before

        return harness.await_true(demoted, PATIENCE, "the demotion")

    def write(self, count=3):
        self.writers = [Writer(self, i) for i in range(len(self.writers), len(self.writers) + count)]
        for w in self.writers:
            w.start()

    def acked(self):
        return sum(len(w.acked) for w in self.writers)

    def await_writes(self, more=20):
        before = self.acked()
        harness.await_true(lambda: self.acked() >= before + more, PATIENCE, "acknowledged writes")

    def whole(self):
        """All nodes up, one primary, all at its commit, and every acknowledged write on each."""
        for n in self.nodes:
            if n.stalled:
                n.resume()
            if not n.d.alive():
                n.start()
        for w in self.writers:
            w.end()
        keys = {k for w in self.writers for k in w.acked}

        def same():
            s = [n.status() for n in self.nodes]
            roles = sorted(i.get("role", "") for i in s)
            return roles == ["follower", "follower", "primary"] and len({(i["epoch"], i["txid"], i["root_digest"]) for i in s}) == 1

        harness.await_true(same, PATIENCE, "one primary, and the others at its commit")
        for n in self.nodes:
            got, after = set(), ""
            while after is not None:
                page = n.ask("GET", "/v1/buckets/b/keys?limit=10000&after=" + harness.quote(after)).json()
                got.update(i["key"] for i in page["items"])
                after = page["next"] or None
            self.assertEqual(sorted(keys - got)[:5], [], "acknowledged writes that %s lacks" % n.name)
        return len(keys)

    def test_death(self):
        self.write()
        self.await_writes()
        # What the engine holds writers to: the lease's two seconds, less the margin.
        left = harness.await_true(lambda: self.leader().status().get("deadline_ms"), PATIENCE, "a deadline")
        self.assertLessEqual(left, 1500)
        old = self.leader()
        old.kill()
        self.leader(but=old)
        self.await_writes()
        old.start("primary")
        harness.await_true(lambda: old.status().get("role") == "follower", PATIENCE, "the old primary to follow")
        self.assertGreater(self.whole(), 30)

    def test_stall(self):
        """A primary that stands still for longer than its lease acknowledges nothing when it wakes, and takes nothing it has for new."""
        self.write()
        self.await_writes()
        old = self.leader()
        sock, reader = (socket.create_connection(("127.0.0.1", old.port)) for _ in range(2))
        old.stall()
        reader.sendall(b"GET /v1/buckets/b/keys/fresh HTTP/1.1\r\nHost: localhost\r\nBTS-Max-Staleness: 2s\r\n\r\n")
        sock.sendall(b"PUT /v1/buckets/b/keys/late?durability=local HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
        new = self.leader(but=old)
        self.await_writes()
        epoch = new.ask("GET", "/v1/status").json()["epoch"]
        harness.await_true(lambda: new.ask("PUT", "/v1/buckets/b/keys/fresh", b"x", 30).status in (200, 201), PATIENCE, "a write")
        written = time.monotonic()
        harness.await_true(lambda: time.monotonic() > written + 2.5, PATIENCE, "the write to be older than the bound")
        old.resume()
        for s in (sock, reader):
            s.settimeout(60)
        answer, read = sock.recv(4096), reader.recv(4096)
        sock.close()
        reader.close()
        self.assertRegex(read, rb"^HTTP/1.1 (503|200) ")  # it may have followed the other one by then, but lacks nothing then
        self.assertRegex(answer, rb"^HTTP/1.1 (503|307) ")
        harness.await_true(lambda: old.status().get("epoch", 0) >= epoch, PATIENCE, "the old primary to follow")
        self.whole()
        self.assertEqual(self.leader().ask("GET", "/v1/buckets/b/keys/late").status, 404)

    def test_etcd_away(self):
        """Without etcd writes end with the deadline, reads do not; they come back with it."""
        self.write()
        self.await_writes()
        old = self.leader()
        self.etcd.stop()
        harness.await_true(lambda: not any(n.leads() for n in self.nodes), PATIENCE, "the lease to run out")
        stopped = old.ask("PUT", "/v1/buckets/b/keys/x?durability=local", b"x")
        self.assertIn(stopped.status, (503, 307), stopped)
        self.assertEqual(old.ask("GET", "/v1/buckets/b/keys").status, 200)
        # Whoever may be primary elsewhere by now: nobody who had it from this one says that it is new.
        for n in self.nodes:
            harness.await_true(lambda: n.bounded("/v1/buckets/b/keys", "1s").code == "behind", PATIENCE, "%s to know its age" % n.name)
        self.etcd.start()
        self.leader()
        self.await_writes()
        self.whole()

    def test_stop_and_operators(self):
        self.write()
        self.await_writes()
        old = self.leader()
        begun = time.monotonic()
        self.assertEqual(old.d.stop(), 0)
        new = self.leader(but=old)
        took = time.monotonic() - begun
        self.await_writes()
        old.start()
        harness.await_true(lambda: old.status().get("role") == "follower" and old.status().get("state") == "following", PATIENCE, "it to follow")
        # Another holds the key: no promotion by hand.
        node, refused = harness.await_true(self.held, PATIENCE, "the promotion to be refused")
        self.assertRegex(refused.json()["detail"], r"\b[%s] at http" % "abc".replace(node.name, ""))
        # By hand: whoever is demoted leaves the key to others.
        self.leader(but=self.demote())
        self.await_writes()
        self.whole()
        for name in (b"bts_failover_state{state=\"leader\"} 1", b"bts_failover_deadline_seconds "):
            harness.await_true(lambda: name in self.leader().ask("GET", "/metrics").body, PATIENCE, name)
        print("clean stop: writable elsewhere after %.2f s" % took)

    def test_failed_disk(self):
        """A primary whose disk fails gives the key up, though it lives and could renew for ever."""
        if "LD_PRELOAD" not in os.environ:
            self.skipTest("no C compiler")
        self.write(1)
        self.await_writes()
        old = self.leader()
        open(old.fails, "w").close()
        self.leader(but=old)
        self.await_writes()
        old.d.wait_log("file-failed")
        os.unlink(old.fails)
        harness.await_true(lambda: old.status().get("failover", {}).get("state") == "watching", PATIENCE, "it to leave the key to others")
        old.kill()
        old.start("primary")
        self.whole()

    def test_promised_beyond(self):
        """Who promised a later epoch than the primary's has another one elected, and follows."""
        self.write(1)
        self.await_writes()
        node, status = harness.await_true(self.follows, PATIENCE, "one to follow")
        epoch = status["epoch"] + 4
        harness.await_true(lambda: self.promise(node, epoch, status) == 200, PATIENCE, "the promise")
        harness.await_true(lambda: node.status().get("epoch", 0) > epoch, PATIENCE, "it to follow a later epoch")
        # The same number as that of one who is elected meanwhile: which it is where the next election is won at once.
        for _ in range(10):
            if self.same_number():
                break
        else:
            self.fail("nobody was elected by the number that was promised")
        self.await_writes()
        self.whole()

    def follows(self):
        """One in the leader's epoch, and its status."""
        leader, node = self.leader().status(), self.other()
        status = node.status()
        return leader.get("epoch") and leader["epoch"] == status.get("epoch") and (node, status)

    def same_number(self):
        """Has somebody been elected by the number that another one had promised, who stood still meanwhile?"""
        node, status = harness.await_true(self.follows, PATIENCE, "one to follow")
        epoch = status["epoch"] + 1
        if self.promise(node, epoch, status) != 200:
            return False  # an election was faster
        node.stall()
        try:
            old = self.demote()
            elected = self.leader(but=old).ask("GET", "/v1/status").json()["epoch"]
        finally:
            node.resume()
        harness.await_true(lambda: node.status().get("epoch", 0) > epoch, PATIENCE, "it to follow a later epoch")
        return elected == epoch

    def promise(self, node, epoch, status):
        """The status of the answer; only an epoch that is promised or begun already is refused."""
        reply = node.ask("POST", "/v1/replication/promise?epoch=%d-%016x&database=%s" % (epoch, 1, status["database_id"]))
        self.assertIn((reply.status, reply.code), ((200, None), (409, "promised"), (409, "busy")), reply)
        return reply.status

    def held(self):
        """Who asked, and what was answered, once it was this."""
        node = self.other()
        reply = node.ask("POST", "/v1/admin/promote")
        return (node, reply) if reply.code == "lease-held" else None

    def test_random(self):
        seed = int(os.environ.get("BTS_LEASE_SEED", random.randrange(1 << 30)))
        seconds = float(os.environ.get("BTS_LEASE_SECONDS", "12"))
        print("BTS_LEASE_SEED=%d" % seed)
        dice, end, faults, total = random.Random(seed), time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            self.write()
            for _ in range(2):
                self.leader()
                self.await_writes(5)
                self.fault(dice)
                faults += 1
            for n in self.nodes:
                if n.stalled:
                    n.resume()
                if not n.d.alive():
                    n.start(dice.choice(["primary", "follower"]))
            self.leader()
            self.await_writes(5)
            total += sum(len(w.acked) for w in self.writers)
            self.whole()
        print("%d faults, %d acknowledged writes, 0 lost" % (faults, total))

    def fault(self, dice):
        node = self.leader() if dice.random() < 0.7 else dice.choice(self.nodes)
        kind = dice.choice(["kill", "stall", "blink", "stop", "etcd"])
        for n in self.nodes:  # one node out at a time: two of three are needed
            if n is not node and n.stalled:
                n.resume()
            if n is not node and not n.d.alive():
                n.start()
        if not node.up():
            return
        if kind == "kill":
            node.kill()
        elif kind == "stall":
            node.stall()
        elif kind == "blink":
            node.stall()
            time.sleep(dice.uniform(0.2, 3))
            node.resume()
        elif kind == "stop":
            node.d.stop()
        else:
            self.etcd.stop()
            time.sleep(dice.uniform(0, 3))
            self.etcd.start()


@unittest.skipUnless(ETCD, "etcd is not installed (Debian: etcd-server)")
class Embedded(harness.Case):
    """The same beside programs that have the file open themselves: bts-replicator --admin."""

    def start(self, i):
        others = ",".join("http://127.0.0.1:%d" % p for p in self.ports if p != self.ports[i])
        r = harness.Server([harness.binary("bts-replicator"), "--admin", "--name", "abc"[i], "--data", self.file(i), "--rejoin",
                            "--listen", "127.0.0.1:%d" % self.ports[i], "--lease-ttl", TTL, "--failover-members", others, "--survive", "1",
                            "--failover", "etcd://127.0.0.1:%d/test/embedded" % self.etcd.port], self.dir.file("r%d.log" % i), ready=None)
        r.port = self.ports[i]
        self.addCleanup(r.kill)
        return r

    def file(self, i):
        return self.dir.file("%d.bts" % i)

    def status(self, r):
        try:
            return r.status()
        except (OSError, ValueError, http.client.HTTPException):
            return {}

    def leader(self, but=None):
        return harness.await_true(lambda: next((r for r in self.all if r is not but and self.leads(r)), None), PATIENCE, "a primary")

    def leads(self, r):
        s = self.status(r)
        return s.get("role") == "primary" and s["failover"]["state"] == "leader"

    def program(self, r):
        """One beside it, from now on."""
        i = self.all.index(r)
        if i not in self.programs:
            self.programs[i] = Program(self.file(i))
            self.addCleanup(self.programs[i].stop)
        return self.programs[i]

    def put(self, value):
        """By the program beside whoever leads: who."""
        def done():
            r = self.leader()
            said = self.program(r).say("put k " + value)
            self.assertIn(said, ("ok", "fenced"))  # the lead may have been lost
            return r if said == "ok" else None

        return harness.await_true(done, PATIENCE, "a write")

    def equal(self):
        s = [self.status(r) for r in self.all]
        return len({(i.get("epoch"), i.get("txid"), i.get("root_digest")) for i in s}) == 1 and s[0].get("txid")

    def test_program(self):
        self.etcd, self.ports = Etcd(self.dir), harness.free_ports(3)
        self.addCleanup(self.etcd.stop)
        first = Program(self.file(0))
        self.addCleanup(first.stop)
        self.assertEqual(first.say("put k 0"), "fenced")
        self.all, self.programs = [self.start(i) for i in range(3)], {0: first}
        self.assertIs(self.leader(), self.all[0])
        old = self.put("1")
        harness.await_true(self.equal, PATIENCE, "the others to have it")
        i, first = self.all.index(old), self.program(old)
        old.kill()
        harness.await_true(lambda: first.say("put late x") == "fenced", PATIENCE, "the deadline")
        self.assertEqual(self.program(self.leader(but=old)).say("get k"), "1")
        self.put("2")
        self.all[i] = self.start(i)
        harness.await_true(self.equal, PATIENCE, "the old one to rejoin")
        self.assertEqual(first.say("get k"), "2")
        self.assertEqual(first.say("get late"), "not-found")
        if first.say("put k 3") == "ok":  # it leads already
            self.assertTrue(self.leads(self.all[i]))
        # And back: who stops hands over.
        new = self.leader()
        self.assertEqual(new.stop(), 0)
        harness.await_true(lambda: self.program(new).say("put k 4") == "fenced", PATIENCE, "the stopped one's program to be fenced")
        self.leader(but=new)


if __name__ == "__main__":
    harness.main()
