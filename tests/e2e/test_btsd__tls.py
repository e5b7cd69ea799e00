"""TLS end to end: servers with certificates of a CA made here, clients with and without their own, followers over it, certificates
renewed while it serves, addresses that others could reach; connections by the thousand that say little.

Needs the program openssl; without it: SKIP.
"""
import http.client
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import unittest
import warnings

import harness


class Authority:
    """A CA in a directory, and what it signs."""

    def __init__(self, where, name="ca"):
        self.where, self.name, self.cert = where, name, where.file(name + ".pem")
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=" + name,
                 "-keyout", where.file(name + ".key"), "-out", self.cert)

    def run(self, *args):
        subprocess.run(("openssl",) + args, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)

    def sign(self, name, days="30", usage="serverAuth,clientAuth"):
        """(certificate, key) for localhost."""
        cert, key, request, extra = (self.where.file(name + end) for end in (".pem", ".key", ".csr", ".ext"))
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name, "-keyout", key, "-out", request)
        with open(extra, "w") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n" % usage)
        self.run("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.where.file(self.name + ".key"), "-CAcreateserial",
                 "-days", days, "-extfile", extra, "-out", cert)
        os.chmod(key, 0o600)
        return cert, key


def token(path, *args):
    done = subprocess.run([harness.binary("btsd"), "token", "create", "--token-file", path] + list(args), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=30, check=True)
    return done.stdout.decode().strip()


def bearer(text):
    return {"Authorization": "Bearer " + text}


