//! A spec against the facts: everything that can be known to fail before the first effect. Pure.

use forge_machine::{Facts, Finding, MachineSpec, SourceSpec};

use crate::config::ProxmoxConfig;
use crate::discovery::{bridge_of, did_you_mean, suggest};
use crate::newvm;
use crate::params::{RESERVED_KEYS, is_state_slot};
use crate::schema::{Fault, Release};
use crate::vmconfig::{PropertyString, format_size, is_drive_slot};

/// Checks a spec.
#[must_use]
pub fn check(config: &ProxmoxConfig, spec: &MachineSpec, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    source(spec, facts, &mut findings);
    if !facts.nodes.contains(&spec.node) {
        let known: Vec<&str> = facts.nodes.iter().map(String::as_str).collect();
        let message = format!("node `{}` is not usable", spec.node);
        findings.push(Finding::fatal("node", message, did_you_mean(&spec.node, &known, "nodes")));
    }
    if let Some((first, last)) = spec.ids
        && (first > last || first < 100)
    {
        findings.push(Finding::fatal(
            "target.vmids",
            format!("{first}-{last} is no range of VMIDs"),
            "VMIDs begin at 100; write the smaller one first",
        ));
    }
    storages(spec, facts, &mut findings);
    disks(config, spec, facts, &mut findings);
    networks(config, spec, facts, &mut findings);
    keys(config, spec, facts, &mut findings);
    custom_files(spec, facts, &mut findings);
    findings
}

/// `[vm.proxmox]`, and the options of disks and adapters, by the schema of the server's release.
fn keys(config: &ProxmoxConfig, spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    let mut tell = |(setting, fault): (String, Fault)| {
        let Fault { message, help, fatal } = fault;
        findings.push(Finding { setting, message, help, fatal });
    };
    let refuse = |message: String, help: &str| Fault { message, help: help.to_owned(), fatal: true };
    for (key, value) in &spec.extra {
        let setting = format!("vm.proxmox.{key}");
        if RESERVED_KEYS.contains(&key.as_str()) {
            let help = "remove it here; where a profile may set it, it has a key of its own";
            tell((setting, refuse(format!("`{key}` is set by forge itself"), help)));
        } else if is_drive_slot(key) || is_state_slot(key) {
            let help =
                "name disks in `vm.disks`, and those of firmware and TPM by `vm.efi-disk` and `vm.tpm`";
            tell((setting, refuse(format!("`{key}` is a disk, and would be made anew each time"), help)));
        } else if let Some(fault) = only_root(&config.token_id, key, value) {
            tell((setting, fault));
        }
    }
    if let Some(release) = Release::of(facts.product.rsplit(' ').next().unwrap_or_default()) {
        values(&release, spec).into_iter().for_each(tell);
    }
}

/// What a release does not take of a spec's keys and options, by their settings.
fn values(release: &Release, spec: &MachineSpec) -> Vec<(String, Fault)> {
    let mut found = Vec::new();
    let own = |key: &str| RESERVED_KEYS.contains(&key) || is_drive_slot(key) || is_state_slot(key);
    for (key, value) in spec.extra.iter().filter(|(key, _)| !own(key)) {
        found.extend(release.check(key, value).into_iter().map(|fault| (format!("vm.proxmox.{key}"), fault)));
    }
    if let Some(cpu) = &spec.cpu {
        found.extend(release.check("cpu", cpu).into_iter().map(|fault| ("vm.cpu".to_owned(), fault)));
    }
    for (number, disk) in spec.disks.iter().enumerate() {
        for (name, fault) in release.check_options(&disk.slot, &disk.options) {
            found.push((format!("{}.{name}", setting_of_disk(number, &disk.slot)), fault));
        }
    }
    for (number, network) in spec.networks.iter().enumerate() {
        let (setting, key) = (format!("vm.networks[{number}]"), format!("net{number}"));
        for fault in release.check(&key, &network.model) {
            found.push((format!("{setting}.model"), fault));
        }
        for (name, fault) in release.check_options(&key, &network.options) {
            found.push((format!("{setting}.{}", name.replace('_', "-")), fault));
        }
    }
    found
}

