//! What `forge doctor` looks at on this machine and on the way to the target: names, the seed server's ports, folders,
//! programs. What is beyond the target's API the target tells itself ([`forge_machine::Hypervisor::diagnose`]).

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use forge_machine::{Checkup, Diagnosis};
use tokio::net::TcpListener;

use crate::config::profile::{Profile, ProvisionerKind};
use crate::config::site::{ProxmoxTarget, SeedConfig, Target, TargetKind};
use crate::remote::resolve;

/// What a target's builds will use of it.
#[must_use]
pub fn checkup(target: &Target) -> Checkup {
    let TargetKind::Proxmox(proxmox) = &target.kind else { return Checkup::default() };
    Checkup {
        disk_storages: proxmox.disk_storage.iter().chain(&proxmox.cloud_init_storage).cloned().collect(),
        iso_storage: proxmox.iso_storage.clone(),
        archive_storage: proxmox.archive_storage.clone(),
        bridge: proxmox.bridge.clone(),
        ids: proxmox.vmids,
        pool: proxmox.pool.clone(),
    }
}

/// The host of each endpoint, and whether its name can be resolved here. Behind a proxy that is the proxy's affair.
pub async fn names(proxmox: &ProxmoxTarget) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    if proxmox.proxy.as_deref().is_some_and(|proxy| proxy != "none") {
        return found;
    }
    for host in proxmox.urls.iter().filter_map(|url| host_of(url)) {
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            continue;
        }
        found.push(match resolve(host).await {
            Ok(addresses) if !addresses.is_empty() => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                Diagnosis::pass("name", format!("{host} is {}", addresses.join(", ")))
            }
            Ok(_) => unknown(host, "it has no address", by_proxy()),
            Err(error) => unknown(host, &error.to_string(), by_proxy()),
        });
    }
    found
}

/// Whether the environment names a proxy, which resolves names itself.
fn by_proxy() -> bool {
    let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].iter().any(named)
}

fn unknown(host: &str, why: &str, by_proxy: bool) -> Diagnosis {
    let words = format!("{host} can't be resolved: {why}");
    if by_proxy {
        let help = "the proxy of HTTPS_PROXY or ALL_PROXY may know it; where NO_PROXY takes the target out, it has to be known here";
        return Diagnosis::warn("name", words, help);
    }
    let help = "correct `url` of the target, or give the name an address in DNS or /etc/hosts";
    Diagnosis::fail("name", words, help)
}

/// The host of an address like `https://host:8006/api2/json`.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    (!host.is_empty()).then_some(host)
}

/// Whether the seed server could open a port, and which address guests would be given.
pub async fn seed_server(seed: &SeedConfig) -> Diagnosis {
    let check = "seed server";
    let Ok(address) = seed.bind.parse::<IpAddr>() else {
        let help = "seed = { bind = \"0.0.0.0\" } in the target";
        return Diagnosis::fail(check, format!("`{}` is no address of this machine", seed.bind), help);
    };
    let of_interface = match seed.interface.as_deref().map(crate::stages::seed::address_of).transpose() {
        Ok(address) => address,
        Err(why) => return Diagnosis::fail(check, why, "seed = { interface = \"…\" } in the target"),
    };
    let mut last = String::new();
    for port in seed.ports.0..=seed.ports.1 {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(_free_again) => {
                let ports = match seed.ports {
                    (0, 0) => "any port: a firewall would have to let all of them through".to_owned(),
                    (low, high) => format!("ports {low} to {high}, which have to be open for the guests"),
                };
                let as_whom = match (&seed.address, of_interface) {
                    (Some(address), _) => format!("{address}, as the target says"),
                    (None, Some(address)) => {
                        format!("{address}, of {}", seed.interface.as_deref().unwrap_or_default())
                    }
                    (None, None) => "the address that leads to the target".to_owned(),
                };
                return Diagnosis::pass(check, format!("listens on {ports}; guests are told {as_whom}"));
            }
            Err(error) => last = error.to_string(),
        }
    }
    let (low, high) = seed.ports;
    let help =
        "seed = { ports = \"8800-8809\" } in the target, a range that is free and open in the firewall";
    Diagnosis::fail(check, format!("no port of {low} to {high} is free on {}: {last}", seed.bind), help)
}

