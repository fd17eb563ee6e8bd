//! Preseed: the form of each line, and the questions that the Debian installer of 12 and 13 asks.

use super::{Found, nearest};

/// The types of debconf (debconf-devel(7)).
const TYPES: [&str; 9] =
    ["string", "boolean", "select", "multiselect", "note", "text", "password", "title", "error"];

/// Questions with their types: Debian installation guide, appendix B, and its example preseed for bookworm and trixie.
const QUESTIONS: &[(&str, &str)] = &[
    ("debian-installer/locale", "string"),
    ("debian-installer/language", "string"),
    ("debian-installer/country", "string"),
    ("debian-installer/add-kernel-opts", "string"),
    ("debian-installer/allow_unauthenticated", "boolean"),
    ("debian-installer/exit/halt", "boolean"),
    ("debian-installer/exit/poweroff", "boolean"),
    ("localechooser/supported-locales", "multiselect"),
    ("keyboard-configuration/xkb-keymap", "select"),
    ("keyboard-configuration/toggle", "select"),
    ("netcfg/enable", "boolean"),
    ("netcfg/choose_interface", "select"),
    ("netcfg/link_wait_timeout", "string"),
    ("netcfg/dhcp_timeout", "string"),
    ("netcfg/dhcpv6_timeout", "string"),
    ("netcfg/disable_autoconfig", "boolean"),
    ("netcfg/dhcp_failed", "note"),
    ("netcfg/dhcp_options", "select"),
    ("netcfg/get_ipaddress", "string"),
    ("netcfg/get_netmask", "string"),
    ("netcfg/get_gateway", "string"),
    ("netcfg/get_nameservers", "string"),
    ("netcfg/confirm_static", "boolean"),
    ("netcfg/get_hostname", "string"),
    ("netcfg/get_domain", "string"),
    ("netcfg/hostname", "string"),
    ("netcfg/wireless_wep", "string"),
    ("hw-detect/load_firmware", "boolean"),
    ("hw-detect/firmware-lookup", "string"),
    ("mirror/protocol", "string"),
    ("mirror/country", "string"),
    ("mirror/http/hostname", "string"),
    ("mirror/http/directory", "string"),
    ("mirror/http/proxy", "string"),
    ("mirror/https/hostname", "string"),
    ("mirror/https/directory", "string"),
    ("mirror/https/proxy", "string"),
    ("mirror/suite", "string"),
    ("mirror/udeb/suite", "string"),
    ("passwd/root-login", "boolean"),
    ("passwd/make-user", "boolean"),
    ("passwd/root-password", "password"),
    ("passwd/root-password-again", "password"),
    ("passwd/root-password-crypted", "password"),
    ("passwd/user-fullname", "string"),
    ("passwd/username", "string"),
    ("passwd/user-password", "password"),
    ("passwd/user-password-again", "password"),
    ("passwd/user-password-crypted", "password"),
    ("passwd/user-uid", "string"),
    ("passwd/user-default-groups", "string"),
    ("user-setup/allow-password-weak", "boolean"),
    ("user-setup/encrypt-home", "boolean"),
    ("clock-setup/utc", "boolean"),
    ("time/zone", "string"),
    ("clock-setup/ntp", "boolean"),
    ("clock-setup/ntp-server", "string"),
    ("base-installer/install-recommends", "boolean"),
    ("base-installer/kernel/image", "string"),
    ("tasksel/first", "multiselect"),
    ("tasksel/desktop", "multiselect"),
    ("pkgsel/run_tasksel", "boolean"),
    ("pkgsel/include", "string"),
    ("pkgsel/upgrade", "select"),
    ("pkgsel/update-policy", "select"),
    ("popularity-contest/participate", "boolean"),
    ("grub-installer/skip", "boolean"),
    ("grub-installer/only_debian", "boolean"),
    ("grub-installer/with_other_os", "boolean"),
    ("grub-installer/bootdev", "string"),
    ("grub-installer/force-efi-extra-removable", "boolean"),
    ("finish-install/reboot_in_progress", "note"),
    ("finish-install/keep-consoles", "boolean"),
    ("cdrom-detect/eject", "boolean"),
    ("preseed/include", "string"),
    ("preseed/run", "string"),
    ("preseed/early_command", "string"),
    ("preseed/late_command", "string"),
];
/// Beginnings of names that the guide lists in families.
const FAMILIES: &[&str] = &[
    "apt-setup/",
    "partman/",
    "partman-auto/",
    "partman-auto-lvm/",
    "partman-auto-raid/",
    "partman-lvm/",
    "partman-md/",
    "partman-crypto/",
    "partman-",
    "anna/",
];
/// What must not stay unanswered, with what the installer asks else.
const NEEDED: &[(&str, &str)] = &[
    ("debian-installer/locale", "the language"),
    ("keyboard-configuration/xkb-keymap", "the keyboard"),
    ("netcfg/get_hostname", "the host name"),
    ("mirror/http/proxy", "the proxy"),
    ("time/zone", "the time zone"),
    ("partman-auto/method", "how to divide the disk"),
    ("partman/confirm", "whether to write the partitions"),
    ("tasksel/first", "which software to install"),
    ("grub-installer/bootdev", "where the boot loader goes"),
];

pub(super) fn lint(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut continued = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let continues = line.ends_with('\\');
        let is_rest = std::mem::replace(&mut continued, continues);
        if is_rest || line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(_owner), Some(key), Some(kind)) = (words.next(), words.next(), words.next()) else {
            found.push(Found::new(
                number,
                "a line has an owner, a question, a type and a value",
                "see B.3 of the guide",
            ));
            continue;
        };
        if kind == "seen" {
            continue;
        }
        if !TYPES.contains(&kind) {
            found.push(Found::new(number, format!("`{kind}` is no type of debconf"), nearest(kind, &TYPES)));
            continue;
        }
        let value = line.split_once(kind).map_or("", |(_, rest)| rest.trim());
        if kind == "boolean" && !matches!(value, "true" | "false") {
            found.push(Found::new(number, format!("`{key}` is true or false, not `{value}`"), ""));
        }
        match QUESTIONS.iter().find(|(name, _)| *name == key) {
            Some((_, right)) if *right != kind && kind != "text" => {
                found.push(Found::new(number, format!("`{key}` is a {right}, not a {kind}"), ""));
            }
            Some(_) => {}
            None if FAMILIES.iter().any(|family| key.starts_with(family)) => {}
            // Another package's own question.
            None if !line.starts_with("d-i") => {}
            None => {
                let names: Vec<&str> = QUESTIONS.iter().map(|(name, _)| *name).collect();
                let message = format!("the installer asks no question `{key}`");
                found.push(Found::new(number, message, nearest(key, &names)));
            }
        }
        seen.push(key);
    }
    let last = text.lines().count().max(1);
    // Over https it is that question, and without a mirror none.
    let mirrored = ["mirror/https/proxy", "apt-setup/use_mirror"].iter().any(|key| seen.contains(key));
    for (key, what) in NEEDED.iter().copied() {
        let other = mirrored && key == "mirror/http/proxy";
        if !other && !seen.contains(&key) {
            found.push(Found::new(
                last,
                format!("`{key}` is not answered: the installer would ask {what}"),
                "",
            ));
        }
    }
    found
}
