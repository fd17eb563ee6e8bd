//! Linux consoles: VGA's text mode and a UEFI framebuffer, each in several fonts, a newt dialogue, and a panic.
//!
//! The kernel and busybox come from the lab's tiny guest; the initrd is made here: a shell script that shows the same
//! text in one font after the other, and goes on at Enter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use forge_console::{KeySink as _, keymap, known};

use super::machine::Machine;
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
    let initrd = system.initrd(folder.path(), &fonts, true)?;
    let arguments = ["-m", "256", "-kernel", &system.kernel, "-initrd", &initrd, "-append", KERNEL_LINE];
    let machine = Machine::start(folder, &arguments).await?;
    truth::text_memory(&machine, "whiptail, Linux VGA console", "Partition disks", 80, 25).await?;
    machine.console.press(&[keymap::ENTER]).await?;
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
    let initrd = system.initrd(folder.path(), &fonts, false)?;
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

const KERNEL_LINE: &str = "console=tty0 quiet loglevel=4 panic=0";

async fn each_font(machine: &Machine, where_: &str, fonts: &[&str]) -> Result<()> {
    for font in fonts {
        let last = TEXT[5].replace("FONT", font);
        let mut expected: Vec<&str> = TEXT[..5].to_vec();
        if *font == "builtin" {
            expected.extend(TABLE);
        }
        expected.push(&last);
        truth::lines(machine, &format!("{where_}, {font}"), &expected).await?;
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

/// What is taken from the lab's tiny guest.
struct System {
    kernel: String,
    busybox: PathBuf,
}

impl System {
    /// Takes kernel and busybox out of the tiny guest's disk; `None`, with the reason printed, when there is no disk.
    fn find(folder: &Path) -> Result<Option<Self>> {
        let cache = std::env::var_os("FORGE_LAB_CACHE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab-cache"),
            PathBuf::from,
        );
        let disk = fs::read_dir(&cache).ok().into_iter().flatten().flatten().find_map(|entry| {
            let disk = entry.path().join("disk.qcow2");
            (entry.file_name().to_string_lossy().starts_with("tiny-") && disk.exists()).then_some(disk)
        });
        let Some(disk) = disk else {
            println!("skipped: no tiny guest in {}; cargo lab test makes it", cache.display());
            return Ok(None);
        };
        let raw = folder.join("tiny.raw");
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&disk).arg(&raw))?;
        let (kernel, busybox) = (folder.join("vmlinuz"), folder.join("busybox"));
        // The partition starts at 1 MiB.
        let partition = format!("{}?offset=1048576", raw.display());
        for (name, file) in
            [("/boot/vmlinuz", &kernel), ("/bin/busybox", &busybox), ("/usr/bin/busybox", &busybox)]
        {
            run(Command::new("debugfs")
                .arg("-R")
                .arg(format!("dump {name} {}", file.display()))
                .arg(&partition))?;
        }
        fs::remove_file(&raw)?;
        let size = |file: &Path| fs::metadata(file).map_or(0, |metadata| metadata.len());
        ensure!(size(&kernel) > 1 << 20, "no kernel in {}", disk.display());
        ensure!(size(&busybox) > 1 << 16, "no busybox in {}", disk.display());
        Ok(Some(Self { kernel: kernel.display().to_string(), busybox }))
    }

    /// The initrd: the script, the fonts, and whiptail with what it needs.
    fn initrd(&self, folder: &Path, fonts: &[&str], dialogue: bool) -> Result<String> {
        let mut archive = Archive::default();
        for name in ["bin", "dev", "fonts"] {
            archive.folder(name);
        }
        archive.file("bin/busybox", &fs::read(&self.busybox)?);
        let mut script = "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n\
            exec </dev/tty1 >/dev/tty1 2>&1\nexport TERM=linux\n"
            .to_owned();
        archive.program("setfont")?;
        if dialogue {
            archive.whiptail()?;
            script.push_str(
                "whiptail --title 'Partition disks' --menu 'Choose how the disk is used.' 15 60 4 \
                 1 'Guided - use entire disk' 2 'Guided - use LVM' 3 Manual\n",
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
                    script.push_str(&format!(
                        "/bin/busybox cat <<'END'\n{}\nEND\n",
                        line.replace("FONT", font)
                    ));
                }
            }
            script.push_str("read -s answer\n");
        }
        archive.file("init", script.as_bytes());
        let path = folder.join("initrd");
        fs::write(&path, archive.end())?;
        Ok(path.display().to_string())
    }
}

/// A `newc` cpio archive, as the kernel unpacks it.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: Vec<String>,
    files: Vec<String>,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let size = name.len() + 1;
        let number = self.bytes.len();
        self.bytes.extend(
            format!("070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{2:08x}{0:08x}{0:08x}{0:08x}{0:08x}{size:08x}{0:08x}", 0, 1, content.len())
                .bytes(),
        );
        self.bytes.extend(name.bytes().chain([0]));
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn folder(&mut self, name: &str) {
        if !self.folders.iter().any(|other| other == name) {
            self.folders.push(name.to_owned());
            self.entry(name, 0o040_755, &[]);
        }
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at]);
        }
        self.entry(name, 0o100_755, content);
    }

    /// A program of the host, and its libraries.
    fn program(&mut self, name: &str) -> Result<()> {
        let places = ["/usr/bin", "/bin"].map(|folder| format!("{folder}/{name}"));
        let path = places.iter().find(|path| Path::new(path).exists()).with_context(|| name.to_owned())?;
        self.file(&format!("bin/{name}"), &fs::read(path)?);
        let output = Command::new("ldd").arg(path).output()?;
        for word in
            String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/'))
        {
            let name = word.trim_start_matches('/').to_owned();
            if !self.files.contains(&name) {
                self.file(&name, &fs::read(word)?);
                self.files.push(name);
            }
        }
        Ok(())
    }

    /// The host's whiptail and its terminal's description.
    fn whiptail(&mut self) -> Result<()> {
        self.program("whiptail")?;
        for folder in ["lib/terminfo/l", "usr/share/terminfo/l", "etc/terminfo/l"] {
            if let Ok(description) = fs::read(format!("/{folder}/linux")) {
                self.file(&format!("{folder}/linux"), &description);
            }
        }
        Ok(())
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
