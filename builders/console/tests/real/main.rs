//! The console against real firmware and real boot loaders in a real QEMU. A test whose tools are missing says so.

mod grub_disk;
mod screens;
mod soak;
mod typing;
mod uefi;
mod vm;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use forge_console::{
    Console, KeyError, KeySink, KeyStroke, PlayOptions, TypeOptions, keymap, play, type_text, type_text_with,
};
use typing::{GRUB_MENU, PATIENCE, parse};
use vm::{Vm, missing};

const QEMU: &str = "qemu-system-x86_64";
const GRUB: [&str; 4] = [QEMU, "grub-mkimage", "tar", "/usr/lib/grub/i386-pc/boot.img"];
/// What the main job appends to a kernel line.
const SEED: &str = " ds=nocloud;s=http://10.0.2.2:8800/0123456789abcdef0123456789abcdef/";

#[tokio::test]
async fn seabios_without_a_bootable_disk_is_read_exactly() -> Result<()> {
    if missing(&[QEMU]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let disk = vm::empty_disk(folder.path())?;
    let vm = Vm::start(folder, &disk)?;
    let console = vm.console().await?;
    console.wait_for("No bootable device.", PATIENCE).await?;
    let screen = console.screen();
    let text = screen.text().context("text mode")?;
    assert_eq!(console.size(), (720, 400));
    assert_eq!((text.cols, text.rows.len(), text.confidence), (80, 25, 1.0));
    assert!(text.rows[0].starts_with("SeaBIOS (version "), "{screen}");
    let at =
        text.rows.iter().position(|row| row == "Booting from Hard Disk...").context("the first attempt")?;
    let expected = [
        "Booting from Hard Disk...",
        "Boot failed: not a bootable disk",
        "",
        "Booting from Floppy...",
        "Boot failed: could not read the boot disk",
        "",
        "No bootable device.",
    ];
    assert_eq!(text.rows[at..at + 7], expected, "{screen}");
    assert!(console.types_scancodes(), "QEMU takes scancodes");
    assert!(console.png()?.starts_with(b"\x89PNG"));
    console.wait_still(Duration::from_millis(700), PATIENCE).await?;
    assert!(console.unchanged_for() >= Duration::from_millis(700), "the blinking cursor is no change");
    let error = console.wait_for("GRUB", Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("| No bootable device."), "{error}");
    drop(vm);
    let error = console.wait_for("GRUB", PATIENCE).await.unwrap_err();
    assert!(
        error.to_string().starts_with("the screen was lost while waiting; it showed\n| SeaBIOS"),
        "{error}"
    );
    assert!(console.failure().is_some());
    assert!(console.png()?.starts_with(b"\x89PNG"), "the last picture stays");
    Ok(())
}

async fn grub(configuration: &str) -> Result<(Vm, Console)> {
    let folder = tempfile::tempdir()?;
    let disk = grub_disk::grub_disk(folder.path(), configuration)?;
    let vm = Vm::start(folder, &disk)?;
    let console = vm.console().await?;
    Ok((vm, console))
}

#[tokio::test]
async fn a_seed_url_is_appended_in_grubs_editor_and_read_back_over_wrapped_lines() -> Result<()> {
    if missing(&GRUB) {
        return Ok(());
    }
    let (_vm, console) = grub(GRUB_MENU).await?;
    console.wait_for("Debian GNU/Linux", PATIENCE).await?;
    println!("{}", console.screen());
    let text = console.screen().text().context("text mode")?.clone();
    let row = text.rows.iter().position(|row| row.contains("Debian GNU/Linux")).context("the entry")?;
    assert!(!text.highlights(row).is_empty(), "the chosen entry is highlighted");

    let to_the_line = parse("e<waitFor \"vmlinuz\"><waitStill 300ms><down><down><end>")?;
    play(&console, &console, &to_the_line, &PlayOptions::default()).await?;
    let report = type_text(&console, SEED, &TypeOptions::default()).await?;
    println!("{report:?}\n{}", console.screen());
    assert!(report.verified);
    assert_eq!((report.keys, report.corrections), (SEED.len(), 0));
    let text = console.screen().text().context("text mode")?.clone();
    let lines: Vec<&str> = text.rows.iter().map(|row| row.trim_matches([' ', '│', '\\'])).collect();
    let at = lines.iter().position(|line| line.starts_with("linux /boot")).context("the kernel line")?;
    let kernel_line = lines[at..at + 3].concat();
    assert!(kernel_line.ends_with(&format!("console=tty0 quiet{SEED}")), "{kernel_line}");
    assert!(lines[at + 3].starts_with("initrd"), "{text}");
    Ok(())
}

/// Loses, changes and doubles some keys on their way.
struct Unreliable<'c> {
    console: &'c Console,
    pressed: AtomicUsize,
}

