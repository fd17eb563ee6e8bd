//! FAI (Fully Automatic Installation) from a medium that its own tools made of Debian's packages, started by forge on local
//! QEMU: what is typed at its menu leads it to the seed, where its configuration space lies, and it installs a Debian.

use std::path::Path;

use forge_lab::images;

use crate::support::local_site::{LocalSite, checked};

const PROFILE: &str = r#"schema = 1
name = "fai"

[os]
family = "linux"

[output]
formats = ["qcow2"]

[source]
iso = "MEDIUM"

[vm]
memory = "1GiB"
disks = [{ slot = "scsi0", size = "2GiB" }]
# The medium's kernel, the one for clouds, has no driver for SATA.
qemu = { cdrom-interface = "scsi" }

[seed]
kind = "kickstart"
lint = false
delivery = ["typed"]
hostname = "by-fai"
files = { "space.tar" = "space.tar", key = "key.tera", hostname = "hostname.tera" }

[boot]
steps = [
  { wait-for = "Client standalone installation", within = "10m" },
  { keys = "c" },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "search --set=root --file /FAI-CD", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "linux /boot/vmlinuz LINE", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "initrd /boot/initrd.img", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "boot", enter = true },
  { wait-for = { serial = 'Calling task_partition' }, within = "30m" },
  { wait-for = { serial = '^Rebooting .* now' }, within = "60m" },
]

[access]
user = "root"

[deadlines]
boot = "60m"
connect = "60m"

[[provision]]
name = "look"
shell = [
  "echo classes $(cat /etc/installed-by-fai)",
  "echo host $(hostname)",
  "echo start $(cat /proc/cmdline)",
  "echo root $(findmnt -no SOURCE,FSTYPE /)",
  "cat /var/log/fai/localhost/last/status.log",
]
"#;

/// The kernel's line of FAI's menu, with the seed in the place of the medium's own space, and where to say what it does.
const LINE: &str = "FAI_FLAGS=verbose,reboot FAI_ACTION=install FAI_CONFIG_SRC={{ seed.url }}space.tar \
    rd.live.image root=live:CDLABEL=FAI_CD rd.neednet ip=dhcp no_timer_check mitigations=off console=tty0 console=ttyS0";

/// The configuration space: one class, its disk, and its scripts, which ask the seed for what is of this build alone.
const SPACE: [(&str, u32, &str); 7] = [
    ("class/10-forge", 0o755, "#!/bin/sh\necho FORGE\n"),
    ("class/FORGE.var", 0o644, "UTC=yes\nSTOP_ON_ERROR=300\nMAXPACKAGES=800\nLOGUSER=\n"),
    ("debconf/FORGE", 0o644, "grub-pc grub-pc/install_devices_empty boolean true\n"),
    ("files/etc/apt/sources.list/FORGE", 0o644, "# All that is needed is in the base file.\n"),
    (
        "disk_config/FORGE",
        0o644,
        "disk_config disk1 disklabel:msdos bootable:1 fstabkey:uuid\n\
         primary / 500M- ext4 rw,noatime,errors=remount-ro\n",
    ),
    (
        "scripts/FORGE/10-system",
        0o755,
        r#"#!/bin/bash
error=0; trap 'error=$(($?>$error?$?:$error))' ERR
seed=${FAI_CONFIG_SRC%/*}
mkdir -p -m 700 $target/root/.ssh
curl -fsS -o $target/root/.ssh/authorized_keys $seed/key
chmod 600 $target/root/.ssh/authorized_keys
curl -fsS -o $target/etc/hostname $seed/hostname
echo "127.0.0.1 localhost $(< $target/etc/hostname)" > $target/etc/hosts
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' > $target/etc/systemd/network/all.network
$ROOTCMD systemctl enable systemd-networkd ssh
$ROOTCMD ssh-keygen -A
echo $classes > $target/etc/installed-by-fai
exit $error
"#,
    ),
    (
        "scripts/FORGE/20-grub",
        0o755,
        r#"#!/bin/bash
error=0; trap 'error=$(($?>$error?$?:$error))' ERR
. $LOGDIR/disk_var.sh
cat > $target/etc/default/grub <<'G'
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX="no_timer_check mitigations=off console=ttyS0 console=tty0"
GRUB_TERMINAL=console
G
$ROOTCMD grub-install --no-floppy $BOOT_DEVICE
$ROOTCMD update-grub
exit $error
"#,
    ),
];

/// Writes the configuration space as FAI fetches it: an archive.
fn write_space(path: &Path) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(std::fs::File::create(path)?);
    for (name, mode, text) in SPACE {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.finish()
}

/// `cargo lab soak install-fai`: from FAI's menu to an image of what it installed.
#[test]
#[ignore = "it makes a medium of FAI from Debian's packages, and installs by it"]
fn soak_install_fai() -> anyhow::Result<()> {
    let medium = images::fai(&images::default_cache_root())?;
    let site = LocalSite::new();
    let profile = PROFILE.replace("MEDIUM", &medium.iso.display().to_string()).replace("LINE", LINE);
    site.write("fai.toml", &profile);
    site.write("key.tera", "{{ user.key }}\n");
    site.write("hostname.tera", "{{ hostname }}\n");
    write_space(&site.path().join("space.tar"))?;
    let said = site.succeeds(&["build", "fai.toml"]);
    eprintln!("{said}");
    assert!(said.contains("classes DEFAULT FORGE "), "the space's class was taken: {said}");
    assert!(said.contains("host by-fai"), "the seed was asked: {said}");
    assert!(said.contains("root /dev/sda1 ext4"), "the space's partition is the system's: {said}");
    let start = said.lines().find(|line| line.contains("start BOOT_IMAGE="));
    assert!(start.is_some_and(|line| !line.contains("FAI_")), "it was started from its disk: {said}");
    for script in ["FORGE/10-system", "FORGE/20-grub"] {
        let ran = said.lines().any(|line| line.contains(script) && line.trim_end().ends_with("OK."));
        assert!(ran, "{script} has run, and FAI says that it went well: {said}");
    }
    assert_eq!(checked(&site.image("tpl-fai.qcow2"), "qcow2"), 2 << 30);
    site.assert_nothing_left();
    Ok(())
}
