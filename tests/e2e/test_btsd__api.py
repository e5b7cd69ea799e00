"""What httpapi/API.md promises, route by route, bad input included."""
import base64
import json
import os
import threading
import unittest

import harness
from harness import quote


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = harness.Dir().__enter__()
        cls.admin = "127.0.0.1:0"
        cls.p = harness.primary(cls.dir, "--max-body", "1048576", "--max-value", "1048576", "--admin-listen", cls.admin, "--name", "prime")
        cls.counter = 0

    @classmethod
    def tearDownClass(cls):
        status = cls.p.stop()
        log = cls.p.log_text()
        cls.dir.__exit__(None, None, None)
        assert status == 0, log

    def bucket(self, body=None):
        """A new bucket's name."""
        type(self).counter += 1
        name = "bucket-%d" % self.counter
        reply = self.p.request("PUT", "/v1/buckets/" + name, body)
        self.assertEqual(reply.status, 201, reply)
        return name

    def is_problem(self, reply, status, code):
        self.assertEqual((reply.status, reply.code), (status, code), reply)
        self.assertEqual(reply.headers["Content-Type"], "application/problem+json")
        problem = reply.json()
        self.assertEqual(problem["status"], status)
        self.assertEqual(problem["instance"], reply.headers["X-Request-Id"])
        for member in ("type", "title", "detail"):
            self.assertTrue(problem[member], member)
        return problem

    def fill(self, bucket, pairs):
        for key, value in pairs:
            self.assertIn(self.p.put(bucket, key, value).status, (200, 201))


