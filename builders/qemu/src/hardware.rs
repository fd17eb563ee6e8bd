//! Graphics adapter, network adapters and NUMA nodes, from Proxmox's words to QEMU's arguments. Pure.

use forge_machine::MachineSpec;
use serde::{Deserialize, Serialize};

use crate::args::{Chipset, Line};

/// Adapter models by Proxmox's names, and QEMU's devices for them.
pub(crate) const ADAPTERS: &[(&str, &str)] = &[
    ("virtio", "virtio-net-pci"),
    ("e1000", "e1000"),
    ("e1000e", "e1000e"),
    ("rtl8139", "rtl8139"),
    ("vmxnet3", "vmxnet3"),
];
/// Options of a network adapter that have an effect here.
pub(crate) const NETWORK_OPTIONS: [&str; 1] = ["mtu"];

/// Graphics adapters: Proxmox's name, QEMU's `-vga`, and the property that sets its memory, which is in MiB, or in bytes
/// for virtio (`-device NAME,help`).
const VGAS: [(&str, &str, &str); 6] = [
    ("std", "std", "VGA.vgamem_mb"),
    ("virtio", "virtio", "virtio-vga.max_hostmem"),
    ("qxl", "qxl", "qxl-vga.vgamem_mb"),
    ("cirrus", "cirrus", "cirrus-vga.vgamem_mb"),
    ("vmware", "vmware", "vmware-svga.vgamem_mb"),
    ("none", "none", ""),
];
/// The memory that Proxmox lets a graphics adapter have, in MiB (qemu-server, `vga` of `qm`).
const VGA_MEMORY: std::ops::RangeInclusive<u32> = 4..=512;

/// The graphics adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vga {
    /// QEMU's `-vga`.
    pub model: String,
    /// Its memory in MiB; `None` is QEMU's default.
    pub memory_mib: Option<u32>,
}

impl Vga {
    /// The adapter of a spec: that of its part for QEMU, or of the profile, or `std`.
    pub(crate) fn of(spec: &MachineSpec) -> Self {
        let standard = || Self { model: "std".to_owned(), memory_mib: None };
        match (spec.extra.get("vga"), &spec.hardware.vga) {
            (Some(model), _) => Self { model: model.clone(), memory_mib: None },
            (None, Some(words)) => parse(words).unwrap_or_else(|_| standard()),
            (None, None) => standard(),
        }
    }

    /// What is wrong with the adapter of a spec, and what to do.
    pub(crate) fn check(spec: &MachineSpec) -> Result<(), (String, String)> {
        spec.hardware.vga.as_deref().map_or(Ok(()), |words| parse(words).map(drop))
    }

    pub(crate) fn arguments(&self, line: &mut Line) {
        line.option("-vga", &[&self.model]);
        let property = VGAS.iter().find(|(_, model, _)| *model == self.model).map_or("", |found| found.2);
        let Some(memory) = self.memory_mib.filter(|_| !property.is_empty()) else { return };
        let in_bytes = property.ends_with("hostmem");
        let value = if in_bytes { u64::from(memory) << 20 } else { u64::from(memory) };
        line.option("-global", &[format!("{property}={value}")]);
    }
}

