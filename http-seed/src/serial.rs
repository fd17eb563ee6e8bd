//! How a guest is told the address of a NoCloud seed.
//!
//! cloud-init's NoCloud data source reads `ds=nocloud;s=URL` from the SMBIOS system serial and from the kernel's
//! command line (cloud-init docs, "NoCloud"; seen with Debian 12's cloud-init on PVE 9.2).

/// The text for the SMBIOS system serial.
#[must_use]
pub fn smbios_serial(url: &str) -> String {
    format!("ds=nocloud;s={url}")
}

/// The argument for a kernel line in GRUB's editor: quoted, because `;` ends a command there.
#[must_use]
pub fn grub_argument(url: &str) -> String {
    format!("\"ds=nocloud;s={url}\"")
}
