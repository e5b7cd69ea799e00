"""The primary dies and its disk with it: what was acknowledged with replicated:1 is on the follower that is promoted.

Each round: four writers ask for one copy; at a random moment the primary (and the replicator beside it, when there is one) is killed
and its files are deleted; the follower that has most, by an election among the three with survive=1, becomes the primary; the
other follows it, and so does a new, empty node in the dead one's place.  Then every write that was acknowledged as replicated must
be there: no key may be missing, no counter may have gone back.

BTS_KILLS (4) is the number of rounds, BTS_SEED the seed.
"""
import glob
import http.client
import os
import random
import signal
import subprocess
import threading
import time
import unittest

import harness

ROUNDS = int(os.environ.get("BTS_KILLS") or 4)
SEED = int(os.environ.get("BTS_SEED") or random.SystemRandom().randrange(1 << 32))
LOST = (OSError, http.client.HTTPException)
WRITERS = 4


class Writer(threading.Thread):
    """New keys, and a counter under one; what was acknowledged as replicated."""

    def __init__(self, port, number, first):
        super().__init__(daemon=True)
        self.port, self.number, self.next = port, number, first
        self.keys, self.counter, self.alone, self.failure = {}, 0, 0, None

    def run(self):
        try:
            with harness.Client(self.port, timeout=30) as client:
                while True:
                    self.step(client)
        except LOST:
            pass
        except Exception as e:  # noqa: told by the main thread
            self.failure = e

    def put(self, client, key, value):
        reply = client.request("PUT", "/v1/buckets/b/keys/%s?durability=replicated:1&timeout=10s" % key, value.encode())
        if reply.status not in (200, 201, 202):
            raise AssertionError("put %s: %r" % (key, reply))
        self.alone += reply.status == 202
        return reply.headers["Durability-Reached"] == "replicated:1"

    def step(self, client):
        n, self.next = self.next, self.next + 1
        key = "w%d-%06d" % (self.number, n)
        if self.put(client, key, "%d" % n):
            self.keys[key] = "%d" % n
        if self.put(client, "counter-%d" % self.number, "%d" % n):
            self.counter = n


class DiskLost(unittest.TestCase):
    def setUp(self):
        self.where = harness.Dir().__enter__()
        self.addCleanup(self.where.__exit__, None, None, None)
        self.random = random.Random(SEED)
        self.keys, self.counters, self.alive, self.checked, self.alone = {}, [0] * WRITERS, [], 0, 0
        self.addCleanup(lambda: [n.stop() for n in self.alive])

    def write_until_death(self, primary, followers):
        """Until a random moment, then the primary is lost.  What its writers were told is added up."""
        writers = [Writer(primary.d.port, i, self.counters[i] + 1) for i in range(WRITERS)]
        for w in writers:
            w.start()
        harness.await_true(lambda: all(w.counter or w.failure for w in writers), what="a replicated write of each")
        time.sleep(self.random.uniform(0, 0.3))
        # Half of the time one follower stands still meanwhile, so that the other alone has the copies.
        behind = self.random.choice(followers + [None] * len(followers))
        if behind:
            behind.d.signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0, 0.3))
        primary.kill()
        for file in glob.glob(primary.file + "*"):
            os.unlink(file)
        if behind:
            behind.d.signal(signal.SIGCONT)
        self.alive.remove(primary)
        for i, w in enumerate(writers):
            w.join(60)
            self.assertIsNone(w.failure)
            self.assertFalse(w.is_alive())
            self.keys.update(w.keys)
            self.counters[i] = w.counter
            self.alone += w.alone

    def elect(self, dead, candidates):
        """The winner, asked in random order; one that is not the most advanced says who is."""
        self.random.shuffle(candidates)
        for node, other in (candidates, candidates[::-1]):
            reply = node.post("promote", members="%s,%s" % (dead.d.url, other.d.url), survive=1)
            if reply.status == 200:
                return node, other
            self.assertEqual((reply.status, reply.code), (409, "ahead"), reply)
            self.assertIn(other.d.url, reply.json()["detail"])
        self.fail("neither was promoted")

    def verify(self, node):
        got = node.values()
        missing = [k for k, v in self.keys.items() if got.get(k) != v]
        self.assertEqual(missing[:5], [], "%d lost on %s; seed %d" % (len(missing), node.name, SEED))
        back = [i for i in range(WRITERS) if int(got.get("counter-%d" % i, 0)) < self.counters[i]]
        self.assertEqual(back, [], "counters went back; seed %d" % SEED)
        self.checked += len(self.keys) + WRITERS

    def add(self, name, source):
        node = harness.Node(self.where, name).follow(source)
        self.alive.append(node)
        return node

    def test_disk_lost(self):
        print("seed %d, %d rounds (again: BTS_SEED=%d)" % (SEED, ROUNDS, SEED), flush=True)
        primary = harness.Node(self.where, "n0").start("primary")
        self.alive.append(primary)
        self.assertEqual(primary.d.request("PUT", "/v1/buckets/b").status, 201)
        followers = [self.add("n1", primary.source), self.add("n2", primary.source)]
        for round in range(ROUNDS):
            for f in followers:
                harness.await_equal(primary.d, f.d)
            self.write_until_death(primary, followers)
            winner, other = self.elect(primary, followers)
            self.verify(winner)
            if self.random.random() < 0.5:
                winner.replicate()
            self.assertEqual(other.post("follow", url=winner.source).status, 200)
            primary, followers = winner, [other, self.add("n%d" % (round + 3), winner.source)]
        for f in followers:
            harness.await_equal(primary.d, f.d)
            self.verify(f)
        print("%d replicated writes in %d rounds, looked up %d times, none lost; %d told to be here alone" %
              (len(self.keys), ROUNDS, self.checked, self.alone), flush=True)
        for node in [primary] + followers:
            self.assertEqual(set(node.stop()), {0})
            check = subprocess.run([harness.binary("bts"), "check", node.file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(check.returncode, 0, check.stdout)


if __name__ == "__main__":
    harness.main()
