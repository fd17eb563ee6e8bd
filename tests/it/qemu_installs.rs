//! Installs by the real program on the QEMU of this machine: a medium that writes a disk, typed to or started by its
//! kernel, to every format, and what was installed boots.

use std::path::PathBuf;

use forge_lab::images;
use sha2::{Digest as _, Sha256};

use crate::support::local_site::{LocalSite, checked};
use crate::support::web::{Page, Web};

/// What all installs here have in common; the medium finds its answers where `SOURCE` or `BOOT` says.
const PROFILE: &str = r#"schema = 1
name = "installed"

[os]
family = "linux"

[output]
formats = ["qcow2", "raw", "vmdk"]

[source]
iso = ISO
SOURCE

[vm]
memory = "384MiB"
HARDWARE
disks = [{ slot = "scsi0", size = "512MiB" }, { slot = "virtio0", size = "16MiB" }]
qemu = { cdrom-interface = "scsi" }

[seed]
kind = "kickstart"
lint = false
hostname = "from-a-medium"
files = { answers = "answers.tera" }

[boot]
steps = [BOOT]

[access]
user = "root"

[deadlines]
connect = "15m"

[[provision]]
name = "look"
shell = [
  "test -s /etc/installed-by-medium",
  "echo host $(hostname)",
  "echo start $(cat /proc/cmdline)",
  "echo second disk $(cat /sys/block/vda/size)",
  "echo drive $(ls /dev/sr0 2>/dev/null || echo none)",
  "echo on the second disk | dd of=/dev/vda conv=sync",
]
"#;

/// The site with the medium and the profile; `None`, with the reason printed, where there can be none.
fn site(source: &str, boot: &str, uefi: bool, after: &str) -> anyhow::Result<Option<LocalSite>> {
    Ok(medium(uefi)?
        .map(|iso| site_with(&format!("{:?}", iso.display().to_string()), source, boot, uefi, after)))
}

/// The medium; `None`, with the reason printed, where no guest is wanted.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn medium(uefi: bool) -> anyhow::Result<Option<PathBuf>> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    }
    let make = if uefi { images::install_uefi } else { images::install };
    Ok(Some(make(&images::default_cache_root())?.iso))
}

/// The site with the profile, whose medium is `iso` in TOML.
fn site_with(iso: &str, source: &str, boot: &str, uefi: bool, after: &str) -> LocalSite {
    let site = LocalSite::new();
    let profile = PROFILE.replace("ISO", iso).replace("HARDWARE", if uefi { "bios = \"ovmf\"" } else { "" });
    site.write("installed.toml", &profile.replace("SOURCE", source).replace("BOOT", boot));
    site.write(
        "answers.tera",
        &format!("hostname={{{{ hostname }}}}\nkey={{{{ user.key }}}}\nafter={after}\n"),
    );
    site
}

/// Asserts what every install comes to.
fn assert_installed(site: &LocalSite, said: &str, more: &[&str]) {
    assert!(said.contains("host from-a-medium"), "the answers were read: {said}");
    assert!(said.contains("second disk 32768"), "{said}");
    assert!(!said.contains("answers=http"), "it was started from its disk: {said}");
    let mut expected = vec![
        "tpl-installed-1.qcow2",
        "tpl-installed-1.raw",
        "tpl-installed-1.vmdk",
        "tpl-installed.SHA256SUMS",
        "tpl-installed.manifest.json",
        "tpl-installed.qcow2",
        "tpl-installed.raw",
        "tpl-installed.vmdk",
    ];
    expected.extend(more);
    expected.sort_unstable();
    assert_eq!(site.images(), expected);
    for format in ["qcow2", "raw", "vmdk"] {
        assert_eq!(checked(&site.image(&format!("tpl-installed.{format}")), format), 512 << 20);
        assert_eq!(checked(&site.image(&format!("tpl-installed-1.{format}")), format), 16 << 20);
    }
    let second = std::fs::read(site.image("tpl-installed-1.raw")).expect("there");
    assert!(second.starts_with(b"on the second disk\n"), "what the guest wrote is in it");
    site.assert_nothing_left();
}

