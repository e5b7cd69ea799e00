"""Which programs run with which options, and running them."""
import os
import subprocess
import time
from collections import namedtuple

# `most`: seconds after which a run is stopped and called failed.
Run = namedtuple('Run', 'program options most')

BASE = {'full': 1_000_000, 'quick': 100_000}


def run(program, most, *options):
    return Run(program, [str(o) for o in options], most)


def quick():
    n, most = BASE['quick'], 300
    common = ['--rounds', 3, '--seconds', 0.05]
    base = common + ['--entries', n]
    aged = base + ['--aged', '--age', n]
    plan = [run('bench_limits', most, *common)]
    for name in ('get', 'scan', 'change'):
        plan += [run('bench_' + name, most, *base), run('bench_' + name, most, *aged)]
    plan += [run('bench_' + name, most, *base) for name in ('load', 'durable', 'open')]
    return plan + [run('bench_reader', most, '--rounds', 1, '--entries', n)]


def full():
    n, most = BASE['full'], 1800
    base = ['--entries', n]
    plan = [run('bench_limits', most)]
    # Fresh and aged are compared: right after each other.
    for name in ('get', 'scan', 'change'):
        plan += [run('bench_' + name, most, *base), run('bench_' + name, most, *base, '--aged')]
    plan += [run('bench_' + name, most, *base) for name in ('load', 'durable', 'open')]
    plan += [run('bench_' + name, most, '--entries', n // 10) for name in ('get', 'scan', 'load', 'change', 'reader')]
    # Filling so many at random takes SQLite alone five minutes.
    plan.append(run('bench_get', 2 * most, '--entries', 10 * n, '--fill', 'sorted'))
    for entries, key, value in ((n // 5, 8, 8), (n // 5, 40, 1000), (n // 200, 16, 65536)):
        shape = ['--entries', entries, '--key', key, '--value', value]
        plan += [run('bench_' + name, most, *shape) for name in ('get', 'scan', 'load')]
    return plan


def shown(one):
    return ' '.join([one.program] + one.options)


def last_words(text):
    lines = [line for line in text.replace('\r', '\n').split('\n') if line.strip()]
    return lines[-1].strip()[:300] if lines else ''


def execute(one, binaries, json, extra, log):
    """Run one program, its output to log; returns what went wrong, or None."""
    path = os.path.join(binaries, one.program)
    if not os.path.exists(path):
        return f'{one.program} is not built'
    command = [path] + one.options + extra + ['--json', json]
    with open(log, 'a+', encoding='utf-8', errors='replace') as file:
        file.write(f'$ {shown(one)}\n')
        file.flush()
        begin = file.tell()
        try:
            status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                    timeout=one.most, check=False).returncode
        except subprocess.TimeoutExpired:
            return f'`{shown(one)}` took more than {one.most} s'
        except OSError as error:
            return f'`{shown(one)}`: {error}'
        if status == 0:
            return None
        file.seek(begin)
        said = last_words(file.read())
    how = f'was killed by signal {-status}' if status < 0 else f'failed with {status}'
    return f'`{shown(one)}` {how}' + (f': {said}' if said else '')


def execute_all(plan, binaries, json, extra, log, say):
    """Run all; a failure does not stop the others.  Returns what went wrong."""
    problems = []
    start = time.monotonic()
    for number, one in enumerate(plan, 1):
        say(f'[{time.monotonic() - start:4.0f} s] {number}/{len(plan)} {shown(one)}')
        problem = execute(one, binaries, json, extra, log)
        if problem:
            say(f'         {problem}')
            problems.append(problem)
    return problems
