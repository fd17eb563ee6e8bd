//! GRUB 2 in text mode and on its graphical terminal, plain, over a picture and with a theme.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use forge_console::frame::{Frame, Rect};
use forge_console::needle::DEFAULT_TOLERANCE;
use forge_console::{Console, Needle, Pattern, PlayOptions, Seen, WaitError, boot_command, expect, play};

use super::machine::Machine;
use super::truth::Beside;
use super::{PATIENCE, truth};
use crate::QEMU;
use crate::vm::missing;

const FONT: &str = "/usr/share/grub/unicode.pf2";

/// Each entry shows the menu again on another terminal.
const CONFIGURATION: &str = r#"
set timeout=-1
set default=0
loadfont (cd)/unicode.pf2
set gfxmode=1024x768
menuentry "Debian GNU/Linux, with Linux 6.1.0-37-amd64" { linux /vmlinuz root=UUID=7c0d9a5e-5c0a-4b5e ro quiet }
menuentry "Graphical terminal" --hotkey=g { terminal_output gfxterm }
menuentry "Over a picture" --hotkey=p { terminal_output gfxterm; background_image (cd)/picture.png; set color_normal=white/black; set color_highlight=black/light-gray }
menuentry "With a theme" --hotkey=t { terminal_output gfxterm; set theme=(cd)/theme.txt; export theme }
menuentry 'Text mode {} (~!@#%^&*) 0O1lI' --hotkey=x { terminal_output console }
"#;

/// A theme as distributions have them: a picture, a title, a menu somewhere, all in Unifont.
const THEME: &str = r##"
desktop-image: "picture.png"
title-text: "Boot menu of a test"
title-color: "#ffff00"
title-font: "Unifont Regular 16"
terminal-font: "Unifont Regular 16"
+ boot_menu {
    left = 15%
    top = 30%
    width = 70%
    height = 50%
    item_font = "Unifont Regular 16"
    item_color = "#cccccc"
    selected_item_color = "#ffffff"
    item_height = 23
    item_spacing = 6
    item_padding = 3
}
+ label {
    left = 13
    top = 97%
    text = "Enter: boot, e: edit, c: command line"
    font = "Unifont Regular 16"
    color = "#00ff00"
}
"##;

const ENTRIES: [&str; 5] = [
    "Debian GNU/Linux, with Linux 6.1.0-37-amd64",
    "Graphical terminal",
    "Over a picture",
    "With a theme",
    "Text mode {} (~!@#%^&*) 0O1lI",
];

const EDITED: [&str; 2] = [
    "setparams 'Debian GNU/Linux, with Linux 6.1.0-37-amd64'",
    " linux /vmlinuz root=UUID=7c0d9a5e-5c0a-4b5e ro quiet",
];

