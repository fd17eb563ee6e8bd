//! A real QEMU with a console and a monitor.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as Monitor;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use forge_console::Console;
use tokio::net::UnixStream;

/// A running QEMU; dropped, it is killed by its own id and waited for.
pub struct Machine {
    child: Child,
    folder: tempfile::TempDir,
    pub console: Console,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// Starts a PC without a network and opens its console. `folder` holds what it starts from, and its sockets.
    pub async fn start<A: AsRef<str>>(folder: tempfile::TempDir, arguments: &[A]) -> Result<Self> {
        let (vnc, monitor) = (folder.path().join("vnc"), folder.path().join("monitor"));
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-display", "none", "-net", "none"]);
        command.args(["-nodefaults", "-vga", "std", "-no-reboot"]);
        command.args(arguments.iter().map(AsRef::as_ref));
        command.arg("-vnc").arg(format!("unix:{}", vnc.display()));
        command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        let child = command.stdin(Stdio::null()).spawn().context("starting qemu-system-x86_64")?;
        // The guard is there before anything can fail.
        let mut guard = Guard(Some(child));
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(&vnc).await {
                Ok(stream) => break stream,
                Err(error) if began.elapsed() > Duration::from_secs(60) => {
                    bail!("QEMU does not listen: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            if let Some(status) = guard.0.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("QEMU ended: {status}");
            }
        };
        let console = Console::open(stream, None).await?;
        let child = guard.0.take().context("the child is there")?;
        Ok(Self { child, folder, console })
    }

    /// Runs commands of the human monitor while the guest stands still; gives what they print.
    pub fn ask(&self, commands: &[&str]) -> Result<Vec<String>> {
        let mut monitor = Monitor::connect(self.folder.path().join("monitor"))?;
        monitor.set_read_timeout(Some(Duration::from_secs(60)))?;
        prompt(&mut monitor)?;
        let mut answers = Vec::new();
        for command in ["stop"].iter().chain(commands).chain(&["cont"]) {
            monitor.write_all(format!("{command}\n").as_bytes())?;
            answers.push(prompt(&mut monitor)?);
        }
        answers.remove(0);
        answers.pop();
        Ok(answers)
    }

    /// The text memory of the VGA as it is shown: 80x25 cells of character and attribute.
    pub fn text_memory(&self, columns: usize, lines: usize) -> Result<Vec<[u8; 2]>> {
        let file = self.folder.path().join("memory");
        let save = format!("pmemsave 0xb8000 0x8000 \"{}\"", file.display());
        let answers = self.ask(&["o /b 0x3d4 0xc", "i /b 0x3d5", "o /b 0x3d4 0xd", "i /b 0x3d5", &save])?;
        let number = |text: &str| -> Result<usize> {
            let (_, value) = text.rsplit_once("0x").with_context(|| format!("a port's value in {text:?}"))?;
            let digits: String = value.chars().take_while(char::is_ascii_hexdigit).collect();
            Ok(usize::from_str_radix(&digits, 16)?)
        };
        let start = (number(&answers[1])? << 8 | number(&answers[3])?) * 2;
        let memory = std::fs::read(&file)?;
        let cells: Vec<[u8; 2]> = memory
            .get(start..start + columns * lines * 2)
            .with_context(|| format!("text memory from {start} on"))?
            .chunks_exact(2)
            .map(|cell| [cell[0], cell[1]])
            .collect();
        Ok(cells)
    }

    /// Keeps the picture where `FORGE_SCREENS` says, for people to look at.
    pub fn keep(&self, name: &str) -> Result<()> {
        if let Some(folder) = std::env::var_os("FORGE_SCREENS") {
            let file = PathBuf::from(folder).join(name.replace([' ', ',', '/'], "-"));
            std::fs::write(file.with_extension("png"), self.console.png()?)?;
            std::fs::write(file.with_extension("txt"), format!("{}\n", self.console.screen()))?;
        }
        Ok(())
    }
}

struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads up to the monitor's next prompt.
fn prompt(monitor: &mut Monitor) -> Result<String> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"(qemu) ") {
        if monitor.read(&mut byte)? == 0 {
            bail!("the monitor closed: {}", String::from_utf8_lossy(&seen));
        }
        seen.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}