#[async_trait]
impl KeySink for Unreliable<'_> {
    async fn press(&self, strokes: &[KeyStroke]) -> Result<(), KeyError> {
        for stroke in strokes {
            match self.pressed.fetch_add(1, Ordering::Relaxed) {
                20 => {}
                45 => self.console.press(&[keymap::BACKSPACE]).await?,
                70 => self.console.press(&[*stroke, *stroke]).await?,
                _ => self.console.press(&[*stroke]).await?,
            }
        }
        Ok(())
    }

    async fn hold(&self, key: KeyStroke, down: bool) -> Result<(), KeyError> {
        self.console.hold(key, down).await
    }

    fn release_all(&self) {
        self.console.release_all();
    }
}

#[tokio::test]
async fn what_goes_wrong_in_grubs_editor_is_taken_back_and_typed_again() -> Result<()> {
    if missing(&GRUB) {
        return Ok(());
    }
    let (_vm, console) = grub(GRUB_MENU).await?;
    // In the middle of the kernel line, before ` quiet`: what follows moves with the typing.
    let place = "<waitFor \"Debian GNU/Linux\" 2m>e<waitFor \"vmlinuz\"><waitStill 300ms><down><down><end><left><left><left><left><left><left>";
    play(&console, &console, &parse(place)?, &PlayOptions::default()).await?;
    console.wait_still(Duration::from_secs(1), PATIENCE).await?;
    let keys = Unreliable { console: &console, pressed: AtomicUsize::new(0) };
    let report = type_text_with(&console, &keys, SEED, &TypeOptions::default()).await?;
    println!("{report:?}\n{}", console.screen());
    assert!(report.verified);
    assert!(report.corrections >= 2, "{report:?}");
    let text = console.screen().text().context("text mode")?.clone();
    let lines: Vec<&str> = text.rows.iter().map(|row| row.trim_matches([' ', '│', '\\'])).collect();
    let at = lines.iter().position(|line| line.starts_with("linux /boot")).context("the kernel line")?;
    let kernel_line = lines[at..at + 3].concat();
    assert!(kernel_line.ends_with(&format!("console=tty0{SEED} quiet")), "{kernel_line}");
    Ok(())
}