/// What no known release takes of a spec's keys and options: it is wrong wherever the VM is built, and nobody has to be asked.
/// What a newer release may know is a warning.
#[must_use]
pub fn anywhere(spec: &MachineSpec) -> Vec<Finding> {
    let mut by_release: Vec<Vec<(String, Fault)>> =
        Release::all().iter().map(|release| values(release, spec)).collect();
    let newest = by_release.pop().unwrap_or_default();
    let everywhere =
        |setting: &str| by_release.iter().all(|found| found.iter().any(|(other, _)| other == setting));
    let wrong = newest.into_iter().filter(|(setting, _)| everywhere(setting));
    wrong.map(|(setting, Fault { message, help, fatal })| Finding { setting, message, help, fatal }).collect()
}

/// Storages of cloud-init's custom files hold snippets; whether the files are there only the start tells.
fn custom_files(spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(custom) = spec.extra.get("cicustom") else { return };
    for (kind, volume) in PropertyString::parse(custom).pairs() {
        let name = volume.split(':').next().unwrap_or_default();
        let storage = facts.storages.iter().find(|storage| storage.name == name);
        let message = match storage {
            None => {
                format!("there is no storage `{name}` for the {kind} file `{volume}` that the token sees")
            }
            Some(storage) if !storage.content.iter().any(|content| content == "snippets") => {
                format!("storage `{name}` holds no snippets, such as the {kind} file `{volume}`")
            }
            Some(_) => continue,
        };
        let help = "give a storage the content type `snippets`, and put the file there by SSH";
        findings.push(Finding::fatal("vm.proxmox.cicustom", message, help));
    }
}

/// What a profile calls a disk.
fn setting_of_disk(number: usize, slot: &str) -> String {
    match slot {
        "efidisk0" => "vm.efi-disk".into(),
        "tpmstate0" => "vm.tpm".into(),
        _ => format!("vm.disks[{number}]"),
    }
}

/// Some keys are for root@pam itself and for none of its tokens (qemu-server API2/Qemu.pm, observed on PVE 9.2).
fn only_root(token_id: &str, key: &str, value: &str) -> Option<Fault> {
    let is_serial = key.strip_prefix("serial").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let only_root = matches!(key, "args" | "hookscript") || (is_serial && value != "socket");
    (only_root && token_id != "root@pam").then(|| Fault {
        message: format!("Proxmox VE lets only root@pam itself set `{key}` to this, and no token"),
        help: "leave it out, and set it on the finished template as root on a node".into(),
        fatal: true,
    })
}

/// The CPU type against those that the node offers.
#[must_use]
pub fn cpu(spec: &MachineSpec, offered: &[String]) -> Option<Finding> {
    let properties = PropertyString::parse(spec.cpu.as_deref()?);
    let model = properties.first().or_else(|| properties.get("cputype"))?;
    // Models of the site's own are seen by those who may audit the node.
    if offered.is_empty() || model.starts_with("custom-") || offered.iter().any(|each| each == model) {
        return None;
    }
    let known: Vec<&str> = offered.iter().map(String::as_str).collect();
    let message = format!("the node offers no CPU type `{model}`");
    Some(Finding::fatal("vm.cpu", message, suggest(model, &known, "CPU types")))
}

fn source(spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    if spec.kernel.is_some() {
        let message = "Proxmox VE starts no kernel without a boot loader";
        findings.push(Finding::fatal("source.kernel", message, "drive the boot menu with `[boot]`"));
    }
    media_slots(spec, facts, findings);
    match &spec.source {
        SourceSpec::Image { .. } | SourceSpec::New => new_vm(spec, findings),
        SourceSpec::Clone { full, name, .. } => {
            let Some(facts) = &facts.source else { return };
            if !full && !facts.template {
                findings.push(Finding::fatal(
                    "source.full",
                    format!("`{name}` is not a template, so it can't be cloned without copying its disks"),
                    "set full = true, or convert it to a template",
                ));
            }
            if facts.running {
                findings.push(Finding::warning(
                    "source.clone",
                    format!("`{name}` is running: the clone has its disks as after a power failure"),
                    "shut it down first",
                ));
            }
        }
    }
}