class Keys(Api):
    def test_put_get_delete(self):
        b = self.bucket()
        made = self.p.put(b, "k", b"one")
        self.assertEqual((made.status, made.body), (201, b""))
        self.assertEqual(made.headers["ETag"], '"%s"' % made.headers["BTS-Txid"])
        got = self.p.value(b, "k")
        self.assertEqual((got.status, got.body), (200, b"one"))
        self.assertEqual(got.headers["ETag"], made.headers["ETag"])
        self.assertEqual(got.headers["Content-Type"], "application/octet-stream")
        again = self.p.put(b, "k", b"two")
        self.assertEqual(again.status, 200)
        self.assertGreater(int(again.headers["BTS-Txid"]), int(made.headers["BTS-Txid"]))
        self.assertEqual(self.p.value(b, "k").body, b"two")
        gone = self.p.request("DELETE", "/v1/buckets/%s/keys/k" % b)
        self.assertEqual((gone.status, gone.body), (204, b""))
        self.is_problem(self.p.value(b, "k"), 404, "not-found")
        self.is_problem(self.p.request("DELETE", "/v1/buckets/%s/keys/k" % b), 404, "not-found")

    def test_headers_of_every_reply(self):
        b = self.bucket()
        for reply in (self.p.put(b, "k", b"v"), self.p.value(b, "k"), self.p.value(b, "none"), self.p.get("/nowhere"),
                      self.p.get("/livez"), self.p.request("DELETE", "/v1/buckets/" + b)):
            for name in ("X-Request-Id", "BTS-Txid", "BTS-Epoch"):
                self.assertTrue(reply.headers[name], name)
            self.assertEqual(reply.headers["BTS-Role"], "primary")
            self.assertIsNone(reply.headers["BTS-Lag-Ms"])
        self.assertEqual(self.p.get("/livez", {"X-Request-Id": "my.id-7"}).headers["X-Request-Id"], "my.id-7")
        made = self.p.get("/livez", {"X-Request-Id": 'a "b"'}).headers["X-Request-Id"]
        self.assertRegex(made, "^[0-9a-f]{16}$")

    def test_header_names_in_any_case(self):
        b = self.bucket()
        tag = self.p.put(b, "k", b"0123456789").headers["ETag"]
        token = self.p.value(b, "k").headers["BTS-Token"]
        path = "/v1/buckets/%s/keys/k" % b
        for change in (str.lower, str.upper, str.swapcase):
            self.assertEqual(self.p.request("GET", path, headers={change("If-None-Match"): tag}).status, 304)
            self.assertEqual(self.p.request("GET", path, headers={change("If-Match"): '"9999"'}).status, 412)
            self.assertEqual(self.p.request("GET", path, headers={change("Range"): "bytes=1-2"}).body, b"12")
            self.assertEqual(self.p.request("GET", path, headers={change("X-Request-Id"): "mine"}).headers["X-Request-Id"], "mine")
            self.assertEqual(self.p.request("GET", path, headers={change("BTS-After"): token}).status, 200)
            self.assertEqual(self.p.request("GET", path, headers={change("BTS-After"): "nonsense"}).code, "invalid-token")

    def test_head(self):
        b = self.bucket()
        self.p.put(b, "k", b"12345")
        head = self.p.request("HEAD", "/v1/buckets/%s/keys/k" % b)
        self.assertEqual((head.status, head.body, head.headers["Content-Length"]), (200, b"", "5"))
        self.assertTrue(head.headers["ETag"])
        self.assertEqual(self.p.request("HEAD", "/v1/buckets/%s/keys/none" % b).status, 404)
        self.assertEqual(self.p.request("HEAD", "/v1/buckets/%s/keys" % b).status, 200)

    def test_any_bytes_in_keys(self):
        b = self.bucket()
        keys = [b"a/b", b"a+b", b"\0", b"a\0b", b"\xff\xfe", b"%", b"..", b".", "é€".encode(), b" ", b"?&=#", b"x" * 1024]
        for key in keys:
            self.assertEqual(self.p.put(b, key, b"v" + key).status, 201, key)
        for key in keys:
            self.assertEqual(self.p.value(b, key).body, b"v" + key)
            short = base64.urlsafe_b64encode(key).decode().rstrip("=")
            self.assertEqual(self.p.get("/v1/buckets/%s/keys/%s?enc=b64u" % (
                base64.urlsafe_b64encode(b.encode()).decode().rstrip("="), short)).body, b"v" + key)
        items = self.p.get("/v1/buckets/%s/keys?values=true" % b).json()["items"]
        self.assertEqual([harness.bytes_of(i, "key") for i in items], sorted(keys))
        self.assertEqual([harness.bytes_of(i, "value") for i in items], [b"v" + k for k in sorted(keys)])

    def test_empty_and_large_values(self):
        b = self.bucket()
        for size in (0, 1, 1000, 1024, 5000, 65536, 300000, 1048576):
            value = os.urandom(size)
            self.assertEqual(self.p.put(b, "k%d" % size, value).status, 201)
            self.assertEqual(self.p.value(b, "k%d" % size).body, value)

    def test_chunked_body(self):
        b = self.bucket()
        with self.p.client() as c:
            c.http.request("PUT", "/v1/buckets/%s/keys/k" % b, body=iter([b"ab", b"cd" * 1000]), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})
            reply = c.http.getresponse()
            reply.read()
            self.assertEqual(reply.status, 201)
            self.assertEqual(c.request("GET", "/v1/buckets/%s/keys/k" % b).body, b"ab" + b"cd" * 1000)

    def test_missing_bucket_is_not_created(self):
        self.is_problem(self.p.put("nope", "k", b"v"), 404, "bucket-not-found")
        self.is_problem(self.p.value("nope", "k"), 404, "bucket-not-found")
        self.is_problem(self.p.get("/v1/buckets/nope/keys"), 404, "bucket-not-found")
        self.is_problem(self.p.get("/v1/buckets/nope"), 404, "bucket-not-found")
        self.is_problem(self.p.request("DELETE", "/v1/buckets/nope/keys/k"), 404, "bucket-not-found")
        self.is_problem(self.p.request("POST", "/v1/buckets/nope/load", b'{"key":"a","value":"b"}'), 404, "bucket-not-found")
        self.is_problem(self.p.request("POST", "/v1/buckets/nope/load", b""), 404, "bucket-not-found")

    def test_bad_names(self):
        b = self.bucket()
        self.is_problem(self.p.put(b, "x" * 1025, b"v"), 400, "key-too-long")
        self.is_problem(self.p.put(b, "", b"v"), 400, "key-empty")
        self.is_problem(self.p.request("PUT", "/v1/buckets/"), 400, "bucket-name-empty")
        self.is_problem(self.p.get("/v1/buckets//keys/k"), 400, "bucket-name-empty")
        self.is_problem(self.p.request("PUT", "/v1/buckets/" + "x" * 256), 400, "bucket-name-too-long")
        self.assertEqual(self.p.request("PUT", "/v1/buckets/" + "x" * 255).status, 201)
        for bad in ("%", "%4", "%zz", "a%G0"):
            self.is_problem(self.p.get("/v1/buckets/%s/keys/%s" % (b, bad)), 400, "malformed-percent-encoding")
            self.is_problem(self.p.get("/v1/buckets/%s/keys?prefix=%s" % (b, bad)), 400, "malformed-percent-encoding")
        self.is_problem(self.p.get("/v1/buckets/%s/keys/a*b?enc=b64u" % b), 400, "malformed-base64url")
        self.is_problem(self.p.get("/v1/buckets/%s/keys/a?enc=hex" % b), 400, "invalid-parameter")


