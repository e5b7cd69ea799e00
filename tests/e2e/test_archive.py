"""Restores of archives: every boundary against an oracle, after a failover, damaged, pruned, killed."""
import json
import os
import random
import re
import subprocess
import time

import archive_maker
import harness
import node_packages

SEED = int(os.environ.get("BTS_SEED", random.randrange(1 << 32)))


def tool(*args):
    done = subprocess.run([harness.binary("bts")] + list(args), capture_output=True, timeout=100)
    return done.returncode, (done.stdout + done.stderr).decode()


def rfc3339(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


class Node:
    """A primary, the replicator beside it, and what it holds."""

    def __init__(self, test, name, server=None):
        self.test, self.name = test, name
        self.file = name + ".bts"
        self.server = server or test.started(harness.primary(test.dir, data=self.file))
        self.replicator = test.started(harness.replicator(test.dir, data=self.file))
        self.now = {}

    def write(self, rng, most=40):
        for _ in range(rng.randrange(1, most)):
            key = "k%d" % rng.randrange(200)
            if rng.randrange(4) == 0 and key in self.now:
                del self.now[key]
                self.test.assertIn(self.server.request("DELETE", "/v1/buckets/b/keys/" + key).status, (200, 204))
                continue
            value = "%d" % rng.randrange(1 << 60) * rng.randrange(1, 20)
            if rng.randrange(50) == 0:
                value *= 200
            self.now[key] = value
            self.test.assertIn(self.server.put("b", key, value.encode()).status, (200, 201, 204))

    def bucket(self):
        self.server.request("PUT", "/v1/buckets/b")
        return self

    def position(self):
        return self.replicator.get("/v1/replication/position").json()


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        self.files = 0
        self.archive = archive_maker.Maker(self.dir.file("archive"))

    def run_archive(self, *args, url=None):
        """Exit status, standard output, log."""
        done = subprocess.run([harness.binary("bts-replicator"), "--archive", url or self.archive.url] + list(args),
                              capture_output=True, timeout=100)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def restore(self, *args, url=None):
        self.files += 1
        file = self.dir.file("restored%d.bts" % self.files)
        status, _, log = self.run_archive("--restore", file, *args, url=url)
        self.assertFalse(os.path.exists(file + ".restore"), log)
        self.assertEqual(os.path.exists(file), status == 0, log)
        return status, file, log

    def read(self, file):
        with open(file, "rb") as f:
            return f.read()

    def refused(self, words, *args):
        status, _, log = self.restore(*args)
        self.assertEqual(status, 1, log)
        self.assertIn(words, log)
        return log

    def holds(self, file, expected):
        code, text = tool("check", file)
        self.assertEqual(code, 0, text)
        code, text = tool("dump", file)
        self.assertEqual(code, 0, text)
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual({i["key"]: i["value"] for i in lines if "key" in i}, expected)

    def restores(self, expected, *args, url=None):
        status, file, log = self.restore(*args, url=url)
        self.assertEqual(status, 0, log)
        self.holds(file, expected)
        return file, log

    def grow(self, node, count, time_ms, base=None, full=None):
        """count boundaries more, in the archive and as (entry, contents)."""
        made = []
        for i in range(count):
            node.write(self.rng)
            frame = archive_maker.fetch(node.replicator, None if i == full else base, zstd=self.rng.randrange(2))
            entry = self.archive.add(frame, time_ms + 1000 * i)
            base = entry.to
            made.append((entry, dict(node.now)))
        return made

    def listed(self, *args):
        status, text, log = self.run_archive("--list", "--json", *args)
        self.assertEqual(status, 0, log)
        return json.loads(text)


T0 = 1900000000000


class Restore(Case):
    def test_every_boundary(self):
        a = Node(self, "a").bucket()
        made = self.grow(a, 12, T0, full=6)
        # One over several of them, as the archiver makes now and then: fewer bytes, or not.
        a.write(self.rng)
        wide = self.archive.add(archive_maker.fetch(a.replicator, made[7][0].to), T0 + 20000)
        made.append((wide, dict(a.now)))
        for i, (entry, contents) in enumerate(made):
            _, log = self.restores(contents, "--at", str(entry.to.txid))
            self.assertIn("event=next" if i + 1 < len(made) else "event=newest", log)
            if i + 1 < len(made):
                self.assertIn("the next boundary is transaction %d, of %s" % (
                    made[i + 1][0].to.txid, rfc3339(made[i + 1][0].time_ms)), log)
                self.restores(contents, "--at", str(made[i + 1][0].to.txid - 1))
                self.restores(contents, "--at", rfc3339(made[i + 1][0].time_ms - 1))
            self.restores(contents, "--at", rfc3339(entry.time_ms))
        self.restores(made[-1][1])
        self.refused("no boundary that early", "--at", rfc3339(T0 - 1))
        listed = self.listed()
        self.assertEqual([b["txid"] for b in listed["boundaries"]], [e.to.txid for e, _ in made])
        self.assertTrue(all(b["restorable"] and b["lineage"] for b in listed["boundaries"]))
        status, text, log = self.run_archive("--list")
        self.assertEqual(status, 0, log)
        self.assertIn(rfc3339(wide.time_ms), text)
        status, _, log = self.run_archive("--archive-verify")
        self.assertEqual(status, 0, log)
        self.assertIn("13 frames", log)

    def test_new_or_same(self):
        a = Node(self, "a").bucket()
        made = self.grow(a, 3, T0)
        home = a.position()["database_id"]
        file, _ = self.restores(made[1][1], "--at", str(made[1][0].to.txid))
        s = self.started(harness.primary(self.dir, data=os.path.basename(file)))
        self.assertNotEqual(s.status()["database_id"], home)
        self.assertIn(s.put("b", "new", b"1").status, (200, 201))
        # The same database takes no writes; as a follower's file it needs only what came since.
        file, _ = self.restores(made[1][1], "--at", str(made[1][0].to.txid), "--same-database")
        self.assertNotEqual(tool("put", file, "b", "k", "v")[0], 0)
        f = self.started(harness.follower(self.dir, a.replicator, name=os.path.basename(file)[:-4]))
        self.assertEqual(harness.await_equal(a.server, f)["database_id"], home)
        self.assertNotIn("mode=first-sync", f.log_text())
        self.assertEqual(f.get("/metrics").body.count(b"first-sync\"} 1"), 0)
        sent = a.replicator.get("/metrics").body.decode()
        f.stop()
        self.holds(file, a.now)
        # Promoted it begins an epoch of its own.
        file, _ = self.restores(made[1][1], "--at", str(made[1][0].to.txid), "--same-database")
        self.assertEqual(tool("promote", file)[0], 0)
        self.assertEqual(tool("put", file, "b", "k", "v")[0], 0)
        self.assertGreater(json.loads(tool("stat", "--json", file)[1])["epoch"], a.position()["epoch"], sent)

    def test_file_is_there(self):
        a = Node(self, "a").bucket()
        self.grow(a, 1, T0)
        file = self.dir.file("there.bts")
        with open(file, "w") as f:
            f.write("mine")
        status, _, log = self.run_archive("--restore", file)
        self.assertEqual(status, 1)
        self.assertIn("exists already", log)
        self.assertEqual(self.read(file), b"mine")
        self.assertEqual(os.listdir(os.path.dirname(file)).count("there.bts.restore"), 0)

    def test_several_databases(self):
        a, made = Node(self, "a").bucket(), []
        made += self.grow(a, 2, T0)
        b = Node(self, "b").bucket()
        other = archive_maker.Maker(self.archive.path)
        b.write(self.rng)
        entry = other.add(archive_maker.fetch(b.replicator), T0)
        status, _, log = self.run_archive("--list")
        self.assertEqual(status, 2, log)
        for e in (entry, made[0][0]):
            self.assertIn(e.database, log)
        self.restores(b.now, "--database", entry.database)
        self.restores(a.now, "--database", made[0][0].database)
        status, _, log = self.run_archive("--list", "--database", "0" * 32)
        self.assertEqual(status, 1, log)
        status, _, log = self.run_archive("--list", url=self.archive.url + "/nothing")
        self.assertEqual(status, 1, log)

    def test_many_manifests(self):
        """Over the end of a block: of each the last is read, and what of it is missing is named when it matters."""
        a = Node(self, "a").bucket()
        made = self.grow(a, 2, T0)
        # The same two frames, named over and over: as many as a block has.
        folder = made[0][0].to.folder
        entries = self.archive.entries[folder]
        while len(entries) < 512:
            entries.append(made[1][0])
            if len(entries) % 256 == 0:
                self.archive.put_manifest(folder, len(entries) - 1)
        made += self.grow(a, 2, T0 + 10000, base=made[1][0].to)
        self.restores(made[3][1])
        os.unlink(os.path.join(self.archive.path, self.archive.manifest_key(folder, 511)))
        self.restores(made[3][1])
        self.restores(made[1][1], "--at", str(made[1][0].to.txid))
        log = self.refused("%012d" % 511, "--at", str(made[1][0].to.txid + 1))
        self.assertIn("it is missing", log)
        self.assertEqual(len(self.listed()["holes"]), 1)


class Failover(Case):
    def test_newest_lineage(self):
        a = Node(self, "a").bucket()
        made = self.grow(a, 4, T0)
        f = self.started(harness.follower(self.dir, a.replicator, name="b"))
        harness.await_equal(a.server, f)
        shared = dict(a.now)
        # The old primary archives beyond the point that the next one goes on from.
        a.replicator.stop()
        a.replicator = self.started(harness.replicator(self.dir, data=a.file))
        f.stop()
        lost = self.grow(a, 2, T0 + 10000, base=made[-1][0].to)
        self.assertEqual(tool("promote", self.dir.file("b.bts"))[0], 0)
        b = Node(self, "b")
        b.now = shared
        new = self.grow(b, 3, T0 + 20000, base=made[-1][0].to)
        listed = self.listed()["boundaries"]
        self.assertEqual({i["txid"] for i in listed if i["lineage"]}, {e.to.txid for e, _ in made + new})
        self.assertEqual({i["txid"] for i in listed if not i["lineage"]}, {e.to.txid for e, _ in lost})
        for entry, contents in made + new:
            self.restores(contents, "--at", str(entry.to.txid))
        self.restores(new[-1][1])
        # A number or a time in what is lost is that of the fork.
        self.restores(made[-1][1], "--at", str(lost[-1][0].to.txid))
        self.restores(made[-1][1], "--at", rfc3339(lost[-1][0].time_ms))
        # It can be had, by name.
        old = "%d-%016x" % (lost[-1][0].to.epoch, lost[-1][0].to.random)
        self.restores(lost[-1][1], "--epoch", old)
        self.refused("has nothing of epoch", "--epoch", "9-0000000000000001")
        # Two of the newest number: neither is taken.
        self.assertEqual(b.server.stop(), 0)
        self.restores(made[-1][1], "--at", str(made[-1][0].to.txid), "--same-database")
        twin = self.dir.file("restored%d.bts" % self.files)
        self.assertEqual(tool("promote", twin)[0], 0)
        c = Node(self, os.path.basename(twin)[:-4])
        c.now = dict(made[-1][1])
        twins = self.grow(c, 1, T0 + 30000, base=made[-1][0].to)
        self.assertEqual(twins[0][0].to.epoch, new[0][0].to.epoch)
        log = self.refused("--epoch")
        for e in (twins[0][0], new[0][0]):
            self.assertIn("%d-%016x" % (e.to.epoch, e.to.random), log)
        self.restores(twins[0][1], "--epoch", "%d-%016x" % (twins[0][0].to.epoch, twins[0][0].to.random))
        self.restores(new[-1][1], "--epoch", "%d-%016x" % (new[0][0].to.epoch, new[0][0].to.random))


class Damage(Case):
    def setUp(self):
        super().setUp()
        self.a = Node(self, "a").bucket()
        self.made = self.grow(self.a, 4, T0)

    def test_parts(self):
        for i in range(3):
            entry = self.made[i][0]
            file, good = self.archive.part(entry), entry.frame
            name = os.path.relpath(file, self.archive.path)
            flipped = bytearray(good)
            flipped[self.rng.randrange(len(good))] ^= 1 << self.rng.randrange(8)
            other = self.made[(i + 1) % 3][0].frame
            for bad in (None, b"", good[:-1], good + b"\0", bytes(flipped), other, b"\0" * len(good)):
                os.unlink(file)
                if bad is not None:
                    with open(file, "wb") as f:
                        f.write(bad)
                self.refused(name)
                status, _, log = self.run_archive("--archive-verify")
                self.assertEqual(status, 1)
                self.assertIn(name, log)
                with open(file, "wb") as f:
                    f.write(good)
        self.restores(self.a.now)

    def test_a_lying_manifest(self):
        """Sums and all are right, but a frame is said to lead elsewhere."""
        folder = self.made[0][0].to.folder
        entries = self.archive.entries[folder]
        last = entries[-1]
        for txid, chain, base in ((last.to.txid + 1, last.to.chain, None), (last.to.txid, "0" * 32, None),
                                  (last.to.txid, last.to.chain, entries[0].to)):
            lie = archive_maker.Entry(last.frame, 99, last.time_ms)
            lie.to = archive_maker.Position(last.to.epoch, last.to.random, txid, chain)
            lie.base = base or lie.base
            self.archive.write("%s/%s.000000" % (lie.database, lie.name), last.frame)
            entries[-1] = lie
            self.archive.put_manifest(folder, len(entries) - 1)
            self.refused(lie.name)
            entries[-1] = last
        self.archive.put_manifest(folder, len(entries) - 1)
        self.restores(self.a.now)

    def test_manifests(self):
        folder = self.made[0][0].to.folder
        key = self.archive.manifest_key(folder, 3)
        file = os.path.join(self.archive.path, key)
        good = self.read(file)
        first = self.read(os.path.join(self.archive.path, self.archive.manifest_key(folder, 0)))
        flipped = bytearray(good)
        flipped[self.rng.randrange(len(good))] ^= 1
        for bad in (b"", good[:-1], bytes(flipped), first, b"x" * 1000, good.replace(b"manifest 1", b"manifest 2")):
            with open(file, "wb") as f:
                f.write(bad)
            self.refused(key)
        with open(file, "wb") as f:
            f.write(good)
        self.restores(self.a.now)

    def test_killed(self):
        for i in range(20000):
            self.a.now["x%d" % i] = "y" * 200
        lines = "".join(json.dumps({"bucket": "b", "key": "x%d" % i, "value": "y" * 200}) + "\n" for i in range(20000))
        self.a.server.stop()
        self.a.replicator.stop()
        load = subprocess.run([harness.binary("bts"), "load", self.dir.file(self.a.file)], input=lines.encode(), capture_output=True)
        self.assertEqual(load.returncode, 0, load.stderr)
        self.a.replicator = self.started(harness.replicator(self.dir, data=self.a.file))
        self.archive.add(archive_maker.fetch(self.a.replicator, self.made[-1][0].to), T0 + 100000)
        file = self.dir.file("killed.bts")
        argv = [harness.binary("bts-replicator"), "--archive", self.archive.url, "--restore", file]
        broken = 0
        while broken < 3:
            p = harness.Process(argv, self.dir.file("killed.log"), ready=None)
            while p.alive() and not os.path.exists(file + ".restore/database"):
                pass
            time.sleep(self.rng.random() * 0.01)
            p.kill()
            if os.path.exists(file):
                self.holds(file, self.a.now)
                os.unlink(file)
            else:
                broken += os.path.exists(file + ".restore")
        self.assertEqual(self.run_archive("--restore", file)[0], 0)
        self.assertFalse(os.path.exists(file + ".restore"))
        self.holds(file, self.a.now)

    def test_link_for_a_folder(self):
        """Another folder is not cleared because FILE.restore points at it."""
        other, file = self.dir.file("other"), self.dir.file("linked.bts")
        os.mkdir(other)
        with open(os.path.join(other, "database"), "wb") as f:
            f.write(b"another's")
        os.symlink(other, file + ".restore")
        self.assertNotEqual(self.run_archive("--restore", file)[0], 0)
        self.assertEqual(self.read(os.path.join(other, "database")), b"another's")
        self.assertFalse(os.path.exists(file))


class Prune(Case):
    def there(self):
        return {os.path.relpath(os.path.join(at, f), self.archive.path) for at, _, names in os.walk(self.archive.path) for f in names}

    def prune(self, before_ms, now_ms=None):
        age = int(time.time() * 1000) - before_ms
        status, _, log = self.run_archive("--prune", "%dms" % age)
        self.assertEqual(status, 0, log)
        return log

    def test_prune(self):
        t0 = int(time.time() * 1000) - 40 * 86400000
        day = 86400000
        a = Node(self, "a").bucket()
        made, base = [], None
        for i in range(30):
            a.write(self.rng, 10)
            if i % 7 == 0:
                base = None
            entry = self.archive.add(archive_maker.fetch(a.replicator, base), t0 + i * day)
            made.append((entry, dict(a.now)))
            base = entry.to
        database = made[0][0].database
        stray = self.archive.write("%s/frames/%s/%012x-%012x-%08x.000000" % (database, base.folder, 99, 0, 7), b"stray")
        old = self.archive.write("%s/frames/%s/%012x-%012x-%08x.000000" % (database, base.folder, 98, 0, 7), b"stray")
        os.utime(old, (1, 1))
        # The last full frame up to there is number 14.
        log = self.prune(t0 + 20 * day)
        self.assertIn("14 frames", log)
        self.assertTrue(os.path.exists(stray))
        self.assertFalse(os.path.exists(old))
        self.assertEqual([os.path.exists(self.archive.part(e)) for e, _ in made], [False] * 14 + [True] * 16)
        for entry, contents in made[14:]:
            self.restores(contents, "--at", str(entry.to.txid))
        self.refused("no boundary that early", "--at", str(made[13][0].to.txid))
        self.assertEqual([b["txid"] for b in self.listed()["boundaries"]], [e.to.txid for e, _ in made[14:]])
        before = self.there()
        self.assertIn("0 frames", self.prune(t0 + 20 * day))
        self.assertEqual(self.there(), before)
        # However old: what is needed for the newest stays.
        self.prune(t0 + 35 * day)
        self.restores(made[-1][1])
        self.assertEqual([os.path.exists(self.archive.part(e)) for e, _ in made], [False] * 28 + [True] * 2)
        # What says so is damaged: that is told, with the way out.
        pruned = os.path.join(self.archive.path, database, "pruned")
        with open(pruned, "ab") as f:
            f.write(b"x")
        self.assertIn("delete it", self.refused(database + "/pruned"))
        os.unlink(pruned)
        self.restores(made[-1][1])


class Archiver(Case):
    """Archives as the archiver makes them."""

    def archive_of(self, node, url=None, env=None):
        """The replicator beside a node archives too; at once."""
        node.replicator.stop()
        argv = [harness.binary("bts-replicator"), "--data", self.dir.file(node.file), "--listen", "127.0.0.1:0",
                "--archive", url or self.archive.url, "--archive-interval", "0s"]
        node.replicator = self.started(harness.Server(argv, self.dir.file(node.name + "-archiver.log")))
        return node

    def archived(self, node):
        """Where the archive stands when all there is, is in it."""
        txid = node.position()["txid"]
        harness.await_true(lambda: node.replicator.status()["archive"]["txid"] >= txid, 30, "the archive")
        return txid

    def batches(self, node, count):
        """Batches of writes: what is there at their ends, and after each the time is another one."""
        made = []
        for _ in range(count):
            node.write(self.rng, 15)
            txid = self.archived(node)
            made.append((txid, int(time.time() * 1000), dict(node.now)))
            time.sleep(0.002)
        return made

    def check(self, made):
        """Each state by number and by time."""
        for txid, now, contents in made:
            self.restores(contents, "--at", str(txid))
            self.restores(contents, "--at", rfc3339(now))
        self.restores(made[-1][2])

    def test_every_batch(self):
        a = self.archive_of(Node(self, "a").bucket())
        made = self.batches(a, 10)
        self.check(made)
        status, _, log = self.run_archive("--archive-verify")
        self.assertEqual(status, 0, log)
        txids = [b["txid"] for b in self.listed()["boundaries"]]
        self.assertTrue(set(txid for txid, _, _ in made) <= set(txids))

    def test_failover(self):
        """The old primary archives on beyond the point where the next one took over, and both archive into one place."""
        a = self.archive_of(Node(self, "a").bucket())
        made = self.batches(a, 3)
        f = self.started(harness.follower(self.dir, a.replicator, name="b"))
        harness.await_equal(a.server, f)
        shared = dict(a.now)
        f.stop()
        lost = self.batches(a, 2)
        self.assertEqual(tool("promote", self.dir.file("b.bts"))[0], 0)
        b = self.archive_of(Node(self, "b"))
        b.now = shared
        new = self.batches(b, 3)
        late = self.batches(a, 1)
        self.restores(new[-1][2])
        for txid, now, contents in new:
            self.restores(contents, "--at", str(txid))
            self.restores(contents, "--at", rfc3339(now))
        listed = {i["txid"]: i for i in self.listed()["boundaries"]}
        for txid, _, _ in lost + late:
            self.assertFalse(listed[txid]["lineage"])
        for txid, _, contents in made:
            self.assertTrue(listed[txid]["lineage"])
            self.restores(contents, "--at", str(txid))
        old = "%d-%016x" % (a.position()["epoch"], int(a.position()["epoch_random"], 16))
        for txid, _, contents in made + lost + late:
            self.restores(contents, "--epoch", old, "--at", str(txid))

    def test_seed_of_a_follower(self):
        """A copy out of the archive catches up from the primary without a first transfer."""
        a = self.archive_of(Node(self, "a").bucket())
        for i in range(40):
            self.assertIn(a.server.put("b", "big%d" % i, os.urandom(50000)).status, (200, 201))
        self.archived(a)
        _, file, _ = self.restore("--same-database")
        a.write(self.rng)
        f = self.started(harness.follower(self.dir, a.replicator, name=os.path.basename(file)[:-4]))
        harness.await_equal(a.server, f)
        self.assertLess(int(re.search(r"(?m)^bts_replication_bytes_total (\d+)", f.get("/metrics").body.decode()).group(1)), 1000000)

    def test_s3(self):
        where, why = node_packages.install("s3")
        if not where:
            self.skipTest("SKIP: " + why)
        key = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-3"}
        argv = ["node", os.path.join(where, "server.js"), self.dir.file("s3"), "bucket", "eu-west-3", "AKID", "secret"]
        s3 = harness.Server(argv, self.dir.file("s3.log"))
        self.addCleanup(s3.kill)
        os.environ.update(key)
        self.addCleanup(lambda: [os.environ.pop(k) for k in key])
        url = "s3://bucket/some/prefix?endpoint=" + s3.url
        a = self.archive_of(Node(self, "a").bucket(), url)
        made = self.batches(a, 3)
        # Of more than one part.
        big = os.urandom(1 << 20) * 18
        self.assertIn(a.server.request("PUT", "/v1/buckets/big").status, (200, 201))
        self.assertIn(a.server.put("big", "v", big).status, (200, 201))
        self.archived(a)
        for txid, _, contents in made:
            self.restores(contents, "--at", str(txid), url=url)
        status, file, log = self.restore(url=url)
        self.assertEqual(status, 0, log)
        got = subprocess.run([harness.binary("bts"), "get", file, "big", "v"], capture_output=True)
        self.assertEqual(got.stdout[:len(big)], big)
        self.assertEqual(self.run_archive("--archive-verify", url=url)[0], 0)
        status, _, log = self.run_archive("--prune", "1ms", url=url)
        self.assertEqual(status, 0, log)
        self.assertEqual(self.restore(url=url)[0], 0)


if __name__ == "__main__":
    print("BTS_SEED=%d" % SEED)
    harness.main()
