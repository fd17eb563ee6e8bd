//! Floppies that forge made, read by real programs in real guests on local QEMU. The kernels of the lab's guests are made for
//! clouds and drive no floppy: GRUB reads it, by the BIOS.

use std::process::Command;

use forge_lab::images;

use crate::support::local_site::LocalSite;
use crate::support::raw_disk::RawDisk;

/// Whether real guests are wanted.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn guests() -> bool {
    let wanted = std::env::var_os("FORGE_LAB").is_some();
    if !wanted {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
    }
    wanted
}

/// What the boot loader finds on the floppy decides what the guest's kernel is told.
const MENU: &str = r#"terminal_input console
terminal_output console
set gfxpayload=text
set timeout=0
source (fd0)/boot/deep/note.cfg
menuentry "tiny" {
    linux /boot/vmlinuz rw quiet no_timer_check console=ttyS0 console=tty0 mitigations=off note=$note
    initrd /boot/initrd
}
"#;

#[test]
fn the_boot_loader_of_a_tiny_guest_reads_files_and_folders_of_a_floppy_of_the_profile_s_own()
-> anyhow::Result<()> {
    if !guests() {
        return Ok(());
    }
    let site = LocalSite::new();
    let disk = RawDisk::of(&site, &images::tiny(&images::default_cache_root())?.disk);
    disk.replace("/boot/grub/grub.cfg", MENU);
    disk.boot_loader(&["fat"]);
    std::fs::create_dir_all(site.path().join("on-it/boot/deep"))?;
    // Many clusters before it, and in its folder.
    std::fs::write(site.path().join("on-it/a.bin"), vec![0xa5; 700_000])?;
    for index in 0..30 {
        std::fs::write(site.path().join(format!("on-it/boot/deep/driver-number-{index}.inf")), "x")?;
    }
    site.write(
        "floppy.toml",
        "schema = 1\nname = \"floppy\"\n[variables.note]\ndefault = \"from-the-floppy\"\n[source]\nimage = \"disk.raw\"\n\
         [vm]\nmemory = \"384MiB\"\n[seed]\ndelivery = [\"smbios\"]\n[seed.floppy]\nlabel = \"OWN_LABEL\"\ndirectory = \"on-it\"\n\
         files = { \"boot/deep/note.cfg\" = { content = \"set note={{ var.note }}\\n\" } }\n[deadlines]\nconnect = \"15m\"\n\
         [[provision]]\nname = \"ask\"\nshell = [\"tr ' ' '\\\\n' </proc/cmdline | grep ^note=\"]\n",
    );
    let planned = site.succeeds(&["plan", "floppy.toml"]);
    assert!(planned.contains("a floppy `OWN_LABEL`: 32 files, 683.6 KiB"), "{planned}");
    let said = site.succeeds(&["build", "floppy.toml"]);
    assert!(said.contains("| note=from-the-floppy"), "{said}");
    site.assert_nothing_left();
    Ok(())
}

/// Shows what is on the floppy.
const LOOK: &str = "terminal_input console\nterminal_output console\ncat (fd0)/Autounattend.xml\necho\nls (fd0)/\n\
                    cat (fd0)/tools/note.txt\nsleep --interruptible 3600\n";

const WINDOWS: &str = r#"schema = 1
name = "windows"

[os]
family = "windows"
distribution = "windows"
version = "2022"

[source]
iso = "look.iso"

[vm]
machine = "i440fx"
memory = "256MiB"
disks = [{ slot = "ide0", size = "1GiB" }]

[seed]
kind = "autounattend"
delivery = ["floppy"]
vars = { image-name = "Windows Server 2022 SERVERSTANDARDCORE", locale = "en-US", keyboard = "0409:00000409" }

[seed.floppy]
files = { "tools/note.txt" = { content = "a note beside the answers" } }

[boot]
steps = [
  { wait-for = "</unattend>", within = "10m" },
  { wait-for = { regex = '\bforge\.ps1\b' } },
  { expect = [{ text = "a note beside the answers", fail = "all of it was read" }] },
]

[access]
user = "forge"
"#;

#[test]
fn the_answers_for_windows_are_read_from_a_floppy_by_the_boot_loader_of_a_medium() -> anyhow::Result<()> {
    if !guests() {
        return Ok(());
    }
    let site = LocalSite::new();
    let grub = site.path().join("tree/boot/grub");
    std::fs::create_dir_all(&grub)?;
    std::fs::write(grub.join("grub.cfg"), LOOK)?;
    let make = "grub-mkimage -O i386-pc-eltorito -p /boot/grub -o tree/boot/grub/bios.img \
                biosdisk iso9660 fat normal configfile echo ls cat sleep\n\
                genisoimage -quiet -R -V LOOK -b boot/grub/bios.img -no-emul-boot -boot-load-size 4 -boot-info-table \
                -o look.iso tree";
    let made = Command::new("sh").args(["-ec", make]).current_dir(site.path()).output()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    site.write("windows.toml", WINDOWS);
    let said = site.run(&["build", "windows.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("all of it was read"), "{}", said.text);
    assert!(!said.text.contains("opening the seed server"), "nothing is served: {}", said.text);
    site.assert_nothing_left();
    Ok(())
}