class Conditions(Api):
    def with_lines(self, method, path, lines, body=None):
        """Headers as given, one name on several lines; the status and the problem's code."""
        with self.p.client() as c:
            c.http.putrequest(method, path)
            for name, value in lines:
                c.http.putheader(name, value)
            c.http.putheader("Content-Length", str(len(body or b"")))
            c.http.endheaders(body)
            reply = c.http.getresponse()
            text = reply.read()
            return reply.status, json.loads(text)["code"] if reply.status >= 400 else None

    def test_several_lines_are_one_list(self):
        b = self.bucket()
        path = "/v1/buckets/%s/keys/k" % b
        for name, there, absent in (("If-None-Match", (412, "precondition-failed"), (200, None)),
                                    ("If-Match", (200, None), (412, "precondition-failed"))):
            for tags, want in ((('"7777777"', '"8888888"', "TAG"), there), (("TAG", '"7777777"'), there),
                               (('"7777777"', '"8888888"'), absent), (('"7777777"', "nonsense"), (400, "invalid-header")),
                               (("*", "TAG"), (400, "invalid-header")), (['"7777777"'] * 17, (400, "invalid-header"))):
                tag = self.p.put(b, "k", b"v").headers["ETag"]
                lines = [(name, tag if t == "TAG" else t) for t in tags]
                self.assertEqual(self.with_lines("PUT", path, lines, b"w"), want, lines)
                self.assertEqual(self.p.value(b, "k").body, b"w" if want[0] == 200 else b"v")

    def test_empty_elements_and_how_many(self):
        b = self.bucket()
        tag = self.p.put(b, "k", b"v").headers["ETag"]
        for tags, status in ((',"1",' + tag, 304), ('"1",,' + tag, 304), (tag + ", ,", 304), (" ,\t" + tag, 304), ('"1",,"v"', 200), (",", 400),
                             ("", 400), ('"1" "2"', 400), (",".join(['"x"'] * 15 + [tag]), 304), (",".join(['"x"'] * 17), 400),
                             (",".join(['"x"'] * 16 + [tag]), 400), ("," * 40 + tag, 304)):
            self.assertEqual(self.p.value(b, "k", {"If-None-Match": tags}).status, status, tags)
        self.assertEqual(self.p.value(b, "k", {"If-Match": ",".join(["W/" + tag] * 17)}).status, 400)
        self.assertEqual(self.p.value(b, "k", {"If-Match": ',"1",,' + tag + ","}).status, 200)

    def test_spaces_behind_a_value(self):
        b = self.bucket()
        made = self.p.put(b, "k", b"value")
        tag, token = made.headers["ETag"], made.headers["BTS-Token"]
        for more in (" ", "\t", " \t "):
            for name, value, status in (("BTS-After", token, 200), ("BTS-Max-Staleness", "5s", 200), ("If-None-Match", tag, 304),
                                        ("If-Match", tag, 200), ("Accept", "application/json", 200)):
                self.assertEqual(self.p.value(b, "k", {name: value + more}).status, status, name)
            self.assertEqual(self.p.value(b, "k", {"Range": "bytes=1-2" + more, "If-Range": tag + more}).body, b"al")
        reply = self.p.value(b, "k", {"BTS-After": token + " x"})
        self.is_problem(reply, 400, "invalid-token")
        txn = json.dumps({"then": [{"op": "incr", "bucket": b, "key": "n"}]})
        for more in (" ", "\t "):
            self.assertEqual(self.p.get("/livez", {"X-Request-Id": "mine" + more}).headers["X-Request-Id"], "mine")
        for key in ("one", "one ", "one\t"):
            self.assertEqual(self.p.request("POST", "/v1/txn", txn, {"Idempotency-Key": key}).json()["results"][0]["number"], 1)

    def test_fields_that_came_twice(self):
        """Of two lines of what says one thing a proxy may have gone by the other one; lists go on in the next line."""
        b = self.bucket()
        made = self.p.put(b, "k", b"value")
        tag, token = made.headers["ETag"], made.headers["BTS-Token"]

        def ask(method, path, *lines, body=""):
            reply = self.p.raw(("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n%s" % (
                method, path, "".join(x + "\r\n" for x in lines), body)).encode())
            return int(reply[9:12]), reply

        path = "/v1/buckets/%s/keys/k" % b
        for name, value in (("BTS-After", token), ("BTS-Max-Staleness", "5s"), ("Range", "bytes=0-0"), ("range", "bytes=1-1"), ("If-Range", tag)):
            line = name + ": " + value
            self.assertIn(ask("GET", path, line)[0], (200, 206), name)
            status, reply = ask("GET", path, line, "X-Other: 1", line.lower())
            self.assertEqual(status, 400, name)
            self.assertIn(b'"invalid-header"', reply)
            self.assertIn(("more than one " + name).lower().encode(), reply.lower())
        one = "Content-Length: 1"
        for line in ("Content-Type: text/plain", "Idempotency-Key: x"):
            self.assertEqual(ask("PUT", path, line, line, one, body="x")[0], 400, line)
        self.assertEqual(self.p.value(b, "k").body, b"value")
        self.assertEqual(ask("GET", path, 'If-None-Match: "1"', "If-None-Match: " + tag)[0], 304)
        lines = ask("GET", "/v1/buckets/%s/keys" % b, "Accept: text/html", "Accept: application/x-ndjson ")[1]
        self.assertIn(b'{"end":true,"count":1,', lines)

    def test_long_paths(self):
        b = self.bucket()
        for n in (1, 2, 3, 20, 1000):
            self.is_problem(self.p.get("/v1/buckets/%s/keys/a%s" % (b, "/b" * n)), 404, "route-not-found")
        self.is_problem(self.p.put(b, "a/b", b"", {"If-Match": "*"}), 412, "precondition-failed")

    def test_refused_where_they_are_not_known(self):
        b = self.bucket()
        for method, path, body in (("DELETE", "/v1/buckets/" + b, None), ("PUT", "/v1/buckets/" + b, b'{"content_type":"a/b"}'),
                                   ("PUT", "/v1/buckets/%s-new" % b, b""),
                                   ("POST", "/v1/buckets/%s/load" % b, b'{"key":"a","value":"b"}')):
            for name, value in (("If-Match", '"9999"'), ("If-Match", "*"), ("If-None-Match", "*")):
                self.is_problem(self.p.request(method, path, body, {name: value}), 400, "invalid-header")
        item = self.p.get("/v1/buckets/" + b).json()
        self.assertEqual((item["entries"], item["content_type"]), (0, "application/octet-stream"))
        self.is_problem(self.p.get("/v1/buckets/%s-new" % b), 404, "bucket-not-found")

    def test_reads(self):
        b = self.bucket()
        tag = self.p.put(b, "k", b"v").headers["ETag"]
        fresh = self.p.value(b, "k", {"If-None-Match": tag})
        self.assertEqual((fresh.status, fresh.body, fresh.headers["ETag"]), (304, b"", tag))
        self.assertEqual(self.p.value(b, "k", {"If-None-Match": "W/" + tag}).status, 304)
        self.assertEqual(self.p.value(b, "k", {"If-None-Match": "*"}).status, 304)
        self.assertEqual(self.p.value(b, "k", {"If-None-Match": '"7777777"'}).status, 200)
        self.assertEqual(self.p.value(b, "k", {"If-Match": '"1", ' + tag}).status, 200)
        self.is_problem(self.p.value(b, "k", {"If-Match": '"7777777"'}), 412, "precondition-failed")
        self.is_problem(self.p.value(b, "k", {"If-Match": "W/" + tag}), 412, "precondition-failed")
        self.is_problem(self.p.value(b, "k", {"If-Match": "nonsense"}), 400, "invalid-header")

    def test_writes(self):
        b = self.bucket()
        only_new, any_one = {"If-None-Match": "*"}, {"If-Match": "*"}
        self.is_problem(self.p.put(b, "k", b"0", any_one), 412, "precondition-failed")
        tag = self.p.put(b, "k", b"1", only_new).headers["ETag"]
        refused = self.p.put(b, "k", b"2", only_new)
        self.is_problem(refused, 412, "precondition-failed")
        self.assertEqual(refused.headers["ETag"], tag)
        self.assertEqual(self.p.value(b, "k").body, b"1")
        second = self.p.put(b, "k", b"3", {"If-Match": tag})
        self.assertEqual(second.status, 200)
        self.is_problem(self.p.put(b, "k", b"4", {"If-Match": tag}), 412, "precondition-failed")
        path = "/v1/buckets/%s/keys/k" % b
        self.is_problem(self.p.request("DELETE", path, None, {"If-Match": tag}), 412, "precondition-failed")
        self.is_problem(self.p.put(b, "k", b"x", {"If-Match": "bad"}), 400, "invalid-header")
        self.assertEqual(self.p.value(b, "k").body, b"3")
        self.assertEqual(self.p.request("DELETE", path, None, {"If-Match": second.headers["ETag"]}).status, 204)

    def test_of_many_with_one_version_one_wins(self):
        b = self.bucket()
        tag = self.p.put(b, "k", b"0").headers["ETag"]
        results = []

        def put(i):
            results.append(self.p.put(b, "k", b"%d" % i, {"If-Match": tag}).status)

        harness.parallel(16, put)
        self.assertEqual(sorted(results), [200] + [412] * 15)

    def test_counter(self):
        """Compare and set from several clients loses no step."""
        b = self.bucket()
        self.p.put(b, "n", b"0")

        def add(_):
            with self.p.client() as c:
                done = 0
                while done < 10:
                    got = c.request("GET", "/v1/buckets/%s/keys/n" % b)
                    reply = c.request("PUT", "/v1/buckets/%s/keys/n" % b, b"%d" % (int(got.body) + 1),
                                      {"If-Match": got.headers["ETag"]})
                    done += reply.status == 200

        harness.parallel(6, add)
        self.assertEqual(self.p.value(b, "n").body, b"60")


