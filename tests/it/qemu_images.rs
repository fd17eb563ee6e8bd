//! Disk images that are customised by the real program on the QEMU of this machine: under BIOS and UEFI, on different
//! buses, to every format.

use anyhow::Context as _;
use forge_lab::images;

use crate::support::local_site::{LocalSite, checked};

const PROFILE: &str = r#"schema = 1
name = "custom"

[os]
family = "linux"

[output]
formats = ["qcow2", "raw", "vmdk"]

[source]
SOURCE

[vm]
memory = "384MiB"
HARDWARE

[deadlines]
connect = "15m"
"#;

const LOOK: &str = r#"
[[provision]]
name = "look"
shell = ["LOOK"]
"#;

/// What the guest's disk starts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    Bios,
    Uefi,
    Signed,
}

/// A site for the tiny guest; `None`, with the reason printed, where there can be none.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn site(guest: Guest, hardware: &str, more: &str) -> anyhow::Result<Option<LocalSite>> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    }
    let make = match guest {
        Guest::Bios => images::tiny,
        Guest::Uefi => images::tiny_uefi,
        Guest::Signed => images::tiny_signed,
    };
    let disk = make(&images::default_cache_root())?.disk;
    let site = LocalSite::new();
    let source = format!("image = {{ file = \"{}\", copy = {} }}", disk.display(), guest == Guest::Uefi);
    let profile = PROFILE.replace("SOURCE", &source).replace("HARDWARE", hardware);
    site.write("custom.toml", &format!("{profile}{more}"));
    Ok(Some(site))
}

fn assert_images(site: &LocalSite, disks: &[(&str, u64)], more: &[&str]) {
    let mut expected: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
    expected.extend(["tpl-custom.SHA256SUMS", "tpl-custom.manifest.json"].map(str::to_owned));
    for (name, size) in disks {
        for format in ["qcow2", "raw", "vmdk"] {
            let file = format!("{name}.{format}");
            assert_eq!(checked(&site.image(&file), format), *size, "{file}");
            expected.push(file);
        }
    }
    expected.sort();
    assert_eq!(site.images(), expected);
    site.assert_nothing_left();
}

