//! Typing where UEFI draws the screen: its shell and systemd-boot's editor.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use forge_console::{Pattern, PlayOptions, TypeOptions, expect, play, type_text};

use super::QEMU;
use super::screens::{Machine, System};
use super::typing::{PATIENCE, Random, parse};
use super::vm::missing;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Starts UEFI with this folder as its only disk; the serial port goes to a file beside it.
async fn start(folder: tempfile::TempDir, tree: &Path, serial: &Path) -> Result<Machine> {
    let vars = folder.path().join("vars.fd");
    fs::copy(VARS, &vars)?;
    let arguments = [
        "-machine".to_owned(),
        "q35".to_owned(),
        "-m".to_owned(),
        "384".to_owned(),
        "-serial".to_owned(),
        format!("file:{}", serial.display()),
        "-drive".to_owned(),
        format!("if=pflash,format=raw,readonly=on,file={CODE}"),
        "-drive".to_owned(),
        format!("if=pflash,format=raw,file={}", vars.display()),
        "-drive".to_owned(),
        format!("format=raw,file=fat:rw:{}", tree.display()),
    ];
    Machine::start(folder, &arguments).await
}

async fn keys(machine: &Machine, keys: &str) -> Result<()> {
    play(&machine.console, &machine.console, &parse(keys)?, &PlayOptions::default()).await?;
    Ok(())
}

#[tokio::test]
async fn a_line_is_typed_at_the_shell_of_ovmf_and_printed_by_it() -> Result<()> {
    if missing(&[QEMU, CODE, VARS]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (tree, serial) = (folder.path().join("tree"), folder.path().join("serial"));
    fs::create_dir(&tree)?;
    let machine = start(folder, &tree, &serial).await?;
    let console = &machine.console;
    keys(&machine, "<waitFor \"to skip startup.nsh\" 3m><esc><waitFor \"Shell>\" 2m><waitStill 1s>").await?;
    // Longer than a line of the screen; the shell itself is the second reader.
    let words =
        "inst.ks=http://10.0.2.2:8800/0123456789abcdef/ks.cfg ip=dhcp console=ttyS0,115200n8 Ab_C~d!e@f";
    let line = format!("echo \"{words} {words}\"");
    let report = type_text(console, &line, &TypeOptions::default()).await?;
    println!("{} characters at the shell of OVMF: {report:?}\n{}", line.len(), console.screen());
    ensure!(report.verified, "{}", console.screen());
    keys(&machine, "<enter>").await?;
    let output = [Pattern::regex("^ *inst\\.ks=")?];
    expect(console, &output, PATIENCE).await?;
    console.wait_still(Duration::from_secs(1), PATIENCE).await?;
    let screen = console.screen();
    let text = screen.text().context("text")?;
    // The shell's lines stand in the middle of a wider screen.
    let rows: Vec<&str> = text.rows.iter().map(|row| row.trim()).collect();
    let printed = rows.iter().rposition(|row| row.starts_with("inst.ks=")).context("the output")?;
    let printed =
        rows[printed..].iter().take_while(|row| !row.starts_with("Shell>")).copied().collect::<String>();
    ensure!(printed.trim_end() == format!("{words} {words}"), "{screen}");

    Ok(())
}

#[tokio::test]
async fn a_line_is_typed_into_systemd_boots_editor_and_the_kernel_gets_it() -> Result<()> {
    if missing(&[QEMU, CODE, VARS, SYSTEMD_BOOT, "debugfs", "qemu-img"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let Some(system) = System::find(folder.path())? else { return Ok(()) };
    let (tree, serial) = (folder.path().join("tree"), folder.path().join("serial"));
    for part in ["EFI/BOOT", "loader/entries"] {
        fs::create_dir_all(tree.join(part))?;
    }
    fs::copy(SYSTEMD_BOOT, tree.join("EFI/BOOT/BOOTX64.EFI"))?;
    fs::copy(&system.kernel, tree.join("linux.efi"))?;
    fs::write(tree.join("loader/loader.conf"), "timeout menu-force\neditor yes\ndefault b.conf\n")?;
    for (name, title) in [("a", "Debian GNU/Linux"), ("b", "Another system")] {
        let entry = format!("title {title}\nlinux /linux.efi\noptions console=ttyS0 entry={name}\n");
        fs::write(tree.join(format!("loader/entries/{name}.conf")), entry)?;
    }
    let machine = start(folder, &tree, &serial).await?;
    let console = &machine.console;
    // Its editor's cursor blinks, so this screen is never still.
    keys(&machine, "<waitFor \"Another system\" 3m><waitStill 1s>e<waitFor \"entry=b\" 1m><end>").await?;
    println!("{}", console.screen());
    let line = Random(7).line(60);
    let report = type_text(console, &line, &TypeOptions::default()).await?;
    println!("{} characters in systemd-boot's editor: {report:?}\n{}", line.len(), console.screen());
    ensure!(report.verified, "{}", console.screen());
    keys(&machine, "<enter>").await?;
    let began = std::time::Instant::now();
    loop {
        let said = String::from_utf8_lossy(&fs::read(&serial)?).into_owned();
        if let Some((_, rest)) = said.split_once("ommand line:")
            && let Some((got, _)) = rest.split_once('\n')
        {
            ensure!(
                got.trim_end_matches('\r').ends_with(&format!("entry=b{line}")),
                "{line:?} was typed, the kernel got {got:?}"
            );
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the kernel said nothing: {said:?}\n{}", console.screen());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
