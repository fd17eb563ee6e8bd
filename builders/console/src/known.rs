//! Screens that mean something: what a build sees when the guest went wrong, by name, with what to do.
//!
//! Each is told by words that stand on the screen for no other reason; a screen may only end a build when these words
//! are there. Where a boot menu or a prompt may show the same words in passing, the screen has to be still for a while
//! first: that is said per screen, and whoever waits honours it ([`fatal_now`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::screen::{Screen, ScreenText};

/// A screen that is known by name.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownScreen {
    /// A short name, stable, for events and scripts.
    pub id: &'static str,
    /// What it is, as a sentence's subject.
    pub name: &'static str,
    /// What to do about it.
    pub advice: &'static str,
    /// Whether nothing comes after it: waiting on makes no sense.
    pub fatal: bool,
    /// Whether nothing comes after it unless somebody types there.
    pub prompts: bool,
    /// How long it has to stand still before it counts.
    pub still: Duration,
    /// The words, any of the lists, each list whole and in this order from top to bottom.
    marks: &'static [&'static [Mark]],
}

/// What a line must be like.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// It holds these words, runs of blanks counting as one.
    Has(&'static str),
    /// It is the last line that is not blank, and holds these words.
    Last(&'static str),
    /// As the last one, and begins with these words.
    Prompt(&'static str),
    /// As a prompt, with no word behind it.
    Idle(&'static str),
}

use Mark::{Has, Idle, Last, Prompt};

const AT_ONCE: Duration = Duration::ZERO;
const A_MOMENT: Duration = Duration::from_secs(3);
const A_WHILE: Duration = Duration::from_secs(10);
/// For what an installer may show on its way, and may ask somebody who looks.
const MINUTES: Duration = Duration::from_secs(5 * 60);

const fn fatal(
    id: &'static str,
    name: &'static str,
    advice: &'static str,
    still: Duration,
    marks: &'static [&'static [Mark]],
) -> KnownScreen {
    KnownScreen { id, name, advice, fatal: true, prompts: false, still, marks }
}

const fn prompts(
    id: &'static str,
    name: &'static str,
    advice: &'static str,
    still: Duration,
    marks: &'static [&'static [Mark]],
) -> KnownScreen {
    KnownScreen { id, name, advice, fatal: false, prompts: true, still, marks }
}

/// Every known screen, the more telling first.
pub static KNOWN: &[KnownScreen] = &[
    fatal(
        "out-of-memory",
        "the guest ran out of memory",
        "give the VM more memory: installers need more than the installed system",
        AT_ONCE,
        &[
            &[Has("Kernel panic - not syncing: Out of memory")],
            &[Has("System is deadlocked on memory")],
            &[Has("Out of memory: Killed process"), Has("Out of memory: Killed process")],
        ],
    ),
    fatal(
        "kernel-panic",
        "the kernel panicked",
        "the line after `Kernel panic` says why; with `VFS: Unable to mount root fs` the initrd or the storage driver is missing",
        AT_ONCE,
        &[&[Has("Kernel panic - not syncing")], &[Has("end Kernel panic")]],
    ),
    fatal(
        "initramfs-shell",
        "the boot was dropped to the initramfs shell",
        "the root file system was not found: compare `root=` and the disk's bus (virtio, SCSI) with what the image was made on",
        A_MOMENT,
        &[&[Prompt("(initramfs)")]],
    ),
    fatal(
        "dracut-shell",
        "the boot was dropped to dracut's emergency shell",
        "the root file system or the install source was not found: see `inst.repo`, `root=` and the network on the kernel line",
        A_MOMENT,
        &[&[Prompt("dracut:/#")], &[Has("Entering emergency mode"), Prompt("dracut")]],
    ),
    fatal(
        "emergency-mode",
        "the system is in emergency mode",
        "a unit that the boot needs failed, often a mount of /etc/fstab: `journalctl -xb` in the guest says which",
        A_MOMENT,
        &[
            &[Has("You are in emergency mode")],
            &[Has("Give root password for maintenance")],
            &[Has("Cannot open access to console, the root account is locked")],
        ],
    ),
    fatal(
        "rescue-mode",
        "the system is in rescue mode",
        "the kernel line holds `single` or `systemd.unit=rescue.target`, or a unit asked for it",
        A_MOMENT,
        &[&[Has("You are in rescue mode")]],
    ),
    fatal(
        "grub-rescue",
        "GRUB is in its rescue shell",
        "it did not find its own files: the disk was moved, resized or is not the one that was installed to",
        A_MOMENT,
        &[&[Prompt("grub rescue>")]],
    ),
    prompts(
        "grub-shell",
        "GRUB shows its command line instead of a menu",
        "it found no configuration; if a boot step opened the command line on purpose, wait for `grub>` there",
        A_WHILE,
        &[&[Has("Minimal BASH-like line editing"), Idle("grub>")]],
    ),
    fatal(
        "no-bootable-device",
        "the firmware found nothing to boot",
        "see the boot order, whether the medium is attached, and whether it boots with this firmware (BIOS or UEFI)",
        A_MOMENT,
        &[
            &[Has("No bootable device")],
            &[Has("Boot failed: not a bootable disk"), Has("No bootable device")],
            &[Has("Reboot and Select proper Boot device")],
            &[Has("BdsDxe: No bootable option or device was found")],
            &[Has("Operating System not found")],
            &[Has("Missing operating system")],
        ],
    ),
    prompts(
        "uefi-shell",
        "the firmware started its own shell",
        "no medium or disk booted with UEFI: see the boot order and whether the medium has an EFI boot loader",
        A_WHILE,
        &[&[Has("UEFI Interactive Shell"), Idle("Shell>")]],
    ),
    fatal(
        "secure-boot-refused",
        "the firmware refused the boot loader's signature",
        "the medium's loader is not signed by a key that this firmware knows: switch Secure Boot off or enrol the key",
        A_MOMENT,
        &[
            &[Has("Verification failed: (0x1A) Security Violation")],
            &[Has("Access Denied"), Has("BdsDxe: failed to load")],
            &[Has("bad shim signature")],
        ],
    ),
    fatal(
        "network-boot-failed",
        "the network boot found nothing",
        "the VM tried the network because nothing before it booted: see the boot order",
        A_MOMENT,
        // The firmware goes on to the next device, if there is one, and says so below.
        &[
            &[Last("No more network devices")],
            &[Last("PXE-E18")],
            &[Last("PXE-E53")],
            &[Last("Nothing to boot")],
        ],
    ),
    fatal(
        "isolinux-missing-file",
        "the boot loader of the medium did not find a file",
        "the medium is damaged or was not made for this way of booting",
        A_MOMENT,
        &[
            &[Has("Failed to load ldlinux.c32")],
            &[Has("isolinux: Disk error")],
            &[Has("Could not find kernel image")],
        ],
    ),
    fatal(
        "debian-installer-error",
        "the Debian installer shows an error",
        "the red dialogue says what failed; with a preseed, the answer that it wanted is missing or wrong",
        A_MOMENT,
        &[
            &[Has("[!!]"), Has("failed")],
            &[Has("[!!]"), Has("error")],
            &[Has("Bad archive mirror")],
            &[Has("An installation step failed")],
            &[Has("Failed to retrieve the preconfiguration file")],
            &[Has("No kernel modules were found")],
        ],
    ),
    fatal(
        "anaconda-error",
        "the installer Anaconda stopped with an error",
        "the traceback or the dialogue names the command of the kickstart that failed",
        A_MOMENT,
        &[
            &[Has("An unknown error has occurred")],
            &[Has("Pane is dead")],
            &[Has("The following error occurred while parsing the kickstart")],
            &[Has("The following mandatory spokes are not completed")],
            &[Has("Kickstart insufficient")],
        ],
    ),
    fatal(
        "subiquity-error",
        "the installer Subiquity stopped with an error",
        "`/var/crash` and `/var/log/installer` in the guest say more; see the autoinstall's section it names",
        A_MOMENT,
        &[
            &[Has("An error occurred. Press enter to start a shell")],
            &[Has("Sorry, there was a problem completing the installation")],
            &[Has("Malformed autoinstall")],
        ],
    ),
    // What stands in text: Setup itself, and the blue screen, are pictures with letters of no fixed width.
    fatal(
        "windows-boot-error",
        "the boot manager of Windows stopped with an error",
        "the status says what it did not find or take: the disk's bus, its driver, or a damaged medium",
        A_MOMENT,
        &[&[Has("Windows failed to start")], &[Has("Windows Boot Manager"), Has("Status: 0xc0")]],
    ),
    fatal(
        "no-space-left",
        "the guest's disk is full",
        "make the disk larger in `vm.disks`",
        A_MOMENT,
        &[&[Has("No space left on device"), Has("No space left on device")]],
    ),
    fatal(
        "wrong-architecture",
        "the CPU does not suit the kernel",
        "choose another `vm.cpu` (`host`, or `x86-64-v2-AES` for releases that need it), or the medium for this architecture",
        A_MOMENT,
        &[
            &[Has("This kernel requires an x86-64 CPU")],
            &[Has("CPU does not support x86-64-v")],
            &[Has("glibc: CPU does not support")],
        ],
    ),
    prompts(
        "disk-passphrase",
        "the boot asks for the passphrase of an encrypted disk",
        "type it in a boot step, or install without encryption",
        A_WHILE,
        &[&[Has("Please unlock disk")], &[Has("Please enter passphrase for disk")]],
    ),
    prompts(
        "installer-question",
        "the installer asks a question, and nobody has answered for five minutes",
        "its answers lack this one, or it never got them: compare the files of `seed` in the evidence, and the kernel's line",
        MINUTES,
        &[
            // Debian's installer: the priority of the question, and the help below its boxes.
            &[Has("[!!] "), Has("<Enter> activates buttons")],
            &[Has("[!] "), Has("<Enter> activates buttons")],
            // Subiquity, where the kernel's line lacks `autoinstall`.
            &[Has("Continue with autoinstall? (yes|no)")],
            // Anaconda in text mode.
            &[Has("Please make a selection from the above")],
        ],
    ),
];

/// A known screen that is on the display.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Which one.
    pub known: &'static KnownScreen,
    /// The line that shows it.
    pub line: String,
    /// The whole screen.
    pub screen: Arc<Screen>,
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.known.name, self.line)
    }
}

