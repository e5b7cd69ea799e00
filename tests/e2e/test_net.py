"""Nodes in network namespaces of their own, under load, while processes are killed and stopped and links are cut (T8).

A primary with its replicator, two followers, a replicator on the first follower's file, and a third follower behind that.
Servers listen on loopback only, so in each namespace a relay stands for what a tunnel is elsewhere; a cut link is a veth
that is down: connections hang, nobody is told.

Clients append to lists and read them; history.py judges what they saw, by two judges.  At the end all nodes converge to
one digest and `bts check` finds nothing.

BTS_KILLS (60) or `--full` (1000): number of faults; BTS_SEED: the seed.  Without the privilege for namespaces: SKIP.
"""
import ctypes
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import harness
import history

FULL = "--full" in sys.argv
FAULTS = int(os.environ.get("BTS_KILLS") or (1000 if FULL else 60))
SEED = int(os.environ.get("BTS_SEED") or random.SystemRandom().randrange(1 << 32))
LISTS, LIST_MAX = 4, 150  # lists in use at a time; a full one is followed by another
LOST = (OSError, http.client.HTTPException)
CLONE_NEWNET = 0x40000000
REST, FRAMES, RELAY = 7000, 7100, 7200
libc = ctypes.CDLL(None, use_errno=True)


