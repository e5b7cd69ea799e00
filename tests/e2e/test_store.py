#!/usr/bin/env python3
"""Objects in a bucket: against a server of S3, and against one that answers anything.

The first is s3rver (s3/server.js), a package of npm, with signatures reckoned again by another implementation; without node, npm or the
registry these tests are skipped.  The second is in this file, and says what each request of a script gets.
"""
import concurrent.futures
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import unittest

import harness
import node_packages
from test_btsd__tls import Authority
from test_btsd__ttl import Clock

SECRET = "wJalrXUtnFEMI+not-to-be-seen"
TOKEN = "FwoGZXIvYXdzE-not-to-be-seen"


class Result:
    def __init__(self, status, out, said):
        self.status, self.out = status, out
        self.said = said.splitlines()

    @property
    def words(self):
        """Of each call: ok, or the word of its error."""
        return " ".join(line.split(":")[0].replace("io-error", "io") for line in self.said)


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BTS_"))}
    env.update(AWS_ACCESS_KEY_ID="AKID", AWS_SECRET_ACCESS_KEY=SECRET, AWS_SESSION_TOKEN=TOKEN, AWS_REGION="eu-west-3")
    # A proxy of the environment is not asked: there is none at that address.
    env.update(http_proxy="http://127.0.0.1:9", all_proxy="http://127.0.0.1:9")
    env.update(more)
    return env


class StoreCase(harness.Case):
    url = None

    def tool(self, *args, url=None, **more):
        done = subprocess.run([harness.binary("store_tool"), url or self.url] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment(**more), timeout=100)
        said = done.stderr.decode()
        self.assertFalse(SECRET in said or TOKEN in said, said)
        self.assertNotIn("Sanitizer", said)
        return Result(done.returncode, done.stdout, said)

    def object(self, data):
        path = self.dir.file("object-%d" % len(os.listdir(self.dir.path)))
        with open(path, "wb") as f:
            f.write(data)
        return path

    def expect(self, words, *args, **more):
        result = self.tool(*args, **more)
        self.assertEqual(result.words, words, result.said)
        return result