class Listing(Api):
    def keys(self, b, query="", headers=None):
        reply = self.p.get("/v1/buckets/%s/keys?%s" % (b, query), headers)
        self.assertEqual(reply.status, 200, reply)
        return [harness.bytes_of(i, "key").decode() for i in reply.json()["items"]]

    def test_ranges(self):
        b = self.bucket()
        names = ["a", "aa", "ab", "b", "ba", "c", "ca", "d"]
        self.fill(b, [(n, n.encode()) for n in names])
        cases = {
            "": names,
            "prefix=a": ["a", "aa", "ab"],
            "prefix=c&reverse=true": ["ca", "c"],
            "from=ab&to=c": ["ab", "b", "ba"],
            "from=ab&to=c&reverse=1": ["ba", "b", "ab"],
            "from=x": [],
            "to=a": [],
            "to=0&reverse=true": [],
            "after=b": ["ba", "c", "ca", "d"],
            "after=b&reverse=true": ["ab", "aa", "a"],
            "after=bb": ["c", "ca", "d"],
            "prefix=b&after=b": ["ba"],
            "prefix=&from=&to=&after=": names,
            "limit=2": ["a", "aa"],
            "limit=2&reverse=true": ["d", "ca"],
            "from=c&prefix=a": [],
            "reverse=false": names,
        }
        for query, want in cases.items():
            self.assertEqual(self.keys(b, query), want, query)

    def test_prefix_at_the_end_of_all(self):
        b = self.bucket()
        keys = [b"\xfe", b"\xff", b"\xff\xff", b"\xff\xff\x01"]
        self.fill(b, [(k, b"") for k in keys])
        for prefix, want in ((b"\xff", keys[1:]), (b"\xff\xff", keys[2:]), (b"\xfe", keys[:1])):
            for reverse in (0, 1):
                items = self.p.get("/v1/buckets/%s/keys?prefix=%s&reverse=%d" % (b, quote(prefix), reverse)).json()["items"]
                got = [harness.bytes_of(i, "key") for i in items]
                self.assertEqual(got, want[::-1] if reverse else want)

    def test_pages(self):
        b = self.bucket()
        names = ["%04d" % i for i in range(523)] + ["~odd", "~" + "A" * 20]
        lines = "\n".join(json.dumps({"key": n, "value": n * 3}) for n in names)
        self.assertEqual(self.p.request("POST", "/v1/buckets/%s/load" % b, lines.encode()).status, 200)
        for reverse in ("", "&reverse=true"):
            got, after = [], ""
            while True:
                page = self.p.get("/v1/buckets/%s/keys?limit=50%s&after=%s" % (b, reverse, after)).json()
                got += [i["key"] for i in page["items"]]
                if not page["next"]:
                    break
                self.assertEqual(len(page["items"]), 50)
                after = page["next"]
            self.assertEqual(got, sorted(names, reverse=bool(reverse)))
        self.assertEqual(len(self.keys(b)), 100)
        self.assertEqual(len(self.keys(b, "limit=10000")), 525)
        self.assertEqual(self.keys(b, "after=~odd&limit=5"), [])
        # A key that is a cursor is one; from and to take any key.
        cursor = self.p.get("/v1/buckets/%s/keys?limit=1" % b).json()["next"]
        self.p.put(b, cursor, b"")
        self.assertEqual(self.keys(b, "limit=1&after=" + cursor), ["0001"])
        ordered = sorted(names + [cursor])
        at = ordered.index(cursor)
        self.assertEqual(self.keys(b, "limit=10000&from=%s%%00" % cursor), ordered[at + 1:])
        self.assertEqual(self.keys(b, "limit=10000&reverse=true&to=" + cursor), ordered[:at][::-1])

    def test_items(self):
        b = self.bucket()
        tag = self.p.put(b, "k", b"val").headers["ETag"]
        item = self.p.get("/v1/buckets/%s/keys" % b).json()["items"][0]
        self.assertEqual(item, {"key": "k", "version": int(tag.strip('"'))})
        item = self.p.get("/v1/buckets/%s/keys?values=true" % b).json()["items"][0]
        self.assertEqual((item["value"], item["size"]), ("val", 3))
        self.p.put(b, "k", b"\x00\xff")
        item = self.p.get("/v1/buckets/%s/keys?values=1" % b).json()["items"][0]
        self.assertEqual(item["value_base64"], "AP8=")

    def test_ndjson(self):
        b = self.bucket()
        names = ["%05d" % i for i in range(3000)]
        body = "\n".join(json.dumps({"key": n, "value": "v\n\"%s\"" % n}) for n in names)
        self.p.request("POST", "/v1/buckets/%s/load" % b, body.encode())
        reply = self.p.get("/v1/buckets/%s/keys?values=true" % b, {"Accept": "application/x-ndjson"})
        self.assertEqual(reply.headers["Content-Type"], "application/x-ndjson")
        lines = [json.loads(line) for line in reply.body.splitlines()]
        self.assertEqual([line["key"] for line in lines[:-1]], names)
        self.assertEqual(lines[77]["value"], "v\n\"00077\"")
        self.assertEqual(lines[-1], {"end": True, "count": 3000, "txid": int(reply.headers["BTS-Txid"]), "next": None})
        reply = self.p.get("/v1/buckets/%s/keys?limit=7" % b, {"Accept": "application/x-ndjson"})
        self.assertEqual(json.loads(reply.body.splitlines()[-1])["count"], 7)

    def test_head_and_bodies_where_none_belong(self):
        b = self.bucket()
        self.fill(b, [("%02d" % i, b"x" * 50000) for i in range(10)])
        path = "/v1/buckets/%s/keys?values=true" % b
        with self.p.client() as c:
            for accept in ("application/json", "application/x-ndjson"):
                for method in ("HEAD", "GET", "HEAD"):
                    reply = c.request(method, path, b"a body" * 1000, {"Accept": accept})
                    self.assertEqual((reply.status, len(reply.body) > 500000), (200, method == "GET"))
            self.assertEqual(c.request("DELETE", "/v1/buckets/%s/keys/00" % b, b"body").status, 204)
        old = self.p.raw(b"GET %s HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n" % path.encode())
        self.assertIn(b'{"end":true,"count":9,', old)

    def test_large_values_in_a_listing(self):
        b = self.bucket()
        values = {"bin": os.urandom(900001), "nul": b"\0" * 500000, "text": "é\n\"".encode() * 100003}
        self.fill(b, values.items())
        items = self.p.get("/v1/buckets/%s/keys?values=true" % b).json()["items"]
        self.assertEqual({i["key"]: harness.bytes_of(i, "value") for i in items}, values)

    def test_a_slow_reader_sees_one_snapshot(self):
        b = self.bucket()
        self.fill(b, [("%03d" % i, b"x" * 100000) for i in range(60)])
        with self.p.client() as c:
            c.http.request("GET", "/v1/buckets/%s/keys?values=true" % b, headers={"Accept": "application/x-ndjson"})
            reply = c.http.getresponse()
            first = reply.readline()
            for i in range(60):
                self.p.put(b, "%03d" % i, b"changed")
            lines = [json.loads(x) for x in (first + reply.read()).splitlines()]
        self.assertEqual(len(lines), 61)
        for line in lines[:-1]:
            self.assertEqual(line["value"], "x" * 100000)

    def test_bad_parameters(self):
        b = self.bucket()
        path = "/v1/buckets/%s/keys?" % b
        for query, code in (("colour=red", "unknown-parameter"),
                            ("limit=0", "invalid-parameter"), ("limit=10001", "invalid-parameter"),
                            ("limit=-1", "invalid-parameter"), ("limit=x", "invalid-parameter"),
                            ("limit=99999999999999999999999", "invalid-parameter"), ("reverse=maybe", "invalid-parameter"),
                            ("values=2", "invalid-parameter"), ("limit=1&limit=2", "duplicate-parameter"),
                            ("prefix=" + "x" * 1025, "key-too-long"), ("after=" + "x" * 1500, "invalid-parameter"),
                            ("wait=5", "invalid-parameter"), ("wait=61s", "invalid-parameter"),
                            ("&".join("p%d=" % i for i in range(17)), "invalid-parameter"),
                            ("&".join("p%d=" % i for i in range(16)), "unknown-parameter")):
            self.is_problem(self.p.get(path + query), 400, code)

    def test_empty_parameters(self):
        b = self.bucket()
        self.fill(b, [("a", b"1"), ("b", b"2")])
        for query in ("limit=", "values=", "reverse=", "limit=&values=&reverse=&prefix=&from=&to=&after=&delimiter="):
            self.assertEqual(self.keys(b, query), ["a", "b"], query)
        self.assertEqual(self.p.get("/v1/buckets?limit=&after=").status, 200)

    def test_which_form(self):
        b = self.bucket()
        for accept, form in (("application/x-ndjson;q=0", "json"), ("application/x-ndjsonfoo", "json"), ("*/*", "json"),
                             ("text/html, Application/X-NDJSON;q=0.5", "x-ndjson")):
            reply = self.p.get("/v1/buckets/%s/keys" % b, {"Accept": accept})
            self.assertEqual(reply.headers["Content-Type"], "application/" + form, accept)


