#!/usr/bin/env python3
"""Large values that this process has not verified yet: read by other threads than the loops', in every route that sends values, and
never sent when they are damaged."""
import os
import re
import unittest

import harness

SIZE = 6 << 20
# Text with characters of all lengths, at every place in regard to the steps.
TEXT = ("aé€\U0001f600" * (SIZE // 10 + 1)).encode()[:SIZE + 2]
while True:
    try:
        TEXT.decode()
        break
    except UnicodeDecodeError:
        TEXT = TEXT[:-1]
VALUES = {"bytes": os.urandom(SIZE) + b"\xff", "late": TEXT + b"\xe2\x82", "text": TEXT, "zero": TEXT + b"\0"}
READS = {"value": ("GET", "/v1/buckets/b/keys/%s", None),
         "listing": ("GET", "/v1/buckets/b/keys?values=1&prefix=%s", None),
         "ndjson": ("GET", "/v1/buckets/b/keys?values=1&prefix=%s", None),
         "txn": ("POST", "/v1/txn", '{"then":[{"op":"get","bucket":"b","key":"%s"}]}'),
         "get": ("POST", "/v1/get", '{"get":[{"bucket":"b","key":"%s"},{"bucket":"b","key":"none"}]}')}


class Large(harness.Case):
    def fill(self):
        with harness.primary(self.dir) as p:
            p.request("PUT", "/v1/buckets/b")
            for key, value in VALUES.items():
                self.assertEqual(p.put("b", key, value).status, 201)
            p.put("b", "small", b"s")

    def ask(self, p, how, key):
        method, target, body = READS[how]
        headers = {"X-Request-Id": "%s-%s" % (how, key)}
        if how == "ndjson":
            headers["Accept"] = "application/x-ndjson"
        return p.request(method, target % key if "%s" in target else target, body % key if body else None, headers)

    def value_of(self, how, reply, key):
        self.assertEqual(reply.status, 200, reply)
        if how == "value":
            return reply.body
        if how == "ndjson":
            item, end = (harness.json.loads(line) for line in reply.body.splitlines())
            self.assertEqual(end["count"], 1)
        else:
            item = reply.json()["results" if how == "txn" else "items"][0]
        self.assertIn("value" if key == "text" else "value_base64", item)
        return harness.bytes_of(item, "value")

    def job_us(self, p, how, key):
        line = p.wait_log(r"event=slow-request id=%s-%s .*" % (how, key)).group(0)
        return int(re.search(r" job_us=(\d+)", line).group(1))

    def test_another_thread_verifies(self):
        self.fill()
        for how in READS:
            with harness.primary(self.dir, "--slow-log", "1ms") as p:
                for key, value in VALUES.items():
                    self.assertEqual(self.value_of(how, self.ask(p, how, key), key), value, (how, key))
                    self.assertGreater(self.job_us(p, how, key), 0, (how, key))

    def test_many_at_once(self):
        self.fill()
        with harness.primary(self.dir) as p:
            def read(i):
                how = list(READS)[i % 5]
                for key, value in VALUES.items():
                    self.assertEqual(self.value_of(how, self.ask(p, how, key), key), value, (how, key))
            harness.parallel(8, read)
            # Those who go away meanwhile leave nothing behind.
            for i in range(40):
                s = harness.socket.create_connection(("127.0.0.1", p.port))
                s.sendall(b"GET /v1/buckets/b/keys?values=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                s.close()
            harness.await_true(lambda: p.status()["readers"] <= 1, what="the snapshots of who has gone")

    def test_a_condition_on_a_large_value(self):
        self.fill()
        with harness.primary(self.dir) as p:
            look = {"op": "get", "bucket": "b", "key": "small"}
            for value, status in ((TEXT, 200), (TEXT[:-1] + b"x", 412)):
                body = {"if": [{"bucket": "b", "key": "text", "value": value.decode("utf-8", "ignore")}], "then": [look]}
                self.assertEqual(p.request("POST", "/v1/txn", harness.json.dumps(body, ensure_ascii=False).encode()).status, status)
            both = [{"op": "get", "bucket": "b", "key": key} for key in ("text", "zero", "late")]
            reply = p.request("POST", "/v1/txn", harness.json.dumps({"then": both}).encode())
            self.assertEqual((reply.status, reply.code), (422, "result-too-large"))

    def test_a_damaged_one_is_never_sent(self):
        self.fill()
        with open(self.dir.file("primary.bts"), "r+b") as f:
            at = f.read().index(VALUES["bytes"][:4096]) + SIZE - 10
            f.seek(at)
            f.write(b"BAD")
        with harness.primary(self.dir) as p:
            for _ in range(2):
                for how in ("value", "listing", "txn", "get"):
                    reply = self.ask(p, how, "bytes")
                    self.assertEqual((reply.status, reply.code), (500, "corrupt"), (how, reply))
                    self.assertRegex(reply.json()["detail"], r"page \d+")
            self.assertEqual(self.value_of("get", self.ask(p, "get", "text"), "text"), VALUES["text"])


if __name__ == "__main__":
    harness.main()