/// `virtio`, or `type=virtio,memory=64`.
fn parse(words: &str) -> Result<Vga, (String, String)> {
    let wrong = |what: String| {
        let names: Vec<&str> = VGAS.iter().map(|(name, ..)| *name).collect();
        (
            what,
            format!("use one of {}; with more memory: {{ type = \"std\", memory = 32 }}", names.join(", ")),
        )
    };
    let (mut kind, mut memory_mib) = ("std", None);
    for part in words.split(',') {
        match part.split_once('=') {
            None => kind = part,
            Some(("type", name)) => kind = name,
            Some(("memory", size)) => {
                let size = size.parse().ok().filter(|size| VGA_MEMORY.contains(size));
                let what = || wrong(format!("`{part}`: a graphics adapter has 4 to 512 MiB"));
                memory_mib = Some(size.ok_or_else(what)?);
            }
            Some((key, _)) => return Err(wrong(format!("a local QEMU's `vga` has no `{key}`"))),
        }
    }
    // Proxmox's name for a VM that is looked at through its serial port, which is always there here.
    let serial = kind.strip_prefix("serial").is_some_and(|number| ["0", "1", "2", "3"].contains(&number));
    let kind = if serial { "none" } else { kind };
    match VGAS.iter().find(|(name, ..)| *name == kind) {
        Some((_, model, _)) => Ok(Vga { model: (*model).to_owned(), memory_mib }),
        None => Err(wrong(format!("a local QEMU has no graphics adapter `{kind}`"))),
    }
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Adapter {
    /// Its model, by Proxmox's name.
    pub model: String,
    /// Its MAC address; `None` is QEMU's choice.
    pub mac: Option<String>,
    /// The largest packet that the guest is told of.
    pub mtu: Option<u32>,
}

impl Adapter {
    /// The adapters of a spec; one of virtio where it names none.
    pub(crate) fn all(spec: &MachineSpec) -> Vec<Self> {
        let mut all: Vec<Self> = spec
            .networks
            .iter()
            .map(|network| Self {
                model: network.model.clone(),
                mac: network.mac.clone(),
                mtu: network.options.get("mtu").and_then(|mtu| mtu.parse().ok()).filter(|mtu| *mtu > 1),
            })
            .collect();
        if all.is_empty() {
            all.push(Self { model: "virtio".to_owned(), mac: None, mtu: None });
        }
        all
    }

    /// The device of the adapter of that number.
    pub(crate) fn device(&self, chipset: Chipset, number: usize) -> Vec<String> {
        let device = ADAPTERS.iter().find(|(name, _)| *name == self.model && *name != "virtio");
        let device = device.map_or_else(|| chipset.virtio("net"), |found| found.1.to_owned());
        let mut parts = vec![device, format!("netdev=net{number}")];
        parts.extend(self.mac.as_ref().map(|mac| format!("mac={mac}")));
        parts.extend(self.mtu.filter(|_| self.model == "virtio").map(|mtu| format!("host_mtu={mtu}")));
        parts
    }
}

/// A NUMA node for each socket, as Proxmox makes them; what can't be divided goes to the first.
pub(crate) fn numa(line: &mut Line, sockets: u32, cores: u32, memory_mib: u32) {
    let part = memory_mib / sockets.max(1);
    for node in 0..sockets {
        let size = if node == 0 { memory_mib - part * sockets.saturating_sub(1) } else { part };
        line.option("-object", &[format!("memory-backend-ram,id=ram{node},size={size}M")]);
        let (first, last) = (node * cores, node * cores + cores.saturating_sub(1));
        let node = format!("node,nodeid={node},cpus={first}-{last},memdev=ram{node}");
        line.option("-numa", &[node]);
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::SourceSpec;

    use super::*;

    fn spec(vga: &str) -> MachineSpec {
        let mut spec = MachineSpec::new(SourceSpec::New, "localhost");
        spec.hardware.vga = Some(vga.to_owned());
        spec
    }

    #[test]
    fn a_graphics_adapter_is_read_as_proxmox_writes_it() {
        for (words, model, memory_mib) in [
            ("virtio", "virtio", None),
            ("type=std,memory=32", "std", Some(32)),
            ("memory=64", "std", Some(64)),
            ("vmware,memory=16", "vmware", Some(16)),
            ("serial0", "none", None),
            ("none", "none", None),
        ] {
            assert_eq!(Vga::of(&spec(words)), Vga { model: model.to_owned(), memory_mib }, "{words}");
            assert_eq!(Vga::check(&spec(words)), Ok(()), "{words}");
        }
        let mut both = spec("virtio");
        both.extra.insert("vga".to_owned(), "cirrus".to_owned());
        assert_eq!(Vga::of(&both).model, "cirrus", "what is said for QEMU alone wins");
    }

    #[test]
    fn a_graphics_adapter_that_qemu_has_not_is_told() {
        for (words, told) in [
            ("virtio-gl", "`virtio-gl`"),
            ("serial7", "`serial7`"),
            ("std,memory=1", "4 to 512 MiB"),
            ("std,memory=much", "4 to 512 MiB"),
            ("std,clipboard=vnc", "`clipboard`"),
        ] {
            let (message, help) = Vga::check(&spec(words)).expect_err("refused");
            assert!(message.contains(told) && help.contains("cirrus"), "{words}: {message}");
        }
    }
}
