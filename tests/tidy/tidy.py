#!/usr/bin/env python3
"""Check what of the style can be checked: sizes, layers, third-party headers, file maps, test lists, symbols.

usage: tidy.py [--root DIR] [--archive libbtree_store.a] [--nm NM]
       tidy.py --self-test      break each rule in a scratch tree and see that it is noticed

Prints findings as file:line: text, and last "N passed, N failed", counting rules.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

MAX_FILE = 1000
MAX_FUNCTION = 70

# The only files that may include a third-party header.
THIRD_PARTY = {
    'curl/curl.h': ['replicator/transport_curl.c'],
    'microhttpd.h': ['replicator/serve_private.h', 'httpapi/server.c', 'httpapi/request.c', 'httpapi/framing.c', 'tests/bench/http_floor.c', 'httpapi/reply.c', 'httpapi/reply_again.c', 'httpapi/request_park.c', 'httpapi/request_fields.c'],
    'jansson.h': ['httpapi/input.c', 'httpapi/txn_parse.c', 'replicator/etcd_json.c'],
    'cmocka.h': ['tests/support/cmocka.h'],
    'lmdb.h': ['engine/tools/bts_bench_lmdb.c', 'tests/bench/store_lmdb.c'],
    'sqlite3.h': ['tests/bench/store_sqlite.c'],
    'rocksdb/c.h': ['tests/bench/store_rocksdb.c'],
    'gnutls/gnutls.h': ['replicator/tls.c', 'replicator/keyring.c', 'replicator/store_sign.c'],
    'gnutls/x509.h': ['replicator/tls.c'],
    'gnutls/abstract.h': ['replicator/tls.c'],
    'gnutls/crypto.h': ['replicator/keyring.c', 'replicator/store_sign.c'],
    'expat.h': ['replicator/store_xml.c'],
    'zstd.h': ['replicator/frame_zstd.c'],
    'ini.h': ['replicator/settings_file.c'],
}

# Whose private headers a folder may include besides its own.  The public ones of engine/include are free to all.
LAYERS = {'engine': [], 'replicator': [], 'httpapi': ['replicator']}

# What the engine's archive may ask of libc and pthreads; the system calls of io_posix.c are its own affair.
SYMBOLS = set('''
    abort calloc free malloc realloc qsort bsearch
    memchr memcmp memcpy memmove memset memrchr strchr strcmp strcpy strlen strncmp strncpy strnlen strrchr
    stpcpy strerror strerror_r strtoull snprintf vsnprintf fprintf fwrite fputs stderr
    __errno_location __stack_chk_fail __cpu_model __cpu_features2 __cpu_indicator_init
    _GLOBAL_OFFSET_TABLE_ __tls_get_addr __register_atfork
'''.split())
SYMBOL_PREFIXES = ('pthread_', '__asan_', '__ubsan_', '__tsan_', '__sanitizer_')
# The background flush waits on a condition, which wants the clock's own time, and keeps signals away from its thread.
THREAD_MEMBERS = {'async.c.o', 'async.o'}
THREAD_SYMBOLS = {'clock_gettime', 'sigfillset'}
SYSTEM_MEMBERS = {'io_posix.c.o', 'io_posix.o'}
SYSTEM_SYMBOLS = set('''
    clock_gettime close fallocate fcntl fdatasync fstat fsync ftruncate getcwd getpid getrandom link madvise mmap munmap open pread
    pwritev statx sync_file_range syscall unlink gnu_dev_makedev lseek read write
'''.split())

SKIP_DIRS = {'.git', 'build', 'data', 'node_modules', '__pycache__'}
TEXT = ('.c', '.h', '.py', '.md', '.txt', '.cmake', '.json', '.sh', '.yaml', '.yml', '.in', '.map', '.service')
MACHINE_PATH = re.compile(r'(?<![\w.$}/])/(?:work|root|home/\w+|workspace)/\w')


class Tree:
    """The files of the project, by path relative to root."""

    def __init__(self, root):
        self.root = root
        self.files = []
        for dirpath, dirs, names in os.walk(root):
            dirs[:] = sorted(d for d in dirs if d not in SKIP_DIRS)
            for name in sorted(names):
                self.files.append(os.path.relpath(os.path.join(dirpath, name), root))
        self.cache = {}

    def lines(self, path):
        if path not in self.cache:
            with open(os.path.join(self.root, path), encoding='utf-8', errors='replace') as f:
                self.cache[path] = f.read().split('\n')
        return self.cache[path]

    def c_files(self, folder=None):
        return [p for p in self.files
                if p.endswith(('.c', '.h')) and (folder is None or p.startswith(folder + '/'))]

    def includes(self, path):
        for number, line in enumerate(self.lines(path), 1):
            m = re.match(r'\s*#\s*include(?:_next)?\s*([<"])([^>"]+)[>"]', line)
            if m:
                yield number, m.group(1) == '<', m.group(2)


def file_length(tree):
    for path in tree.c_files():
        count = len(tree.lines(path))
        if count > MAX_FILE:
            yield path, count, f'file of {count} lines, at most {MAX_FILE}'


def function_length(tree):
    # The formatter puts only the brace of a function into the first column.
    for path in tree.c_files():
        start = None
        for number, line in enumerate(tree.lines(path), 1):
            if line.startswith('{'):
                start = number
            elif line.startswith('}') and start:
                if number - start - 1 > MAX_FUNCTION:
                    yield path, start, f'function of {number - start - 1} lines, at most {MAX_FUNCTION}'
                start = None


def layering(tree):
    owners = {}
    for folder in LAYERS:
        for path in tree.c_files(folder):
            if path.endswith('.h') and not path.startswith('engine/include/'):
                owners.setdefault(os.path.basename(path), set()).add(folder)
    public = {p[len('engine/include/'):] for p in tree.files if p.startswith('engine/include/')}
    base = {os.path.basename(p) for p in tree.c_files('engine/base')}
    for folder, allowed in LAYERS.items():
        for path in tree.c_files(folder):
            for number, _, name in tree.includes(path):
                if name.startswith('sys/'):
                    continue
                known = owners.get(os.path.basename(name), set())
                if name in public or os.path.normpath(os.path.join('btree_store', name)) in public:
                    continue
                if known and folder not in known and not known & set(allowed):
                    yield path, number, f'private header {name} of {", ".join(sorted(known))}'
                if path.startswith('engine/base/') and known and os.path.basename(name) not in base:
                    yield path, number, f'base includes {name}, which is above it'


def third_party(tree):
    for path in tree.c_files():
        for number, angled, name in tree.includes(path):
            if angled and name in THIRD_PARTY and path not in THIRD_PARTY[name]:
                yield path, number, f'<{name}> belongs to {", ".join(THIRD_PARTY[name]) or "no file yet"}'


def map_names(cell):
    """File names in the first cell of a row; `x.{c,h}` stands for two."""
    for token in re.findall(r'`([^`]+)`', cell):
        m = re.fullmatch(r'(.*)\{(.*)\}(.*)', token)
        for name in [m[1] + part.strip() + m[3] for part in m[2].split(',')] if m else [token]:
            if name.endswith(('.c', '.h')):
                yield name


def file_maps(tree):
    for folder in LAYERS:
        design = folder + '/DESIGN.md'
        files = {p[len(folder) + 1:] for p in tree.c_files(folder)}
        if design not in tree.files:
            if files:
                yield design, 1, 'missing'
            continue
        listed = {}
        for number, line in enumerate(tree.lines(design), 1):
            if line.startswith('| `'):
                for name in map_names(line.split('|')[1]):
                    if name in listed:
                        yield design, number, f'{name} is listed twice'
                    listed[name] = number
        for name in sorted(set(listed) - files):
            yield design, listed[name], f'{name} does not exist'
        for name in sorted(files - set(listed)):
            yield design, 1, f'{name} is not in the file map'


def machine_paths(tree):
    for path in tree.files:
        if path.endswith(TEXT):
            for number, line in enumerate(tree.lines(path), 1):
                if MACHINE_PATH.search(line):
                    yield path, number, 'absolute path of one machine'


def tests_listed(tree):
    for path in tree.files:
        folder, name = os.path.split(path)
        if path.startswith('tests/') and re.fullmatch(r'test_.*\.c', name):
            lists = [p for p in tree.files if p.startswith('tests/') and p.endswith('CMakeLists.txt')]
            pattern = re.compile(r'(?<![\w.])' + re.escape(name) + r'(?![\w.])')
            if not any(pattern.search(line) for p in lists for line in tree.lines(p)):
                yield path, 1, 'in no CMakeLists.txt'


def whitespace(tree):
    for path in tree.files:
        if path.endswith(TEXT):
            for number, line in enumerate(tree.lines(path), 1):
                if line != line.rstrip():
                    yield path, number, 'trailing whitespace'


def plain(symbol):
    """Without the variants that flags choose: large files, fortify, C99 scanning."""
    symbol = re.sub(r'^__(?:isoc99_)?(\w+?)_chk$', r'\1', symbol.split('@')[0])
    return re.sub(r'64$', '', symbol)


def symbol_findings(nm_output, archive):
    """nm_output: lines "archive:member:  value type name" of nm -A."""
    defined, undefined = set(), []
    for line in nm_output.splitlines():
        m = re.match(r'.*?([^:/]+):\s*[0-9a-f]*\s+([A-Za-z])\s+(\S+)$', line)
        if m and m[2] in 'Uvw':
            undefined.append((m[1], m[3]))
        elif m:
            defined.add(m[3])
    for member, symbol in sorted(set(undefined)):
        name = plain(symbol)
        if symbol in defined or name in SYMBOLS or name.startswith(SYMBOL_PREFIXES):
            continue
        if member in SYSTEM_MEMBERS and name in SYSTEM_SYMBOLS:
            continue
        if member in THREAD_MEMBERS and name in THREAD_SYMBOLS:
            continue
        yield archive, 1, f'{member} uses {symbol}, which is not on the list: go through struct bts_env'


def symbols(archive, nm):
    out = subprocess.run([nm, '-A', archive], capture_output=True, text=True, check=True).stdout
    yield from symbol_findings(out, archive)


RULES = [file_length, function_length, layering, third_party, file_maps, machine_paths, tests_listed, whitespace]


def run(root, archive, nm):
    tree = Tree(root)
    checks = [(rule.__name__, rule(tree)) for rule in RULES]
    if archive:
        checks.append(('symbols', symbols(archive, nm)))
    passed = failed = 0
    for name, findings in checks:
        found = False
        for path, line, text in findings:
            print(f'{path}:{line}: {text} [{name}]')
            found = True
        passed += not found
        failed += found
    print(f'{passed} passed, {failed} failed')
    return 1 if failed else 0


def self_test():
    good = {
        'engine/DESIGN.md': '| `a.{c,h}` | x |\n| `base/b.h` | x |\n| `include/p.h` | x |\n',
        'engine/a.c': '#include "a.h"\n#include <p.h>\nint f(void)\n{\n\treturn 0;\n}\n',
        'engine/a.h': '\n', 'engine/base/b.h': '\n', 'engine/include/p.h': '\n',
        'replicator/DESIGN.md': '| `r.h` | x |\n', 'replicator/r.h': '#include <p.h>\n',
        'httpapi/DESIGN.md': '| `h.c` | x |\n', 'httpapi/h.c': '#include "r.h"\n',
        'tests/unit/test_x.c': '\n', 'tests/unit/CMakeLists.txt': 'bts_test(unit test_x test_x.c)\n',
    }
    bad = [
        (file_length, 'engine/a.c', '\n' * 1001),
        (function_length, 'engine/a.c', 'void f(void)\n{\n' + '\n' * 71 + '}\n'),
        (layering, 'replicator/r.h', '#include "a.h"\n'),
        (layering, 'engine/a.c', '#include "r.h"\n'),
        (layering, 'httpapi/h.c', '#include "b.h"\n'),
        (layering, 'engine/base/b.h', '#include "a.h"\n'),
        (third_party, 'engine/a.c', '#include <curl/curl.h>\n'),
        (file_maps, 'engine/a.d.c', '\n'),
        (file_maps, 'engine/DESIGN.md', good['engine/DESIGN.md'] + '| `gone.c` | x |\n'),
        (machine_paths, 'engine/a.c', '/* see ' + '/ro' + 'ot/x */\n'),
        (tests_listed, 'tests/unit/test_y.c', '\n'),
        (whitespace, 'engine/a.c', 'int a; \n'),
    ]
    failed = 0
    for rule, path, text in [(None, None, None)] + bad:
        with tempfile.TemporaryDirectory() as root:
            files = dict(good)
            if path:
                files[path] = text
            for name, content in files.items():
                os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
                with open(os.path.join(root, name), 'w', encoding='utf-8') as f:
                    f.write(content)
            hit = {r for r in RULES if list(r(Tree(root)))}
            if hit != ({rule} if rule else set()):
                print(f'self-test: {rule and rule.__name__} on {path}: noticed {[r.__name__ for r in hit]}')
                failed += 1
    nm = 'x.a:a.c.o:                 U {}\nx.a:a.c.o:0000000000000000 T own\n'
    for symbol, wanted in (('memcpy', 0), ('own', 0), ('__memcpy_chk', 0), ('pread64', 1), ('curl_init', 1)):
        if len(list(symbol_findings(nm.format(symbol), 'x.a'))) != wanted:
            print(f'self-test: symbols on {symbol}')
            failed += 1
    total = 1 + len(bad) + 5
    print(f'{total - failed} passed, {failed} failed')
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--root', default=os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
    parser.add_argument('--archive')
    parser.add_argument('--nm', default='nm')
    parser.add_argument('--self-test', action='store_true')
    args = parser.parse_args()
    sys.exit(self_test() if args.self_test else run(args.root, args.archive, args.nm))


if __name__ == '__main__':
    main()
