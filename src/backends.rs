//! The one file that names the concrete hypervisors.

use std::path::Path;
use std::sync::Arc;

use forge_machine::{Finding, Hypervisor, MachineSpec, PortError, SourceSpec};
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, ProxyChoice};
use forge_qemu::accel::Accelerator;
use forge_qemu::{AcceleratorChoice, QemuHypervisor, QemuTarget};

use crate::config::profile::Profile;
use crate::config::site::{ProxmoxTarget, Target, TargetKind, TlsConfig};

/// Which certificates are believed is the same question to a guest's WinRM.
pub use forge_proxmox::api::tls;
pub use forge_proxmox::permissions::{ARCHIVING, ROLE};
pub use forge_proxmox::setup;
pub use forge_proxmox::{Stranger, TlsChoice};

/// A Proxmox VE that is being made ready: its address, its certificate where it is known, and a login.
#[must_use]
pub fn bare(url: &str, fingerprint: Option<&str>, login: &str, secret: &str) -> ProxmoxConfig {
    ProxmoxConfig {
        target: "the new target".to_owned(),
        url: url.to_owned(),
        more_urls: Vec::new(),
        proxy: ProxyChoice::Environment,
        token_id: login.to_owned(),
        role: None,
        token_secret: secret.into(),
        tls: fingerprint.map_or(TlsChoice::System, |text| TlsChoice::Fingerprint(text.to_owned())),
        nodes: Vec::new(),
        disk_storage: None,
        iso_storage: None,
        bridge: None,
    }
}

/// Opens a target. Nothing is sent yet.
///
/// `secret` is the token's secret, already resolved; `state_dir` holds the local VMs.
///
/// # Errors
/// When the target's settings can't be used.
pub fn open(
    target: &Target,
    secret: Option<&str>,
    state_dir: &Path,
) -> Result<Arc<dyn Hypervisor>, PortError> {
    match &target.kind {
        TargetKind::Proxmox(proxmox) => {
            let pve = ProxmoxHypervisor::connect(settings(target, proxmox, secret))?;
            Ok(Arc::new(pve.taking_turns_in(state_dir.join("turns"))))
        }
        TargetKind::Qemu(qemu) => {
            let mut local = QemuTarget::new(target.name.clone(), state_dir.join("qemu").join(&target.name));
            local.binary.clone_from(&qemu.binary);
            local.cache = Some(state_dir.to_owned());
            local.ssh_ports = qemu.ssh_ports;
            local.bridge.clone_from(&qemu.bridge);
            local.accelerator = match qemu.accel.as_str() {
                "kvm" => AcceleratorChoice::Fixed(Accelerator::Kvm),
                "hvf" => AcceleratorChoice::Fixed(Accelerator::Hvf),
                "tcg" => AcceleratorChoice::Fixed(Accelerator::Tcg),
                _ => AcceleratorChoice::Auto,
            };
            Ok(Arc::new(QemuHypervisor::new(local)))
        }
    }
}

/// What no known release of Proxmox VE takes of a profile, without asking one.
#[must_use]
pub fn wrong_on_proxmox(profile: &Profile) -> Vec<Finding> {
    let vm = &profile.vm;
    forge_proxmox::check::anywhere(&MachineSpec {
        extra: vm.proxmox.clone(),
        cpu: vm.cpu.clone(),
        disks: vm.disks.iter().chain(&vm.state_disks).cloned().collect(),
        networks: vm.networks.clone(),
        ..MachineSpec::new(SourceSpec::New, "")
    })
}

/// What the client is told about a Proxmox VE target.
fn settings(target: &Target, proxmox: &ProxmoxTarget, secret: Option<&str>) -> ProxmoxConfig {
    ProxmoxConfig {
        target: target.name.clone(),
        url: proxmox.urls.first().cloned().unwrap_or_default(),
        more_urls: proxmox.urls.iter().skip(1).cloned().collect(),
        proxy: match proxmox.proxy.as_deref() {
            None => ProxyChoice::Environment,
            Some("none") => ProxyChoice::None,
            Some(url) => ProxyChoice::Url(url.to_owned()),
        },
        token_id: proxmox.token_id.clone(),
        role: proxmox.role.clone(),
        token_secret: secret.unwrap_or_default().into(),
        tls: match &proxmox.tls {
            TlsConfig::System => TlsChoice::System,
            TlsConfig::CaFile(file) => TlsChoice::CaFile(file.clone()),
            TlsConfig::Fingerprint(fingerprints) => TlsChoice::Fingerprints(fingerprints.clone()),
            TlsConfig::Insecure => TlsChoice::Insecure,
        },
        nodes: proxmox.nodes.clone(),
        disk_storage: proxmox.disk_storage.clone(),
        iso_storage: proxmox.iso_storage.clone(),
        bridge: proxmox.bridge.clone(),
    }
}

/// The certificates that a target's endpoints show and this machine does not know; none when one of them is trusted,
/// when none answers, and for targets without certificates. Neither login nor secret is sent. May be dropped.
pub async fn strangers(target: &Target, secret: Option<&str>) -> Vec<Stranger> {
    let TargetKind::Proxmox(proxmox) = &target.kind else { return Vec::new() };
    match ProxmoxHypervisor::connect(settings(target, proxmox, secret)) {
        Ok(pve) => pve.strangers().await,
        Err(_told_when_it_is_opened) => Vec::new(),
    }
}
