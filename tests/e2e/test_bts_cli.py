"""The program bts on a local file: every command, its exit statuses, and what bad input gets."""
import base64
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

import harness

BTS = harness.binary("bts")
OK, FAILURE, USAGE, NOT_FOUND, CONFLICT = range(5)


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def bts(*words, stdin=b"", **options):
    return Result(subprocess.run([BTS] + [os.fsencode(w) if isinstance(w, str) else w for w in words], input=stdin,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, **options))


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class Case(unittest.TestCase):
    def setUp(self):
        self.where = tempfile.mkdtemp(prefix="bts-cli-")
        self.addCleanup(shutil.rmtree, self.where, True)
        self.file = os.path.join(self.where, "a.bts")

    def run_bts(self, code, *words, **options):
        result = bts(*words, **options)
        self.assertEqual(result.code, code, "%s: %s %s" % (words, result.out[:200], result.err))
        if code:
            self.assertNotIn("Sanitizer", result.err)
        return result

    def refused(self, code, *words, says=(), **options):
        result = self.run_bts(code, *words, **options)
        for piece in says:
            self.assertIn(piece, result.err)
        return result

    def load(self, items, *options, bucket="b"):
        lines = b"".join(json.dumps(member(k, "key") | member(v, "value")).encode() + b"\n" for k, v in items)
        return self.run_bts(OK, "load", *options, self.file, "--bucket", bucket, stdin=lines)


def member(data, name):
    try:
        text = data.decode()
        if "\0" not in text:
            return {name: text}
    except UnicodeDecodeError:
        pass
    return {name + "_base64": base64.b64encode(data).decode()}


class Keys(Case):
    def test_put_get_del(self):
        self.run_bts(OK, "put", self.file, "b", "k", "v1")
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k").out, b"v1")
        self.run_bts(OK, "put", self.file, "b", "k", stdin=b"\0\xffv2")
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k").out, b"\0\xffv2")
        got = self.run_bts(OK, "get", "--json", self.file, "b", "k").lines()[0]
        self.assertEqual((got["key"], got["bucket"], base64.b64decode(got["value_base64"])), ("k", "b", b"\0\xffv2"))
        self.assertGreater(got["version"], 0)
        self.run_bts(OK, "put", self.file, "b", "empty", "")
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "empty").out, b"")
        self.run_bts(OK, "del", self.file, "b", "k")
        self.refused(NOT_FOUND, "get", self.file, "b", "k", says=['no key "k"', '"b"', self.file])
        self.refused(NOT_FOUND, "del", self.file, "b", "k", says=['no key "k"'])
        self.refused(NOT_FOUND, "get", self.file, "c", "k", says=['no bucket "c"'])
        self.refused(NOT_FOUND, "del", self.file, "c", "k", says=['no bucket "c"'])

    def test_new_and_existing(self):
        self.run_bts(OK, "put", "--new", self.file, "b", "k", "1")
        self.refused(CONFLICT, "put", "--new", self.file, "b", "k", "2", says=['"k"', "already"])
        self.refused(NOT_FOUND, "put", "--existing", self.file, "b", "other", "2", says=['"other"'])
        self.run_bts(OK, "put", "--existing", self.file, "b", "k", "3")
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k").out, b"3")

    def test_base64_arguments(self):
        key = base64.b64encode(b"\0\xff/").decode()
        self.run_bts(OK, "put", "--base64", self.file, "b", key, base64.b64encode(b"v").decode())
        self.assertEqual(self.run_bts(OK, "get", "--base64", self.file, "b", key).out, b"v")
        self.assertEqual(self.run_bts(OK, "scan", self.file, "b").out, b"\\x00\\xff/\tv\n")
        self.refused(USAGE, "get", "--base64", self.file, "b", "***", says=["base64"])

    def test_bad_keys_and_names(self):
        self.run_bts(OK, "put", self.file, "b", "k" * 1024, "v")
        self.refused(USAGE, "put", self.file, "b", "k" * 1025, "v", says=["1025", "1024"])
        self.refused(USAGE, "put", self.file, "b", "", "v", says=["key"])
        self.refused(USAGE, "put", self.file, "", "k", "v", says=["bucket"])
        self.run_bts(OK, "put", self.file, "n" * 255, "k", "v")
        self.refused(USAGE, "put", self.file, "n" * 256, "k", "v", says=["256", "255"])
        self.run_bts(OK, "check", self.file)

    def test_page_size(self):
        self.run_bts(OK, "put", "--page-size", "65536", self.file, "b", "k", "v")
        self.assertEqual(self.run_bts(OK, "stat", "--json", self.file).lines()[0]["page_size"], 65536)
        self.refused(USAGE, "put", "--page-size", "5000", self.file, "b", "k", "v", says=["5000"])


