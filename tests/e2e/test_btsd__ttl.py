"""Times to live: keys end when they should, everywhere, and nothing else does; under clocks that are set on and back too."""
import json
import os
import re
import struct
import time
import unittest

import harness
from harness import quote


class Clock:
    """What the started servers take for CLOCK_REALTIME is off by `seconds`."""

    def __init__(self, where):
        self.path = where.file("clock")
        self.set(0)

    def set(self, seconds):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as f:
            f.write(struct.pack("=q", int(seconds * 1e9)))

    def __enter__(self):
        os.environ["LD_PRELOAD"] = os.environ["CLOCK_PRELOAD"]
        os.environ["CLOCK_FILE"] = self.path
        os.environ["ASAN_OPTIONS"] = "verify_asan_link_order=0"
        return self

    def __exit__(self, *exc):
        for name in ("LD_PRELOAD", "CLOCK_FILE", "ASAN_OPTIONS"):
            del os.environ[name]


def put(p, key, value, ttl=None, headers=None, bucket="b"):
    target = "/v1/buckets/%s/keys/%s" % (bucket, quote(key))
    return p.request("PUT", target + ("?ttl=" + ttl if ttl else ""), value, headers)


def keys(p, bucket="b"):
    return [i["key"] for i in p.get("/v1/buckets/%s/keys" % bucket).json()["items"]]


def metric(p, name):
    match = re.search(r"^%s (\d+)$" % name, p.get("/metrics").body.decode(), re.M)
    return int(match.group(1))


def gone(p, key, timeout=30):
    harness.await_true(lambda: p.value("b", key).status == 404, timeout, "the end of %s" % key)


