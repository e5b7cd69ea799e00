#!/usr/bin/env python3
"""Instructions of the calls that matter, counted by callgrind, against limits.txt.

usage: test_instructions.py COUNT_WORK             fail when a count is more than a tenth above its limit
       test_instructions.py COUNT_WORK --update    write the counts into limits.txt
       test_instructions.py COUNT_WORK --skip WHY  say so and do nothing

Seconds move with the machine, instructions do not: each kind of work runs twice, once and twice as often, and the difference is
what it takes.  A count that fell by more than a fifth asks for a lower limit, or the ground won is lost unnoticed.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

LIMITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'limits.txt')
TIMES = {'commit-one-put': 300, 'commit-followed': 200}
ABOVE, BELOW = 1.10, 0.80


def limits():
    with open(LIMITS, encoding='ascii') as f:
        rows = [row.split() for row in f if row.strip() and not row.startswith('#')]
    return {name: int(count) for name, count in rows}


def collected(program, path, kind, times):
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, 'db')
        shutil.copyfile(path, copy)
        run = subprocess.run(['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null', program, copy, kind,
                              str(times)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    found = re.search(r'Collected : (\d+)', run.stderr)
    if run.returncode or not found:
        sys.exit(f'{kind}: {run.stderr}')
    return int(found[1])


def count(program, path, kind):
    times = TIMES.get(kind, 10000)
    return round((collected(program, path, kind, 2 * times) - collected(program, path, kind, times)) / times)


def update(found):
    with open(LIMITS, encoding='ascii') as f:
        head = [row for row in f if row.startswith('#')]
    with open(LIMITS, 'w', encoding='ascii') as f:
        f.writelines(head)
        f.writelines(f'{kind} {counted}\n' for kind, counted in found.items())


def main(args):
    if args[1:2] == ['--skip']:
        print('SKIP: instructions:', ' '.join(args[2:]))
        return 0
    if not args or args[1:] not in ([], ['--update']):
        print(__doc__)
        return 2
    if shutil.which('valgrind') is None:
        print('SKIP: instructions: valgrind is not installed')
        return 0
    allowed, found, failed = limits(), {}, 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'db')
        subprocess.run([args[0], path, 'make'], check=True)
        for kind, limit in allowed.items():
            found[kind] = count(args[0], path, kind)
            verdict = 'ok'
            if found[kind] > limit * ABOVE:
                verdict = 'FAILED: more than a tenth above its limit'
                failed += 1
            elif found[kind] < limit * BELOW:
                verdict = 'far below its limit: lower that with --update'
            print(f'{kind:16} {found[kind]:8} instructions, limit {limit:8}: {verdict}', flush=True)
    if args[1:]:
        update(found)
        return 0
    print(f'{len(allowed) - failed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
