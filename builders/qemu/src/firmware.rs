//! UEFI firmware of this machine: found by QEMU's firmware descriptors, or where distributions put it.
//!
//! Descriptors are JSON files in three folders, of which one in an earlier folder hides one of the same name in a later,
//! and an empty one hides it without a replacement; among those that fit the first by name is the one to take (QEMU,
//! `docs/interop/firmware.json`). Distributions without descriptors, or with those of another folder (NixOS), have
//! well-known paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::args::Chipset;

/// The largest descriptor that is read.
const DESCRIPTOR_LIMIT: u64 = 1 << 16;

/// Files of a UEFI firmware: its code, and the variables that a new machine starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Firmware {
    /// The code, never written to.
    pub code: PathBuf,
    /// Its format (`raw`, `qcow2`).
    pub code_format: String,
    /// The variables of a new machine, copied for each build.
    pub variables: PathBuf,
    /// Their format.
    pub variables_format: String,
    /// Whether it enforces Secure Boot, for which the board must protect its variables.
    pub secure: bool,
}

impl Firmware {
    /// A firmware of files that somebody names. They are raw but for those whose names end in `.qcow2`.
    pub(crate) fn of_files(code: PathBuf, variables: PathBuf, secure: bool) -> Self {
        let format = |path: &Path| {
            let raw = path.extension().is_none_or(|extension| extension != "qcow2");
            if raw { "raw" } else { "qcow2" }.to_owned()
        };
        let (code_format, variables_format) = (format(&code), format(&variables));
        Self { code, code_format, variables, variables_format, secure }
    }
}

/// A firmware and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    firmware: Firmware,
    /// Whether keys are enrolled, so that Secure Boot is on from the first start.
    keys: bool,
    q35: bool,
    pc: bool,
}

/// What this machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Firmwares(Vec<Candidate>);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
}

#[derive(Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