/// Whether a folder, or the nearest one above it that is there, can be written to.
#[must_use]
pub fn folder(check: &str, path: &Path) -> Diagnosis {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = whole.ancestors().find(|each| each.exists()).unwrap_or(Path::new("/"));
    match tempfile::Builder::new().prefix(".forge-doctor-").tempfile_in(there) {
        Ok(_gone_again) => Diagnosis::pass(check, whole.display().to_string()),
        Err(error) => Diagnosis::fail(
            check,
            format!("{} can't be written to: {error}", there.display()),
            "name another folder, or give this user the right to write there",
        ),
    }
}

/// The programs of this machine that profiles ask for.
#[must_use]
pub fn programs(profiles: &[Profile]) -> Vec<Diagnosis> {
    let wanted = |profile: &&Profile| {
        profile.provision.iter().any(|each| matches!(each.kind, ProvisionerKind::Ansible { .. }))
    };
    let users: Vec<&str> = profiles.iter().filter(wanted).map(|profile| profile.name.as_str()).collect();
    if users.is_empty() {
        return Vec::new();
    }
    vec![match program("ansible-playbook") {
        Some(path) => Diagnosis::pass("ansible-playbook", path.display().to_string()),
        None => Diagnosis::fail(
            "ansible-playbook",
            format!("it is not installed, and {} asks for it", users.join(", ")),
            "install it (Debian: package ansible-core), or use `ansible-local`",
        ),
    }]
}

/// The first executable of that name in `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use forge_machine::Health;

    use super::*;

    #[test]
    fn the_host_of_an_endpoint_is_found() {
        for (url, host) in [
            ("https://pve1.example.org:8006", Some("pve1.example.org")),
            ("https://pve1/api2/json", Some("pve1")),
            ("https://[fe80::1]:8006", Some("[fe80::1]")),
            ("https://[fe80::1]", Some("[fe80::1]")),
            ("pve1", Some("pve1")),
            ("https://", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[tokio::test]
    async fn a_seed_server_needs_one_free_port() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let seed = SeedConfig { bind: "127.0.0.1".into(), ports: (port, port), ..SeedConfig::default() };
        let found = seed_server(&seed).await;
        assert!(found.health == Health::Fail && found.help.contains("ports"), "{found:?}");
        let free = SeedConfig { ports: (0, 0), ..seed.clone() };
        assert_eq!(seed_server(&free).await.health, Health::Pass);
        let named = SeedConfig { interface: Some("lo".into()), ..free.clone() };
        let found = seed_server(&named).await;
        assert!(found.found.contains("guests are told 127.0.0.1, of lo"), "{found:?}");
        let unknown = SeedConfig { interface: Some("nope0".into()), ..free };
        let found = seed_server(&unknown).await;
        assert!(found.health == Health::Fail && found.found.contains("`nope0`"), "{found:?}");
        let nowhere = SeedConfig { bind: "everywhere".into(), ..seed };
        assert_eq!(seed_server(&nowhere).await.health, Health::Fail);
    }

    #[test]
    fn a_folder_that_is_to_be_made_is_looked_at_where_it_would_be() {
        let root = tempfile::tempdir().expect("a folder");
        let found = folder("evidence", &root.path().join("output/deeper"));
        assert_eq!(found.health, Health::Pass);
        assert_eq!(std::fs::read_dir(root.path()).expect("readable").count(), 0, "nothing is left");
        std::fs::write(root.path().join("file"), "").expect("writable");
        let found = folder("evidence", &root.path().join("file/below"));
        assert!(found.health == Health::Fail && !found.help.is_empty(), "{found:?}");
    }
}
