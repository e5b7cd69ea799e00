"""kill -9 of the primary, the replicator and the followers at random moments, under writes through the REST API.

Three writers, each with keys of its own, note what was acknowledged and what was only asked for.  After every restart of
the primary each acknowledged write must be there, and of each unanswered one either its old or its new state.  A reader on
each follower watches that its transaction numbers never fall and that no value stands under a foreign key.  At the end all
nodes converge to one txid and one digest, stop cleanly, and `bts check` finds nothing.

BTS_KILLS (30) is the number of kills, BTS_SEED the seed.
"""
import http.client
import json
import os
import random
import subprocess
import threading
import time
import unittest

import harness

KILLS = int(os.environ.get("BTS_KILLS") or 30)
SEED = int(os.environ.get("BTS_SEED") or random.SystemRandom().randrange(1 << 32))
BUCKET = "b"
GONE = None  # the value of an absent key
LOST = (OSError, http.client.HTTPException)  # no answer: the server died


class Node:
    """A server that is killed and started again at the same address."""

    def __init__(self, start):
        self.start_at = start
        self.server = start(None)
        self.port = self.server.port

    def restart(self):
        self.server.kill()
        self.server = self.start_at("127.0.0.1:%d" % self.port)


class Writer(threading.Thread):
    def __init__(self, node, number, stop):
        super().__init__(daemon=True)
        self.node, self.number, self.stop_event = node, number, stop
        self.random = random.Random(SEED * 100 + number)
        self.lock = threading.Lock()  # held while a request is out: the verifier takes it to stand still
        self.may = {}                 # key -> the set of values it may have
        self.acknowledged, self.unanswered, self.newest = 0, 0, 0
        self.failure = None

    def run(self):
        client = None
        while not self.stop_event.is_set() and not self.failure:
            with self.lock:
                try:
                    client = client or harness.Client(self.node.port, timeout=30)
                    self.step(client)
                except LOST:
                    client = drop(client)
                except Exception as e:  # noqa: told by the main thread
                    self.failure = e
            if client is None:
                self.stop_event.wait(0.02)
        drop(client)

    def value(self, key):
        size = self.random.choice([0, 10, 100, 1000, 1500, 20000])
        return "%s=%d=%s" % (key, self.random.randrange(1 << 30), "v" * size)

    def step(self, client):
        keys = ["w%d-%03d" % (self.number, self.random.randrange(400))]
        kind = self.random.choice(["put", "put", "put", "delete", "load"])
        if kind == "load":
            keys = list({"w%d-%03d" % (self.number, self.random.randrange(400)) for _ in range(60)})
        wanted = {k: GONE if kind == "delete" else self.value(k) for k in keys}
        before = {k: self.may.get(k, {GONE}) for k in keys}
        for key in keys:
            self.may[key] = before[key] | {wanted[key]}
        try:
            reply = self.send(client, kind, wanted)
        except LOST:
            self.unanswered += 1
            raise
        if reply.status == 404 and kind == "delete":
            if GONE not in before[keys[0]]:
                raise AssertionError("%s is gone, it was %r" % (keys[0], before[keys[0]]))
        elif reply.status not in (200, 201, 204):
            if reply.status == 503:  # it is stopping, or full: not done
                return
            raise AssertionError("%s %s: %r" % (kind, keys[0], reply))
        self.acknowledged += 1
        txid = int(reply.headers["BTS-Txid"])
        if txid < self.newest:
            raise AssertionError("acknowledged as txid %d after %d" % (txid, self.newest))
        self.newest = txid
        for key in keys:
            self.may[key] = {wanted[key]}

    def send(self, client, kind, wanted):
        if kind == "load":
            lines = "".join(json.dumps({"key": k, "value": v}) + "\n" for k, v in wanted.items())
            return client.request("POST", "/v1/buckets/%s/load" % BUCKET, lines.encode(),
                                  {"Content-Type": "application/x-ndjson"})
        (key, value), = wanted.items()
        target = "/v1/buckets/%s/keys/%s" % (BUCKET, key)
        if kind == "delete":
            return client.request("DELETE", target)
        return client.request("PUT", target, value.encode())


class Reader(threading.Thread):
    """On a follower: transaction numbers never fall, values stand under their own keys."""

    def __init__(self, node, number, stop):
        super().__init__(daemon=True)
        self.node, self.stop_event = node, stop
        self.random = random.Random(SEED * 200 + number)
        self.reads, self.newest, self.failure = 0, 0, None

    def run(self):
        client = None
        while not self.stop_event.is_set() and not self.failure:
            try:
                client = client or harness.Client(self.node.port, timeout=30)
                self.step(client)
            except LOST:
                client = drop(client)
                self.stop_event.wait(0.02)
            except Exception as e:  # noqa: told by the main thread
                self.failure = e
        drop(client)

    def step(self, client):
        key = "w%d-%03d" % (self.random.randrange(3), self.random.randrange(400))
        reply = client.request("GET", "/v1/buckets/%s/keys/%s" % (BUCKET, key))
        if reply.status not in (200, 404, 503):
            raise AssertionError("read %s: %r" % (key, reply))
        if reply.status == 503:
            return
        txid = int(reply.headers["BTS-Txid"])
        if txid < self.newest:
            raise AssertionError("follower went back from txid %d to %d" % (self.newest, txid))
        self.newest = txid
        if reply.status == 200 and not reply.body.startswith(key.encode() + b"="):
            raise AssertionError("read %s: foreign value %r" % (key, reply.body[:60]))
        self.reads += 1


