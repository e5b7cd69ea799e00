"""The change feed: every change arrives, once, in all three forms, wherever a client takes it up again."""
import http.client
import json
import random
import subprocess
import sys
import threading
import time
import unittest

import harness
from harness import bytes_of, quote

SEED = int(sys.argv.pop()) if len(sys.argv) > 1 and sys.argv[-1].isdigit() else random.randrange(1 << 30)


def target(**params):
    return "/v1/changes?" + "&".join("%s=%s" % (k, quote(v)) for k, v in params.items())


class Feed:
    """A stream, read event by event.  ndjson or sse."""

    def __init__(self, server, form="ndjson", last_id=None, **params):
        headers = {"Accept": "application/x-ndjson" if form == "ndjson" else "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        self.form = form
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.http.request("GET", target(**params), headers=headers)
        self.response = self.http.getresponse()
        self.status = self.response.status
        self.id = None

    def item(self):
        """The next line or event, as a dict; None at the end."""
        kind, data, own_id = None, None, None
        while True:
            try:
                line = self.response.readline()
            except (http.client.IncompleteRead, ConnectionResetError, ValueError):
                return None
            if not line:
                return None
            line = line.rstrip(b"\n")
            if self.form == "ndjson":
                return json.loads(line)
            if line.startswith(b"id: "):
                own_id = line[4:].decode()
            elif line.startswith(b"event: "):
                kind = line[7:].decode()
            elif line.startswith(b"data: "):
                data = json.loads(line[6:])
            elif not line and data is not None:
                assert kind == ("change" if "op" in data else "error" if "error" in data else "group"), (kind, data)
                if kind == "group":
                    assert own_id == data["bookmark"]
                self.id = own_id or self.id
                return data

    def group(self):
        """All up to the end of the next range of commits: its events, and the range."""
        events = []
        while True:
            item = self.item()
            if item is None:
                return events, None
            if "op" not in item:
                return events, item
            events.append(item)

    def marked(self):
        """All up to the next bookmark."""
        events = []
        while True:
            more, end = self.group()
            events += more
            if end is None or end.get("bookmark") or "error" in end:
                return events, end

    def close(self):
        self.response.close()
        self.http.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Copy:
    """What a client makes of a feed: a copy of the buckets."""

    def __init__(self):
        self.buckets = {}

    def apply(self, events):
        for e in events:
            bucket = bytes_of(e, "bucket")
            if e["op"] == "bucket-created":
                assert bucket not in self.buckets, e
                self.buckets[bucket] = {}
            elif e["op"] == "bucket-dropped":
                del self.buckets[bucket]
            elif e["op"] == "put":
                key, value = bytes_of(e, "key"), bytes_of(e, "value")
                assert self.buckets[bucket].get(key, (None, 0))[1] < e["version"], "told twice: %r" % e
                assert len(value) == e["size"]
                self.buckets[bucket][key] = (value, e["version"])
            elif e["op"] == "delete":
                del self.buckets[bucket][bytes_of(e, "key")]  # one that is told twice is not there

    def plain(self):
        return {b: {k: v for k, (v, _) in keys.items()} for b, keys in self.buckets.items()}


class Load:
    """Random writes in threads, with an oracle: each thread has keys of its own."""

    def __init__(self, server, threads=3):
        self.server = server
        self.stop = threading.Event()
        self.models = [{} for _ in range(threads)]
        self.counts = [0] * threads
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, number):
        rng = random.Random(SEED * 10 + number)
        model = self.models[number]
        with self.server.client() as c:
            while not self.stop.is_set():
                key = b"t%d/%d" % (number, rng.randrange(40))
                path = "/v1/buckets/%s/keys/%s" % ("ab"[number % 2], quote(key))
                if rng.random() < 0.3:
                    reply = c.request("DELETE", path)
                    assert reply.status == (204 if key in model else 404), reply
                    model.pop(key, None)
                else:
                    value = bytes(rng.randrange(256) for _ in range(rng.choice((0, 5, 30, 3000))))
                    assert c.request("PUT", path, value).status in (200, 201)
                    model[key] = value
                self.counts[number] += 1

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()
        state = {b"a": {}, b"b": {}}
        for number, model in enumerate(self.models):
            state[b"ab"[number % 2:number % 2 + 1]].update(model)
        return state


