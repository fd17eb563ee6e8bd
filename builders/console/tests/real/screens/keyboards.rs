//! Keyboards of other layouts than the American: a Linux console with each of the kernel's keymaps.
//!
//! The guest reads lines and says what it read; an empty line loads the next keymap.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use forge_console::{Console, KeySink as _, TypeError, TypeOptions, keymap, type_text};

use super::PATIENCE;
use super::machine::Machine;
use super::system::{Archive, System};
use crate::QEMU;
use crate::vm::missing;

const KEYMAPS: &str = "/usr/share/keymaps/i386";
/// forge's name of a layout, and the kernel's keymap of it (Debian's package `console-data`). Those of Italy, Norway
/// and Sweden differ from the keyboards there.
const LAYOUTS: [(&str, &str); 7] = [
    ("es", "qwerty/es"),
    ("de", "qwertz/de-latin1"),
    ("gb", "qwerty/uk"),
    ("ch", "qwertz/sg-latin1"),
    ("fr", "azerty/fr-latin9"),
    ("be", "azerty/be-latin1"),
    ("dk", "qwerty/dk-latin1"),
];
/// Every character of ASCII that can be seen.
const LINE: &str = "http://10.0.2.2:8800/ !\"#$%&'()*+,-.3456789;<=>?@[\\]^_`{|}~ \
                    ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz";

#[tokio::test]
async fn a_line_is_typed_on_a_keyboard_of_each_layout_and_a_wrong_layout_is_named() -> Result<()> {
    if missing(&[QEMU, "qemu-img", "debugfs", "loadkeys", "ldd"])
        || missing(&[&file("qwertz/de-latin1.kmap")])
    {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let Some(system) = System::find(folder.path())? else { return Ok(()) };
    let initrd = initrd(&system, folder.path())?;
    let line = "console=tty0 quiet loglevel=1 panic=0";
    let machine = Machine::start(
        folder,
        &["-m", "256", "-kernel", &system.kernel, "-initrd", &initrd, "-append", line],
    )
    .await?;
    let console = &machine.console;
    for (name, _) in LAYOUTS {
        console.wait_for(&format!("keyboard {name}:"), PATIENCE).await?;
        if name == "de" {
            is_named(console).await?;
        }
        let layout = keymap::Layout::by_name(name).context("a layout")?;
        let options = TypeOptions { layout, echo_limit: Duration::from_secs(30), ..TypeOptions::default() };
        // The kernel's Belgian keymap has that dead key on another key than Belgian keyboards have.
        let line = if name == "be" { LINE.replace('`', "") } else { LINE.to_owned() };
        let report = type_text(console, &line, &options).await.with_context(|| name.to_owned())?;
        println!("{name}: {report:?}");
        assert!(report.verified, "{name}: {report:?}");
        console.press(&[keymap::ENTER]).await?;
        // What the guest read, without the line break of its screen.
        console.wait_for("] as it was read", PATIENCE).await.with_context(|| name.to_owned())?;
        let screen = console.screen();
        let rows: String =
            screen.text().context("text")?.rows.iter().map(|row| format!("{row:80}")).collect();
        assert!(rows.contains(&format!("[{line}] as it was read")), "{name}: {screen}");
        console.press(&[keymap::ENTER]).await?;
    }
    Ok(())
}

/// Typing as on an American keyboard fails and says which one it is.
async fn is_named(console: &Console) -> Result<()> {
    let options = TypeOptions { echo_limit: Duration::from_secs(10), ..TypeOptions::default() };
    let Err(error) = type_text(console, "linux sdy/x", &options).await else {
        bail!("it is another keyboard")
    };
    let TypeError::Mismatch { layouts, .. } = &error else { panic!("{error}") };
    let names: Vec<&str> = layouts.iter().map(|layout| layout.name()).collect();
    assert_eq!(names, ["de", "ch"], "{error}");
    assert!(error.to_string().contains("as if the guest's keyboard had the layout `de` or `ch`"), "{error}");
    // What is left of it is taken back by the console's own key for that.
    let kill = forge_console::boot_command::parse("<leftCtrlOn>u<leftCtrlOff>")
        .map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    forge_console::play(console, console, &kill, &forge_console::PlayOptions::default()).await?;
    console.wait_still(Duration::from_millis(500), PATIENCE).await?;
    Ok(())
}

fn file(name: &str) -> String {
    format!("{KEYMAPS}/{name}.gz")
}

/// The initrd: a script that reads lines, and the keymaps with what they include.
fn initrd(system: &System, folder: &Path) -> Result<String> {
    let (mut archive, mut script) = system.archive()?;
    archive.program("loadkeys")?;
    for (name, keymap) in LAYOUTS {
        add(&mut archive, &format!("{keymap}.kmap"))?;
        script.push_str(&format!(
            "loadkeys -q {KEYMAPS}/{keymap}.kmap\n/bin/busybox clear\necho 'keyboard {name}:'\n\
             while read -r line && [ -n \"$line\" ]; do echo \"[$line] as it was read\"; done\n"
        ));
    }
    for entry in fs::read_dir(format!("{KEYMAPS}/include"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        add(&mut archive, &format!("include/{}", name.trim_end_matches(".gz")))?;
    }
    archive.initrd(folder, &script)
}

fn add(archive: &mut Archive, name: &str) -> Result<()> {
    let packed = fs::read(file(name)).with_context(|| file(name))?;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain)?;
    archive.file(&format!("{}/{name}", KEYMAPS.trim_start_matches('/')), &plain);
    Ok(())
}
