//! A folder that points the real `forge` at the QEMU of this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take: far beyond what it needs, so that only a hang is an error.
const LIMIT: Duration = Duration::from_secs(900);

/// The folder that forge runs in: `forge.toml`, `state/`, `images/`, `output/`.
#[derive(Debug)]
pub struct LocalSite {
    folder: TempDir,
}

/// A run of forge that is over.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Self { code: output.status.code(), text }
    }
}

impl LocalSite {
    /// A new one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("forge-local-").tempdir().expect("a folder");
        let site = Self { folder };
        site.write("forge.toml", "[targets.local]\ntype = \"qemu\"\nimages = \"images\"\n");
        site
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    /// Writes a program of these lines for the shell.
    pub fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("the folder is ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
        path
    }

    /// Puts a program of these lines where forge finds it before the real one, which the lines call `$REAL`.
    pub fn stand_in(&self, program: &str, lines: &str) {
        let path = std::env::var_os("PATH").expect("there is one");
        let real =
            std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
        let real = real.expect("the real one is installed");
        std::fs::create_dir_all(self.path().join("bin")).expect("the folder is ours");
        self.script(&format!("bin/{program}"), &format!("REAL={}\n{lines}", real.display()));
    }

    /// Forge with these arguments, ready to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command.args(["--state-dir", "state"]).args(arguments).current_dir(self.path());
        let path = std::env::var("PATH").expect("there is one");
        command.env("PATH", format!("{}:{path}", self.path().join("bin").display()));
        command
    }

    /// Runs forge to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("forge can be run").into()
    }

    /// Runs forge, which has to succeed.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{}{}", said.text, self.serial());
        said.text
    }

    /// What guests have written to their serial ports, for a failure.
    pub fn serial(&self) -> String {
        let kept = std::fs::read_dir(self.path().join("state/qemu/local")).into_iter().flatten().flatten();
        kept.filter_map(|entry| std::fs::read_to_string(entry.path().join("serial.log")).ok()).collect()
    }

    /// The names of the finished files.
    pub fn images(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join("images")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A finished file.
    pub fn image(&self, name: &str) -> PathBuf {
        self.path().join("images").join(name)
    }

    /// Asserts that no VM, no QEMU, no journal and no unfinished file is left.
    pub fn assert_nothing_left(&self) {
        let left = |folder: &str| {
            let entries = std::fs::read_dir(self.path().join(folder)).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        assert_eq!(left("state/qemu/local"), Vec::<PathBuf>::new(), "no VM is left");
        assert_eq!(left("state/journal"), Vec::<PathBuf>::new(), "no journal is left");
        let unfinished: Vec<String> =
            self.images().into_iter().filter(|name| name.starts_with('.')).collect();
        assert_eq!(unfinished, Vec::<String>::new(), "no file is half written");
        self.assert_nothing_runs();
    }

    /// Asserts that no process of a run works in this folder; what ends with forge or with QEMU may do so a moment later.
    pub fn assert_nothing_runs(&self) {
        let began = Instant::now();
        while !self.processes().is_empty() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.processes(), Vec::<String>::new(), "nothing runs");
    }

    /// The command lines of processes that work in this folder.
    pub fn processes(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
        let here = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder.starts_with(self.path()))
        };
        let line = |entry: std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        };
        entries.filter(here).filter_map(line).filter(|line| !line.is_empty()).collect()
    }
}

/// A run of forge that is under way, with what it says in a file.
#[derive(Debug)]
pub struct UnderWay {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl UnderWay {
    /// Begins one.
    pub fn start(mut command: Command) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let [out, err] = [(); 2].map(|()| log.reopen().expect("ours"));
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("forge can be run");
        Self { child, log }
    }

    /// What it has said by now.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Waits until it has said these words, and returns all that it has said.
    pub fn says(&mut self, words: &str) -> String {
        self.until(words, |said| said.contains(words));
        self.said()
    }

    /// Waits until something is so, which is asked with what it has said.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&str) -> bool) {
        let began = Instant::now();
        while !so(&self.said()) {
            let ended = self.child.try_wait().expect("ours");
            assert!(ended.is_none() && began.elapsed() < LIMIT, "{what}: {ended:?} {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is ours");
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Said {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("ours") {
                Some(status) => break status,
                None if began.elapsed() > LIMIT => {
                    self.child.kill().expect("ours");
                    panic!("it did not end: {}", self.said());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        Said { code: status.code(), text: self.said() }
    }
}

/// Asserts that `qemu-img` takes an image for whole, and tells its size as the guest sees it.
pub fn checked(image: &Path, format: &str) -> u64 {
    let info = Command::new("qemu-img").args(["info", "--output=json", "-f", format]).arg(image).output();
    let info = info.expect("qemu-img can be run");
    assert!(info.status.success(), "{}", String::from_utf8_lossy(&info.stderr));
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("JSON");
    assert_eq!(info["backing-filename"], serde_json::Value::Null, "{info}");
    if format != "raw" {
        let check = Command::new("qemu-img").args(["check", "-q", "-f", format]).arg(image).output();
        let check = check.expect("qemu-img can be run");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
    info["virtual-size"].as_u64().expect("a size")
}
