"""Range deletion, and listings with a delimiter, against an oracle over sorted keys.  BTS_SEED is the seed."""
import base64
import json
import os
import random

import harness
from harness import bytes_of, quote

SEED = int(os.environ.get("BTS_SEED") or random.SystemRandom().randrange(1 << 32))
LETTERS = [b"a", b"b", b"/", b"/", b"//", b"\xff", b"\x00", b"\xc3\xa9"]


def oracle(keys, prefix=b"", start=b"", to=b"", delimiter=b"", after=b"", reverse=False, limit=None):
    """Keys and common prefixes, in order: [(name, is_group)] and whether there is more."""
    found = []
    for key in sorted(keys, reverse=reverse):
        if not key.startswith(prefix) or key < start or (to and key >= to):
            continue
        if after and (key >= after if reverse else key <= after):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        group = key[:at + len(delimiter)] if at >= 0 else None
        if group is None:
            found.append((key, False))
        elif (group, True) not in found and not (after and not reverse and group <= after):
            found.append((group, True))
    return found if limit is None else found[:limit]


class Ranges(harness.SharedCase):
    @classmethod
    def setUpClass(cls):
        print("seed", SEED)
        super().setUpClass()

    def loaded(self, keys):
        name = self.bucket()
        lines = [json.dumps({"key_base64": base64.b64encode(k).decode(), "value_base64": base64.b64encode(b"=" + k).decode()})
                 for k in keys]
        reply = self.client.request("POST", "/v1/buckets/%s/load" % name, "\n".join(lines))
        self.assertEqual((reply.status, reply.json()["records"]), (200, len(keys)))
        return name

    def keys(self, rng, count):
        return {b"".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 6))) for _ in range(count)}

    def target(self, bucket, **params):
        text = "&".join("%s=%s" % (n, quote(v)) for n, v in params.items() if v not in ("", b"", None))
        return "/v1/buckets/%s/keys?%s" % (bucket, text)

    def page(self, bucket, **params):
        reply = self.client.request("GET", self.target(bucket, **params))
        self.assertEqual(reply.status, 200, reply)
        page = reply.json()
        self.assertEqual("common_prefixes" in page, bool(params.get("delimiter")))
        names = [(bytes_of(i, "key"), False) for i in page["items"]]
        names += [(bytes_of(i, "prefix"), True) for i in page.get("common_prefixes", [])]
        return sorted(names, reverse=bool(params.get("reverse"))), page["next"]

    def check_listing(self, bucket, keys, rng):
        some = [b""] + sorted(keys)
        delimiter = rng.choice([b"/", b"/", b"//", b"\xff", b"b/", b""])
        prefix = rng.choice(some)[:rng.randint(0, 3)]
        params = {"prefix": prefix, "from": rng.choice([b"", b"", rng.choice(some)]),
                  "to": rng.choice([b"", b"", rng.choice(some)]), "delimiter": delimiter,
                  "reverse": rng.choice(["", "1"])}
        want = oracle(keys, prefix, params["from"], params["to"], delimiter, b"", bool(params["reverse"]))
        limit, got, after = rng.randint(1, 8), [], ""
        while True:
            part, after = self.page(bucket, limit=str(limit), after=after, **params)
            got += part
            self.assertLessEqual(len(part), limit)
            self.assertLessEqual(len(got), len(want), (params, limit, SEED))
            if after is None:
                break
            self.assertEqual(len(part), limit)
        self.assertEqual(got, want, (params, limit, SEED))
        # A plain key to go on after, one that is not there too.
        after = rng.choice(sorted(keys)) + rng.choice([b"", b"a"])
        got, _ = self.page(bucket, limit="10000", after=after, **params)
        want = oracle(keys, prefix, params["from"], params["to"], delimiter, after, bool(params["reverse"]))
        self.assertEqual(got, want, (params, after, SEED))

    def test_listings(self):
        rng = random.Random(SEED)
        for _ in range(4):
            keys = self.keys(rng, rng.choice([5, 60, 300]))
            bucket = self.loaded(keys)
            for _ in range(60):
                self.check_listing(bucket, keys, rng)

    def test_ndjson(self):
        keys = {b"a", b"a/1", b"a/2", b"b/", b"c", b"\xff/1"}
        bucket = self.loaded(keys)
        reply = self.client.request("GET", self.target(bucket, delimiter="/", values="1"),
                                    headers={"Accept": "application/x-ndjson"})
        lines = [json.loads(line) for line in reply.body.splitlines()]
        version = lines[0]["version"]
        self.assertEqual(lines[:-1], [
            {"key": "a", "version": version, "size": 2, "value": "=a"}, {"prefix": "a/"}, {"prefix": "b/"},
            {"key": "c", "version": version, "size": 2, "value": "=c"}, {"prefix_base64": "/y8="}])
        self.assertEqual(lines[-1], {"end": True, "count": 5, "txid": int(reply.headers["BTS-Txid"]), "next": None})

    def test_expired_under_a_delimiter(self):
        """A common prefix has a living key, also when what comes first under it has expired."""
        bucket = self.loaded({b"b/2", b"c"})
        for key in ("a/1", "a/2", "b/1", "d/1"):
            self.assertEqual(self.client.request("PUT", "/v1/buckets/%s/keys/%s?ttl=200ms" % (bucket, quote(key)), b"v").status, 201)
        last = "/v1/buckets/%s/keys/d%%2F1" % bucket
        harness.await_true(lambda: self.client.request("GET", last).status == 404, what="the last key's end")
        for reverse in ("", "1"):  # mostly before they are removed
            got, _ = self.page(bucket, delimiter="/", reverse=reverse)
            self.assertEqual(got, sorted([(b"b/", True), (b"c", False)], reverse=bool(reverse)))

    def test_many_under_few(self):
        """Groups are passed over, not walked: of 40,000 keys in two of them a page shows two lines."""
        keys = [b"%s/%06d" % (g, i) for g in (b"x", b"y") for i in range(20000)]
        bucket = self.loaded(keys)
        for params in ({"delimiter": "/"}, {"delimiter": "/", "reverse": "1"}):
            got, after = self.page(bucket, **params)
            self.assertEqual((sorted(got), after), ([(b"x/", True), (b"y/", True)], None))

    def refused(self, method, target, status, code):
        reply = self.client.request(method, target)
        self.assertEqual((reply.status, reply.code), (status, code), reply)

    def test_bad_input(self):
        bucket = self.loaded({b"k"})
        at = "/v1/buckets/%s/keys" % bucket
        self.refused("DELETE", at, 400, "invalid-parameter")
        self.refused("DELETE", at + "?prefix=", 400, "invalid-parameter")
        self.refused("DELETE", at + "?all=0", 400, "invalid-parameter")
        self.refused("DELETE", at + "?all=2", 400, "invalid-parameter")
        self.refused("DELETE", at + "?all=1&prefix=a", 400, "invalid-parameter")
        self.refused("DELETE", at + "?prefix=" + "x" * 1025, 400, "key-too-long")
        self.refused("DELETE", at + "?limit=1", 400, "unknown-parameter")
        self.refused("DELETE", at + "?from=a&from=b", 400, "duplicate-parameter")
        self.refused("DELETE", "/v1/buckets/none/keys?all=1", 404, "bucket-not-found")
        self.refused("DELETE", "/v1/buckets/%00x/keys?all=1", 400, "bucket-name-reserved")
        self.refused("GET", at + "?delimiter=" + "x" * 1025, 400, "key-too-long")
        self.assertEqual(self.page(bucket)[0], [(b"k", False)])

    def test_delete(self):
        rng = random.Random(SEED + 1)
        keys = self.keys(rng, 400)
        bucket = self.loaded(keys)
        for _ in range(60):
            some = sorted(keys) or [b"a"]
            params = {"prefix": rng.choice([b"", rng.choice(some)[:rng.randint(1, 3)], b"\xff"]),
                      "from": rng.choice([b"", rng.choice(some)]), "to": rng.choice([b"", rng.choice(some)])}
            if not any(params.values()):
                continue
            gone = {k for k, _ in oracle(keys, params["prefix"], params["from"], params["to"])}
            before = int(self.client.request("GET", "/v1/status").headers["BTS-Txid"])
            reply = self.client.request("DELETE", self.target(bucket, **params))
            self.assertEqual(reply.status, 200, reply)
            txid = int(reply.headers["BTS-Txid"])
            self.assertEqual(reply.json(), {"deleted": len(gone), "txid": txid}, (params, SEED))
            self.assertEqual(txid, before + bool(gone))  # one commit, or none
            keys -= gone
            self.assertEqual(self.page(bucket, limit="10000")[0], [(k, False) for k in sorted(keys)])
            keys |= self.keys(rng, 20) if len(keys) < 50 else set()
            for k in keys:
                self.assertIn(self.client.request("PUT", "/v1/buckets/%s/keys/%s" % (bucket, quote(k)), b"v").status, (200, 201))
        reply = self.client.request("DELETE", self.target(bucket, all="1"))
        self.assertEqual((reply.status, reply.json()["deleted"]), (200, len(keys)))
        self.assertEqual(self.page(bucket)[0], [])
        self.assertTrue(reply.headers["BTS-Token"])

    def test_delete_follower(self):
        with harness.follower(self.dir, self.p, name="f") as f:
            harness.await_equal(self.p, f)
            self.assertEqual(f.request("DELETE", "/v1/buckets/b/keys?all=1").code, "not-primary")

    def test_delete_unreached(self):
        bucket = self.loaded({b"a", b"b"})
        reply = self.client.request("DELETE", "/v1/buckets/%s/keys?prefix=a&durability=replicated:1&timeout=0s" % bucket)
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (202, "local"))
        self.assertEqual(reply.json(), {"deleted": 1, "txid": int(reply.headers["BTS-Txid"]), "committed": True,
                                        "durability-reached": "local", "durability": "replicated:1"})


if __name__ == "__main__":
    harness.main()
