"""bts-replicator as a program: its options, and what it does when it is out of descriptors."""
import os
import resource
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
        p = harness.primary(self.dir)
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

    def test_wait_max(self):
        for text in ("0s", "199ms", "61s", "1h"):
            done = subprocess.run([harness.binary("bts-replicator"), "--data", "x", "--listen", "x:0", "--wait-max", text],
                                  stderr=subprocess.PIPE, timeout=30)
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"--wait-max", done.stderr)


if __name__ == "__main__":
    harness.main()