@unittest.skipUnless(shutil.which("openssl"), "SKIP: no openssl to make certificates with")
class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = harness.Dir().__enter__()
        cls.ca = Authority(cls.dir)
        cls.other = Authority(cls.dir, "other")
        cls.node = cls.ca.sign("node")
        cls.client = cls.ca.sign("client", usage="clientAuth")
        cls.server_only = cls.ca.sign("server_only", usage="serverAuth")
        cls.stranger = cls.other.sign("stranger")
        cls.tokens = cls.dir.file("tokens")
        cls.admin = bearer(token(cls.tokens, "--scope", "admin"))

    @classmethod
    def tearDownClass(cls):
        cls.dir.__exit__(None, None, None)

    def started(self, server):
        server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        return server

    def secure(self, *more):
        return ("--tls-cert", self.node[0], "--tls-key", self.node[1], "--token-file", self.tokens) + more

    def primary(self, *more, name="p"):
        p = self.started(harness.primary(self.dir, *self.secure("--replication-listen", "127.0.0.1:0", *more), data=name + ".bts"))
        p.frames = "https://127.0.0.1:" + re.search(r"replication=127\.0\.0\.1:(\d+)", p.log_text()).group(1)
        return p

    def context(self, client=None, ca=None):
        c = ssl.create_default_context(cafile=ca or self.ca.cert)
        if client:
            c.load_cert_chain(*client)
        return c

    def ask(self, port, method, target, body=None, headers=None, client=None, context=None):
        h = http.client.HTTPSConnection("localhost", port, timeout=20, context=context or self.context(client))
        try:
            h.request(method, target, body, headers or {})
            r = h.getresponse()
            return harness.Reply(r, r.read())
        finally:
            h.close()

    def test_requests(self):
        p = self.primary("--admin-listen", "127.0.0.1:0")
        admin_port = int(re.search(r"admin=127\.0\.0\.1:(\d+)", p.log_text()).group(1))
        self.assertEqual(self.ask(p.port, "GET", "/livez").status, 200)
        self.assertEqual(self.ask(admin_port, "GET", "/livez").status, 200)
        self.assertEqual(self.ask(p.port, "GET", "/v1/status").status, 401)
        self.assertEqual(self.ask(p.port, "PUT", "/v1/buckets/b", None, self.admin).status, 201)
        large = os.urandom(3 << 20)
        self.assertEqual(self.ask(p.port, "PUT", "/v1/buckets/b/keys/large", large, self.admin).status, 201)
        self.assertEqual(self.ask(p.port, "GET", "/v1/buckets/b/keys/large", None, self.admin).body, large)
        records = b"".join(b'{"key":"%05d","value":"%d"}\n' % (i, i) for i in range(5000))
        self.assertEqual(self.ask(p.port, "POST", "/v1/buckets/b/load", records, self.admin).status, 200)
        listed = self.ask(p.port, "GET", "/v1/buckets/b/keys?values=1", None, dict(self.admin, Accept="application/x-ndjson"))
        self.assertEqual(listed.body.count(b"\n"), 5002)
        # In the clear, an old version, a server that the client does not know.
        self.assertNotIn(b"HTTP/1.1 2", p.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 3))
        old = self.context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        for bad in (old, self.context(ca=self.other.cert)):
            with self.assertRaises(ssl.SSLError):
                self.ask(p.port, "GET", "/livez", context=bad)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            c = self.context()
            c.minimum_version = c.maximum_version = version
            self.assertEqual(self.ask(p.port, "GET", "/livez", context=c).status, 200)
        # Replication is elsewhere.
        got = self.ask(p.port, "GET", "/v1/replication/position", None, self.admin)
        self.assertEqual((got.status, got.code), (421, "misdirected"))
        frames = int(p.frames.rsplit(":", 1)[1])
        self.assertEqual(self.ask(frames, "GET", "/v1/replication/position").status, 401)
        self.assertEqual(self.ask(frames, "GET", "/v1/replication/position", None, self.admin).status, 200)

    def test_many_clients(self):
        p = self.primary(name="many")
        self.ask(p.port, "PUT", "/v1/buckets/b", None, self.admin)

        def run(i):
            h = http.client.HTTPSConnection("localhost", p.port, timeout=30, context=self.context())
            for k in range(50):
                h.request("PUT", "/v1/buckets/b/keys/%d-%d" % (i, k), b"x" * (k * 100), self.admin)
                self.assertEqual(self.read(h).status, 201)
                h.request("GET", "/v1/buckets/b/keys/%d-%d" % (i, k), headers=self.admin)
                self.assertEqual(self.read(h).body, b"x" * (k * 100))
            h.close()

        harness.parallel(16, run)

    @staticmethod
    def read(h):
        r = h.getresponse()
        return harness.Reply(r, r.read())

    def test_client_certificates(self):
        p = self.primary("--client-ca", self.ca.cert, "--client-scope", "read", name="cc")
        self.ask(p.port, "PUT", "/v1/buckets/b", None, self.admin)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for client, status in ((None, 401), (self.client, 200), (self.node, 200), (self.stranger, 401), (self.server_only, 401)):
                c = self.context(client)
                c.minimum_version = c.maximum_version = version
                got = self.ask(p.port, "GET", "/v1/buckets", context=c)
                self.assertEqual(got.status, status, client)
                self.assertEqual(self.ask(p.port, "PUT", "/v1/buckets/x", context=c).status, 403 if status == 200 else 401)
        # A token counts before the certificate, also a wrong one.
        self.assertEqual(self.ask(p.port, "PUT", "/v1/buckets/b", None, self.admin, client=self.client).status, 200)
        self.assertEqual(self.ask(p.port, "GET", "/v1/buckets", None, bearer("bts_" + "A" * 43), client=self.client).status, 401)
        # What the file says of one certificate counts for it alone.
        done = subprocess.run(["openssl", "x509", "-in", self.client[0], "-noout", "-fingerprint", "-sha256"], stdout=subprocess.PIPE,
                              check=True, timeout=30)
        certificate = done.stdout.decode().strip().split("=")[1]
        token(self.tokens, "--scope", "write", "--bucket", "b", "--certificate", certificate)
        harness.await_true(lambda: self.ask(p.port, "GET", "/v1/buckets", client=self.client).status == 403, 10, "the file to be read")
        self.assertEqual(self.ask(p.port, "PUT", "/v1/buckets/b/keys/k", b"v", client=self.client).status, 201)
        self.assertEqual(self.ask(p.port, "PUT", "/v1/buckets/c/keys/k", b"v", client=self.client).status, 403)
        self.assertEqual(self.ask(p.port, "GET", "/v1/buckets", client=self.node).status, 200)
        # What has expired does not give it back what those have that the file does not name.
        token(self.tokens, "--scope", "write", "--certificate", certificate, "--expires", "0s")
        harness.await_true(lambda: self.ask(p.port, "PUT", "/v1/buckets/b/keys/k", b"v", client=self.client).status == 401, 10, "it to expire")
        self.assertEqual(self.ask(p.port, "GET", "/v1/buckets", client=self.client).status, 401)
        # Neither does what was revoked, however often, until it is given something again.
        ident = token(self.tokens, "--scope", "read", "--certificate", certificate)
        harness.await_true(lambda: self.ask(p.port, "GET", "/v1/buckets", client=self.client).status == 200, 10, "the file to be read")
        for status in (204, 404):
            self.assertEqual(self.ask(p.port, "DELETE", "/v1/admin/tokens?id=" + ident, None, self.admin).status, status)
            self.assertEqual(self.ask(p.port, "GET", "/v1/buckets", client=self.client).status, 401)
        listed = self.ask(p.port, "GET", "/v1/admin/tokens", None, self.admin).json()["items"]
        self.assertEqual([x["scope"] for x in listed if x["id"] == ident], ["none"])
        token(self.tokens, "--scope", "read", "--certificate", certificate)
        harness.await_true(lambda: self.ask(p.port, "GET", "/v1/buckets", client=self.client).status == 200, 10, "the file to be read")

    def test_promises_have_a_scope_of_their_own(self):
        """What follows by a certificate that the authority signed cannot fence the primary."""
        refused = [bearer(token(self.tokens, "--scope", scope)) for scope in ("replicate", "read,write")]
        elect = bearer(token(self.tokens, "--scope", "replicate,elect"))
        p = self.primary("--client-ca", self.ca.cert, name="voters")
        status = self.ask(p.port, "GET", "/v1/status", None, self.admin).json()
        ask = "/v1/replication/promise?epoch=%d-%016x&database=%s" % (status["epoch"] + 1, 7, status["database_id"])
        self.assertEqual(self.ask(p.port, "POST", ask, client=self.node).status, 403)
        for head in refused:
            self.assertEqual(self.ask(p.port, "POST", ask, None, head).status, 403)
        self.assertEqual(self.ask(p.port, "GET", "/v1/status", None, self.admin).json()["role"], "primary")
        got = self.ask(p.port, "POST", ask, None, elect)
        self.assertEqual(got.status, 200, got)
        self.assertEqual(self.ask(p.port, "GET", "/v1/status", None, self.admin).json()["role"], "fenced")

    def follow(self, source, name, *more):
        return self.started(harness.follower(self.dir, source, *self.secure("--replication-listen", "127.0.0.1:0", *more), name=name))

    def caught_up(self, f, p):
        def same():
            a, b = (self.ask(x.port, "GET", "/v1/status", None, self.admin).json() for x in (f, p))
            return a["txid"] == b["txid"] and a["root_digest"] == b["root_digest"]

        harness.await_true(same, what="the follower to be there")

    def test_followers(self):
        p = self.primary("--client-ca", self.ca.cert, name="src")
        self.ask(p.port, "PUT", "/v1/buckets/b", None, self.admin)
        self.ask(p.port, "PUT", "/v1/buckets/b/keys/k", os.urandom(1 << 20), self.admin)
        ca = ("--tls-ca", self.ca.cert)
        by_certificate = self.follow(p.frames, "by-certificate", *ca)
        self.caught_up(by_certificate, p)
        # A cascade, by a token: the follower in the middle asks for no certificate.
        path = self.dir.file("replicate")
        with open(path, "w") as f:
            f.write(token(self.tokens, "--scope", "replicate") + "\n")
        os.chmod(path, 0o600)
        middle = "https://localhost:" + re.search(r"replication=127\.0\.0\.1:(\d+)", by_certificate.log_text()).group(1)
        by_token = self.follow(middle, "by-token", "--upstream-token", path, *ca)
        self.caught_up(by_token, p)
        refused = self.follow(middle, "refused", *ca)
        refused.wait_log("401")
        unknown = self.follow(p.frames, "unknown", "--tls-ca", self.other.cert)
        unknown.wait_log("retrying.*[Cc]ertificate|retrying.*SSL|retrying.*verif")
        r = self.started(harness.replicator(self.dir, *self.secure("--client-ca", self.ca.cert), data="src.bts"))
        behind = self.follow("https://127.0.0.1:%d" % r.port, "behind", *ca)
        self.caught_up(behind, p)
        self.ask(p.port, "PUT", "/v1/buckets/b/keys/more", b"v", self.admin)
        for f in (by_certificate, by_token, behind):
            self.caught_up(f, p)
        for f in (refused, unknown):
            self.assertFalse(self.ask(f.port, "GET", "/v1/status", None, self.admin).json()["txid"])

    def served(self, port):
        with socket.create_connection(("localhost", port), timeout=10) as s, self.context().wrap_socket(s, server_hostname="localhost") as t:
            return t.getpeercert()["serialNumber"]

    def test_renewal(self):
        cert, key = self.ca.sign("renewed")
        p = self.started(harness.primary(self.dir, "--tls-cert", cert, "--tls-key", key, data="r.bts"))
        before = self.served(p.port)
        kept = http.client.HTTPSConnection("localhost", p.port, timeout=20, context=self.context())
        kept.request("GET", "/livez")
        self.read(kept)
        self.ca.sign("renewed")
        self.assertEqual(self.served(p.port), before)
        p.signal(signal.SIGHUP)
        harness.await_true(lambda: self.served(p.port) != before, 10, "the new certificate")
        now = self.served(p.port)
        with open(self.node[1]) as f:
            wrong = f.read()
        # One that is broken, or whose key does not fit: the old one stays.
        for path, content in ((cert, "nothing\n"), (key, wrong)):
            with open(path) as f:
                good = f.read()
            with open(path, "w") as f:
                f.write(content)
            mark, taken = p.log_text().count("event=reload-failed"), p.log_text().count("event=reloaded")
            p.signal(signal.SIGHUP)
            harness.await_true(lambda: p.log_text().count("event=reload-failed") > mark, 10, "the complaint")
            self.assertEqual(p.log_text().count("certificate-not-read"), mark + 1)
            self.assertEqual(p.log_text().count("event=reloaded"), taken)
            self.assertEqual(self.served(p.port), now)
            with open(path, "w") as f:
                f.write(good)
        kept.request("GET", "/livez")
        self.assertEqual(self.read(kept).status, 200)
        kept.close()

    def test_a_replicator_that_cannot_renew(self):
        cert, key = self.ca.sign("replicator")
        with harness.primary(self.dir, data="plain.bts") as p:
            self.assertEqual(p.stop(), 0)
        r = self.started(harness.replicator(self.dir, "--tls-cert", cert, "--tls-key", key, data="plain.bts"))
        with open(cert, "w") as f:
            f.write("nothing\n")
        before = self.served(r.port)
        r.signal(signal.SIGHUP)
        r.wait_log("event=reload-failed")
        self.assertEqual(self.served(r.port), before)
        self.assertNotIn("event=reloaded", r.log_text())

    def refused(self, *args):
        done = subprocess.run([harness.binary("btsd"), "primary", "--data", self.dir.file("x.bts")] + list(args), stderr=subprocess.PIPE, timeout=30)
        self.assertIn(done.returncode, (1, 2), done)
        return done.stderr.decode()

    def test_signers_that_cannot_be_read(self):
        none, wrong = self.dir.file("no-signers"), self.dir.file("wrong-signers")
        with open(wrong, "w") as f:
            f.write("nothing\n")
        for path in (none, wrong):
            self.assertIn(path, self.refused("--listen", "127.0.0.1:0", "--tls-ca", path))
            done = subprocess.run([harness.binary("bts-replicator"), "--data", self.dir.file("src.bts"), "--listen", "127.0.0.1:0",
                                   "--tls-ca", path], stderr=subprocess.PIPE, timeout=30)
            self.assertIn(done.returncode, (1, 2), done)
            self.assertIn(path, done.stderr.decode())

    def test_addresses_that_others_reach(self):
        tls = ("--tls-cert", self.node[0], "--tls-key", self.node[1])
        for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:80"):
            self.assertIn("--tls-cert", self.refused("--listen", address))
            self.assertIn("--tls-cert", self.refused("--listen", address, "--token-file", self.tokens))
            self.assertIn("--token-file", self.refused("--listen", address, *tls))
            self.assertIn("--tls-cert", self.refused("--listen", "127.0.0.1:0", "--admin-listen", address, "--admin-plain", *self.secure()))
        self.assertIn("--tls-key", self.refused("--listen", "127.0.0.1:0", "--tls-cert", self.node[0]))
        self.assertIn("--client-ca", self.refused("--listen", "127.0.0.1:0", "--client-ca", self.ca.cert))
        self.assertIn("not the key", self.refused("--listen", "127.0.0.1:0", "--tls-cert", self.node[0], "--tls-key", self.client[1]))
        argv = [harness.binary("btsd"), "primary", "--data", self.dir.file("any.bts"), "--listen"]
        ready = r"event=ready .*listen=(?:0\.0\.0\.0|\[::\]):(\d+)"
        for address in ("0.0.0.0:0", "[::]:0"):
            with harness.Process(argv + [address] + list(self.secure()), self.dir.file("any.log"), ready) as p:
                self.assertEqual(self.ask(p.port, "GET", "/v1/status", None, self.admin).status, 200)
                self.assertEqual(self.ask(p.port, "GET", "/v1/status").status, 401)

    def test_plain_admin(self):
        p = self.started(harness.primary(self.dir, *self.secure("--admin-listen", "127.0.0.1:0", "--admin-plain"), data="plain.bts"))
        with harness.Client(int(re.search(r"admin=127\.0\.0\.1:(\d+)", p.log_text()).group(1))) as c:
            self.assertEqual(c.request("GET", "/livez").status, 200)
            self.assertEqual(c.request("GET", "/v1/status").status, 401)
            self.assertEqual(c.request("GET", "/v1/status", None, self.admin).status, 200)


