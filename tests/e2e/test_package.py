#!/usr/bin/env python3
"""What is installed: the library's symbols against its headers, pkg-config, find_package, the examples, the manual pages."""
import glob
import os
import re
import shutil
import subprocess
import unittest

import harness

BUILD = os.path.dirname(os.path.dirname(harness.binary("bts")))
SOURCE = os.path.join(harness.TREE, "engine")
HEADERS = ["btree_store.h", "btree_store/ship.h", "btree_store/env.h"]


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode:
        raise AssertionError("%s: exit status %d\n%s%s" % (" ".join(words), done.returncode, done.stdout, done.stderr))
    return done.stdout


def declared(path):
    """The functions that a header exports."""
    with open(path, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", " ", f.read(), flags=re.S)
    text = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.M)
    for statement in re.split(r"[;{}]", text):
        if re.search(r'\bBTS_EXPORT\b|visibility\("default"\)', statement):
            yield re.search(r"\b(bts_\w+)\s*\(", statement)[1]


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = harness.Dir().__enter__()
        cls.prefix = cls.dir.file("prefix")
        run("cmake", "--install", BUILD, "--prefix", cls.prefix)
        cls.library = os.path.realpath(cls.one("lib*/**/libbtree_store.so"))
        cls.libdir = os.path.dirname(cls.library)
        cls.sanitized = "__asan_" in run("nm", "-D", cls.library)
        cls.env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(cls.libdir, "pkgconfig"), LD_LIBRARY_PATH=cls.libdir)

    @classmethod
    def tearDownClass(cls):
        cls.dir.__exit__()

    @classmethod
    def one(cls, pattern):
        found = glob.glob(os.path.join(cls.prefix, pattern), recursive=True)
        if len(found) != 1:
            raise AssertionError("%s: %r" % (pattern, found))
        return found[0]

    def header(self, name):
        return os.path.join(self.prefix, "include", name)

    def need_plain(self):
        if self.sanitized:
            self.skipTest("programs without sanitizers do not link with this build")

    def work(self):
        """A directory of this test's own."""
        path = self.dir.file(self.id().split(".")[-1])
        os.mkdir(path)
        return path


class Library(Installed):
    def test_symbols_are_the_headers(self):
        exported, versions = set(), set()
        for line in run("nm", "-D", "--defined-only", self.library).splitlines():
            kind, symbol = line.split()[-2:]
            if kind == "A":
                versions.add(symbol.split("@")[0])
                continue
            self.assertEqual(kind, "T", line)
            name, version = symbol.split("@@")
            exported.add(name)
            self.assertEqual(version, "BTREE_STORE_0", line)
        public = set()
        for name in HEADERS:
            public |= set(declared(self.header(name)))
        self.assertGreater(len(public), 60)
        self.assertEqual(exported, public)
        self.assertEqual(versions, {"BTREE_STORE_0"})

    def test_soname_and_needs(self):
        tags = run("readelf", "-d", self.library)
        self.assertEqual(re.findall(r"soname: \[(.*?)\]", tags), ["libbtree_store.so.0"])
        if not self.sanitized:
            self.assertLessEqual(set(re.findall(r"NEEDED.*\[(.*?)\]", tags)), {"libc.so.6", "libpthread.so.0"})
        self.assertTrue(os.path.islink(os.path.join(self.libdir, "libbtree_store.so")))
        self.assertTrue(os.path.islink(os.path.join(self.libdir, "libbtree_store.so.0")))

    def test_headers_alone(self):
        """Each header compiles by itself, in old C and in C++, without a warning; and nothing else is installed."""
        self.assertEqual(sorted(glob.glob(self.header("**/*.*"), recursive=True)), sorted(map(self.header, HEADERS)))
        include = "-I" + self.header("")
        for name in HEADERS:
            source = '#include <%s>\nextern int nothing;\n' % name
            strict = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", include, "-"]
            for standard in ["c11", "gnu11"] + (["c99"] if name != "btree_store/env.h" else []):
                run("cc", "-x", "c", "-std=" + standard, *strict, input=source)
            for standard in ["c++11", "c++17", "c++20"]:
                run("g++", "-x", "c++", "-std=" + standard, *strict, input=source)

    def test_version_is_one(self):
        with open(self.header("btree_store.h"), encoding="utf-8") as f:
            version = re.search(r'BTS_VERSION_STRING "(.*?)"', f.read())[1]
        self.assertEqual(run("pkg-config", "--modversion", "btree_store", env=self.env).strip(), version)
        self.assertEqual(os.path.basename(self.library), "libbtree_store.so." + version)
        self.assertEqual(run(os.path.join(self.prefix, "bin", "bts"), "--version"), "bts %s\n" % version)


