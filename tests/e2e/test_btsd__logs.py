#!/usr/bin/env python3
"""The access log, the log of slow requests, and /metrics, read strictly."""
import base64
import json
import os
import re
import signal
import time
import unittest

import harness

COMBINED = re.compile(r'(\S+) - (\S+) \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "([A-Z]+|other) (\S+) HTTP/1\.1" (\d+) '
                      r'(\d+) "-" "([^"]*)" id=(\S+) route=(\S+) in=(\d+) us=(\d+) txid=(\d+)')


def lines(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return f.read().splitlines()


def await_lines(path, count):
    return harness.await_true(lambda: (lambda l: len(l) >= count and l)(lines(path)), what="%d lines in %s" % (count, path))


def json_primary(d, *args):
    argv = [harness.binary("btsd"), "primary", "--data", d.file("p.bts"), "--listen", "127.0.0.1:0", "--log-format", "json"]
    return harness.Server(argv + list(args), d.file("log"), ready=r'"event":"ready".*"listen":"127\.0\.0\.1:(\d+)"')


class AccessLog(unittest.TestCase):
    def test_combined(self):
        with harness.Dir() as d, harness.primary(d, "--access-log", d.file("access"), "--threads", "1") as p:
            p.request("PUT", "/v1/buckets/b")
            p.put("b", 'k"\n', b"value")
            p.request("GET", "/v1/buckets/b/keys/k%22%0A", headers={"User-Agent": 'a "b" \\ \xe9', "X-Request-Id": "mine.1"})
            p.request("HEAD", "/v1/buckets/b/keys/k%22%0A")
            p.request("GET", "/nowhere?a=b")
            p.request("BREW", "/v1/buckets")
            found = [COMBINED.fullmatch(line) for line in await_lines(d.file("access"), 6)]
            self.assertTrue(all(found), lines(d.file("access")))
            told = [(m[4], m[5], m[6], m[7], m[10], m[11], m[13]) for m in found]
            key, template = "/v1/buckets/b/keys/k%22%0A", "/v1/buckets/{bucket}/keys/{key}"
            self.assertEqual(told[1:4], [("PUT", key, "201", "0", template, "5", "3"), ("GET", key, "200", "5", template, "0", "3"),
                                         ("HEAD", key, "200", "0", template, "0", "3")])
            self.assertEqual(told[4][:3] + told[4][4:5], ("GET", "/nowhere?a=b", "404", "none"))
            self.assertEqual(told[5][:3], ("other", "/v1/buckets", "405"))
            self.assertEqual((found[2][1], found[2][2], found[2][8], found[2][9]),
                             ("127.0.0.1", "-", "a \\x22b\\x22 \\x5c \\xe9", "mine.1"))
            self.assertNotIn("value", "".join(lines(d.file("access"))))

    def test_json_and_sizes(self):
        with harness.Dir() as d, json_primary(d, "--access-log", d.file("access"), "--threads", "1") as p:
            p.request("PUT", "/v1/buckets/b")
            for i in range(300):
                p.put("b", "key%03d" % i, b"v" * 1000)
            listing = p.request("GET", "/v1/buckets/b/keys?values=1&limit=10000")
            load = b"".join(b'{"key":"l%d","value":"x"}\n' % i for i in range(1000))
            p.request("POST", "/v1/buckets/b/load", body=load)
            found = [json.loads(line) for line in await_lines(d.file("access"), 303)]
            self.assertEqual(set(found[0]), {"time", "request_id", "address", "token", "method", "target", "route", "status",
                                             "bytes_in", "bytes_out", "duration_us", "txid", "user_agent"})
            self.assertGreater(len(listing.body), 300000)
            self.assertEqual(found[301]["bytes_out"], len(listing.body))
            self.assertEqual((found[302]["bytes_in"], found[302]["route"]), (len(load), "/v1/buckets/{bucket}/load"))
            self.assertEqual([r["bytes_in"] for r in found[1:301]], [1000] * 300)
            self.assertGreater(found[302]["duration_us"], 0)
            p.put("b", "large", b"v" * 2000000)
            p.value("b", "large")
            image = p.get("/v1/backup")
            found = [json.loads(line) for line in await_lines(d.file("access"), 306)]
            self.assertEqual((found[304]["bytes_out"], found[305]["bytes_out"]), (2000000, len(image.body)))

    def test_rotation_and_off(self):
        with harness.Dir() as d:
            with open(d.file("conf"), "w") as f:
                f.write("access-log = %s\n" % d.file("access"))
            with harness.primary(d, "--config", d.file("conf")) as p:
                p.get("/v1/buckets")
                await_lines(d.file("access"), 1)
                os.rename(d.file("access"), d.file("access.1"))
                p.signal(signal.SIGHUP)
                harness.await_true(lambda: os.path.exists(d.file("access")), what="a new file")
                p.get("/v1/buckets?limit=1")
                self.assertIn("limit=1", await_lines(d.file("access"), 1)[0])
                self.assertEqual(len(lines(d.file("access.1"))), 1)
                with open(d.file("conf"), "w") as f:
                    f.write("access-log = %s\nlog-format = json\n" % d.file("no/such/folder"))
                reloads = p.log_text().count("event=reloaded")
                p.signal(signal.SIGHUP)
                p.wait_log("event=access-log-failed path=")
                p.wait_log("event=reload-failed")
                self.assertEqual(p.log_text().count("event=reloaded"), reloads)
                p.get("/v1/buckets?limit=2")
                self.assertIn("limit=2", await_lines(d.file("access"), 2)[1])
                with open(d.file("conf"), "w") as f:
                    f.write("access-log = off\n")
                reloads = p.log_text().count("event=reloaded")
                p.signal(signal.SIGHUP)
                harness.await_true(lambda: p.log_text().count("event=reloaded") > reloads, what="the reload")
                p.get("/v1/buckets?limit=3")
                self.assertEqual(p.stop(), 0)
                self.assertEqual(len(lines(d.file("access"))), 2)

    def test_stalled_reader(self):
        """Nobody reads the pipe: requests go on, lines are dropped and counted, and the server still stops."""
        with harness.Dir() as d:
            os.mkfifo(d.file("pipe"))
            reader = os.open(d.file("pipe"), os.O_RDONLY | os.O_NONBLOCK)
            try:
                with harness.primary(d, "--access-log", d.file("pipe"), "--threads", "1") as p, p.client() as c:
                    target = "/nowhere?" + "x" * 1900
                    deadline = time.monotonic() + 60
                    while b"\nbtsd_log_lines_dropped_total 0\n" in c.request("GET", "/metrics").body:
                        self.assertLess(time.monotonic(), deadline)
                        for _ in range(100):
                            self.assertEqual(c.request("GET", target).status, 404)
                    self.assertEqual(p.stop(), 0)
            finally:
                os.close(reader)

    def test_all_there_after_stop(self):
        with harness.Dir() as d, harness.primary(d, "--access-log", d.file("access")) as p:
            def ask(i):
                with p.client() as c:
                    for k in range(500):
                        c.request("GET", "/nowhere?%d.%d" % (i, k))
            harness.parallel(4, ask)
            self.assertEqual(p.stop(), 0)
            found = [COMBINED.fullmatch(line)[5] for line in lines(d.file("access"))]
            self.assertEqual(sorted(found), sorted("/nowhere?%d.%d" % (i, k) for i in range(4) for k in range(500)))


class SlowLog(unittest.TestCase):
    def test_parts(self):
        with harness.Dir() as d, harness.primary(d, "--slow-log", "100ms", "--name", "prime") as p:
            p.request("PUT", "/v1/buckets/b")
            token = p.put("b", "k", b"1").headers["BTS-Token"]
            p.get("/v1/buckets/b/keys/k", headers={"BTS-After": token})
            p.request("PUT", "/v1/buckets/b/keys/k?durability=replicated:1&timeout=300ms", body=b"2", headers={"X-Request-Id": "mine"})
            line = p.wait_log(r"event=slow-request id=mine .*\n").group(0)  # others may be slow, too, where the machine is
            found = dict(pair.split("=", 1) for pair in line.split())
            self.assertEqual((found["method"], found["route"], found["status"]), ("PUT", "/v1/buckets/{bucket}/keys/{key}", "202"))
            parts = {k: int(v) for k, v in found.items() if k.endswith("_us")}
            self.assertEqual(set(parts), {"receive_us", "wait_us", "queue_us", "commit_us", "copies_us", "job_us", "send_us", "other_us"})
            self.assertGreaterEqual(parts["copies_us"], 250000)
            self.assertEqual(sum(parts.values()), int(found["us"]))
            self.assertEqual([us for us in re.findall(r" us=(\d+)", p.log_text()) if int(us) < 100000], [])

    def test_wait(self):
        """A reader that asks for a commit which never comes waits, and is told where its time went."""
        with harness.Dir() as d, harness.primary(d, "--slow-log", "100ms") as p:
            p.request("PUT", "/v1/buckets/b")
            token = bytearray(base64.urlsafe_b64decode(p.put("b", "k", b"1").headers["BTS-Token"] + "==="))
            token[13] += 50
            text = base64.urlsafe_b64encode(bytes(token)).decode().rstrip("=")
            self.assertEqual(p.get("/v1/buckets/b/keys/k?wait=200ms", headers={"BTS-After": text}).status, 503)
            line = p.wait_log(r"event=slow-request .* method=GET .*").group(0)
            self.assertGreaterEqual(int(re.search(r" wait_us=(\d+)", line)[1]), 150000)


def parse(text):
    """The exposition format 0.0.4, strictly; {family: (type, {labels: value})}, histograms judged."""
    families, current = {}, None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        head = re.fullmatch(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)", line)
        if head and head[1] == "HELP":
            assert head[2] not in families, "twice: " + line
            current = head[2]
            families[current] = [None, {}]
        elif head:
            assert head[2] == current and families[current][0] is None and not families[current][1], line
            assert head[3] in ("counter", "gauge", "histogram"), line
            families[current][0] = head[3]
        else:
            m = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (\S+)', line)
            assert m, "not a sample: " + line
            kind = families[current][0]
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert m[1] in [current + s for s in suffixes], "%s among those of %s" % (line, current)
            assert (m[1], m[2]) not in families[current][1], "twice: " + line
            families[current][1][(m[1], m[2])] = float(m[3])
            assert kind != "counter" or current.endswith("_total"), "a counter without _total: " + current
    for name, (kind, samples) in families.items():
        assert kind, "no TYPE of " + name
        if kind == "histogram":
            judge(name, samples)
    return families


def judge(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        le = re.search(r',?le="([^"]+)"', labels or "")
        rest = (labels or "").replace(le[0], "") if le else labels or ""
        series.setdefault(rest, {"buckets": []})
        if sample.endswith("_bucket"):
            series[rest]["buckets"].append((float(le[1]), value))
        else:
            series[rest][sample[len(name):]] = value
    for rest, s in series.items():
        bounds, counts = zip(*s["buckets"])
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), (name, rest)
        assert list(counts) == sorted(counts), "not cumulative: %s{%s}" % (name, rest)
        assert counts[-1] == s["_count"] and s["_sum"] >= 0, (name, rest)


class Metrics(unittest.TestCase):
    def test_strict(self):
        with harness.Dir() as d, harness.primary(d, "--name", "prime") as p:
            with harness.follower(d, p, name="f1") as f:
                p.request("PUT", "/v1/buckets/b")
                for i in range(20):
                    p.put("b", "k%d" % i, b"x" * i * 100)
                for i in range(20):
                    p.value("b", "k%d" % (2 * i))
                p.get("/v1/buckets/b/keys?values=1")
                harness.await_equal(p, f)
                parse(f.get("/metrics").body.decode())

                def at_rest():  # a request is counted when it has ended, which may be after its reply was read
                    found = parse(p.get("/metrics").body.decode())
                    return found if found["btsd_requests_in_flight"][1][("btsd_requests_in_flight", None)] == 1 else None

                families = harness.await_true(at_rest, what="the end of all requests but one")
            with harness.replicator(d) as r:
                parse(r.get("/metrics").body.decode())
        times = families["btsd_request_seconds"][1]
        base = 'route="/v1/buckets/{bucket}/keys/{key}",method="GET",class="%s"'
        self.assertEqual([times[("btsd_request_seconds_count", base % c)] for c in ("2xx", "4xx")], [10, 10])
        self.assertEqual(families["btsd_request_body_bytes_total"][1][("btsd_request_body_bytes_total", None)], 19000)
        self.assertGreater(families["btsd_reply_body_bytes_total"][1][("btsd_reply_body_bytes_total", None)], 19000)

    def test_labels_are_bounded(self):
        """What clients choose (paths, methods, keys) makes no labels."""
        with harness.Dir() as d, harness.primary(d) as p, p.client() as c:
            def one_round(tag):
                for i in range(30):
                    c.request("GET", "/%s%d" % (tag, i))
                    c.request(("M%s%d" % (tag, i)).upper(), "/v1/buckets")
                    c.request("GET", "/v1/buckets/%s%d/keys/%d" % (tag, i, i))
                families = parse(c.request("GET", "/metrics").body.decode())
                return {key for family in families.values() for key in family[1]}
            one_round("a")
            before = one_round("b")
            self.assertEqual(before, one_round("c"))

    def test_parser_is_strict(self):
        good = "# HELP a_total x\n# TYPE a_total counter\na_total 1\n"
        parse(good)
        for bad in (good[:-1], good + "a_total 2\n", good.replace("counter", "count"), good + "b 1\n", good.replace("a_total", "a"),
                    "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
                    "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n", good + 'a_total{x="\\y"} 1\n'):
            with self.assertRaises(AssertionError, msg=bad):
                parse(bad)


if __name__ == "__main__":
    harness.main()
