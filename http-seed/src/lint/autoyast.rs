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
        if typed == Some("boolean") && !matches!(element.text.trim(), "true" | "false") {
            let message = format!("<{}> is true or false, not `{}`", element.name, element.text.trim());
            found.push(Found::new(element.line, message, ""));
        }
    }
    found
}
