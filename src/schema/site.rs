//! The keys of the site file.

use serde_json::{Value, json};

use super::{Form, Keys, table};

pub(super) const ROOT: Keys = &[
    ("default-target", Form::Text, "the target that is taken when none is named"),
    ("targets", Form::Map(&Form::Target), "where to build, by name"),
];

const SECRET: Form = Form::Table(&[
    ("env", Form::Text, "a variable of the environment that holds it"),
    ("file", Form::Text, "a file that holds it"),
    ("command", Form::Texts, "a command that prints it"),
]);

const TLS: Form = Form::Table(&[
    (
        "fingerprint",
        Form::Either(&[Form::Text, Form::Texts]),
        "the SHA-256 of the node's certificate; one for each node",
    ),
    ("ca-file", Form::Text, "a PEM file with the authorities that vouch for it"),
    ("insecure", Form::Flag, "take any certificate: whoever is on the way can read the token"),
]);

const STORAGE: Form = Form::Table(&[
    ("disks", Form::Text, "for disks"),
    ("isos", Form::Text, "for install media and seed discs"),
    ("cloud-init", Form::Text, "for cloud-init drives; else that of the disks"),
    (
        "archives",
        Form::Text,
        "for the templates that `forge prune --archive` removes: one that takes backups",
    ),
]);

const RANGE: Form = Form::Either(&[Form::Text, Form::Integer(0, 999_999_999)]);

const SEED: Form = Form::Table(&[
    ("bind", Form::Text, "the address that the seed server listens on"),
    ("address", Form::Text, "the address that guests are given; `auto` is the one that leads to the target"),
    ("interface", Form::Text, "the network interface of this machine whose address guests are given"),
    ("ports", RANGE, "the ports that it may use, such as \"8800-8809\""),
    ("allowed-networks", Form::Texts, "the only networks that it answers"),
]);

/// The keys of a target of either kind, `type` with what it must be.
pub(super) const PROXMOX: Keys = &[
    ("type", Form::Word(&["proxmox"]), "a Proxmox VE cluster"),
    (
        "url",
        Form::Either(&[Form::Text, Form::Texts]),
        "https://HOST:8006, or several endpoints of one cluster",
    ),
    ("proxy", Form::Text, "the proxy on the way: http://HOST:PORT, or none"),
    ("token-id", Form::Text, "user@realm!token"),
    ("token-secret", SECRET, "where the token's secret is read from"),
    ("user", Form::Text, "user@realm, in place of a token"),
    ("password", SECRET, "where its password is read from"),
    ("tls", TLS, "which certificates are accepted; without it, those that this machine's roots vouch for"),
    ("nodes", Form::Either(&[Form::Word(&["auto"]), Form::Texts]), "the nodes that builds may use"),
    ("storage", STORAGE, "the storages that builds use"),
    ("bridge", Form::Text, "the bridge for network adapters"),
    ("vmids", RANGE, "the ids that build VMs and templates may have, such as \"9001-9099\""),
    ("pool", Form::Text, "the resource pool that build VMs go into"),
    ("role", Form::Text, "the token's role, for the commands that grant what lacks; without it, ForgeBuild"),
    ("seed", SEED, "how guests reach the seed server"),
];

/// Those of the local QEMU.
pub(super) const QEMU: Keys = &[
    ("type", Form::Word(&["qemu"]), "the local QEMU"),
    ("accel", Form::Word(&["auto", "kvm", "hvf", "tcg"]), "the accelerator; `auto` tries KVM, on macOS HVF"),
    ("binary", Form::Text, "the QEMU program"),
    ("images", Form::Text, "the folder that images are written to"),
    ("ssh-ports", RANGE, "the ports of this machine that may lead to guests"),
    ("bridge", Form::Text, "the bridge of this machine that guests are on; without it, QEMU's user network"),
    ("seed", SEED, "how guests reach the seed server"),
];

/// A target: which keys it takes depends on its type.
pub(super) fn target() -> Value {
    json!({ "type": "object", "required": ["type"], "oneOf": [table(PROXMOX), table(QEMU)] })
}