impl Mark {
    fn fits(&self, text: &ScreenText, row: usize) -> bool {
        let Some(line) = text.rows.get(row) else { return false };
        let plain = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let last = || text.rows.iter().skip(row + 1).all(|line| line.trim().is_empty());
        match self {
            Has(words) => plain.contains(words),
            Last(words) => plain.contains(words) && last(),
            Prompt(words) => plain.starts_with(words) && last(),
            // The cursor may be read as a character.
            Idle(words) => {
                plain.strip_prefix(words).is_some_and(|rest| !rest.contains(char::is_alphanumeric)) && last()
            }
        }
    }
}

impl KnownScreen {
    /// The line that shows it, when it is on this screen.
    #[must_use]
    pub fn on<'t>(&self, text: &'t ScreenText) -> Option<&'t str> {
        self.marks.iter().find_map(|marks| {
            let (mut from, mut shown) = (0, None);
            for mark in *marks {
                let row = (from..text.rows.len()).find(|row| mark.fits(text, *row))?;
                // Two marks may stand on one line, but a mark that is asked for twice stands on two.
                from = if marks.iter().filter(|other| *other == mark).count() > 1 { row + 1 } else { row };
                shown = shown.or_else(|| text.rows.get(row));
            }
            shown.map(|line| line.trim())
        })
    }
}

