"""Who may do what: every route of the table with every kind of credentials (T14), tokens made, listed, expired and revoked, by
command and by REST, hosts and origins.

The matrix is generated from `btsd --print-routes`, so a new route is in it by itself: what its row says of its scope is what is held
against the answers.
"""
import http.client
import json
import os
import re
import subprocess
import time
import unittest

import harness

SCOPES = ("read", "write", "admin", "replicate", "elect")
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")
# Never let through in the matrix, even to who may: they would change what the rest of it stands on.
SPARED = re.compile(r"/v1/admin/(demote|promote|follow)|/v1/replication/promise")


def routes():
    done = subprocess.run([harness.binary("btsd"), "--print-routes"], stdout=subprocess.PIPE, check=True, timeout=30)
    return json.loads(done.stdout)


def token(path, *args, status=0):
    done = subprocess.run([harness.binary("btsd"), "token"] + list(args) + ["--token-file", path],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    assert done.returncode == status, (args, done)
    return done.stdout.decode().strip()


def bearer(text):
    return {"Authorization": "Bearer " + text} if text else {}


class Matrix(unittest.TestCase):
    """One primary with a token file; its replication, and a bts-replicator's, by the same file."""

    @classmethod
    def setUpClass(cls):
        cls.dir = harness.Dir().__enter__()
        cls.file = cls.dir.file("tokens")
        cls.tokens = {scope: token(cls.file, "create", "--scope", scope, "--name", scope) for scope in SCOPES}
        cls.tokens["limited"] = token(cls.file, "create", "--scope", "read,write", "--bucket", "mine,ours*")
        cls.tokens["expired"] = token(cls.file, "create", "--scope", "admin", "--expires", "0s")
        revoked = token(cls.file, "create", "--scope", "admin")
        token(cls.file, "revoke", token(cls.file, "list").splitlines()[-1].split("\t")[0])
        cls.tokens.update(none="", bad="bts_" + "A" * 43, malformed="x" * 47, revoked=revoked)
        cls.p = harness.primary(cls.dir, "--token-file", cls.file, "--admin-listen", "127.0.0.1:0")
        cls.admin_port = int(re.search(r"admin=127\.0\.0\.1:(\d+)", cls.p.log_text()).group(1))
        for bucket in ("b", "mine", "ours2", "yours"):
            assert cls.p.request("PUT", "/v1/buckets/" + bucket, None, cls.head("write")).status == 201
            assert cls.p.put(bucket, "k", b"v", cls.head("write")).status == 201
        cls.r = harness.replicator(cls.dir, "--token-file", cls.file)

    @classmethod
    def tearDownClass(cls):
        log = cls.p.log_text() + cls.r.log_text()
        statuses = cls.r.stop(), cls.p.stop()
        cls.dir.__exit__(None, None, None)
        assert statuses == (0, 0), log
        for text in cls.tokens.values():
            assert not text or text[10:] not in log, "a token is in the log"

    @classmethod
    def head(cls, who):
        return bearer(cls.tokens[who])

    def scopes_of(self, who):
        if who == "limited":
            return {"read", "write", "none"}
        if who == "admin":
            return set(SCOPES) | {"none"}
        return {who, "none"} & (set(SCOPES) | {"none"})

    def ask(self, server, port, method, path, who):
        path += "?bucket=mine" if path == "/v1/changes" else ""
        headers = self.head(who)
        if method in ("PUT", "POST"):
            headers["Content-Length"] = "0"
        with harness.Client(port) as c:
            return c.request(method, path, None, headers)

    def expect(self, row, method, who, got, path):
        """What the row says, held against what was answered."""
        known = who in SCOPES or who == "limited"
        context = (method, path, who, got)
        if row and row["scope"] == "none":
            self.assertNotIn(got.status, (401, 403), context)
        elif not known:
            self.assertEqual(got.status, 401, context)
            self.assertTrue(got.headers["WWW-Authenticate"].startswith("Bearer"), context)
            if method != "HEAD":
                self.assertEqual(got.code, "unauthorized", context)
        elif row and (not set(row["scope"].split(" or ")) & self.scopes_of(who) or
                      (who == "limited" and "{bucket}" not in row["template"] and "each" not in row["flags"])):
            self.assertEqual(got.status, 403, context)
            if method != "HEAD":
                self.assertEqual(got.code, "forbidden", context)
        elif row and who == "limited" and "{bucket}" in row["template"] and "/buckets/yours" in path:
            self.assertEqual(got.status, 403, context)
        else:
            self.assertNotIn(got.status, (401, 403), context)

    def rows(self):
        """Server, path, method, the row that decides or None where there is none, the rows of the path's own template."""
        table = {}
        for row in routes():
            table.setdefault((row["server"], row["template"]), []).append(row)
        for (server, template), rows in sorted(table.items()):
            for bucket in ("yours", "mine") if "{bucket}" in template else ("",):
                path = template.replace("{bucket}", bucket).replace("{key}", "k")
                path = re.sub(r"\{\w+\}", "x", path)
                for method in METHODS:
                    row = [r for r in rows if r["method"] == ("GET" if method == "HEAD" else method)]
                    yield server, path, method, row[-1] if row else None, rows

    def test_matrix(self):
        asked = 0
        for server, path, method, row, rows in self.rows():
            if server == "replication":
                targets = [self.r.port] + ([self.p.port] if path.startswith("/v1/replication/") else [])
            else:
                targets = [self.p.port] + ([self.admin_port] if all("admin" in r["flags"] for r in rows) else [])
            for who in self.tokens:
                if row and row["scope"] in self.scopes_of(who) and (SPARED.match(path) or (method == "DELETE" and path.count("/") <= 3)):
                    continue
                for port in targets:
                    if server == "replication" and method == "HEAD" and path.startswith("/v1/replication/frames"):
                        continue
                    got = self.ask(server, port, method, path, who)
                    asked += 1
                    if row is None and server == "replication":
                        # It refuses a method only after the credentials, by the path's own scope.
                        row = rows[0]
                    self.expect(row, method, who, got, path)
        self.assertGreater(asked, 1000)
        print("%d requests" % asked)

    def test_a_path_that_is_not_there(self):
        for port in (self.p.port, self.r.port, self.admin_port):
            with harness.Client(port) as c:
                self.assertEqual(c.request("GET", "/v1/nothing").status, 401)
                self.assertEqual(c.request("GET", "/v1/nothing", None, self.head("read")).status, 404)
                self.assertEqual(c.request("GET", "/livez").status, 200)

    def test_judged_before_the_body(self):
        """A stranger's body is not waited for."""
        head = "PUT /v1/buckets/b/keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n"
        for more in ("", "Expect: 100-continue\r\n"):
            got = self.p.raw((head + more + "\r\n").encode(), 5)
            self.assertTrue(got.startswith(b"HTTP/1.1 401"), got)
        got = self.p.raw((head + "Authorization: Bearer %s\r\nExpect: 100-continue\r\n\r\n" % self.tokens["read"]).encode(), 5)
        self.assertTrue(got.startswith(b"HTTP/1.1 403"), got)

    def test_limited_to_buckets(self):
        mine = self.head("limited")
        names = [x["name"] for x in self.p.get("/v1/buckets", mine).json()["items"]]
        self.assertEqual(names, [n for n in ("mine", "ours2") if n in names])
        self.assertTrue(names)
        self.assertEqual(self.p.put("mine", "a", b"1", mine).status // 100, 2)
        self.assertEqual(self.p.put("ours", "a", b"1", mine).status, 404)
        self.assertEqual(self.p.get("/v1/changes?bucket=mine", mine).status, 200)
        self.assertEqual(self.p.get("/v1/changes?bucket=yours", mine).status, 403)
        for bucket in ("mine", "yours"):
            self.p.put(bucket, "changed", b"1", self.head("write"))
        for who, buckets in (("limited", {"mine"}), ("read", {"mine", "yours"})):
            told = self.p.get("/v1/changes?since=begin", self.head(who)).body.decode()
            self.assertEqual({b for b in ("mine", "yours") if '"%s"' % b in told}, buckets)
        for bucket in ("mine2", "our", "yours", "%79ours", "b"):
            got = self.p.request("PUT", "/v1/buckets/%s/keys/a" % bucket, b"1", mine)
            self.assertEqual((got.status, got.code), (403, "forbidden"))

    def test_each_operation_is_judged(self):
        """Inside a transaction and a multi-get, too; nothing of one that is refused is done."""
        def post(path, body, who):
            return self.p.request("POST", path, json.dumps(body).encode(), self.head(who))

        got = post("/v1/get", {"get": [{"bucket": "mine", "key": "k"}]}, "limited")
        self.assertEqual(got.status, 200, got)
        for items in ([{"bucket": "yours", "key": "k"}], [{"bucket": "mine", "key": "k"}, {"bucket": "yours", "key": "k"}]):
            got = post("/v1/get", {"get": items}, "limited")
            self.assertEqual((got.status, got.code), (403, "forbidden"))
            self.assertEqual(post("/v1/get", {"get": items}, "read").status, 200)
            self.assertEqual(post("/v1/get", {"get": items}, "write").status, 403)
        mine, yours = {"op": "put", "bucket": "mine", "key": "t", "value": "1"}, {"op": "put", "bucket": "yours", "key": "t", "value": "1"}
        look, test = {"op": "get", "bucket": "yours", "key": "k"}, {"bucket": "yours", "key": "k", "exists": True}
        count = {"op": "incr", "bucket": "mine", "key": "n"}
        for body, limited, read, write in (
                ({"then": [mine]}, 200, 403, 200), ({"then": [mine, yours]}, 403, 403, None), ({"then": [look]}, 403, 200, 403),
                ({"if": [test], "then": [mine]}, 403, 403, 403), ({"then": [mine], "else": [look]}, 403, 403, 403),
                ({"then": [mine], "else": [yours]}, 403, 403, None), ({"then": [mine, count]}, 200, 403, 403),
                ({"then": [{"op": "delete", "bucket": "mine", "key": "t"}]}, 200, 403, 200)):
            self.assertEqual(post("/v1/txn", body, "limited").status, limited, body)
            self.assertEqual(post("/v1/txn", body, "read").status, read, body)
            if write:
                self.assertEqual(post("/v1/txn", body, "write").status, write, body)
            self.assertEqual(post("/v1/txn", body, "replicate").status, 403, body)
        self.assertEqual(self.p.value("yours", "t", self.head("read")).status, 404)

    def test_schemes(self):
        good = self.tokens["read"]
        for text in ("Bearer", "Bearer ", "Basic " + good, good, "Bearer " + good + "x", "Bearer x" + good, "Bearer bts_", "Bearer" + " " * 80,
                     "Bearer " + good[:-1], "Bearer " + good[:-1] + " ", "Bearer " + good + " x"):
            got = self.p.get("/v1/status", {"Authorization": text})
            self.assertEqual(got.status, 401, text)
        for text in ("bearer  " + good, "Bearer " + good + " ", "Bearer " + good + "\t \t"):
            self.assertEqual(self.p.get("/v1/status", {"Authorization": text}).status, 200)

    def test_by_rest(self):
        admin = self.head("admin")
        made = self.p.request("POST", "/v1/admin/tokens?scope=read&bucket=mine,ours*&name=rest&expires=1h", None, admin)
        self.assertEqual(made.status, 201)
        made = made.json()
        self.assertEqual(self.p.value("mine", "k", bearer(made["token"])).status // 100, 2)
        self.assertEqual(self.p.value("yours", "k", bearer(made["token"])).status, 403)
        listed = self.p.get("/v1/admin/tokens", admin)
        self.assertNotIn(made["token"], listed.body.decode())
        item = [x for x in listed.json()["items"] if x["id"] == made["id"]][0]
        self.assertEqual((item["name"], item["scope"], item["bucket"]), ("rest", "read", "mine,ours*"))
        self.assertLessEqual(abs(item["expires_s"] - time.time() - 3600), 60)
        self.assertEqual(self.p.request("DELETE", "/v1/admin/tokens?id=" + made["id"], None, admin).status, 204)
        self.assertEqual(self.p.value("mine", "k", bearer(made["token"])).status, 401)
        self.assertEqual(self.p.request("DELETE", "/v1/admin/tokens?id=" + made["id"], None, admin).status, 404)
        for wrong in ("scope=all", "scope=", "", "scope=read&expires=soon", "scope=read&bucket=a,,b", "scope=admin&bucket=a", "scope=read&name=a/b"):
            got = self.p.request("POST", "/v1/admin/tokens?" + wrong, None, admin)
            self.assertEqual((got.status, got.code), (400, "invalid-parameter"), wrong)

    def test_origin(self):
        read = self.head("read")
        for origin in ("http://evil.example", "null", "https://localhost:%d" % self.p.port, "http://localhost:1"):
            got = self.p.get("/v1/status", dict(read, Origin=origin, Host="localhost:%d" % self.p.port))
            self.assertEqual((got.status, got.code), (403, "origin-not-allowed"))
        same = {"Origin": "http://localhost:%d" % self.p.port, "Host": "localhost:%d" % self.p.port}
        got = self.p.get("/", dict(read, **same))
        self.assertEqual(got.status, 200)
        self.assertIsNone(got.headers["Access-Control-Allow-Origin"])
        self.assertEqual(self.p.get("/", dict(read, **{k: v + " \t" for k, v in same.items()})).status, 200)
        got = self.p.request("POST", "/v1/admin/scrub", None, dict(self.head("admin"), **same))
        self.assertEqual((got.status, got.code), (403, "origin-not-allowed"))
        got = self.p.request("OPTIONS", "/v1/status", None, dict(same, **{"Access-Control-Request-Method": "GET"}))
        self.assertEqual(got.status, 403)

    def test_replication_by_tokens(self):
        path = self.dir.file("upstream")
        with open(path, "w") as f:
            f.write(self.tokens["replicate"] + "\n")
        os.chmod(path, 0o600)
        for name, source in (("f1", self.p), ("f2", self.r)):
            with harness.follower(self.dir, source, "--upstream-token", path, name=name) as f:
                harness.await_true(lambda: f.status()["txid"] == self.p.get("/v1/status", self.head("read")).json()["txid"],
                                   what="the follower to be there")
        with harness.follower(self.dir, self.p, name="f3") as f:
            f.wait_log("unauthorized|401")
            self.assertFalse(f.status()["txid"])
        os.chmod(path, 0o644)
        done = subprocess.run([harness.binary("btsd"), "follower", "--data", self.dir.file("f4.bts"), "--listen", "127.0.0.1:0",
                               "--from", self.p.url, "--upstream-token", path], stderr=subprocess.PIPE, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"chmod 600", done.stderr)


class Open(unittest.TestCase):
    """Without credentials: hosts and origins, as a page in a browser would send them."""

    def setUp(self):
        self.dir = harness.Dir().__enter__()
        self.addCleanup(self.dir.__exit__)

    def start(self, *args):
        p = harness.primary(self.dir, *args)
        p.__enter__()
        self.addCleanup(p.__exit__, None, None, None)
        return p

    def test_hosts(self):
        p = self.start()
        for host in ("localhost", "LocalHost:1", "127.0.0.1:%d" % p.port, "[::1]:80", "192.0.2.1", "[2001:db8::1]:9", "localhost ", "127.0.0.1\t"):
            self.assertEqual(p.get("/v1/buckets", {"Host": host}).status, 200, host)
        for host in ("rebound.example", "rebound.example:%d" % p.port, "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "1.2.3", "localhost x",
                     "rebound.example "):
            got = p.get("/v1/buckets", {"Host": host})
            self.assertIn((got.status, got.code), ((421, "host-not-allowed"), (400, "bad-request")), host)
            self.assertEqual(p.get("/livez", {"Host": host}).status, 200)
        got = p.request("POST", "/v1/admin/demote", None, {"Origin": "http://localhost:%d" % p.port})
        self.assertEqual((got.status, got.code), (403, "origin-not-allowed"))
        got = p.get("/v1/replication/position", {"Host": "rebound.example"})
        self.assertEqual((got.status, got.code), (421, "host-not-allowed"))
        got = p.get("/v1/replication/position", {"Origin": "http://evil.example"})
        self.assertEqual((got.status, got.code), (403, "origin-not-allowed"))

    def test_allow_host(self):
        p = self.start("--allow-host", "db.example,other")
        for host, status in (("db.example", 200), ("OTHER:1", 200), ("localhost", 200), ("third", 421)):
            self.assertEqual(p.get("/v1/buckets", {"Host": host}).status, status, host)
        p.stop()
        p = self.start("--allow-host", "*")
        self.assertEqual(p.get("/v1/buckets", {"Host": "any.example"}).status, 200)

    def test_no_token_file(self):
        p = self.start()
        for method in ("GET", "POST", "DELETE"):
            got = p.request(method, "/v1/admin/tokens")
            self.assertEqual((got.status, got.code), (409, "no-token-file"))

    def test_a_token_counts_for_any_host(self):
        path = self.dir.file("tokens")
        read = bearer(token(path, "create", "--scope", "read"))
        p = self.start("--token-file", path)
        self.assertEqual(p.get("/v1/buckets", dict(read, Host="db.example")).status, 200)
        self.assertEqual(p.get("/v1/buckets", dict(read, Origin="http://db.example")).status, 403)


class File(unittest.TestCase):
    def setUp(self):
        self.dir = harness.Dir().__enter__()
        self.addCleanup(self.dir.__exit__)
        self.path = self.dir.file("tokens")

    def test_what_is_kept(self):
        text = token(self.path, "create", "--scope", "read,write", "--name", "one", "--bucket", "a*", "--bucket", "b%2Fc")
        self.assertRegex(text, r"\Abts_[A-Za-z0-9_-]{43}\Z")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        with open(self.path) as f:
            kept = f.read()
        self.assertNotIn(text, kept)
        self.assertNotIn(text[4:], kept)
        self.assertEqual(os.listdir(self.dir.path), ["tokens"])
        row = token(self.path, "list").splitlines()[1].split("\t")
        self.assertEqual((row[1], row[2], row[4], row[5]), ("read,write", "a*,b%2Fc", "never", "one"))

    def test_many_at_once(self):
        made = []
        harness.parallel(4, lambda i: made.extend(token(self.path, "create", "--scope", "read") for _ in range(10)))
        self.assertEqual(len(set(made)), 40)
        self.assertEqual(len(token(self.path, "list").splitlines()), 41)

    def test_usage(self):
        for args in (["create"], ["create", "--scope", "all"], ["create", "--scope", "read", "--expires", "x"],
                     ["create", "--scope", "read", "--bucket", "a b"], ["create", "--scope", "admin", "--bucket", "a"],
                     ["create", "--scope", "read", "--name", "a b"], ["create", "--scope", "read", "--certificate", "12"],
                     ["revoke"], ["bless"], []):
            token(self.path, *args, status=2)
        self.assertFalse(os.path.exists(self.path))
        token(self.path, "create", "--scope", "read")
        token(self.path, "revoke", "000000000000", status=3)
        token(self.path + "x", "list", status=1)

    def test_refused_files(self):
        token(self.path, "create", "--scope", "read")
        with open(self.path) as f:
            good = f.read()
        argv = [harness.binary("btsd"), "primary", "--data", self.dir.file("x.bts"), "--listen", "127.0.0.1:0", "--token-file", self.path]

        def refused(word):
            done = subprocess.run(argv, stderr=subprocess.PIPE, timeout=30)
            self.assertEqual(done.returncode, 1)
            self.assertIn(word, done.stderr.decode())

        for mode in (0o640, 0o604, 0o620, 0o602):
            os.chmod(self.path, mode)
            refused("chmod 600")
        os.chmod(self.path, 0o600)
        line = good.splitlines()[1]
        for bad in ("x\n" + line + "\n", good + line[:-3], good + line.replace("read", "reed") + "\n", good + "\n",
                    good + line[1:] + "\n", good + line + " more\n", good.replace(" * ", " a,, "), good + line.replace("read", "admin").replace(" * ", " a ") + "\n"):
            with open(self.path, "w") as f:
                f.write(bad)
            refused("is not one of a file of tokens")
        os.unlink(self.path)
        refused("No such file")

    def test_changes_are_seen(self):
        token(self.path, "create", "--scope", "admin")
        with harness.primary(self.dir, "--token-file", self.path) as p:
            text = token(self.path, "create", "--scope", "read")
            harness.await_true(lambda: p.get("/v1/status", bearer(text)).status == 200, 10, "the token to be known")
            ident = token(self.path, "list").splitlines()[-1].split("\t")[0]
            token(self.path, "revoke", ident)
            harness.await_true(lambda: p.get("/v1/status", bearer(text)).status == 401, 10, "it to be forgotten")
            for seconds in (3, 12, 30):  # known before it expires, where the machine does not stand still for so long
                begun = time.monotonic()
                soon = token(self.path, "create", "--scope", "read", "--expires", "%ds" % seconds)
                known = harness.await_true(lambda: p.get("/v1/status", bearer(soon)).status == 200 and 1 or
                                           time.monotonic() > begun + seconds and -1, 40, "the token to be known")
                if known > 0:
                    break
            self.assertEqual(known, 1)
            harness.await_true(lambda: p.get("/v1/status", bearer(soon)).status == 401, 40, "it to expire")
            kept = token(self.path, "create", "--scope", "read")
            harness.await_true(lambda: p.get("/v1/status", bearer(kept)).status == 200, 10, "the token to be known")
            with open(self.path, "a") as f:
                f.write("broken\n")
            p.signal(1)
            p.wait_log("tokens-not-read")
            p.wait_log("reload-failed")
            self.assertEqual(p.get("/v1/status", bearer(kept)).status, 200)

    def test_a_feed_ends_with_its_token(self):
        admin = token(self.path, "create", "--scope", "admin")
        with harness.primary(self.dir, "--token-file", self.path, "--changes-heartbeat", "100ms") as p:
            text = token(self.path, "create", "--scope", "read")
            ident = token(self.path, "list").splitlines()[-1].split("\t")[0]
            harness.await_true(lambda: p.get("/v1/status", bearer(text)).status == 200, 10, "the token to be known")
            feed = http.client.HTTPConnection("127.0.0.1", p.port, timeout=20)
            self.addCleanup(feed.close)
            feed.request("GET", "/v1/changes", headers=dict(bearer(text), Accept="application/x-ndjson"))
            got = feed.getresponse()
            for _ in range(20):  # it lives longer than it takes to be asked again
                self.assertIn(b"bookmark", got.readline())
            token(self.path, "revoke", ident)
            lines = 0
            while lines < 200 and got.readline():
                lines += 1
            self.assertLess(lines, 200)
            self.assertEqual(p.get("/v1/status", bearer(admin)).status, 200)


if __name__ == "__main__":
    harness.main()
