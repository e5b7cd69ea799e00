"""A disk that is full and a disk that fails, under a running primary."""
import os
import shutil
import subprocess
import time
import unittest

import harness

FLUSH_FAILS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd);
int fdatasync(int fd)
{
	struct stat st;
	const char *mark = getenv("FLUSH_FAILS_IF");

	if (mark && !stat(mark, &st)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}
"""


class Disk(unittest.TestCase):
    def test_a_flush_that_fails(self):
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            self.skipTest("no C compiler")
        with harness.Dir() as d:
            with open(d.file("fails.c"), "w") as f:
                f.write(FLUSH_FAILS)
            subprocess.run([compiler, "-shared", "-fPIC", "-o", d.file("fails.so"), d.file("fails.c")], check=True)
            mark = d.file("mark")
            old = dict(os.environ)
            os.environ.update(LD_PRELOAD=d.file("fails.so"), FLUSH_FAILS_IF=mark,
                              ASAN_OPTIONS=old.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
            try:
                p = harness.primary(d)
            finally:
                os.environ.clear()
                os.environ.update(old)
            with p:
                p.request("PUT", "/v1/buckets/b")
                self.assertEqual(p.put("b", "before", b"1").status, 201)
                open(mark, "w").close()
                results = []
                harness.parallel(8, lambda i: results.append(p.put("b", "during%d" % i, b"2").status))
                self.assertEqual(results, [500] * 8)
                reply = p.get("/readyz")
                self.assertEqual((reply.status, reply.code), (503, "poisoned"))
                os.unlink(mark)  # what the disk says now is not to be trusted
                reply = p.put("b", "after", b"3")
                self.assertEqual((reply.status, reply.code), (500, "poisoned"))
                problem = p.request("POST", "/v1/buckets/b/load", b'{"key":"a","value":"b"}')
                self.assertEqual((problem.status, problem.code, problem.json()["records"]), (500, "poisoned", 0))
                self.assertEqual(p.value("b", "before").body, b"1")
                self.assertEqual(p.get("/livez").status, 200)
                p.wait_log("event=poisoned")
                self.assertEqual(p.log_text().count("event=poisoned"), 1)
                self.assertEqual(p.stop(), 0)
            with harness.primary(d) as p:
                self.assertEqual(p.value("b", "before").body, b"1")
                self.assertEqual(p.value("b", "after").status, 404)
                self.assertEqual(p.put("b", "after", b"4").status, 201)

    def test_a_damaged_value(self):
        with harness.Dir() as d:
            with harness.primary(d) as p:
                p.request("PUT", "/v1/buckets/b")
                for name in ("aa", "bb", "cc"):
                    p.put("b", name, (name.encode() + b"-good-value-") * 10000)
                self.assertEqual(p.stop(), 0)
            with open(d.file("primary.bts"), "r+b") as f:
                at = f.read().index(b"bb-good-value-" * 100) + 70000
                f.seek(at)
                f.write(b"BAD")
            with harness.primary(d) as p:
                reply = p.value("b", "bb")
                self.assertEqual((reply.status, reply.code), (500, "corrupt"), reply)
                self.assertRegex(reply.json()["detail"], r"page \d+")
                # Who runs the server is told, too: each is counted, and one a second is logged.
                p.wait_log(r'level=error event=damaged data=\S+ detail="[^"]*page \d+[^"]*" met=1\n')
                began, more = time.monotonic(), 5
                for _ in range(more):
                    self.assertEqual(p.value("b", "bb").code, "corrupt")
                self.assertIn(b"\nbtsd_damage_total %d\n" % (1 + more), p.get("/metrics").body)
                self.assertLessEqual(p.log_text().count("event=damaged"), 2 + int(time.monotonic() - began))
                self.assertEqual(p.value("b", "cc").body, b"cc-good-value-" * 10000)
                # A listing is cut in its midst, after a last line that tells why; nobody could take it for whole.
                with self.assertRaises(harness.http.client.IncompleteRead) as cut:
                    p.get("/v1/buckets/b/keys?values=1", {"Accept": "application/x-ndjson"})
                lines = [harness.json.loads(x) for x in cut.exception.partial.splitlines()]
                self.assertEqual([x.get("key") for x in lines], ["aa", None])
                self.assertEqual(lines[-1]["error"]["code"], "corrupt")
                harness.await_true(lambda: b"\nbtsd_damage_total %d\n" % (2 + more) in p.get("/metrics").body, what="its count")
                self.assertEqual(len(p.get("/v1/buckets/b/keys").json()["items"]), 3)
                self.assertEqual(p.put("b", "dd", b"new").status, 201)
                self.assertEqual(p.stop(), 0)

    def test_a_meta_page_that_is_gone(self):
        """The log tells the number under which the commit before it is served, and not that it was that commit's."""
        with harness.Dir() as d:
            with harness.primary(d) as p:
                p.request("PUT", "/v1/buckets/b")
                p.put("b", "k", b"v")
                self.assertEqual(p.stop(), 0)
            with open(d.file("primary.bts"), "r+b") as f:
                f.write(bytes(4096))
            with harness.primary(d) as p:
                told = p.wait_log(r"event=fell-back detail=\"a meta page was not valid; the last commit that is whole is served, under the number (\d+)\"")
                self.assertEqual(p.value("b", "k").body, b"v")
                self.assertEqual(p.status()["txid"], int(told[1]))
                self.assertEqual(p.stop(), 0)

    def test_a_full_disk(self):
        with harness.Dir() as d:
            small = d.file("small")
            os.mkdir(small)
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True).returncode:
                self.skipTest("mounting a small tmpfs needs root")
            try:
                self.fill(d)
            finally:
                subprocess.run(["umount", small], check=True)

    def fill(self, d):
        with harness.primary(d, data="small/p.bts") as p:
            p.request("PUT", "/v1/buckets/b")
            self.assertEqual(p.put("b", "kept", b"v" * 100000).status, 201)
            small, loads = [], []

            def write(i):
                with p.client() as c:
                    for turn in range(6 if i < 6 else 60):
                        if i >= 6:
                            small.append(c.request("PUT", "/v1/buckets/b/keys/small%d" % i, os.urandom(500)).status)
                            continue
                        body = "".join('{"key":"%d-%d-%d","value":"%s"}\n' % (i, turn, n, "v" * 900) for n in range(900))
                        reply = c.request("POST", "/v1/buckets/b/load", body.encode())
                        loads.append(reply.status)
                        if reply.status == 507:
                            self.assertEqual((reply.code, reply.json()["records"]), ("storage-full", 0))
                        there = c.request("GET", "/v1/buckets/b/keys/%d-%d-899" % (i, turn)).status
                        self.assertEqual(there, 200 if reply.status == 200 else 404)

            harness.parallel(18, write)
            self.assertEqual(set(loads), {200, 507})
            # What shares a batch with one that is too large is not refused for it.
            self.assertEqual([x for x in small if x not in (200, 201)], [])
            large = p.put("b", "large", os.urandom(3000000))
            self.assertEqual((large.status, large.code), (507, "storage-full"))
            self.assertEqual(p.value("b", "kept").body, b"v" * 100000)
            self.assertEqual(p.get("/readyz").status, 200)
            # Dropping makes room again.
            self.assertEqual(p.request("DELETE", "/v1/buckets/b").status, 204)
            self.assertEqual(p.request("PUT", "/v1/buckets/b").status, 201)
            harness.await_true(lambda: p.put("b", "again", b"w" * 400000).status in (200, 201), what="room to be found")
            self.assertEqual(p.stop(), 0)
        check = subprocess.run([harness.binary("bts"), "check", d.file("small/p.bts")], capture_output=True)
        self.assertEqual(check.returncode, 0, check)


if __name__ == "__main__":
    harness.main()