/// Code and variables where distributions put them: without Secure Boot, and with keys enrolled. Looked at when no
/// descriptor fits. Debian and Ubuntu, Fedora and Rocky, Arch, openSUSE.
const PLAIN: [(&str, &str); 8] = [
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("usr/share/qemu/ovmf-x86_64-4m-code.bin", "usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ("usr/share/qemu/ovmf-x86_64-code.bin", "usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("run/libvirt/nix-ovmf/OVMF_CODE.fd", "run/libvirt/nix-ovmf/OVMF_VARS.fd"),
];
const SECURE: [(&str, &str); 5] = [
    ("usr/share/OVMF/OVMF_CODE_4M.ms.fd", "usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("usr/share/OVMF/OVMF_CODE.secboot.fd", "usr/share/OVMF/OVMF_VARS.ms.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"),
    ("usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin"),
    ("run/libvirt/nix-ovmf/OVMF_CODE.ms.fd", "run/libvirt/nix-ovmf/OVMF_VARS.ms.fd"),
];

impl Firmwares {
    /// Looks on this machine.
    pub(crate) fn find() -> Self {
        let home = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        // NixOS has QEMU's data beside QEMU, in the store.
        let beside = crate::process::find_program(Path::new("qemu-system-x86_64"))
            .and_then(|program| program.canonicalize().ok())
            .and_then(|program| Some(program.parent()?.parent()?.join("share/qemu/firmware")));
        let mut folders: Vec<PathBuf> = home.map(|home| home.join("qemu/firmware")).into_iter().collect();
        folders.extend(["/etc/qemu/firmware", "/usr/share/qemu/firmware"].map(PathBuf::from));
        folders.extend(beside.filter(|folder| *folder != Path::new("/usr/share/qemu/firmware")));
        Self::find_in(&folders, Path::new("/"))
    }

    /// Looks in these folders of descriptors, the most important first, and under this root.
    fn find_in(folders: &[PathBuf], root: &Path) -> Self {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for folder in folders {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".json") {
                    files.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        let mut found: Vec<Candidate> = files.values().filter_map(|path| described(path)).collect();
        for (pairs, secure) in [(&PLAIN[..], false), (&SECURE[..], true)] {
            for (code, variables) in pairs {
                let (code, variables) = (root.join(code), root.join(variables));
                if code.is_file() && variables.is_file() {
                    let firmware = Firmware::of_files(code, variables, secure);
                    found.push(Candidate { firmware, keys: secure, q35: true, pc: !secure });
                }
            }
        }
        Self(found)
    }

    /// The first that fits: with keys enrolled, or else without Secure Boot.
    pub(crate) fn choose(&self, keys: bool, chipset: Chipset) -> Option<&Firmware> {
        let fits = |each: &&Candidate| match chipset {
            Chipset::Q35 => each.q35,
            Chipset::I440fx => each.pc,
            Chipset::Microvm => false,
        };
        let wanted = |each: &&Candidate| each.keys == keys && (keys || !each.firmware.secure);
        self.0.iter().filter(fits).find(wanted).map(|found| &found.firmware)
    }
}

/// The firmware of a descriptor, when it is one of ours: UEFI for x86-64 in flash, in files that are there.
fn described(path: &Path) -> Option<Candidate> {
    if path.metadata().ok()?.len() > DESCRIPTOR_LIMIT {
        return None;
    }
    let text = std::fs::read(path).ok()?;
    let described: Descriptor = match serde_json::from_slice(&text) {
        Ok(described) => described,
        Err(error) => {
            // An empty one hides another of its name, as the specification wants it.
            tracing::debug!(path = %path.display(), %error, "no firmware descriptor");
            return None;
        }
    };
    let (code, variables) = (described.mapping.executable?, described.mapping.nvram_template?);
    let uefi = described.interface_types.iter().any(|kind| kind == "uefi");
    if !uefi
        || described.mapping.device != "flash"
        || !code.filename.is_file()
        || !variables.filename.is_file()
    {
        return None;
    }
    let machines: Vec<&str> = described
        .targets
        .iter()
        .filter(|target| target.architecture == "x86_64")
        .flat_map(|target| target.machines.iter().map(String::as_str))
        .collect();
    let feature = |name: &str| described.features.iter().any(|feature| feature == name);
    // Firmware for encrypted guests starts in no other.
    if feature("amd-sev-es") && !feature("amd-sev") {
        return None;
    }
    let is_for = |prefix: &str| machines.iter().any(|machine| machine.starts_with(prefix));
    Some(Candidate {
        firmware: Firmware {
            code: code.filename,
            code_format: code.format,
            variables: variables.filename,
            variables_format: variables.format,
            secure: feature("requires-smm"),
        },
        keys: feature("secure-boot") && feature("enrolled-keys"),
        q35: is_for("pc-q35"),
        pc: is_for("pc-i440fx"),
    })
}

#[cfg(test)]
#[path = "firmware_machines.rs"]
mod machines;

#[cfg(test)]
#[path = "firmware_trees.rs"]
mod trees;

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(folder: &Path, name: &str, stem: &str, machine: &str, features: &[&str]) {
        std::fs::create_dir_all(folder).expect("made");
        let (code, variables) = (folder.join(format!("{stem}.code")), folder.join(format!("{stem}.vars")));
        std::fs::write(&code, "code").expect("written");
        std::fs::write(&variables, "variables").expect("written");
        let text = serde_json::json!({
            "description": "UEFI", "interface-types": ["uefi"], "tags": [],
            "mapping": {
                "device": "flash",
                "executable": { "filename": code, "format": "qcow2" },
                "nvram-template": { "filename": variables, "format": "raw" },
            },
            "targets": [{ "architecture": "x86_64", "machines": [machine] }],
            "features": features,
        });
        std::fs::write(folder.join(name), text.to_string()).expect("written");
    }

    #[test]
    fn the_first_descriptor_that_fits_is_taken_and_an_earlier_folder_hides_a_later_one() {
        let root = tempfile::tempdir().expect("a folder");
        let (home, system) = (root.path().join("home"), root.path().join("system"));
        let secure = ["secure-boot", "requires-smm", "enrolled-keys"];
        descriptor(&system, "30-keys.json", "keys", "pc-q35-*", &secure);
        descriptor(&system, "40-secure.json", "secure", "pc-q35-*", &["secure-boot", "requires-smm"]);
        descriptor(&system, "50-first.json", "first", "pc-q35-*", &[]);
        descriptor(&system, "60-second.json", "second", "pc-i440fx-*", &[]);
        let code = |folders: &[PathBuf], keys, chipset| {
            let found = Firmwares::find_in(folders, root.path());
            let name =
                found.choose(keys, chipset).map(|found| found.code.file_name().expect("one").to_owned());
            name.map(|name| name.to_string_lossy().into_owned())
        };
        let system_only = [system.clone()];
        assert_eq!(code(&system_only, false, Chipset::Q35).as_deref(), Some("first.code"));
        assert_eq!(code(&system_only, true, Chipset::Q35).as_deref(), Some("keys.code"));
        assert_eq!(code(&system_only, false, Chipset::I440fx).as_deref(), Some("second.code"));
        assert_eq!(code(&system_only, true, Chipset::I440fx), None);
        assert_eq!(code(&system_only, false, Chipset::Microvm), None);

        descriptor(&home, "50-first.json", "mine", "pc-q35-*", &[]);
        std::fs::write(home.join("30-keys.json"), "").expect("written");
        let both = [home, system];
        assert_eq!(code(&both, false, Chipset::Q35).as_deref(), Some("mine.code"));
        assert_eq!(code(&both, true, Chipset::Q35), None, "an empty one hides it");
    }

    #[test]
    fn without_descriptors_the_distributions_paths_are_looked_at() {
        for (code, variables) in PLAIN.into_iter().chain(SECURE) {
            let root = tempfile::tempdir().expect("a folder");
            for file in [code, variables] {
                let path = root.path().join(file);
                std::fs::create_dir_all(path.parent().expect("one")).expect("made");
                std::fs::write(path, "x").expect("written");
            }
            let keys = SECURE.contains(&(code, variables));
            let found = Firmwares::find_in(&[], root.path());
            let chosen = found.choose(keys, Chipset::Q35).expect("found");
            assert_eq!((chosen.code.clone(), chosen.secure), (root.path().join(code), keys));
            assert_eq!(found.choose(!keys, Chipset::Q35), None);
        }
    }
}
