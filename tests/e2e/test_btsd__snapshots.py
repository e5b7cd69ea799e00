"""Snapshots over HTTP: leased ones (their time, limits, what reads on them see), named ones, both on a follower."""
import json
import re
import threading
import time
import unittest

import harness


def lease(server, ttl="600s", status=201):
    reply = server.request("POST", "/v1/snapshots", json.dumps({"ttl": ttl}).encode())
    assert reply.status == status, reply
    return reply.json().get("id")


def keys(server, query="", bucket="b"):
    return [i["key"] for i in server.get("/v1/buckets/%s/keys?limit=10000&%s" % (bucket, query)).json()["items"]]


def metric(server, name):
    return int(re.search(r"^%s (\d+)$" % name, server.get("/metrics").body.decode(), re.M).group(1))


class Case(harness.Case):
    def primary(self, *args):
        p = self.started(harness.primary(self.dir, *args))
        p.request("PUT", "/v1/buckets/b", b'{"content_type":"text/plain"}')
        p.put("b", "k", b"old")
        return p

    def refused(self, reply, status, code):
        self.assertEqual((reply.status, reply.code), (status, code), reply)


class Leased(Case):
    def test_every_read_sees_its_state(self):
        p = self.primary()
        made = p.request("POST", "/v1/snapshots", b'{"ttl":"30s"}')
        s = made.json()
        self.assertEqual(made.headers["Location"], "/v1/snapshots/" + s["id"])
        self.assertEqual(made.headers["BTS-Txid"], str(s["txid"]))
        self.assertIsNotNone(made.headers["BTS-Token"])
        self.assertLessEqual(s["ttl_ms"], 30000)
        self.assertRegex(s["expires"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        at = "?snapshot=" + s["id"]
        etag = p.value("b", "k").headers["ETag"]
        p.put("b", "k", b"new")
        p.put("b", "later", b"1")
        p.request("PUT", "/v1/buckets/second")
        for _ in range(3):
            got = p.get("/v1/buckets/b/keys/k" + at)
            self.assertEqual((got.status, got.body, got.headers["ETag"]), (200, b"old", etag))
            self.assertEqual((got.headers["BTS-Txid"], got.headers["BTS-Token"]), (str(s["txid"]), None))
        self.assertEqual(p.value("b", "k").body, b"new")
        self.refused(p.get("/v1/buckets/b/keys/later" + at), 404, "not-found")
        self.assertEqual(keys(p, at[1:]), ["k"])
        self.assertEqual([i["name"] for i in p.get("/v1/buckets" + at).json()["items"]], ["b"])
        self.assertEqual(p.get("/v1/buckets/b" + at).json()["entries"], 1)
        self.refused(p.get("/v1/buckets/second" + at), 404, "bucket-not-found")
        # Also when its bucket is gone.
        p.request("DELETE", "/v1/buckets/b")
        self.assertEqual(p.get("/v1/buckets/b/keys/k" + at).body, b"old")
        self.assertEqual(p.request("DELETE", "/v1/snapshots/" + s["id"]).status, 204)
        self.refused(p.get("/v1/buckets/b/keys/k" + at), 410, "snapshot-expired")
        self.refused(p.request("DELETE", "/v1/snapshots/" + s["id"]), 410, "snapshot-expired")
        self.assertEqual(p.status()["readers"], 0)

    def test_pages_of_one_listing(self):
        p = self.primary()
        lines = b"".join(b'{"key":"p%04d","value":"v"}\n' % i for i in range(1000))
        p.request("POST", "/v1/buckets/b/load", lines)
        id = lease(p)
        want, got, after = keys(p), [], ""
        while after is not None:
            page = p.get("/v1/buckets/b/keys?limit=97&snapshot=%s&after=%s" % (id, after)).json()
            got += [i["key"] for i in page["items"]]
            after = page["next"]
            # Between two pages what is listed goes away, and other keys come.
            p.request("DELETE", "/v1/buckets/b/keys/p%04d" % (len(got) * 7 % 1000))
            p.put("b", "p%04dx" % (len(got) * 3 % 1000), b"")
        self.assertEqual(got, want)
        self.assertNotEqual(keys(p), want)

    def test_its_time(self):
        p = self.primary()
        # Renewed before its time is up, which a machine that stands still may not let us.
        for ms in (300, 3000, 30000):
            begun = time.monotonic()
            short, long = lease(p, "%dms" % ms), lease(p, "300s")
            made = time.monotonic()
            both = [i["id"] for i in p.get("/v1/snapshots").json()["items"]]
            kept = p.request("PATCH", "/v1/snapshots/" + short, b'{"ttl":"400s"}').status
            if kept == 200 or time.monotonic() < begun + ms / 1000:
                break
            self.assertEqual(p.request("DELETE", "/v1/snapshots/" + long).status, 204)
            harness.await_true(lambda: p.status()["readers"] == 0, what="the end of both")
        self.assertEqual((both, kept), ([short, long], 200))
        timed_out = metric(p, "btsd_leased_snapshots_timed_out_total")
        renewed = p.request("PATCH", "/v1/snapshots/" + long, b'{"ttl":"200ms"}')
        self.assertEqual(renewed.status, 200)
        self.assertLessEqual(renewed.json()["ttl_ms"], 200)
        # The pages are let go without anybody asking for them.
        harness.await_true(lambda: p.status()["readers"] == 1, what="the lease to end")
        harness.await_true(lambda: time.monotonic() > made + ms / 1000, 60, "the other's first time to be over")
        self.refused(p.get("/v1/buckets/b/keys/k?snapshot=" + long), 410, "snapshot-expired")
        self.refused(p.request("PATCH", "/v1/snapshots/" + long, b'{"ttl":"1s"}'), 410, "snapshot-expired")
        self.assertEqual(p.get("/v1/buckets/b/keys/k?snapshot=" + short).body, b"old")
        self.assertEqual([i["id"] for i in p.get("/v1/snapshots").json()["items"]], [short])
        self.assertEqual(metric(p, "btsd_leased_snapshots_timed_out_total"), timed_out + 1)

    def test_what_is_refused(self):
        p = self.primary("--snapshots-max", "2", "--snapshot-ttl-max", "10s")
        for body, code in ((b"{", "malformed-json"), (b'{"ttl":5}', "invalid-body"), (b'{"ttl":"11s"}', "invalid-body"),
                           (b'{"ttl":"0s"}', "invalid-body"), (b'{"time":"1s"}', "invalid-body")):
            self.refused(p.request("POST", "/v1/snapshots", body), 400, code)
        a, b = lease(p, "10s"), lease(p, "10s")
        self.assertNotEqual(a, b)
        reply = p.request("POST", "/v1/snapshots")
        self.refused(reply, 503, "too-many-snapshots")
        self.assertEqual(reply.headers["Retry-After"], "1")
        self.assertEqual(p.request("DELETE", "/v1/snapshots/" + a).status, 204)
        self.assertLessEqual(p.request("POST", "/v1/snapshots").json()["ttl_ms"], 10000)
        # Ids of nobody, and ones with a character changed.
        other = b[:5] + ("A" if b[5] != "A" else "B") + b[6:]
        for id in ("x", other, "", "name:", "name:none", "name:" + "x" * 256, "%00", b + "A"):
            self.refused(p.get("/v1/buckets/b/keys/k?snapshot=" + id), 404, "snapshot-not-found")
        for id in ("x", other, b + "A"):
            self.refused(p.request("PATCH", "/v1/snapshots/" + id, b""), 404, "snapshot-not-found")
            self.refused(p.request("DELETE", "/v1/snapshots/" + id), 404, "snapshot-not-found")
        self.refused(p.request("PUT", "/v1/buckets/b/keys/k?snapshot=" + b, b""), 400, "unknown-parameter")
        self.assertEqual(p.request("OPTIONS", "/v1/snapshots/" + b).headers["Allow"], "DELETE, PATCH, OPTIONS")

    def test_one_that_keeps_too_much(self):
        p = self.primary("--snapshot-bytes-max", "1048576")
        p.put("b", "big", b"x" * 4000000)
        id = lease(p)
        p.put("b", "big", b"y" * 4000000)
        harness.await_true(lambda: p.get("/v1/buckets/b/keys/k?snapshot=" + id).status == 410, 10, "the lease to be ended")
        self.assertIn(b"btsd_leased_snapshots_expired_total 1\n", p.get("/metrics").body)
        self.assertEqual(p.status()["readers"], 0)

    def test_many_at_once(self):
        p = self.primary()
        wrong = []

        def one(n):
            with p.client() as c:
                for i in range(20):
                    c.request("PUT", "/v1/buckets/b/keys/own%d" % n, b"%d" % i)
                    id = c.request("POST", "/v1/snapshots", b'{"ttl":"60s"}').json()["id"]
                    c.request("PUT", "/v1/buckets/b/keys/own%d" % n, b"other")
                    got = c.request("GET", "/v1/buckets/b/keys/own%d?snapshot=%s" % (n, id)).body
                    if got != b"%d" % i or c.request("DELETE", "/v1/snapshots/" + id).status != 204:
                        wrong.append((n, i, got))

        threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])
        self.assertEqual(p.get("/v1/snapshots").json()["items"], [])
        # A stop does not wait for leases, nor for a reader that is still being sent to.
        lease(p)

    def test_a_reader_outlives_its_lease(self):
        p = self.primary()
        p.put("b", "big", b"x" * 40000000)
        id = lease(p)
        with p.client() as c:
            c.http.request("GET", "/v1/buckets/b/keys/big?snapshot=" + id)
            got = c.http.getresponse()
            first = got.read(1000)
            self.assertEqual(p.request("DELETE", "/v1/snapshots/" + id).status, 204)
            p.request("DELETE", "/v1/buckets/b/keys/big")
            for i in range(5):
                p.put("b", "big%d" % i, b"y" * 10000000)
            self.assertEqual(first + got.read(), b"x" * 40000000)


