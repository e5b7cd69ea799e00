"""A C program that uses only the library, with bts-replicator beside it: replicated like everything else, also when it is killed."""
import queue
import subprocess
import threading
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


class Embedded(unittest.TestCase):
    def setUp(self):
        self.dir = harness.Dir().__enter__()
        self.addCleanup(self.dir.__exit__, None, None, None)
        self.path = self.dir.file("primary.bts")

    def started(self, server):
        self.addCleanup(lambda: server.alive() and self.assertEqual(server.stop(), 0, server.log_text()))
        return server

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


if __name__ == "__main__":
    harness.main()