def drop(client):
    """Close what is left of a connection; the next step makes a new one."""
    if client:
        client.close()


def listing(server):
    """Every key and value of the bucket, of one snapshot."""
    reply = server.get("/v1/buckets/%s/keys?values=1" % BUCKET, {"Accept": "application/x-ndjson"})
    if reply.status != 200:
        raise AssertionError("listing: %r" % reply)
    lines = [json.loads(line) for line in reply.body.splitlines()]
    end = lines.pop()
    if not end.get("end") or end["count"] != len(lines):
        raise AssertionError("the listing ended with %r after %d" % (end, len(lines)))
    return {harness.bytes_of(i, "key").decode(): harness.bytes_of(i, "value").decode() for i in lines}


class Kill9(unittest.TestCase):
    def verify(self, primary, writers):
        """With all writers at rest: what is there is what may be there; from here on exactly that."""
        for writer in writers:
            writer.lock.acquire()
        try:
            there = listing(primary.server)
            known = set()
            for writer in writers:
                for key, may in writer.may.items():
                    value = there.get(key, GONE)
                    self.assertIn(value, may, "%s after kills; seed %d" % (key, SEED))
                    writer.may[key] = {value}
                    known.add(key)
            self.assertEqual(set(there) - known, set())
        finally:
            for writer in writers:
                writer.lock.release()

    def check_threads(self, threads):
        for thread in threads:
            if thread.failure:
                raise thread.failure

    def run_kills(self, rng, nodes, writers, threads):
        kills = {name: 0 for name in nodes}
        for n in range(KILLS):
            time.sleep(rng.uniform(0.02, 0.5))  # the moment of the kill is what is random here
            names = rng.sample(sorted(nodes), 1 if rng.random() < 0.75 else 2)
            if rng.random() < 0.4 and "primary" not in names:
                names[0] = "primary"
            for name in names:
                nodes[name].server.kill()
                kills[name] += 1
            time.sleep(rng.choice([0, 0, rng.uniform(0, 0.3)]))
            for name in sorted(names, key=["primary", "replicator", "f1", "f2"].index):
                nodes[name].restart()
            if "primary" in names:
                self.verify(nodes["primary"], writers)
            self.check_threads(threads)
            if n % 10 == 9:
                print("%d of %d kills: %s" % (n + 1, KILLS, kills), flush=True)

    def finish(self, where, nodes, writers):
        primary, replicator, f1, f2 = (nodes[n].server for n in ("primary", "replicator", "f1", "f2"))
        self.verify(nodes["primary"], writers)
        wanted = listing(primary)
        for follower in (f1, f2):
            harness.await_equal(primary, follower, timeout=120)
            self.assertEqual(listing(follower), wanted)
        f2.kill()  # bts then finds a follower's file that nobody closed
        for server in (f1, replicator, primary):
            self.assertEqual(server.stop(), 0)
        digests = set()
        for name in ("primary", "f1", "f2"):
            file = where.file(name + ".bts")
            check = subprocess.run([harness.binary("bts"), "check", file], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
            self.assertEqual(check.returncode, 0, check.stdout)
            stat = json.loads(subprocess.check_output([harness.binary("bts"), "stat", "--json", file]))
            digests.add((stat["txid"], stat["root_digest"]))
        self.assertEqual(len(digests), 1, digests)

    def test_kill9(self):
        print("seed %d, %d kills (again: BTS_SEED=%d)" % (SEED, KILLS, SEED), flush=True)
        rng = random.Random(SEED)
        stop = threading.Event()
        threads = []
        with harness.Dir() as where:
            nodes = {"primary": Node(lambda listen: harness.primary(where, listen=listen))}
            try:
                self.assertEqual(nodes["primary"].server.request("PUT", "/v1/buckets/" + BUCKET).status, 201)
                nodes["replicator"] = Node(lambda listen: harness.replicator(where, listen=listen))
                source = "http://127.0.0.1:%d" % nodes["replicator"].port
                for name in ("f1", "f2"):
                    nodes[name] = Node(lambda listen, n=name: harness.follower(where, source, name=n, listen=listen))
                writers = [Writer(nodes["primary"], i, stop) for i in range(3)]
                readers = [Reader(nodes[f], i, stop) for i, f in enumerate(("f1", "f2"))]
                threads = writers + readers
                for thread in threads:
                    thread.start()
                self.run_kills(rng, nodes, writers, threads)
                stop.set()
                for thread in threads:
                    thread.join(60)
                self.check_threads(threads)
                self.finish(where, nodes, writers)
                print("acknowledged %d, unanswered %d, reads on followers %d" % (
                    sum(w.acknowledged for w in writers), sum(w.unanswered for w in writers),
                    sum(r.reads for r in readers)), flush=True)
                self.assertTrue(all(w.acknowledged for w in writers))
            except BaseException:
                for name, node in nodes.items():
                    print("---- log of %s\n%s" % (name, node.server.log_text()[-3000:]), flush=True)
                raise
            finally:
                stop.set()
                for node in nodes.values():
                    node.server.kill()


if __name__ == "__main__":
    harness.main()
