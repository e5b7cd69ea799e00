"""The plots: tables of figures for gnuplot, whose side of it lies in plots/."""
import math
import os
import subprocess
import tempfile

from report_data import OURS, STORES, TITLES, Row, count, number
from report_targets import aged_pairs, judge, slowdown, targets

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'plots')
COLOURS = {OURS: '#0b4f8a', 'lmdb': '#e08214', 'sqlite': '#8c9aa5', 'rocksdb': '#3aa17e'}
MISSED = '#c0392b'
WIDTH = 900


def cell(value):
    return 'NaN' if value is None else str(value)


def quoted(value):
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def gnuplot(template, output, rows, given):
    """Run plots/<template>.gp on rows; returns what went wrong, or None."""
    with tempfile.TemporaryDirectory() as scratch:
        data = os.path.join(scratch, 'data')
        with open(data, 'w', encoding='utf-8') as file:
            for row in rows:
                file.write('\t'.join(cell(value) for value in row) + '\n')
        given = {'width': WIDTH, **given, 'output': output, 'data': data, 'style': os.path.join(HERE, 'style.gp')}
        script = '; '.join(f'{name} = {quoted(value)}' for name, value in given.items())
        command = ['gnuplot', '-e', script, os.path.join(HERE, template + '.gp')]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            return 'gnuplot is not installed'
        except subprocess.TimeoutExpired:
            return 'gnuplot took more than a minute'
    if done.returncode or done.stderr.strip():
        return f'gnuplot: {done.stderr.strip()[-300:]}'
    return None


def present(rows):
    """The stores that have a figure in any of the rows."""
    return [store for store in STORES if any(row and store in row.stores for row in rows)]


def store_words(stores):
    return {'stores': ' '.join(TITLES[s] for s in stores), 'colours': ' '.join(COLOURS[s] for s in stores)}


