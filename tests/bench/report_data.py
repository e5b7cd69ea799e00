"""The lines of JSON that the programs write: read, looked up, and turned into medians, ratios and text."""
import json
import re
import statistics

OURS = 'btree_store'
PEERS = ['lmdb', 'sqlite', 'rocksdb']
STORES = [OURS] + PEERS
SECOND = {'us': 1e6, 'ns': 1e9}
TITLES = {OURS: 'btree_store', 'lmdb': 'LMDB', 'sqlite': 'SQLite', 'rocksdb': 'RocksDB', 'machine': 'machine'}


class Row:
    """One workload measured: samples of each store, one a round."""

    def __init__(self, fields):
        self.question = str(fields['question'])
        # How many threads there are is said beside the name, too.
        self.workload = re.sub(r', \d+ threads$|^\d+ (?=concurrent )', '', str(fields['workload']))
        self.entries = int(fields['entries'])
        self.key = int(fields['key'])
        self.value = int(fields['value'])
        self.threads = int(fields['threads'])
        self.state = str(fields['state'])
        self.unit = str(fields['unit'])
        self.more = fields['better'] == 'more'
        self.stores = {name: [float(s) for s in samples] for name, samples in fields['stores'].items() if samples}

    def identity(self):
        return (self.question, self.workload, self.entries, self.key, self.value, self.threads, self.state)

    def median(self, store):
        """None where the store has no figure."""
        return statistics.median(self.stores[store]) if store in self.stores else None

    def rate(self, store):
        """How many a second, of a time as of a rate."""
        median = self.median(store)
        return median if self.more or not median else SECOND[self.unit] / median

    def advantage(self, peer):
        """How many times better we are than peer: of the medians, and the least and greatest of the rounds."""
        ours, theirs = self.stores.get(OURS), self.stores.get(peer)
        if not ours or not theirs or min(ours) <= 0 or min(theirs) <= 0:
            return None
        whole = quotient(self.median(OURS), self.median(peer), self.more)
        rounds = [quotient(a, b, self.more) for a, b in zip(ours, theirs)]
        return whole, min(rounds), max(rounds)


def quotient(ours, theirs, more):
    return ours / theirs if more else theirs / ours


class Results:
    """Rows in the order they came; a row measured again replaces the earlier one."""

    def __init__(self):
        self.rows = {}
        self.machine = []  # (name, text) pairs: where and of what these are the results
        self.damaged = []

    def read(self, path):
        with open(path, encoding='utf-8') as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    fields = json.loads(line)
                    if 'machine' in fields:
                        self.machine = [(str(name), str(text)) for name, text in fields['machine']]
                        continue
                    row = Row(fields)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    self.damaged.append(f'{path}:{number}: not a result: {error!r}')
                    continue
                self.rows[row.identity()] = row

    def __iter__(self):
        return iter(self.rows.values())

    def questions(self):
        return list(dict.fromkeys(row.question for row in self))

    def find(self, question, workload, entries, key=16, value=100, threads=1, state='fresh'):
        return self.rows.get((question, workload, entries, key, value, threads, state))


def number(value):
    """Three digits that count, thousands apart."""
    if value is None:
        return ''
    if value == 0:
        return '0'
    size = abs(value)
    for limit, digits in ((0.01, 4), (0.9995, 3), (9.995, 2), (99.95, 1)):
        if size < limit:
            return f'{value:.{digits}f}'
    return f'{value:,.0f}'


def amount(value, unit):
    """A figure with its unit, bytes and long times in larger ones."""
    if value is None:
        return ''
    if unit == 'bytes':
        for scale, name in ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB')):
            if value >= scale:
                return f'{number(value / scale)} {name}'
    if unit == 'us':
        for scale, name in ((1e6, 's'), (1e3, 'ms')):
            if value >= scale:
                return f'{number(value / scale)} {name}'
        if value < 0.1:
            return f'{number(value * 1e3)} ns'
    if unit == 'ratio':
        return f'{number(value)} x'
    return f'{number(value)} {unit}'


def count(value):
    """100 k, 1 M, 10 M; others as they are."""
    for scale, name in ((1_000_000, 'M'), (1_000, 'k')):
        if value >= scale and value % scale == 0:
            return f'{value // scale} {name}'
    return f'{value:,}'


def size(value):
    return f'{value >> 10} KiB' if value >= 4096 and value % 1024 == 0 else f'{value}'
