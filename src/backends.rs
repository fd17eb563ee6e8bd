//! The one file that names the concrete hypervisors.

use std::path::Path;
use std::sync::Arc;

use forge_machine::{Hypervisor, PortError};
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, ProxyChoice, TlsChoice};
use forge_qemu::accel::Accelerator;
use forge_qemu::{AcceleratorChoice, QemuHypervisor, QemuTarget};

use crate::config::site::{Target, TargetKind, TlsConfig};

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
            let tls = match &proxmox.tls {
                TlsConfig::System => TlsChoice::System,
                TlsConfig::CaFile(file) => TlsChoice::CaFile(file.clone()),
                TlsConfig::Fingerprint(fingerprints) => TlsChoice::Fingerprints(fingerprints.clone()),
                TlsConfig::Insecure => TlsChoice::Insecure,
            };
            let config = ProxmoxConfig {
                target: target.name.clone(),
                url: proxmox.urls.first().cloned().unwrap_or_default(),
                more_urls: proxmox.urls.iter().skip(1).cloned().collect(),
                proxy: match proxmox.proxy.as_deref() {
                    None => ProxyChoice::Environment,
                    Some("none") => ProxyChoice::None,
                    Some(url) => ProxyChoice::Url(url.to_owned()),
                },
                token_id: proxmox.token_id.clone(),
                token_secret: secret.unwrap_or_default().into(),
                tls,
                nodes: proxmox.nodes.clone(),
                disk_storage: proxmox.disk_storage.clone(),
                iso_storage: proxmox.iso_storage.clone(),
                bridge: proxmox.bridge.clone(),
            };
            Ok(Arc::new(ProxmoxHypervisor::connect(config)?))
        }
        TargetKind::Qemu(qemu) => {
            let mut local = QemuTarget::new(target.name.clone(), state_dir.join("qemu").join(&target.name));
            local.binary.clone_from(&qemu.binary);
            local.cache = Some(state_dir.to_owned());
            local.ssh_ports = qemu.ssh_ports;
            local.accelerator = match qemu.accel.as_str() {
                "kvm" => AcceleratorChoice::Fixed(Accelerator::Kvm),
                "tcg" => AcceleratorChoice::Fixed(Accelerator::Tcg),
                _ => AcceleratorChoice::Auto,
            };
            Ok(Arc::new(QemuHypervisor::new(local)))
        }
    }
}