class Usage(Case):
    def test_help_and_version(self):
        help_text = self.run_bts(OK, "--help").out.decode()
        for command in "get put del scan stat check dump load bench".split():
            self.assertIn("  " + command + " ", help_text)
            self.assertEqual(self.run_bts(OK, command, "--help").out.decode(), help_text)
        self.assertRegex(self.run_bts(OK, "--version").out.decode(), r"^bts \d+\.\d+\.\d+\n$")

    def test_refused(self):
        for words, says in [
                ([], "command"), (["frob"], "frob"), (["get"], "FILE"), (["get", "f", "b"], "missing"),
                (["get", "f", "b", "k", "x"], "'x'"), (["get", "--frob", "f", "b", "k"], "--frob"),
                (["get", "--limit", "1", "f", "b", "k"], "--limit"), (["scan", "f", "b", "--limit"], "needs"),
                (["scan", "f", "b", "--limit", "-1"], "-1"), (["scan", "f", "b", "--limit", "1x"], "1x"),
                (["load", "f", "--batch", "0"], "0")]:
            self.refused(USAGE, *words, says=[says])


class Scan(Case):
    def test_bounds(self):
        rng = random.Random(1)
        data = {bytes(rng.choice(b"ab\xff") for _ in range(rng.randint(1, 5))): b"%d" % i for i in range(300)}
        self.load(data.items())

        def scan(*options):
            return [(harness.bytes_of(i, "key"), harness.bytes_of(i, "value"))
                    for i in self.run_bts(OK, "scan", "--json", self.file, "b", *options).lines()]

        for _ in range(60):
            options, keys = [], sorted(data)
            if rng.random() < 0.5:
                prefix = bytes(rng.choice(b"ab\xff") for _ in range(rng.randint(1, 3)))
                options += [b"--prefix", prefix]
                keys = [k for k in keys if k.startswith(prefix)]
            if rng.random() < 0.5:
                low = bytes(rng.choice(b"ab\xff") for _ in range(rng.randint(1, 3)))
                options += [b"--from", low]
                keys = [k for k in keys if k >= low]
            if rng.random() < 0.5:
                high = bytes(rng.choice(b"ab\xff") for _ in range(rng.randint(1, 3)))
                options += [b"--to", high]
                keys = [k for k in keys if k < high]
            if rng.random() < 0.5:
                options += ["--reverse"]
                keys.reverse()
            if rng.random() < 0.5:
                options += ["--limit", "7"]
                keys = keys[:7]
            self.assertEqual(scan(*options), [(k, data[k]) for k in keys], options)
        self.refused(NOT_FOUND, "scan", self.file, "c", says=['no bucket "c"'])
        self.refused(USAGE, "scan", self.file, "b", "--from", "x" * 1025, says=["1024"])

    def test_output_for_people(self):
        self.load([(b"a\tb", b"1\n2"), ("\u00e9".encode(), b"\\\xfe\x1b")])
        self.assertEqual(self.run_bts(OK, "scan", self.file, "b").out,
                         b"a\\tb\t1\\n2\n" + "\u00e9".encode() + b"\t\\\\\\xfe\\x1b\n")


