"""POST /v1/txn and POST /v1/get: random transactions against an oracle, counters under concurrency, what is refused, idempotency keys
over restarts, kill -9 and a promotion.  BTS_SEED is the seed."""
import base64
import http.client
import json
import os
import random
import threading
import time

import harness
from harness import bytes_of

SEED = int(os.environ.get("BTS_SEED") or random.SystemRandom().randrange(1 << 32))
LOST = (OSError, http.client.HTTPException)


def put_bytes(item, name, value, rng=None):
    """value under name, or as base64 where it must be or chance wants it."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text or (rng and rng.random() < 0.3):
        item[name + "_base64"] = base64.b64encode(value).decode()
    else:
        item[name] = text
    return item


class Txn(harness.SharedCase):
    ARGS = ("--txn-max-ops", "2000", "--txn-max-bytes", "1M")

    @classmethod
    def setUpClass(cls):
        print("seed", SEED)
        super().setUpClass()

    def post(self, body, path="/v1/txn", headers=None, query=""):
        body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return self.client.request("POST", path + query, body, headers)

    def done(self, body, **more):
        reply = self.post(body, **more)
        self.assertEqual(reply.status, 200, reply)
        result = reply.json()
        self.assertEqual(result["txid"], int(reply.headers["BTS-Txid"]))
        self.assertTrue(reply.headers["BTS-Token"])
        return result

    def refused(self, body, status, code, path="/v1/txn", headers=None, **members):
        reply = self.post(body, path, headers)
        self.assertEqual((reply.status, reply.code), (status, code), (body, reply))
        self.assertEqual(reply.headers["Content-Type"], "application/problem+json")
        problem = reply.json()
        self.assertEqual({k: problem.get(k) for k in ("branch", "operation", "condition")},
                         dict({"branch": None, "operation": None, "condition": None}, **members), (body, reply))
        return problem


class Semantics(Txn):
    def test_each_operation(self):
        b = self.bucket()
        r = self.done({"then": [
            {"op": "put", "bucket": b, "key": "a", "value": "1"}, {"op": "get", "bucket": b, "key": "a"},
            {"op": "incr", "bucket": b, "key": "a"}, {"op": "incr", "bucket": b, "key": "n", "by": -5},
            {"op": "put", "bucket": b, "key": "p/1", "value": ""}, {"op": "put", "bucket": b, "key": "p/2", "value_base64": "AP8="},
            {"op": "get", "bucket": b, "key": "p/2"}, {"op": "delete", "bucket": b, "key": "p/1"},
            {"op": "delete", "bucket": b, "key": "p/1"}, {"op": "get", "bucket": b, "key": "p/1"},
            {"op": "delete_range", "bucket": b, "prefix": "p/"}, {"op": "get", "bucket": b, "key": "p/2"}]})
        v = r["txid"]
        self.assertEqual(r, {"committed": True, "branch": "then", "txid": v, "results": [
            {"version": v}, {"found": True, "version": v, "value": "1"}, {"number": 2, "version": v}, {"number": -5, "version": v},
            {"version": v}, {"version": v}, {"found": True, "version": v, "value_base64": "AP8="}, {"deleted": True},
            {"deleted": False}, {"found": False}, {"deleted": 1}, {"found": False}]})
        got = self.p.value(b, "a")
        self.assertEqual((got.body, got.headers["ETag"]), (b"2", '"%d"' % v))
        self.assertEqual(self.p.value(b, "n").body, b"-5")

    def test_branches(self):
        b = self.bucket()
        put = {"op": "put", "bucket": b, "key": "k", "value": "v"}
        held = {"bucket": b, "key": "k", "exists": False}
        first = self.done({"if": [held], "then": [put]})
        problem = self.refused({"if": [{"bucket": b, "key": "k", "exists": True}, held], "then": [put]}, 412, "precondition-failed",
                               condition=1)
        self.assertEqual(problem["version"], first["txid"])
        problem = self.refused({"if": [{"bucket": b, "key": "x", "exists": True}], "then": [put]}, 412, "precondition-failed",
                               condition=0)
        self.assertNotIn("version", problem)
        r = self.done({"if": [held], "then": [put], "else": [{"op": "get", "bucket": b, "key": "k"}]})
        self.assertEqual(r, {"committed": False, "branch": "else", "txid": first["txid"],
                             "results": [{"found": True, "version": first["txid"], "value": "v"}]})
        r = self.done({"if": [held], "then": [put], "else": [dict(put, value="w")]})
        self.assertEqual((r["committed"], r["branch"], r["txid"]), (True, "else", first["txid"] + 1))
        version = r["txid"]
        for condition, holds in (({"version": version}, True), ({"version": version - 1}, False), ({"version": 0}, False),
                                 ({"value": "w"}, True), ({"value_base64": "dw=="}, True), ({"value": "v"}, False), ({"value": ""}, False),
                                 ({"exists": True}, True), ({"exists": False}, False)):
            reply = self.post({"if": [dict(condition, bucket=b, key="k")]})
            self.assertEqual(reply.status, 200 if holds else 412, condition)
            if holds:
                self.assertEqual(reply.json(), {"committed": False, "branch": "then", "txid": version, "results": []})
        for condition, holds in (({"version": 0}, True), ({"version": 1}, False), ({"value": ""}, False), ({"exists": False}, True)):
            self.assertEqual(self.post({"if": [dict(condition, bucket=b, key="none")]}).status, 200 if holds else 412, condition)
        for body in ({"then": []}, {"if": [], "then": [], "else": []}, {"if": []}):
            self.assertEqual(self.done(body), {"committed": False, "branch": "then", "txid": version, "results": []})
        r = self.done({"then": [{"op": "delete", "bucket": b, "key": "none"}]})
        self.assertEqual(r, {"committed": False, "branch": "then", "txid": version, "results": [{"deleted": False}]})

    def test_all_or_nothing(self):
        b = self.bucket()
        self.done({"then": [{"op": "put", "bucket": b, "key": "text", "value": "x"},
                            {"op": "put", "bucket": b, "key": "large", "value": "9223372036854775807"},
                            {"op": "put", "bucket": b, "key": "larger", "value": "9223372036854775808"}]})
        before = self.p.status()
        put = {"op": "put", "bucket": b, "key": "new", "value": "v"}
        for op, status, code in (
                ({"op": "incr", "bucket": b, "key": "text"}, 409, "not-a-number"),
                ({"op": "incr", "bucket": b, "key": "large"}, 409, "overflow"),
                ({"op": "incr", "bucket": b, "key": "larger", "by": 0}, 409, "overflow"),
                ({"op": "incr", "bucket": b, "key": "none", "create": False}, 404, "not-found"),
                ({"op": "get", "bucket": "no such", "key": "k"}, 404, "bucket-not-found"),
                ({"op": "put", "bucket": "no such", "key": "k", "value": ""}, 404, "bucket-not-found")):
            self.refused({"then": [put, put, op, put]}, status, code, branch="then", operation=2)
            self.refused({"if": [{"bucket": b, "key": "new", "exists": True}], "else": [put, op]}, status, code, branch="else", operation=1)
        self.refused({"if": [{"bucket": "no such", "key": "k", "exists": False}], "then": [put]}, 404, "bucket-not-found", condition=0)
        self.assertEqual(self.p.value(b, "new").status, 404)
        after = self.p.status()
        self.assertEqual((after["txid"], after["root_digest"]), (before["txid"], before["root_digest"]))
        self.assertEqual(self.done({"then": [{"op": "incr", "bucket": b, "key": "large", "by": -9223372036854775807}]})["results"][0]["number"], 0)

    def test_refused(self):
        b = self.bucket()
        put = {"op": "put", "bucket": b, "key": "k", "value": "v"}
        for body in ("", "{", "[]", '{"then":[]} x', '{"then":[],"then":[]}', '{"then":[{"op":"get","bucket":"b","key":"k","key":"k"}]}',
                     '{"then":[{"op":"get","bucket":"b","key":"k\\u0000"}]}', b'{"then":[{"op":"get","bucket":"b","key":"\xff"}]}',
                     '{"then":[{"op":[[]]}]}', '{"then":[{"by":9223372036854775808}]}', '{"then":[' + "," * 100 + "]}"):
            self.refused(body, 400, "malformed-json")
        for body in ({}, {"else": [put]}, {"then": {}}, {"when": []}, {"if": None}):
            self.refused(body, 400, "invalid-body")
        for op in (None, [], {}, {"op": "get"}, {"op": "take", "bucket": b, "key": "k"}, {"op": 1, "bucket": b, "key": "k"},
                   dict(put, more=1), dict(put, value=1), dict(put, value_base64="YQ=="), dict(put, key_base64="YQ=="),
                   {"op": "put", "bucket": b, "key": "k", "value_base64": "YQ"}, {"op": "put", "bucket": b, "key": "k"},
                   {"op": "get", "bucket": b, "key": "k", "value": ""}, dict(put, by=1), {"op": "incr", "bucket": b, "key": "k", "by": 1.0},
                   {"op": "incr", "bucket": b, "key": "k", "by": "1"}, {"op": "incr", "bucket": b, "key": "k", "create": 0},
                   {"op": "delete_range", "bucket": b}, {"op": "delete_range", "bucket": b, "prefix": ""},
                   {"op": "delete_range", "bucket": b, "all": False}, {"op": "delete_range", "bucket": b, "all": True, "to": "x"},
                   {"op": "delete_range", "bucket": b, "key": "k"}, dict(put, ttl=5), dict(put, ttl="0s"), dict(put, ttl="5"),
                   {"bucket": b, "key": "k", "exists": True}):
            self.refused({"then": [put, op]}, 400, "invalid-body", branch="then", operation=1)
            self.refused({"if": [], "then": [], "else": [op]}, 400, "invalid-body", branch="else", operation=0)
        for op, code in (({"key": ""}, "key-empty"), ({"key": "k" * 1025}, "key-too-long"), ({"bucket": ""}, "bucket-name-empty"),
                         ({"bucket": "b" * 256}, "bucket-name-too-long")):
            self.refused({"then": [dict(put, **op)]}, 400, code, branch="then", operation=0)
        reserved = put_bytes({"op": "put", "key": "k", "value": ""}, "bucket", b"\0idem")
        self.refused({"then": [reserved]}, 400, "bucket-name-reserved", branch="then", operation=0)
        for condition in (None, {}, {"bucket": b, "key": "k"}, {"bucket": b, "key": "k", "exists": True, "version": 1},
                          {"bucket": b, "key": "k", "exists": "true"}, {"bucket": b, "key": "k", "version": -1},
                          {"bucket": b, "key": "k", "version": "1"}, {"op": "get", "bucket": b, "key": "k", "exists": True},
                          {"bucket": b, "key": "k", "prefix": "k", "exists": True}):
            self.refused({"if": [{"bucket": b, "key": "k", "exists": False}, condition], "then": [put]}, 400, "invalid-body", condition=1)
        self.refused({"then": [put] * 2001}, 413, "too-many-operations")
        self.refused({"then": [dict(put, value="x" * 1048576)]}, 413, "body-too-large")
        self.refused({"then": [put]}, 400, "invalid-header", headers={"If-Match": '"1"'})
        self.assertEqual(self.post({"then": [put]}, query="?durability=replicated:99").code, "invalid-parameter")
        self.assertEqual(self.post({"then": [put]}, query="?limit=1").code, "unknown-parameter")
        self.assertEqual(self.client.request("GET", "/v1/txn").status, 405)
        self.assertEqual(self.p.value(b, "k").status, 404)
        self.assertEqual(len(self.done({"then": [put] * 2000})["results"]), 2000)

    def test_results_bounded(self):
        b = self.bucket()
        self.p.put(b, "k", b"x" * 300000)
        get, put = {"op": "get", "bucket": b, "key": "k"}, {"op": "put", "bucket": b, "key": "n", "value": ""}
        self.refused({"then": [get] * 4}, 422, "result-too-large", branch="then", operation=3)
        self.refused({"then": [put] + [get] * 4}, 422, "result-too-large", branch="then", operation=4)
        self.assertEqual(self.p.value(b, "n").status, 404)
        self.assertEqual(len(self.done({"then": [put] + [get] * 3})["results"]), 4)
        # results that leave no byte: the next value is refused before it is read
        self.p.put(b, "f", b"")
        self.p.put(b, "large", b"7" * 3000000)
        fill = dict(get, key="f")
        empty = len(self.post({"then": [fill]}).body.split(b'"results":')[1]) - len("]}\n")
        self.p.put(b, "f", b"x" * (1048576 - empty))
        self.assertEqual(self.post({"then": [fill]}).status, 200)
        self.p.put(b, "over", b"x" * (1048577 - empty))
        self.refused({"then": [dict(get, key="over")]}, 422, "result-too-large", branch="then", operation=0)
        problem = self.refused({"then": [fill, dict(get, key="large")]}, 422, "result-too-large", branch="then", operation=1)
        self.assertIn("a value of 3000000 bytes", problem["detail"])

    def test_large_values_in_the_way(self):
        b = self.bucket()
        tag = self.p.put(b, "k", b"7" * 3000000).headers["ETag"]
        at = {"bucket": b, "key": "k"}
        get, incr = dict(at, op="get"), dict(at, op="incr")
        self.refused({"then": [incr]}, 409, "not-a-number", branch="then", operation=0)
        self.refused({"then": [get]}, 422, "result-too-large", branch="then", operation=0)
        self.refused({"if": [dict(at, value="7")], "then": [get]}, 412, "precondition-failed", condition=0)
        self.done({"if": [dict(at, exists=True), dict(at, version=int(tag.strip('"')))], "then": []})
        self.p.put(b, "k", b"7" * 100000)
        self.refused({"if": [dict(at, value="7" * 99999 + "8")], "then": [get]}, 412, "precondition-failed", condition=0)
        r = self.done({"if": [dict(at, value="7" * 100000)], "then": [get, dict(at, op="delete"), get]})["results"]
        self.assertEqual((r[0]["value"], r[1:]), ("7" * 100000, [{"deleted": True}, {"found": False}]))

    def test_unreached(self):
        b = self.bucket()
        reply = self.post({"then": [{"op": "incr", "bucket": b, "key": "k"}]}, query="?durability=replicated:1&timeout=0s")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (202, "local"))
        result = reply.json()
        self.assertEqual((result["committed"], result["durability-reached"], result["results"][0]["number"]), (True, "local", 1))
        self.assertEqual(result["durability"], "replicated:1")
        reply = self.post('{"key":"k","value":"v"}', "/v1/buckets/%s/load" % b, query="?durability=replicated:1&timeout=0s")
        self.assertEqual((reply.status, reply.json()["durability"], reply.json()["records"]), (202, "replicated:1", 1))

    def test_malformed_where_nothing_is_written(self):
        b = self.bucket()
        for query in ("durability=bad", "durability=", "durability=replicated:0", "timeout=x", "timeout=61s"):
            for then in ([], [{"op": "get", "bucket": b, "key": "k"}]):
                reply = self.post({"then": then}, query="?" + query)
                self.assertEqual((reply.status, reply.code), (400, "invalid-parameter"), (query, then))
        for query in ("durability=local", "durability=replicated:1", "durability=archived", "timeout=1s"):
            self.done({"then": []}, query="?" + query)

    def test_ttl(self):
        b = self.bucket()
        r = self.done({"then": [{"op": "put", "bucket": b, "key": "a", "value": "1", "ttl": "300ms"},
                                {"op": "put", "bucket": b, "key": "b", "value": "1", "ttl": "1h"},
                                {"op": "put", "bucket": b, "key": "c", "value": "1", "ttl": "300ms"},
                                {"op": "put", "bucket": b, "key": "c", "value": "2"},
                                {"op": "incr", "bucket": b, "key": "b"}, {"op": "get", "bucket": b, "key": "b"}]})["results"]
        self.assertIn("expires", r[0])
        self.assertEqual(r[4]["expires"], r[1]["expires"])  # counting does not make it live for ever
        self.assertEqual((r[5]["expires"], r[5]["value"]), (r[1]["expires"], "2"))
        gone = {"if": [{"bucket": b, "key": "a", "exists": False}, {"bucket": b, "key": "a", "version": 0}]}
        harness.await_true(lambda: self.post(gone).status == 200, what="the key's end")
        r = self.done({"then": [{"op": "get", "bucket": b, "key": k} for k in "abc"]})["results"]
        self.assertEqual([i.get("value") for i in r], [None, "2", "2"])
        r = self.done({"then": [{"op": "delete", "bucket": b, "key": "a"}, {"op": "incr", "bucket": b, "key": "a"}]})["results"]
        self.assertEqual((r[0], r[1]["number"], "expires" in r[1]), ({"deleted": False}, 1, False))
        self.assertEqual(self.done({"get": [{"bucket": b, "key": "a"}]}, path="/v1/get")["items"][0]["value"], "1")

    def test_follower(self):
        b = self.bucket()
        self.p.put(b, "k", b"v")
        with harness.follower(self.dir, self.p, name="f", primary_url="http://127.0.0.1:1") as f:
            harness.await_equal(self.p, f)
            get = {"op": "get", "bucket": b, "key": "k"}
            reply = f.request("POST", "/v1/txn", json.dumps({"if": [{"bucket": b, "key": "k", "value": "v"}], "then": [get]}))
            self.assertEqual((reply.status, reply.json()["results"][0]["value"]), (200, "v"))
            reply = f.request("POST", "/v1/get", json.dumps({"get": [{"bucket": b, "key": "k"}]}))
            self.assertEqual((reply.status, reply.json()["items"][0]["value"]), (200, "v"))
            reply = f.request("POST", "/v1/txn", json.dumps({"then": [get], "else": [{"op": "incr", "bucket": b, "key": "k"}]}))
            self.assertEqual((reply.status, reply.code, reply.headers["Location"]), (307, "not-primary", "http://127.0.0.1:1/v1/txn"))


class Oracle:
    """What a transaction does, on a dict of (bucket, key) -> (value, version)."""

    def __init__(self):
        self.data = {}

    def holds(self, c):
        value, version = self.data.get((c["bucket"], c["key"]), (None, 0))
        if "exists" in c:
            return (value is not None) == c["exists"]
        return version == c["version"] if "version" in c else value == c["value"]

    def run(self, txn, txid):
        """(status, code, place), or (200, results, changed)."""
        failed = next((i for i, c in enumerate(txn["if"]) if not self.holds(c)), None)
        if failed is not None and "else" not in txn:
            return 412, "precondition-failed", failed
        branch = "then" if failed is None else "else"
        before, results = dict(self.data), []
        changed = False
        for i, op in enumerate(txn[branch]):
            at = (op["bucket"], op.get("key"))
            value, version = self.data.get(at, (None, 0))
            if op["op"] == "put":
                self.data[at] = (op["value"], txid)
                results.append({"version": txid})
                changed = True
            elif op["op"] == "get":
                results.append({"found": False} if value is None else {"found": True, "version": version, "value": value})
            elif op["op"] == "delete":
                results.append({"deleted": value is not None})
                changed |= self.data.pop(at, None) is not None
            elif op["op"] == "incr":
                try:
                    number = int(value if value is not None else 0) + op["by"]
                except ValueError:
                    self.data = before
                    return 409, "not-a-number", i
                self.data[at] = (b"%d" % number, txid)
                results.append({"number": number, "version": txid})
                changed = True
            else:
                gone = [k for k in self.data if k[0] == op["bucket"] and k[1].startswith(op["prefix"]) and k[1] >= op["from"]
                        and (not op["to"] or k[1] < op["to"])]
                for k in gone:
                    del self.data[k]
                results.append({"deleted": len(gone)})
                changed |= bool(gone)
        return 200, (branch, results), changed


class Random(Txn):
    def key(self):
        return b"".join(self.rng.choice([b"a", b"b", b"\xff", b"\x00"]) for _ in range(self.rng.randint(1, 3)))

    def op(self):
        kind = self.rng.choice(["put", "put", "get", "get", "delete", "incr", "delete_range"])
        op = {"op": kind, "bucket": self.rng.choice(self.buckets)}
        if kind == "delete_range":
            op.update({"prefix": self.rng.choice([b"", self.key()]), "from": self.rng.choice([b"", self.key()]), "to": self.key()})
        else:
            op["key"] = self.key()
        if kind == "put":
            op["value"] = self.rng.choice([b"", b"x" * 30, b"\xff\x00", b"7", b"-3", b"0" * 3000 + b"1", self.key()])
        if kind == "incr":
            op["by"] = self.rng.randint(-9, 9)
        return op

    def condition(self):
        c = {"bucket": self.rng.choice(self.buckets), "key": self.key()}
        value, version = self.oracle.data.get((c["bucket"], c["key"]), (b"x", 0))
        c.update(self.rng.choice([{"exists": bool(version) ^ (self.rng.random() < 0.1)}, {"version": version},
                                  {"value": value if self.rng.random() < 0.9 else b"other"}]))
        return c

    def encode(self, item):
        out = {}
        for name, value in item.items():
            if isinstance(value, bytes):
                put_bytes(out, name, value, self.rng)
            else:
                out[name] = value
        return out

    @staticmethod
    def decode(item):
        """As the oracle has it."""
        if item.get("found"):
            return {"found": True, "version": item["version"], "value": bytes_of(item, "value")}
        return item

    def test_random(self):
        self.rng = random.Random(SEED)
        self.buckets = [self.bucket(), self.bucket(), self.bucket()]
        self.oracle = Oracle()
        newest = self.p.status()["txid"]
        seen = {}
        for _ in range(1500):
            txn = {"if": [self.condition() for _ in range(self.rng.choice([0, 0, 1, 2]))],
                   "then": [self.op() for _ in range(self.rng.choice([0, 1, 3, 8]))]}
            if self.rng.random() < 0.5:
                txn["else"] = [self.op() for _ in range(self.rng.randint(0, 3))]
            want = self.oracle.run(txn, newest + 1)
            reply = self.post({name: [self.encode(i) for i in items] for name, items in txn.items()})
            seen[want[0]] = seen.get(want[0], 0) + 1
            told = (txn, want, reply, SEED)
            if want[0] == 200:
                result = reply.json()
                self.assertEqual((reply.status, result.get("branch")), (200, want[1][0]), told)
                self.assertEqual([self.decode(i) for i in result["results"]], want[1][1], told)
                newest += bool(want[2])
                self.assertEqual((result["txid"], result["committed"]), (newest, bool(want[2])), told)
            else:
                problem = reply.json()
                self.assertEqual((reply.status, problem["code"]), want[:2], told)
                self.assertEqual(problem.get("operation", problem.get("condition")), want[2], told)
        self.assertEqual(set(seen), {200, 409, 412}, seen)
        for bucket in self.buckets:
            page = self.client.request("GET", "/v1/buckets/%s/keys?limit=10000&values=1" % bucket).json()
            got = {(bucket, bytes_of(i, "key")): (bytes_of(i, "value"), i["version"]) for i in page["items"]}
            self.assertEqual(got, {k: v for k, v in self.oracle.data.items() if k[0] == bucket}, SEED)


class Many(Txn):
    def test_concurrent_incr(self):
        """Counters that many connections raise, each transaction moving one unit between two of them and counting itself."""
        b = self.bucket()
        clients, rounds = 16, 60

        def run(i):
            with self.p.client() as c:
                for n in range(rounds):
                    body = {"then": [{"op": "incr", "bucket": b, "key": "k%d" % (n % 3), "by": 1},
                                     {"op": "incr", "bucket": b, "key": "k%d" % ((n + i) % 3), "by": -1},
                                     {"op": "incr", "bucket": b, "key": "count"}]}
                    reply = c.request("POST", "/v1/txn", json.dumps(body))
                    self.assertEqual(reply.status, 200, reply)

        harness.parallel(clients, run)
        values = [int(self.p.value(b, k).body) for k in ("k0", "k1", "k2", "count")]
        self.assertEqual((sum(values[:3]), values[3]), (0, clients * rounds))

    def test_compare_and_set(self):
        b = self.bucket()
        self.p.put(b, "n", b"0")

        def run(_):
            with self.p.client() as c:
                wins = 0
                while wins < 15:
                    was = c.request("GET", "/v1/buckets/%s/keys/n" % b)
                    body = {"if": [{"bucket": b, "key": "n", "version": int(was.headers["ETag"].strip('"'))}],
                            "then": [{"op": "put", "bucket": b, "key": "n", "value": str(int(was.body) + 1)}]}
                    reply = c.request("POST", "/v1/txn", json.dumps(body))
                    self.assertIn(reply.status, (200, 412), reply)
                    wins += reply.status == 200

        harness.parallel(8, run)
        self.assertEqual(self.p.value(b, "n").body, b"120")


class Get(Txn):
    def test_order_and_missing(self):
        a, b = self.bucket(), self.bucket()
        va, vb = [int(self.p.put(n, "k", v).headers["BTS-Txid"]) for n, v in ((a, b"1"), (b, b"\xff\x00"))]
        r = self.done({"get": [{"bucket": b, "key": "k"}, {"bucket": a, "key": "none"}, {"bucket": "none", "key": "k"},
                               {"bucket": a, "key_base64": "aw=="}, {"bucket": "none", "key": "k"}, {"bucket": b, "key": "k"}]}, path="/v1/get")
        self.assertEqual(r, {"items": [
            {"found": True, "version": vb, "value_base64": "/wA="}, {"found": False}, {"found": False, "code": "bucket-not-found"},
            {"found": True, "version": va, "value": "1"}, {"found": False, "code": "bucket-not-found"},
            {"found": True, "version": vb, "value_base64": "/wA="}], "txid": vb})
        self.assertEqual(self.done({"get": []}, path="/v1/get")["items"], [])

    def test_refused(self):
        for body in ({}, {"get": {}}, {"keys": []}, {"get": [], "then": []}):
            self.refused(body, 400, "invalid-body", path="/v1/get")
        self.refused({"get": [{"bucket": "b", "key": "k"}, {"bucket": "b"}]}, 400, "invalid-body", path="/v1/get", branch="get", operation=1)
        self.refused({"get": [{"op": "get", "bucket": "b", "key": "k"}]}, 400, "invalid-body", path="/v1/get", branch="get", operation=0)
        self.refused({"get": [{"bucket_base64": "AA==", "key": "k"}]}, 400, "bucket-name-reserved", path="/v1/get", branch="get", operation=0)
        self.refused({"get": [{"bucket": "b", "key": "k"}] * 2001}, 413, "too-many-operations", path="/v1/get")
        self.refused("x" * 1048577, 413, "body-too-large", path="/v1/get")
        self.refused("[]", 400, "malformed-json", path="/v1/get")

    def test_named_snapshot(self):
        b = self.bucket()
        self.p.put(b, "k", b"old")
        self.assertEqual(self.client.request("PUT", "/v1/snapshots/named/" + b).status, 201)
        self.p.put(b, "k", b"new")
        body = {"get": [{"bucket": b, "key": "k"}]}
        for query, value in (("?snapshot=name:" + b, "old"), ("", "new")):
            reply = self.post(body, path="/v1/get", query=query)
            self.assertEqual((reply.status, reply.json()["items"][0]["value"]), (200, value))
        self.assertEqual(self.post(body, path="/v1/get", query="?snapshot=name:none").status, 404)

    def test_large(self):
        """More than any limit on what is held: values go out of the map."""
        b = self.bucket()
        values = {"t": "é\n" * 200000, "b": b"\xff\x01\x02" * 300001}
        for key, value in values.items():
            self.assertEqual(self.p.put(b, key, value if isinstance(value, bytes) else value.encode()).status, 201)
        r = self.done({"get": [{"bucket": b, "key": k} for k in "tb" * 10]}, path="/v1/get")
        for i, item in enumerate(r["items"]):
            want = values["tb"[i % 2]]
            self.assertEqual(bytes_of(item, "value"), want if isinstance(want, bytes) else want.encode())

    def test_one_snapshot(self):
        a, b = self.bucket(), self.bucket()
        stop = threading.Event()

        def write():
            with self.p.client() as c:
                while not stop.is_set():
                    body = {"then": [{"op": "incr", "bucket": n, "key": "k"} for n in (a, b)]}
                    assert c.request("POST", "/v1/txn", json.dumps(body)).status == 200

        writer = threading.Thread(target=write)
        writer.start()
        try:
            body = {"get": [{"bucket": n, "key": "k"} for n in (a, b, a)]}
            harness.await_true(lambda: self.done(body, path="/v1/get")["items"][0]["found"], what="the first transaction")
            for _ in range(300):
                items = self.done(body, path="/v1/get")["items"]
                self.assertEqual(len({json.dumps(i) for i in items}), 1, items)
        finally:
            stop.set()
            writer.join()


class Idempotency(Txn):
    def incr(self, b, key="n", by=1):
        return json.dumps({"then": [{"op": "incr", "bucket": b, "key": key, "by": by}]})

    def test_replay(self):
        b = self.bucket()
        first = self.post(self.incr(b), headers={"Idempotency-Key": "k-1"})
        again = self.post(self.incr(b), headers={"Idempotency-Key": "k-1"})
        self.assertEqual((first.status, again.status, first.headers["Idempotent-Replay"], again.headers["Idempotent-Replay"]),
                         (200, 200, None, "true"))
        self.assertEqual(again.body, first.body)
        self.refused(self.incr(b, by=2), 422, "idempotency-key-reused", headers={"Idempotency-Key": "k-1"})
        self.assertEqual(self.p.value(b, "n").body, b"1")
        self.assertEqual(self.post(self.incr(b), headers={"Idempotency-Key": "K-1"}).json()["results"][0]["number"], 2)
        # Kept although nothing was changed; what was refused is judged anew.
        body = {"if": [{"bucket": b, "key": "n", "value": "1"}], "then": [], "else": [{"op": "delete", "bucket": b, "key": "none"}]}
        first = self.post(body, headers={"Idempotency-Key": "k-2"})
        self.p.put(b, "n", b"1")
        again = self.post(body, headers={"Idempotency-Key": "k-2"})
        self.assertEqual((first.json()["branch"], again.body), ("else", first.body))
        body = {"if": [{"bucket": b, "key": "m", "exists": True}], "then": [{"op": "incr", "bucket": b, "key": "m"}]}
        self.refused(body, 412, "precondition-failed", headers={"Idempotency-Key": "k-3"}, condition=0)
        self.p.put(b, "m", b"5")
        self.assertEqual(self.post(body, headers={"Idempotency-Key": "k-3"}).json()["results"][0]["number"], 6)
        for key in ("x" * 255, "a b", '"q"'):
            self.assertEqual(self.post(self.incr(b), headers={"Idempotency-Key": key}).status, 200)
        for key in ("x" * 256, "", "é"):
            self.refused(self.incr(b), 400, "invalid-header", headers={"Idempotency-Key": key.encode()})
        names = [i["name"] for i in self.p.get("/v1/buckets?limit=10000").json()["items"]]
        self.assertIn(b, names)
        self.assertFalse([n for n in names if n.startswith("\0")])

    def test_long_answer(self):
        b = self.bucket()
        self.p.put(b, "k", b"x" * 70000)
        body = json.dumps({"then": [{"op": "incr", "bucket": b, "key": "n"}, {"op": "get", "bucket": b, "key": "k"}]})
        first = self.post(body, headers={"Idempotency-Key": "long"}).json()
        again = self.post(body, headers={"Idempotency-Key": "long"})
        self.assertEqual(again.json(), dict(first, results=None))
        self.assertEqual(self.p.value(b, "n").body, b"1")

    def test_at_once(self):
        b = self.bucket()
        bodies = []

        def run(i):
            with self.p.client() as c:
                for n in range(20):
                    reply = c.request("POST", "/v1/txn", self.incr(b), {"Idempotency-Key": "once-%d" % n})
                    self.assertEqual(reply.status, 200, reply)
                    bodies.append(reply.body)

        harness.parallel(12, run)
        self.assertEqual(self.p.value(b, "n").body, b"20")
        self.assertEqual(len(set(bodies)), 20)


class Durable(harness.Case):
    def test_limit_and_expiry(self):
        with harness.primary(self.dir, "--idempotency-ttl", "1s", "--idempotency-max", "3") as p, p.client() as c:
            c.request("PUT", "/v1/buckets/b")
            body = json.dumps({"then": [{"op": "incr", "bucket": "b", "key": "n"}]})

            def post(key):
                return c.request("POST", "/v1/txn", body, {"Idempotency-Key": key})

            for i in range(3):
                self.assertEqual(post("k%d" % i).status, 200)
            full = post("k3")
            if full.status != 200:  # unless the first had gone already
                self.assertEqual((full.status, full.code, full.headers["Retry-After"]), (503, "limit-reached", "1"))
            self.assertEqual(c.request("POST", "/v1/txn", body).status, 200)  # without a key there is no limit
            harness.await_true(lambda: post("k3").status == 200, what="a key's end")
            harness.await_true(lambda: post("k0").headers["Idempotent-Replay"] is None, what="the first key to be forgotten")

    def test_kill(self):
        """Each increment is asked for until it is answered; the server is killed under them all the while."""
        clients, each, kills = 4, 60, 6
        port = [0]
        p = harness.primary(self.dir)
        self.addCleanup(lambda: p.alive() and p.kill())
        port[0] = p.port
        p.request("PUT", "/v1/buckets/b")
        left = [clients]
        replays = [0]

        def run(i):
            client = None
            for n in range(each):
                body = json.dumps({"then": [{"op": "incr", "bucket": "b", "key": "n"}, {"op": "incr", "bucket": "b", "key": "c%d" % i}]})
                while True:
                    try:
                        client = client or harness.Client(port[0], timeout=30)
                        reply = client.request("POST", "/v1/txn", body, {"Idempotency-Key": "%d-%d" % (i, n)})
                    except LOST:
                        client = client and client.close()
                        time.sleep(0.02)
                        continue
                    if reply.status == 503:
                        continue
                    assert reply.status == 200, reply
                    replays[0] += reply.headers["Idempotent-Replay"] == "true"
                    assert reply.json()["results"][1]["number"] == n + 1, (n, reply)
                    break
            client.close()
            left[0] -= 1

        threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(clients)]
        for t in threads:
            t.start()
        rng = random.Random(SEED)
        for _ in range(kills):
            before = int(p.get("/v1/status").headers["BTS-Txid"])
            harness.await_true(lambda: int(p.get("/v1/status").headers["BTS-Txid"]) > before + rng.randint(5, 30) or not left[0],
                               what="progress")
            p.kill()
            p = harness.primary(self.dir, listen="127.0.0.1:%d" % port[0])
        for t in threads:
            t.join(60)
        self.assertEqual(left[0], 0)
        self.assertEqual(p.value("b", "n").body, b"%d" % (clients * each))
        print("replays", replays[0])
        # And on the node that takes over.
        with harness.follower(self.dir, p, name="f") as f:
            harness.await_equal(p, f)
            p.kill()
            self.assertEqual(f.request("POST", "/v1/admin/promote?force=1").status, 200)
            body = json.dumps({"then": [{"op": "incr", "bucket": "b", "key": "n"}, {"op": "incr", "bucket": "b", "key": "c0"}]})
            reply = f.request("POST", "/v1/txn", body, {"Idempotency-Key": "0-0"})
            self.assertEqual((reply.status, reply.headers["Idempotent-Replay"], reply.json()["results"][1]["number"]), (200, "true", 1))
            self.assertEqual(f.value("b", "n").body, b"%d" % (clients * each))


del Txn  # the base has no tests of its own

if __name__ == "__main__":
    harness.main()