class Crowds(unittest.TestCase):
    """Many connections that say little: others are served all the same."""

    def setUp(self):
        self.dir = harness.Dir().__enter__()
        self.addCleanup(self.dir.__exit__)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        if hard != resource.RLIM_INFINITY and hard < 4000:
            self.skipTest("SKIP: not so many descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, hard))

    def start(self, *args, descriptors=None):
        p = harness.primary(self.dir, *args) if not descriptors else self.limited(descriptors, *args)
        p.__enter__()
        self.addCleanup(p.__exit__, None, None, None)
        return p

    def limited(self, descriptors, *args):
        argv = ["prlimit", "--nofile=%d:%d" % (descriptors, descriptors), harness.binary("btsd"), "primary", "--data",
                self.dir.file("primary.bts"), "--listen", "127.0.0.1:0"]
        return harness.Server(argv + list(args), self.dir.file("primary.log"))

    def crowd(self, port, count, begin):
        held = []
        for i in range(count):
            s = socket.create_connection(("127.0.0.1", port), timeout=20)
            s.sendall(begin(i))
            held.append(s)
        self.addCleanup(lambda: [s.close() for s in held])
        return held

    def ask_often(self, p, seconds, least):
        """So many ordinary requests at least, on connections of their own: how long the slowest took, and their number.  Half of them are
        quick; any of them may meet a machine that stands still."""
        took, begun = [], time.monotonic()
        while len(took) < least or time.monotonic() < begun + seconds:
            start = time.monotonic()
            self.assertEqual(p.value("b", "k").body, b"v")
            took.append(time.monotonic() - start)
            if len(took) % 10 == 0:
                self.assertLess(sorted(took)[len(took) // 2], 0.1, "others are hardly served")
        return max(took), len(took)

    def test_slow_heads(self):
        """1,500 connections that send a head a byte at a time, where 768 may be open."""
        p = self.start(descriptors=1024)
        p.request("PUT", "/v1/buckets/b")
        p.put("b", "k", b"v")
        begin = (b"", b"G", b"GET /v1/buckets HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"PUT /v1/buckets/b/keys/s HTTP/1.1\r\nHost: lo")
        stop = threading.Event()
        with p.client() as busy:
            held = self.crowd(p.port, 1500, lambda i: begin[i % 4])

            def drip():
                while not stop.wait(0.5):
                    for s in held:
                        try:
                            s.send(b"x", socket.MSG_DONTWAIT)
                        except OSError:
                            pass

            slow = threading.Thread(target=drip)
            slow.start()
            try:
                slowest, n = self.ask_often(p, 3, 100)
                for _ in range(50):
                    self.assertEqual(busy.request("GET", "/v1/buckets/b/keys/k").status, 200)
            except (http.client.HTTPException, OSError):
                pass  # it was idle when room was needed; it is asked again on a new connection
            finally:
                stop.set()
                slow.join()
        text = p.get("/metrics").body.decode()
        evicted = int(re.search(r"^btsd_connections_evicted_total (\d+)", text, re.M).group(1))
        print("%d requests, the slowest took %.0f ms; %d connections evicted, %s" % (
            n, slowest * 1000, evicted, re.search(r"btsd_connections_refused_total \d+", text).group(0)))
        self.assertGreater(evicted, 500)

    def test_a_request_under_way_is_not_evicted(self):
        p = self.start(descriptors=1024)
        p.request("PUT", "/v1/buckets/b")
        p.put("b", "k", b"v")
        with socket.create_connection(("127.0.0.1", p.port), timeout=20) as s:
            s.sendall(b"PUT /v1/buckets/b/keys/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc")
            self.crowd(p.port, 1200, lambda i: b"GET")
            self.ask_often(p, 0.5, 10)
            s.sendall(b"def")
            self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 201"))

    def test_strangers_whose_head_is_complete(self):
        """1,200 that never send the body they announce, to where nobody is asked who he is."""
        p = self.start(descriptors=1024)
        p.request("PUT", "/v1/buckets/b")
        p.put("b", "k", b"v")
        self.crowd(p.port, 1200, lambda i: b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        self.ask_often(p, 0.5, 10)

    def test_replication_is_not_filled(self):
        self.start().request("PUT", "/v1/buckets/b")
        with harness.replicator(self.dir) as r:
            self.crowd(r.port, 1200, lambda i: b"POST /v1/replication/pages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n" if i % 2 else b"G")
            for _ in range(20):
                self.assertEqual(r.get("/v1/replication/position").status, 200)

    def test_one_address(self):
        p = self.start("--max-connections-per-address", "5")
        harness.await_true(lambda: p.get("/livez").status == 200, 10, "it to answer")
        held = []

        def one_more():
            s = socket.create_connection(("127.0.0.1", p.port), timeout=20)
            try:
                s.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if s.recv(1000).startswith(b"HTTP/1.1 200"):
                    held.append(s)
                    return True
            except OSError:
                pass
            s.close()
            return False

        self.addCleanup(lambda: [s.close() for s in held])
        for _ in range(5):  # the server may not have seen yet that those of before have ended
            harness.await_true(one_more, 10, "a connection")
        with socket.create_connection(("127.0.0.1", p.port), timeout=20) as s:
            self.assertIn(b"too-many-connections", s.recv(1000))
        with socket.create_connection(("127.0.0.1", p.port), timeout=20, source_address=("127.0.0.2", 0)) as s:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 200"))
        for s in held[:2]:
            s.close()

        def answers():
            try:
                return p.get("/livez").status == 200
            except (http.client.HTTPException, OSError):
                return False

        harness.await_true(answers, 10, "room")


if __name__ == "__main__":
    harness.main()