class Named(Case):
    def test_life(self):
        p = self.primary()
        made = p.request("PUT", "/v1/snapshots/named/one")
        self.assertEqual(made.status, 201, made)
        one = made.json()
        self.assertEqual((one["name"], one["buckets"]), ("one", 1))
        self.assertEqual(made.headers["BTS-Txid"], str(one["txid"]))
        self.assertIsNotNone(made.headers["BTS-Token"])
        p.put("b", "k", b"new")
        self.refused(p.request("PUT", "/v1/snapshots/named/one"), 409, "snapshot-exists")
        got = p.get("/v1/buckets/b/keys/k?snapshot=name:one")
        self.assertEqual((got.body, got.headers["BTS-Txid"]), (b"old", str(one["txid"])))
        self.assertEqual(p.get("/v1/snapshots/named/one").json(), one)
        for name in ("none", "on", "onee", "%00"):
            self.refused(p.get("/v1/snapshots/named/" + name), 404, "snapshot-not-found")
            self.refused(p.request("DELETE", "/v1/snapshots/named/" + name), 404, "snapshot-not-found")
        self.refused(p.get("/v1/snapshots/named/" + "x" * 256), 400, "snapshot-name-too-long")
        self.refused(p.get("/v1/snapshots/named/"), 400, "snapshot-name-empty")
        self.assertEqual(p.stop(), 0)
        p = self.started(harness.primary(self.dir))
        self.assertEqual(p.get("/v1/snapshots/named/one").json(), one)
        self.assertEqual(p.get("/v1/buckets/b/keys/k?snapshot=name:one").body, b"old")
        self.assertEqual(p.request("DELETE", "/v1/snapshots/named/one").status, 204)
        self.refused(p.get("/v1/buckets/b/keys/k?snapshot=name:one"), 404, "snapshot-not-found")
        self.assertEqual(p.request("PUT", "/v1/snapshots/named/one").status, 201)
        self.assertEqual(p.get("/v1/buckets/b/keys/k?snapshot=name:one").body, b"new")

    def test_names_are_bytes(self):
        p = self.primary()
        names = ["a%00", "a%00%01", "a%2Fb", "%FF%FE", "%01", "a", "a%FF", "name%3A1", "%C3%A9"]
        for name in names:
            self.assertEqual(p.request("PUT", "/v1/snapshots/named/" + name).status, 201)
        self.assertEqual(p.request("PUT", "/v1/snapshots/named/eA?enc=b64u").json()["name"], "x")
        for name in names + ["x"]:
            self.assertEqual(p.get("/v1/snapshots/named/" + name).status, 200, name)
            self.assertEqual(p.get("/v1/buckets/b/keys/k?snapshot=name:" + name).body, b"old")
        got, after = [], ""
        while after is not None:
            page = p.get("/v1/snapshots/named?limit=3&after=" + after).json()
            got += page["items"]
            after = page["next"]
        self.assertEqual(len(got), len(names) + 1)
        self.assertEqual(got, p.get("/v1/snapshots/named").json()["items"])
        self.assertIn("//4=", [i.get("name_base64") for i in got])

    def test_a_group_of_them(self):
        p = self.primary()
        made = []

        def one(n):
            made.append(p.request("PUT", "/v1/snapshots/named/same").status)
            p.put("b", "own%d" % n, b"%d" % n)
            made.append(p.request("PUT", "/v1/snapshots/named/own%d" % n).status)

        threads = [threading.Thread(target=one, args=(n,)) for n in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sorted(made), [201] * 13 + [409] * 11)
        for n in range(12):
            self.assertEqual(p.get("/v1/buckets/b/keys/own%d?snapshot=name:own%d" % (n, n)).body, b"%d" % n)


