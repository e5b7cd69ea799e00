"""The archive: durability=archived, what is told of it, and that everything acknowledged is in it whoever is killed when."""
import json
import os
import random
import shutil
import subprocess
import threading
import unittest

import harness


class Archive(harness.Case):
    def setUp(self):
        super().setUp()
        self.url = "file://" + self.dir.file("archive")

    def primary(self, *args):
        self.p = self.started(harness.primary(self.dir, "--name", "p", *args))
        self.assertIn(self.p.request("PUT", "/v1/buckets/b?durability=local").status, (200, 201))

    def archiver(self, *args):
        return self.started(harness.replicator(self.dir, "--archive", self.url, "--archive-interval", "20ms", *args))

    def put(self, key, value=b"v", query="durability=archived&timeout=30s"):
        return self.p.request("PUT", "/v1/buckets/b/keys/%s?%s" % (key, query), value)

    def objects(self, kind):
        found = []
        for path, _, names in os.walk(self.dir.file("archive")):
            found += [os.path.join(path, n) for n in names if "/%s/" % kind in path + "/"]
        return sorted(found)

    def restored(self, *args, name="restored.bts"):
        """The file that the archive gives, opened by a server of its own."""
        path = self.dir.file(name)
        done = subprocess.run([harness.binary("bts-replicator"), "--archive", self.url, "--restore", path] + list(args),
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done)
        return self.started(harness.primary(self.dir, data=name))

    def contents(self, node):
        items, after = {}, ""
        while after is not None:
            page = node.get("/v1/buckets/b/keys?limit=1000&values=1" + ("&after=" + after if after else "")).json()
            items.update({i["key"]: harness.bytes_of(i, "value") for i in page["items"]})
            after = page["next"]
        return items

    def test_archived_is_there_when_the_files_are_lost(self):
        self.primary()
        self.assertEqual(self.put("k").code, "no-archive")
        self.assertNotIn("archive", self.p.status())
        r = self.archiver()
        harness.await_true(lambda: "archive" in self.p.status(), what="the archive to be known")
        keys = []

        def write(i):
            for n in range(40):
                reply = self.put("w%d-%d" % (i, n))
                self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (201, "archived"), reply)
                keys.append("w%d-%d" % (i, n))

        harness.parallel(4, write)
        lines = b"".join(b'{"key":"l%d","value":"x"}\n' % i for i in range(500))
        reply = self.p.request("POST", "/v1/buckets/b/load?durability=archived&timeout=30s", lines)
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (200, "archived"))
        reply = self.p.request("POST", "/v1/txn?durability=archived&timeout=30s",
                               json.dumps({"then": [{"op": "put", "bucket": "b", "key": "t", "value": "1"}]}).encode())
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (200, "archived"), reply)
        reply = self.p.request("DELETE", "/v1/buckets/b/keys/w0-0?durability=archived&timeout=30s")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (204, "archived"))
        keys.remove("w0-0")
        s = self.p.status()
        self.assertEqual((s["archive"], s["followers"]), ({"state": "elsewhere", "txid": s["txid"], "epoch": s["epoch"]}, []))
        s = r.status()
        self.assertEqual(s["followers"], [])
        self.assertEqual((s["archive"]["state"], s["archive"]["txid"], s["archive"]["url"], s["archive"]["fulls"]), ("going", s["txid"], self.url, 1))
        self.assertNotIn(b":archive", r.get("/metrics").body + self.p.get("/metrics").body)
        self.assertIn(b"bts_archive_txid %d" % s["txid"], r.get("/metrics").body)
        self.p.kill()
        r.kill()
        for name in os.listdir(self.dir.path):
            if name.startswith("primary.bts"):
                os.unlink(self.dir.file(name))
        n = self.restored()
        for key in keys + ["t", "l499"]:
            self.assertEqual(n.value("b", key).status, 200, key)
        self.assertEqual(n.value("b", "w0-0").status, 404)

    def test_in_btsd(self):
        self.primary("--archive", self.url, "--archive-interval", "0s", "--durability", "archived")
        for i in range(20):
            reply = self.put("k%d" % i, query="timeout=30s")
            self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (201, "archived"))
        s = self.p.status()
        self.assertEqual((s["durability"], s["archive"]["state"], s["archive"]["txid"], s["archive"]["last_error"]),
                         ("archived", "going", s["txid"], ""))
        self.assertIn(b"bts_archive_failing 0", self.p.get("/metrics").body)
        self.assertEqual(self.put("k", query="durability=local").headers["Durability-Reached"], None)
        # It counts for nobody's copies.
        self.assertEqual(self.put("k", query="durability=replicated:1&timeout=100ms").status, 202)
        self.assertEqual(self.p.stop(), 0)
        # Another life, another epoch: it goes on from the frame before.
        self.primary("--archive", self.url, "--durability", "archived", "--archive-interval", "0s")
        self.assertEqual(self.put("again", query="timeout=30s").status, 201)
        self.assertEqual(self.p.status()["archive"]["fulls"], 0)
        want = self.contents(self.p)
        self.assertEqual(self.p.stop(), 0)
        self.assertEqual(self.contents(self.restored()), want)

    def test_a_store_that_fails(self):
        place = self.dir.file("archive")
        with open(place, "w"):
            pass  # where a directory should be
        self.primary("--archive", self.url, "--archive-interval", "0s")
        reply = self.put("k", query="durability=archived&timeout=200ms")
        self.assertEqual((reply.status, reply.headers["Durability-Reached"], reply.json()["durability"]), (202, "local", "archived"))
        s = harness.await_true(lambda: self.p.status()["archive"]["last_error"] and self.p.status()["archive"], what="the failure to be told")
        self.assertEqual(s["state"], "failing")
        self.assertGreater(s["lag_ms"], 0)
        self.assertEqual(self.put("k2", query="durability=local").status, 201)  # nobody is held up
        os.unlink(place)
        self.assertEqual(self.put("k3", query="durability=archived&timeout=60s").status, 201)
        harness.await_true(lambda: "event=archive-recovered" in self.p.log_text(), what="the event")
        # Emptied under it: a full frame again, sooner or later; a restart looks at once.
        shutil.rmtree(place)
        self.assertEqual(self.p.stop(), 0)
        self.primary("--archive", self.url, "--archive-interval", "0s")
        self.assertEqual(self.put("k4").status, 201)
        self.assertEqual(self.p.status()["archive"]["fulls"], 1)
        want = self.contents(self.p)
        self.assertEqual(self.p.stop(), 0)
        self.assertEqual(self.contents(self.restored()), want)

    def test_killed_at_any_moment(self):
        seed = int(os.environ.get("BTS_SEED") or random.randrange(1 << 32))
        print("seed", seed)
        rng = random.Random(seed)
        self.primary()
        r = self.archiver()
        harness.await_true(lambda: "archive" in self.p.status(), what="the archive to be known")
        stop, archived = threading.Event(), []

        def write(i):
            n = 0
            while not stop.is_set():
                if self.put("w%d-%d" % (i, n), os.urandom(2000), "durability=archived&timeout=60s").status == 201:
                    archived.append("w%d-%d" % (i, n))
                n += 1

        writers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
        for t in writers:
            t.start()
        for _ in range(12):
            some = len(archived) + rng.randrange(12)
            harness.await_true(lambda: len(archived) >= some, what="writes")
            r.kill()
            if rng.randrange(3) == 0:
                self.assertGreater(self.p.status()["txid"], 0)
            r = self.archiver()
        stop.set()
        for t in writers:
            t.join()
        reply = self.put("last")
        self.assertEqual(reply.status, 201)
        want = self.contents(self.p)
        boundary = self.p.status()["txid"]
        self.p.kill()
        r.kill()
        shutil.copytree(self.dir.file("archive"), self.dir.file("copy"))
        n = self.restored()
        self.assertEqual(self.contents(n), want)
        for key in archived:
            self.assertIn(key, want)
        self.assertTrue(self.objects("manifest"))
        self.assertGreater(boundary, 0)

    def test_promoted_follower_goes_on(self):
        self.primary("--archive", self.url, "--archive-interval", "0s")
        f = self.started(harness.follower(self.dir, self.p, "--archive", self.url, "--archive-interval", "0s"))
        for i in range(20):
            self.assertEqual(self.put("k%d" % i).status, 201)
        harness.await_equal(self.p, f)
        self.p.kill()
        self.assertEqual(f.request("POST", "/v1/admin/promote?force=1").status, 200)
        self.p = f
        for i in range(20):
            reply = self.put("l%d" % i)
            self.assertEqual((reply.status, reply.headers["Durability-Reached"]), (201, "archived"))
        self.assertEqual(f.status()["archive"]["fulls"], 0)
        want = self.contents(f)
        self.assertEqual(f.stop(), 0)
        self.assertEqual(self.contents(self.restored()), want)


if __name__ == "__main__":
    harness.main()
