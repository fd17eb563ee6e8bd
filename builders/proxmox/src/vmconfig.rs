//! A VM's configuration as `GET …/config` returns it, and the property strings inside it. Pure.
//!
//! Values come as text or numbers depending on the key and version, so all are kept as text. A property string is
//! `value,key=value,…`; the first part may lack its key (its *default key*), and Proxmox sorts the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A VM's configuration by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmConfig(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for VmConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: BTreeMap<String, Value> = BTreeMap::deserialize(deserializer)?;
        let text = |value: Value| match value {
            Value::String(text) => text,
            Value::Bool(value) => u8::from(value).to_string(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        Ok(Self(raw.into_iter().map(|(key, value)| (key, text(value))).collect()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for VmConfig {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl VmConfig {
    /// A key's value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether a switch is on; `default` when the key is missing.
    #[must_use]
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |value| matches!(value, "1" | "yes" | "true" | "on"))
    }

    /// The VM's name, empty while a clone is being made.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get("name").unwrap_or_default()
    }

    /// The notes.
    #[must_use]
    pub fn description(&self) -> &str {
        self.get("description").unwrap_or_default()
    }

    /// The lock (`clone`, `backup`, …).
    #[must_use]
    pub fn lock(&self) -> Option<&str> {
        self.get("lock").filter(|lock| !lock.is_empty())
    }

    /// Whether it is a template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.flag("template", false)
    }

    /// The tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        crate::api::types::split_tags(self.get("tags").unwrap_or_default())
    }

    /// When the VM was first created, in seconds since 1970. Clones inherit it from their source.
    #[must_use]
    pub fn creation_time(&self) -> Option<u64> {
        PropertyString::parse(self.get("meta")?).get("ctime")?.parse().ok()
    }

    /// Memory in MiB. Since PVE 8.1 the value may be a property string (`current=2048`).
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        let text = self.get("memory").unwrap_or("512");
        let text = text.split(',').next().unwrap_or_default();
        text.strip_prefix("current=").unwrap_or(text).trim().parse().unwrap_or(0)
    }

    /// CPU cores per socket; Proxmox's default is 1.
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.get("cores").map_or(1, |text| text.parse().unwrap_or(0))
    }

    /// Whether the guest agent's device is switched on: `agent` is `1`, `enabled=1` or `1,type=virtio`.
    #[must_use]
    pub fn agent_enabled(&self) -> bool {
        self.get("agent").is_some_and(|text| {
            let agent = PropertyString::parse(text);
            agent.first() == Some("1") || agent.get("enabled") == Some("1")
        })
    }

    /// All drives with their slots, CD-ROMs included.
    pub fn drives(&self) -> impl Iterator<Item = (&str, Drive)> {
        self.0
            .iter()
            .filter(|(key, _)| is_drive_slot(key))
            .map(|(key, value)| (key.as_str(), Drive::parse(value)))
    }

    /// The drive in a slot.
    #[must_use]
    pub fn drive(&self, slot: &str) -> Option<Drive> {
        if is_drive_slot(slot) { self.get(slot).map(Drive::parse) } else { None }
    }

    /// The network adapters in order, as number and property string.
    #[must_use]
    pub fn networks(&self) -> Vec<(u32, Nic)> {
        let mut found: Vec<(u32, Nic)> = self
            .0
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("net")?.parse().ok()?, Nic::parse(value))))
            .collect();
        found.sort_by_key(|(number, _)| *number);
        found
    }
}

/// Whether a key is a disk slot: `ide0`, `sata1`, `scsi0`, `virtio0`.
#[must_use]
pub fn is_drive_slot(key: &str) -> bool {
    ["ide", "sata", "scsi", "virtio"].iter().any(|bus| {
        key.strip_prefix(bus)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// `first,key=value,…` with its order kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyString(Vec<(Option<String>, String)>);

impl PropertyString {
    /// Reads a property string.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(
            text.split(',')
                .filter(|part| !part.is_empty())
                .map(|part| match part.split_once('=') {
                    Some((key, value)) => (Some(key.to_owned()), value.to_owned()),
                    None => (None, part.to_owned()),
                })
                .collect(),
        )
    }

    /// The part without a key.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.is_none()).map(|(_, value)| value.as_str())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.as_deref() == Some(key)).map(|(_, value)| value.as_str())
    }

    /// Sets a key, in its place when it is there already.
    pub fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known.as_deref() == Some(key)) {
            Some(entry) => value.clone_into(&mut entry.1),
            None => self.0.push((Some(key.to_owned()), value.to_owned())),
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known.as_deref() != Some(key));
    }

    /// Removes the part without a key.
    pub fn remove_first(&mut self) {
        self.0.retain(|(key, _)| key.is_some());
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All parts in their order; what stands there without a key has none.
    pub fn parts(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.0.iter().map(|(key, value)| (key.as_deref(), value.as_str()))
    }

    /// Keys and values, without the part that has no key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(key, value)| Some((key.as_deref()?, value.as_str())))
    }
}

