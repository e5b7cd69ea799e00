#!/usr/bin/env python3
"""The description of the API: every route and parameter of the table is in it, and nothing else; a linter finds it sound; a client made
from it can do everything, and every reply is as it says.

The linter, the client and the validator are packages of npm (openapi/package.json), got once for a build; without node, npm or
the registry these parts are skipped.
"""
import json
import os
import re
import subprocess
import sys
import unittest

import harness
import node_packages


def routes():
    """Of the API; those of the replication are in PROTOCOL.md."""
    rows = json.loads(subprocess.run([harness.binary("btsd"), "--print-routes"], stdout=subprocess.PIPE, check=True, text=True).stdout)
    return [row for row in rows if row["server"] == "api"]


def parsed(document):
    """YAML to objects, by Debian's python3-yaml, which the interpreter that runs this may not have."""
    program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin.buffer), sys.stdout)"
    for python in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run([python, "-c", program], input=document, capture_output=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
    raise AssertionError(done.stderr.decode())


def node():
    """The directory with the packages, or why there is none."""
    return node_packages.install("openapi")


class Document(unittest.TestCase):
    def setUp(self):
        with harness.Dir() as where, harness.primary(where) as p:
            reply = p.request("GET", "/v1/openapi.yaml")
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "application/yaml"))
        self.document = parsed(reply.body)

    def resolved(self, item):
        while "$ref" in item:
            at = self.document
            for part in item["$ref"][2:].split("/"):
                at = at[part]
            item = at
        return item

    def test_routes_and_parameters_are_those_of_the_table(self):
        table = {(r["method"], r["template"]): r for r in routes()}
        described = {(method.upper(), path): (item, operation) for path, item in self.document["paths"].items()
                     for method, operation in item.items() if method != "parameters"}
        self.assertEqual(sorted(table), sorted(described))
        for route, (item, operation) in described.items():
            parameters = [self.resolved(p) for p in item.get("parameters", []) + operation.get("parameters", [])]
            query = [p["name"] for p in parameters if p["in"] == "query"]
            self.assertEqual(sorted(query), sorted(table[route]["params"]), route)
            path = [p["name"] for p in parameters if p["in"] == "path"]
            self.assertEqual(path, re.findall(r"\{(\w+)\}", route[1]), route)
            scope = re.match(r"Scope: (\w+( or \w+)?)", operation["description"]).group(1)
            self.assertEqual(scope, table[route]["scope"], route)
            self.assertEqual(operation.get("security") == [], scope == "none", route)

    def test_operation_names_are_unique(self):
        names = [operation["operationId"] for item in self.document["paths"].values() for method, operation in item.items()
                 if method != "parameters"]
        self.assertEqual(len(names), len(set(names)))

    def test_linter(self):
        where, why = node()
        if not where:
            self.skipTest("SKIP: " + why)
        done = subprocess.run([os.path.join(where, "node_modules", ".bin", "redocly"), "lint", "--format=json",
                               os.path.join(harness.TREE, "httpapi", "openapi.yaml")], cwd=where, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=300, env=dict(os.environ, REDOCLY_TELEMETRY="off"))
        self.assertEqual(done.returncode, 0, done.stdout)
        problems = json.loads(done.stdout[done.stdout.index("{"):])["totals"]
        self.assertEqual((problems["errors"], problems["warnings"]), (0, 0), done.stdout)

    def test_generated_client(self):
        where, why = node()
        if not where:
            self.skipTest("SKIP: " + why)
        with harness.Dir() as place:
            tokens = place.file("tokens")
            made = subprocess.run([harness.binary("btsd"), "token", "create", "--token-file", tokens, "--name", "all", "--scope",
                                   "read,write,admin,replicate"], stdout=subprocess.PIPE, text=True, check=True).stdout
            token = re.search(r"bts_[\w-]+", made).group(0)
            with harness.primary(place, "--token-file", tokens) as p:
                done = subprocess.run(["node", "client.mjs", p.url, token], cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout)
        sys.stdout.write(done.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