class Follower(Case):
    def test_both(self):
        p = self.primary()
        f = self.started(harness.follower(self.dir, p, primary_url=p.url))
        harness.await_equal(p, f)
        reply = f.request("PUT", "/v1/snapshots/named/one")
        self.assertEqual((reply.status, reply.code, reply.headers["Location"]),
                         (307, "not-primary", p.url + "/v1/snapshots/named/one"))
        self.assertEqual(f.request("DELETE", "/v1/snapshots/named/one").status, 307)
        token = p.request("PUT", "/v1/snapshots/named/one").headers["BTS-Token"]
        self.assertEqual(f.get("/v1/snapshots/named/one", {"BTS-After": token}).status, 200)
        token = p.put("b", "more", b"x" * 100000).headers["BTS-Token"] # what only the lease will need
        made = f.request("POST", "/v1/snapshots", b"", {"BTS-After": token})
        self.assertEqual(made.status, 201, made)
        id = made.json()["id"]
        p.request("DELETE", "/v1/buckets/b/keys/more")
        for i in range(20):
            token = p.put("b", "k%d" % i, b"new%d" % i * 25000).headers["BTS-Token"]
        self.assertEqual(f.value("b", "k19", {"BTS-After": token}).body, b"new19" * 25000)
        self.assertEqual(f.get("/v1/buckets/b/keys/more?snapshot=" + id).body, b"x" * 100000)
        for at in (id, "name:one"):
            self.assertEqual(f.get("/v1/buckets/b/keys/k?snapshot=" + at).body, b"old")
        # A promotion goes ahead whatever was leased, which keeps pages of frames from their places.
        self.assertGreater(f.status()["redirected_pages"], 0)
        self.assertEqual(p.request("POST", "/v1/admin/demote").status, 200)
        harness.await_equal(p, f)
        reply = f.request("POST", "/v1/admin/promote?force=1")
        self.assertEqual(reply.status, 200, reply)
        self.assertEqual(f.put("b", "k", b"mine").status, 200)
        self.assertEqual(f.get("/v1/buckets/b/keys/k?snapshot=name:one").body, b"old")
        self.refused(f.get("/v1/buckets/b/keys/k?snapshot=" + id), 410, "snapshot-expired")


if __name__ == "__main__":
    unittest.main()
