//! How a guest is told the address of a NoCloud seed.
//!
//! cloud-init's NoCloud data source reads `ds=nocloud;s=URL` from the SMBIOS system serial and from the kernel's
//! command line (cloud-init docs, "NoCloud"). `dsmode=net` must be said: cloud-init 22.4 (Debian 12) takes the seed
//! for one of its local stage without it, fetches every file, and then makes nothing of them (observed).

/// The text for the SMBIOS system serial.
#[must_use]
pub fn smbios_serial(url: &str) -> String {
    format!("ds=nocloud;s={url};dsmode=net")
}

/// The argument for a kernel line in GRUB's editor or its configuration: quoted, because `;` ends a command there.
#[must_use]
pub fn kernel_argument(url: &str) -> String {
    format!("\"ds=nocloud;s={url};dsmode=net\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grub_needs_quotes() {
        let url = "http://192.0.2.1:8800/0123/";
        assert_eq!(smbios_serial(url), "ds=nocloud;s=http://192.0.2.1:8800/0123/;dsmode=net");
        assert_eq!(kernel_argument(url), "\"ds=nocloud;s=http://192.0.2.1:8800/0123/;dsmode=net\"");
    }
}
