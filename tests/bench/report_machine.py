"""What machine this is, and which versions were measured."""
import os
import re
import subprocess


def output(*command, cwd=None):
    """What a command prints, '' when it cannot."""
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def first_match(path, pattern):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            match = re.search(pattern, file.read(), re.MULTILINE)
    except OSError:
        return ''
    return match[1].strip() if match else ''


def processor():
    model = first_match('/proc/cpuinfo', r'^model name\s*:\s*(.*)$') or os.uname().machine
    text = f'{model}, {os.cpu_count()} processors'
    caches = dict(re.findall(r'^(L\w+) cache:\s*(.*)$', output('lscpu'), re.MULTILINE))
    if caches:
        text += ', ' + ', '.join(f'{name} {value}' for name, value in caches.items())
    under = re.search(r'^Hypervisor vendor:\s*(.*)$', output('lscpu'), re.MULTILINE)
    return text + (f', under {under[1]}' if under else '')


def memory():
    kib = first_match('/proc/meminfo', r'^MemTotal:\s*(\d+)')
    return f'{int(kib) / (1 << 20):.0f} GiB' if kib else ''


def disk(directory):
    found = output('findmnt', '-no', 'SOURCE,FSTYPE,OPTIONS', '-T', directory).split(None, 2)
    if len(found) < 3:
        return ''
    source, kind, options = found
    model = output('lsblk', '-ndo', 'MODEL', source)
    return f'{kind} ({options}) on {source}' + (f', {model}' if model else '')


def load():
    one, five, _ = os.getloadavg()
    return f'{one:.2f} over one minute, {five:.2f} over five'


def compiler(build):
    cache = os.path.join(build, 'CMakeCache.txt')
    path = first_match(cache, r'^CMAKE_C_COMPILER:\w+=(.*)$')
    version = output(path, '--version').split('\n')[0] if path else ''
    kind = first_match(cache, r'^CMAKE_BUILD_TYPE:\w+=(.*)$')
    return ', '.join(part for part in (version, kind) if part)


def source(tree):
    commit = output('git', 'log', '-1', '--format=%h of %cs', cwd=tree)
    if not commit:
        return ''
    changed = output('git', 'status', '--porcelain', '--untracked-files=no', cwd=tree)
    return commit + (' and changes since' if changed else '')


def describe(tree, build, directory, stores):
    """(name, text) pairs of what is known; stores: what the programs say of themselves."""
    known = [
        ('processor', processor()),
        ('memory', memory()),
        ('disk', disk(directory)),
        ('kernel', ' '.join(os.uname()[i] for i in (0, 2))),
        ('huge pages', first_match('/sys/kernel/mm/transparent_hugepage/enabled', r'\[(\w+)\]')),
        ('compiler', compiler(build) if build else ''),
        ('this tree', source(tree)),
        ('stores', stores),
    ]
    return [(name, text) for name, text in known if text]