impl std::fmt::Display for PropertyString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match key {
                Some(key) => write!(f, "{comma}{key}={value}")?,
                None => write!(f, "{comma}{value}")?,
            }
        }
        Ok(())
    }
}

/// A drive: `local:9000/vm-9000-disk-0.qcow2,discard=on,size=1G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// All of it.
    pub properties: PropertyString,
}

impl Drive {
    /// Reads a drive.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { properties: PropertyString::parse(text) }
    }

    /// The volume (`local:9000/vm-9000-disk-0.qcow2`, `none`).
    #[must_use]
    pub fn volume(&self) -> &str {
        self.properties.first().or_else(|| self.properties.get("file")).unwrap_or_default()
    }

    /// The storage of the volume; empty for `none` and `cdrom`.
    #[must_use]
    pub fn storage(&self) -> &str {
        self.volume().split_once(':').map_or("", |(storage, _)| storage)
    }

    /// Whether it is a CD-ROM drive (a cloud-init drive is one too).
    #[must_use]
    pub fn is_cdrom(&self) -> bool {
        self.properties.get("media") == Some("cdrom") || self.volume() == "cdrom"
    }

    /// Whether it is Proxmox's cloud-init drive: `vm-9000-cloudinit`, or `local:cloudinit` before it is made.
    #[must_use]
    pub fn is_cloud_init(&self) -> bool {
        let volume = self.volume();
        let name = volume.rsplit(['/', ':']).next().unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default();
        name == "cloudinit" || (name.starts_with("vm-") && name.ends_with("-cloudinit"))
    }

    /// The size in bytes, as far as the configuration says.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        parse_size(self.properties.get("size")?)
    }
}

/// A network adapter: `virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The model (`virtio`).
    pub model: String,
    /// The MAC address, upper case; missing before Proxmox has made one.
    pub mac: Option<String>,
    /// Everything else.
    pub options: PropertyString,
}

/// The models that Proxmox takes as a key (`virtio=MAC`); `model=` and `macaddr=` are the long form.
const NIC_MODELS: &[&str] = &[
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
];

impl Nic {
    /// Reads a network adapter.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut options = PropertyString::parse(text);
        let short = options.pairs().find(|(key, _)| NIC_MODELS.contains(key));
        let short = short.map(|(model, mac)| (model.to_owned(), Some(mac.to_uppercase())));
        let (model, mac) = short.unwrap_or_else(|| {
            let model = options.get("model").or_else(|| options.first()).unwrap_or("virtio").to_owned();
            (model, options.get("macaddr").map(str::to_uppercase))
        });
        options.remove(&model);
        options.remove("model");
        options.remove("macaddr");
        options.remove_first();
        Self { model, mac, options }
    }

    /// The bridge.
    #[must_use]
    pub fn bridge(&self) -> Option<&str> {
        self.options.get("bridge")
    }
}

impl std::fmt::Display for Nic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.mac {
            Some(mac) => write!(f, "{}={mac}", self.model)?,
            None => write!(f, "{}", self.model)?,
        }
        if self.options.is_empty() { Ok(()) } else { write!(f, ",{}", self.options) }
    }
}

/// Reads a size as Proxmox writes it: `528K`, `4M`, `20G`, `1.5T`, or plain bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, shift) = match text.char_indices().last()? {
        (at, 'K') => (&text[..at], 10),
        (at, 'M') => (&text[..at], 20),
        (at, 'G') => (&text[..at], 30),
        (at, 'T') => (&text[..at], 40),
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let bytes = whole.parse::<u64>().ok()?.checked_shl(shift)?;
    if fraction.is_empty() {
        return Some(bytes);
    }
    let digits: u64 = fraction.parse().ok()?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(digits) * (1_u128 << shift) / u128::from(scale);
    bytes.checked_add(u64::try_from(part).ok()?)
}