class Changes(unittest.TestCase):
    def setUp(self):
        self.dir = harness.Dir()
        self.dir.__enter__()
        self.addCleanup(self.dir.__exit__, None, None, None)
        print("seed %d" % SEED)

    def primary(self, *args):
        p = harness.primary(self.dir, *args)
        self.addCleanup(p.stop)
        for bucket in "ab":
            p.request("PUT", "/v1/buckets/" + bucket)
        return p

    def test_three_forms_say_the_same(self):
        p = self.primary()
        start = p.get(target()).json()
        self.assertEqual(start["events"], [])
        with Feed(p, values="1") as nd, Feed(p, "sse", values="1") as sse:
            first = nd.group()
            self.assertEqual(first[0], [])
            self.assertEqual(first[1]["from"], first[1]["to"])
            self.assertEqual(sse.group(), first)
            p.put("a", "k", b"one")
            p.put("a", b"\xff\x00", b"\x80")
            p.request("DELETE", "/v1/buckets/a/keys/k")
            p.request("PUT", "/v1/buckets/c", json.dumps({"content_type": "text/plain"}))
            p.put("c", "x", b"")
            p.request("DELETE", "/v1/buckets/b")
            for feed in nd, sse:
                copy = Copy()
                copy.buckets = {b"a": {}, b"b": {}}
                seen = []
                while copy.plain() != {b"a": {b"\xff\x00": b"\x80"}, b"c": {b"x": b""}}:
                    events, end = feed.group()
                    self.assertTrue(events or end["bookmark"], end)
                    copy.apply(events)
                    seen += events
                created = [e for e in seen if e["op"] == "bucket-created"]
                self.assertEqual([e["content_type"] for e in created], ["text/plain"])
        r = p.get(target(since=start["bookmark"], values="1")).json()
        self.assertEqual([(e["op"], bytes_of(e, "bucket")) for e in r["events"]],
                         [("put", b"a"), ("bucket-dropped", b"b"), ("bucket-created", b"c"), ("put", b"c")])
        self.assertEqual(r["from"], start["to"])
        # What was put and deleted in between is nobody's any more; without values there are none.
        self.assertEqual([e.get("value_base64", e.get("value")) for e in r["events"] if e["op"] == "put"], ["gA==", ""])
        self.assertNotIn("value", p.get(target(since=start["bookmark"])).json()["events"][-1])
        # Nothing of the server's own.
        p.request("PUT", "/v1/buckets/a/keys/short?ttl=7d", b"v")
        r = p.get(target(since=r["bookmark"])).json()
        self.assertEqual([(e["op"], e["key"]) for e in r["events"]], [("put", "short")])
        self.assertIn("expires", r["events"][0])

    def test_restricted(self):
        p = self.primary()
        mark = p.get(target()).json()["bookmark"]
        with Feed(p, bucket="a", prefix="x/") as feed:
            feed.group()
            for i in range(30):
                p.put("ab"[i % 2], "%s/%d" % ("xyz"[i % 3], i), b"v")
            want = [("a", "x/%d" % i) for i in range(0, 30, 6)]
            got = []
            while len(got) < len(want):
                got += [(e["bucket"], e["key"]) for e in feed.group()[0]]
            self.assertEqual(sorted(got), sorted(want))
        reply = p.get(target(since=mark, bucket="a", prefix="x/")).json()
        self.assertEqual(sorted((e["bucket"], e["key"]) for e in reply["events"]), sorted(want))
        whole = p.get(target(since="begin", prefix="y")).json()["events"]
        self.assertEqual(len([e for e in whole if e["op"] == "put"]), 10)
        self.assertEqual(p.get(target(since="0", bucket="nothing", wait="0s")).json()["events"], [])

    def follow(self, server, form, copy, done, mark=None, restarts=None):
        """Follow until done(): takes the feed up anew at random from the last bookmark."""
        rng = random.Random("%d%s" % (SEED, form))
        while not done():
            params = {"values": "1", "since": mark or "begin"}
            if form == "json":
                reply = server.get(target(wait="300ms", **params))
                self.assertEqual(reply.status, 200, reply)
                copy.apply(reply.json()["events"])
                mark = reply.json()["bookmark"]
                self.assertTrue(mark)  # else there would be no going on
                continue
            last_id = None
            if form == "sse" and mark:
                last_id, params["since"] = mark, "begin"  # what the browser's address still says
            with Feed(server, form, last_id, **params) as feed:
                self.assertEqual(feed.status, 200)
                for _ in range(rng.randrange(1, 12)):
                    events, end = feed.marked()
                    if end is None or done():
                        break
                    copy.apply(events)
                    mark = end["bookmark"]
                    if restarts is not None:
                        restarts[form] = restarts.get(form, 0) + 1
        return mark

    def test_nothing_lost_or_told_twice(self):
        """Random load; clients of each form come and go; what they made of it is what there is."""
        p = self.primary("--changes-heartbeat", "200ms")
        copies = {form: Copy() for form in ("json", "ndjson", "sse")}
        final = {}
        load = Load(p)
        threads, failures = [], []

        def run(form):
            try:
                self.follow(p, form, copies[form], lambda: final and copies[form].plain() == final["state"])
            except BaseException as e:  # noqa
                failures.append((form, e))
                raise

        for form in copies:
            threads.append(threading.Thread(target=run, args=(form,), daemon=True))
            threads[-1].start()
        time.sleep(4)
        final["state"] = load.end()
        for t in threads:
            t.join(20)
        self.assertEqual(failures, [])
        for form, copy in copies.items():
            self.assertEqual(copy.plain(), final["state"], form)
        print("%d writes" % sum(load.counts))

    def test_follower(self):
        p = self.primary()
        f = harness.follower(self.dir, p, "--changes-heartbeat", "200ms")
        self.addCleanup(f.stop)
        harness.await_equal(p, f)
        copy = Copy()
        load = Load(p)
        final = {}
        thread = threading.Thread(
            target=self.follow, args=(f, "ndjson", copy, lambda: final and copy.plain() == final["state"]), daemon=True)
        thread.start()
        time.sleep(2)
        final["state"] = load.end()
        thread.join(20)
        self.assertEqual(copy.plain(), final["state"])

    def test_promotion(self):
        """What bookmarks keep of a follower's file does not keep it from being promoted; feeds go on, and so do those that wait."""
        p = self.primary()
        p.put("b", "more", b"x" * 100000)
        f = harness.follower(self.dir, p)
        self.addCleanup(f.stop)
        harness.await_equal(p, f)
        mark = f.get(target()).json()["bookmark"]
        got = []
        thread = threading.Thread(target=lambda: got.append(f.get(target(since=mark, bucket="a", wait="60s")).json()))
        thread.start()
        with Feed(f, bucket="b") as feed:
            feed.group()
            harness.await_true(lambda: "btsd_watchers_idle 2\n" in f.get("/metrics").body.decode())
            p.request("DELETE", "/v1/buckets/b/keys/more")
            for i in range(20):
                p.put("b", "k%d" % i, b"new%d" % i * 25000)
            harness.await_equal(p, f)
            self.assertGreater(f.status()["redirected_pages"], 0)
            self.assertEqual(p.request("POST", "/v1/admin/demote").status, 200)
            harness.await_equal(p, f)
            reply = f.request("POST", "/v1/admin/promote?force=1")
            self.assertEqual(reply.status, 200, reply)
            thread.join(20)
            self.assertEqual(got[0]["events"], [])
            self.assertEqual(f.get(target(since=got[0]["bookmark"], wait="0s")).json()["events"], [])
            self.assertEqual(f.get(target(since=mark)).status, 410)
            f.put("b", "last", b"v")
            seen = []
            while not seen or seen[-1]["key"] != "last":
                seen += feed.group()[0]

    def test_heartbeat_and_end(self):
        p = self.primary("--changes-heartbeat", "100ms")
        with Feed(p, bucket="b") as feed:
            first = feed.group()[1]
            p.put("a", "k", b"v")  # not of this feed: only the heartbeat's bookmark moves
            while True:
                events, end = feed.group()
                self.assertEqual(events, [])
                if end["to"] > first["to"]:
                    break
            p.put("a", "later", b"v")
            reply = p.get(target(since=end["bookmark"], wait="0s")).json()
            self.assertEqual([e["key"] for e in reply["events"]], ["later"])
            p.stop()
            while end is not None:
                events, end = feed.group()

    def test_waits(self):
        p = self.primary()
        mark = p.get(target()).json()["bookmark"]
        reply = p.get(target(since=mark, wait="100ms")).json()
        self.assertEqual((reply["events"], reply["from"]), ([], reply["to"]))
        got = []
        thread = threading.Thread(target=lambda: got.append(p.get(target(since=mark, bucket="a", wait="60s")).json()))
        thread.start()
        harness.await_true(lambda: "btsd_watchers_idle 1\n" in p.get("/metrics").body.decode())
        p.put("b", "other", b"v")
        p.put("a", "k", b"v")
        thread.join(20)
        self.assertEqual([e["key"] for e in got[0]["events"]], ["k"])
        # The server's end is an end of the wait.
        thread = threading.Thread(target=lambda: got.append(p.get(target(since=mark, prefix="q", wait="60s")).json()))
        thread.start()
        harness.await_true(lambda: "btsd_watchers_idle 1\n" in p.get("/metrics").body.decode())
        p.stop()
        thread.join(20)
        self.assertEqual(got[1]["events"], [])

    def test_gone(self):
        p = self.primary("--changes-retain", "1s")
        old = p.get(target()).json()["bookmark"]
        port = p.port
        p.put("a", "k", b"v")
        newer = p.get(target()).json()["bookmark"]
        reply = harness.await_true(lambda: (lambda r: r.status == 410 and r)(p.get(target(since=old))), 20)
        self.assertEqual(reply.code, "bookmark-expired")
        self.assertIn(reply.json()["oldest"], (newer, None))
        # The newest state is good for ever.
        self.assertEqual(p.get(target(since=p.get(target()).json()["bookmark"], wait="1200ms")).status, 200)
        newer = p.get(target()).json()["bookmark"]
        p.stop()
        p = harness.primary(self.dir, listen="127.0.0.1:%d" % port)
        self.addCleanup(p.stop)
        reply = p.get(target(since=newer))
        self.assertEqual((reply.status, reply.code, reply.json()["oldest"]), (410, "bookmark-expired", None))
        self.assertEqual(p.get(target(since="nonsense")).code, "invalid-bookmark")
        self.assertEqual(p.get(target(bucket="\0ttl")).code, "bucket-name-reserved")
        self.assertEqual(p.get(target(wait="2h")).code, "invalid-parameter")
        self.assertEqual(p.get(target(values="maybe")).code, "invalid-parameter")
        self.assertEqual(p.request("HEAD", target()).status, 200)

    def test_costly(self):
        """A state that keeps too many pages is let go, and whoever follows from there is told."""
        p = self.primary("--changes-pages", "20")
        for i in range(60):
            p.put("a", "key%d" % i, b"w" * 900)
        mark = p.get(target()).json()["bookmark"]

        def gone():
            for i in range(60):
                p.put("a", "key%d" % i, b"v" * 900)
            return p.get(target(since=mark, wait="0s")).status == 410

        harness.await_true(gone, 30)

    def test_polling_in_a_hurry_takes_nobody_elses_bookmarks(self):
        """More newcomers than there are states to keep, each at a state of its own: only they lose theirs."""
        p = self.primary()

        def polled(since):
            return p.get(target(wait="0s", since=since))

        other = http.client.HTTPConnection("127.0.0.1", p.port, source_address=("127.0.0.2", 0))

        def asked(**params):
            other.request("GET", target(wait="0s", **params))
            reply = other.getresponse()
            found = reply.status, json.loads(reply.read())
            other.close()  # until the next time it would be idle for long
            return found

        status, first = asked()
        self.assertEqual(status, 200)
        hasty = []
        with p.client() as c:
            for i in range(300):
                c.request("PUT", "/v1/buckets/a/keys/hasty", b"%d" % i)
                hasty.append(c.request("GET", target(wait="0s")).json()["bookmark"])
        self.assertEqual(polled(hasty[-1]).status, 200)
        gone = [reply for reply in map(polled, hasty) if reply.status != 200]
        self.assertEqual({(reply.status, reply.code) for reply in gone}, {(410, "bookmark-expired")})
        self.assertEqual(polled(gone[0].json()["oldest"]).status, 200)
        status, then = asked(since=first["bookmark"])
        self.assertEqual(status, 200, then)
        self.assertEqual([e["key"] for e in then["events"]], ["hasty"])

    def test_too_many(self):
        p = self.primary("--watchers-max", "2")
        with Feed(p) as one, Feed(p, "sse"):
            one.group()
            reply = p.get(target())
            self.assertEqual((reply.status, reply.code), (429, "too-many-watchers"))
            self.assertIn("Retry-After", reply.headers)

    def test_head(self):
        """The headers of what a GET would tell now, parameters looked at alike."""
        p = self.primary()
        p.put("a", "k", b"v")
        mark = p.get(target()).json()["bookmark"]
        for query, status in (("", 200), ("?since=begin", 200), ("?since=" + mark, 200), ("?since=zzz", 400), ("?values=2", 400),
                              ("?wait=x", 400), ("?prefix=" + "x" * 1025, 400)):
            for accept in ("application/json", "application/x-ndjson", "text/event-stream"):
                head = p.request("HEAD", "/v1/changes" + query, headers={"Accept": accept})
                self.assertEqual((head.status, head.body), (status, b""), (query, accept))
                self.assertNotEqual(head.headers.get("Content-Length"), "0")
                if status == 200:
                    self.assertEqual(head.headers["Content-Type"], accept)
                    self.assertTrue(head.headers["BTS-Token"])
        now = p.get("/v1/changes?since=begin&wait=0s")
        head = p.request("HEAD", "/v1/changes?since=begin")
        self.assertEqual(head.headers["Content-Length"], now.headers["Content-Length"])
        reply = p.raw(b"HEAD /v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        self.assertTrue(reply.endswith(b"\r\n\r\n"), reply)

    def test_which_form(self):
        p = self.primary()
        for accept in ("application/x-ndjson;q=0", "application/x-ndjsonfoo", "text/event-stream; q=0.0", "text/event-streams"):
            self.assertEqual(p.get("/v1/changes?values=", {"Accept": accept}).headers["Content-Type"], "application/json", accept)

    def test_nothing_is_held(self):
        """A state is kept for who follows and for bookmarks; when both are gone, so is it."""
        p = self.primary("--changes-retain", "1s")
        with Feed(p) as feed:
            feed.group()
            p.put("a", "k", b"v")
            feed.group()
        p.put("a", "k", b"w")  # its end shows when something is sent
        def readers():
            p.put("a", "k", b"w")
            return p.status()["readers"]
        harness.await_true(lambda: readers() == 0, 30, "the end of all states")

    def test_tokens(self):
        """Who is limited to some buckets is told of those."""
        tokens = self.dir.file("tokens")

        def token(*args):
            done = subprocess.run([harness.binary("btsd"), "token", "create", "--scope", "read,write"] + list(args) +
                                  ["--token-file", tokens], stdout=subprocess.PIPE, check=True)
            return {"Authorization": "Bearer " + done.stdout.decode().strip()}

        every, some = token(), token("--bucket", "a*,c")
        p = harness.primary(self.dir, "--token-file", tokens)
        self.addCleanup(p.stop)
        for bucket in ("a1", "b", "c", "d"):
            p.request("PUT", "/v1/buckets/" + bucket, None, every)
        self.assertEqual(p.get(target()).status, 401)
        mark = p.get(target(), every).json()["bookmark"]
        for bucket in ("a1", "b", "c", "d"):
            p.put(bucket, "k", b"v", every)

        def told(head, **params):
            return [e["bucket"] for e in p.get(target(since=mark, **params), head).json()["events"]]

        self.assertEqual(told(every), ["a1", "b", "c", "d"])
        self.assertEqual(told(some), ["a1", "c"])
        self.assertEqual(told(some, bucket="a1"), ["a1"])
        self.assertEqual(p.get(target(bucket="b"), some).code, "forbidden")

    def test_slow_reader(self):
        """Who does not read holds nobody up, and is told what became of it when it goes on."""
        p = self.primary()
        with Feed(p, values="1") as slow, Feed(p, values="1") as quick:
            slow.group()
            quick.group()
            value = b"0123456789abcdef" * 1000
            copy, fast = Copy(), Copy()
            copy.buckets = {b"a": {}, b"b": {}}
            fast.buckets = {b"a": {}, b"b": {}}
            with p.client() as c:
                for i in range(2000):
                    c.request("PUT", "/v1/buckets/a/keys/k%d" % (i % 50), b"%d " % i + value)
                    if i % 10 == 0:
                        c.request("PUT", "/v1/buckets/b/keys/once%d" % i, b"")
                    if i % 100 == 0:
                        while fast.buckets[b"a"].get(b"k%d" % (i % 50), (b"", 0))[0] != b"%d " % i + value:
                            fast.apply(quick.group()[0])
            want = {b"k%d" % (i % 50): b"%d " % i + value for i in range(1950, 2000)}
            events, end = 0, time.monotonic() + 30
            once = {b"once%d" % i: b"" for i in range(0, 2000, 10)}
            while copy.plain() != {b"a": want, b"b": once}:
                more = slow.group()[0]
                copy.apply(more)
                events += len(more)
                self.assertLess(time.monotonic(), end, "something was not told")
            self.assertLess(events, 2000)
            self.assertIn("btsd_watchers_lagged_total", p.get("/metrics").body.decode())
            print("slow reader: %d of 2200 events" % events)


if __name__ == "__main__":
    harness.main()