/// What is typed at the menu of the medium: its entry, with an argument more.
const TYPED: &str = r#"
  { wait-for = "Install the tiny guest", within = "5m" },
  { keys = "c" },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "linux /boot/vmlinuz no_timer_check console=ttyS0 console=tty0 answers={{ seed.url }}answers", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "initrd /boot/initrd", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' } },
  { type = "boot", enter = true },
"#;

#[test]
fn a_tiny_guest_is_installed_by_keys_that_are_typed_at_the_mediums_menu() -> anyhow::Result<()> {
    let Some(site) = site("", TYPED, false, "reboot")? else { return Ok(()) };
    let said = site.succeeds(&["build", "installed.toml"]);
    assert_installed(&site, &said, &[]);
    Ok(())
}

#[test]
fn a_tiny_guest_is_installed_under_uefi_by_keys_that_are_typed_at_the_mediums_menu() -> anyhow::Result<()> {
    let Some(site) = site("", TYPED, true, "reboot")? else { return Ok(()) };
    let said = site.succeeds(&["build", "installed.toml"]);
    assert_installed(&site, &said, &["tpl-installed.efivars.fd"]);
    Ok(())
}

/// The medium's own kernel, started with its answers on its line.
const KERNEL: &str = r#"kernel = { iso = "/boot/vmlinuz" }
initrd = { iso = "/boot/initrd" }
cmdline = "quiet no_timer_check console=ttyS0 console=tty0 mitigations=off answers={{ seed.url }}answers"
"#;

/// The medium comes from a web server with the publisher's sums beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_installed_by_the_kernel_of_a_downloaded_medium_and_nothing_is_typed()
-> anyhow::Result<()> {
    let Some(iso) = tokio::task::spawn_blocking(|| medium(false)).await?? else { return Ok(()) };
    let content = std::fs::read(iso)?;
    let sum: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let sums = Page::new(format!("{sum}  install.iso\n"));
    let web = Web::with([("install.iso", Page::new(content)), ("SHA256SUMS", sums)]).await;
    let iso =
        format!("{{ url = {:?}, checksum = \"file:{}\" }}", web.url("install.iso"), web.url("SHA256SUMS"));
    // The installer says on its serial port what it does.
    let boot = "{ wait-for = { serial = '^installer: installed; rebooting$' }, within = \"10m\" }";
    let site = site_with(&iso, KERNEL, boot, false, "reboot");
    let (site, said) = tokio::task::spawn_blocking(move || {
        let said = site.succeeds(&["--cache-dir", "cache", "build", "installed.toml"]);
        let plan = site.succeeds(&["--cache-dir", "cache", "plan", "installed.toml"]);
        (site, format!("{said}{plan}"))
    })
    .await?;
    assert!(said.contains("the installer is done"), "{said}");
    assert!(said.contains("in the cache: ") && said.contains(&format!("(sha256:{sum})")), "{said}");
    let fetched = web.gets().iter().filter(|call| call.uri.ends_with("install.iso")).count();
    assert_eq!(fetched, 1, "{:?}", web.gets());
    assert_installed(&site, &said, &[]);
    let serial = std::fs::read_to_string(site.path().join("output/installed/latest/serial.log"))?;
    for words in ["installer: starting", "installer: installed"] {
        assert!(serial.contains(words), "{words}: {serial}");
    }
    Ok(())
}

#[test]
fn a_tiny_guest_is_installed_under_uefi_and_its_medium_powers_off_when_it_is_done() -> anyhow::Result<()> {
    let poweroff = format!("{KERNEL}after-install = \"poweroff\"\n");
    let Some(site) = site(&poweroff, "", true, "poweroff")? else { return Ok(()) };
    let said = site.succeeds(&["build", "installed.toml"]);
    assert!(said.contains("the installer is done"), "{said}");
    assert!(said.contains("drive none"), "the medium is not there any more: {said}");
    assert_installed(&site, &said, &["tpl-installed.efivars.fd"]);
    Ok(())
}