/// The known screen that a picture shows, if it shows one, whether or not it has stood still long enough.
#[must_use]
pub fn recognise(screen: &Arc<Screen>) -> Option<Sighting> {
    let text = screen.text()?;
    KNOWN.iter().find_map(|known| {
        let line = known.on(text)?.to_owned();
        Some(Sighting { known, line, screen: Arc::clone(screen) })
    })
}

/// The fatal screen that a display shows and has shown for long enough: a build that waits for something else may end.
///
/// `unchanged_for` is how long the content has been the same. What a boot step waits for is no reason to end: whoever
/// waits for a text that stands on the screen has found it first.
#[must_use]
pub fn fatal_now(screen: &Arc<Screen>, unchanged_for: Duration) -> Option<Sighting> {
    recognise(screen).filter(|sighting| sighting.known.fatal && unchanged_for >= sighting.known.still)
}

/// As [`fatal_now`], for whoever types nothing any more: a prompt that nobody answers is an end too.
#[must_use]
pub fn left_alone_now(screen: &Arc<Screen>, unchanged_for: Duration) -> Option<Sighting> {
    recognise(screen).filter(|sighting| {
        (sighting.known.fatal || sighting.known.prompts) && unchanged_for >= sighting.known.still
    })
}

#[cfg(test)]
mod tests;