class Buckets(Api):
    def test_life(self):
        made = self.p.request("PUT", "/v1/buckets/life", b'{"content_type":"application/json"}')
        self.assertEqual((made.status, made.json()["content_type"]), (201, "application/json"))
        self.assertEqual(self.p.request("PUT", "/v1/buckets/life").status, 200)
        self.p.put("life", "k", b"{}")
        self.assertEqual(self.p.value("life", "k").headers["Content-Type"], "application/json")
        changed = self.p.request("PUT", "/v1/buckets/life", b'{"content_type":"text/plain; charset=utf-8"}')
        self.assertEqual((changed.status, changed.json()["content_type"]), (200, "text/plain; charset=utf-8"))
        self.assertEqual(self.p.value("life", "k").headers["Content-Type"], "text/plain; charset=utf-8")
        one = self.p.get("/v1/buckets/life").json()
        self.assertEqual((one["name"], one["entries"], one["bytes"]), ("life", 1, 3))
        gone = self.p.request("DELETE", "/v1/buckets/life")
        self.assertEqual(gone.status, 204)
        self.is_problem(self.p.request("DELETE", "/v1/buckets/life"), 404, "bucket-not-found")
        self.is_problem(self.p.value("life", "k"), 404, "bucket-not-found")
        self.assertEqual(self.p.request("PUT", "/v1/buckets/life").status, 201)
        self.is_problem(self.p.value("life", "k"), 404, "not-found")

    def test_list(self):
        names = [b"list-" + n for n in (b"a", b"b/c", b"\xff", b"z")]
        for name in names:
            self.assertEqual(self.p.request("PUT", "/v1/buckets/" + quote(name)).status, 201)
        got, after = [], ""
        while True:
            page = self.p.get("/v1/buckets?limit=3&after=" + after).json()
            got += [harness.bytes_of(i, "name") for i in page["items"]]
            if not page["next"]:
                break
            after = page["next"]
        self.assertEqual(got, sorted(got))
        self.assertEqual([n for n in got if n.startswith(b"list-")], sorted(names))
        self.assertEqual(self.p.get("/v1/buckets").json()["items"][0]["content_type"], "application/octet-stream")

    def test_bad_bodies(self):
        for body, code in ((b"{", "malformed-json"), (b"[]", "malformed-json"), (b'{"a":1}', "invalid-body"),
                           (b'{"content_type":1}', "invalid-body"), (b'{"content_type":"x"}', "invalid-body"),
                           (b'{"content_type":"a/b","content_type":"a/c"}', "malformed-json"),
                           (b'{"content_type":"a/b\\r\\nX-Evil: 1"}', "invalid-body"),
                           (json.dumps({"content_type": "a/" + "b" * 300}).encode(), "invalid-body")):
            self.is_problem(self.p.request("PUT", "/v1/buckets/bad", body), 400, code)
        self.is_problem(self.p.get("/v1/buckets/bad"), 404, "bucket-not-found")


