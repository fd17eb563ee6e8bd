#!/usr/bin/env python3
"""Makes pve-9.2.json and pve-8.4.json, the lab's compact copies of Proxmox VE's API schema.

Usage: compact.py FULL.json > pve-9.2.json

FULL.json holds `paths[PATH][METHOD]` with parameters, returns, permissions, protected and allowtoken as `pvesh`
describes them.
Kept are the families an image builder touches; property schemas used more than once move to `defs`, and a
property that is a number refers to them.
"""
import collections
import json
import sys

FAMILIES = (
    "/version", "/cluster", "/cluster/nextid", "/cluster/resources", "/cluster/status", "/cluster/tasks",
    "/access", "/nodes", "/nodes/{node}", "/nodes/{node}/qemu", "/nodes/{node}/storage", "/nodes/{node}/tasks",
    "/nodes/{node}/status", "/nodes/{node}/network", "/nodes/{node}/version",
    "/nodes/{node}/query-url-metadata", "/nodes/{node}/capabilities", "/nodes/{node}/time", "/pools", "/storage",
    "/cluster/options", "/access/domains", "/cluster/sdn/vnets", "/nodes/{node}/vzdump",
    "/nodes/{node}/vzdump/extractconfig",
)
EXACT = {
    "/cluster", "/nodes", "/nodes/{node}", "/access/domains", "/cluster/sdn/vnets", "/nodes/{node}/vzdump",
}
LEFT_OUT = ("firewall", "rrd", "openid", "tfa", "mtunnel", "remote_migrate", "oci-registry")


def kept(path):
    if any(word in path for word in LEFT_OUT):
        return False
    return any(path == f or (f not in EXACT and path.startswith(f + "/")) for f in FAMILIES)


def without_defaults(schema):
    if isinstance(schema, list):
        return [without_defaults(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: without_defaults(v) for k, v in schema.items() if not (k == "default" and not isinstance(v, dict))}


full = json.load(open(sys.argv[1]))
counts = collections.Counter()
routes = {}
for path, methods in sorted(full["paths"].items()):
    if not kept(path):
        continue
    for method, entry in sorted(methods.items()):
        params = entry.get("parameters", {})
        properties = {k: without_defaults(v) for k, v in params.get("properties", {}).items()}
        returns = without_defaults(entry.get("returns") or {"type": "null"})
        for schema in [*properties.values(), returns]:
            counts[json.dumps(schema, sort_keys=True)] += 1
        routes.setdefault(path, {})[method] = (properties, params.get("additionalProperties", 1), entry)

defs = [text for text, count in counts.most_common() if count > 1 and len(text) > 30]
number = {text: i for i, text in enumerate(defs)}
paths = {}
for path, methods in routes.items():
    for method, (properties, additional, entry) in methods.items():
        returns = without_defaults(entry.get("returns") or {"type": "null"})
        compact = {
            "properties": {k: number.get(json.dumps(v, sort_keys=True), v) for k, v in properties.items()},
            "returns": number.get(json.dumps(returns, sort_keys=True), returns),
        }
        if additional:
            compact["additional"] = 1
        if entry.get("allowtoken"):
            compact["token"] = 1
        if entry.get("protected"):
            compact["protected"] = 1
        if entry.get("permissions"):
            compact["permissions"] = entry["permissions"]
        paths.setdefault(path, {})[method] = compact
out = {"version": full.get("version"), "defs": [json.loads(t) for t in defs], "paths": paths}
json.dump(out, sys.stdout, separators=(",", ":"), sort_keys=True)
sys.stdout.write("\n")
