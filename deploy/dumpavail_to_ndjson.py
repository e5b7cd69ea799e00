#!/usr/bin/env python3
"""Turn `apt-cache dumpavail` (standard input) into lines for POST /v1/buckets/{b}/load (standard output).

One line a package: key is its name, with "=version" appended when the name has come before; value is a JSON document of
its fields.  The number of lines goes to standard error.
"""
import json
import sys


def records(stream):
    """Each paragraph as a dict; a line that begins with a space continues the field before it."""
    fields, last = {}, None
    for line in stream:
        line = line.rstrip("\n")
        if not line:
            if fields:
                yield fields
            fields, last = {}, None
        elif line[0] in " \t":
            if last is None:
                sys.exit("dumpavail_to_ndjson: a continuation line before any field: %r" % line[:80])
            fields[last] += "\n" + line[1:]
        else:
            last, colon, value = line.partition(":")
            if not colon:
                sys.exit("dumpavail_to_ndjson: no colon in %r" % line[:80])
            fields[last] = value.strip()
    if fields:
        yield fields


def main():
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    seen = set()
    for fields in records(sys.stdin):
        key = fields.get("Package")
        if not key:
            sys.exit("dumpavail_to_ndjson: a record without Package: %r" % fields)
        if key in seen:
            key += "=" + fields.get("Version", "")
        if key in seen:
            continue
        seen.add(key)
        document = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        sys.stdout.write(json.dumps({"key": key, "value": document}, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stderr.write("%d\n" % len(seen))


if __name__ == "__main__":
    main()
