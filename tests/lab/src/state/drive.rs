//! Drive and network strings: `local:9000/vm-9000-disk-0.qcow2,discard=on,size=1G`.

use std::collections::BTreeMap;

/// A drive's value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drive {
    /// Volume, `none`, `cdrom`, or `STORE:SIZE` before it is allocated.
    pub volume: String,
    /// The other options; printed sorted.
    pub options: BTreeMap<String, String>,
}

impl Drive {
    /// Parses a value the schema has accepted.
    pub fn parse(text: &str) -> Drive {
        let mut drive = Drive::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("file" | "volume", value)) => value.clone_into(&mut drive.volume),
                Some((key, value)) => drop(drive.options.insert(key.to_owned(), value.to_owned())),
                None => part.clone_into(&mut drive.volume),
            }
        }
        drive
    }

    /// The value as Proxmox writes it.
    pub fn print(&self) -> String {
        self.options.iter().fold(self.volume.clone(), |text, (key, value)| format!("{text},{key}={value}"))
    }

    /// Whether it is a CD drive, the cloud-init drive included.
    pub fn is_cdrom(&self) -> bool {
        self.options.get("media").is_some_and(|media| media == "cdrom")
            || self.volume == "cdrom"
            || self.is_cloudinit()
    }

    /// Whether it is the cloud-init drive, allocated or not.
    pub fn is_cloudinit(&self) -> bool {
        self.volume.ends_with(":cloudinit") || self.volume.contains("-cloudinit")
    }

    /// Whether there is a volume behind it.
    pub fn has_volume(&self) -> bool {
        self.volume.contains(':')
    }

    /// The storage of its volume.
    pub fn storage(&self) -> Option<&str> {
        self.volume.split_once(':').map(|(storage, _)| storage)
    }

    /// Its informational size in bytes.
    pub fn size(&self) -> Option<u64> {
        self.options.get("size").and_then(|size| parse_size(size))
    }
}

/// Whether a configuration key holds a drive.
pub fn is_drive_key(key: &str) -> bool {
    let base = key.trim_end_matches(|c: char| c.is_ascii_digit());
    base.len() < key.len() && matches!(base, "ide" | "sata" | "scsi" | "virtio" | "efidisk" | "tpmstate")
}

/// Bytes of a size such as `10G` or `512`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().last()? {
        (index, 'K') => (&text[..index], 1u64 << 10),
        (index, 'M') => (&text[..index], 1 << 20),
        (index, 'G') => (&text[..index], 1 << 30),
        (index, 'T') => (&text[..index], 1 << 40),
        _ => (text, 1),
    };
    let number: f64 = number.parse().ok()?;
    Some((number * factor as f64) as u64)
}

/// A size in the largest unit that divides it.
pub fn print_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// The parts of a network value: model, address, other options.
pub fn parse_net(text: &str) -> (String, Option<String>, BTreeMap<String, String>) {
    let mut parsed = crate::schema::parse_property_string("net0", text).unwrap_or_default();
    let model = parsed.remove("model").unwrap_or_else(|| "virtio".to_owned());
    let mac = parsed.remove("macaddr").map(|mac| mac.to_uppercase());
    (model, mac, parsed)
}

/// A network value as Proxmox writes it.
pub fn print_net(model: &str, mac: &str, options: &BTreeMap<String, String>) -> String {
    options.iter().fold(format!("{model}={mac}"), |text, (key, value)| format!("{text},{key}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_and_nets_are_printed_as_a_real_server_prints_them() {
        let drive = Drive::parse("local:9000/vm-9000-disk-0.qcow2,ssd=1,discard=on,size=1G,iothread=1");
        assert_eq!(drive.print(), "local:9000/vm-9000-disk-0.qcow2,discard=on,iothread=1,size=1G,ssd=1");
        let (model, mac, options) = parse_net("virtio,bridge=vmbr0,firewall=0");
        assert_eq!((model.as_str(), mac), ("virtio", None));
        assert_eq!(
            print_net(&model, "BC:24:11:00:00:01", &options),
            "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=0"
        );
        let (_, mac, _) = parse_net("virtio=bc:24:11:00:00:01,bridge=vmbr0");
        assert_eq!(mac.as_deref(), Some("BC:24:11:00:00:01"));
        for (text, bytes) in [("1G", 1 << 30), ("98K", 98 << 10), ("1536M", 1536 << 20), ("100", 100)] {
            assert_eq!((parse_size(text), print_size(bytes)), (Some(bytes), text.to_owned()));
        }
    }
}
