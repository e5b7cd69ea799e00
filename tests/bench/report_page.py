"""The page: tables in Markdown, ratios first."""
from report_data import OURS, PEERS, STORES, TITLES, amount, count, number, size
from report_targets import TARGET_ENTRIES, bound_text, describe, judge, promises, targets, verdict

HEADINGS = {
    'get': ('Random gets', 'Time a get; with two threads, of one of them.'),
    'scan': ('Scans', 'Full scans: time an entry. Of 100 entries: time of all.'),
    'load': ('Loading', 'Time an entry, and the files afterwards.'),
    'change': ('Random updates and deletes', 'Time an entry, in transactions of the batch.'),
    'durable': ('Durable puts', 'Transactions of one put, acknowledged when they are on the disk: time of one alone, then rates of all writers.'),
    'open': ('Opening', 'Open and the first get; the pages are in the system\'s cache.'),
    'reader': ('A long reader', 'The file after as many overwrites as it has entries, against its size before.'),
}


def table(head, rows, left=1):
    """The first `left` columns are text, the others figures."""
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * left + '---:|' * (len(head) - left)]
    lines += ['| ' + ' | '.join(row) + ' |' for row in rows]
    return '\n'.join(lines) + '\n'


def spread(low, high):
    return '' if low is None else f'{number(low)} - {number(high)}'


def target_table(results, entries):
    rows = []
    for target in targets(entries):
        v = judge(target, results)
        ours, theirs = (amount(v.row.median(s), v.row.unit) if v.row else '' for s in (OURS, 'lmdb'))
        rows.append([v.text, number(v.figure), spread(v.low, v.high), bound_text(v.bound, v.must),
                     bound_text(v.bound, v.aim), verdict(v.met), ours, theirs])
    head = ['workload', 'LMDB : ours', 'of the rounds', 'must', 'aim', 'verdict', 'ours', 'LMDB']
    return table(head, rows)


def promise_table(results):
    rows = []
    for p in promises(results):
        where = describe(p.row) if p.row else ''
        shown = f'{p.behind} of {p.compared}' if p.compared else ''
        rows.append([p.text, number(p.figure), number(p.must), verdict(p.met) if p.must else '', shown, where])
    return table(['promise', 'ratio where worst', 'must', 'verdict', 'rows behind', 'worst at'], rows)


def question_table(results, question):
    rows = []
    for row in results:
        if row.question != question:
            continue
        ratios = [row.advantage(peer) for peer in PEERS]
        rows.append([row.workload, f'{count(row.entries)} of {row.key} + {size(row.value)}', row.state, str(row.threads)]
                    + [number(r[0]) if r else '' for r in ratios]
                    + [amount(row.median(store), row.unit) for store in STORES])
    head = ['workload', 'entries', 'file', 'threads'] + [f'{TITLES[p]} : ours' for p in PEERS] + [TITLES[s] for s in STORES]
    return table(head, rows, left=3)


def limits_table(results):
    rows = []
    for row in results:
        if row.question == 'limits':
            samples = row.stores.get('machine', [])
            rows.append([row.workload, amount(row.median('machine'), row.unit),
                         f'{amount(min(samples), row.unit)} - {amount(max(samples), row.unit)}' if samples else ''])
    return table(['limit', 'median', 'least - greatest'], rows)


def page(results, entries, plots, problems):
    """The whole text.  plots: (file, title) pairs; problems: lines."""
    parts = ['# How fast, beside LMDB, SQLite and RocksDB\n',
             'Written by `tests/bench/report`. The same workload goes through all stores in turn, a slice of time each, '
             'round after round; a figure is the median of the rounds. A ratio above 1 means that this store is better: the '
             'other one\'s time : ours, or our commits a second : theirs, or its bytes : ours. Every store is durable in the '
             'same way: a write is acknowledged when it is on the disk. Checksums are on here and in RocksDB; LMDB and '
             'SQLite have none.\n']
    if problems:
        parts.append('**Incomplete:**\n\n' + '\n'.join(f'- {p}' for p in problems) + '\n')
    text = f'{count(entries)} entries of 16 + 100 bytes unless said otherwise, fresh files.'
    if entries != TARGET_ENTRIES:
        text += f' The targets are meant for {count(TARGET_ENTRIES)}: a quick look only.'
    parts.append(f'## Against the targets\n\n{text}\n\n' + target_table(results, entries))
    parts.append('The other promises, each at its worst row of all tables below. Fresh and aged files are measured by two runs '
                 'of a program, so that what else the machine does may meet one of them only.\n\n' + promise_table(results))
    parts += [f'## {title}\n\n![{title}]({name})\n' for name, title in plots]
    order = [q for q in HEADINGS if q in results.questions()]
    order += [q for q in results.questions() if q not in HEADINGS and q != 'limits']
    for question in order:
        title, text = HEADINGS.get(question, (question, 'As the program says.'))
        parts.append(f'## {title}\n\n{text}\n\n' + question_table(results, question))
    if 'limits' in results.questions():
        parts.append('## What the machine allows\n\n' + limits_table(results))
    if results.machine:
        parts.append('## The machine\n\n' + table(['', ''], [list(pair) for pair in results.machine], left=2))
    return '\n'.join(parts)