#[tokio::test]
async fn grub_is_read_in_text_mode_and_on_its_graphical_terminal() -> Result<()> {
    if missing(&[QEMU, "grub-mkimage", "genisoimage", "/usr/lib/grub/i386-pc/cdboot.img", FONT]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let disc = disc(folder.path())?.display().to_string();
    let machine = Machine::start(folder, &["-m", "256", "-cdrom", &disc]).await?;
    let console = &machine.console;
    let play = async |command: &str| -> Result<()> {
        let actions = boot_command::parse(command).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        play(console, console, &actions, &PlayOptions::default()).await?;
        Ok(())
    };
    truth::text_memory(&machine, "GRUB menu, text mode", ENTRIES[3], 80, 25).await?;
    play("g").await?;
    truth::size(&machine, (1024, 768)).await?;
    truth::lines(&machine, "GRUB menu, gfxterm", &ENTRIES, Beside::Frame).await?;
    play("e").await?;
    truth::lines(&machine, "GRUB editor, gfxterm", &EDITED, Beside::Frame).await?;
    play("<esc><waitFor \"With a theme\"><waitStill 500ms>p<waitStill 1s>").await?;
    truth::lines(&machine, "GRUB menu, gfxterm over a picture", &ENTRIES, Beside::Frame).await?;
    play("c<waitFor \"grub>\"><waitStill 500ms>").await?;
    truth::lines(&machine, "GRUB command line over a picture", &["grub>"], Beside::Anything).await?;
    play("<esc><waitFor \"With a theme\"><waitStill 500ms>t<waitStill 1s>").await?;
    // Nothing but the theme has this title.
    truth::lines(&machine, "GRUB theme, title", &["Boot menu of a test"], Beside::Anything).await?;
    for entry in ENTRIES {
        truth::lines(&machine, "GRUB theme, an entry", &[entry], Beside::Anything).await?;
    }
    // A piece of the theme is not on another screen with the same words, and found when the theme is there again.
    let needle = [Pattern::needle("entry.png", entry_of(console)?, DEFAULT_TOLERANCE)];
    ensure!(is_seen(console, &needle, PATIENCE).await?, "it was cut from this screen: {}", console.screen());
    play("x<waitFor \"With a theme\"><waitStill 1s>").await?;
    truth::size(&machine, (720, 400)).await?;
    ensure!(!is_seen(console, &needle, Duration::from_secs(1)).await?, "{}", console.screen());
    play("t").await?;
    ensure!(is_seen(console, &needle, PATIENCE).await?, "{}", console.screen());
    Ok(())
}

/// An entry of the themed menu that is not the chosen one, as a picture.
fn entry_of(console: &Console) -> Result<Needle> {
    let screen = console.screen();
    let text = screen.text().context("text")?;
    let row = text.rows.iter().position(|row| row.contains("Over a picture")).context("the entry")?;
    let column = text.rows[row].find("Over").map(|at| text.rows[row][..at].chars().count());
    let first = text.cell_rect(row, column.context("its place")?);
    let place = Rect { width: first.width * 14, ..first };
    Ok(Needle::from_frame(&console.frame(), &[place])?)
}

async fn is_seen(console: &Console, needle: &[Pattern], limit: Duration) -> Result<bool> {
    match expect(console, needle, limit).await {
        Ok(Seen::Pattern(_)) => Ok(true),
        Ok(Seen::Fatal(sighting)) => anyhow::bail!("{sighting}"),
        Err(WaitError::NoPattern { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A disc that boots GRUB, with configuration, font, picture and theme on it.
fn disc(folder: &Path) -> Result<std::path::PathBuf> {
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    fs::write(tree.join("grub.cfg"), CONFIGURATION)?;
    fs::write(tree.join("theme.txt"), THEME)?;
    fs::write(tree.join("picture.png"), picture()?)?;
    fs::copy(FONT, tree.join("unicode.pf2"))?;
    let early = folder.join("early.cfg");
    fs::write(&early, "configfile (cd)/grub.cfg\n")?;
    run(Command::new("grub-mkimage")
        .args(["-O", "i386-pc-eltorito", "-p", "(cd)/", "-c"])
        .arg(&early)
        .arg("-o")
        .arg(tree.join("core.img"))
        .args(["iso9660", "biosdisk", "normal", "configfile", "linux", "echo", "test", "minicmd"])
        .args(["gfxterm", "gfxterm_background", "gfxmenu", "font", "png", "vbe", "video", "video_bochs"]))?;
    let path = folder.join("grub.iso");
    run(Command::new("genisoimage")
        .args(["-quiet", "-R", "-b", "core.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .arg("-o")
        .arg(&path)
        .arg(&tree))?;
    Ok(path)
}

/// A picture with many colours, dark enough for white text: a gradient with some noise.
fn picture() -> Result<Vec<u8>> {
    let (width, height) = (1024_u32, 768_u32);
    let mut frame = Frame::new(width, height)?;
    let mut noise = 12_345_u32;
    for y in 0..height {
        let row: Vec<u32> = (0..width)
            .map(|x| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let grain = noise >> 29;
                let (red, green, blue) = (x / 10 + grain, y / 8 + grain, (x + y) / 18 + grain);
                red << 16 | green << 8 | blue
            })
            .collect();
        frame.put_row(0, y, &row);
    }
    frame.png().context("the picture")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