/// What a VM that is made from nothing must have.
fn new_vm(spec: &MachineSpec, findings: &mut Vec<Finding>) {
    let key = |name: &str| spec.extra.get(name).map(String::as_str);
    let has = |slot: &str| spec.disks.iter().any(|disk| disk.slot == slot);
    if spec.is_install() && spec.isos.is_empty() && spec.kernel.is_none() {
        let message = "a new VM has nothing to start from";
        findings.push(Finding::fatal("source", message, "iso = \"local:iso/installer.iso\""));
    }
    if key("bios") == Some("ovmf") && !has("efidisk0") {
        let message =
            "UEFI without a disk for its variables forgets what the installer enters into its boot menu";
        findings.push(Finding::warning("vm.bios", message, "efi-disk = {} in [vm]"));
    }
    let slots = newvm::slots(spec, None);
    if slots.len() < spec.isos.len() {
        let message = format!("there are drives for {} of {} media only", slots.len(), spec.isos.len());
        findings.push(Finding::fatal("source.additional-isos", message, "leave some out"));
    }
}

/// Media whose slot is another's.
fn media_slots(spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    let of_source = facts.source.as_ref().map(|source| source.disks.as_slice()).unwrap_or_default();
    for (number, slot) in &spec.iso_slots {
        let is_disk = spec.disks.iter().any(|disk| disk.slot == *slot)
            || of_source.iter().any(|disk| disk.slot == *slot);
        let is_drive = spec.cloud_init.as_ref().is_some_and(|drive| drive.slot == *slot);
        let what = match (is_disk, is_drive) {
            (true, _) => "a disk",
            (false, true) => "the cloud-init drive",
            (false, false) => continue,
        };
        let message = format!("{slot} is the slot of {what}, and cannot be that of a medium too");
        findings.push(Finding::fatal(setting_of(*number), message, "name another `slot`, or none"));
    }
}

/// The setting of a medium, by its number.
fn setting_of(number: usize) -> String {
    match number {
        0 => "source.iso".to_owned(),
        more => format!("source.additional-isos[{}]", more - 1),
    }
}

fn storages(spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    let for_disks = match &spec.source {
        SourceSpec::Clone { storage: Some(storage), .. } => Some(("storage.disks", storage)),
        _ => None,
    };
    let for_drive = spec.cloud_init.as_ref().filter(|drive| !drive.inherited);
    let for_drive = for_drive.map(|drive| ("template.cloud-init.storage".to_owned(), &drive.storage));
    let for_disks = for_disks.map(|(setting, name)| (setting.to_owned(), name));
    let of_disks = spec.disks.iter().enumerate().filter_map(|(number, disk)| {
        Some((format!("{}.storage", setting_of_disk(number, &disk.slot)), disk.storage.as_ref()?))
    });
    for (setting, name) in for_disks.into_iter().chain(for_drive).chain(of_disks) {
        let Some(storage) = facts.storages.iter().find(|storage| storage.name == *name) else {
            let known: Vec<&str> = facts.storages.iter().map(|storage| storage.name.as_str()).collect();
            let message = format!("there is no storage `{name}` that the token sees");
            findings.push(Finding::fatal(setting, message, did_you_mean(name, &known, "storages")));
            continue;
        };
        if !storage.active {
            let help = "look at its state on the node; a network storage may be out of reach";
            findings.push(Finding::fatal(setting.clone(), format!("storage `{name}` is not active"), help));
        }
        if !storage.content.iter().any(|content| content == "images") {
            let usable =
                facts.storages.iter().filter(|storage| storage.content.iter().any(|c| c == "images"));
            let usable: Vec<&str> = usable.map(|storage| storage.name.as_str()).collect();
            findings.push(Finding::fatal(
                setting,
                format!(
                    "storage `{name}` does not take VM disks (its content: {})",
                    storage.content.join(", ")
                ),
                format!("these do: {}", usable.join(", ")),
            ));
        }
    }
}

