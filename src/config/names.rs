//! What other tools call the settings: Packer's options and common words, with forge's name for each.
//!
//! Only read to say what to write instead; none of these names is accepted.

/// A name from elsewhere (kebab-case), and the dotted setting it is here.
const ELSEWHERE: [(&str, &str); 127] = [
    ("accelerator", "accel"),
    ("additional-iso-files", "source.additional-isos"),
    ("append", "source.cmdline"),
    ("asyncio", "aio"),
    ("ballooning-minimum", "vm.balloon"),
    ("boot-command", "boot.steps"),
    ("boot-key-interval", "boot.steps"),
    ("boot-wait", "boot.steps"),
    ("bridge-name", "bridge"),
    ("ca", "tls.ca-file"),
    ("cache-mode", "cache"),
    ("cd-content", "seed.disc"),
    ("cd-files", "seed.disc"),
    ("cd-label", "seed.disc.label"),
    ("certificate", "tls.ca-file"),
    ("clone-vm", "source.clone"),
    ("clone-vm-id", "source.clone"),
    ("cloud-init-storage-pool", "vm.cloud-init.storage"),
    ("cloudinit", "vm.cloud-init"),
    ("commands", "shell"),
    ("communicator", "access.via"),
    ("cores-per-socket", "vm.cores"),
    ("cpu-type", "vm.cpu"),
    ("cpus", "vm.cores"),
    ("disable-kvm", "vm.kvm"),
    ("disk-additional-size", "vm.disks"),
    ("disk-compression", "output.compress"),
    ("disk-image", "source.image"),
    ("disk-size", "size"),
    ("efi-boot", "vm.bios"),
    ("efi-config", "vm.efi-disk"),
    ("efi-firmware-code", "vm.qemu.efi-firmware-code"),
    ("efi-firmware-vars", "vm.qemu.efi-firmware-vars"),
    ("efidisk", "vm.efi-disk"),
    ("endpoint", "url"),
    ("environment", "env"),
    ("environment-vars", "env"),
    ("exclude-from-backup", "backup"),
    ("execute-command", "provision.interpreter"),
    ("file", "provision.upload"),
    ("floppy-content", "seed.floppy"),
    ("floppy-dirs", "seed.floppy"),
    ("floppy-files", "seed.floppy"),
    ("floppy-label", "seed.floppy.label"),
    ("format", "output.formats"),
    ("full-clone", "source.full"),
    ("host-name", "seed.hostname"),
    ("http-bind-address", "seed.bind"),
    ("http-content", "seed.files"),
    ("http-directory", "seed.directory"),
    ("http-port-max", "seed.ports"),
    ("http-port-min", "seed.ports"),
    ("inline", "shell"),
    ("insecure-skip-tls-verify", "tls.insecure"),
    ("io-thread", "iothread"),
    ("iso-checksum", "checksum"),
    ("iso-file", "source.iso"),
    ("iso-url", "source.iso"),
    ("linked", "source.full"),
    ("mac-address", "mac"),
    ("machine-type", "vm.machine"),
    ("mem", "vm.memory"),
    ("memory-mb", "vm.memory"),
    ("memory-mib", "vm.memory"),
    ("network-adapters", "vm.networks"),
    ("nics", "vm.networks"),
    ("os-type", "vm.ostype"),
    ("output", "images"),
    ("output-directory", "images"),
    ("packet-queues", "queues"),
    ("password", "token-secret"),
    ("provisioner", "provision"),
    ("provisioners", "provision"),
    ("proxmox-url", "url"),
    ("qemu-additional-args", "vm.args"),
    ("qemu-agent", "vm.agent"),
    ("qemu-binary", "binary"),
    ("qemu-guest-agent", "vm.agent"),
    ("qemuargs", "vm.args"),
    ("ram", "vm.memory"),
    ("rng0", "vm.rng"),
    ("scsi-controller", "vm.scsihw"),
    ("secret", "token-secret"),
    ("secure-boot", "vm.efi-disk"),
    ("shutdown-timeout", "deadlines.shutdown"),
    ("ssh-agent-auth", "access.agent-auth"),
    ("ssh-bastion-agent-auth", "access.bastions"),
    ("ssh-bastion-certificate-file", "access.bastions"),
    ("ssh-bastion-host", "access.bastions"),
    ("ssh-bastion-password", "access.bastions"),
    ("ssh-bastion-port", "access.bastions"),
    ("ssh-bastion-private-key-file", "access.bastions"),
    ("ssh-bastion-username", "access.bastions"),
    ("ssh-certificate-file", "access.certificate-file"),
    ("ssh-ciphers", "access.old-algorithms"),
    ("ssh-host", "access.host"),
    ("ssh-key-exchange-algorithms", "access.old-algorithms"),
    ("ssh-password", "access.password"),
    ("ssh-port", "access.port"),
    ("ssh-private-key-file", "access.key-file"),
    ("ssh-proxy-host", "access.proxy"),
    ("ssh-proxy-password", "access.proxy"),
    ("ssh-proxy-port", "access.proxy"),
    ("ssh-proxy-username", "access.proxy"),
    ("ssh-timeout", "deadlines.connect"),
    ("ssh-username", "access.user"),
    ("start-retry-timeout", "timeout"),
    ("storage-pool", "storage.disks"),
    ("sudo", "become"),
    ("template-description", "template.description"),
    ("template-name", "template.name"),
    ("timezone", "seed.user-data"),
    ("token", "token-secret"),
    ("token-name", "token-id"),
    ("tpm-config", "vm.tpm"),
    ("userdata", "seed.user-data"),
    ("username", "token-id"),
    ("vcpus", "vm.cores"),
    ("verify-tls", "tls"),
    ("vlan-tag", "vlan"),
    ("vm-interface", "access.interface"),
    ("vm-name", "template.name"),
    ("vtpm", "vm.tpm"),
    ("winrm-password", "access.password"),
    ("winrm-port", "access.port"),
    ("winrm-timeout", "deadlines.connect"),
    ("winrm-username", "access.user"),
];

/// Forge's dotted name of a setting that another tool calls `word`.
#[must_use]
pub fn elsewhere(word: &str) -> Option<&'static str> {
    let word = word.replace('_', "-").to_lowercase();
    ELSEWHERE
        .binary_search_by(|(name, _)| (*name).cmp(&word))
        .ok()
        .and_then(|at| ELSEWHERE.get(at))
        .map(|(_, here)| *here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_order_so_that_each_is_found() {
        for (name, here) in ELSEWHERE {
            assert_eq!(elsewhere(name), Some(here), "{name} is out of order");
        }
        assert_eq!(elsewhere("SSH_Username"), Some("access.user"));
        assert_eq!(elsewhere("nothing"), None);
    }
}