def ip(*args):
    subprocess.run(("ip",) + args, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Inside:
    """This thread makes its sockets in a namespace."""

    def __init__(self, name):
        self.path = "/run/netns/" + name

    def enter(self, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            if libc.setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)

    def __enter__(self):
        self.enter(self.path)

    def __exit__(self, *exc):
        self.enter("/proc/%d/ns/net" % os.getpid())


class Network:
    """A namespace a node, all on one bridge in a namespace of its own."""

    def __init__(self, nodes):
        self.prefix = "bts%d-" % os.getpid()
        self.names = ["hub"] + nodes
        self.number = {name: i for i, name in enumerate(self.names)}
        self.made = []

    def space(self, name):
        return self.prefix + name

    def build(self):
        for name in self.names:
            ip("netns", "add", self.space(name))
            self.made.append(name)
            ip("-n", self.space(name), "link", "set", "lo", "up")
        hub = self.space("hub")
        ip("-n", hub, "link", "add", "name", "hub0", "type", "bridge")
        ip("-n", hub, "link", "set", "hub0", "up")
        for name in self.names[1:]:
            space, port = self.space(name), "p%d" % self.number[name]
            ip("-n", hub, "link", "add", "name", port, "type", "veth", "peer", "name", "eth", "netns", space)
            ip("-n", hub, "link", "set", port, "master", "hub0")
            ip("-n", hub, "link", "set", port, "up")
            ip("-n", space, "addr", "add", self.address(name) + "/24", "dev", "eth")
            ip("-n", space, "link", "set", "eth", "up")

    def address(self, name):
        return "10.77.0.%d" % self.number[name]

    def cut(self, name, cut):
        ip("-n", self.space("hub"), "link", "set", "p%d" % self.number[name], "down" if cut else "up")

    def remove(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", self.space(name)], stderr=subprocess.DEVNULL)


class Relay(threading.Thread):
    """Takes connections at `listen` in one namespace and makes each anew to `to`, from the same one."""

    def __init__(self, space, listen, to):
        super().__init__(daemon=True)
        self.space, self.to = space, to
        with Inside(space):
            self.listener = socket.create_server(listen, backlog=64)
        self.stop = False

    def run(self):
        Inside(self.space).__enter__()
        while not self.stop:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(near,), daemon=True).start()

    def carry(self, near):
        far = None
        try:
            Inside(self.space).__enter__()
            far = socket.create_connection(self.to, timeout=10)
            far.settimeout(None)
            self.copy(near, far)
        except OSError:
            pass
        finally:
            near.close()
            if far:
                far.close()

    def copy(self, near, far):
        other = {near: far, far: near}
        while not self.stop:
            ready, _, _ = select.select([near, far], [], [], 60)
            if not ready:
                return
            for one in ready:
                data = one.recv(65536)
                if not data:
                    return
                other[one].sendall(data)

    def close(self):
        self.stop = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()


class Server(harness.Server):
    def __init__(self, space, argv, log):
        super().__init__(["ip", "netns", "exec", space] + argv, log)


class Client(harness.Client):
    def __init__(self, space, port, timeout):
        super().__init__(port, timeout)
        with Inside(space):
            self.http.connect()


class Node:
    """A program in a namespace, killed and started again at the same address."""

    def __init__(self, net, name, argv, log):
        self.space, self.argv, self.log = net.space(name), argv, log
        self.server = None
        self.start()

    def start(self):
        self.server = Server(self.space, self.argv, self.log)

    def kill(self):
        self.server.signal(signal.SIGCONT)
        self.server.kill()

    def client(self, timeout=4):
        return Client(self.space, self.server.port, timeout)

    def get(self, target):
        with self.client(20) as c:
            return c.request("GET", target)


class Book:
    """What all clients did and saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.appends, self.reads = [], []
        self.next = 0
        self.age = [0] * LISTS

    def names(self):
        return ["l%d-%d" % (i, age) for i in range(LISTS) for age in range(self.age[i] + 1)]

    def pick(self, rng):
        """One in use, or the full one before it."""
        i = rng.randrange(LISTS)
        return "l%d-%d" % (i, max(0, self.age[i] - rng.choice([0, 0, 0, 1])))

    def full(self, name):
        i, age = (int(n) for n in name[1:].split("-"))
        with self.lock:
            if age == self.age[i]:
                self.age[i] += 1

    def item(self):
        with self.lock:
            self.next += 1
            return self.next

    def note(self, entries, entry):
        with self.lock:
            entries.append(entry)


def items_of(reply):
    if reply.status == 404:
        return []
    if reply.status != 200:
        raise http.client.HTTPException("%d" % reply.status)
    return [int(i) for i in reply.body.decode().split(",")]


def key_of(name):
    return "/v1/buckets/lists/keys/" + name


class Worker(threading.Thread):
    """A client of one node; a new connection after each failure."""

    def __init__(self, node, place, number, book, stop):
        super().__init__(daemon=True)
        self.node, self.place, self.book, self.stop_event = node, place, book, stop
        self.random = random.Random(SEED * 1000 + number)
        self.failure, self.done = None, 0

    def run(self):
        client = None
        while not self.stop_event.is_set() and not self.failure:
            try:
                client = client or self.node.client()
                self.step(client)
                self.done += 1
            except LOST:
                if client:
                    client.close()
                client = None
                self.stop_event.wait(0.02)
            except Exception as e:  # noqa: told by the main thread
                self.failure = e
        if client:
            client.close()

    def read(self, client, name):
        start = time.monotonic()
        reply = client.request("GET", key_of(name))
        items = items_of(reply)
        self.book.note(self.book.reads, history.Read(name, items, self.place, self.place == "primary", start,
                                                     time.monotonic(), int(reply.headers["BTS-Txid"])))
        return reply, items


class Reader(Worker):
    def step(self, client):
        self.read(client, self.book.pick(self.random))
        time.sleep(0.005)


class Writer(Worker):
    def step(self, client):
        name = self.book.pick(self.random)
        reply, items = self.read(client, name)
        if len(items) >= LIST_MAX:
            self.book.full(name)
            return
        time.sleep(self.random.uniform(0, 0.01))  # others may come between
        item = self.book.item()
        value = ",".join(str(i) for i in items + [item]).encode()
        condition = {"If-Match": reply.headers["ETag"]} if reply.status == 200 else {"If-None-Match": "*"}
        start = time.monotonic()
        outcome, txid = history.UNKNOWN, 0
        try:
            reply = client.request("PUT", key_of(name), value, condition)
            if reply.status in (200, 201):
                outcome, txid = history.OK, int(reply.headers["BTS-Txid"])
            elif reply.status == 412:
                outcome = history.FAILED
        finally:
            self.book.note(self.book.appends,
                           history.Append(name, item, outcome, start, time.monotonic(), txid))


class Cluster:
    NAMES = ["n1", "n2", "n3", "n4"]

    def __init__(self, where, net):
        self.where, self.net, self.relays, self.nodes = where, net, [], {}

    def relay(self, source, follower):
        """The replicator of one node, on loopback at the other."""
        net = self.net
        self.relays.append(Relay(net.space(source), (net.address(source), RELAY), ("127.0.0.1", FRAMES)))
        self.relays.append(Relay(net.space(follower), ("127.0.0.1", RELAY), (net.address(source), RELAY)))

    def add(self, name, where, argv):
        self.nodes[name] = Node(self.net, where, argv, self.where.file(name + ".log"))

    def build(self):
        data = {n: self.where.file(n + ".bts") for n in self.NAMES}
        rest, frames = "127.0.0.1:%d" % REST, "127.0.0.1:%d" % FRAMES
        source = "http://127.0.0.1:%d" % RELAY
        for pair in (("n1", "n2"), ("n1", "n3"), ("n2", "n4")):
            known = {(r.space, r.listener.getsockname()) for r in self.relays}
            if (self.net.space(pair[0]), (self.net.address(pair[0]), RELAY)) in known:
                self.relays.append(Relay(self.net.space(pair[1]), ("127.0.0.1", RELAY),
                                         (self.net.address(pair[0]), RELAY)))
            else:
                self.relay(*pair)
        for relay in self.relays:
            relay.start()
        btsd, replicator = harness.binary("btsd"), harness.binary("bts-replicator")
        self.add("primary", "n1", [btsd, "primary", "--data", data["n1"], "--listen", rest])
        with self.nodes["primary"].client() as c:
            assert c.request("PUT", "/v1/buckets/lists").status == 201
        self.add("replicator", "n1", [replicator, "--data", data["n1"], "--listen", frames])
        for name, at in (("f1", "n2"), ("f2", "n3")):
            self.add(name, at, [btsd, "follower", "--data", data[at], "--listen", rest, "--from", source, "--name", name])
        harness.await_true(lambda: os.path.exists(data["n2"]), what="the first follower's file")
        self.add("cascade", "n2", [replicator, "--data", data["n2"], "--listen", frames])
        self.add("f3", "n4", [btsd, "follower", "--data", data["n4"], "--listen", rest, "--from", source, "--name", "f3"])

    def status(self, name):
        return self.nodes[name].get("/v1/status").json()

    def converged(self):
        try:
            states = [self.status(n) for n in ("primary", "f1", "f2", "f3")]
        except LOST:
            return False
        keys = ("database_id", "epoch", "txid", "root_digest")
        return all(s.get("txid") and [s.get(k) for k in keys] == [states[0].get(k) for k in keys] for s in states)

    def close(self):
        for node in self.nodes.values():
            node.kill()
        for relay in self.relays:
            relay.close()


class Net(unittest.TestCase):
    def setUp(self):
        self.net = Network(Cluster.NAMES)
        self.addCleanup(self.net.remove)
        try:
            self.net.build()
            with Inside(self.net.space("hub")):
                pass
        except (OSError, subprocess.CalledProcessError) as e:
            why = e.stderr.decode().strip() if isinstance(e, subprocess.CalledProcessError) else str(e)
            print("SKIP: no network namespaces here: %s" % why, flush=True)
            self.skipTest("no network namespaces here: %s" % why)

    def fault(self, rng, cluster, counts):
        """One fault, and its end."""
        kind = rng.choice(["kill", "kill", "kill", "stop", "cut", "cut"])
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "cut":
            name = rng.choice(Cluster.NAMES)
            self.net.cut(name, True)
            time.sleep(rng.choice([0.1, 0.3, 0.8, 0.8 if rng.random() < 0.8 else 5]))
            self.net.cut(name, False)
            return
        names = rng.sample(sorted(cluster.nodes), 1 if rng.random() < 0.7 else 2)
        for name in names:
            if kind == "stop":
                cluster.nodes[name].server.signal(signal.SIGSTOP)
            else:
                cluster.nodes[name].kill()
        time.sleep(rng.uniform(0, 0.5))
        for name in names:
            if kind == "stop":
                cluster.nodes[name].server.signal(signal.SIGCONT)
            else:
                cluster.nodes[name].start()

    def judge(self, book, cluster):
        primary = cluster.nodes["primary"]
        for name in book.names():  # the last word
            start = time.monotonic()
            reply = primary.get(key_of(name))
            self.assertIn(reply.status, (200, 404))
            book.reads.append(history.Read(name, items_of(reply), "primary", True, start, time.monotonic(),
                                           int(reply.headers["BTS-Txid"])))
        for title, judge in (("black box", history.black_box), ("by ids", history.by_ids)):
            wrong = judge(book.appends, book.reads)
            self.assertEqual(wrong[:5], [], "%s: %d violations; seed %d" % (title, len(wrong), SEED))

    def finish(self, where, cluster):
        harness.await_true(cluster.converged, 120, "all nodes to be equal")
        for node in cluster.nodes.values():
            self.assertEqual(node.server.stop(), 0)
        for name in Cluster.NAMES:
            check = subprocess.run([harness.binary("bts"), "check", where.file(name + ".bts")],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(check.returncode, 0, check.stdout)

    def run_faults(self, rng, cluster, workers):
        counts = {}
        for n in range(FAULTS):
            time.sleep(rng.uniform(0.02, 0.4))
            self.fault(rng, cluster, counts)
            for worker in workers:
                if worker.failure:
                    raise worker.failure
            if n % 20 == 19:
                print("%d of %d faults: %s" % (n + 1, FAULTS, counts), flush=True)

    def test_net(self):
        print("seed %d, %d faults (again: BTS_SEED=%d)" % (SEED, FAULTS, SEED), flush=True)
        rng, stop, book = random.Random(SEED), threading.Event(), Book()
        with harness.Dir() as where:
            cluster = Cluster(where, self.net)
            try:
                cluster.build()
                nodes = cluster.nodes
                workers = [Writer(nodes["primary"], "primary", i, book, stop) for i in range(3)]
                workers += [Reader(nodes[f], f, 10 + i, book, stop) for i, f in enumerate(("f1", "f2", "f3"))]
                for worker in workers:
                    worker.start()
                self.run_faults(rng, cluster, workers)
                stop.set()
                for worker in workers:
                    worker.join(60)
                self.judge(book, cluster)
                self.finish(where, cluster)
                outcomes = [a.outcome for a in book.appends]
                print("appends: %d acknowledged, %d refused, %d without an answer; %d reads" % (
                    outcomes.count(history.OK), outcomes.count(history.FAILED), outcomes.count(history.UNKNOWN),
                    len(book.reads)), flush=True)
                self.assertTrue(all(w.done for w in workers))
            except BaseException:
                for name, node in cluster.nodes.items():
                    print("---- log of %s\n%s" % (name, node.server.log_text()[-3000:]), flush=True)
                raise
            finally:
                stop.set()
                cluster.close()


class Judges(unittest.TestCase):
    """The judges can fail."""

    def append(self, item, txid, start, outcome=history.OK):
        return history.Append("l", item, outcome, start, start + 0.5, txid)

    def read(self, items, txid, start, place="primary"):
        return history.Read("l", items, place, place == "primary", start, start + 0.1, txid)

    def test_judges(self):
        done = [self.append(1, 10, 1), self.append(2, 11, 2), self.append(3, 12, 3)]
        good = [self.read([1, 2, 3], 12, 4), self.read([1], 10, 5, "f"), self.read([1, 2], 11, 6, "f")]
        bad = {
            "lost": [self.read([1, 3], 12, 4)],
            "order": [self.read([2, 1, 3], 12, 4)],
            "stale on the primary": [self.read([1, 2, 3], 12, 4), self.read([1, 2], 12, 5)],
            "twice": [self.read([1, 2, 2, 3], 12, 4)],
            "invented": [self.read([1, 2, 3, 9], 12, 4)],
            "early": [self.read([1, 2, 3], 11, 2.7)],
        }
        self.assertEqual(history.black_box(done, good) + history.by_ids(done, good), [])
        for what, reads in bad.items():
            self.assertNotEqual(history.black_box(done, reads), [], what)
            self.assertNotEqual(history.by_ids(done, reads), [], what)
        back = [self.read([1, 2], 11, 4, "f"), self.read([1], 10, 5, "f")] + good[:1]
        self.assertNotEqual(history.black_box(done, back), [])
        refused = done + [self.append(4, 0, 4, history.FAILED)]
        self.assertNotEqual(history.black_box(refused, [self.read([1, 2, 3, 4], 13, 5)]), [])
        self.assertNotEqual(history.by_ids(refused, [self.read([1, 2, 3, 4], 13, 5)]), [])
        unknown = done + [self.append(4, 0, 4, history.UNKNOWN)]
        for items in ([1, 2, 3], [1, 2, 3, 4]):
            self.assertEqual(history.black_box(unknown, [self.read(items, 13, 5)]), [])
            self.assertEqual(history.by_ids(unknown, [self.read(items, 13, 5)]), [])


if __name__ == "__main__":
    sys.argv = [a for a in sys.argv if a != "--full"]
    harness.main()
