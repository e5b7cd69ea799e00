#!/usr/bin/env python3
"""Settings of the programs: where they come from and which counts, what is refused, reload, the service manager, the examples."""
import os
import re
import signal
import socket
import subprocess
import unittest

import harness

EXAMPLE = os.path.join(harness.TREE, "deploy", "btsd.conf")
GOOD = ["primary", "--data", "x", "--listen", "127.0.0.1:0"]


def run(*args, program="btsd", env=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BTS_")}
    return subprocess.run([harness.binary(program)] + list(args), capture_output=True, text=True, timeout=20,
                          env=dict(clean, **(env or {})))


def printed(*args, program="btsd", env=None):
    """--print-config as {name: (value, origin)}; (None, None) for what is not set."""
    done = run(*args, "--print-config", program=program, env=env)
    assert done.returncode == 0, done
    found = {}
    for line in done.stdout.splitlines():
        m = re.fullmatch(r"([a-z-]+) = (.*) ; (.*)|; ([a-z-]+) is not set", line)
        found[m[1] or m[4]] = (m[2], m[3])
    return found


class Origins(unittest.TestCase):
    def test_precedence(self):
        """One setting of each kind: default, file, environment, command line."""
        kinds = {"name": ("f", "e", "c"), "data": ("/f", "/e", "/c"), "members": ("f,g", "e,g", "c,g"),
                 "listen": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), "max-body": ("1M", "2M", "3M"),
                 "slow-log": ("1s", "2s", "3s"), "threads": ("1", "2", "3"), "log-format": ("json", "text", "json"),
                 "zstd": ("true", "false", "true")}
        base = ["follower", "--from", "http://x", "--data", "x", "--listen", "127.0.0.1:0"]
        with harness.Dir() as d:
            for name, (in_file, in_env, in_args) in kinds.items():
                with open(d.file("conf"), "w") as f:
                    f.write("\n%s = %s\n" % (name, in_file))
                args = [a for i, a in enumerate(base) if a != "--" + name and base[i - 1] != "--" + name]
                args += ["--config", d.file("conf")]
                env = {"BTS_" + name.upper().replace("-", "_"): in_env}
                self.assertEqual(printed(*args)[name], (in_file, d.file("conf") + ":2"))
                self.assertEqual(printed(*args, env=env)[name], (in_env, list(env)[0]))
                self.assertEqual(printed(*args, "--%s=%s" % (name, in_args), env=env)[name], (in_args, "command line"))
        self.assertEqual(printed(*GOOD)["max-body"], ("64M", "default"))
        self.assertEqual(printed(*GOOD)["members"], (None, None))

    def test_all_from_the_environment(self):
        env = {"BTS_ROLE": "follower", "BTS_DATA": "/d", "BTS_LISTEN": "127.0.0.1:0", "BTS_FROM": "http://h:1"}
        self.assertEqual(printed(env=env)["role"], ("follower", "BTS_ROLE"))
        self.assertEqual(run("--check-config", env=dict(env, BTS_FROM="")).returncode, 2)

    def test_the_printed_is_a_file(self):
        with harness.Dir() as d:
            for program, args in (("btsd", GOOD), ("bts-replicator", GOOD[1:])):
                with open(d.file("conf"), "w") as f:
                    f.write(run(*args, "--print-config", program=program).stdout)
                again = printed("--config", d.file("conf"), program=program)
                before = printed(*args, program=program)
                self.assertEqual({k: v[0] for k, v in again.items()}, {k: v[0] for k, v in before.items()})

    def test_one_file_for_both(self):
        with harness.Dir() as d:
            with open(d.file("conf"), "w") as f:
                f.write("data = /d\n[btsd]\nrole = primary\nlisten = 127.0.0.1:1\n[bts-replicator]\nlisten = 127.0.0.1:2\n")
            self.assertEqual(printed("--config", d.file("conf"))["listen"][0], "127.0.0.1:1")
            self.assertEqual(printed("--config", d.file("conf"), program="bts-replicator")["listen"][0], "127.0.0.1:2")


