//! Finds the system packages that the lab needs, and installs the missing ones.
//!
//! Whether something is there is judged by the file that is used, not by the package manager's word, so that any
//! distribution will do; installing is for Debian and what derives from it. Nothing is said when nothing is missing.

pub mod node;
pub mod python;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::images::{apt, command};

/// One thing the lab needs: what it is used for, its package on Debian, and the file that proves it.
struct Need {
    package: &'static str,
    proof: Proof,
    purpose: &'static str,
}

/// What shows that a package is there.
enum Proof {
    /// A program in the path.
    Program(&'static str),
    /// A file at a fixed place.
    File(&'static str),
}

const fn program(package: &'static str, name: &'static str, purpose: &'static str) -> Need {
    Need { package, proof: Proof::Program(name), purpose }
}

/// Everything, in the order in which it is named to people.
const NEEDS: [Need; 30] = [
    program("qemu-system-x86", "qemu-system-x86_64", "runs the guests"),
    program("qemu-utils", "qemu-img", "makes their disks"),
    Need {
        package: "seabios",
        proof: Proof::File("/usr/share/seabios/bios-256k.bin"),
        purpose: "is their firmware",
    },
    Need {
        package: "ovmf",
        proof: Proof::File("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        purpose: "is their UEFI firmware",
    },
    program("swtpm", "swtpm", "is their TPM"),
    program("mmdebstrap", "mmdebstrap", "makes the guests from the distribution's packages"),
    program("e2fsprogs", "mke2fs", "makes their file systems"),
    program("grub-common", "grub-mkimage", "makes their boot loader"),
    Need {
        package: "grub-pc-bin",
        proof: Proof::File("/usr/lib/grub/i386-pc/boot.img"),
        purpose: "is their boot loader",
    },
    Need {
        package: "grub-efi-amd64-bin",
        proof: Proof::File("/usr/lib/grub/x86_64-efi/kernel.img"),
        purpose: "is the boot loader of the install medium",
    },
    program("mtools", "mcopy", "makes the UEFI part of the install medium"),
    program("packer", "packer", "is a client that was written for the real Proxmox"),
    program("cpio", "cpio", "makes their initrd"),
    program("genisoimage", "genisoimage", "makes cloud-init drives"),
    program("iproute2", "ip", "sets up the network namespace"),
    program("dnsmasq-base", "dnsmasq", "gives guests on real bridges their addresses"),
    program("util-linux", "unshare", "enters the network namespace"),
    Need {
        package: "memtest86+",
        proof: Proof::File("/boot/memtest86+x64.bin"),
        purpose: "is a screen to read",
    },
    Need { package: "ipxe", proof: Proof::File("/usr/lib/ipxe/ipxe.lkrn"), purpose: "is a screen to read" },
    Need {
        package: "isolinux",
        proof: Proof::File("/usr/lib/ISOLINUX/isolinux.bin"),
        purpose: "is a screen to read",
    },
    Need {
        package: "syslinux-common",
        proof: Proof::File("/usr/lib/syslinux/modules/bios/vesamenu.c32"),
        purpose: "is a screen to read",
    },
    Need {
        package: "console-setup-linux",
        proof: Proof::File("/usr/share/consolefonts/Lat15-Fixed16.psf.gz"),
        purpose: "holds the fonts of screens to read",
    },
    program("kbd", "setfont", "sets the fonts of screens to read"),
    Need {
        package: "console-data",
        proof: Proof::File("/usr/share/keymaps/i386/qwertz/de-latin1.kmap.gz"),
        purpose: "holds the keymaps of keyboards to type on",
    },
    program("whiptail", "whiptail", "is a screen to read"),
    program("openssh-client", "ssh", "tries the template as a user would"),
    program("xorriso", "xorriso", "reads seed discs back"),
    program("dosfstools", "fsck.fat", "reads seed floppies back"),
    program("cloud-init", "cloud-init", "judges the user-data that forge renders"),
    program("libxml2-utils", "xmllint", "reads the answer files for Windows and YaST"),
];

/// What only the tests need.
const TESTS_NEED: [Need; 8] = [
    program("ansible-core", "ansible-playbook", "provisions a guest by a playbook"),
    program("openssh-server", "sshd", "is a server to log in to; it is kept from running by itself"),
    program("chromium", "chromium", "is a browser, for noVNC and the lab's page"),
    program("npm", "npm", "installs noVNC"),
    program("make", "make", "runs the goals of the pipelines' Makefile"),
    program("acl", "setfacl", "gives a folder what its new files inherit"),
    Need {
        package: "systemd-boot-efi",
        proof: Proof::File("/usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
        purpose: "is a boot loader to type at",
    },
    Need {
        package: "debian-installer-12-netboot-amd64",
        proof: Proof::File("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz"),
        purpose: "is an installer that follows forge's preseed",
    },
];

/// What only the medium of FAI is made with.
const FAI_NEEDS: [Need; 3] = [
    program("fai-server", "fai-make-nfsroot", "makes a medium of FAI"),
    program("squashfs-tools", "mksquashfs", "makes the file system on it"),
    program("zstd", "zstd", "packs the system that it installs"),
];

/// The release whose own QEMU is too old beside a newer `qemu-utils`: it comes from its backports.
const BACKPORTS_RELEASE: &str = "bookworm";
/// The sources file that is written when the backports are not among apt's sources.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/forge-backports.sources";

/// The file whose presence keeps Debian's OpenSSH server from being started.
const SSHD_NOT_TO_BE_RUN: &str = "/etc/ssh/sshd_not_to_be_run";

/// Installs what is missing.
///
/// `say` is called with a line for people before anything is changed, and never when nothing is missing.
///
/// # Errors
/// Something is missing and the process is not root or the host is no Debian (the message says what to run or what is
/// needed), or apt fails.
pub fn ensure(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    install_what_is_missing(&NEEDS.each_ref(), say)
}

/// As [`ensure`], with what only the tests need.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_for_tests(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let all: Vec<&Need> = NEEDS.iter().chain(&TESTS_NEED).collect();
    install_what_is_missing(&all, say)
}

/// As [`ensure`], with what only the medium of FAI is made with.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_for_fai(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let all: Vec<&Need> = NEEDS.iter().chain(&FAI_NEEDS).collect();
    install_what_is_missing(&all, say)
}

fn install_what_is_missing(needs: &[&Need], say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let missing = missing_from(needs, &search_path());
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let release = OsRelease::of_host();
    if !release.is_debian_like() || !Path::new("/usr/bin/apt-get").exists() {
        let lines: Vec<String> =
            missing.iter().map(|need| format!("  {} ({})", need.proof.name(), need.purpose)).collect();
        bail!(
            "the lab needs programs that this machine lacks; install what holds them on your distribution:\n{}",
            lines.join("\n")
        );
    }
    let backports = (release.codename == BACKPORTS_RELEASE
        && packages.iter().any(|package| package.starts_with("qemu-")))
    .then(|| format!("{BACKPORTS_RELEASE}-backports"));
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the lab needs packages that only root can install; run:\n{}",
            commands(&packages, backports.as_deref())
        );
    }
    say(&format!("installing {} with apt-get", packages.join(", ")));
    if apt::sources().is_err() {
        apt_get(&["update", "-q"])?;
    }
    if let Some(suite) = &backports
        && !apt::has_suite(suite)?
    {
        let uri = apt::mirror()?;
        say(&format!("adding {suite} to apt's sources in {BACKPORTS_FILE}, for QEMU"));
        std::fs::write(BACKPORTS_FILE, backports_source(&uri, suite))
            .with_context(|| format!("{BACKPORTS_FILE} can't be written"))?;
    }
    apt_get(&["update", "-q"])?;
    let (qemu, others): (Vec<&str>, Vec<&str>) =
        packages.iter().partition(|package| package.starts_with("qemu-") || **package == "seabios");
    if !qemu.is_empty() {
        let target = backports.as_deref().map(|suite| ["-t", suite]);
        let mut arguments: Vec<&str> = target.iter().flatten().copied().collect();
        // The two are built together and refuse each other's other versions.
        arguments.extend(["qemu-system-x86", "qemu-utils", "seabios"]);
        install(&arguments)?;
    }
    if !others.is_empty() {
        // Debian's own switch: the tests run their own, and this machine opens no port for them.
        if others.contains(&"openssh-server") {
            std::fs::create_dir_all("/etc/ssh")
                .and_then(|()| std::fs::write(SSHD_NOT_TO_BE_RUN, ""))
                .with_context(|| format!("{SSHD_NOT_TO_BE_RUN} can't be written"))?;
        }
        install(&others)?;
    }
    let left: Vec<&str> = missing_from(needs, &search_path()).iter().map(|need| need.package).collect();
    if !left.is_empty() {
        bail!("apt-get installed {}, yet their files are not there", left.join(", "));
    }
    Ok(())
}