class Load(Api):
    def load(self, b, body):
        return self.p.request("POST", "/v1/buckets/%s/load" % b, body)

    def test_many(self):
        b = self.bucket()
        pairs = {"key-%05d" % i: "value %d é" % i for i in range(25000)}
        body = "".join(json.dumps({"key": k, "value": v}) + "\n" for k, v in pairs.items())
        reply = self.load(b, body.encode())
        self.assertEqual(reply.status, 200, reply)
        got = reply.json()
        self.assertEqual((got["records"], got["lines"], got["commits"]), (25000, 25000, 25))
        self.assertEqual(str(got["txid"]), reply.headers["BTS-Txid"])
        self.assertTrue(reply.headers["BTS-Token"])
        self.assertEqual(self.p.get("/v1/buckets/" + b).json()["entries"], 25000)
        self.assertEqual(self.p.value(b, "key-12345").body.decode(), pairs["key-12345"])

    def test_base64_blank_lines_and_no_last_newline(self):
        b = self.bucket()
        reply = self.load(b, b'\n{"key_base64":"/w==","value_base64":""}\r\n\n{"value":"\\u00e9","key":"e"}')
        self.assertEqual(reply.json()["records"], 2, reply)
        self.assertEqual(self.p.value(b, b"\xff").body, b"")
        self.assertEqual(self.p.value(b, "e").body, "é".encode())

    def test_nothing(self):
        reply = self.load(self.bucket(), b"")
        self.assertEqual((reply.status, reply.json()["records"], reply.json()["commits"]), (200, 0, 0))

    def test_a_bad_line_is_change(self):
        b = self.bucket()
        good = "".join('{"key":"%d","value":"v"}\n' % i for i in range(2500)).encode()
        for bad, code in ((b"{oops\n", "malformed-json"), (b'{"key":"a"}\n', "invalid-record"),
                          (b'{"key":"' + b"k" * 1025 + b'","value":""}\n', "key-too-long"),
                          (b'{"key":"","value":""}\n', "key-empty"), (b'{"key":"a","value":"b","c":1}', "invalid-record"),
                          (b'{"key":"\xff","value":""}', "malformed-json")):
            problem = self.is_problem(self.load(b, good + bad), 400, code)
            self.assertEqual((problem["line"], problem["records"], problem["commits"]), (2501, 2000, 2))
            self.assertIn("line 2501", problem["detail"])
        self.assertEqual(self.p.get("/v1/buckets/" + b).json()["entries"], 2000)
        # The rest of a long body is read and dropped, and the connection lives on.
        with self.p.client() as c:
            self.assertEqual(c.request("POST", "/v1/buckets/%s/load" % b, b"x\n" + good * 20).status, 400)
            self.assertEqual(c.request("GET", "/livez").status, 200)

    def test_a_line_over_the_limit(self):
        b = self.bucket()
        problem = self.is_problem(self.load(b, b'{"key":"a","value":"b"}\n' + b"x" * (1 << 20) + b"y\n"), 413, "line-too-long")
        self.assertEqual(problem["line"], 2)

    def test_more_than_max_body_in_all(self):
        b = self.bucket()
        lines = ('{"key":"%06d","value":"' + "v" * 900 + '"}\n')
        body = "".join(lines % i for i in range(4000)).encode()
        self.assertGreater(len(body), 3 << 20)
        self.assertEqual(self.load(b, body).json()["records"], 4000)


