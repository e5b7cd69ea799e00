"""Writes that wait for the disk, and small replies made of objects that were used before: nobody gets what belongs to another."""
import os
import shutil
import socket
import struct
import subprocess
import threading
import unittest

import harness

FLUSH_WAITS = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd);
int fdatasync(int fd)
{
	struct stat st;
	const char *mark = getenv("FLUSH_WAITS_IF");

	while (mark && !stat(mark, &st))
		usleep(1000);
	return (int)syscall(SYS_fdatasync, fd);
}
"""


def put(key, value):
    return b"PUT /v1/buckets/b/keys/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (key, len(value), value)


def connect(p, small=False):
    s = socket.socket()
    if small:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(60)
    s.connect(("127.0.0.1", p.port))
    return s


class Flush(unittest.TestCase):
    """Beside a flush that ends when the test wants it to."""

    def setUp(self):
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            self.skipTest("no C compiler")
        self.dir = harness.Dir().__enter__()
        self.addCleanup(self.dir.__exit__, None, None, None)
        with open(self.dir.file("waits.c"), "w") as f:
            f.write(FLUSH_WAITS)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self.dir.file("waits.so"), self.dir.file("waits.c")], check=True)
        self.mark = self.dir.file("mark")
        old = dict(os.environ)
        os.environ.update(LD_PRELOAD=self.dir.file("waits.so"), FLUSH_WAITS_IF=self.mark,
                          ASAN_OPTIONS=old.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
        try:
            self.p = harness.primary(self.dir, "--threads", "1")
        finally:
            os.environ.clear()
            os.environ.update(old)
        self.addCleanup(lambda: self.assertEqual(self.p.stop(), 0, self.p.log_text()))
        self.addCleanup(self.go_on)
        self.p.request("PUT", "/v1/buckets/b")
        self.p.put("b", "k", b"value")

    def hold(self):
        open(self.mark, "w").close()

    def go_on(self):
        if os.path.exists(self.mark):
            os.unlink(self.mark)

    def metric(self, name):
        text = self.p.get("/metrics").body.decode()
        return sum(float(line.split()[-1]) for line in text.split("\n") if line.startswith(name + " "))

    def await_requests(self, count):
        harness.await_true(lambda: self.metric("btsd_requests_in_flight") == count + 1, what="%d requests under way" % count)

    def test_clients_that_leave(self):
        for turn in range(10):
            self.hold()
            clients = [connect(self.p) for _ in range(20)]
            for i, s in enumerate(clients):
                s.sendall(put(b"t%d-%d" % (turn, i), b"left"))
            if turn % 2:
                self.await_requests(20)
            for s in clients:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
            self.assertEqual(self.p.value("b", "k").body, b"value")
            self.go_on()
            self.await_requests(0)
            self.assertEqual(self.p.put("b", "k", b"value").status, 200)
        harness.await_true(lambda: self.metric("btsd_connections") == 1, what="connections to end")
        self.assertEqual(self.p.value("b", "t9-19").body, b"left")

    def test_more_than_are_parked(self):
        self.hold()
        clients = [connect(self.p) for _ in range(300)]
        for i, s in enumerate(clients):
            s.sendall(put(b"m%d" % i, b"%d" % i))
        self.await_requests(300)
        for _ in range(50):
            self.assertEqual(self.p.value("b", "k").body, b"value")
        self.go_on()
        for s in clients:
            self.assertTrue(s.recv(4096).startswith(b"HTTP/1.1 201 "))
            s.close()
        for i in (0, 150, 299):
            self.assertEqual(self.p.value("b", "m%d" % i).body, b"%d" % i)

    def test_a_long_flush_beside_half_a_request(self):
        half = connect(self.p)
        whole = put(b"half", b"x" * 1000)
        half.sendall(whole[:-500])
        self.hold()
        clients = [connect(self.p) for _ in range(10)]
        for i, s in enumerate(clients):
            s.sendall(put(b"l%d" % i, b"long"))
        self.await_requests(11)
        threading.Event().wait(0.6)  # for two sweeps of the loop, of which nothing tells
        self.go_on()
        for s in clients:
            self.assertTrue(s.recv(4096).startswith(b"HTTP/1.1 201 "))
            s.close()
        half.sendall(whole[-500:])
        self.assertTrue(half.recv(4096).startswith(b"HTTP/1.1 201 "))
        half.close()


class Replies(unittest.TestCase):
    def test_bodies_of_one_size(self):
        """Replies that cannot go out yet keep their bodies while others of the same size are made."""
        with harness.Dir() as d, harness.primary(d, "--threads", "1") as p:
            p.request("PUT", "/v1/buckets/b")
            for key in "ab":
                self.assertEqual(p.put("b", key, key.encode() * 4000).status, 201)
            get = b"GET /v1/buckets/b/keys/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            readers = [connect(p, small=True) for _ in range(12)]
            count = 400
            senders = [threading.Thread(target=s.sendall, args=(get * count,)) for s in readers]
            for t in senders:
                t.start()
            for _ in range(500):
                self.assertEqual(p.value("b", "b").body, b"b" * 4000)
            for s in readers:
                file = s.makefile("rb")
                ids = set()
                for _ in range(count):
                    self.assertEqual(file.readline(), b"HTTP/1.1 200 OK\r\n")
                    head = {}
                    for line in iter(file.readline, b"\r\n"):
                        name, value = line.rstrip(b"\r\n").split(b": ", 1)
                        self.assertNotIn(name, head)
                        head[name] = value
                    self.assertEqual(file.read(int(head[b"Content-Length"])), b"a" * 4000)
                    ids.add(head[b"X-Request-Id"])
                self.assertEqual(len(ids), count)
                s.close()
            for t in senders:
                t.join()
            self.assertEqual(p.stop(), 0)

    def test_headers_are_each_reply_s_own(self):
        with harness.Dir() as d, harness.primary(d, "--threads", "1") as p, harness.Client(p.port) as c:
            for bucket, kind in (("b1", "text/one"), ("b2", "text/two")):
                p.request("PUT", "/v1/buckets/" + bucket, b'{"content_type":"%s"}' % kind.encode())
            tags = {}
            for i in range(10):
                for bucket in ("b1", "b2"):
                    reply = p.put(bucket, "k%d" % i, b"%s-%d" % (bucket.encode(), i))
                    tags[bucket, i] = reply.headers["ETag"]
            for turn in range(30):
                for (bucket, i), tag in tags.items():
                    mine = "mine-%02d-%s-%d" % (turn, bucket, i)
                    reply = c.request("GET", "/v1/buckets/%s/keys/k%d" % (bucket, i), headers={"X-Request-Id": mine})
                    self.assertEqual(reply.headers["ETag"], tag)
                    self.assertEqual(reply.headers["X-Request-Id"], mine)
                    self.assertEqual(reply.headers["Content-Type"], {"b1": "text/one", "b2": "text/two"}[bucket])
                    self.assertEqual(reply.body, b"%s-%d" % (bucket.encode(), i))
                    reply = c.request("GET", "/v1/buckets/%s/keys/k%d" % (bucket, i), headers={"If-None-Match": tag})
                    self.assertEqual((reply.status, reply.headers["ETag"], reply.body), (304, tag, b""))
            self.assertEqual(p.stop(), 0)


if __name__ == "__main__":
    unittest.main()
