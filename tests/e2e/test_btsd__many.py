"""Many clients at once, restarts, a clean stop under load, odd command lines."""
import json
import os
import socket
import subprocess
import threading
import time
import unittest

import harness


class Many(unittest.TestCase):
    def test_64_writers_read_back_what_was_acknowledged(self):
        with harness.Dir() as d, harness.primary(d, "--threads", "2") as p:
            p.request("PUT", "/v1/buckets/b")
            versions = []

            def write(i):
                with p.client() as c:
                    for n in range(20):
                        path = "/v1/buckets/b/keys/%d-%d" % (i, n)
                        put = c.request("PUT", path, b"value %d %d" % (i, n))
                        self.assertEqual(put.status, 201, put)
                        versions.append(int(put.headers["BTS-Txid"]))
                        got = c.request("GET", path)
                        self.assertEqual((got.status, got.body), (200, b"value %d %d" % (i, n)))
                        self.assertGreaterEqual(int(got.headers["BTS-Txid"]), int(put.headers["BTS-Txid"]))
                        self.assertEqual(got.headers["ETag"], put.headers["ETag"])

            harness.parallel(64, write)
            self.assertEqual(len(set(versions)), 64 * 20, "each write has a transaction of its own")
            s = p.status()
            self.assertLess(s["flushes"], s["commits"], "commits share flushes")
            self.assertEqual(p.get("/v1/buckets/b").json()["entries"], 64 * 20)

    def test_writers_loaders_and_listers_together(self):
        with harness.Dir() as d, harness.primary(d) as p:
            p.request("PUT", "/v1/buckets/b")

            def work(i):
                with p.client() as c:
                    if i < 4:
                        for n in range(5):
                            body = "".join('{"key":"l%d-%05d","value":"%s"}\n' % (i, k, "v" * 200) for k in range(3000))
                            self.assertEqual(c.request("POST", "/v1/buckets/b/load", body.encode()).status, 200)
                    elif i < 8:
                        for n in range(60):
                            self.assertIn(c.request("PUT", "/v1/buckets/b/keys/p%d" % i, os.urandom(30000)).status, (200, 201))
                    else:
                        for n in range(8):
                            reply = c.request("GET", "/v1/buckets/b/keys?values=true", None, {"Accept": "application/x-ndjson"})
                            lines = reply.body.splitlines()
                            end = json.loads(lines[-1])
                            self.assertEqual((end["end"], end["count"]), (True, len(lines) - 1))
                            keys = [json.loads(x)["key"] for x in lines[:-1]]
                            self.assertEqual(keys, sorted(keys))

            harness.parallel(12, work)
            self.assertEqual(p.get("/v1/buckets/b").json()["entries"], 4 * 3000 + 4)
            self.assertEqual(p.stop(), 0)
            check = subprocess.run([harness.binary("bts"), "check", d.file("primary.bts")], capture_output=True)
            self.assertEqual(check.returncode, 0, check)

    def test_more_than_a_batch(self):
        """Values that are together larger than what one flush takes: the rest is the next batch, in order."""
        with harness.Dir() as d, harness.primary(d) as p:
            p.request("PUT", "/v1/buckets/b")

            def write(i):
                with p.client() as c:
                    for n in range(3):
                        put = c.request("PUT", "/v1/buckets/b/keys/%d" % i, b"%d%d" % (n, i % 10) * 500000)
                        self.assertEqual(put.status, 200 if n else 201, put)

            harness.parallel(40, write)
            for i in range(40):
                self.assertEqual(p.value("b", str(i)).body, b"2%d" % (i % 10) * 500000)

    def test_keep_alive_connections_do_not_stall(self):
        """Exactly so many sockets ready at once as the library asks for was once a stall of a second."""
        with harness.Dir() as d, harness.primary(d, "--threads", "1") as p:
            p.request("PUT", "/v1/buckets/b")
            p.put("b", "k", b"x" * 100)
            for count in (127, 128, 129, 256):
                conns = [socket.create_connection(("127.0.0.1", p.port)) for _ in range(count)]
                ask = b"GET /v1/buckets/b/keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
                start = time.monotonic()
                for _ in range(10):
                    for s in conns:
                        s.sendall(ask)
                    for s in conns:
                        got = b""
                        while not got.endswith(b"x" * 100):
                            got += s.recv(4096)
                        self.assertTrue(got.startswith(b"HTTP/1.1 200"))
                took = time.monotonic() - start
                for s in conns:
                    s.close()
                # Stalled, each of the ten rounds lasts until a timeout.
                self.assertLess(took, 9, "%d connections" % count)

    def test_too_many_connections(self):
        with harness.Dir() as d:
            command = 'ulimit -n 600; exec "$0" "$@"'
            argv = ["sh", "-c", command, harness.binary("btsd"), "primary", "--data", d.file("x"), "--listen", "127.0.0.1:0",
                    "--admin-listen", "127.0.0.1:0"]
            with harness.Server(argv, d.file("log")) as p:
                p.request("PUT", "/v1/buckets/b")
                conns = []
                # 344 may be open, and 64 more while those that only wait are ended; these do not wait.
                for i in range(408):
                    conns.append(socket.create_connection(("127.0.0.1", p.port)))
                    conns[-1].sendall(b"PUT /v1/buckets/b/keys/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
                                      b"Expect: 100-continue\r\n\r\n" % i)
                    self.assertTrue(conns[-1].recv(4096).startswith(b"HTTP/1.1 100 "))
                conns += [socket.create_connection(("127.0.0.1", p.port)) for _ in range(5)]
                got = conns[-1].recv(4096)
                self.assertTrue(got.startswith(b"HTTP/1.1 503 "), got)
                self.assertEqual(json.loads(got.split(b"\r\n\r\n")[1])["code"], "too-many-connections")
                self.assertEqual(conns[-1].recv(1), b"")
                for s in conns[:408]:
                    s.sendall(b"abc")
                    self.assertTrue(s.recv(4096).startswith(b"HTTP/1.1 201 "))
                # The admin listener answers all the same.
                admin = int(p.wait_log(r"admin=127\.0\.0\.1:(\d+)").group(1))
                with harness.Client(admin) as c:
                    self.assertIn(b"btsd_connections_refused_total 5\n", c.request("GET", "/metrics").body)
                for s in conns:
                    s.close()
                harness.await_true(lambda: p.raw(b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
                                   or p.raw(b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200"), what="room again")

    def test_restart_keeps_data(self):
        with harness.Dir() as d:
            value = {str(i): os.urandom(i * 37) for i in range(100)}
            with harness.primary(d) as p:
                p.request("PUT", "/v1/buckets/b", b'{"content_type":"image/png"}')
                for k, v in value.items():
                    p.put("b", k, v)
                before = p.status()
                self.assertEqual(p.stop(), 0)
                self.assertIn("event=stopped", p.log_text())
            with harness.primary(d) as p:
                after = p.status()
                for member in ("database_id", "root_digest", "txid", "epoch"):
                    self.assertEqual(before[member], after[member], member)
                self.assertTrue(after["clean_open"])
                for k, v in value.items():
                    got = p.value("b", k)
                    self.assertEqual((got.body, got.headers["Content-Type"]), (v, "image/png"))

    def test_stop_under_load_keeps_every_promise(self):
        with harness.Dir() as d:
            promised, failed = [], []
            with harness.primary(d) as p:
                p.request("PUT", "/v1/buckets/b")

                def write(i):
                    try:
                        with p.client(20) as c:
                            for n in range(100000):
                                key = "%d-%d" % (i, n)
                                reply = c.request("PUT", "/v1/buckets/b/keys/" + key, b"v" * 500)
                                if reply.status != 201:
                                    failed.append(reply)
                                    return
                                promised.append(key)
                    except (OSError, harness.http.client.HTTPException):
                        pass  # cut off: nothing was promised

                threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
                for t in threads:
                    t.start()
                harness.await_true(lambda: len(promised) > 500, what="500 writes")
                self.assertEqual(p.stop(), 0)
                for t in threads:
                    t.join()
            self.assertEqual(failed, [])
            with harness.primary(d) as p, p.client() as c:
                for key in promised:
                    self.assertEqual(c.request("GET", "/v1/buckets/b/keys/" + key).status, 200, key)

    def is_refused(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        return False

    def test_stop_lets_a_request_under_way_end(self):
        with harness.Dir() as d, harness.primary(d) as p:
            p.request("PUT", "/v1/buckets/b")
            with socket.create_connection(("127.0.0.1", p.port), timeout=20) as s:
                s.sendall(b"PUT /v1/buckets/b/keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc")
                with p.client() as c:  # on one connection nothing of the question before is counted
                    harness.await_true(lambda: b"\nbtsd_requests_in_flight 2\n" in c.request("GET", "/metrics").body,
                                       what="the server to have seen it")
                p.signal(harness.signal.SIGTERM)
                p.wait_log("event=stopping")
                harness.await_true(lambda: self.is_refused(p.port), what="the end of listening")
                time.sleep(0.5)  # longer than idle connections are given
                s.sendall(b"def")
                got = s.recv(4096)
                self.assertTrue(got.startswith(b"HTTP/1.1 201"), got)
                self.assertIn(b"connection: close", got.lower())
            self.assertEqual(p.child.wait(20), 0)
            with harness.primary(d) as again:
                self.assertEqual(again.value("b", "k").body, b"abcdef")


class OneFile(unittest.TestCase):
    """Two servers and a tool on one file, all of them writing."""

    def test_two_servers(self):
        with harness.Dir() as d, harness.primary(d) as one:
            argv = [harness.binary("btsd"), "primary", "--data", d.file("primary.bts"), "--listen", "127.0.0.1:0"]
            with harness.Server(argv, d.file("second.log")) as two:
                self.assertEqual(two.request("PUT", "/v1/buckets/b", b"{}").status, 201)
                for i in range(50):
                    self.assertLess(one.put("b", "a%d" % i, b"one").status, 300)
                    self.assertEqual(two.value("b", "a%d" % i).body, b"one")
                    self.assertLess(two.put("b", "a%d" % i, b"two").status, 300)
                    self.assertEqual(one.value("b", "a%d" % i).body, b"two")
                # One of two creators of a key wins, whichever server they ask.
                threads, won = [], []
                for i in range(40):
                    threads.append(threading.Thread(target=lambda s, k: won.append(
                        s.put("b", k, b"x", {"If-None-Match": "*"}).status), args=((one, two)[i % 2], "new%d" % (i // 2))))
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
                self.assertEqual(sorted(s for s in won if s >= 300), [412] * 20)
                got = subprocess.run([harness.binary("bts"), "put", d.file("primary.bts"), "b", "tool", "3"], timeout=60)
                self.assertEqual(got.returncode, 0)
                self.assertEqual(two.value("b", "tool").body, b"3")
            self.assertEqual(subprocess.run([harness.binary("bts"), "check", d.file("primary.bts")], timeout=60).returncode, 0)


class CommandLine(unittest.TestCase):
    def run_btsd(self, *args):
        return subprocess.run([harness.binary("btsd")] + list(args), capture_output=True, text=True, timeout=20)

    def test_help_and_version(self):
        self.assertIn("Usage: btsd", self.run_btsd("--help").stdout)
        self.assertRegex(self.run_btsd("--version").stdout, r"^btsd \d+\.\d+\.\d+\n$")
        self.assertEqual(self.run_btsd("--help").returncode, 0)

    def test_usage_errors(self):
        good = ["--data", "/nonexistent/x", "--listen", "127.0.0.1:0"]
        for args, word in (([], "primary"), (["king"] + good, "king"), (["primary"], "--data"), (["primary", "--data", "x"], "--listen"),
                           (["primary", "--colour", "red"] + good, "colour"), (["primary", "extra"] + good, "extra"),
                           (["follower"] + good, "--from"), (["primary", "--from", "http://x"] + good, "--from"),
                           (["follower", "--from", "ftp://x"] + good, "http://"), (["primary", "--threads", "0"] + good, "--threads"),
                           (["primary", "--threads", "x"] + good, "--threads"), (["primary", "--max-body", "-1"] + good, "--max-body"),
                           (["primary", "--log-format", "xml"] + good, "xml"), (["primary", "--name", "a b"] + good, "a b"),
                           (["primary", "--data", "x", "--listen", "0.0.0.0:0"], "loopback"),
                           (["primary", "--data", "x", "--listen", "[::]:0"], "loopback"),
                           (["primary", "--data", "x", "--listen", "192.0.2.1:80"], "loopback"),
                           (["primary", "--data", "x", "--listen", "example.org:80"], "numeric"),
                           (["primary", "--data", "x", "--listen", "127.0.0.1"], "HOST:PORT"),
                           (["primary", "--data", "x", "--listen", "127.0.0.1:70000"], "HOST:PORT"),
                           (["primary", "--admin-listen", "0.0.0.0:0"] + good, "loopback")):
            got = self.run_btsd(*args)
            self.assertEqual(got.returncode, 2, (args, got))
            self.assertIn(word, got.stderr, args)

    def test_failures(self):
        with harness.Dir() as d:
            got = self.run_btsd("primary", "--data", "/nonexistent/x", "--listen", "127.0.0.1:0")
            self.assertEqual(got.returncode, 1, got)
            self.assertIn("/nonexistent/x", got.stderr)
            with open(d.file("text"), "w") as f:
                f.write("this is not a database\n" * 10000)
            got = self.run_btsd("primary", "--data", d.file("text"), "--listen", "127.0.0.1:0")
            self.assertEqual(got.returncode, 1, got)
            self.assertIn("event=open-failed", got.stderr)
            with harness.primary(d) as p:
                got = self.run_btsd("primary", "--data", d.file("other"), "--listen", "127.0.0.1:%d" % p.port)
                self.assertEqual(got.returncode, 1, got)
                self.assertIn("in use", got.stderr)

    def test_json_log_and_ipv6(self):
        with harness.Dir() as d:
            argv = [harness.binary("btsd"), "primary", "--data", d.file("x"), "--listen", "[::1]:0", "--log-format", "json"]
            with harness.Process(argv, d.file("log"), ready=r'"event":"ready".*"listen":"\[::1\]:(\d+)"') as p:
                self.assertEqual(p.stop(), 0)
                events = [json.loads(line) for line in p.log_text().splitlines()]
            self.assertEqual([e["event"] for e in events], ["ready", "stopping", "stopped"])
            self.assertEqual(events[0]["pid"], p.pid)


if __name__ == "__main__":
    harness.main()
