//! Linux consoles: VGA's text mode and a UEFI framebuffer, each in several fonts, a newt dialogue, and a panic.
//!
//! The kernel and busybox come from the lab's tiny guest; the initrd is made here: a shell script that shows the same
//! text in one font after the other, and goes on at Enter.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use forge_console::{KeySink as _, TypeOptions, keymap, known, type_text};

use super::machine::Machine;
use super::system::System;
use super::truth::Beside;
use super::{PATIENCE, truth};
use crate::QEMU;
use crate::vm::missing;

const FONTS: &str = "/usr/share/consolefonts";
const TOOLS: [&str; 6] =
    [QEMU, "qemu-img", "debugfs", "setfont", "ldd", "/usr/share/consolefonts/Lat15-Fixed16.psf.gz"];

/// All of ASCII that can be seen, and what else is in every font.
const TEXT: [&str; 6] = [
    "!\"#$%&'()*+,-./0123456789:;<=>?@",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`",
    "abcdefghijklmnopqrstuvwxyz{|}~",
    "äöüÄÖÜßéñç ┌─┬─┐ ├─┼─┤ └─┴─┘",
    "red on blue inverse bold The quick brown fox jumps over the lazy dog.",
    "font FONT done",
];
const COLOURED: &str = "\\033[31mred \\033[44mon blue\\033[0m \\033[7minverse\\033[0m \\033[1mbold\\033[0m The quick brown fox jumps over the lazy dog.";

/// What the kernel's own font has beyond ASCII: the upper half of code page 437.
const TABLE: [&str; 4] = [
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ",
    "áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■",
];

#[tokio::test]
async fn linux_text_consoles_and_a_newt_dialogue_are_read() -> Result<()> {
    if missing(&TOOLS) || missing(&["whiptail"]) {
        return Ok(());
    }
    let fonts = [
        "builtin",
        "Lat15-Fixed16",
        "Lat15-Terminus16",
        "Lat15-TerminusBoldVGA16",
        "Lat15-VGA8",
        "Lat15-Terminus14",
    ];
    let folder = tempfile::tempdir()?;
    let Some(system) = System::find(folder.path())? else { return Ok(()) };
    let initrd = initrd(&system, folder.path(), &fonts, true)?;
    let arguments = ["-m", "256", "-kernel", &system.kernel, "-initrd", &initrd, "-append", KERNEL_LINE];
    let machine = Machine::start(folder, &arguments).await?;
    truth::text_memory(&machine, "whiptail, Linux VGA console", "Partition disks", 80, 25).await?;
    machine.console.press(&[keymap::ENTER]).await?;
    an_answer_is_typed_into_a_newt_dialogue(&machine).await?;
    a_password_is_typed_blind(&machine).await?;
    each_font(&machine, "Linux VGA console", &fonts).await?;
    // The script ends, and init with it.
    machine.console.wait_for("Kernel panic", PATIENCE).await?;
    let sighting = known::fatal_now(&machine.console.screen(), Duration::ZERO).context("a known screen")?;
    ensure!(sighting.known.id == "kernel-panic", "{sighting}");
    Ok(())
}

#[tokio::test]
async fn linux_framebuffer_consoles_are_read() -> Result<()> {
    const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    if missing(&TOOLS) || missing(&[CODE, VARS]) {
        return Ok(());
    }
    let fonts = [
        "builtin",
        "Lat15-Fixed16",
        "Lat15-Fixed18",
        "Lat15-VGA16",
        "Lat15-TerminusBold16",
        "Lat15-Terminus20x10",
        "Lat15-Terminus22x11",
        "Lat15-TerminusBold24x12",
        "Lat15-Terminus28x14",
        "Lat15-TerminusBold32x16",
    ];
    let folder = tempfile::tempdir()?;
    let Some(system) = System::find(folder.path())? else { return Ok(()) };
    let initrd = initrd(&system, folder.path(), &fonts, false)?;
    let vars = folder.path().join("vars.fd");
    fs::copy(VARS, &vars)?;
    let code = format!("if=pflash,format=raw,readonly=on,file={CODE}");
    let vars = format!("if=pflash,format=raw,file={}", vars.display());
    let machine = Machine::start(
        folder,
        &[
            "-machine",
            "q35",
            "-m",
            "512",
            "-drive",
            &code,
            "-drive",
            &vars,
            "-kernel",
            &system.kernel,
            "-initrd",
            &initrd,
            "-append",
            KERNEL_LINE,
        ],
    )
    .await?;
    each_font(&machine, "Linux framebuffer", &fonts).await
}

/// As long as the field that it is typed into, less a few places.
const HOST_NAME: &str = "web-server-01.build.forge.lab.example.org";

async fn an_answer_is_typed_into_a_newt_dialogue(machine: &Machine) -> Result<()> {
    let console = &machine.console;
    console.wait_for("<Cancel>", PATIENCE).await?;
    // The cursor in the field may blink for ever.
    console.wait_drawn(PATIENCE).await?;
    let report = type_text(console, HOST_NAME, &TypeOptions::default()).await?;
    println!("a newt dialogue: {report:?}\n{}", console.screen());
    ensure!(report.verified, "{report:?}");
    console.press(&[keymap::ENTER]).await?;
    console.wait_for(&format!("the name is [{HOST_NAME}]"), PATIENCE).await?;
    console.press(&[keymap::ENTER]).await?;
    Ok(())
}

async fn a_password_is_typed_blind(machine: &Machine) -> Result<()> {
    const PASSWORD: &str = "Correct horse-7";
    let console = &machine.console;
    console.wait_for("Password:", PATIENCE).await?;
    console.wait_drawn(PATIENCE).await?;
    let report = type_text(console, PASSWORD, &TypeOptions::default()).await?;
    ensure!(!report.verified && report.prompt_hides, "{report:?}");
    ensure!(!console.screen().contains("Correct"), "it is shown: {}", console.screen());
    console.press(&[keymap::ENTER]).await?;
    console.wait_for("what was typed is right", PATIENCE).await?;
    console.press(&[keymap::ENTER]).await?;
    Ok(())
}

const KERNEL_LINE: &str = "console=tty0 quiet loglevel=4 panic=0";

async fn each_font(machine: &Machine, where_: &str, fonts: &[&str]) -> Result<()> {
    for font in fonts {
        let last = TEXT[5].replace("FONT", font);
        let mut expected: Vec<&str> = TEXT[..5].to_vec();
        if *font == "builtin" {
            expected.extend(TABLE);
        }
        expected.push(&last);
        // The script cleared the screen before it.
        truth::lines(machine, &format!("{where_}, {font}"), &expected, Beside::Nothing).await?;
        // Its cells have the font's size: setfont did what it was asked for.
        let screen = machine.console.screen();
        let cell = screen.text().context("text")?.cell_rect(0, 0);
        let size = font.trim_start_matches(|letter: char| !letter.is_ascii_digit()).trim_start_matches("15-");
        let height = size.trim_start_matches(|letter: char| !letter.is_ascii_digit()).split('x').next();
        let height = height.filter(|height| !height.is_empty()).unwrap_or("16");
        ensure!(cell.height.to_string() == height, "{font}: cells of {cell:?}");
        machine.console.press(&[keymap::ENTER]).await?;
    }
    Ok(())
}

/// The initrd: a script that goes from font to font, the fonts, and whiptail with what it needs.
fn initrd(system: &System, folder: &Path, fonts: &[&str], dialogue: bool) -> Result<String> {
    let (mut archive, mut script) = system.archive()?;
    archive.folder("fonts");
    archive.program("setfont")?;
    if dialogue {
        archive.whiptail()?;
        script.push_str(
            "whiptail --title 'Partition disks' --menu 'Choose how the disk is used.' 15 60 4 \
                 1 'Guided - use entire disk' 2 'Guided - use LVM' 3 Manual\n\
             whiptail --title 'Network' --inputbox 'Host name of the guest' 9 50 2>/answer\n\
             /bin/busybox clear\necho \"the name is [$(/bin/busybox cat /answer)]\"\nread -s answer\n\
             /bin/busybox clear\nprintf 'Password: '\nread -s password\necho\n\
             [ \"$password\" = 'Correct horse-7' ] && echo 'what was typed is right'\nread -s answer\n",
        );
    }
    for font in fonts {
        if *font != "builtin" {
            let packed = fs::read(format!("{FONTS}/{font}.psf.gz"))?;
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain)?;
            archive.file(&format!("fonts/{font}"), &plain);
            script.push_str(&format!("setfont -C /dev/tty1 /fonts/{font}\n"));
        }
        script.push_str("/bin/busybox clear\n");
        let table = if *font == "builtin" { TABLE.as_slice() } else { &[] };
        for line in TEXT[..5].iter().chain(table).chain(&TEXT[5..]) {
            if *line == TEXT[4] {
                script.push_str(&format!("/bin/busybox printf '{COLOURED}\\n'\n"));
            } else {
                script.push_str(&format!("/bin/busybox cat <<'END'\n{}\nEND\n", line.replace("FONT", font)));
            }
        }
        script.push_str("read -s answer\n");
    }
    archive.initrd(folder, &script)
}
