"""Start, ask and stop the real programs from a test.

Everything runs on loopback, in a directory of its own, and is stopped by process id.  Use:

    import harness
    with harness.Dir() as d, harness.primary(d) as p:
        p.request("PUT", "/v1/buckets/b")
        p.stop()

The binaries come from $BTS_BIN, else from build/dev/bin or build/release/bin of this tree.
"""
import base64
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))


def binary(name):
    places = [os.environ.get("BTS_BIN")] + [os.path.join(TREE, "build", p, "bin") for p in ("dev", "release")]
    for place in places:
        if place and os.access(os.path.join(place, name), os.X_OK):
            return os.path.join(place, name)
    sys.exit("harness: no %s found; build first or set BTS_BIN" % name)


def free_ports(count):
    """Ports that are of no other test while this one lives, for servers that come back at the address they had: below those that the kernel
    gives to whoever asks for any."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        others = int(f.read().split()[0])
    found = []
    while len(found) < count:
        port = random.randrange(12000, others if others > 20000 else 32768)
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind("\0btree_store test port %d" % port)  # until this process ends
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            mark.close()
            continue
        mark.detach()
        found.append(port)
    return found


def address():
    return "127.0.0.1:%d" % free_ports(1)[0]


class Dir:
    """A directory for one test, removed at the end unless BTS_KEEP is set."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="bts-e2e-")
        return self

    def __exit__(self, *exc):
        if not os.environ.get("BTS_KEEP"):
            shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.path, name)


def quote(part):
    """One path segment or parameter of str or bytes."""
    return urllib.parse.quote(part, safe="")


class Reply:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The stable word of a problem reply."""
        return self.json().get("code") if self.body else None

    def __repr__(self):
        return "<%d %s %r>" % (self.status, dict(self.headers), self.body[:300])


class Client:
    """One keep-alive connection."""

    def __init__(self, port, timeout=60):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def request(self, method, target, body=None, headers=None):
        self.http.request(method, target, body=body, headers=headers or {})
        response = self.http.getresponse()
        return Reply(response, response.read())

    def close(self):
        self.http.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Process:
    """A program that logs to a file and says event=ready when it serves."""

    def __init__(self, argv, log, ready=r"event=ready .*listen=127\.0\.0\.1:(\d+)", timeout=30):
        self.argv = argv
        self.log = log
        self.from_byte = os.path.getsize(log) if os.path.exists(log) else 0
        with open(log, "ab") as out:
            # BTS_* of the environment are settings of the programs, or the tests' own.
            env = {k: v for k, v in os.environ.items() if not k.startswith("BTS_")}
            self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        self.pid = self.child.pid
        self.port = None
        if ready:
            match = self.wait_log(ready, timeout)
            self.port = int(match.group(1)) if match.groups() else None

    def log_text(self):
        """What this run has logged so far."""
        with open(self.log, "rb") as f:
            f.seek(self.from_byte)
            return f.read().decode("utf-8", "replace")

    def wait_log(self, pattern, timeout=30):
        end = time.monotonic() + timeout
        while True:
            ended = self.child.poll() is not None
            match = re.search(pattern, self.log_text())
            if match:
                return match
            if ended:
                raise AssertionError("%s ended with %d:\n%s" % (self.argv, self.child.returncode, self.log_text()))
            if time.monotonic() > end:
                self.kill()
                raise AssertionError("%s did not log %r:\n%s" % (self.argv, pattern, self.log_text()))
            time.sleep(0.01)

    def alive(self):
        return self.child.poll() is None

    def stop(self, timeout=30):
        """SIGTERM; the exit status."""
        if self.alive():
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("%s did not stop:\n%s" % (self.argv, self.log_text()))

    def kill(self):
        """SIGKILL, waited for."""
        if self.alive():
            self.child.kill()
        return self.child.wait()

    def signal(self, number):
        self.child.send_signal(number)
        if number == signal.SIGSTOP:  # threads go on until the one that takes the signal has run: wait for the last to stop
            os.waitid(os.P_PID, self.child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc, trace):
        if exc_type:
            sys.stderr.write("---- log of %s\n%s----\n" % (" ".join(self.argv), self.log_text()[-4000:]))
            self.kill()
        elif self.alive():
            self.stop()


class Server(Process):
    """A process that answers HTTP."""

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    def client(self, timeout=60):
        return Client(self.port, timeout)

    def request(self, method, target, body=None, headers=None):
        """On a connection of its own."""
        with self.client() as c:
            return c.request(method, target, body, headers)

    def get(self, target, headers=None):
        return self.request("GET", target, None, headers)

    def status(self):
        return self.get("/v1/status").json()

    def put(self, bucket, key, value, headers=None):
        return self.request("PUT", "/v1/buckets/%s/keys/%s" % (quote(bucket), quote(key)), value, headers)

    def value(self, bucket, key, headers=None):
        return self.get("/v1/buckets/%s/keys/%s" % (quote(bucket), quote(key)), headers)

    def raw(self, data, timeout=10):
        """Send these bytes, return all that comes until the server closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            s.sendall(data)
            got = b""
            try:
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        return got
                    got += piece
            except (socket.timeout, ConnectionResetError):
                return got


