"""What this store must reach against the others, and whether it did."""
from collections import namedtuple

from report_data import OURS, PEERS, TITLES, count, number

# `bound` is 'least' where our advantage must be so large, 'most' where our share of LMDB's bytes must be so small.
Target = namedtuple('Target', 'text question workload entries threads bound must aim')
Verdict = namedtuple('Verdict', 'text row figure low high bound must aim met')

TARGET_ENTRIES = 1_000_000
LARGE = 10_000_000


def targets(entries):
    """The table of targets against LMDB, for stores of so many entries of 16 + 100 bytes."""
    return [
        Target('random get, one transaction', 'get', 'random get, one transaction', entries, 1, 'least', 1.5, 2.4),
        Target('random get, a transaction each', 'get', 'random get, a transaction each', entries, 1, 'least', 1.5, 2.4),
        Target('random get, one transaction, 2 threads', 'get', 'random get, one transaction', entries, 2,
               'least', 1.5, 2.4),
        Target('random get, a transaction each, 2 threads', 'get', 'random get, a transaction each', entries, 2,
               'least', 1.5, 2.4),
        Target(f'random get in {count(LARGE)}, one transaction', 'get', 'random get, one transaction', LARGE, 1,
               'least', 1.3, 2.0),
        Target('full scan forward', 'scan', 'full scan forward', entries, 1, 'least', 1.2, 1.5),
        Target('full scan back', 'scan', 'full scan back', entries, 1, 'least', 1.2, 1.5),
        Target('100 entries from a random key forward', 'scan', '100 entries from a random key forward', entries, 1,
               'least', 1.2, 1.5),
        Target('100 entries from a random key back', 'scan', '100 entries from a random key back', entries, 1,
               'least', 1.2, 1.5),
        Target('single durable put', 'durable', 'single durable put', entries, 1, 'least', 1.5, 1.7),
        Target('16 concurrent durable writers', 'durable', 'concurrent durable writers', entries, 16, 'least', 8, 12),
        Target('sorted load, batches of 10,000', 'load', 'sorted load, batches of 10000', entries, 1, 'least', 1.0, 1.5),
        Target('random load, batches of 1000', 'load', 'random load, batches of 1000', entries, 1, 'least', 3, 8),
        Target('random delete, batches of 1000', 'change', 'random delete, batches of 1000', entries, 1, 'least', 3, 8),
        Target('file size after random load (ours : LMDB)', 'load', 'file size after random load', entries, 1,
               'most', 0.85, 0.72),
    ]


def judge(target, results):
    """The verdict on one target; without a figure, met is None."""
    row = results.find(target.question, target.workload, target.entries, threads=target.threads)
    advantage = row.advantage('lmdb') if row else None
    if not advantage:
        return Verdict(target.text, row, None, None, None, target.bound, target.must, target.aim, None)
    figure, low, high = advantage
    if target.bound == 'most':
        figure, low, high = 1 / figure, 1 / high, 1 / low
    # What is shown decides: a figure printed as the target itself has met it.
    shown = round(figure, 2)
    met = shown <= target.must if target.bound == 'most' else shown >= target.must
    return Verdict(target.text, row, figure, low, high, target.bound, target.must, target.aim, met)


def describe(row):
    """A row in a few words, as the promises name it."""
    parts = [row.workload, f'{count(row.entries)} of {row.key} + {row.value}']
    if row.threads > 1:
        parts.append(f'{row.threads} threads')
    if row.state != 'fresh':
        parts.append(row.state)
    return ', '.join(parts)


def is_time(row):
    return row.unit in ('us', 'ns', 'ops/s')


def is_read(row):
    return row.question in ('get', 'scan')


def is_random_write(row):
    return row.workload.startswith('random') and row.question in ('load', 'change')


def worst(rows, peer):
    """The row where we stand worst against peer, with our advantage there."""
    found = [(row.advantage(peer)[0], row) for row in rows if row.advantage(peer)]
    return min(found, key=lambda pair: pair[0]) if found else (None, None)


def against(text, rows, peer, must):
    rows = list(rows)
    figure, row = worst(rows, peer)
    behind = sum(1 for r in rows if r.advantage(peer) and round(r.advantage(peer)[0], 2) < (must or 1))
    compared = sum(1 for r in rows if r.advantage(peer))
    return Promise(text, figure, row, must, None if figure is None or must is None else behind == 0, behind, compared)


Promise = namedtuple('Promise', 'text figure row must met behind compared')

# A single durable put is mostly the disk's flush, the same for both: within a twentieth is level.
LEVEL = 0.95


def aged_pairs(results):
    """(fresh, aged) of every workload measured in both states."""
    for row in results:
        if row.state == 'aged':
            fresh = results.find(row.question, row.workload, row.entries, row.key, row.value, row.threads)
            if fresh:
                yield fresh, row


def slowdown(fresh, aged, store):
    """How many times slower aged is; None without figures."""
    a, b = fresh.median(store), aged.median(store)
    if not a or not b:
        return None
    return a / b if fresh.more else b / a


def promises(results):
    """What is promised beyond the table: each at its worst row."""
    times = [row for row in results if is_time(row)]
    made = [
        against('ahead of SQLite in every time', times, 'sqlite', 1),
        against('ahead of RocksDB in every read', filter(is_read, times), 'rocksdb', 1),
        against('ahead of RocksDB in sorted load', (r for r in times if r.workload.startswith('sorted load')),
                'rocksdb', 1),
        against('level with RocksDB in a single durable put',
                (r for r in times if r.question == 'durable' and r.threads == 1), 'rocksdb', LEVEL),
        against('as near to RocksDB in random writes as a B+tree comes', filter(is_random_write, times), 'rocksdb', None),
    ]
    pairs = [(slowdown(f, a, OURS), a) for f, a in aged_pairs(results) if is_time(f) and slowdown(f, a, OURS)]
    figure, row = max(pairs, key=lambda pair: pair[0]) if pairs else (None, None)
    behind = sum(1 for s, _ in pairs if round(s, 2) > 1.3)
    made.append(Promise('aged files at most 1.3 times slower than fresh ones', figure, row, 1.3,
                        behind == 0 if pairs else None, behind, len(pairs)))
    return made


def verdict(met):
    return {True: 'met', False: '**missed**', None: 'no figure'}[met]


def missing_peers(results):
    """Peers that no row has a figure of."""
    seen = {store for row in results for store in row.stores}
    return [TITLES[peer] for peer in PEERS if peer not in seen]


def bound_text(bound, value):
    return ('at most ' if bound == 'most' else '') + number(value)