class DumpAndLoad(Case):
    def test_round_trip(self):
        rng = random.Random(2)
        items = {}
        for i in range(2000):
            key = rng.randbytes(rng.randint(1, 40)) if i % 2 else ("schl\u00fcssel \U0001f600 %d" % i).encode()
            items[key] = rng.choice([rng.randbytes(rng.randint(0, 300)), b"text \"\\ %d" % i])
        items[b"large"] = rng.randbytes(300000)
        items[b"large text"] = "\u20ac".encode() * 100000
        items[b"k" * 1024] = b""
        self.load(items.items(), "--batch", "77")
        extra = b'{"bucket":"empty"}\n{"bucket_base64":"/w==","meta":"text/plain"}\n' \
                b'{"bucket":"noted","meta_base64":"/wA="}\n{"bucket":"noted","key":"k","value":"v"}\n'
        self.run_bts(OK, "load", self.file, stdin=extra)
        dump = self.run_bts(OK, "dump", self.file).out
        got = {harness.bytes_of(r, "key"): harness.bytes_of(r, "value") for r in map(json.loads, dump.splitlines())
               if r.get("bucket") == "b"}
        self.assertEqual(got, items)
        copy = os.path.join(self.where, "copy.bts")
        source = os.path.join(self.where, "dump")
        with open(source, "wb") as f:
            f.write(dump)
        self.run_bts(OK, "load", copy, source)
        self.assertEqual(self.run_bts(OK, "dump", copy).out, dump)
        one = self.run_bts(OK, "dump", "--bucket", "noted", copy).out
        self.assertEqual(one, b'{"key":"k","value":"v"}\n')
        self.run_bts(OK, "check", copy)
        self.refused(NOT_FOUND, "dump", "--bucket", "none", copy, says=['no bucket "none"'])

    def test_malformed_line(self):
        good = b'{"key":"%d","value":"v"}\n'
        lines = b"".join(good % i for i in range(10)) + b'{"key":"x","value":1}\n' + good % 11
        self.refused(FAILURE, "load", self.file, "--bucket", "b", "--batch", "4", stdin=lines,
                     says=["line 11", "column 20", "string", "8 entries"])
        self.assertEqual(len(self.run_bts(OK, "scan", self.file, "b").out.splitlines()), 8)
        error = json.loads(self.refused(FAILURE, "load", "--json", self.file, "--bucket", "b",
                                        stdin=b"nonsense\n").err)
        self.assertEqual((error["error"], error["file"]), ("invalid", self.file))
        self.assertIn("line 1", error["text"])
        for line, says in [(b'{"key":"k","value":"v"}', "--bucket"), (b'{"bucket":"","key":"k","value":"v"}', "bucket"),
                           (b'{"bucket":"b","key":"","value":"v"}', "key"),
                           (b'{"bucket":"b","key":"%s","value":"v"}' % (b"k" * 1025), "1025"),
                           (b'{"bucket":"b","key":"k","key":"k","value":"v"}', "twice"),
                           (b'{"bucket":"b","key":"k","value":"v","x":1}', "unknown")]:
            self.refused(FAILURE, "load", self.file, stdin=b"\n" + line, says=["line 2", says])
        self.refused(FAILURE, "load", self.file, "--bucket", "c", stdin=b'{"bucket":"b","key":"k","value":"v"}',
                     says=["line 1", "--bucket"])
        self.refused(FAILURE, "load", self.file, self.where + "/none", says=["none"])
        self.run_bts(OK, "check", self.file)

    def test_output_that_takes_nothing(self):
        self.load([(b"k%d" % i, b"v" * 100) for i in range(100)])
        with open("/dev/full", "wb") as full:
            for command in (["dump", self.file], ["scan", self.file, "b"], ["get", self.file, "b", "k1"]):
                done = subprocess.run([BTS] + command, stdout=full, stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(done.returncode, FAILURE)
                self.assertIn(b"standard output", done.stderr)


class Files(Case):
    def test_not_a_database(self):
        with open(self.file, "wb") as f:
            f.write(b"just text\n" * 20000)
        for command in ("stat", "check", "dump"):
            self.refused(FAILURE, command, self.file, says=[self.file])
        self.refused(FAILURE, "put", self.file, "b", "k", "v", says=[self.file])
        with open(self.file, "rb") as f:
            self.assertEqual(f.read(), b"just text\n" * 20000)
        open(self.file, "wb").close()
        self.refused(FAILURE, "put", self.file, "b", "k", "v", says=[self.file])
        self.assertEqual(os.path.getsize(self.file), 0)
        self.refused(NOT_FOUND, "get", self.where + "/none.bts", "b", "k", says=["none.bts"])
        self.refused(FAILURE, "put", self.where + "/no/such.bts", "b", "k", "v", says=["such.bts", "No such file"])
        self.refused(FAILURE, "stat", self.where, says=[self.where])

    def change_slots(self, offset, change):
        """Change both meta slots and seal them again."""
        with open(self.file, "r+b") as f:
            for at in (0, 32768):
                f.seek(at)
                slot = bytearray(f.read(4096))
                slot[offset:offset + len(change)] = change
                slot[16:20] = bytes(4)
                slot[16:20] = struct.pack("<I", crc32c(slot))
                f.seek(at)
                f.write(slot)

    def test_other_formats(self):
        self.load([(b"k", b"v")])
        with open(self.file, "rb") as f:
            before = f.read()
        old = ["version 0", "reads 1", "dump it with `bts` of the release that wrote it"]
        for offset, change, says in [(12, b"\0\0", old), (12, b"\x09\0", ["version 9", "a newer release reads it"]),
                                     (24, b"\x40", ["must-understand"])]:
            self.change_slots(offset, change)
            for words in (["get", self.file, "b", "k"], ["put", self.file, "b", "k", "v"], ["dump", self.file],
                          ["stat", self.file], ["check", self.file], ["compact", self.file]):
                self.refused(FAILURE, *words, says=[self.file] + says)
            for program in (["btsd", "primary"], ["bts-replicator"]):
                server = subprocess.run([harness.binary(program[0])] + program[1:] + ["--data", self.file, "--listen", "127.0.0.1:0"],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
                self.assertNotEqual(server.returncode, 0, program)
                for piece in [self.file] + says:
                    self.assertIn(piece, server.stdout.decode(), program)
            with open(self.file, "wb") as f:
                f.write(before)
        self.run_bts(OK, "get", self.file, "b", "k")

    def test_truncated(self):
        self.load([(b"k%05d" % i, b"v" * 200) for i in range(3000)])
        size = os.path.getsize(self.file)
        for keep in (100, 4096, 40000, 65536, size // 2, size // 2 + 1000):
            copy = os.path.join(self.where, "cut%d.bts" % keep)
            with open(self.file, "rb") as f, open(copy, "wb") as out:
                out.write(f.read(keep))
            self.assertNotIn(bts("dump", copy).code, (OK, -signal.SIGBUS, -signal.SIGSEGV), keep)
            result = bts("check", copy)
            self.assertEqual(result.code, FAILURE, keep)
            self.assertIn(copy, result.err + result.out.decode())

    def test_damaged(self):
        self.load([(b"k%05d" % i, b"v" * 200) for i in range(3000)])
        with open(self.file, "r+b") as f:
            f.seek(os.path.getsize(self.file) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 0x40]))
        result = self.run_bts(FAILURE, "check", self.file)
        self.assertRegex(result.out.decode(), r"page \d+: ")
        self.assertIn("DAMAGED", result.out.decode())
        result = self.run_bts(FAILURE, "check", "--json", self.file)
        self.assertFalse(result.lines()[-1]["clean"])
        self.assertGreater(result.lines()[0]["page"], 0)

    def as_nobody(self):
        """Options that run a program without root's power to write anywhere; the program, where it may be run."""
        if os.getuid() != 0:
            return BTS, {}
        os.chmod(self.where, 0o755)
        copy = os.path.join(self.where, "bts")
        shutil.copy(BTS, copy)
        return copy, {"user": 65534, "group": 65534, "extra_groups": []}

    def test_read_only_directory(self):
        place = os.path.join(self.where, "place")
        os.mkdir(place)
        self.file = os.path.join(place, "a.bts")
        self.load([(b"k", b"v")])
        program, options = self.as_nobody()
        os.chmod(place, 0o555)
        self.addCleanup(os.chmod, place, 0o755)

        def attempt(*words):
            return Result(subprocess.run([program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                                         **options))

        new = attempt("put", place + "/new.bts", "b", "k", "v")
        self.assertEqual(new.code, FAILURE, new.err)
        self.assertIn("new.bts", new.err)
        self.assertIn("Permission denied", new.err)
        self.assertEqual(sorted(n for n in os.listdir(place) if "new" in n), [])
        if os.getuid() == 0:
            old = attempt("put", self.file, "b", "k", "v2")
            self.assertEqual(old.code, FAILURE, old.err)
            self.assertIn(self.file, old.err)
        read = attempt("get", self.file, "b", "k")  # needs the lock file, which nobody may write
        self.assertTrue(read.out == b"v" or "a.bts-lock" in read.err and "Permission denied" in read.err, read.err)

    def fill(self, path, **options):
        lines = b"".join(b'{"key":"%08d","value":"%s"}\n' % (i * 7919 % 100000, b"v" * 400) for i in range(100000))
        result = bts("load", path, "--bucket", "b", "--batch", "100", stdin=lines, **options)
        self.assertEqual(result.code, FAILURE, result.err)
        self.assertIn(path, result.err)
        self.assertIn("entries before it are stored", result.err)
        return int(result.err.rsplit("(", 1)[1].split()[0]), result

    def holds_what_it_stored(self, path, stored):
        self.run_bts(OK, "check", path)
        out = self.run_bts(OK, "scan", path, "b").out.splitlines()
        self.assertEqual(sorted(line.split(b"\t")[0] for line in out),
                         sorted(b"%08d" % (i * 7919 % 100000) for i in range(stored)))

    def test_full_disk(self):
        mount = os.path.join(self.where, "small")
        os.mkdir(mount)
        if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount],
                                              stderr=subprocess.DEVNULL).returncode:
            self.skipTest("SKIP: no small file system: mounting one needs privilege")
        self.addCleanup(subprocess.run, ["umount", mount])
        path = os.path.join(mount, "a.bts")
        stored, result = self.fill(path)
        self.assertIn("No space left", result.err)
        self.assertGreater(stored, 0)
        self.holds_what_it_stored(path, stored)

    def test_file_size_limit(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 20, 24 << 20))

        stored, _ = self.fill(self.file, preexec_fn=limit)
        self.holds_what_it_stored(self.file, stored)


