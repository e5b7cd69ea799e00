#!/usr/bin/env python3
"""The report on results that it brings along: medians, ratios, verdicts, and what it does when something is missing."""
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import report_runs
from report_data import Results, amount, count, number
from report_targets import judge, promises, targets

FIXTURE = os.path.join(HERE, 'report_fixture.jsonl')


def fixture():
    results = Results()
    results.read(FIXTURE)
    return results


def verdicts(results):
    return {t.text: judge(t, results) for t in targets(1_000_000)}


def text(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def report(*options, path=None):
    """Run the program.  Returns (exit status, what it said, the page, plots by name)."""
    with tempfile.TemporaryDirectory() as out:
        environment = dict(os.environ, PATH=path or os.environ['PATH'])
        done = subprocess.run([sys.executable, '-B', os.path.join(HERE, 'report'), '--out', out, *options],
                              capture_output=True, text=True, env=environment, timeout=100, check=False)
        page = text(os.path.join(out, 'report.md'))
        plots = {name: text(os.path.join(out, name)) for name in os.listdir(out) if name.endswith('.svg')}
    return done.returncode, done.stderr, page, plots


class Figures(unittest.TestCase):
    def test_later_rows_replace_earlier_ones_and_medians_are_taken(self):
        row = fixture().find('get', 'random get, one transaction', 1_000_000)
        self.assertEqual(row.median('btree_store'), 0.6)
        self.assertEqual(row.median('lmdb'), 1.2)
        self.assertIsNone(row.median('machine'))

    def test_advantage_is_of_medians_with_the_rounds_beside(self):
        whole, low, high = fixture().find('get', 'random get, one transaction', 1_000_000).advantage('lmdb')
        self.assertAlmostEqual(whole, 2.0)
        self.assertAlmostEqual(low, 1.1 / 0.7)
        self.assertAlmostEqual(high, 1.5 / 0.5)

    def test_more_is_better_turns_the_ratio(self):
        row = fixture().find('durable', 'concurrent durable writers', 1_000_000, threads=16)
        self.assertAlmostEqual(row.advantage('lmdb')[0], 20000 / 2600)
        self.assertEqual(row.rate('lmdb'), 2600)
        self.assertEqual(fixture().find('durable', 'single durable put', 1_000_000).rate('lmdb'), 2500)

    def test_numbers(self):
        shown = {0: '0', 0.0567: '0.057', 0.6: '0.600', 0.9996: '1.00', 1.234: '1.23', 9.996: '10.0', 12.34: '12.3', 99.96: '100',
                 123.4: '123', 12345: '12,345'}
        self.assertEqual({v: number(v) for v in shown}, shown)
        self.assertEqual([amount(0.05, 'us'), amount(4.25, 'us'), amount(4250, 'us'), amount(2e8, 'bytes'), amount(2, 'ratio')],
                         ['50.0 ns', '4.25 us', '4.25 ms', '200 MB', '2.00 x'])
        self.assertEqual([count(100_000), count(10_000_000), count(1234)], ['100 k', '10 M', '1,234'])

    def test_damaged_lines_are_named_and_left_out(self):
        with tempfile.NamedTemporaryFile('w', suffix='.jsonl') as file:
            file.write('{"question":"get"}\nnot JSON\n[1]\n')
            file.flush()
            results = Results()
            results.read(file.name)
        self.assertEqual(len(results.damaged), 3)
        self.assertEqual(list(results), [])


class Verdicts(unittest.TestCase):
    def test_met_and_missed(self):
        found = verdicts(fixture())
        self.assertTrue(found['random get, one transaction'].met)
        self.assertFalse(found['random get, one transaction, 2 threads'].met)
        self.assertTrue(found['full scan forward'].met)
        self.assertTrue(found['single durable put'].met)
        self.assertFalse(found['16 concurrent durable writers'].met)
        self.assertTrue(found['random load, batches of 1000'].met)
        self.assertIsNone(found['sorted load, batches of 10,000'].met)

    def test_file_size_is_a_share_at_most(self):
        found = verdicts(fixture())['file size after random load (ours : LMDB)']
        self.assertAlmostEqual(found.figure, 0.8)
        self.assertTrue(found.met)
        results = fixture()
        results.find('load', 'file size after random load', 1_000_000).stores['btree_store'] = [172e6]
        self.assertFalse(verdicts(results)['file size after random load (ours : LMDB)'].met)

    def test_promises_stand_at_their_worst_row(self):
        found = {p.text: p for p in promises(fixture())}
        sqlite = found['ahead of SQLite in every time']
        self.assertFalse(sqlite.met)
        self.assertEqual((sqlite.row.workload, sqlite.behind, sqlite.compared), ('random load, batches of 1000', 1, 3))
        self.assertEqual(found['ahead of RocksDB in every read'].row.workload, 'random get, one transaction')
        self.assertFalse(found['ahead of RocksDB in every read'].met)
        self.assertTrue(found['level with RocksDB in a single durable put'].met)
        self.assertIsNone(found['ahead of RocksDB in sorted load'].met)
        aged = found['aged files at most 1.3 times slower than fresh ones']
        self.assertAlmostEqual(aged.figure, 1.5)
        self.assertFalse(aged.met)


class Page(unittest.TestCase):
    def test_tables(self):
        status, said, page, _ = report('--from', FIXTURE)
        if shutil.which('gnuplot'):
            self.assertEqual((status, said), (0, ''))
        lines = page.split('\n')
        for line in (
                '| random get, one transaction | 2.00 | 1.57 - 3.00 | 1.50 | 2.40 | met | 0.600 us | 1.20 us |',
                '| random get, one transaction, 2 threads | 1.49 | 1.49 - 1.49 | 1.50 | 2.40 | **missed** | 1.00 us | 1.49 us |',
                '| 16 concurrent durable writers | 7.69 | 7.69 - 7.69 | 8.00 | 12.0 | **missed** | 20,000 ops/s | 2,600 ops/s |',
                '| file size after random load (ours : LMDB) | 0.800 | 0.800 - 0.800 | at most 0.850 | at most 0.720 | met '
                '| 160 MB | 200 MB |',
                '| sorted load, batches of 10,000 |  |  | 1.00 | 1.50 | no figure |  |  |',
                '| random get, one transaction | 1 M of 16 + 100 | fresh | 1 | 2.00 | 4.00 | 0.500 | 0.600 us | 1.20 us | 2.40 us '
                '| 0.300 us |',
                '| bulk load, batches of 10000 | 1 M of 16 + 100 | fresh | 1 |  |  |  | 0.200 us |  |  |  |',
                '| overwrite 4 KiB, fdatasync | 120 us | 110 us - 2.50 ms |',
                '| processor | two of them |'):
            self.assertIn(line, lines)
        self.assertNotIn('Incomplete', page)

    def test_plots(self):
        if not shutil.which('gnuplot'):
            print('SKIP: plots of the benchmark report: gnuplot is not installed')
            return
        plots = report('--from', FIXTURE)[3]
        self.assertEqual(set(plots), {'ratios.svg', 'get.svg', 'durable.svg', 'writes.svg', 'size.svg', 'aged.svg'})
        self.assertIn('16 concurrent durable writers', plots['ratios.svg'])
        for name in ('get.svg', 'durable.svg', 'writes.svg'):
            for store in ('btree_store', 'LMDB', 'RocksDB'):
                self.assertIn(store, plots[name])
        self.assertNotIn('SQLite', plots['size.svg'])

    def test_a_missing_peer_is_said(self):
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, 'some.jsonl')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text(FIXTURE).replace('"rocksdb"', '"other"'))
            status, said, page, _ = report('--from', path)
        self.assertEqual(status, 1)
        self.assertIn('RocksDB was not measured', said)
        self.assertIn('- RocksDB was not measured', page)
        self.assertIn('| random get, one transaction | 2.00 |', page)

    def test_without_gnuplot(self):
        with tempfile.TemporaryDirectory() as empty:
            status, said, page, plots = report('--from', FIXTURE, path=empty)
        self.assertEqual((status, plots), (1, {}))
        self.assertIn('gnuplot is not installed', said)
        self.assertIn('| random get, one transaction | 2.00 |', page)

    def test_nothing_at_all(self):
        status, _, page, _ = report('--from', os.devnull)
        self.assertEqual(status, 1)
        self.assertIn('no figure', page)