fn disks(config: &ProxmoxConfig, spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(source) = &facts.source else { return };
    let names_storage = config.disk_storage.is_some()
        || !source.disks.is_empty()
        || matches!(&spec.source, SourceSpec::Clone { storage: Some(_), .. });
    let is_image = matches!(spec.source, SourceSpec::Image { .. });
    let first = spec.disks.iter().position(|disk| !is_state_slot(&disk.slot)).unwrap_or(0);
    for (number, disk) in spec.disks.iter().enumerate() {
        if is_state_slot(&disk.slot) {
            continue;
        }
        if !is_drive_slot(&disk.slot) {
            findings.push(Finding::fatal(
                format!("vm.disks[{number}].slot"),
                format!("`{}` is no disk slot", disk.slot),
                "slots are scsi0 to scsi30, virtio0 to virtio15, sata0 to sata5, ide0 to ide3",
            ));
            continue;
        }
        let setting = format!("vm.disks[{number}].size");
        match (source.disks.iter().find(|known| known.slot == disk.slot), disk.size) {
            (Some(known), Some(size)) if size < known.size => findings.push(Finding::fatal(
                setting,
                format!(
                    "{} has {} in the source and can't shrink to {}",
                    disk.slot,
                    format_size(known.size),
                    format_size(size)
                ),
                "leave the size out, or ask for at least as much as the source has",
            )),
            // An image brings its size along.
            (None, None) if is_image && number == first && (names_storage || disk.storage.is_some()) => {}
            (None, None) if is_image && number == first => findings.push(Finding::fatal(
                format!("vm.disks[{number}].storage"),
                format!("no storage is named for {}", disk.slot),
                "name one in the target: storage = { disks = \"…\" }",
            )),
            (None, None) => findings.push(Finding::fatal(
                setting,
                format!("the source has no disk {}", disk.slot),
                "give a size to add one",
            )),
            (None, Some(_)) if !names_storage && disk.storage.is_none() => findings.push(Finding::fatal(
                setting,
                format!("no storage is named for the new disk {}", disk.slot),
                "name one in the target: storage = { disks = \"…\" }",
            )),
            _ => {}
        }
    }
}

