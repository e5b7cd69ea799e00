#!/usr/bin/env python3
"""Compare an NDJSON listing of a bucket (standard input) with the lines that were loaded (the file named).

Prints "N equal" and exits 0 when every key and value is there and nothing else; otherwise says the first difference, exit 1.
"""
import json
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        wanted = {r["key"]: r["value"] for r in map(json.loads, f)}
    left, last, count = dict(wanted), "", 0
    ended = False
    for line in sys.stdin.buffer:
        item = json.loads(line)
        if item.get("end"):
            ended = item["count"] == count
            continue
        key = item["key"]
        if key.encode() <= last.encode():
            sys.exit("out of order: %r after %r" % (key, last))
        if left.pop(key, None) != item["value"]:
            sys.exit("%r is not what was loaded" % key)
        last, count = key, count + 1
    if not ended:
        sys.exit("the listing did not end with its count")
    if left:
        sys.exit("%d missing, the first %r" % (len(left), min(left)))
    print("%d equal" % count)


if __name__ == "__main__":
    main()