class Runs(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        os.mkdir(os.path.join(self.scratch.name, 'bin'))

    def program(self, name, script):
        path = os.path.join(self.scratch.name, 'bin', name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write('#!/bin/sh\n' + script)
        os.chmod(path, stat.S_IRWXU)

    def execute(self, name, most=30):
        return report_runs.execute(report_runs.Run(name, ['--rounds', '3'], most), os.path.join(self.scratch.name, 'bin'),
                                   os.path.join(self.scratch.name, 'json'), [], os.path.join(self.scratch.name, 'log'))

    def test_failures_are_told_apart(self):
        self.program('good', 'exit 0\n')
        self.program('bad', 'echo working; echo "bad: no room" >&2; exit 1\n')
        self.program('shot', 'kill -9 $$\n')
        self.program('slow', 'exec sleep 60\n')
        self.assertIsNone(self.execute('good'))
        self.assertEqual(self.execute('bad'), '`bad --rounds 3` failed with 1: bad: no room')
        self.assertIn('was killed by signal 9', self.execute('shot'))
        self.assertIn('took more than 1 s', self.execute('slow', 1))
        self.assertEqual(self.execute('absent'), 'absent is not built')

    def test_a_failing_program_stops_nothing(self):
        for name in ('limits', 'scan', 'load', 'change', 'durable', 'open', 'reader'):
            self.program('bench_' + name, f'while [ "$1" != --json ]; do shift; done; cat "{FIXTURE}" >>"$2"\n')
        self.program('bench_get', 'echo "get: lost an entry" >&2; exit 1\n')
        status, said, page, _ = report('--quick', '--build', self.scratch.name)
        self.assertEqual(status, 1)
        self.assertIn('failed with 1: get: lost an entry', said)
        self.assertIn('**Incomplete:**', page)
        self.assertIn('| full scan forward | 1 M of 16 + 100 | fresh | 1 | 1.20 |', page)


if __name__ == '__main__':
    unittest.main()