def round_up(value):
    """The next 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    scale = 10 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * scale >= value * 0.9999)


def ratios(results, entries, output):
    rows, least, greatest = [], 0.5, 8
    for target in targets(entries):
        v = judge(target, results)
        if v.met is None:
            continue
        flip = (lambda x: 1 / x) if v.bound == 'most' else (lambda x: x)
        figure, must, aim = flip(v.figure), flip(v.must), flip(v.aim)
        least, greatest = min(least, figure / 1.2), max(greatest, figure, aim)
        name = v.text.replace(' (ours : LMDB)', '')
        rows.append((len(rows) + 1, figure, must, aim, int(v.met), name, number(figure)))
    if not rows:
        return None
    return gnuplot('ratios', output, rows, {
        'plot_title': f'Against LMDB: {count(entries)} entries of 16 + 100 bytes unless said otherwise',
        'height': 160 + 28 * len(rows), 'rows': len(rows), 'left': least, 'right': greatest * (greatest / least) ** 0.14,
        'colours': f'{COLOURS[OURS]} {MISSED} {COLOURS["lmdb"]}'})


def log_axis(least, greatest):
    """A logarithmic axis around two values: its marks as "set tics" takes them, and its ends."""
    steps = (1, 2, 5) if greatest / least < 200 else (1,)
    powers = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(greatest)) + 1)
    values = [step * 10.0 ** power for power in powers for step in steps]
    bottom = max(v for v in values if v <= least)
    top = min(v for v in values + [10 * values[-1]] if v >= greatest)
    marks = ', '.join(f'"{v:,.10g}" {v:.10g}' for v in values)
    return f'({marks})', 0.999 * bottom, 1.001 * top


def lines(output, rows_at, figure, given):
    """rows_at: (x, row) pairs; figure(row, store): what is drawn."""
    stores = present([row for _, row in rows_at])
    if not stores or len(rows_at) < 2:
        return None
    figures = [figure(row, s) for _, row in rows_at for s in stores if figure(row, s)]
    xs = [x for x, _ in rows_at]
    y_tics, bottom, top = log_axis(min(figures), max(figures))
    margin = (max(xs) / min(xs)) ** 0.05
    return gnuplot('lines', output, [(x, *(figure(row, s) for s in stores)) for x, row in rows_at], {
        'height': 430, 'left': min(xs) / margin, 'right': max(xs) * margin,
        'y_tics': y_tics, 'bottom': bottom, 'top': top, **store_words(stores), **given})


def get_sizes(results, entries, output):
    found = [results.find('get', 'random get, one transaction', n) for n in (100_000, 1_000_000, 10_000_000)]
    rows_at = [(row.entries, row) for row in found if row]
    return lines(output, rows_at, Row.median, {
        'plot_title': 'Random get, one transaction', 'x_name': 'entries of 16 + 100 bytes in the store',
        'y_name': 'microseconds a get (less is better)',
        'x_tics': '(' + ', '.join(f'"{count(x)}" {x}' for x, _ in rows_at) + ')'})


def durable(results, entries, output):
    found = [results.find('durable', 'single durable put', entries)]
    found += [results.find('durable', 'concurrent durable writers', entries, threads=n) for n in (2, 4, 8, 16, 32, 64)]
    rows_at = [(row.threads, row) for row in found if row]
    return lines(output, rows_at, Row.rate, {
        'plot_title': 'Durable commits by number of writers', 'x_name': 'writers (threads) at the same time',
        'y_name': 'commits a second (more is better)',
        'x_tics': '(' + ', '.join(f'"{x}" {x}' for x, _ in rows_at) + ')'})


def bars(output, groups, given, text=number):
    """groups: (name, {store: figure}) pairs; text: what stands over a bar."""
    stores = [s for s in STORES if any(figures.get(s) for _, figures in groups)]
    if not stores:
        return None
    rows = []
    for name, figures in groups:
        values = [figures.get(s) for s in stores]
        rows.append((name, *values, *('' if v is None else text(v) for v in values)))
    greatest = max(v for _, figures in groups for v in figures.values() if v)
    return gnuplot('bars', output, rows, {
        'height': 430, 'groups': len(groups), 'top': round_up(1.06 * greatest), 'mark': 0, 'mark_name': '',
        **store_words(stores), **given})


def medians(row, scale=1):
    return {store: row.median(store) * scale for store in STORES if store in row.stores}


def random_writes(results, entries, output):
    wanted = [('load', 'random load'), ('change', 'random update'), ('change', 'random delete')]
    found = [(name, results.find(question, f'{name}, batches of 1000', entries)) for question, name in wanted]
    return bars(output, [(name, medians(row)) for name, row in found if row], {
        'plot_title': f'Random writes in transactions of 1000, {count(entries)} entries of 16 + 100 bytes',
        'y_name': 'microseconds an entry (less is better)'})


def file_size(results, entries, output):
    groups = []
    for workload, name in (('file size after sorted load', 'sorted load'), ('file size after random load', 'random load')):
        row = results.find('load', workload, entries)
        if row:
            groups.append((name, medians(row, 1e-6)))
    raw = entries * 116 / 1e6
    return bars(output, groups, {
        'plot_title': f'File size, {count(entries)} entries of 16 + 100 bytes', 'y_name': 'MB (less is better)',
        'mark': raw, 'mark_name': f'keys and values alone: {number(raw)} MB'})


AGED = [('get', 'random get, one transaction', 'random get'), ('scan', 'full scan forward', 'full scan'),
        ('scan', '100 entries from a random key forward', '100-entry scan'), ('change', 'random update, batches of 1000', 'random update'),
        ('change', 'random delete, batches of 1000', 'random delete')]


def aged(results, entries, output):
    pairs = {(f.question, f.workload): (f, a) for f, a in aged_pairs(results)
             if f.entries == entries and (f.key, f.value, f.threads) == (16, 100, 1)}
    groups = []
    for question, workload, name in AGED:
        if (question, workload) in pairs:
            fresh, old = pairs[question, workload]
            groups.append((name, {s: slowdown(fresh, old, s) for s in STORES}))
    return bars(output, groups, {
        'plot_title': 'Files aged by random updates against fresh ones', 'y_name': 'times slower than fresh',
        'mark': 1.3, 'mark_name': 'ours at most 1.3'}, text='{:.2f}'.format)


PLOTS = [
    ('ratios.svg', 'Against LMDB', ratios),
    ('get.svg', 'Random get by size of the store', get_sizes),
    ('durable.svg', 'Durable commits by number of writers', durable),
    ('writes.svg', 'Random writes', random_writes),
    ('size.svg', 'File size', file_size),
    ('aged.svg', 'Fresh and aged files', aged),
]


def draw(results, entries, directory):
    """Draw what there are figures for.  Returns (file, title) of what was drawn, and what went wrong."""
    drawn, problems = [], []
    for name, title, plot in PLOTS:
        path = os.path.join(directory, name)
        if os.path.exists(path):
            os.unlink(path)
        problem = plot(results, entries, path)
        if problem:
            problems.append(f'{name}: {problem}')
        elif os.path.exists(path):
            drawn.append((name, title))
    return drawn, problems