class Ttl(harness.Case):
    def primary(self, *args):
        p = harness.primary(self.dir, *args).__enter__()
        self.addCleanup(p.__exit__, None, None, None)
        p.request("PUT", "/v1/buckets/b")
        return p

    def test_ends_everywhere(self):
        with Clock(self.dir) as clock:
            self.ends_everywhere(self.primary(), clock)

    def ends_everywhere(self, p, clock):
        put(p, "stays", b"1")
        made = put(p, "goes", b"22", "1h")
        self.assertEqual(made.status, 201)
        self.assertRegex(made.headers["BTS-Expires"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        got = p.value("b", "goes")
        self.assertEqual((got.status, got.body, got.headers["BTS-Expires"]), (200, b"22", made.headers["BTS-Expires"]))
        self.assertIsNone(p.value("b", "stays").headers["BTS-Expires"])
        items = p.get("/v1/buckets/b/keys").json()["items"]
        self.assertEqual([(i["key"], i.get("expires")) for i in items],
                         [("goes", made.headers["BTS-Expires"]), ("stays", None)])
        clock.set(3601)
        self.assertEqual(p.value("b", "goes").status, 404)
        self.assertEqual(p.request("HEAD", "/v1/buckets/b/keys/goes").status, 404)
        self.assertEqual(keys(p), ["stays"])
        lines = p.get("/v1/buckets/b/keys?reverse=1", {"Accept": "application/x-ndjson"}).body.decode().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertEqual(p.request("DELETE", "/v1/buckets/b/keys/goes").status, 404)
        harness.await_true(lambda: p.get("/v1/buckets/b").json()["entries"] == 1, what="the sweep")
        harness.await_true(lambda: metric(p, "btsd_ttl_pending") == 0, what="the look after")
        self.assertEqual(metric(p, "btsd_ttl_expired_total"), 1)

    def test_conditions_and_status_before_the_sweep(self):
        """Absent from the instant on, whether the sweep has come or not; it looks once in a second, so that it can be before it."""
        with Clock(self.dir) as clock:
            p = self.primary()
            for turn in range(1, 21):
                swept, in_time = self.before_the_sweep(p, clock, 3601 * turn)
                if swept == 2:  # what was written anew in time had not been swept
                    return
                self.assertFalse(in_time, "%d swept" % swept)
            self.fail("never before the sweep")

    def before_the_sweep(self, p, clock, seconds):
        """How many it took, and whether all was asked for before it could come."""
        for key in ("a", "b", "c", "d"):
            counted = time.monotonic()
            put(p, key, b"1", "1h")
        before = metric(p, "btsd_ttl_expired_total")
        tag = p.value("b", "a").headers["ETag"]
        self.assertEqual(put(p, "a", b"2", "1h", {"If-None-Match": "*"}).status, 412)
        # Just after it has counted them, as near as can be told from here, the next look is a second away.
        end = asked = time.monotonic()
        while metric(p, "btsd_ttl_pending") != 4:
            counted, asked = asked, time.monotonic()
            self.assertLess(asked, end + 30, "the sweep to count")
        clock.set(seconds)
        self.assertEqual(p.value("b", "d").status, 404)
        self.assertEqual(put(p, "a", b"3", None, {"If-Match": tag}).status, 412)
        self.assertEqual(put(p, "b", b"3", None, {"If-None-Match": "*"}).status, 201)
        self.assertEqual(put(p, "c", b"3").status, 201)
        self.assertEqual(p.request("DELETE", "/v1/buckets/b/keys/d").status, 404)
        in_time = time.monotonic() < counted + 0.9
        harness.await_true(lambda: metric(p, "btsd_ttl_pending") == 0, what="the sweep")
        self.assertEqual(keys(p), ["b", "c"])
        return metric(p, "btsd_ttl_expired_total") - before, in_time

    def test_a_put_without_it_clears_it(self):
        with Clock(self.dir) as clock:
            p = self.primary()
            for key in ("plain", "longer", "beside", "deleted"):
                put(p, key, b"1", "1m")
            self.assertIsNone(put(p, "plain", b"2").headers["BTS-Expires"])
            put(p, "longer", b"2", "1d")
            p.request("DELETE", "/v1/buckets/b/keys/deleted")
            put(p, "deleted", b"2")
            p.stop()
            bts = harness.binary("bts")
            self.assertEqual(os.spawnv(os.P_WAIT, bts, [bts, "put", self.dir.file("primary.bts"), "b", "beside", "2"]), 0)
            p = self.primary()
            clock.set(120)
            harness.await_true(lambda: metric(p, "btsd_ttl_stale_total") == 1, what="the sweep")
            for key in ("plain", "longer", "beside", "deleted"):
                self.assertEqual(p.value("b", key).body, b"2", key)
            self.assertEqual(metric(p, "btsd_ttl_expired_total"), 0)
            harness.await_true(lambda: metric(p, "btsd_ttl_pending") == 1, what="the look after")

    def test_a_whole_load_and_many_at_once(self):
        p = self.primary()
        lines = "".join('{"key":"k%04d","value":"v"}\n' % i for i in range(3000))
        put(p, "zz", b"stays", "1h")
        self.assertEqual(p.request("POST", "/v1/buckets/b/load?ttl=1s", lines).json()["records"], 3000)
        gone(p, "k2999")
        harness.await_true(lambda: p.get("/v1/buckets/b").json()["entries"] == 1, what="the sweep")
        self.assertEqual(keys(p), ["zz"])
        harness.await_true(lambda: metric(p, "btsd_ttl_expired_total") == 3000, what="the count")

    def test_listings_pass_over_many(self):
        with self.primary().client() as client:
            client.request("PUT", "/v1/buckets/passed")
            load = b"".join(b'{"key":"k%05d","value":"v"}\n' % i for i in range(20000))
            self.assertEqual(client.request("POST", "/v1/buckets/passed/load?ttl=1ms", load).status, 200)
            client.request("PUT", "/v1/buckets/passed/keys/last", b"v")
            at = "/v1/buckets/passed/keys?snapshot=" + client.request("POST", "/v1/snapshots").json()["id"]
            for more in ("", "&reverse=1", "&limit=1"):
                page = client.request("GET", at + more).json()
                self.assertEqual(([i["key"] for i in page["items"]], page["next"]), (["last"], None))
            lines = client.request("GET", at, None, {"Accept": "application/x-ndjson"}).body.splitlines()
            self.assertEqual([json.loads(line).get("key", "end") for line in lines], ["last", "end"])
            self.assertEqual(client.request("GET", at + "&to=l").json()["items"], [])

    def test_restart_and_a_dropped_bucket(self):
        with Clock(self.dir) as clock:
            p = self.primary()
            p.request("PUT", "/v1/buckets/drop")
            put(p, "k", b"1", "1h", bucket="drop")
            put(p, "k", b"1", "1h")
            put(p, "later", b"1", "2h")
            p.request("DELETE", "/v1/buckets/drop")
            p.kill()
            clock.set(3601)
            p = self.primary()
            self.assertEqual(keys(p), ["later"])
            harness.await_true(lambda: metric(p, "btsd_ttl_pending") == 1, what="the sweep")
            self.assertEqual((metric(p, "btsd_ttl_expired_total"), metric(p, "btsd_ttl_stale_total")), (1, 1))

    def test_a_clock_set_back_brings_nothing_back(self):
        with Clock(self.dir) as clock:
            p = self.primary()
            clock.set(7200)
            put(p, "first", b"1", "100ms")
            gone(p, "first")
            p.wait_log(r"event=clock-stepped by_ms=(7200|7199)\d{3}\b")  # two clocks, read one after the other
            clock.set(0)
            self.assertEqual(p.value("b", "first").status, 404)
            put(p, "second", b"1", "100ms")
            gone(p, "second")
            p.wait_log(r"event=clock-stepped by_ms=-(7200|7199)\d{3}\b")

    def test_followers_judge_by_their_own_clocks(self):
        p = self.primary()
        with Clock(self.dir) as clock, harness.follower(self.dir, p.url) as f:
            put(p, "k", b"1", "1h")
            put(p, "gone", b"1", "1s")
            harness.await_equal(p, f)
            self.assertTrue(f.value("b", "k").headers["BTS-Expires"])
            gone(f, "gone")
            harness.await_true(lambda: p.get("/v1/buckets/b").json()["entries"] == 1, what="the sweep")
            harness.await_equal(p, f)
            self.assertEqual(f.get("/v1/buckets/b").json()["entries"], 1)
            clock.set(3601)
            self.assertEqual(f.value("b", "k").status, 404)
            self.assertEqual(keys(f), [])
            self.assertEqual(p.value("b", "k").status, 200)
            self.assertEqual(metric(f, "btsd_ttl_expired_total"), 0)

    def test_refused(self):
        p = self.primary()
        for ttl in ("0s", "-1s", "1", "s", "1y", "36601d", "", "1.5s", "99999999999999999999s"):
            for method, path in (("PUT", "keys/k"), ("POST", "load")):
                reply = p.request(method, "/v1/buckets/b/%s?ttl=%s" % (path, ttl), b'{"key":"k","value":"v"}')
                self.assertEqual((reply.status, reply.code), (400, "invalid-parameter"), (ttl, reply))
        self.assertEqual(keys(p), [])
        self.assertEqual(p.get("/v1/buckets").json()["items"][0]["name"], "b")
        put(p, "k", b"1", "36600d")
        self.assertEqual(put(p, "k", b"1", "4294967296ms").status, 200)
        self.assertEqual([i["name"] for i in p.get("/v1/buckets").json()["items"]], ["b"])


if __name__ == "__main__":
    harness.main()
