use super::*;
use crate::screen::tests::draw;

fn screen(lines: &[&str]) -> Arc<Screen> {
    Arc::new(Screen::read(&draw(lines, None)))
}

fn id(lines: &[&str]) -> Option<&'static str> {
    recognise(&screen(lines)).map(|sighting| sighting.known.id)
}

#[test]
fn what_went_wrong_is_known_by_its_words() {
    let cases: [(&[&str], &str); 12] = [
        (
            &["[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"],
            "kernel-panic",
        ),
        (&["ALERT!  UUID=1 does not exist.  Dropping to a shell!", "", "(initramfs) "], "initramfs-shell"),
        (&["Generating \"/run/initramfs/rdsosreport.txt\"", "dracut:/# "], "dracut-shell"),
        (&["You are in emergency mode. After logging in, type \"journalctl -xb\""], "emergency-mode"),
        (&["error: unknown filesystem.", "Entering rescue mode...", "grub rescue> "], "grub-rescue"),
        (&["GNU GRUB  version 2.06", "Minimal BASH-like line editing is supported.", "grub> "], "grub-shell"),
        (&["Booting from Hard Disk...", "No bootable device."], "no-bootable-device"),
        (&["UEFI Interactive Shell v2.2", "Shell> "], "uefi-shell"),
        (&["[!!] Configure the network", "Network autoconfiguration failed"], "debian-installer-error"),
        (&["Malformed autoinstall in 'user-data' section"], "subiquity-error"),
        (&["[anaconda] Pane is dead"], "anaconda-error"),
        (&["Fatal glibc error: CPU does not support x86-64-v2"], "wrong-architecture"),
    ];
    for (lines, expected) in cases {
        assert_eq!(id(lines), Some(expected), "{lines:?}");
    }
}

#[test]
fn ordinary_screens_are_not_taken_for_failures() {
    let cases: [&[&str]; 6] = [
        &["Debian GNU/Linux 12 forge tty1", "", "forge login: "],
        &[
            "GNU GRUB  version 2.06",
            "*Debian GNU/Linux",
            " Advanced options for Debian GNU/Linux (recovery mode)",
        ],
        // The prompt of a shell was left again.
        &["grub rescue> insmod normal", "GNU GRUB  version 2.06", "*Debian"],
        &["(initramfs) exit", "Begin: Running /scripts/local-bottom ... done."],
        &["[ OK ] Stopped Emergency Shell.", "[ OK ] Reached target Basic System."],
        &["Booting from DVD/CD...", "ISOLINUX 6.04 ETCD", "boot: "],
    ];
    for lines in cases {
        assert_eq!(id(lines), None, "{lines:?}");
    }
}

#[test]
fn a_fatal_screen_counts_when_it_has_stood_still() {
    let shell = screen(&["(initramfs) "]);
    assert!(fatal_now(&shell, Duration::from_secs(1)).is_none());
    let sighting = fatal_now(&shell, Duration::from_secs(4)).unwrap();
    assert_eq!(sighting.to_string(), "the boot was dropped to the initramfs shell: \"(initramfs)\"");
    let panic = screen(&["---[ end Kernel panic - not syncing: Attempted to kill init! ]---"]);
    assert!(fatal_now(&panic, Duration::ZERO).is_some(), "a panic is certain at once");
    assert!(
        fatal_now(&screen(&["UEFI Interactive Shell v2.2", "Shell> "]), Duration::from_secs(60)).is_none()
    );
}

#[test]
fn the_shell_of_the_firmware_is_an_end_when_nobody_types_there() {
    let shell = screen(&["UEFI Interactive Shell v2.2", "Press ESC in 1 seconds", "Shell> _"]);
    assert!(left_alone_now(&shell, Duration::from_secs(5)).is_none(), "it may go on by itself");
    let sighting = left_alone_now(&shell, Duration::from_secs(11)).unwrap();
    assert!(sighting.known.advice.contains("no medium or disk booted with UEFI"), "{sighting}");
    let at_work = screen(&["UEFI Interactive Shell v2.2", "Shell> fs0:\\linux.efi console=ttyS0"]);
    assert!(left_alone_now(&at_work, Duration::from_secs(60)).is_none(), "a loader that prints nothing");
    let panic = screen(&["---[ end Kernel panic - not syncing: Attempted to kill init! ]---"]);
    assert!(left_alone_now(&panic, Duration::ZERO).is_some());
}

#[test]
fn names_are_unique_and_every_screen_has_advice() {
    for (index, known) in KNOWN.iter().enumerate() {
        assert!(KNOWN[..index].iter().all(|other| other.id != known.id), "{}", known.id);
        assert!(!known.advice.is_empty() && !known.name.ends_with('.'), "{}", known.id);
    }
}