#[tokio::test]
async fn a_display_with_a_password_opens_with_it_and_refuses_another() -> Result<()> {
    if missing(&[QEMU]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let disk = vm::empty_disk(folder.path())?;
    let options = ["-object", "secret,id=vnc,data=tick7890", "-S"];
    let vm = Vm::start_with(folder, &disk, ",password-secret=vnc", &options)?;
    let console = vm.console_with(Some("tick7890-and-what-a-ticket-has-more")).await?;
    println!("{}", console.screen());
    for (password, message) in [
        (Some("wrong"), "the display refused the connection: Authentication failed"),
        (None, "the display asks for a password and none was given"),
    ] {
        let error = vm.console_with(password).await.unwrap_err();
        let source = error.root_cause().to_string();
        assert_eq!(source, message);
    }
    Ok(())
}

#[tokio::test]
async fn a_display_over_tcp_is_read() -> Result<()> {
    if missing(&[QEMU]) {
        return Ok(());
    }
    // QEMU takes the first port that is free.
    let arguments = ["-m", "64", "-vnc", "127.0.0.1:0,to=999,id=tcp"];
    let machine = screens::Machine::start(tempfile::tempdir()?, &arguments).await?;
    let told = machine.ask(&["info vnc"])?.concat();
    let (_, port) = told.split_once("127.0.0.1:").with_context(|| told.clone())?;
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
    let console = Console::open(stream, None).await?;
    console.wait_for("No bootable device.", PATIENCE).await?;
    machine.console.wait_for("No bootable device.", PATIENCE).await?;
    assert_eq!(console.screen().to_string(), machine.console.screen().to_string());
    assert!(console.types_scancodes());
    Ok(())
}

#[tokio::test]
async fn caps_lock_that_is_on_in_the_guest_is_named_when_letters_come_wrong() -> Result<()> {
    const CAPS_LOCK: KeyStroke =
        KeyStroke { qcode: "caps_lock", keysym: 0xffe5, scancode: 0x3a, shift: false, altgr: false };
    if missing(&GRUB) {
        return Ok(());
    }
    let (_vm, console) = grub(GRUB_MENU).await?;
    let open = parse("<waitFor \"Debian GNU/Linux\" 2m>c<waitFor \"grub>\"><waitStill 300ms>")?;
    play(&console, &console, &open, &PlayOptions::default()).await?;
    let light = async |wanted: bool| {
        let turned = async {
            while console.caps_lock() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, turned).await.with_context(|| format!("caps lock is not {wanted}"))
    };
    console.press(&[CAPS_LOCK]).await?;
    light(true).await?;
    let options = TypeOptions { corrections: 1, ..TypeOptions::default() };
    let error = type_text(&console, "echo Quiet", &options).await.unwrap_err().to_string();
    assert!(error.contains(", and caps lock is on in the guest; it shows"), "{error}");
    console.press(&[CAPS_LOCK]).await?;
    light(false).await?;
    let report = type_text(&console, "echo Quiet", &options).await?;
    assert!(report.verified, "{report:?}");
    Ok(())
}

/// The firmware repeats a key of a USB keyboard that stays down, and such a keyboard tells of six keys at once and no more.
#[tokio::test]
async fn a_line_is_typed_on_a_usb_keyboard() -> Result<()> {
    if missing(&GRUB) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let disk = grub_disk::grub_disk(folder.path(), GRUB_MENU)?;
    let vm = Vm::start_with(folder, &disk, "", &["-device", "qemu-xhci", "-device", "usb-kbd"])?;
    let console = vm.console().await?;
    let open = parse("<waitFor \"Debian GNU/Linux\" 2m>c<waitFor \"grub>\"><waitStill 300ms>")?;
    play(&console, &console, &open, &PlayOptions::default()).await?;
    let line = format!("echo 'aabbccdd{SEED}'");
    let report = type_text(&console, &line, &TypeOptions::default()).await?;
    println!("{report:?}\n{}", console.screen());
    assert!(report.verified);
    play(&console, &console, &parse("<enter><waitStill 1s>")?, &PlayOptions::default()).await?;
    let screen = console.screen();
    let rows = screen.text().context("text mode")?.rows.join("");
    assert!(rows.contains(&format!("aabbccdd{SEED}")), "{screen}");
    Ok(())
}

#[tokio::test]
async fn two_hundred_keys_on_grubs_command_line_are_verified_and_run() -> Result<()> {
    if missing(&GRUB) {
        return Ok(());
    }
    let (_vm, console) = grub(GRUB_MENU).await?;
    let open = parse("<waitFor \"Debian GNU/Linux\" 2m>c<waitFor \"grub>\"><waitStill 300ms>")?;
    play(&console, &console, &open, &PlayOptions::default()).await?;
    let words = "Ab0 cD1~ e!F2 (g)_H3 {i}+J4 kL5: \"mN6\" <oP7> q?R8 ^s|T9 &u*V@ #w%X ".repeat(3);
    let line = format!("echo '{}'", words.get(..193).context("long enough")?.trim_end());
    let report = type_text(&console, &line, &TypeOptions::default()).await?;
    println!("{} characters: {report:?}\n{}", line.len(), console.screen());
    assert!(report.verified);
    // GRUB itself is the second reader: it prints what it understood.
    play(
        &console,
        &console,
        &parse("<enter><waitFor \"#w%X Ab0 cD1~ \"><waitStill 1s>")?,
        &PlayOptions::default(),
    )
    .await?;
    let text = console.screen().text().context("text mode")?.clone();
    let printed = text.rows.iter().rposition(|row| row.starts_with("Ab0 cD1~")).context("the output")?;
    let printed = text.rows[printed..printed + 3].join(" ");
    assert_eq!(printed, line.trim_start_matches("echo '").trim_end_matches('\''));
    Ok(())
}

#[tokio::test]
async fn a_long_kernel_line_is_typed_at_the_prompt_of_extlinux() -> Result<()> {
    if missing(&[QEMU, "extlinux", "mke2fs", "mount", "/usr/lib/EXTLINUX/mbr.bin"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let configuration = "PROMPT 1\nTIMEOUT 0\nDEFAULT linux\nLABEL linux\n  KERNEL /vmlinuz\n";
    let disk = match vm::extlinux_disk(folder.path(), configuration) {
        Ok(disk) => disk,
        Err(error) => {
            println!("skipped: a disk with extlinux can't be made here: {error:#}");
            return Ok(());
        }
    };
    let vm = Vm::start(folder, &disk)?;
    let console = vm.console().await?;
    console.wait_for("boot:", PATIENCE).await?;
    let line = format!(
        "linux auto url={} DEBCONF_DEBUG=5 netcfg/hostname=forge-build priority=critical console=tty0 quiet --- ",
        SEED.trim_start_matches(" ds=nocloud;s=")
    );
    let report = type_text(&console, &line, &TypeOptions::default()).await?;
    println!("{} characters: {report:?}\n{}", line.len(), console.screen());
    assert!(report.verified);
    // The prompt stands on the last lines: the next text makes the screen scroll while it is typed.
    console.press(&[keymap::ENTER; 9]).await?;
    console.wait_still(Duration::from_secs(1), PATIENCE).await?;
    let report = type_text(&console, &line, &TypeOptions::default()).await?;
    println!("{} characters: {report:?}\n{}", line.len(), console.screen());
    assert!(report.verified);
    Ok(())
}
