"""A C program that uses only the library, with bts-replicator beside it: replicated like everything else, also when it is killed."""
import base64
import os
import queue
import signal
import struct
import subprocess
import threading
import time
import unittest

import harness


class Writer:
    """engine/examples/embedded_writer.c"""

    def __init__(self, path, *args):
        self.child = subprocess.Popen([harness.binary("embedded_writer"), path] + [str(a) for a in args], stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        assert self.lines.get(timeout=30) == ["ready"]

    def read(self):
        with self.child.stdout as out:
            for line in out:
                self.lines.put(line.split())
        self.lines.put(None)

    def next(self):
        """(number, txid, how durable) of the next event, None at the end."""
        line = self.lines.get(timeout=30)
        return line and (int(line[0]), int(line[1]), line[2])

    def kill(self):
        self.child.kill()
        self.child.wait()


def cpu_seconds(pid):
    """Of all its threads so far."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Embedded(harness.Case):
    def setUp(self):
        super().setUp()
        self.path = self.dir.file("primary.bts")

    def writer(self, *args):
        w = Writer(self.path, *args)
        self.addCleanup(w.kill)
        return w

    def event(self, node, number):
        return node.value("events", "%012d" % number)

    def test_alone(self):
        w = self.writer(0, 3)
        self.assertEqual([w.next()[0::2] for _ in range(3)], [(1, "here"), (2, "here"), (3, "here")])
        self.assertIsNone(w.next())
        w = self.writer(0, 1)
        self.assertEqual(w.next()[0], 4)  # it goes on where it was

    def test_readers_wait_for_it(self):
        """
        Beside btsd, which writes the file, too.  A reader that waited (BTS-After) after another program's first commit kept a core
        busy until its time was up, and was let go only then, though that program had made the commit it waited for.
        """
        p = self.started(harness.primary(self.dir))
        p.request("PUT", "/v1/buckets/events")
        token = bytearray(base64.urlsafe_b64decode(p.put("events", "k", b"v").headers["BTS-Token"] + "=="))
        w = self.writer(0, 1)
        self.assertIsNotNone(w.next())
        newest = p.status()["txid"]
        struct.pack_into("<Q", token, 13, newest + 1)
        after = {"BTS-After": base64.urlsafe_b64encode(bytes(token)).decode().rstrip("=")}
        replies = []

        def wait():
            start = time.monotonic()
            replies.append((p.get("/v1/buckets/events/keys/k?wait=20s", after).status, time.monotonic() - start))

        t = threading.Thread(target=wait)
        t.start()
        time.sleep(0.3)
        before = cpu_seconds(p.pid)
        time.sleep(1)
        self.assertLess(cpu_seconds(p.pid) - before, 0.5)
        self.assertEqual(replies, [])
        self.assertIsNotNone(self.writer(0, 1).next())
        t.join()
        self.assertEqual(replies[0][0], 200)
        self.assertLess(replies[0][1], 10)

    def test_replicated_and_killed(self):
        w = self.writer(1)
        self.assertEqual(w.next()[0], 1)
        r = self.started(harness.replicator(self.dir))
        f = self.started(harness.follower(self.dir, r))
        number = 1
        for life in range(4):
            told = []
            while sum(how == "replicated" for _, _, how in told) < 50:
                told.append(w.next())
            w.kill()
            while (line := w.next()):
                told.append(line)
            # What it said is replicated is on the follower now, while the writer is dead.
            self.assertEqual([n for n, _, _ in told], list(range(told[0][0], told[0][0] + len(told))))
            for n, txid, how in told:
                if how == "replicated":
                    self.assertEqual(self.event(f, n).body, b"event %d" % n)
            # And all that it said at all is in the file and gets there.
            number = told[-1][0]
            harness.await_true(lambda: self.event(f, number).status == 200, what="the last event")
            if life == 2:
                # Its replicator dies as well: both are needed for nothing but themselves.
                r.kill()
                r = self.started(harness.replicator(self.dir, listen="127.0.0.1:%d" % r.port))
            w = self.writer(1)
        # One more than was told may have been committed before each death, none is missing.
        items = f.get("/v1/buckets/events/keys?limit=10000").json()["items"]
        numbers = [int(i["key"]) for i in items if i["key"] != "last"]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertGreaterEqual(len(numbers), number)

    def test_the_file_is_lost(self):
        r = None
        w = self.writer(1)
        r = self.started(harness.replicator(self.dir))
        f = self.started(harness.follower(self.dir, r))
        told = [w.next()]
        while sum(how == "replicated" for _, _, how in told) < 100:
            told.append(w.next())
        w.kill()
        r.kill()
        while (line := w.next()):
            told.append(line)
        for n, _, how in told:
            if how == "replicated":
                self.assertEqual(self.event(f, n).status, 200)

    def admin(self, r, what, **params):
        query = "&".join("%s=%s" % (k, harness.quote(str(v))) for k, v in params.items())
        return r.request("POST", "/v1/admin/%s?%s" % (what, query))

    def role(self, node):
        return node.get("/v1/admin/promote").json()

    def handoff(self, old, new):
        """Demote one, promote the other where it ended, let the first follow it."""
        reply = self.admin(old, "demote")
        self.assertEqual((reply.status, reply.json()["role"]), (200, "fenced"), reply)
        last = reply.json()
        harness.await_true(lambda: self.role(new)["position"] == last["position"], what="the last commit to arrive")
        reply = self.admin(new, "promote", expect=last["position"], digest=last["root_digest"])
        self.assertEqual((reply.status, reply.json()["role"]), (200, "primary"), reply)
        self.assertEqual(self.admin(old, "follow", url=new.url).status, 200)

    def fenced(self, w):
        """All it told up to its fence."""
        told = []
        while not told or told[-1][2] != "fenced":
            told.append(w.next())
        # It has committed no event that it did not tell of but, at most, the one under way.
        self.assertEqual([n for n, _, _ in told[:-1]], list(range(told[0][0], told[0][0] + len(told) - 1)))
        return told[-1][0]

    def test_handoff_while_it_runs(self):
        """Its node is demoted, follows another, is killed as a follower, and gets its file back, all while its process runs."""
        w = self.writer(0)
        r = self.started(harness.replicator(self.dir, "--admin", "--name", "a"))
        f = self.started(harness.follower(self.dir, r, name="b"))
        harness.await_true(lambda: f.status().get("txid"), what="the first sync")
        for round in range(3):
            for _ in range(20):
                self.assertEqual(w.next()[2], "here")
            self.handoff(r, f)
            last = self.fenced(w)
            self.assertEqual(self.event(f, last).body, b"event %d" % last)
            self.assertEqual(self.event(f, last + 1).status, 404)
            self.assertEqual(f.put("events", "%012d" % (last + 1), b"from b").status, 201)
            self.assertEqual(f.put("events", "last", b"%d" % (last + 1)).status, 200)
            if round == 1:
                r.kill()
                r = self.started(harness.replicator(self.dir, "--admin", "--name", "a", "--from", f.url,
                                                    listen="127.0.0.1:%d" % r.port))
            self.handoff(f, r)
            self.assertEqual(w.next()[0::2], (last + 2, "here"))
            harness.await_true(lambda: self.event(f, last + 2).status == 200, what="the next event")
        self.assertEqual(self.admin(r, "promote", force=1).code, "already-primary")
        w.kill()
        harness.await_true(lambda: self.role(r)["position"] == self.role(f)["position"], what="the last commit to arrive")
        self.assertEqual(self.role(r)["root_digest"], self.role(f)["root_digest"])
        self.assertEqual((r.stop(), f.stop()), (0, 0))
        check = subprocess.run([harness.binary("bts"), "check", self.path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(check.returncode, 0, check.stdout)

    def test_restarted_while_fenced(self):
        """A replicator that finds a fenced file serves it and can promote it; scrubbing such a file is possible, too."""
        w = self.writer(0)
        r = self.started(harness.replicator(self.dir, "--admin", "--name", "a"))
        self.assertEqual(self.admin(r, "demote").status, 200)
        last = self.fenced(w)
        self.assertEqual(r.stop(), 0)
        scrub = subprocess.run([harness.binary("bts-replicator"), "--data", self.path, "--scrub", ""], stderr=subprocess.PIPE)
        self.assertEqual(scrub.returncode, 0, scrub.stderr)
        r = self.started(harness.replicator(self.dir, "--admin", "--name", "a"))
        self.assertEqual((self.role(r)["role"], r.status()["state"]), ("follower", "stopped"))  # ready to follow
        self.assertEqual(r.get("/v1/buckets").status, 404)
        self.assertEqual(r.get("/metrics").status, 200)
        self.assertEqual(self.admin(r, "promote", force=1).status, 200)
        self.assertEqual(w.next()[0::2], (last + 1, "here"))
        self.assertEqual(r.status()["role"], "primary")

    def test_elections(self):
        """Its node is a member: a promise fences it, also where the election fails; whoever has more wins the next one."""
        w = self.writer(0)
        r = self.started(harness.replicator(self.dir, "--admin", "--name", "a"))
        f = self.started(harness.follower(self.dir, r, name="b"))
        there = w.next()[0]
        harness.await_true(lambda: f.status().get("txid") and self.event(f, there).status == 200, what="an event to arrive")
        f.signal(signal.SIGSTOP)
        for _ in range(50):
            w.next()
        few = self.admin(r, "promote", members=f.url, survive=1)
        self.assertEqual((few.status, few.code), (409, "already-primary"), few)
        r.signal(signal.SIGSTOP)
        f.signal(signal.SIGCONT)
        few = self.admin(f, "promote", members=r.url, survive=0)
        self.assertEqual((few.status, few.code), (409, "no-quorum"), few)
        r.signal(signal.SIGCONT)
        lost = self.admin(f, "promote", members=r.url, survive=1)
        if lost.status != 200:  # it has lacked something: then the other is the one
            self.assertEqual((lost.status, lost.code), (409, "ahead"), lost)
            self.assertEqual(self.role(r)["role"], "fenced")
            last = self.fenced(w)
            won = self.admin(r, "promote", members=f.url, survive=1)
            self.assertEqual(won.status, 200, won)
            self.assertEqual(w.next()[0], last + 1)
        else:
            self.assertEqual(self.event(f, there).status, 200)

    def test_what_is_refused(self):
        w = self.writer(0, 1)
        w.next()
        r = self.started(harness.replicator(self.dir))
        self.assertEqual(self.admin(r, "demote").status, 404)  # not without --admin
        r.stop()
        r = self.started(harness.replicator(self.dir, "--admin", "--name", "a"))
        for target, code in (("promote", "invalid-parameter"), ("promote?force=maybe", "invalid-parameter"),
                             ("promote?nonsense=1", "invalid-parameter"), ("promote?force=1&force=1", "invalid-parameter"),
                             ("promote?members=nonsense", "invalid-parameter"), ("follow", "invalid-parameter"),
                             ("follow?url=http%3A%2F%2F127.0.0.1%3A1", "already-primary"), ("scrub?rate=1", "invalid-parameter")):
            reply = r.request("POST", "/v1/admin/" + target)
            self.assertEqual((reply.code, reply.status // 100), (code, 4), reply)
        page = r.request("POST", "/v1/admin/demote", headers={"Origin": "http://example.org"})
        self.assertEqual(page.status, 403)
        self.assertEqual(r.request("DELETE", "/v1/admin/demote").status, 405)
        self.assertEqual(self.role(r)["role"], "primary")
        self.assertEqual(r.get("/v1/admin/scrub").status, 404)
        self.assertEqual(self.admin(r, "scrub").status, 202)
        harness.await_true(lambda: r.get("/v1/admin/scrub").json()["ended"], what="the scrub")
        self.assertEqual(r.get("/v1/admin/scrub").json()["damaged"], 0)
        for args in (["--admin"], ["--from", "http://127.0.0.1:1"], ["--admin", "--name", "a", "--from", "nonsense"]):
            done = subprocess.run([harness.binary("bts-replicator"), "--data", self.path, "--listen", "127.0.0.1:0"] + args,
                                  stderr=subprocess.PIPE, timeout=30)
            self.assertEqual(done.returncode, 2, args)


if __name__ == "__main__":
    harness.main()
