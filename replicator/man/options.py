#!/usr/bin/env python3
"""The options of a program, as its --help tells them, put into a manual page.

usage: options.py PROGRAM TEMPLATE >PAGE.scd

The line @OPTIONS@ of TEMPLATE (scdoc) becomes a paragraph an option, under the headings of --help.
"""
import re
import subprocess
import sys


def escape(text):
    return re.sub(r"([\\*_`])", r"\\\1", text)


def options(text):
    """(heading or None, option and argument, help) in order."""
    found, heading = [], None
    for line in text.split("\n"):
        option = re.match(r"  (--[a-z-]+(?: \S+)*?)(?:\s{2,}(.*))?$", line)
        if re.match(r"[A-Z][^.]*:$", line):
            heading = line[:-1]
        elif option:
            found.append([heading, option[1], option[2] or ""])
            heading = None
        elif found and line.startswith(" " * 20):
            found[-1][2] = (found[-1][2] + " " + line.strip()).strip()
    return found


def main():
    program, template = sys.argv[1:]
    told = subprocess.run([program, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    out = []
    for heading, option, text in options(told):
        if heading:
            out.append("## %s\n" % heading.upper())
        name, _, arg = option.partition(" ")
        out.append("*%s*%s\n\t%s\n" % (name, " _%s_" % arg.replace("_", "\\_") if arg else "", escape(text[:1].upper() + text[1:])))
    with open(template, encoding="utf-8") as f:
        sys.stdout.write(f.read().replace("@OPTIONS@\n", "\n".join(out)))


if __name__ == "__main__":
    main()
