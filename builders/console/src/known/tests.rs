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
    let cases: &[(&[&str], &str)] = &[
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
        (
            &[
                "┌───────┤ [!!] Select a language ├───────┐",
                "<Tab> moves; <Space> selects; <Enter> activates buttons",
            ],
            "installer-question",
        ),
        (
            &[
                "┌───────┤ [!] Configure the package manager ├───────┐",
                "<Tab> moves; <Space> selects; <Enter> activates buttons",
            ],
            "installer-question",
        ),
        (
            &[
                "Add 'autoinstall' to your kernel command line to avoid this",
                "Continue with autoinstall? (yes|no)",
            ],
            "installer-question",
        ),
        (
            &[
                "Please make a selection from the above ['b' to begin installation, 'q' to quit,",
                "'r' to refresh]: ",
            ],
            "installer-question",
        ),
        (&["Please unlock disk sda5_crypt: "], "disk-passphrase"),
        (&["Please enter passphrase for disk QEMU_HARDDISK (luks-1): "], "disk-passphrase"),
        (&["[anaconda] Pane is dead"], "anaconda-error"),
        (&["Fatal glibc error: CPU does not support x86-64-v2"], "wrong-architecture"),
        (&["This kernel requires an x86-64 CPU, but only detected an i686 CPU."], "wrong-architecture"),
        (&["You are in rescue mode. After logging in, type \"journalctl -xb\" to view"], "rescue-mode"),
        (&["Give root password for maintenance", "(or press Control-D to continue): "], "emergency-mode"),
        (
            &["Cannot open access to console, the root account is locked.", "Press Enter to continue."],
            "emergency-mode",
        ),
        (&["Entering emergency mode. Exit the shell to continue.", "dracut:/root# "], "dracut-shell"),
        (&["[    9.1] ---[ end Kernel panic - not syncing: No working init found. ]---"], "kernel-panic"),
        (
            &["[    2.2] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled"],
            "out-of-memory",
        ),
        (&["[   31.5] Kernel panic - not syncing: System is deadlocked on memory"], "out-of-memory"),
        (
            &[
                "[   70.1] Out of memory: Killed process 812 (anaconda) total-vm:1413040kB",
                "[   71.9] Out of memory: Killed process 901 (python3) total-vm:913040kB",
            ],
            "out-of-memory",
        ),
        (
            &[
                "cp: error writing '/mnt/a': No space left on device",
                "tar: ./b: Cannot write: No space left on device",
            ],
            "no-space-left",
        ),
        (&["Reboot and Select proper Boot device", "or Insert Boot Media"], "no-bootable-device"),
        (&["BdsDxe: No bootable option or device was found."], "no-bootable-device"),
        (&["Operating System not found"], "no-bootable-device"),
        (&["Missing operating system."], "no-bootable-device"),
        (
            &["Verification failed: (0x1A) Security Violation", "Press any key to continue"],
            "secure-boot-refused",
        ),
        (&["error: bad shim signature.", "Press any key to continue..."], "secure-boot-refused"),
        (
            &["BdsDxe: failed to load Boot0002 \"UEFI QEMU DVD-ROM\": Access Denied", "Access Denied"],
            "secure-boot-refused",
        ),
        (&["iPXE 1.21.1", "No more network devices"], "network-boot-failed"),
        (&[">>Start PXE over IPv4.", "  PXE-E18: Server response timeout."], "network-boot-failed"),
        (&["PXE-E53: No boot filename received"], "network-boot-failed"),
        (
            &[
                "net0: 10.0.2.15/255.255.255.0",
                "Nothing to boot: No such file or directory (https://ipxe.org/2d03e18e)",
            ],
            "network-boot-failed",
        ),
        (&["Failed to load ldlinux.c32", "Boot failed: press a key to retry"], "isolinux-missing-file"),
        (&["isolinux: Disk error 10, AX = 4200, drive 9F"], "isolinux-missing-file"),
        (&["Could not find kernel image: linux", "boot: "], "isolinux-missing-file"),
        (&["[!!] Partition disks", "An error was returned"], "debian-installer-error"),
        (&["Bad archive mirror"], "debian-installer-error"),
        (&["An installation step failed. You can try to run the failing item"], "debian-installer-error"),
        (&["Failed to retrieve the preconfiguration file"], "debian-installer-error"),
        (&["No kernel modules were found."], "debian-installer-error"),
        (&["An unknown error has occurred"], "anaconda-error"),
        (&["The following error occurred while parsing the kickstart file:"], "anaconda-error"),
        (&["The following mandatory spokes are not completed:"], "anaconda-error"),
        (&["Kickstart insufficient"], "anaconda-error"),
        (&["An error occurred. Press enter to start a shell"], "subiquity-error"),
        (&["Sorry, there was a problem completing the installation."], "subiquity-error"),
        (
            &[
                "Windows Boot Manager",
                "Windows failed to start. A recent hardware or software change",
                "Status: 0xc000000f",
            ],
            "windows-boot-error",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(id(lines), Some(*expected), "{lines:?}");
    }
    for known in KNOWN {
        assert!(cases.iter().any(|(_, id)| *id == known.id), "no case shows {}", known.id);
    }
}

#[test]
fn ordinary_screens_are_not_taken_for_failures() {
    let cases: [&[&str]; 9] = [
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
        // The network came first, had nothing, and the firmware went on to the disk.
        &["iPXE 1.21.1", "No more network devices", "Booting from Hard Disk...", "GRUB loading."],
        &[
            ">>Start PXE over IPv4.",
            "  PXE-E18: Server response timeout.",
            "BdsDxe: starting Boot0003 \"debian\"",
        ],
        // A command is at work there.
        &["Minimal BASH-like line editing is supported.", "grub> initrd /boot/initrd.img"],
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
    let grub = screen(&["GNU GRUB  version 2.06", "Minimal BASH-like line editing is supported.", "grub> "]);
    assert!(fatal_now(&grub, Duration::from_secs(60)).is_none(), "a boot step may type there");
    assert!(left_alone_now(&grub, Duration::from_secs(11)).is_some(), "nobody types there");
}

#[test]
fn names_are_unique_and_every_screen_has_advice() {
    for (index, known) in KNOWN.iter().enumerate() {
        assert!(KNOWN[..index].iter().all(|other| other.id != known.id), "{}", known.id);
        assert!(!known.advice.is_empty() && !known.name.ends_with('.'), "{}", known.id);
    }
}