class Refused(unittest.TestCase):
    def refused(self, word, *args, **more):
        done = run(*args, **more)
        self.assertEqual(done.returncode, 2, done)
        self.assertIn(word, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_unknown(self):
        with harness.Dir() as d:
            with open(d.file("conf"), "w") as f:
                f.write("# ours\nmax-boby = 1M\n")
            for program in ("btsd", "bts-replicator"):
                self.refused(d.file("conf") + ":2: unknown setting 'max-boby'", "--config", d.file("conf"), program=program)
                self.refused("BTS_MAX_BOBY is no setting of " + program, env={"BTS_MAX_BOBY": "1M"}, program=program)
                self.refused("unknown option '--max-boby'", "--max-boby", "1M", program=program)
                self.refused("cannot read", "--config", d.file("none"), program=program)

    def test_failover_names_its_members(self):
        """Copies at other nodes would count, and not survive an election."""
        given = GOOD + ["--name", "n", "--failover", "etcd://h:1/k", "--failover-members", "http://g:1", "--survive", "1", "--check-config"]
        self.refused("--failover needs --members", *given)
        self.assertEqual(run(*given, "--members", "n,g").returncode, 0)

    def test_no_passwords_in_urls(self):
        """They would be logged, and told to others."""
        follower = ["follower", "--data", "x", "--listen", "127.0.0.1:0"]
        self.refused("--from", *follower, "--from", "http://me:secret@h:1", "--check-config")
        self.refused("--url", *GOOD, "--url", "http://me:secret@h:1", "--check-config")
        self.refused("--primary-url", *follower, "--from", "http://h:1", "--primary-url", "http://me@h:1", "--check-config")
        self.refused("--from", *GOOD[1:], "--admin", "--name", "n", "--from", "http://me:secret@h:1", "--check-config",
                     program="bts-replicator")

    def test_urls(self):
        follower = ["follower", "--data", "x", "--listen", "127.0.0.1:0", "--from", "http://h:1"]
        for url, right in (("http://h:8470", True), ("https://h", True), ("http://h:1/base", True), ("http://[::1]:2", True), ("ftp://h:1", False),
                           ("http://", False), ("http://:1", False), ("http://h:", False), ("http://h:0", False), ("http://h:65536", False),
                           ("http://h:x", False), ("http://h:1?x", False), ("http://h:1,http://g:1", False)):
            for name, rest in (("--url", GOOD), ("--primary-url", follower)):
                done = run(*rest, name, url, "--check-config")
                self.assertEqual(done.returncode, 0 if right else 2, (name, url, done.stderr))
                self.assertTrue(right or name in done.stderr, done.stderr)

    def test_check_config(self):
        done = run(*GOOD, "--check-config")
        self.assertEqual((done.returncode, done.stdout), (0, "btsd: the settings are right\n"))
        self.assertFalse(os.path.exists("x"))
        self.refused("--max-body '1': must be a number of bytes", *GOOD, "--max-body", "1", "--check-config")
        self.refused("a follower needs --from", "follower", *GOOD[1:], "--check-config")
        self.refused("--listen HOST:PORT is missing", "--data", "x", "--check-config", program="bts-replicator")

    def test_what_cannot_work(self):
        follower = ["follower", "--data", "x", "--listen", "127.0.0.1:0"]
        replicator = ["--data", "x", "--listen", "127.0.0.1:0"]
        given = GOOD + ["--members", "a,b", "--check-config"]
        self.refused("more copies than --members", *given, "--durability", "replicated:3")
        self.refused("more copies than --members", *given, "--name", "a", "--durability", "replicated:2")
        for right in (("replicated:2",), ("replicated:1", "--name", "a"), ("archived",)):
            self.assertEqual(run(*given, "--durability", *right).returncode, 0)
        for wrong in ("http://a,ftp://b", "http://a:1,", "http://a:65536", "http://a:x", "http://a:", "http://:1", "http://[::1]x", "http://[::1"):
            self.refused("--from", *follower, "--from", wrong, "--check-config")
            self.refused("--from", *replicator, "--admin", "--name", "n", "--from", wrong, "--check-config", program="bts-replicator")
            self.refused("--scrub", *replicator, "--scrub", wrong, "--check-config", program="bts-replicator")
        for right in ("http://a", "http://a:65535/,https://[::1]:1", "http://[::1]"):
            self.assertEqual(run(*follower, "--from", right, "--check-config").returncode, 0, right)
        self.assertEqual(run(*replicator, "--scrub", "", "--check-config", program="bts-replicator").returncode, 0)
        for wrong in ("http://a", "a/b", "a b", "a,,b", "a\x01", "a:80", "[::1]"):
            self.refused("--allow-host", *GOOD, "--allow-host", wrong, "--check-config")
            self.refused("--allow-host", *replicator, "--allow-host", wrong, "--check-config", program="bts-replicator")
        self.assertEqual(run(*GOOD, "--allow-host", "*,a.example,192.0.2.1,2001:db8::1,a_b", "--check-config").returncode, 0)
        self.refused("0.0.0.0 or [::]", *GOOD[:3], "--listen", "*:0", "--check-config")

    def test_ours_may_be_there(self):
        self.assertEqual(run(*GOOD, "--check-config", env={"BTS_BIN": "/x", "BTS_SEED": "1", "BTS_KEEP": "1"}).returncode, 0)

    def test_example(self):
        for program in ("btsd", "bts-replicator"):
            done = run("--config", EXAMPLE, "--check-config", program=program)
            self.assertEqual(done.returncode, 0, done)
        with open(EXAMPLE, encoding="utf-8") as f:
            named = set(re.findall(r"^;?([a-z][a-z-]+) = ", f.read(), re.M))
        known = set(printed(*GOOD)) | set(printed(*GOOD[1:], program="bts-replicator"))
        self.assertEqual(named - known, set(), "the example has settings that are not there")

    def test_example_with_all(self):
        """What the example has as a comment is right, too."""
        with harness.Dir() as d:
            with open(EXAMPLE, encoding="utf-8") as f, open(d.file("conf"), "w") as out:
                for line in f:
                    m = re.match(r";([a-z][a-z-]+) = ", line)
                    out.write(line[1:] if m and m[1] not in FILES else line)
            done = run("--config", d.file("conf"), "--role", "follower", "--check-config")
            self.assertEqual(done.returncode, 0, done)


# Of settings that name files which must be there.
FILES = {"tls-cert", "tls-key", "tls-ca", "client-ca", "token-file", "upstream-token"}


class Reload(unittest.TestCase):
    def conf(self, d, text):
        with open(d.file("conf"), "w") as f:
            f.write(text)

    def hup(self, p, pattern):
        seen = len(re.findall(pattern, p.log_text()))
        p.signal(signal.SIGHUP)
        harness.await_true(lambda: len(re.findall(pattern, p.log_text())) > seen, what=pattern)

    def test_btsd(self):
        with harness.Dir() as d:
            self.conf(d, "max-value = 1M\nthreads = 1\n")
            with harness.primary(d, "--config", d.file("conf")) as p:
                p.request("PUT", "/v1/buckets/b")
                self.assertEqual(p.put("b", "k", b"x" * 600000).status, 201)
                self.conf(d, "max-value = 512K\nthreads = 2\nlog-format = json\n")
                self.hup(p, r'"event":"reloaded".*"changed":2,"needs_restart":"threads"')
                self.assertEqual(p.put("b", "k", b"x" * 600000).status, 413)
                self.conf(d, "max-value = 2M\nwrong = 1\n")
                self.hup(p, r'"event":"reload-failed","detail":"[^"]*conf:2: unknown setting \'wrong\'"')
                self.assertEqual(p.put("b", "k", b"x" * 600000).status, 413)
                self.conf(d, "log-level = error\nthreads = 1\n")
                p.signal(signal.SIGHUP)
                harness.await_true(lambda: p.put("b", "k", b"x" * 600000).status == 200, what="the default again")
                self.assertEqual(p.stop(), 0)
                self.assertNotIn("stopped", p.log_text())

    def test_replicator(self):
        with harness.Dir() as d, harness.primary(d):
            self.conf(d, "")
            with harness.replicator(d, "--config", d.file("conf")) as r:
                self.conf(d, "log-format = json\nwait-max = 1s\n")
                self.hup(r, r'"event":"reloaded","text":"1 changed, needs a restart: wait-max"')
                self.conf(d, "log-format = xml\n")
                self.hup(r, r'"event":"reload-failed".*conf:1: log-format')
                self.assertEqual(r.get("/livez").status, 200)
                self.assertEqual(r.stop(), 0)


class Notify(unittest.TestCase):
    """What a service manager is told, by the datagrams of sd_notify."""

    def told(self, s):
        return s.recv(4096).decode().splitlines()

    def check(self, d, start):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(d.file("notify"))
            s.settimeout(20)
            os.environ["NOTIFY_SOCKET"] = d.file("notify")
            try:
                p = start()
            finally:
                del os.environ["NOTIFY_SOCKET"]
            with p:
                self.assertIn("READY=1", self.told(s))
                p.signal(signal.SIGHUP)
                reloading = self.told(s)
                self.assertIn("RELOADING=1", reloading)
                self.assertRegex(" ".join(reloading), r"MONOTONIC_USEC=\d+")
                self.assertIn("READY=1", self.told(s))
                self.assertEqual(p.stop(), 0)
                self.assertIn("STOPPING=1", self.told(s))
            os.unlink(d.file("notify"))

    def test_both(self):
        with harness.Dir() as d:
            self.check(d, lambda: harness.primary(d))
            self.check(d, lambda: harness.replicator(d))


if __name__ == "__main__":
    harness.main()