class Operations(Api):
    def test_health(self):
        for path in ("/livez", "/healthz", "/readyz", "/readyz?role=primary", "/readyz?max_lag=2s"):
            for method in ("GET", "HEAD", "OPTIONS"):
                self.assertEqual(self.p.request(method, path).status, 204 if method == "OPTIONS" else 200, path)
        self.assertEqual(self.p.get("/livez").json()["status"], "ok")
        self.is_problem(self.p.get("/readyz?role=follower"), 503, "wrong-role")
        self.is_problem(self.p.get("/readyz?role=king"), 400, "invalid-parameter")
        self.is_problem(self.p.get("/readyz?max_lag=2"), 400, "invalid-parameter")
        self.is_problem(self.p.get("/livez?x=1"), 400, "unknown-parameter")
        self.assertEqual(self.p.get("/readyz?role=follower").headers["Retry-After"], "1")

    def test_status(self):
        s = self.p.status()
        self.assertEqual((s["role"], s["name"], s["followers"]), ("primary", "prime", []))
        for member, pattern in (("database_id", "^[0-9a-f]{32}$"), ("root_digest", "^[0-9a-f]{32}$")):
            self.assertRegex(s[member], pattern)
        for member in ("epoch", "txid", "durable_txid", "file_bytes", "pages", "free_pages", "readers"):
            self.assertIsInstance(s[member], int, member)
        self.assertEqual(s["txid"], s["durable_txid"])

    def test_metrics(self):
        b = self.bucket()
        self.p.put(b, "k", b"v")
        self.p.value(b, "none")
        missed = 'btsd_requests_total{route="/v1/buckets/{bucket}/keys/{key}",method="GET",status="404"} '
        # A request is counted when it has ended, which may be after its reply was read.
        text = harness.await_true(lambda: (lambda t: missed in t and t)(self.p.get("/metrics").body.decode()), what=missed)
        for line in text.splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) \w+ .+|\w+(\{[^ ]*\})? [0-9.e+-]+)$")
        for part in ('btsd_request_seconds_bucket{route="/v1/buckets/{bucket}/keys/{key}",method="PUT",class="2xx",le="+Inf"} ',
                     "bts_txid ", "btsd_group_seconds_count ", "bts_flushes_total "):
            self.assertIn(part, text)

    def test_page(self):
        reply = self.p.get("/")
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"btree_store primary", reply.body)

    def test_admin_listener(self):
        port = int(self.p.wait_log(r"admin=127\.0\.0\.1:(\d+)").group(1))
        with harness.Client(port) as c:
            for path in ("/livez", "/readyz", "/metrics", "/v1/status", "/"):
                self.assertEqual(c.request("GET", path).status, 200, path)
            self.is_problem(c.request("GET", "/v1/buckets"), 404, "route-not-found")

    def test_methods(self):
        b = self.bucket()
        for method, path, allow in (
                ("POST", "/v1/buckets", "GET, HEAD, OPTIONS"), ("POST", "/livez", "GET, HEAD, OPTIONS"),
                ("PATCH", "/v1/buckets/" + b, "GET, HEAD, PUT, DELETE, OPTIONS"), ("GET", "/v1/buckets/%s/load" % b, "POST, OPTIONS"),
                ("BREW", "/v1/buckets/%s/keys/k" % b, "GET, HEAD, PUT, DELETE, OPTIONS"), ("TRACE", "/", "GET, HEAD, OPTIONS")):
            reply = self.p.request(method, path, b"some body" if method != "TRACE" else None)
            self.is_problem(reply, 405, "method-not-allowed")
            self.assertEqual(reply.headers["Allow"], allow)
            options = self.p.request("OPTIONS", path)
            self.assertEqual((options.status, options.headers["Allow"]), (204, allow))
        for path in ("/nowhere", "/v1", "/v1/buckets/b/keys/a/b", "/v2/buckets", "/v1/status/"):
            self.is_problem(self.p.get(path), 404, "route-not-found")
            self.is_problem(self.p.request("OPTIONS", path), 404, "route-not-found")

    def test_too_large_a_body(self):
        b = self.bucket()
        with self.p.client() as c:
            for extra in (1, 3 << 20):
                self.is_problem(c.request("PUT", "/v1/buckets/%s/keys/k" % b, b"x" * (1048576 + extra)), 413, "body-too-large")
            c.http.request("PUT", "/v1/buckets/%s/keys/k" % b, body=iter([b"x" * 65536] * 17), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})
            reply = c.http.getresponse()
            self.assertEqual((reply.status, json.loads(reply.read())["code"]), (413, "body-too-large"))
            self.is_problem(c.request("GET", "/v1/buckets/%s/keys/k" % b), 404, "not-found")

    def test_tokens(self):
        b = self.bucket()
        put = self.p.put(b, "k", b"v")
        token = put.headers["BTS-Token"]
        self.assertEqual(self.p.value(b, "k", {"BTS-After": token}).status, 200)
        raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        raw[13 + 4] += 1  # far in the future
        ahead = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
        reply = self.p.get("/v1/buckets/%s/keys/k?wait=300ms" % b, {"BTS-After": ahead})
        self.is_problem(reply, 503, "behind")
        raw[6] ^= 1  # another history
        lost = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
        self.is_problem(self.p.value(b, "k", {"BTS-After": lost}), 409, "write-lost")
        self.is_problem(self.p.value(b, "k", {"BTS-After": "nonsense"}), 400, "invalid-token")
        self.is_problem(self.p.value(b, "k", {"BTS-Max-Staleness": "2"}), 400, "invalid-header")
        self.assertEqual(self.p.value(b, "k", {"BTS-Max-Staleness": "2s"}).status, 200)
        # A wait that ends because the commit comes.
        raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        next_txid = int.from_bytes(raw[13:], "little") + 1
        raw[13:] = next_txid.to_bytes(8, "little")
        later = threading.Timer(0.2, lambda: self.p.put(b, "k", b"w"))
        later.start()
        reply = self.p.value(b, "k", {"BTS-After": base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")})
        later.join()
        self.assertEqual((reply.status, reply.body), (200, b"w"))


del Api  # the base has no tests of its own

if __name__ == "__main__":
    harness.main()