/// Whether nothing is missing.
pub fn is_complete() -> bool {
    missing_from(&NEEDS.each_ref(), &search_path()).is_empty()
}

impl Proof {
    fn name(&self) -> &'static str {
        match self {
            Proof::Program(name) | Proof::File(name) => name,
        }
    }

    fn is_there(&self, path: &[PathBuf]) -> bool {
        match self {
            Proof::Program(name) => path.iter().any(|folder| folder.join(name).is_file()),
            Proof::File(file) => Path::new(file).is_file(),
        }
    }
}

fn missing_from<'a>(needs: &[&'a Need], path: &[PathBuf]) -> Vec<&'a Need> {
    needs.iter().copied().filter(|need| !need.proof.is_there(path)).collect()
}

/// The folders of programs, with those for administrators, which a plain user's path lacks on Debian.
fn search_path() -> Vec<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&own).collect();
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    folders
}

/// What a person has to run in root's place.
fn commands(packages: &[&str], backports: Option<&str>) -> String {
    let all = packages.join(" ");
    match backports {
        None => format!("  sudo apt-get update && sudo apt-get install -y --no-install-recommends {all}"),
        Some(suite) => format!(
            "  # once, when {suite} is not among apt's sources: add it, from the mirror that you use\n\
             \x20 sudo apt-get update && sudo apt-get install -y --no-install-recommends -t {suite} {all}"
        ),
    }
}