#[test]
fn a_tiny_guest_is_customised_on_an_older_board_to_every_format() -> anyhow::Result<()> {
    let hardware = r#"machine = "i440fx"
sockets = 2
cores = 1
numa = true
vga = "cirrus"
networks = [{ mac = "BC:24:11:00:00:01" }]
disks = [{ slot = "virtio0", size = "300MiB" }]
"#;
    let look = "echo size $(cat /sys/block/vda/size); ls -d /sys/devices/system/node/node1; \
        echo mac $(cat /sys/class/net/*/address); echo devices $(cat /sys/bus/pci/devices/*/device); \
        sudo dd if=/dev/urandom of=/var/junk bs=1M count=40; sync; sudo rm /var/junk";
    let look = LOOK.replace("LOOK", look);
    let Some(site) = site(Guest::Bios, hardware, &look)? else { return Ok(()) };
    let said = site.succeeds(&["build", "custom.toml"]);
    // The last is the Cirrus adapter's PCI id.
    for words in ["size 614400", "/sys/devices/system/node/node1", "bc:24:11:00:00:01", "0x00b8"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_images(&site, &[("tpl-custom", 300 << 20)], &[]);
    let before = std::fs::metadata(images::tiny(&images::default_cache_root())?.disk)?.len();
    let taken = std::fs::metadata(site.image("tpl-custom.qcow2"))?.len();
    assert!(
        taken < before + (20 << 20),
        "what was removed in the guest is not in the image: {before}, {taken}"
    );
    Ok(())
}

/// A board without legacy devices, and no boot loader; nothing of the guest's is on a PCI bus. Translated, it has no clock
/// that its kernel could measure the processor's by, so it is told.
#[test]
fn a_tiny_guest_is_customised_on_a_microvm_whose_kernel_is_started_without_a_boot_loader()
-> anyhow::Result<()> {
    let hardware = "machine = \"microvm\"\ndisks = [{ slot = \"virtio0\" }]";
    let look = "cat /proc/cmdline; cd /sys/bus/virtio/devices; echo $(ls | wc -l) devices, \
        $(readlink * | grep -c pci || true) of them on PCI";
    let Some(site) = site(Guest::Bios, hardware, &LOOK.replace("LOOK", look))? else { return Ok(()) };
    let [kernel, initrd] = images::tiny(&images::default_cache_root())?.kernel();
    let profile = std::fs::read_to_string(site.path().join("custom.toml"))?;
    let source = format!(
        "[source]\nkernel = {{ file = {kernel:?} }}\ninitrd = {{ file = {initrd:?} }}\ncmdline = \"rw quiet \
         console=ttyS0 mitigations=off no_timer_check tsc_early_khz={} ds=nocloud;s={{{{ seed.url }}}}\"\n",
        tsc_khz()?
    );
    site.write("custom.toml", &profile.replace("[source]\n", &source));
    let said = site.succeeds(&["build", "custom.toml"]);
    assert!(said.contains("ds=nocloud;s=http"), "{said}");
    assert!(!said.contains("a microvm has no clock"), "it is told one: {said}");
    assert!(said.contains("4 devices, 0 of them on PCI"), "{said}");
    assert_images(&site, &[("tpl-custom", 256 << 20)], &[]);
    Ok(())
}

/// The frequency of the clock that a guest gets which is translated: this machine's own.
fn tsc_khz() -> anyhow::Result<u64> {
    let about = std::fs::read_to_string("/proc/cpuinfo")?;
    let mhz = about.lines().find(|line| line.starts_with("cpu MHz")).and_then(|line| line.rsplit(' ').next());
    Ok((mhz.context("no frequency in /proc/cpuinfo")?.parse::<f64>()? * 1000.0) as u64)
}

#[test]
fn a_tiny_guest_under_uefi_has_a_tpm_and_an_nvme_disk_and_its_variables_are_kept() -> anyhow::Result<()> {
    let hardware = "bios = \"ovmf\"\ntpm = true\ndisks = [{ slot = \"scsi0\" }, { slot = \"nvme0\", size = \"16MiB\", serial = \"the-second\" }]";
    let look =
        "ls -d /sys/firmware/efi /sys/class/tpm/tpm0 /sys/block/nvme0n1; cat /sys/class/nvme/nvme0/serial";
    let Some(site) = site(Guest::Uefi, hardware, &LOOK.replace("LOOK", look))? else { return Ok(()) };
    let said = site.succeeds(&["build", "custom.toml"]);
    for words in ["/sys/firmware/efi", "/sys/class/tpm/tpm0", "/sys/block/nvme0n1", "the-second"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let disks = [("tpl-custom", 264 << 20), ("tpl-custom-1", 16 << 20)];
    assert_images(&site, &disks, &["tpl-custom.efivars.fd"]);
    Ok(())
}

#[test]
fn a_tiny_guest_whose_loaders_and_kernel_are_signed_is_built_with_secure_boot_on() -> anyhow::Result<()> {
    let look = "sudo dmesg | grep -i 'secure boot'; cat /sys/kernel/security/lockdown || true";
    let hardware = "efi-disk = { pre-enrolled-keys = true }";
    let Some(site) = site(Guest::Signed, hardware, &LOOK.replace("LOOK", look))? else { return Ok(()) };
    let said = site.succeeds(&["build", "custom.toml"]);
    assert!(said.to_lowercase().contains("secure boot enabled"), "{said}");
    assert_images(&site, &[("tpl-custom", 264 << 20)], &["tpl-custom.efivars.fd"]);
    Ok(())
}

#[test]
fn a_tiny_guest_without_a_signature_is_not_started_when_secure_boot_is_on() -> anyhow::Result<()> {
    let hardware = "efi-disk = { pre-enrolled-keys = true }";
    let boot = r#"
[boot]
steps = [{ expect = [
  { text = "Access Denied", fail = "the firmware refused it" },
  { text = "Security Violation", fail = "the firmware refused it" },
], within = "5m" }]
"#;
    let Some(site) = site(Guest::Uefi, hardware, boot)? else { return Ok(()) };
    let said = site.run(&["build", "custom.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("the firmware refused it"), "{}", said.text);
    site.assert_nothing_left();
    Ok(())
}

#[test]
fn an_image_whose_free_space_holds_a_secret_is_not_written_unless_the_seal_has_overwritten_it()
-> anyhow::Result<()> {
    let word = "a-secret-that-stands-nowhere-else-4711";
    let more = r#"
[variables.token]
type = "string"
secret = true

[[provision]]
name = "write and remove"
become = true
env = { TOKEN = "{{ var.token }}" }
shell = ["printf '%s\n' \"$TOKEN\" >/root/there", "sync", "rm /root/there", "sync"]
"#;
    let Some(site) = site(Guest::Bios, "", more)? else { return Ok(()) };
    let profile = std::fs::read_to_string(site.path().join("custom.toml"))?;
    site.write("custom.toml", &format!("{profile}\n[seal]\nfree-space = false\n"));
    let value = format!("token={word}");
    let said = site.run(&["build", "custom.toml", "--var", &value]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("the image would hold a secret of the build on disk"), "{}", said.text);
    assert!(!said.text.contains(word) && !site.image("tpl-custom.raw").exists(), "{}", said.text);

    site.write("custom.toml", &profile);
    let said = site.run(&["build", "custom.toml", "--var", &value]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.contains("overwritten: there was something of the build in it"), "{}", said.text);
    let image = std::fs::read(site.image("tpl-custom.raw"))?;
    assert!(!image.windows(word.len()).any(|bytes| bytes == word.as_bytes()));
    Ok(())
}