fn networks(config: &ProxmoxConfig, spec: &MachineSpec, facts: &Facts, findings: &mut Vec<Finding>) {
    for (number, network) in spec.networks.iter().enumerate() {
        let setting = format!("vm.networks[{number}].bridge");
        let slot = format!("net{number}");
        let inherited = facts.source.as_ref().and_then(|source| {
            source.networks.iter().find(|(known, _)| *known == slot).and_then(|(_, nic)| bridge_of(nic))
        });
        let bridge = network.bridge.clone().or(inherited).or_else(|| config.bridge.clone());
        match (bridge, &facts.bridges) {
            (None, _) => findings.push(Finding::fatal(
                setting,
                format!("no bridge is named for {slot}"),
                "name one here or in the target: bridge = \"vmbr0\"",
            )),
            (Some(bridge), Some(known)) if !known.contains(&bridge) => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let message = format!("there is no bridge `{bridge}` on {}", spec.node);
                findings.push(Finding::fatal(setting, message, did_you_mean(&bridge, &known, "bridges")));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {

    use forge_machine::facts::SourceDisk;
    use forge_machine::{CloudInitDrive, DiskSpec, NetworkSpec, SourceFacts, StorageFacts, VmRef};

    use super::*;
    use crate::config::TlsChoice;

    fn config() -> ProxmoxConfig {
        ProxmoxConfig {
            target: "pve".into(),
            url: "https://pve".into(),
            more_urls: Vec::new(),
            proxy: crate::config::ProxyChoice::None,
            token_id: "forge@pve!build".into(),
            role: None,
            token_secret: "x".into(),
            tls: TlsChoice::System,
            nodes: Vec::new(),
            disk_storage: None,
            iso_storage: None,
            bridge: None,
        }
    }

    fn facts() -> Facts {
        let storage = |name: &str, content: &str, active| StorageFacts {
            name: name.into(),
            content: vec![content.into()],
            available: 1 << 40,
            active,
        };
        Facts {
            product: "Proxmox VE 9.2".into(),
            notes: Vec::new(),
            nodes: vec!["pve1".into()],
            placed: None,
            source: Some(SourceFacts {
                vm: VmRef::new("9000", "pve1"),
                name: "boot-vm".into(),
                template: false,
                running: false,
                disks: vec![SourceDisk { slot: "scsi0".into(), storage: "lvm".into(), size: 2 << 30 }],
                cloud_init: None,
                agent: true,
                networks: vec![("net0".into(), "virtio,bridge=vmbr0".into())],
                memory_mib: 1024,
                cores: 1,
            }),
            storages: vec![
                storage("lvm", "images", true),
                storage("local", "iso", true),
                storage("nfs", "images", false),
            ],
            bridges: Some(vec!["vmbr0".into()]),
            endpoint: None,
            no_seed_disc: None,
        }
    }

    fn spec() -> MachineSpec {
        MachineSpec {
            ids: Some((9000, 9099)),
            disks: vec![DiskSpec {
                slot: "scsi0".into(),
                size: Some(4 << 30),
                discard: None,
                ..DiskSpec::default()
            }],
            networks: vec![NetworkSpec {
                model: "virtio".into(),
                bridge: None,
                vlan: None,
                ..NetworkSpec::default()
            }],
            cloud_init: Some(CloudInitDrive { slot: "ide2".into(), storage: "lvm".into(), inherited: false }),
            ..MachineSpec::new(
                SourceSpec::Clone {
                    vm: VmRef::new("9000", "pve1"),
                    name: "boot-vm".into(),
                    full: true,
                    storage: Some("lvm".into()),
                },
                "pve1",
            )
        }
    }

    #[test]
    fn a_sound_spec_has_no_findings() {
        assert_eq!(check(&config(), &spec(), &facts()), []);
    }

    #[test]
    fn each_mistake_is_one_finding_that_names_its_setting() {
        type Change = fn(&mut MachineSpec);
        let table: [(&str, &str, Change); 12] = [
            ("node", "pve9", |spec| spec.node = "pve9".into()),
            ("target.vmids", "9099-9000", |spec| spec.ids = Some((9099, 9000))),
            ("target.vmids", "50-60", |spec| spec.ids = Some((50, 60))),
            ("source.full", "not a template", |spec| {
                spec.source = SourceSpec::Clone {
                    vm: VmRef::new("9000", "pve1"),
                    name: "b".into(),
                    full: false,
                    storage: None,
                };
            }),
            ("source", "nothing to start from", |spec| spec.source = SourceSpec::New),
            ("template.cloud-init.storage", "does not take VM disks", |spec| {
                spec.cloud_init =
                    Some(CloudInitDrive { slot: "ide2".into(), storage: "local".into(), inherited: false });
            }),
            ("template.cloud-init.storage", "not active", |spec| {
                spec.cloud_init =
                    Some(CloudInitDrive { slot: "ide2".into(), storage: "nfs".into(), inherited: false });
            }),
            ("vm.disks[0].size", "can't shrink", |spec| spec.disks[0].size = Some(1 << 30)),
            ("vm.disks[0].slot", "no disk slot", |spec| spec.disks[0].slot = "sda".into()),
            ("vm.disks[0].size", "has no disk scsi1", |spec| {
                spec.disks[0] =
                    DiskSpec { slot: "scsi1".into(), size: None, discard: None, ..DiskSpec::default() };
            }),
            ("vm.networks[0].bridge", "no bridge `vmbr1`", |spec| {
                spec.networks[0].bridge = Some("vmbr1".into());
            }),
            ("vm.proxmox.tags", "set by forge itself", |spec| {
                spec.extra.insert("tags".into(), "x".into());
            }),
        ];
        for (setting, words, change) in table {
            let mut spec = spec();
            change(&mut spec);
            let found = check(&config(), &spec, &facts());
            assert_eq!(found.len(), 1, "{words}: {found:?}");
            assert!(found[0].setting == setting && found[0].message.contains(words), "{words}: {found:?}");
        }
    }

    #[test]
    fn a_second_adapter_needs_a_bridge_from_somewhere() {
        let mut spec = spec();
        spec.networks.push(NetworkSpec {
            model: "virtio".into(),
            bridge: None,
            vlan: None,
            ..NetworkSpec::default()
        });
        assert_eq!(check(&config(), &spec, &facts()).len(), 1);
        let with_bridge = ProxmoxConfig { bridge: Some("vmbr0".into()), ..config() };
        assert_eq!(check(&with_bridge, &spec, &facts()), []);
    }
}