fn backports_source(uri: &str, suite: &str) -> String {
    format!(
        "# Added by forge's lab: QEMU of the same version as qemu-utils.\n\
         Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )
}

fn install(arguments: &[&str]) -> anyhow::Result<()> {
    let mut all = vec!["install", "-y", "-q", "--no-install-recommends"];
    all.extend(arguments);
    apt_get(&all)
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let mut apt_get = command::command("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command::run(&mut apt_get).map(drop)
}

/// What `/etc/os-release` says.
struct OsRelease {
    id: String,
    like: String,
    codename: String,
}

impl OsRelease {
    fn of_host() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim_matches('"').to_owned()
        };
        Self { id: value("ID"), like: value("ID_LIKE"), codename: value("VERSION_CODENAME") }
    }

    fn is_debian_like(&self) -> bool {
        self.id == "debian" || self.like.split_whitespace().any(|like| like == "debian")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_release_is_read_with_and_without_quotes() {
        let release = OsRelease::parse("NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n");
        assert_eq!(release.codename, "bookworm");
        assert!(release.is_debian_like());
        let release = OsRelease::parse("ID=ubuntu\nID_LIKE=\"debian\"\nVERSION_CODENAME=\"noble\"\n");
        assert!(release.is_debian_like());
        assert!(!OsRelease::parse("ID=fedora\nVERSION_CODENAME=\"\"\n").is_debian_like());
    }

    #[test]
    fn a_path_without_the_programs_misses_all_of_them() {
        let missing = missing_from(&NEEDS.each_ref(), &[PathBuf::from("/nonexistent")]);
        assert!(missing.iter().any(|need| need.package == "qemu-system-x86"));
        assert!(missing.iter().all(|need| !need.purpose.is_empty()));
    }

    #[test]
    fn a_plain_user_is_given_the_whole_command() {
        let text = commands(&["mmdebstrap", "cpio"], None);
        assert_eq!(
            text,
            "  sudo apt-get update && sudo apt-get install -y --no-install-recommends mmdebstrap cpio"
        );
        assert!(
            commands(&["qemu-utils"], Some("bookworm-backports"))
                .contains("-t bookworm-backports qemu-utils")
        );
    }
}
