//! Proxmox's cloud-init drive: NoCloud, label `cidata`, four files, written again at every start.
//!
//! The texts are those of a real server's `cloudinit/dump`; one difference: a password stays as it was given,
//! where Proxmox stores its hash (cloud-init takes both).

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use sha1::{Digest, Sha1};
use tokio::process::Command;

use crate::state::{Config, parse_net};

/// The files of the drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudInit {
    /// `user-data`.
    pub user: String,
    /// `network-config`.
    pub network: String,
    /// `meta-data`.
    pub meta: String,
    /// `vendor-data`.
    pub vendor: String,
}

/// Bytes of the drive.
const DRIVE_SIZE: u64 = 4 << 20;

impl CloudInit {
    /// The files for a configuration.
    pub fn of(config: &Config, name: &str) -> CloudInit {
        let user = user_data(config, name);
        let network = network_config(config);
        let mut hash = Sha1::new();
        hash.update(user.as_bytes());
        hash.update(network.as_bytes());
        let meta = format!("instance-id: {}\n", crate::ids::hex(&hash.finalize()));
        CloudInit { user, network, meta, vendor: String::new() }
    }
}

fn user_data(config: &Config, name: &str) -> String {
    let get = |key: &str| config.get(key).map(String::as_str);
    let fqdn = match get("searchdomain") {
        Some(domain) => format!("{name}.{domain}"),
        None => name.to_owned(),
    };
    let mut text = format!("#cloud-config\nhostname: {name}\nmanage_etc_hosts: true\nfqdn: {fqdn}\n");
    if let Some(user) = get("ciuser") {
        text.push_str(&format!("user: {user}\n"));
    }
    if let Some(password) = get("cipassword") {
        text.push_str(&format!("password: {password}\n"));
    }
    if let Some(keys) = get("sshkeys") {
        text.push_str("ssh_authorized_keys:\n");
        let decoded = percent_encoding::percent_decode_str(keys).decode_utf8_lossy();
        for key in decoded.lines().map(str::trim).filter(|line| !line.is_empty()) {
            text.push_str(&format!("  - {key}\n"));
        }
    }
    text.push_str("chpasswd:\n  expire: False\nusers:\n  - default\n");
    let upgrade = get("ciupgrade") != Some("0");
    text.push_str(&format!("package_upgrade: {upgrade}\n"));
    text
}

fn network_config(config: &Config) -> String {
    let mut text = "version: 1\nconfig:\n".to_owned();
    for (key, value) in config {
        let Some(number) = key.strip_prefix("net").and_then(|rest| rest.parse::<u32>().ok()) else {
            continue;
        };
        let (_, mac, _) = parse_net(value);
        let mac = mac.unwrap_or_default().to_lowercase();
        text.push_str(&format!(
            "    - type: physical\n      name: eth{number}\n      mac_address: '{mac}'\n      subnets:\n"
        ));
        let ip = config.get(&format!("ipconfig{number}")).map_or("ip=dhcp", String::as_str);
        text.push_str(&subnets(ip));
    }
    if let Some(servers) = config.get("nameserver") {
        text.push_str("    - type: nameserver\n      address:\n");
        servers.split_whitespace().for_each(|server| text.push_str(&format!("      - '{server}'\n")));
        if let Some(domains) = config.get("searchdomain") {
            text.push_str("      search:\n");
            domains.split_whitespace().for_each(|domain| text.push_str(&format!("      - '{domain}'\n")));
        }
    }
    text
}

fn subnets(value: &str) -> String {
    let parsed = crate::schema::parse_property_string("ipconfig0", value).unwrap_or_default();
    let mut text = String::new();
    match parsed.get("ip").map(String::as_str) {
        Some("dhcp") => text.push_str("      - type: dhcp4\n"),
        Some(address) => {
            let (ip, prefix) = address.split_once('/').unwrap_or((address, "32"));
            let mask = netmask(prefix.parse().unwrap_or(32));
            text.push_str(&format!(
                "      - type: static\n        address: '{ip}'\n        netmask: '{mask}'\n"
            ));
            if let Some(gateway) = parsed.get("gw") {
                text.push_str(&format!("        gateway: '{gateway}'\n"));
            }
        }
        None => {}
    }
    match parsed.get("ip6").map(String::as_str) {
        Some("dhcp") => text.push_str("      - type: dhcp6\n"),
        Some("auto") => text.push_str("      - type: ipv6_slaac\n"),
        Some(address) => {
            text.push_str(&format!("      - type: static6\n        address: '{address}'\n"));
            if let Some(gateway) = parsed.get("gw6") {
                text.push_str(&format!("        gateway: '{gateway}'\n"));
            }
        }
        None => {}
    }
    text
}

fn netmask(prefix: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0))
}

/// Writes the drive as a qcow2 image at `target`, with scratch files in `folder`.
///
/// # Errors
/// The text of what failed.
pub async fn write_drive(files: &CloudInit, folder: &Path, target: &Path) -> Result<(), String> {
    let tree = folder.join("cloudinit");
    let fail = |error: std::io::Error| format!("can't write the cloud-init files: {error}");
    std::fs::create_dir_all(&tree).map_err(fail)?;
    let named = [
        ("user-data", &files.user),
        ("network-config", &files.network),
        ("meta-data", &files.meta),
        ("vendor-data", &files.vendor),
    ];
    for (name, text) in named {
        std::fs::write(tree.join(name), text).map_err(fail)?;
    }
    let raw = folder.join("cloudinit.iso");
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-iso-level", "3", "-J", "-R", "-V", "cidata", "-o"]).arg(&raw).arg(&tree);
    run(command, "genisoimage").await?;
    let image = std::fs::File::options().write(true).open(&raw).map_err(fail)?;
    if image.metadata().map_err(fail)?.len() < DRIVE_SIZE {
        image.set_len(DRIVE_SIZE).map_err(fail)?;
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(target);
    run(command, "qemu-img").await
}

async fn run(mut command: Command, name: &str) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("can't run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_of_a_real_server() {
        let config = Config::from(
            [
                ("net0", "virtio=BC:24:11:BC:90:80,bridge=vmbr0,firewall=0"),
                ("ciuser", "forge"),
                ("sshkeys", "ssh-ed25519%20AAAA%2FB%20root%40vm%0A"),
                ("ipconfig0", "ip=dhcp"),
                ("nameserver", "1.1.1.1"),
                ("searchdomain", "x.y"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let files = CloudInit::of(&config, "forge-build");
        assert_eq!(
            files.user,
            "#cloud-config\nhostname: forge-build\nmanage_etc_hosts: true\nfqdn: forge-build.x.y\nuser: forge\nssh_authorized_keys:\n  - ssh-ed25519 AAAA/B root@vm\nchpasswd:\n  expire: False\nusers:\n  - default\npackage_upgrade: true\n"
        );
        assert_eq!(
            files.network,
            "version: 1\nconfig:\n    - type: physical\n      name: eth0\n      mac_address: 'bc:24:11:bc:90:80'\n      subnets:\n      - type: dhcp4\n    - type: nameserver\n      address:\n      - '1.1.1.1'\n      search:\n      - 'x.y'\n"
        );
        assert_eq!(netmask(24).to_string(), "255.255.255.0");
    }
}
