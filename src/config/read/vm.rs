//! `[vm]`.

use forge_machine::{DiskSpec, NetworkSpec};

use super::Load;
use super::hardware::{self, pass_through};
use crate::config::findings::Finding;
use crate::config::place::Node;
use crate::config::profile::{CloudInit, Vm};
use crate::config::reader::Reader;
use crate::config::template::Scope;

/// The least memory that Proxmox takes, in MiB (qemu-server's QemuServer/Memory.pm).
const LEAST_MEMORY_MIB: u32 = 16;

impl Load<'_> {
    pub(super) fn vm(&mut self, root: &mut Reader<'_>) -> Vm {
        let Some(mut reader) = root.table("vm", &mut self.findings) else { return Vm::default() };
        let findings = &mut self.findings;
        let mut vm = Vm {
            cores: reader.integer("cores", 1, 8192, findings),
            sockets: reader.integer("sockets", 1, 64, findings),
            cpu: reader.text("cpu", findings),
            memory_mib: memory(&mut reader, findings),
            disks: disks(&mut reader, findings),
            networks: networks(&mut reader, findings),
            agent: reader.flag("agent", findings),
            node: reader.text("node", findings),
            vmid: reader.integer("vmid", 100, 999_999_999, findings),
            cloud_init: cloud_init(&mut reader, findings),
            proxmox: pass_through(reader.table("proxmox", findings), findings),
            qemu: pass_through(reader.table("qemu", findings), findings),
            storage: reader.text("storage", findings),
            pool: reader.text("pool", findings),
            ..Vm::default()
        };
        hardware::read(&mut reader, &mut vm, findings);
        hardware::cloud_init(&mut reader, &mut vm, findings);
        self.cloud_init_password(&mut reader, &mut vm);
        reader.done(&mut self.findings);
        vm
    }

    /// The password of the template's users, which comes from a variable: it is kept out of everything that is shown.
    fn cloud_init_password(&mut self, reader: &mut Reader<'_>, vm: &mut Vm) {
        let Some(Node::Table(_)) = reader.any("cloud-init").map(|spot| &spot.node) else { return };
        let Some(mut drive) = reader.table("cloud-init", &mut self.findings) else { return };
        let Some(text) = drive.raw_text("cipassword", &mut self.findings) else { return };
        let (before, place) = (self.findings.len(), drive.place_of("cipassword").clone());
        let template = self.templated(&text, Scope::Load, &drive.name("cipassword"), &place);
        let password = template.to_text(|_| String::new()).filter(|_| self.findings.len() == before);
        if password.as_deref().is_some_and(str::is_empty) {
            let finding = drive.finding("cipassword", "an empty password is none");
            self.findings.push(finding.help("leave it out: what the source has stays then"));
        }
        hardware::set(&drive, vm, "cipassword", "cipassword", password, &mut self.findings);
    }
}

fn memory(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Option<u32> {
    let bytes = reader.size("memory", 1 << 20, findings)?;
    let mib = u32::try_from(bytes >> 20).ok().filter(|mib| *mib >= LEAST_MEMORY_MIB);
    if mib.is_none() {
        findings.push(
            reader
                .finding("memory", format!("memory is {LEAST_MEMORY_MIB} MiB or more, and less than 4 PiB")),
        );
    }
    mib
}

fn disks(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Vec<DiskSpec> {
    let mut disks: Vec<DiskSpec> = Vec::new();
    for mut disk in reader.tables("disks", findings) {
        let slot = disk.required("slot", findings);
        if !slot.is_empty() && !is_slot(&slot) {
            let finding = disk.finding("slot", format!("`{slot}` is no slot for a disk"));
            findings.push(finding.help("scsi0-30, virtio0-15, sata0-5, ide0-3, or on QEMU nvme0-7"));
        }
        if !slot.is_empty() && disks.iter().any(|each| each.slot == slot) {
            findings.push(disk.finding("slot", format!("`{slot}` is named twice")));
        }
        let size = disk.size("size", 1 << 30, findings);
        let discard = disk.flag("discard", findings);
        let storage = disk.text("storage", findings);
        let options = hardware::disk_options(&mut disk, findings);
        disk.done(findings);
        disks.push(DiskSpec { slot, size, discard, storage, options });
    }
    disks
}

fn networks(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Vec<NetworkSpec> {
    let mut networks = Vec::new();
    for mut network in reader.tables("networks", findings) {
        networks.push(NetworkSpec {
            model: network.text("model", findings).unwrap_or_else(|| "virtio".into()),
            bridge: network.text("bridge", findings),
            vlan: network.integer("vlan", 1, 4094, findings).and_then(|tag| u16::try_from(tag).ok()),
            mac: hardware::mac(&mut network, findings),
            options: hardware::network_options(&mut network, findings),
        });
        network.done(findings);
    }
    networks
}

fn cloud_init(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> CloudInit {
    match reader.any("cloud-init").map(|spot| &spot.node) {
        None | Some(Node::Bool(false)) => CloudInit::Inherit,
        Some(Node::Bool(true)) => CloudInit::Add { slot: "ide2".into(), storage: None },
        Some(Node::Table(_)) => {
            reader.table("cloud-init", findings).map_or(CloudInit::Inherit, |mut drive| {
                let slot = drive.text("slot", findings).unwrap_or_else(|| "ide2".into());
                if !is_slot(&slot) {
                    let finding = drive.finding("slot", format!("`{slot}` is no slot for a drive"));
                    findings.push(finding.help("ide0-3, scsi0-30 or sata0-5"));
                }
                let storage = drive.text("storage", findings);
                // Read by `hardware`.
                for key in hardware::CLOUD_INIT_KEYS {
                    drive.any(key);
                }
                drive.done(findings);
                CloudInit::Add { slot, storage }
            })
        }
        Some(node) => {
            let message = format!("expected true, false or a table, found {}", node.kind());
            findings.push(
                reader
                    .finding("cloud-init", message)
                    .help("cloud-init = { slot = \"ide2\", storage = \"…\" }"),
            );
            CloudInit::Inherit
        }
    }
}

fn is_slot(slot: &str) -> bool {
    is_cd_slot(slot) || is_on(slot, &[("virtio", 15), ("nvme", 7)])
}

/// Whether a CD-ROM drive may be there.
pub(super) fn is_cd_slot(slot: &str) -> bool {
    is_on(slot, &[("scsi", 30), ("sata", 5), ("ide", 3)])
}

fn is_on(slot: &str, buses: &[(&str, u32)]) -> bool {
    buses.iter().any(|(bus, last)| {
        let number = slot.strip_prefix(bus).filter(|digits| !digits.starts_with('+'));
        number.and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|number| number <= *last)
    })
}
