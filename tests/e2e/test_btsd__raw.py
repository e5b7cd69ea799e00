"""Bytes that no client library would send: request smuggling, odd targets, slow and endless requests."""
import json
import re
import socket
import time
import unittest

import harness


def status_of(reply):
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else None


# Probes: (name, bytes, statuses that are right).  None: closed without an answer.  %(get)s and %(put)s are requests, their line
# ends included; what follows INNER would, taken for a request of its own, make the key "smuggled".
GET = "GET /v1/buckets/b/keys/k HTTP/1.1\r\nHost: localhost\r\n"
PUT = "PUT /v1/buckets/b/keys/probe HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = PUT + "Transfer-Encoding: chunked\r\n\r\n"
INNER = "PUT /v1/buckets/b/keys/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
LIVE = "GET /livez HTTP/1.1\r\nHost: localhost\r\n"
PROBES = (
    # Heads that another party may cut into lines or fields elsewhere.
    ("folded line", GET + "X-A: a\r\n b\r\n\r\n", (400,)),
    ("folded coding", PUT + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + INNER, (400,)),
    ("folded length", PUT + "Content-Length:\r\n 5\r\n\r\nhello" + INNER, (400,)),
    ("folded request line", "GET /livez HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n", (400,)),
    ("bare line feeds", GET.replace("\r\n", "\n") + "\n", (400,)),
    ("line feed in a value", PUT + "X: a\nContent-Length: 5\r\n\r\nhello" + INNER, (400,)),
    ("line feed before the body", GET + "X: a\r\n\n", (400,)),
    ("return in a value", PUT + "X: a\rContent-Length: 5\r\n\r\nhello" + INNER, (400,)),
    ("zero in a value", GET.replace("localhost", "localhost\0evil") + "\r\n", (400,)),
    ("zero after a length", PUT + "Content-Length: 5\0\r\n\r\nhello" + INNER, (400,)),
    ("zero after the last value", GET + "X: a\0\r\n\r\n", (400,)),
    ("zero in a name", GET + "X\0Y: 1\r\n\r\n", (400,)),
    ("zero in the target", GET.replace("keys/k", "keys/k\0x") + "\r\n", (400,)),
    ("no colon", GET + "Nonsense\r\n\r\n", (400,)),
    ("space before the colon", GET + "X : y\r\n\r\n", (400,)),
    # Lengths.
    ("two lengths in one", PUT + "Content-Length: 5 6\r\n\r\nhello" + INNER, (400,)),
    ("length and space", PUT + "Content-Length: 5 \r\n\r\nhello", (400,)),
    ("length after a tab", PUT + "Content-Length:\t5\r\n\r\nhello", (200, 201)),
    ("length without end", PUT + "Content-Length: 18446744073709551616\r\n\r\nhello" + INNER, (400, 413)),
    # Chunks.
    ("extension", CHUNKED + "5;a=b\r\nhello\r\n0\r\n\r\n", (200, 201)),
    ("size beyond 64 bits", CHUNKED + "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n" + INNER, (400, 413)),
    ("size of 64 bits", CHUNKED + "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n" + INNER, (400, 413, None)),
    ("size that wraps to 5", CHUNKED + "10000000000000005\r\nhello\r\n0\r\n\r\n" + INNER, (400, 413)),
    ("0x", CHUNKED + "0x5\r\nhello\r\n0\r\n\r\n" + INNER, (400,)),
    ("plus", CHUNKED + "+5\r\nhello\r\n0\r\n\r\n" + INNER, (400,)),
    ("minus", CHUNKED + "-5\r\nhello\r\n0\r\n\r\n" + INNER, (400,)),
    ("no size", CHUNKED + "\r\nhello\r\n0\r\n\r\n" + INNER, (400,)),
    ("space before the size", CHUNKED + " 5\r\nhello\r\n0\r\n\r\n" + INNER, (400,)),
    ("no end of a chunk", CHUNKED + "5\r\nhello0\r\n\r\n" + INNER, (400,)),
    ("endless size", CHUNKED + "0" * 100000, (400, 413, None)),
    ("length in a trailer", CHUNKED + "0\r\nContent-Length: 50\r\n\r\n", (200, 201)),
    ("endless trailers", CHUNKED + "0\r\n" + "A: b\r\n" * 20000 + "\r\n", (400, 431, None)),
    # The library takes a bare line feed for the end of a line of chunks, which a proxy may not: nothing after such a body is a request.
    ("sound chunks", CHUNKED + "5\r\nhello\r\n0\r\n\r\n" + INNER, (200, 201)),
    ("line feed after a size", CHUNKED + "5\nhello\r\n0\r\n\r\n" + INNER, (200, 201, 400)),
    ("line feed in an extension", CHUNKED + "5;a\nhello\r\n0\r\n\r\n" + INNER, (200, 201, 400)),
    ("line feed after the data", CHUNKED + "5\r\nhello\n0\r\n\r\n" + INNER, (200, 201, 400)),
    ("line feed after the last size", CHUNKED + "5\r\nhello\r\n0\n\r\n" + INNER, (200, 201, 400)),
    ("line feed at the end", CHUNKED + "5\r\nhello\r\n0\r\n\n" + INNER, (200, 201, 400)),
    ("line feed in a trailer", CHUNKED + "5\r\nhello\r\n0\r\nA: b\n\n" + INNER, (200, 201, 400)),
    ("return after a size", CHUNKED + "5\rhello\r\n0\r\n\r\n" + INNER, (200, 201, 400)),
    ("chunks in HTTP/1.0", CHUNKED.replace("HTTP/1.1", "HTTP/1.0") + "0\r\n\r\n" + INNER, (400,)),
    ("quoted coding", PUT + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + INNER, (400,)),
    ("coding with a parameter", PUT + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n" + INNER, (400,)),
    ("coding with a tab", PUT + "Transfer-Encoding:\tchunked\t\r\n\r\n0\r\n\r\n" + INNER, (400,)),
    ("body of a GET", GET + "Content-Length: %d\r\n\r\n" % len(INNER) + INNER, (200,)),
    ("chunks of a GET", GET + "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER), (200,)),
    # Request lines.
    ("small version", LIVE.replace("HTTP", "http") + "\r\n", (400,)),
    ("HTTP/1.10", LIVE.replace("1.1", "1.10") + "\r\n", (400, 505)),
    ("HTTP/2.0", LIVE.replace("1.1", "2.0") + "\r\n", (505,)),
    ("HTTP/0.9", "GET /livez\r\n\r\n", (400, None)),
    ("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", (400, 505)),
    ("small method", LIVE.replace("GET", "get") + "\r\n", (405,)),
    ("long method", "G" * 5000 + LIVE[3:] + "\r\n", (405, 414, 431)),
    ("odd method", "G(E)T" + LIVE[3:] + "\r\n", (400, 405)),
    ("tabs", LIVE.replace(" ", "\t", 2) + "\r\n", (400, None)),
    ("space at the end", LIVE.replace("1.1\r", "1.1 \r") + "\r\n", (400,)),
    ("space at the begin", " " + LIVE + "\r\n", (400, None)),
    ("empty lines before", "\r\n\r\n" + LIVE + "\r\n", (200,)),
    ("a byte above ASCII", GET.replace("keys/k", "keys/\xff") + "\r\n", (400,)),
    ("dots", GET.replace("buckets/b/keys/k", "buckets/../status") + "\r\n", (404,)),
    ("dots, encoded", GET.replace("/b/", "/%2e%2e/") + "\r\n", (404,)),
    ("slashes", GET.replace("/v1/", "//v1//") + "\r\n", (404,)),
    ("authority", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", (400,)),
    ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", (400,)),
    ("trace", LIVE.replace("GET", "TRACE") + "\r\n", (405,)),
    # Fields.
    ("host with a space", GET.replace("localhost", "local host") + "\r\n", (400, 421)),
    ("two hosts in one", GET.replace("localhost", "localhost,evil") + "\r\n", (400, 421)),
    ("host with a user", GET.replace("localhost", "evil@localhost") + "\r\n", (400, 421)),
    ("empty host", GET.replace("localhost", "") + "\r\n", (400, 421)),
    ("two origins", GET + "Origin: http://localhost\r\nOrigin: http://localhost\r\n\r\n", (400,)),
    ("odd expectation", PUT + "Expect: everything\r\nContent-Length: 5\r\n\r\nhello", (200, 201, 417)),
    ("upgrade", LIVE + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", (200,)),
    ("hop by hop host", LIVE + "Connection: close, keep-alive, Host\r\n\r\n", (200,)),
    ("many fields", LIVE + "".join("X-%d: y\r\n" % i for i in range(5000)) + "\r\n", (400, 413, 431, None)),
    ("many parameters", LIVE.replace("livez", "livez?" + "a&" * 3000) + "\r\n", (400,)),
    ("empty parameters", LIVE.replace("livez", "livez?" + "&" * 7000) + "\r\n", (200, 400)),
    ("parameters behind a zero", LIVE.replace("livez", "livez\0?" + "&" * 7000) + "\r\n", (400, 431, None)),
    ("long name", LIVE + "X" * 60000 + ": y\r\n\r\n", (400, 413, 431, None)),
    ("a handshake of TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 300, (400, None)),
)


class Raw(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = harness.Dir().__enter__()
        cls.p = harness.primary(cls.dir)
        cls.p.request("PUT", "/v1/buckets/b")
        cls.p.put("b", "k", b"value")

    @classmethod
    def tearDownClass(cls):
        status = cls.p.stop()
        cls.dir.__exit__(None, None, None)
        assert status == 0

    def send(self, text, timeout=20):
        return self.p.raw(text.encode("latin-1"), timeout)

    def refused(self, text):
        """Answered with an error, or closed; what follows is never taken for a request of its own."""
        got = self.send(text, 2)
        self.assertIn(status_of(got), (400, 413, 414, 431, 501, 505, None), (text, got))
        self.assertNotIn(b"HTTP/1.1 2", got, text)
        self.assertNotIn(b"HTTP/1.1 404", got, text)
        return got

    def test_smuggling(self):
        inner = "GET /v1/buckets/b/keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
        put = "PUT /v1/buckets/b/keys/smuggled HTTP/1.1\r\nHost: localhost\r\n"
        for headers, body in (
                ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
                ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
                ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
                ("Content-Length : 5\r\n", "hello"),
                ("Content-Length: +5\r\n", "hello"),
                ("Content-Length: 5,5\r\n", "hello"),
                ("Content-Length: 0x5\r\n", "hello"),
                ("Content-Length: -1\r\n", ""),
                ("Content-Length: 99999999999999999999999\r\n", ""),
                ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
                ("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
                ("Host: y\r\n", ""),
                ("Authorization: a\r\nAuthorization: b\r\n", ""),
                ("Bad Name: 1\r\n", ""),
        ):
            self.refused(put + headers + "\r\n" + body + inner)
        self.assertEqual(self.p.value("b", "smuggled").status, 404)

    def test_targets(self):
        for target in ("http://x/v1/buckets/b/keys/k", "x:80", "*", "/v1/buckets/b/keys/k#f", "/v1/buckets/b/keys/%"):
            got = self.send("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
            self.assertEqual(status_of(got), 400, (target, got))
            self.assertIn(b"application/problem+json", got)
        self.refused("CONNECT x:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.refused("GET /livez?a=b c HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def in_flight(self):
        return int(re.search(r"^btsd_requests_in_flight (\d+)$", self.p.get("/metrics").body.decode(), re.M).group(1))

    def test_queries_of_many_parameters(self):
        """The library has a record for each, and no place for those of these."""
        for query, status in (("&" * 300, 200), ("&" * 5000, 200), ("a=1&" * 300, 400), ("a=1&" * 3000, 400)):
            got = self.send("GET /livez?%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % query)
            self.assertEqual(status_of(got), status, (query[:10], got))
        for _ in range(20):
            self.send("GET /livez\0?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % ("a=1&" * 300), 0.01)
        harness.await_true(lambda: self.in_flight() == 1, what="the end of all but this one")

    def test_what_is_done_is_answered(self):
        """Heads up to the limit and beyond, long and of many fields: what is stored was told, what was not told is not stored."""
        seen = set()
        heads = ["X-Pad: %s\r\n" % ("a" * n) for n in list(range(9000, 16000, 700)) + list(range(16000, 26000, 250))]
        heads += ["".join("X%d: y\r\n" % i for i in range(n)) for n in list(range(10, 100, 9)) + list(range(100, 700, 29))]
        heads += ["Cookie: %s\r\n" % ("a=b;" * n) for n in range(10, 3000, 90)]
        heads += ["X-Pad: %s\r\nCookie: %s\r\n" % ("a" * n, ("a=%s;" % ("b" * 50)) * 130) for n in range(1000, 2800, 60)]
        for i, head in enumerate(heads):
            got = self.send("PUT /v1/buckets/b/keys/head%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n%s\r\nhello" %
                            (i, head))
            seen.add(status_of(got))
            self.assertIn(status_of(got), (201, 431, None), got)
            self.assertEqual(self.p.value("b", "head%d" % i).status, 200 if status_of(got) == 201 else 404, (head[:20], len(head)))
            if len(head) < 16000 and len(head) + 64 * head.count("\n") < 17500 and head.count("\n") < 93 and "Cookie" not in head:
                self.assertEqual(status_of(got), 201, (head[:20], len(head)))
        self.assertLessEqual({201, 431}, seen)
        for n in list(range(0, 180, 30)) + list(range(180, 270)):  # behind the body
            got = self.send("PUT /v1/buckets/b/keys/trailer%d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nX-Pad: %s\r\n\r\n5\r\nhello\r\n0\r\n%s\r\n" %
                            (n, "a" * 8000, "X: y\r\n" * n))
            self.assertIn(status_of(got), (201, 400, 431, None), got)
            self.assertEqual(self.p.value("b", "trailer%d" % n).status, 200 if status_of(got) == 201 else 404, n)
        for n in (50, 90, 100, 200):  # a Location of 3 KiB
            with self.subTest(n):
                got = self.send("PUT /v1/buckets/b/keys/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n%s\r\nhello" %
                                ("%ff" * 1024, "".join("X%d: y\r\n" % i for i in range(n))))
                self.assertIn(status_of(got), (200, 201, 431))
        harness.await_true(lambda: self.in_flight() == 1, what="the end of all but this one")

    def test_nul_and_slash_are_data(self):
        self.p.put("b", b"cut\0here", b"nul")
        self.p.put("b", b"cut/here", b"slash")
        self.p.put("b", b"cut", b"short")
        for part, want in (("cut%00here", b"nul"), ("cut%2Fhere", b"slash"), ("cut%2fhere", b"slash"), ("cut", b"short")):
            got = self.send("GET /v1/buckets/b/keys/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % part)
            self.assertTrue(got.endswith(b"\r\n\r\n" + want), got)
        got = self.send("GET /livez%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        self.assertEqual(status_of(got), 404)

    def exchange(self, port, data, silence=None):
        """The statuses of the answers, or [None] when it was closed without; a probe that hangs fails, unless silence is fine: "after" the
        first bytes, or "always"."""
        with socket.create_connection(("127.0.0.1", port), timeout=0.4 if silence == "always" else 30) as s:
            got = b""
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        break
                    got += piece
                    if silence:
                        s.settimeout(0.4)
            except socket.timeout:
                self.assertTrue(silence == "always" or got and silence)
            except OSError:
                pass  # reset
        return [int(m) for m in re.findall(rb"(?m)^HTTP/1\.[01] (\d{3}) ", got) if m != b"100"] or [None]

    def test_probes(self):
        for name, text, right in PROBES:
            statuses = self.exchange(self.p.port, text.encode("latin-1"))
            self.assertIn(statuses[0], right, name)
            if INNER in text:
                self.assertEqual(len([x for x in statuses if x and x < 400]), statuses[0] in (200, 201), (name, statuses))
            self.assertEqual(self.p.value("b", "smuggled").status, 404, name)
        self.assertEqual(self.p.get("/livez").status, 200)

    def test_probes_of_the_replication(self):
        """The same bytes at the other server: an answer or the end (some at its idle limit only), and it lives."""
        r = harness.replicator(self.dir)
        self.addCleanup(r.stop)
        for name, text, right in PROBES:
            text = text.replace("/v1/buckets/b/keys/k", "/v1/replication/position").replace("/v1/buckets/b/keys/probe", "/v1/replication/pages")
            statuses = self.exchange(r.port, text.encode("latin-1"), "always" if None in right else "after")
            if right == (400,):
                self.assertNotIn(200, statuses, name)
            self.assertIn(statuses[0], right + (200, 400, 404, 405), name)
        self.assertEqual(r.get("/livez").status, 200)

    def test_host(self):
        self.refused("GET /livez HTTP/1.1\r\n\r\n")
        got = self.send("GET /livez HTTP/1.0\r\n\r\n")
        self.assertIn(b" 200 ", got)

    def test_nonsense(self):
        for text in ("\r\n\r\n\r\n", "nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
                     "\0\0\0\0\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            self.refused(text)

    def test_huge_heads(self):
        self.refused("GET /livez?" + "a" * 100000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.refused("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Large: " + "a" * 100000 + "\r\n\r\n")
        self.refused("GET /livez HTTP/1.1\r\nHost: localhost\r\n" + "X-Many: 1\r\n" * 20000 + "\r\n")
        self.assertEqual(self.p.get("/livez").status, 200)

    def test_pipelining(self):
        one = "GET /v1/buckets/b/keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        put = "PUT /v1/buckets/b/keys/piped HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
        got = self.send(one * 10 + put + one * 10 + last)
        self.assertEqual(got.count(b"HTTP/1.1 200 "), 21)
        self.assertEqual(got.count(b"HTTP/1.1 201 "), 1)
        self.assertEqual(self.p.value("b", "piped").body, b"abc")

    def test_bytes_one_at_a_time(self):
        text = b"PUT /v1/buckets/b/keys/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow"
        with socket.create_connection(("127.0.0.1", self.p.port), timeout=10) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(text)):
                s.sendall(text[i:i + 1])
            got = b""
            while True:
                piece = s.recv(4096)
                if not piece:
                    break
                got += piece
        self.assertEqual(status_of(got), 201)
        self.assertEqual(self.p.value("b", "slow").body, b"slow")

    def test_cut_bodies_change_nothing(self):
        # Often, as it matters whether the last bytes and the end arrive together.
        for text in ("PUT /v1/buckets/b/keys/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nonly this",
                     "PUT /v1/buckets/b/keys/cut HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort") * 40:
            with socket.create_connection(("127.0.0.1", self.p.port), timeout=10) as s:
                s.sendall(text.encode())
        harness.await_true(lambda: "btsd_connections 1\n" in self.p.get("/metrics").body.decode(), what="the cut ones to end")
        self.assertEqual(self.p.value("b", "cut").status, 404)

    def test_a_reader_that_leaves_lets_its_snapshot_go(self):
        self.p.put("b", "large", b"x" * (8 << 20))
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", self.p.port), timeout=10) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.sendall(b"GET /v1/buckets/b/keys/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertTrue(s.recv(100))
        harness.await_true(lambda: self.p.status()["readers"] == 0, what="the snapshots to go")

    def test_expect_continue(self):
        with socket.create_connection(("127.0.0.1", self.p.port), timeout=10) as s:
            s.sendall(b"PUT /v1/buckets/b/keys/exp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100"))
            s.sendall(b"abc")
            self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 201"))
        got = self.send("PUT /v1/buckets/b/keys/exp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n"
                        "Expect: 100-continue\r\n\r\n")
        self.assertEqual(status_of(got), 413)

    def test_endless_body_is_refused_at_once(self):
        start = time.monotonic()
        got = self.send("PUT /v1/buckets/b/keys/endless HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n" + "x" * 100, 10)
        self.assertEqual(status_of(got), 413)
        self.assertLess(time.monotonic() - start, 9)

    def gauge(self, name):
        return int(re.search(r"^%s (\d+)$" % name, self.p.get("/metrics").body.decode(), re.M).group(1))

    def load(self, pieces):
        """A chunked load of these pieces."""
        with self.p.client() as c:
            c.http.request("POST", "/v1/buckets/b/load", iter(pieces), encode_chunked=True)
            reply = c.http.getresponse()
            return reply.status, json.loads(reply.read())

    def test_a_load_line_has_a_limit(self):
        head, tail = b'{"key":"long","value":"', b'"}'
        longest = head + b"v" * ((8 << 20) - len(head) - len(tail)) + tail
        self.assertEqual(self.load([longest, b"\n"])[1]["records"], 1)
        for rest in ([longest, b" \n"], [longest] * 4):
            status, problem = self.load([b'{"key":"a","value":"b"}\n'] + rest)
            self.assertEqual((status, problem["code"], problem["line"]), (413, "line-too-long", 2))
        harness.await_true(lambda: self.gauge("btsd_body_bytes") == 0, what="the lines to be let go")

    def test_a_load_in_many_small_chunks(self):
        # The next chunk is there already when a commit begins, and waits for its end.
        self.p.request("PUT", "/v1/buckets/chunked")
        lines = [b'{"key":"%05d","value":"v%d"}\n' % (i, i) for i in range(5000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"
        got = self.p.raw(b"POST /v1/buckets/chunked/load HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n" + body)
        self.assertEqual(status_of(got), 200, got)
        self.assertIn(b'{"records":5000,"lines":5000,"commits":5,', got)
        items = self.p.get("/v1/buckets/chunked/keys?values=1&limit=10000").json()["items"]
        self.assertEqual([(x["key"], x["value"]) for x in items], [("%05d" % i, "v%d" % i) for i in range(5000)])

    def test_held_lines_count_as_bodies(self):
        with socket.create_connection(("127.0.0.1", self.p.port), timeout=10) as s:
            s.sendall(b"POST /v1/buckets/b/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 3000000)
            harness.await_true(lambda: self.gauge("btsd_body_bytes") >= 3000000, 10, "the line to be counted")
        harness.await_true(lambda: self.gauge("btsd_body_bytes") == 0, 10, "the line to be let go")

    def test_a_bad_line_is_told_however_much_follows(self):
        good = b"".join(b'{"key":"t%d","value":"v"}\n' % i for i in range(1000))
        status, reply = self.load([good, b"bad\n"] + [b"x" * (1 << 20)] * 260)
        self.assertEqual((status, reply["code"], reply["line"], reply["records"]), (400, "malformed-json", 1001, 1000))


if __name__ == "__main__":
    harness.main()
