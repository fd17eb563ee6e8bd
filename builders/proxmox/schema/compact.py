#!/usr/bin/env python3
"""Makes pve-7.4.json, pve-8.4.json and pve-9.2.json: what Proxmox VE takes in a VM's configuration.

Usage: compact.py FULL.json > pve-9.2.json

FULL.json holds `paths[PATH][METHOD]` with parameters as `pvesh` describes them. Kept are the keys of a VM's configuration
with type, limits, enumeration and the parts of a property string; a schema that is used more than once moves to `defs`,
and a key that is a number refers to it. Patterns are left out: the server has the last word on the form of a value.
"""
import collections
import json
import sys

CREATE = "/nodes/{node}/qemu"
# Parameters of the call that are no configuration.
NO_CONFIG = {
    "archive", "bwlimit", "force", "ha-managed", "import-working-storage", "live-restore", "lock", "node", "pool",
    "start", "storage", "template", "unique", "vmid",
}
KEPT = ("type", "enum", "minimum", "maximum", "maxLength", "optional", "default_key", "alias")
# Property strings that the schema only names (facts of qemu-server).
TEXT = {"type": "string", "optional": 1}
NAMED = {
    "pve-qm-rng": {
        "source": {"type": "string", "default_key": 1, "enum": ["/dev/urandom", "/dev/random", "/dev/hwrng"]},
        "max_bytes": {"type": "integer", "optional": 1},
        "period": {"type": "integer", "optional": 1},
    },
    "pve-qm-ipconfig": {"ip": TEXT, "gw": TEXT, "ip6": TEXT, "gw6": TEXT},
    "pve-qm-cicustom": {"meta": TEXT, "network": TEXT, "user": TEXT, "vendor": TEXT},
    "pve-qm-watchdog": {
        "model": {"type": "string", "default_key": 1, "optional": 1, "enum": ["i6300esb", "ib700"]},
        "action": {
            "type": "string", "optional": 1,
            "enum": ["reset", "shutdown", "poweroff", "pause", "debug", "none"],
        },
    },
}


def compact(schema):
    out = {key: schema[key] for key in KEPT if key in schema}
    form = schema.get("format")
    form = NAMED.get(form) if isinstance(form, str) else form
    if isinstance(form, dict):
        out["parts"] = {key: compact(part) for key, part in form.items()}
    for limit in ("minimum", "maximum"):
        if limit in out:
            out[limit] = float(out[limit])
            out[limit] = int(out[limit]) if out[limit].is_integer() else out[limit]
    return out


full = json.load(open(sys.argv[1]))
properties = full["paths"][CREATE]["POST"]["parameters"]["properties"]
keys = {key: compact(schema) for key, schema in properties.items() if key not in NO_CONFIG}
counts = collections.Counter()
for schema in keys.values():
    for part in schema.get("parts", {}).values():
        counts[json.dumps(part, sort_keys=True)] += 1
defs = [text for text, count in counts.most_common() if count > 1 and len(text) > 30]
number = {text: i for i, text in enumerate(defs)}
for schema in keys.values():
    if "parts" in schema:
        schema["parts"] = {k: number.get(json.dumps(v, sort_keys=True), v) for k, v in schema["parts"].items()}
out = {"release": full["version"], "defs": [json.loads(text) for text in defs], "keys": keys}
json.dump(out, sys.stdout, separators=(",", ":"), sort_keys=True)
sys.stdout.write("\n")