class Processes(Case):
    def test_second_writer_and_readers(self):
        self.load([(b"k", b"v")])
        holder = subprocess.Popen([BTS, "load", self.file, "--bucket", "b", "--batch", "1"], stdin=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL)
        try:
            holder.stdin.write(b'{"key":"k2","value":"v2"}\n' * 2000)
            holder.stdin.flush()
            harness.await_true(lambda: bts("get", self.file, "b", "k2").out == b"v2", what="the writer's commit")
            self.run_bts(OK, "put", self.file, "b", "k", "x")
            self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k").out, b"x")
            self.run_bts(OK, "check", self.file)
        finally:
            holder.stdin.close()
            self.assertEqual(holder.wait(60), OK)
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k").out, b"x")

    def test_killed_writer(self):
        """What was acknowledged is there, in time bounded by a constant, whoever opens next."""
        rng = random.Random(3)
        for command in (["check"], ["dump"], ["stat", "--json"], ["put", "b", "x", "1"]) * 2:
            self.load([(b"base", b"1")])
            victim = subprocess.Popen([BTS, "load", self.file, "--bucket", "b", "--batch", "1"],
                                      stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            for i in range(rng.randint(100, 600)):
                victim.stdin.write(b'{"key":"n%d","value":"%d"}\n' % (i, i))
            victim.stdin.flush()
            harness.await_true(lambda: bts("get", self.file, "b", "n%d" % rng.randint(0, 40)).code == OK,
                               what="a commit")
            victim.kill()
            victim.wait()
            victim.stdin.close()
            self.run_bts(OK, command[0], self.file, *command[1:])
            self.run_bts(OK, "check", self.file)
            got = sorted(int(line.split(b"\t")[1]) for line in self.run_bts(OK, "scan", self.file, "b", "--prefix", "n")
                         .out.splitlines())
            self.assertEqual(got, list(range(len(got))))
            os.unlink(self.file)


class StatAndBench(Case):
    def test_stat(self):
        self.load([(b"k%d" % i, b"v") for i in range(50)])
        got = self.run_bts(OK, "stat", "--json", self.file).lines()[0]
        self.assertEqual((got["role"], got["buckets"], got["page_size"]), ("primary", 1, 4096))
        self.assertEqual(got["bucket_list"][0]["entries"], 50)
        self.assertEqual(len(got["root_digest"]), 32)
        self.assertNotIn("leaf_pages", got["bucket_list"][0])
        text = self.run_bts(OK, "stat", self.file).out.decode()
        self.assertIn(got["root_digest"], text)
        self.assertRegex(text, r"(?m)^ +50 +\S+ B +1 +1  b$")
        self.assertRegex(text, r"(?m)^readers +0$")

    def test_stat_buckets(self):
        self.load([(b"k%03d" % i, b"v" * 20) for i in range(500)])
        self.load([(b"large%d" % i, b"x" * 10000) for i in range(3)], bucket="l\tt")
        small, large = sorted(self.run_bts(OK, "stat", "--buckets", "--json", self.file).lines()[0]["bucket_list"],
                              key=lambda b: b["name"])
        self.assertEqual((small["entries"], small["bytes"], small["large_values"]), (500, 500 * 24, 0))
        self.assertEqual(small["leaf_bytes_used"], 500 * (24 + 16))
        self.assertEqual(small["pages"], small["leaf_pages"] + small["branch_pages"])
        self.assertEqual((large["large_values"], large["large_bytes"], large["large_pages"]), (3, 30000, 12))
        text = self.run_bts(OK, "stat", "--buckets", self.file).out.decode()
        fill = round(100 * small["leaf_bytes_used"] / small["leaf_bytes"])
        self.assertRegex(text, r"(?m)^ +500 +11\.7 KiB +%d +2 +%d%% +0 +0 B  b$" % (small["pages"], fill))
        self.assertRegex(text, r"(?m)^ +3 +29\.3 KiB +1 +1 +\d+% +3 +48\.0 KiB  l\\tt$")

    def test_stat_readers(self):
        """A scan that nobody reads from holds its snapshot: who it is and what that costs is told."""
        self.load([(b"k%04d" % i, b"v" * 1000) for i in range(2000)])
        scan = subprocess.Popen([BTS, "scan", self.file, "b"], stdout=subprocess.PIPE)
        try:
            harness.await_true(lambda: self.run_bts(OK, "stat", "--json", self.file).lines()[0]["readers"] == 1,
                               what="the scan")
            self.load([(b"k%04d" % i, b"w" * 1000) for i in range(2000)])
            got = self.run_bts(OK, "stat", "--json", self.file).lines()[0]
            (reader,) = got["reader_list"]
            self.assertEqual((reader["pid"], reader["expired"]), (scan.pid, False))
            self.assertLess(reader["txid"], got["txid"])
            self.assertGreater(reader["held_pages"], 500)
            self.assertEqual(reader["held_pages"] * 4096, reader["held_bytes"])
            self.assertEqual(got["pinned_pages"], reader["held_pages"])
            self.assertLessEqual(got["pinned_pages"], got["free_pages"])
            text = self.run_bts(OK, "stat", self.file).out.decode()
            self.assertRegex(text, r"(?m)^ +%d +%d +\S+ (ms|s|min) +\S+ MiB +%d$"
                             % (scan.pid, reader["txid"], reader["held_pages"]))
            self.assertRegex(text, r"(?m)^  kept +\S+ MiB, %d of the free pages" % got["pinned_pages"])
            data = scan.stdout.read()
        finally:
            scan.stdout.close()
            self.assertEqual(scan.wait(60), OK)
        self.assertEqual(data.count(b"v" * 1000 + b"\n"), 2000)
        got = self.run_bts(OK, "stat", "--json", self.file).lines()[0]
        self.assertEqual((got["readers"], got["reader_list"], got["pinned_pages"]), (0, [], 0))

    def test_bench(self):
        words = ["bench", self.file, "--count", "500", "--puts", "3", "--rounds", "2", "--batch", "100"]
        got = self.run_bts(OK, *words, "--json").lines()[0]
        for name in "load_sorted load_bulk load_random get_one_txn get_each_txn scan put_durable".split():
            self.assertGreater(got[name]["us"], 0)
        self.assertIn("put, durable", self.run_bts(OK, *words).out.decode())
        self.assertEqual(os.listdir(self.where), [])
        self.load([(b"k", b"v")])
        self.refused(CONFLICT, *words, says=["already"])


class Backups(Case):
    def test_compact(self):
        self.load([(b"k%04d" % i, b"v" * 6000) for i in range(1000)])
        self.run_bts(OK, "put", self.file, "b", "keep", "me")
        full = os.path.getsize(self.file)
        self.load([(b"k%04d" % i, b"") for i in range(1000) if i % 10])
        done = self.run_bts(OK, "compact", self.file, "--json").lines()[0]
        self.assertGreater(done["pages_moved"], 0)
        self.assertEqual((done["reader"], done["stuck"], done["bytes"]), (0, 0, os.path.getsize(self.file)))
        self.assertLess(os.path.getsize(self.file), full / 2)
        self.assertIn("0 pages moved", self.run_bts(OK, "compact", self.file).out.decode())
        self.run_bts(OK, "check", self.file)
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "keep").out, b"me")
        self.refused(NOT_FOUND, "compact", self.file + "x")

    def test_backup_and_restore(self):
        self.load([(b"k%04d" % i, b"v" * (i % 3000)) for i in range(1000)])
        dump = self.run_bts(OK, "dump", self.file).out
        copy, again, same = (os.path.join(self.where, name) for name in ("copy", "again", "same"))
        self.assertIn("pages copied", self.run_bts(OK, "backup", self.file, copy).out.decode())
        self.refused(CONFLICT, "backup", self.file, copy, says=["exists"])
        image = self.run_bts(OK, "backup", self.file, "-").out
        self.assertEqual(len(image), os.path.getsize(copy))
        self.run_bts(OK, "restore", again, stdin=image)
        self.run_bts(OK, "restore", same, copy, "--same-id")
        for path in copy, again, same:
            self.assertEqual(self.run_bts(OK, "dump", path).out, dump)
            self.run_bts(OK, "check", path)
        ids = [self.run_bts(OK, "stat", "--json", path).lines()[0]["database_id"] for path in (self.file, same, again)]
        self.assertEqual(ids[0], ids[1])
        self.assertNotEqual(ids[0], ids[2])
        self.refused(CONFLICT, "restore", again, copy, says=["exists"])

    def test_bad_images(self):
        self.load([(b"k%04d" % i, b"v" * 500) for i in range(500)])
        image = self.run_bts(OK, "backup", self.file, "-").out
        target = os.path.join(self.where, "restored")
        flipped = bytearray(image)
        flipped[len(image) // 2] ^= 1
        for bad in image[:-1], image[:70000], bytes(flipped):
            self.refused(FAILURE, "restore", target, stdin=bad)
        for bad in b"", b"no database", image[1:]:
            self.refused(USAGE, "restore", target, stdin=bad, says=["no backup"])
        self.assertEqual(sorted(os.listdir(self.where)), ["a.bts", "a.bts-lock"])

    def test_damage_is_not_copied(self):
        self.load([(b"k%04d" % i, b"v" * 500) for i in range(500)])
        with open(self.file, "r+b") as file:
            file.seek(os.path.getsize(self.file) // 4)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 8]))
        copy = os.path.join(self.where, "copy")
        self.refused(FAILURE, "backup", self.file, copy, says=["page "])
        self.assertFalse(os.path.exists(copy))


class Snapshots(Case):
    def test_keep_read_and_let_go(self):
        self.load([(b"k%03d" % i, b"old") for i in range(300)])
        self.run_bts(OK, "snapshot", self.file, "create", "before")
        self.load([(b"k%03d" % i, b"new") for i in range(100, 400)])
        self.run_bts(OK, "snapshot", self.file, "create", "after\t")
        after, before = self.run_bts(OK, "snapshot", "--json", self.file).lines()
        self.assertEqual((after["name"], before["name"], before["buckets"]), ("after\t", "before", 1))
        self.assertLess(before["txid"], after["txid"])
        text = self.run_bts(OK, "snapshot", self.file, "list").out.decode()
        self.assertRegex(text, r"(?m)^ +%d  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  before$" % before["txid"])
        self.assertIn("after\\t", text)
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k200", "--snapshot", "before").out, b"old")
        self.assertEqual(self.run_bts(OK, "get", self.file, "b", "k200").out, b"new")
        self.refused(NOT_FOUND, "get", self.file, "b", "k350", "--snapshot", "before", says=["no key"])
        scan = self.run_bts(OK, "scan", self.file, "b", "--snapshot", "before").out
        self.assertEqual((scan.count(b"\n"), scan.count(b"new")), (300, 0))
        dump = self.run_bts(OK, "dump", self.file, "--snapshot", "before").out
        self.assertEqual(dump.count(b"old"), 300)
        self.run_bts(OK, "check", self.file)
        held = self.run_bts(OK, "stat", "--json", self.file).lines()[0]["free_pages"]
        self.run_bts(OK, "snapshot", self.file, "delete", "before")
        self.assertGreater(self.run_bts(OK, "stat", "--json", self.file).lines()[0]["free_pages"], held)
        self.run_bts(OK, "check", self.file)

    def test_diff(self):
        self.load([(b"k%03d" % i, b"old") for i in range(300)])
        self.run_bts(OK, "snapshot", self.file, "create", "one")
        self.run_bts(OK, "put", self.file, "b", "k007", "new")
        self.run_bts(OK, "del", self.file, "b", "k100")
        self.run_bts(OK, "put", self.file, "b", "--base64", "gA==", "gQ==")
        self.run_bts(OK, "snapshot", self.file, "create", "two")
        self.run_bts(OK, "put", self.file, "b", "k299", "x" * 20000)
        lines = self.run_bts(OK, "diff", self.file, "one", "--snapshot", "two").lines()
        self.assertEqual([{k: v for k, v in line.items() if k != "txid"} for line in lines], [
            {"op": "put", "bucket": "b", "key": "k007", "value": "new"},
            {"op": "delete", "bucket": "b", "key": "k100"},
            {"op": "put", "bucket": "b", "key_base64": "gA==", "value_base64": "gQ=="}])
        self.assertLess(lines[1]["txid"], lines[0]["txid"])
        lines = self.run_bts(OK, "diff", self.file, "two", "--bucket", "b").lines()
        self.assertEqual([(line["key"], len(line["value"])) for line in lines], [("k299", 20000)])
        self.assertEqual(self.run_bts(OK, "diff", self.file, "one", "--bucket", "none").out, b"")
        self.refused(NOT_FOUND, "diff", self.file, "three", says=["no snapshot"])
        self.refused(USAGE, "diff", self.file)

    def test_refusals(self):
        self.load([(b"k", b"v")])
        self.run_bts(OK, "snapshot", self.file, "create", "s")
        self.refused(CONFLICT, "snapshot", self.file, "create", "s", says=["\"s\"", "already"])
        self.refused(NOT_FOUND, "snapshot", self.file, "delete", "t", says=["no snapshot \"t\""])
        self.refused(NOT_FOUND, "scan", self.file, "b", "--snapshot", "t", says=["no snapshot"])
        self.refused(USAGE, "snapshot", self.file, "create", says=["create NAME"])
        self.refused(USAGE, "snapshot", self.file, "make", "s")
        self.refused(USAGE, "put", self.file, "b", "k", "v", "--snapshot", "s")
        self.refused(USAGE, "snapshot", self.file, "create", "n" * 256)


if __name__ == "__main__":
    harness.main()
