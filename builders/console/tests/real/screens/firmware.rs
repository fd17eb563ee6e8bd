//! Firmware and boot loaders without a system behind them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use forge_console::{KeySink as _, PlayOptions, boot_command, keymap, play};

use super::machine::Machine;
use super::truth::Beside;
use super::{PATIENCE, STILL, truth};
use crate::QEMU;
use crate::vm::missing;

#[tokio::test]
async fn seabios_is_read_as_its_text_memory_says() -> Result<()> {
    if missing(&[QEMU]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let machine = Machine::start(folder, &["-m", "64"]).await?;
    truth::text_memory(&machine, "SeaBIOS", "No bootable device", 80, 25).await
}

#[tokio::test]
async fn memtest_is_read_as_its_text_memory_says() -> Result<()> {
    const MEMTEST: &str = "/boot/memtest86+x64.bin";
    if missing(&[QEMU, MEMTEST]) {
        return Ok(());
    }
    let machine = Machine::start(tempfile::tempdir()?, &["-m", "64", "-kernel", MEMTEST]).await?;
    truth::text_memory(&machine, "memtest86+", "Memtest86+", 80, 25).await
}

#[tokio::test]
async fn ipxe_is_read_as_its_text_memory_says() -> Result<()> {
    const IPXE: &str = "/usr/lib/ipxe/ipxe.lkrn";
    if missing(&[QEMU, IPXE]) {
        return Ok(());
    }
    let machine = Machine::start(tempfile::tempdir()?, &["-m", "64", "-kernel", IPXE]).await?;
    machine.console.wait_for("Press Ctrl-B", PATIENCE).await?;
    play(
        &machine.console,
        &machine.console,
        &boot_command::parse("<leftCtrlOn>b<leftCtrlOff>").map_err(|error| anyhow::anyhow!("{error:?}"))?,
        &PlayOptions::default(),
    )
    .await?;
    truth::text_memory(&machine, "iPXE", "iPXE>", 80, 25).await
}

#[tokio::test]
async fn isolinux_is_read_as_its_text_memory_says_and_its_graphical_menu_as_configured() -> Result<()> {
    const FILES: [&str; 6] = [
        "/usr/lib/ISOLINUX/isolinux.bin",
        "/usr/lib/syslinux/modules/bios/ldlinux.c32",
        "/usr/lib/syslinux/modules/bios/libcom32.c32",
        "/usr/lib/syslinux/modules/bios/libutil.c32",
        "/usr/lib/syslinux/modules/bios/menu.c32",
        "/usr/lib/syslinux/modules/bios/vesamenu.c32",
    ];
    if missing(&[QEMU, "genisoimage"]) || missing(&FILES) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    for file in FILES {
        fs::copy(file, tree.join(Path::new(file).file_name().unwrap_or_default()))?;
    }
    fs::write(tree.join("isolinux.cfg"), ISOLINUX)?;
    fs::write(tree.join("menu.cfg"), MENU)?;
    fs::write(
        tree.join("f1.txt"),
        "\x0c\x0f07Welcome to the \x0f0eyellow\x0f07!\nHelp with \x0f1finverse\x0f07 words.\n",
    )?;
    let iso = folder.path().join("isolinux.iso");
    let status = Command::new("genisoimage")
        .args(["-quiet", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4"])
        .args(["-boot-info-table", "-o"])
        .arg(&iso)
        .arg(&tree)
        .status()?;
    ensure!(status.success(), "genisoimage: {status}");
    let cdrom = iso.display().to_string();
    let machine = Machine::start(folder, &["-m", "64", "-cdrom", &cdrom]).await?;
    truth::text_memory(&machine, "isolinux prompt with a display file", "boot:", 80, 25).await?;
    let console = &machine.console;
    let play = async |command: &str| -> Result<()> {
        let actions = boot_command::parse(command).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        play(console, console, &actions, &PlayOptions::default()).await?;
        Ok(())
    };
    play("menu<enter>").await?;
    truth::text_memory(&machine, "isolinux menu.c32", "Automated install", 80, 25).await?;
    play("<esc><waitFor \"boot:\">vesa<enter>").await?;
    truth::size(&machine, (640, 480)).await?;
    truth::lines(
        &machine,
        "isolinux vesamenu.c32",
        &["Graphical install", "Automated install", "Rescue mode"],
        Beside::Anything,
    )
    .await
}

const ISOLINUX: &str = "PROMPT 1\nTIMEOUT 0\nDISPLAY f1.txt\nDEFAULT x\nLABEL x\n  KERNEL x\n\
    LABEL menu\n  KERNEL menu.c32\n  APPEND menu.cfg\nLABEL vesa\n  KERNEL vesamenu.c32\n  APPEND menu.cfg\n";
/// With opaque colours over the built-in picture, as the distributions' installers have them over theirs.
const MENU: &str = "MENU TITLE Installer menu of a test\nMENU WIDTH 78\n\
    MENU COLOR title * #ffffffff *\nMENU COLOR border * #00000000 #00000000 none\n\
    MENU COLOR sel * #ffffffff #ff76a1d0 *\nMENU COLOR unsel * #ffffffff #00000000 *\n\
    MENU COLOR hotsel * #ffffffff #ff76a1d0 *\nMENU COLOR hotkey * #ffffffff #00000000 *\n\
    LABEL a\n  MENU LABEL Graphical install\n  KERNEL x\nLABEL b\n  MENU LABEL Automated install\n  KERNEL x\n\
    LABEL c\n  MENU LABEL Rescue mode\n  KERNEL x\n";

/// Every printable character of ASCII, and what EDK2's font has beside it.
const SHELL_TEXT: &str = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNO\r\n\
    PQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\r\n\
    The quick brown fox jumps over the lazy dog. 0O1lI|\r\n";

/// The front page of Debian 12's OVMF, from the line after the CPU's.
const SETUP: [&str; 8] = [
    "   Select Language            <Standard English>         This is the option",
    "                                                         one adjusts to change",
    " ► Device Manager                                        the language for the",
    " ► Boot Manager                                          current system",
    " ► Boot Maintenance Manager",
    "",
    "   Continue",
    "   Reset",
];

#[tokio::test]
async fn ovmf_shell_and_setup_are_read() -> Result<()> {
    const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    if missing(&[QEMU, CODE, VARS]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let vars = folder.path().join("vars.fd");
    fs::copy(VARS, &vars)?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    fs::write(tree.join("text.txt"), SHELL_TEXT)?;
    fs::write(tree.join("startup.nsh"), "@echo -off\r\ncls\r\ntype fs0:\\text.txt\r\n")?;
    let arguments = [
        "-machine".to_owned(),
        "q35".to_owned(),
        "-m".to_owned(),
        "256".to_owned(),
        "-drive".to_owned(),
        format!("if=pflash,format=raw,readonly=on,file={CODE}"),
        "-drive".to_owned(),
        format!("if=pflash,format=raw,file={}", vars.display()),
        "-drive".to_owned(),
        format!("format=raw,file=fat:rw:{}", tree.display()),
    ];
    let machine = Machine::start(folder, &arguments).await?;
    let expected: Vec<&str> = SHELL_TEXT.lines().collect();
    truth::lines(&machine, "OVMF shell", &expected, Beside::Frame).await?;
    let console = &machine.console;
    for key in "exit".chars().filter_map(keymap::us).chain([keymap::ENTER]) {
        console.press(&[key]).await?;
        console.wait_still(STILL, PATIENCE).await?;
    }
    console.wait_for("Boot Manager", PATIENCE).await?;
    console.wait_still(STILL, PATIENCE).await?;
    truth::lines(&machine, "OVMF setup", &SETUP, Beside::Frame).await
}