class Consumers(Installed):
    EXAMPLE = ["conflict: ", "  visits = 111\n", "  visits = 112\n", "  plums = 3\n"]

    def check_example(self, program, where):
        out = run(program, os.path.join(where, "example.bts"), env=self.env)
        for piece in self.EXAMPLE:
            self.assertIn(piece, out)
        run(os.path.join(self.prefix, "bin", "bts"), "check", os.path.join(where, "example.bts"))

    def flags(self, *words):
        return run("pkg-config", *words, "btree_store", env=self.env).split()

    def test_pkg_config(self):
        self.need_plain()
        where = self.work()
        example = self.one("share/doc/**/example.c")
        strict = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
        run("cc", *strict, example, *self.flags("--cflags", "--libs"), "-o", os.path.join(where, "shared"))
        self.check_example(os.path.join(where, "shared"), where)
        self.assertIn("libbtree_store.so.0", run("readelf", "-d", os.path.join(where, "shared")))
        os.unlink(os.path.join(where, "example.bts"))
        run("cc", *strict, "-static", example, *self.flags("--static", "--cflags", "--libs"), "-o",
            os.path.join(where, "static"))
        self.check_example(os.path.join(where, "static"), where)
        self.assertIn("-pthread", self.flags("--static", "--libs"))

    def test_moved_tree(self):
        """The installation works from wherever it was put."""
        self.need_plain()
        where = self.work()
        moved = os.path.join(where, "moved")
        shutil.copytree(self.prefix, moved, symlinks=True)
        env = dict(self.env, PKG_CONFIG_PATH=glob.glob(os.path.join(moved, "lib*/**/pkgconfig"), recursive=True)[0])
        flags = run("pkg-config", "--cflags", "--libs", "btree_store", env=env)
        self.assertNotIn(self.prefix, flags)
        run("cc", "-fsyntax-only", os.path.join(SOURCE, "examples", "example.c"), *flags.split())

    def test_find_package(self):
        self.need_plain()
        where = self.work()
        source = os.path.dirname(self.one("share/doc/**/consumer/CMakeLists.txt"))
        run("cmake", "-S", source, "-B", where, "-DCMAKE_PREFIX_PATH=" + self.prefix,
            "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror")
        run("cmake", "--build", where)
        for name in ["consumer", "consumer_static"]:
            got = run(os.path.join(where, name), os.path.join(where, name + ".bts"))
            self.assertEqual(got, "Aarhus: 6\nLyon: 4\nZagreb: 6\n")
        refused = subprocess.run([os.path.join(where, "consumer"), where], capture_output=True, text=True)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(where, refused.stderr)

    def test_find_package_version(self):
        where = self.work()
        for version, works in [("0.1", True), ("0.1.0", True), ("0.2", False), ("1.0", False)]:
            with open(os.path.join(where, "CMakeLists.txt"), "w") as f:
                f.write("cmake_minimum_required(VERSION 3.16)\nproject(p LANGUAGES C)\n"
                        "find_package(btree_store %s CONFIG REQUIRED)\n" % version)
            done = subprocess.run(["cmake", "-S", where, "-B", os.path.join(where, "b" + version),
                                   "-DCMAKE_PREFIX_PATH=" + self.prefix], capture_output=True, text=True)
            self.assertEqual(done.returncode == 0, works, version + done.stderr)


class Manual(Installed):
    PAGES = [("bts", 1), ("btsd", 1), ("bts-replicator", 1), ("btree_store", 3), ("btree_store", 7)]

    def page(self, name, section):
        return os.path.join(self.prefix, "share", "man", "man%d" % section, "%s.%d" % (name, section))

    def text(self, name, section):
        """As a reader sees it, without line breaks."""
        out = run("mandoc", "-T", "utf8", "-O", "width=200", self.page(name, section))
        bold = re.sub(".\b", "", out)  # overstruck
        return re.sub(r"\s+", " ", bold).replace("\u2010", "-").replace("\u2212", "-")

    def mentions(self, text, word):
        self.assertTrue(re.search(r"(?<![\w-])%s(?![\w-])" % re.escape(word), text), "not told of: " + word)

    def test_render(self):
        for name, section in self.PAGES:
            page = self.page(name, section)
            lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
            # scdoc begins a paragraph wherever one might begin.
            found = [line for line in (lint.stdout + lint.stderr).splitlines() if "skipping paragraph macro" not in line]
            self.assertEqual(found, [])
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""), page)

    def test_every_function(self):
        text = self.text("btree_store", 3)
        for header in HEADERS[:2]:
            for name in declared(self.header(header)):
                self.mentions(text, name)

    def test_every_error_and_flag(self):
        text = self.text("btree_store", 3)
        with open(self.header("btree_store.h"), encoding="utf-8") as f:
            header = f.read()
        codes = re.search(r"enum bts_err \{(.*?)\};", header, re.S)[1]
        words = re.findall(r"^\s(BTS_\w+)", codes, re.M)
        words += re.findall(r"^#define (BTS_\w+) 0x", header, re.M)
        self.assertGreater(len(words), 25)
        for word in words:
            self.mentions(text, word)

    def test_every_command_and_option(self):
        text = self.text("bts", 1)
        usage = run(os.path.join(self.prefix, "bin", "bts"), "--help")
        commands = re.findall(r"^  ([a-z][\w-]*) ", usage, re.M)
        options = sorted(set(re.findall(r"--[a-z][\w-]*", usage)))
        self.assertGreaterEqual(len(commands), 9)
        self.assertGreater(len(options), 15)
        for command in commands:
            self.mentions(text, "bts " + command)
        for option in options:
            self.mentions(text, option)
        for option in set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - {"--help", "--version"}:
            self.assertIn(option, options, "the page tells of an option that is not there")

    def test_every_setting(self):
        """The pages of the servers have the options that --help tells, and no others."""
        for name in ("btsd", "bts-replicator"):
            text = self.text(name, 1)
            told = run(os.path.join(self.prefix, "bin", name), "--help")
            options = re.findall(r"^  (--[a-z][\w-]*)", told, re.M)
            self.assertGreater(len(options), 12)
            for option in options:
                self.mentions(text, option)
            page = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
            self.assertEqual(page - set(options) - {"--name"}, set(), "the page tells of options that are not there")

    def test_examples_of_settings(self):
        conf = self.one("share/doc/**/btsd.conf")
        for name in ("btsd", "bts-replicator"):
            run(os.path.join(self.prefix, "bin", name), "--config", conf, "--check-config")
        for name in ("btsd", "bts-replicator"):
            self.one("share/doc/**/%s.service" % name)


if __name__ == "__main__":
    harness.main()
