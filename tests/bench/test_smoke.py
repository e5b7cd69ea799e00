#!/usr/bin/env python3
"""The benchmark programs run, say in JSON what was asked of them, and notice a store that is wrong.

usage: test_smoke.py BINARIES
"""
import json
import os
import subprocess
import sys
import tempfile

SHORT = ['--entries', '2000', '--rounds', '1', '--seconds', '0.02']
ALL = {'btree_store', 'lmdb', 'sqlite', 'rocksdb'}
GETS = [f'{what} get, {how}{threads}' for threads in ('', ', 2 threads') for what in ('random', 'missing', 'zipfian')
        for how in ('one transaction', 'a transaction each')]
SIZES = (1, 100, 1000, 10000)
WORKLOADS = {
    'get': GETS,
    'scan': ['full scan forward', 'full scan back', '100 entries from a random key forward',
             '100 entries from a random key back'],
    'load': [text for how, size in (('sorted', 10000), ('random', 1000), ('bulk', 10000))
             for text in (f'{how} load, batches of {size}', f'file size after {how} load',
                          f'written for a byte, {how} load')],
    'change': [f'random {what}, batches of {size}' for what in ('update', 'delete') for size in SIZES],
    'durable': ['single durable put'] + [f'{n} concurrent durable writers' for n in (2, 4, 8, 16, 32, 64)],
    'open': ['open and first get, after a clean end', 'open and first get, after a crash'],
    'reader': ['file growth by overwrites', 'file growth by overwrites beside a reader'],
}
# A fault, the programs that meet it, and what they say.
FAULTS = [
    ('wrong', 'get', 'gave back other values'), ('wrong', 'scan', 'entries where'), ('wrong', 'open', 'another value'),
    ('lossy', 'load', 'lost entry'), ('lossy', 'change', 'wrong|another value'),
    ('lossy', 'durable', 'another value'), ('lossy', 'reader', 'another value'), ('lossy', 'open', 'another value'),
]


class Smoke:
    def __init__(self, binaries, folder):
        self.binaries, self.folder = binaries, folder
        self.passed = self.failed = 0

    def check(self, name, good, text=''):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f'FAILED: {name}: {text}')

    def run(self, question, *options):
        command = [os.path.join(self.binaries, 'bench_' + question), *SHORT, '--dir', self.folder, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    def program(self, question, stores):
        out = os.path.join(self.folder, question + '.json')
        done = self.run(question, '--json', out)
        self.check(question, done.returncode == 0, done.stderr)
        if done.returncode:
            return
        with open(out, encoding='utf-8') as file:
            lines = [json.loads(line) for line in file]
        self.check(f'{question}: workloads', [line['workload'] for line in lines] == WORKLOADS[question], lines)
        self.check(f'{question}: table', all(text in done.stdout for text in WORKLOADS[question]), done.stdout)
        for line in lines:
            wanted = stores - ({'sqlite'} if 'bulk' in line['workload'] else set())
            self.check(f'{question}: {line["workload"]}',
                       line['question'] == question and line['entries'] == 2000 and line['key'] == 16
                       and line['value'] == 100 and line['threads'] >= 1 and line['state'] == 'fresh'
                       and line['better'] in ('less', 'more') and set(line['stores']) == wanted
                       and all(len(s) == 1 and s[0] > 0 for s in line['stores'].values()), line)

    def fault(self, store, question, said):
        done = self.run(question, '--stores', store)
        self.check(f'{question} with --stores {store}',
                   done.returncode == 1 and any(text in done.stderr for text in said.split('|')),
                   f'exit {done.returncode}: {done.stderr}')

    def whole(self):
        listed = subprocess.run([os.path.join(self.binaries, 'bench_get'), '--list'], capture_output=True, text=True,
                                timeout=60, check=False).stdout.splitlines()
        stores = {line.split()[0] for line in listed if 'missing' not in line}
        self.check('--list', {line.split()[0] for line in listed} == ALL and 'btree_store' in stores, listed)
        for store in sorted(ALL - stores):
            print(f'SKIP: {store} is not measured: its library was not there when this was built')
        for question in WORKLOADS:
            self.program(question, stores)
        for store, question, said in FAULTS:
            self.fault(store, question, said)
        done = self.run('get', '--aged', '--age', '3000', '--key', '40', '--value', '1000', '--fill', 'sorted',
                        '--only', 'random get, one')
        self.check('aged', done.returncode == 0 and 'aged' in done.stdout, done.stderr)
        self.check('bad option', self.run('get', '--entries', 'x').returncode == 1)
        left = [name for name in os.listdir(self.folder) if not name.endswith('.json')]
        self.check('removed what it made', not left, left)


def main():
    with tempfile.TemporaryDirectory() as folder:
        smoke = Smoke(sys.argv[1], folder)
        smoke.whole()
    print(f'{smoke.passed} passed, {smoke.failed} failed')
    return 1 if smoke.failed else 0


if __name__ == '__main__':
    sys.exit(main())