/// Writes a size in the largest unit that is exact.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes >> shift > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real() -> VmConfig {
        // Observed on PVE 9.2 (clone-template-delete).
        serde_json::from_str(
            r#"{"cores":1,"smbios1":"uuid=4053d1cb-cd4f-4a85-8a1c-4fb538c888e5","boot":"order=scsi0;ide2;net0",
            "ide3":"local:9100/vm-9100-cloudinit.qcow2,media=cdrom,size=4M","ide2":"local:iso/seed.iso,media=cdrom,size=98K",
            "scsihw":"virtio-scsi-single","name":"c1","agent":"enabled=1","meta":"creation-qemu=10.0.13,ctime=1795229029",
            "scsi0":"local:9100/vm-9100-disk-0.qcow2,discard=on,iothread=1,size=2G,ssd=1","memory":"256","kvm":0,
            "net0":"virtio=BC:24:11:FD:94:79,bridge=vmbr0,firewall=0","tags":"build-2026;forge"}"#,
        )
        .expect("valid")
    }

    #[test]
    fn a_real_configuration_is_read() {
        let config = real();
        assert_eq!((config.name(), config.cores(), config.memory_mib()), ("c1", 1, 256));
        assert!(config.agent_enabled() && !config.is_template() && config.lock().is_none());
        assert_eq!(config.creation_time(), Some(1_795_229_029));
        assert_eq!(config.tags().collect::<Vec<_>>(), ["build-2026", "forge"]);
        let disk = config.drive("scsi0").expect("a disk");
        assert_eq!((disk.storage(), disk.size(), disk.is_cdrom()), ("local", Some(2 << 30), false));
        let drives: Vec<_> =
            config.drives().map(|(slot, drive)| (slot.to_owned(), drive.is_cloud_init())).collect();
        assert_eq!(
            drives,
            [("ide2".to_owned(), false), ("ide3".to_owned(), true), ("scsi0".to_owned(), false)]
        );
    }

    #[test]
    fn a_network_adapter_keeps_all_it_has() {
        for (text, model, mac, bridge) in [
            (
                "virtio=BC:24:11:FD:94:79,bridge=vmbr0,firewall=0",
                "virtio",
                Some("BC:24:11:FD:94:79"),
                Some("vmbr0"),
            ),
            ("e1000,bridge=vmbr1,tag=7", "e1000", None, Some("vmbr1")),
            ("virtio=bc:24:11:fd:94:79", "virtio", Some("BC:24:11:FD:94:79"), None),
            (
                "model=virtio,macaddr=BC:24:11:FD:94:79,bridge=b",
                "virtio",
                Some("BC:24:11:FD:94:79"),
                Some("b"),
            ),
        ] {
            let nic = Nic::parse(text);
            assert_eq!(
                (nic.model.as_str(), nic.mac.as_deref(), nic.bridge()),
                (model, mac, bridge),
                "{text}"
            );
        }
        let text = "virtio=BC:24:11:FD:94:79,bridge=vmbr0,firewall=0";
        assert_eq!(Nic::parse(text).to_string(), text);
    }

    #[test]
    fn cloud_init_drives_are_told_from_discs_of_that_name() {
        for (text, expected) in [
            ("local:9000/vm-9000-cloudinit.qcow2,media=cdrom", true),
            ("local-lvm:vm-9000-cloudinit,media=cdrom,size=4M", true),
            ("local:cloudinit", true),
            ("local:iso/cloudinit-tools.iso,media=cdrom", false),
            ("none,media=cdrom", false),
            ("local:9000/vm-9000-disk-0.qcow2", false),
        ] {
            assert_eq!(Drive::parse(text).is_cloud_init(), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_exactly() {
        for (text, bytes) in
            [("1G", 1 << 30), ("528K", 528 << 10), ("1.5G", 3 << 29), ("4194304", 4 << 20), ("2T", 2 << 40)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "G", "x", "1.xG", "5GB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for (bytes, text) in
            [(20 << 30, "20G"), (1536 << 20, "1536M"), (1000, "1000"), (1 << 40, "1T"), (0, "0")]
        {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn odd_values_do_not_break_reading() {
        let config: VmConfig =
            [("memory", "current=2048"), ("agent", "1,fstrim_cloned_disks=1")].into_iter().collect();
        assert_eq!((config.memory_mib(), config.agent_enabled(), config.cores()), (2048, true, 1));
        assert!(!VmConfig::from_iter([("agent", "enabled=0")]).agent_enabled());
    }
}