def primary(where, *args, data="primary.bts", listen=None):
    argv = [binary("btsd"), "primary", "--data", where.file(data), "--listen", listen or address()] + list(args)
    return Server(argv, where.file("primary.log"))


def replicator(where, *args, data="primary.bts", listen=None):
    argv = [binary("bts-replicator"), "--data", where.file(data), "--listen", listen or address()] + list(args)
    return Server(argv, where.file("replicator.log"))


def follower(where, source, *args, name="f1", listen=None, primary_url=None):
    """source: the replicator (or its URL) to follow."""
    url = source if isinstance(source, str) else source.url
    argv = [binary("btsd"), "follower", "--data", where.file(name + ".bts"), "--listen", listen or address()]
    argv += ["--from", url, "--name", name]
    if primary_url:
        argv += ["--primary-url", primary_url]
    return Server(argv + list(args), where.file(name + ".log"))


def await_true(condition, timeout=30, what="condition"):
    """Ask again until it holds; its value.  what: a text, or who makes it once it has not come to be."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited %gs for %s" % (timeout, what() if callable(what) else what))
        time.sleep(0.02)


def await_equal(first, second, timeout=60):
    """Until both nodes are at one txid with one root digest; the status."""

    def same():
        a, b = first.status(), second.status()
        keys = ("database_id", "epoch", "txid", "root_digest")
        return a.get("txid") is not None and all(a.get(k) == b.get(k) for k in keys) and a

    return await_true(same, timeout, "both nodes to be equal")


def bytes_of(item, name):
    """The bytes under name or name_base64 of a JSON item."""
    if name in item:
        return item[name].encode()
    return base64.b64decode(item[name + "_base64"])


def parallel(count, body):
    """Run body(i) in count threads, raise the first failure."""
    failures = []

    def run(i):
        try:
            body(i)
        except BaseException as e:  # noqa: the first is raised below
            failures.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def main():
    unittest.main(verbosity=2)


class Case(unittest.TestCase):
    """A test with a directory of its own; what it started is stopped at its end, and must have stopped well."""

    def setUp(self):
        self.dir = Dir().__enter__()
        self.addCleanup(self.dir.__exit__, None, None, None)

    def started(self, server):
        self.addCleanup(lambda: server.alive() and self.assertEqual(server.stop(), 0, server.log_text()))
        return server


class SharedCase(unittest.TestCase):
    """Tests that share one primary, each with a connection of its own.  ARGS are the primary's."""

    ARGS = ()

    @classmethod
    def setUpClass(cls):
        cls.dir = Dir().__enter__()
        cls.p = primary(cls.dir, *cls.ARGS)
        cls.counter = 0

    @classmethod
    def tearDownClass(cls):
        status = cls.p.stop()
        cls.dir.__exit__(None, None, None)
        assert status == 0

    def setUp(self):
        self.client = self.p.client()
        self.addCleanup(self.client.close)

    def bucket(self):
        """The name of a new one."""
        type(self).counter += 1
        name = "b%d" % self.counter
        self.assertEqual(self.client.request("PUT", "/v1/buckets/" + name).status, 201)
        return name


class Node:
    """btsd on a file of its own, and perhaps a replicator beside it that serves its frames."""

    def __init__(self, where, name):
        self.where, self.name, self.file = where, name, where.file(name + ".bts")
        self.d = self.r = None

    def start(self, role, *args):
        argv = [binary("btsd"), role, "--data", self.file, "--listen", address(), "--name", self.name]
        self.d = Server(argv + list(args), self.where.file(self.name + ".log"))
        return self

    def follow(self, source, *args):
        return self.start("follower", "--from", source, *args)

    def replicate(self, listen=None):
        await_true(lambda: os.path.exists(self.file), what="the file of " + self.name)
        self.r = Server([binary("bts-replicator"), "--data", self.file, "--listen", listen or address()],
                        self.where.file(self.name + "-r.log"))
        return self

    def running(self):
        return [process for process in (self.d, self.r) if process and process.alive()]

    def kill(self):
        for process in self.running():
            process.kill()

    def stop(self):
        """Their exit statuses."""
        return [process.stop() for process in self.running()]

    @property
    def url(self):
        return self.d.url

    @property
    def source(self):
        return (self.r or self.d).url

    def post(self, what, **params):
        query = "&".join("%s=%s" % (k, quote(str(v))) for k, v in params.items())
        return self.d.request("POST", "/v1/admin/%s?%s" % (what, query))

    def role(self):
        return self.d.get("/v1/admin/promote").json()

    def values(self):
        """All of bucket b."""
        got, after = {}, ""
        while True:
            page = self.d.get("/v1/buckets/b/keys?values=true&limit=10000&after=" + quote(after)).json()
            got.update((i["key"], i["value"]) for i in page["items"])
            if not page["next"]:
                return got
            after = page["next"]
