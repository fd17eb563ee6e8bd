#!/usr/bin/env python3
"""Makes pve-7.4.json, pve-8.4.json and pve-9.2.json: what Proxmox VE takes in a VM's configuration.

Usage: compact.py FULL.json > pve-9.2.json

FULL.json holds `paths[PATH][METHOD]` with parameters as `pvesh` describes them. Kept are the keys of a VM's configuration
with type, limits, enumeration, pattern and the parts of a property string; a schema that is used more than once moves to
`defs`, and a key that is a number refers to it. What the schema has by the name of a format only is in `formats.json`, with
words for a person, the number of a key's slots, and the release since which there is a part.
"""
import collections
import json
import pathlib
import sys

CREATE = "/nodes/{node}/qemu"
# Parameters of the call that are no configuration.
NO_CONFIG = {
    "archive", "bwlimit", "force", "ha-managed", "import-working-storage", "live-restore", "lock", "node", "pool",
    "start", "storage", "template", "unique", "vmid",
}
# What forge writes in another form than a profile has it.
NO_FORM = {"sshkeys"}
KEPT = ("type", "enum", "minimum", "maximum", "maxLength", "optional", "default_key", "alias", "pattern")
FORMATS = json.loads((pathlib.Path(__file__).parent / "formats.json").read_text())

full = json.load(open(sys.argv[1]))
major = int(full["version"].split(".")[0])
properties = full["paths"][CREATE]["POST"]["parameters"]["properties"]


def of_format(form):
    """What a format's name stands for."""
    if form == "pve-qm-ide":
        return {"parts": properties["ide[n]"]["format"]}
    if form in FORMATS["strings"]:
        return {"parts": FORMATS["strings"][form]}
    return FORMATS["values"].get(form, {})


def compact(schema, key):
    out = {name: schema[name] for name in (*KEPT, "form", "open", "items", "separators") if name in schema}
    form = schema.get("format")
    named = of_format(form) if isinstance(form, str) and key not in NO_FORM else {}
    parts = form if isinstance(form, dict) else named.get("parts")
    # A pattern of the key's own is what its format says, and closer.
    out = {**{name: named[name] for name in named if name != "parts"}, **out}
    if out.get("pattern") in FORMATS["words"]:
        out["form"] = FORMATS["words"][out["pattern"]]
    if parts is not None:
        out["parts"] = {
            name: compact(part, name) for name, part in parts.items() if part.get("since", 0) <= major
        }
    for limit in ("minimum", "maximum"):
        if limit in out:
            out[limit] = float(out[limit])
            out[limit] = int(out[limit]) if out[limit].is_integer() else out[limit]
    if "items" in out:
        items = {name: value for name, value in out["items"].items() if name != "since"}
        newer = out["items"].get("since", {})
        if "enum" in items:
            items["enum"] = [value for value in items["enum"] if newer.get(value, 0) <= major]
        out["items"] = items
    if key.endswith("[n]"):
        out["slots"] = FORMATS["slots"][key[:-3]]
    return out


keys = {key: compact(schema, key) for key, schema in properties.items() if key not in NO_CONFIG}
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
