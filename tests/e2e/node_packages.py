"""Packages of npm for tests that run something under Node: got once for a build."""
import os
import shutil
import subprocess

import harness


def text(path):
    with open(path) as f:
        return f.read()


def install(source):
    """The directory of the build with what stands in `source` of this one and the packages its package.json names; or None, and why."""
    where = os.path.join(os.path.dirname(harness.binary("btsd")), "..", source)
    source = os.path.join(harness.HERE, source)
    if not shutil.which("node") or not shutil.which("npm"):
        return None, "node and npm are not there"
    os.makedirs(where, exist_ok=True)
    for name in os.listdir(source):
        shutil.copy(os.path.join(source, name), where)
    stamp, wanted = os.path.join(where, "installed"), text(os.path.join(source, "package.json"))
    if os.path.exists(stamp) and text(stamp) == wanted:
        return where, None
    try:
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=where, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return None, "npm install took more than 300 s"
    if done.returncode:
        return None, "npm install failed: " + done.stdout.strip().splitlines()[-1]
    with open(stamp, "w") as f:
        f.write(wanted)
    return where, None
