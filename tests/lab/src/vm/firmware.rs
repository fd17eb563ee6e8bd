//! UEFI: the firmware's code, and the volume that holds its variables.
//!
//! The images are Debian's OVMF where Proxmox has builds of its own; sizes are the same (528 KiB and 128 KiB of
//! variables). With `pre-enrolled-keys=1` the variables hold Microsoft's keys; on a q35 board the code then enforces
//! Secure Boot, on i440fx (which lacks the protected mode for it) it does not.

use std::path::{Path, PathBuf};

use super::args::escape;

/// The folder of Debian's package `ovmf`.
const FOLDER: &str = "/usr/share/OVMF";

/// What an EFI disk's options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiKind {
    /// `efitype=4m`, else the old 2 MiB one.
    pub large: bool,
    /// `pre-enrolled-keys=1`.
    pub keys: bool,
}

impl EfiKind {
    /// Reads a drive's options.
    pub fn of(options: &std::collections::BTreeMap<String, String>) -> EfiKind {
        EfiKind {
            large: options.get("efitype").is_some_and(|kind| kind == "4m"),
            keys: options.get("pre-enrolled-keys").is_some_and(|flag| flag == "1"),
        }
    }

    /// Bytes of its variables.
    pub fn size(self) -> u64 {
        if self.large { 528 << 10 } else { 128 << 10 }
    }

    /// The variables of a new disk.
    pub fn template(self) -> PathBuf {
        let name = match (self.large, self.keys) {
            (true, true) => "OVMF_VARS_4M.ms.fd",
            (true, false) => "OVMF_VARS_4M.fd",
            (false, true) => "OVMF_VARS.ms.fd",
            (false, false) => "OVMF_VARS.fd",
        };
        Path::new(FOLDER).join(name)
    }

    fn code(self, q35: bool) -> &'static str {
        match (self.large, self.keys && q35) {
            (true, true) => "OVMF_CODE_4M.ms.fd",
            (true, false) => "OVMF_CODE_4M.fd",
            (false, true) => "OVMF_CODE.ms.fd",
            (false, false) => "OVMF_CODE.fd",
        }
    }
}

/// The firmware of one VM.
#[derive(Debug, Clone)]
pub struct Uefi {
    code: PathBuf,
    vars: PathBuf,
    format: String,
    /// Whether it enforces Secure Boot, for which the board must protect it.
    pub secure: bool,
}

impl Uefi {
    /// The firmware for variables in `vars`.
    ///
    /// # Errors
    /// Debian's package `ovmf` is not there, or lacks the old 2 MiB images (they are gone in Debian 13).
    pub fn find(kind: EfiKind, q35: bool, vars: PathBuf, format: &str) -> Result<Uefi, String> {
        let code = Path::new(FOLDER).join(kind.code(q35));
        if !code.is_file() {
            return Err(format!("EFI base image '{}' not found", code.display()));
        }
        Ok(Uefi { code, vars, format: format.to_owned(), secure: kind.keys && q35 })
    }

    /// Hands its arguments over one by one.
    pub(super) fn arguments(&self, mut add: impl FnMut(&str, String)) {
        let text = |path: &Path| escape(&path.to_string_lossy());
        add("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={}", text(&self.code)));
        add(
            "-drive",
            format!("if=pflash,unit=1,format={},id=drive-efidisk0,file={}", self.format, text(&self.vars)),
        );
        if self.secure {
            add("-global", "driver=cfi.pflash01,property=secure,value=on".to_owned());
        }
    }
}
