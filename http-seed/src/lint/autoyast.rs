//! AutoYaST's control file: well-formed, in its namespaces, with sections that AutoYaST has.

use super::xml::parse;
use super::{Found, nearest};

/// The namespaces of `profile` ("AutoYaST Guide", 2).
const NAMESPACES: [(&str, &str); 2] =
    [("xmlns", "http://www.suse.com/1.0/yast2ns"), ("xmlns:config", "http://www.suse.com/1.0/configns")];
/// The sections of the "AutoYaST Guide", 4.
const SECTIONS: &[&str] = &[
    "general",
    "report",
    "suse_register",
    "bootloader",
    "partitioning",
    "partitioning_advanced",
    "iscsi-client",
    "fcoe-client",
    "country",
    "language",
    "timezone",
    "keyboard",
    "software",
    "add-on",
    "deploy_image",
    "upgrade",
    "services-manager",
    "networking",
    "proxy",
    "nis",
    "nis_server",
    "ldap",
    "ldap-server",
    "auth-client",
    "nfs",
    "nfs_server",
    "samba-client",
    "samba-server",
    "samba-domain",
    "host",
    "http-server",
    "squid",
    "ftp-server",
    "tftp-server",
    "firstboot",
    "security",
    "audit-laf",
    "users",
    "user_defaults",
    "groups",
    "login_settings",
    "scripts",
    "files",
    "sound",
    "printer",
    "firewall",
    "ntp-client",
    "kdump",
];
/// Sections that came and went with other releases.
const OTHER: &[&str] =
    &["dns-server", "dhcp-server", "mail", "configuration_management", "sysconfig", "ssh_import"];
/// What stands within a section or a drive: `general.rnc` and `partitioning.rnc` of YaST's own schema, by which the installer
/// checks the file, and asks somebody when it does not fit.
const WITHIN: [(&str, &[&str]); 3] = [
    (
        "general",
        &[
            "mode",
            "ask-list",
            "semi-automatic",
            "minimal-configuration",
            "signature-handling",
            "self_update",
            "self_update_url",
            "proposals",
            "storage",
            "wait",
            "cio_ignore",
        ],
    ),
    (
        "mode",
        &[
            "activate_systemd_default_target",
            "confirm",
            "confirm_base_product_license",
            "final_halt",
            "final_reboot",
            "final_restart_services",
            "forceboot",
            "halt",
            "max_systemd_wait",
            "ntp_sync_time_before_installation",
            "second_stage",
        ],
    ),
    (
        "drive",
        &[
            "device",
            "initialize",
            "is_lvm_vg",
            "lvm2",
            "keep_unknown_lv",
            "pesize",
            "type",
            "use",
            "imsmdriver",
            "disklabel",
            "enable_snapshots",
            "skip_list",
            "partitions",
            "raid_options",
            "bcache_options",
            "btrfs_options",
        ],
    ),
];
/// The types of a drive (guide, 4.5, "drive section").
const DRIVES: &[&str] = &[
    "CT_DISK",
    "CT_LVM",
    "CT_MD",
    "CT_RAID",
    "CT_BCACHE",
    "CT_BTRFS",
    "CT_NFS",
    "CT_DMMULTIPATH",
    "CT_TMPFS",
];
/// The types of an element's content (`common.rnc` of YaST's own schema).
const TYPES: &[&str] = &["boolean", "integer", "string", "symbol", "list", "map"];
/// The values of `loader_type` (yast-bootloader, `BootloaderFactory`).
const LOADERS: &[&str] = &["default", "none", "grub2", "grub2-efi", "grub2-bls", "systemd-boot"];
/// Elements whose content must carry a type, or AutoYaST reads a list as one word (guide, 2.3).
const LISTS: &[&str] = &[
    "packages",
    "patterns",
    "products",
    "users",
    "interfaces",
    "add_on_products",
    "ntp_servers",
    "nameservers",
    "routes",
    "chroot-scripts",
    "authorized_keys",
    "partitioning",
    "partitions",
];

pub(super) fn lint(text: &str) -> Vec<Found> {
    let root = match parse(text) {
        Ok(root) => root,
        Err(found) => return vec![found],
    };
    let mut found = Vec::new();
    if root.name != "profile" {
        found.push(Found::new(root.line, format!("the document is <{}>, not <profile>", root.name), ""));
    }
    for (name, value) in NAMESPACES.iter().copied() {
        if root.attribute(name) != Some(value) {
            let message = format!("<profile> lacks {name}=\"{value}\"");
            found.push(Found::new(root.line, message, "AutoYaST reads nothing outside of its namespaces"));
        }
    }
    for section in &root.children {
        let name = section.name.as_str();
        if !SECTIONS.contains(&name) && !OTHER.contains(&name) {
            let message = format!("AutoYaST has no section <{name}>");
            found.push(Found::new(section.line, message, nearest(name, SECTIONS)));
        }
    }
    for element in root.all() {
        let typed = element.attribute("config:type").or_else(|| element.attribute("t"));
        if LISTS.contains(&element.name.as_str()) && typed != Some("list") {
            let message = format!("<{}> is a list and does not say so", element.name);
            found.push(Found::new(element.line, message, "write config:type=\"list\""));
        }
        if let Some((_, known)) = WITHIN.iter().find(|(name, _)| *name == element.name) {
            for child in element.children.iter().filter(|child| !known.contains(&child.name.as_str())) {
                let message = format!("there is no <{}> within <{}>", child.name, element.name);
                let section = SECTIONS.contains(&child.name.as_str());
                let help =
                    if section { "it is a section of its own".into() } else { nearest(&child.name, known) };
                found.push(Found::new(child.line, message, help));
            }
        }
        if element.name == "drive"
            && let Some(kind) = element.child("type")
            && !DRIVES.contains(&kind.text.trim())
        {
            let message = format!("`{}` is no type of a drive", kind.text.trim());
            found.push(Found::new(kind.line, message, nearest(kind.text.trim(), DRIVES)));
        }
        if let Some(given) = typed.filter(|given| !TYPES.contains(given)) {
            let message =
                format!("<{}> has the type `{given}`, and there are {}", element.name, TYPES.join(", "));
            found.push(Found::new(element.line, message, nearest(given, TYPES)));
        }
        if element.name == "loader_type" && !LOADERS.contains(&element.text.trim()) {
            let message = format!("`{}` is no loader ({})", element.text.trim(), LOADERS.join(", "));
            found.push(Found::new(element.line, message, nearest(element.text.trim(), LOADERS)));
        }
        if typed == Some("integer") && element.text.trim().parse::<i64>().is_err() {
            let message = format!("<{}> is a number, not `{}`", element.name, element.text.trim());
            found.push(Found::new(element.line, message, ""));
        }
        if typed == Some("boolean") && !matches!(element.text.trim(), "true" | "false") {
            let message = format!("<{}> is true or false, not `{}`", element.name, element.text.trim());
            found.push(Found::new(element.line, message, ""));
        }
    }
    found
}