class S3(StoreCase):
    """A server of S3."""
    mode = []

    def setUp(self):
        super().setUp()
        where, why = node_packages.install("s3")
        if not where:
            self.skipTest("SKIP: " + why)
        argv = ["node", os.path.join(where, "server.js"), self.dir.file("s3"), "bucket", "eu-west-3", "AKID", SECRET] + self.mode
        self.server = harness.Server(argv, self.dir.file("s3.log"))
        self.addCleanup(self.server.kill)
        self.endpoint = self.server.url
        self.url = "s3://bucket/some/prefix?endpoint=" + self.endpoint

    def requests(self):
        return re.findall(r"^([A-Z]+) (\S+) (\d+)$", self.server.log_text(), re.M)

    def test_objects(self):
        a, b, empty = self.object(b"one"), self.object(b"two"), self.object(b"")
        self.expect("ok exists ok", "new", "d/a", a, "new", "d/a", b, "get", "d/a")
        # The first put of the second store: one request finds the rule of only_new kept.
        self.expect("ok", "put", "d/a", b)
        self.assertEqual([r for r in self.requests() if r[0] == "PUT"][-2:],
                         [("PUT", "/bucket/some/prefix/.only-new", "412"), ("PUT", "/bucket/some/prefix/d/a", "200")])
        got = self.expect("ok ok ok", "get", "d/a", "new", "empty", empty, "get", "empty")
        self.assertEqual(got.out, b"two")
        self.expect("not-found ok ok not-found", "get", "d", "delete", "d/a", "delete", "d/a", "get", "d/a")
        self.assertRegex(self.tool("get", "d/a").said[0], "^not-found: s3://bucket/some/prefix/d/a: there is no such object$")
        self.expect("ok exists", "new", "d/a", a, "new", "d/a", a)
        self.assertEqual(self.tool("list", "", "").out.split()[0::3], [b"d/a", b"empty"])
        # Another prefix, and none.
        self.assertEqual(self.tool("list", "", "", url="s3://bucket/some?endpoint=" + self.endpoint).out.split()[0::3],
                         [b"prefix/d/a", b"prefix/empty"])
        self.assertEqual(self.tool("get", "some/prefix/d/a", url="s3://bucket?endpoint=" + self.endpoint).out, b"one")
        self.assertEqual(self.tool("get", "d/a", url="s3://bucket/some/prefix/", AWS_ENDPOINT_URL=self.endpoint).out, b"one")

    def test_large(self):
        data = os.urandom(1 << 20) * 17
        self.assertEqual(self.expect("ok ok", "put", "a", self.object(data), "get", "a").out, data)

    def test_listing_by_pages(self):
        path = self.object(b"x")
        names = sorted(["a/%03d" % i for i in range(23)] + ["b/x", "c/0/0"])
        for name in names:
            self.assertEqual(self.tool("put", name, path).words, "ok")

        def keys(prefix, after):
            lines = self.expect("ok", "list", prefix, after).out.decode().splitlines()
            now = time.time() * 1000
            self.assertTrue(all(line.split()[1] == "1" and abs(now - int(line.split()[2])) < 3600e3 for line in lines), lines)
            return [line.split()[0] for line in lines]

        self.assertEqual(keys("", ""), names)
        self.assertGreaterEqual(len([r for r in self.requests() if "continuation-token" in r[1]]), 3)
        self.assertEqual(keys("a/", ""), names[:23])
        self.assertEqual(keys("a/00", "a/004"), names[5:10])
        self.assertEqual(keys("", "a/022"), names[23:])
        self.assertEqual(keys("x", ""), [])

    def test_one_winner(self):
        for i in range(4):
            path = [self.object(b"%d" % n) for n in range(4)]
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                words = list(pool.map(lambda n: self.tool("new", "race-%d" % i, path[n]).words, range(4)))
            self.assertEqual(sorted(words), ["exists", "exists", "exists", "ok"])
            self.assertEqual(self.tool("get", "race-%d" % i).out, b"%d" % words.index("ok"))

    def test_what_is_wrong_is_said(self):
        path = self.object(b"x")
        for text, more in ((r"SignatureDoesNotMatch: the secret key is not that of the access key", {"AWS_SECRET_ACCESS_KEY": "x" * 20}),
                           (r"InvalidAccessKeyId: the store does not know the access key", {"AWS_ACCESS_KEY_ID": "other"}),
                           (r"AuthorizationHeaderMalformed \(its region is eu-west-3, not us-east-2\)", {"AWS_REGION": "us-east-2"}),
                           (r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set", {"AWS_SECRET_ACCESS_KEY": ""}),
                           (r"AWS_SESSION_TOKEN is no token", {"AWS_SESSION_TOKEN": "a\r\nX-Y: z"})):
            result = self.expect("invalid", "put", "a", path, **more)
            self.assertRegex(result.said[0], "^invalid: s3://bucket/some/prefix.*" + text)
            self.assertNotIn("x" * 20, result.said[0])
        url = "s3://nobucket?endpoint=%s&region=eu-west-3" % self.endpoint
        result = self.expect("invalid invalid", "put", "a", path, "list", "", "", url=url, AWS_REGION="us-east-1")
        self.assertRegex(result.said[1], "404 NoSuchBucket: there is no such bucket")

    def test_wrong_clock(self):
        if "CLOCK_PRELOAD" not in os.environ:
            self.skipTest("SKIP: no CLOCK_PRELOAD")
        with Clock(self.dir) as clock:
            clock.set(3600)
            result = self.expect("invalid", "get", "a")
            self.assertRegex(result.said[0], "403 RequestTimeTooSkewed: this machine's clock is not the store's")


class Overwrites(S3):
    """A server that does not know If-None-Match."""
    mode = ["--overwrites"]

    def test_objects(self):
        path = self.object(b"x")
        for _ in range(2):
            result = self.expect("invalid invalid", "put", "a", path, "new", "a", path)
            self.assertRegex(result.said[0], "the store overwrites in spite of If-None-Match")
        self.assertEqual(self.expect("ok not-found", "list", "", "", "get", "a").out, b"")

    test_large = test_listing_by_pages = test_one_winner = test_what_is_wrong_is_said = test_wrong_clock = None


# Answers: bytes, and then the connection is closed; or a function of the socket.
def answer(status, body=b"", *headers, size=None):
    lines = ["HTTP/1.1 %d X" % status, "Content-Length: %d" % (len(body) if size is None else size), "Connection: close"] + list(headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(status, code, *headers):
    return answer(status, b"<Error><Code>%s</Code><Message>&lt;</Message></Error>" % code.encode(), *headers)


def endless(head, piece):
    def serve(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)
    return serve


def slowly(head, piece):
    def serve(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)
    return serve


def hang(connection):
    while connection.recv(4096):
        pass


def page(*keys, more=""):
    objects = "".join("<Contents><Key>%s</Key><Size>1</Size></Contents>" % key for key in keys)
    return answer(200, ("<ListBucketResult>" + more + objects + "</ListBucketResult>").encode())


PROBED = problem(412, "PreconditionFailed")
MISSING = problem(404, "NoSuchKey")


class Liar:
    """A server that gives the answers of a script, the last again and again, and keeps what it was asked."""

    def __init__(self, script, context=None):
        self.script, self.asked = list(script), []
        self.context = context
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection = self.listening.accept()[0]
            except OSError:
                return
            try:
                if self.context:
                    connection = self.context.wrap_socket(connection, server_side=True)
                self.serve(connection)
            except OSError:
                pass
            connection.close()

    def serve(self, connection):
        head = b""
        while b"\r\n\r\n" not in head:
            got = connection.recv(65536)
            if not got:
                return
            head += got
        head, body = head.split(b"\r\n\r\n", 1)
        size = re.search(rb"(?i)content-length: (\d+)", head)
        while size and len(body) < int(size.group(1)):
            body += connection.recv(65536)
        self.asked.append((head.decode(), body))
        what = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(what):
            what(connection)
        else:
            connection.sendall(what)

    def close(self):
        # A thread in accept does not wake by close alone.
        if self.listening.fileno() >= 0:
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()


class Faults(StoreCase):
    """A server that answers anything.  No test takes the time that the tool would be given: each has bounds of its own."""

    def liar(self, *script, **more):
        liar = Liar(script, **more)
        self.addCleanup(liar.close)
        self.url = "s3://bucket/p?endpoint=http://127.0.0.1:%d" % liar.port
        return liar

    def test_passing_faults_are_tried_again(self):
        for faults in ([problem(500, "InternalError"), problem(503, "SlowDown"), answer(429)],
                       [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"],
                       [problem(409, "ConditionalRequestConflict"), problem(400, "RequestTimeout"), answer(502, b"<html>")]):
            liar = self.liar(PROBED, *faults, answer(200))
            self.expect("ok", "put", "a", self.object(b"data"))
            self.assertEqual(len(liar.asked), 5)
            self.assertTrue(all(body == b"data" for _, body in liar.asked[1:]))

    def test_lasting_faults_are_not(self):
        for fault in (problem(403, "AccessDenied"), problem(400, "InvalidArgument"), answer(404, b"<html>"), answer(405), answer(501), answer(200, b""), b"no http"):
            liar = self.liar(fault)
            result = self.tool("list", "", "")
            self.assertIn(result.words, ("invalid", "corrupt"))
            self.assertEqual(len(liar.asked), 1)
        self.liar(answer(507))
        self.expect("full", "delete", "a")
        # Only a store that says so has no such object; not a server of another kind.
        self.liar(answer(404, b"<html>"))
        self.expect("invalid invalid", "get", "a", "delete", "a")

    def test_the_time_is_up(self):
        for ms in (400, 4000, 20000):  # all of it is gone after the first try where the machine stands still for so long
            liar = self.liar(problem(503, "SlowDown"))
            begun = time.monotonic()
            result = self.expect("io", "get", "a", STORE_RETRY_MS="%d" % ms)
            self.assertRegex(result.said[0], r"^io-error: s3://bucket/p/a: status 503 SlowDown(, %d times tried)?$" % len(liar.asked))
            if len(liar.asked) > 1 or time.monotonic() < begun + ms / 1000:
                break
        self.assertGreaterEqual(len(liar.asked), 2)
        liar.close()
        self.assertRegex(self.expect("io", "get", "a", STORE_RETRY_MS="100").said[0], "connect")

    def test_what_hangs_ends(self):
        for script in ([hang], [slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x")], [slowly(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n")]):
            self.liar(*script)
            self.expect("io", "get", "a", STORE_RETRY_MS="1", STORE_IDLE_S="1")
            self.expect("io", "list", "", "", STORE_RETRY_MS="1", STORE_TOTAL_MS="300")

    def test_what_has_no_end_ends(self):
        head = b"HTTP/1.1 %d X\r\nContent-Length: 99999999999\r\n\r\n"
        self.liar(endless(head % 200, b"x" * 65536))
        result = self.expect("corrupt corrupt", "get", "a", "list", "", "")
        self.assertLessEqual(len(result.out), 64 << 20)
        self.liar(endless(b"HTTP/1.1 200 OK\r\n", b"X-Y: %s\r\n" % (b"z" * 1000)))
        self.assertRegex(self.expect("io", "get", "a", STORE_RETRY_MS="1").said[0], "headers of the reply have no end")
        self.liar(endless(b"HTTP/1.1 200 OK\r\n", b"x" * 65536))
        self.expect("io", "get", "a", STORE_RETRY_MS="1")
        self.liar(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"))
        self.expect("io", "get", "a", STORE_RETRY_MS="1")
        self.liar(endless(head % 403, b"x" * 65536))
        self.expect("corrupt", "get", "a")
        self.liar(PROBED, endless(head % 200, b"x" * 65536))
        self.expect("corrupt", "put", "a", self.object(b"x"))
        self.liar(answer(200, size=1 << 40))
        self.expect("io", "get", "a", STORE_RETRY_MS="1")

    def test_a_body_that_was_cut_goes_on(self):
        etag = 'ETag: "1"'
        rest = answer(206, b"3456789", etag, "Content-Range: bytes 3-9/10")
        first = answer(200, b"012", etag, size=10)
        for script in ([first, rest], [first, answer(503), rest], [first, answer(200, b"0123456789", etag)],
                       [first, answer(206, b"345", etag, "Content-Range: bytes 3-9/10", size=7),
                        answer(206, b"6789", etag, "Content-Range: bytes 6-9/10")]):
            liar = self.liar(*script)
            self.assertEqual(self.expect("ok", "get", "a").out, b"0123456789")
            self.assertRegex(liar.asked[1][0], r'(?i)if-match: "1"\r\nrange: bytes=3-\r\n')
            self.assertNotIn("range", liar.asked[0][0])
        # All had come when it broke off, but for the end of the chunks.
        self.liar(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n012\r\n',
                  answer(416, b"", "Content-Range: bytes */3"))
        self.assertEqual(self.expect("ok", "get", "a").out, b"012")
        # Whether all has come could not be known.
        self.liar(b'HTTP/1.1 200 OK\r\nETag: "1"\r\n\r\n012')
        self.assertEqual(self.expect("corrupt", "get", "a").out, b"")
        self.liar(answer(206, b"012", etag, "Content-Range: bytes 0-2/10"))
        self.assertEqual(self.expect("corrupt", "get", "a").out, b"")
        # Another object by then; another range; what has no ETag.
        for word, script in (("io", [first, answer(200, b"0123456789", 'ETag: "2"')]), ("io", [first, problem(412, "PreconditionFailed")]),
                             ("io", [first, MISSING]), ("corrupt", [first, answer(206, b"456789", etag, "Content-Range: bytes 4-9/10")]),
                             ("corrupt", [first, answer(206, b"3456789", etag)]),
                              ("io", [answer(200, b"012", size=10), rest])):
            liar = self.liar(*script)
            self.assertEqual(self.expect(word, "get", "a").out, b"012")
            self.assertLessEqual(len(liar.asked), 2)

    def test_redirects_are_not_followed(self):
        other = Liar([answer(200, b"secret")])
        self.addCleanup(other.close)
        where = "Location: http://127.0.0.1:%d/" % other.port
        for status in (301, 302, 307, 308):
            self.liar(problem(status, "PermanentRedirect", where, "x-amz-bucket-region: ap-east-1"))
            result = self.expect("invalid", "get", "a")
            self.assertRegex(result.said[0], r"%d PermanentRedirect.*\(its region is ap-east-1, not eu-west-3\)" % status)
        self.assertEqual(other.asked, [])

    def test_lost_answers(self):
        """The put was done and its answer lost: what is there is our own, or another's."""
        lost, exists = b"", problem(412, "PreconditionFailed")
        for word, script in (("ok", [PROBED, lost, exists, answer(200, b"mine")]), ("exists", [PROBED, lost, exists, answer(200, b"other")]),
                             ("exists", [PROBED, lost, exists, answer(200, b"min")]), ("exists", [PROBED, lost, exists, answer(200, b"mine!")]),
                             ("exists", [PROBED, exists, answer(200, b"mine")]), ("ok", [PROBED, problem(500, "InternalError"), exists, answer(200, b"mine")])):
            self.liar(*script)
            self.expect(word, "new", "a", self.object(b"mine"))

    def test_the_probe(self):
        path = self.object(b"x")
        for word, asked, script in (("invalid", 2, [answer(200)]), ("invalid", 1, [answer(501)]), ("ok", 3, [answer(200), PROBED, answer(200)]),
                                    ("invalid", 1, [problem(403, "AccessDenied")])):
            liar = self.liar(*script)
            self.expect(word, "put", "a", path)
            self.assertEqual(len(liar.asked), asked)
            self.assertRegex(liar.asked[0][0], r"(?i)^PUT /bucket/p/\.only-new (?s:.)*if-none-match: \*")

    def test_lying_listings(self):
        token = "<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>"
        good = page("p/a", "p/b")
        self.liar(good)
        self.assertEqual(self.expect("ok", "list", "", "").out, b"a 1 0\nb 1 0\n")
        self.liar(page("p/a", "p/%2e%2e/x", "p/../x", "p//y", "p/.only-new", "p/", "p/a b", "p/a%0A", "p/%C3%A4", "p/" + "k" * 256, "p/b"))
        self.assertEqual(self.expect("ok", "list", "", "").out, b"a 1 0\nb 1 0\n")
        for script in ([page("p/b", "p/a")], [page("p/a", "p/a")], [page("q/a")], [page("a")], [good[:-5]], [answer(200, b"<html/>")],
                       [page("p/a", more=token % "x"), page("p/a")], [page(more=token % "")], [page("p/a", more=token % "x")],
                       [page("p/a", more="<IsTruncated>true</IsTruncated>")], [page(more=token % ("x" * 3000))],
                       [answer(200, b'<!DOCTYPE a [<!ENTITY a "x">]><ListBucketResult>&a;</ListBucketResult>')]):
            liar = self.liar(*script)
            result = self.tool("list", "", "", STORE_RETRY_MS="1")
            self.assertIn(result.words, ("corrupt", "io"), script)
            self.assertLess(len(liar.asked), 4)
        self.liar(page("p/a"))
        self.expect("corrupt corrupt", "list", "b", "", "list", "", "a")
        # Pages without end and without objects, each with a token of its own.
        liar = self.liar(*[page(more=token % i) for i in range(200)])
        self.expect("corrupt", "list", "", "")
        self.assertEqual(len(liar.asked), 100)

    def test_interrupted(self):
        for script in ([hang], [problem(503, "SlowDown")]):
            liar = self.liar(*script)
            child = subprocess.Popen([harness.binary("store_tool"), self.url, "get", "a", "get", "a"], stderr=subprocess.PIPE, env=environment())
            harness.await_true(lambda: liar.asked, 30, "a request")
            child.send_signal(signal.SIGTERM)
            said = child.communicate(timeout=20)[1].decode().splitlines()
            self.assertEqual(said, ["timeout: s3://bucket/p: interrupted"] * 2)

    @unittest.skipUnless(shutil.which("openssl"), "SKIP: no openssl to make certificates with")
    def test_tls(self):
        authority = Authority(self.dir)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.sign("store"))
        liar = self.liar(answer(200, b"data"), context=context)
        url = self.url.replace("http:", "https:")
        result = self.expect("invalid", "get", "a", url=url)
        self.assertRegex(result.said[0], "(?i)certificate|ssl|tls")
        self.assertEqual(liar.asked, [])
        self.assertEqual(self.expect("ok", "get", "a", url=url, AWS_CA_BUNDLE=authority.cert).out, b"data")
        self.expect("invalid", "get", "a", url=url, AWS_CA_BUNDLE=self.dir.file("none"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
