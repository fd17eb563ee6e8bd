//! A small Linux for screens: kernel and busybox of the lab's tiny guest, and an initrd made for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What is taken from the lab's tiny guest.
pub struct System {
    /// The kernel's file.
    pub kernel: String,
    busybox: PathBuf,
}

impl System {
    /// Takes kernel and busybox out of the tiny guest's disk; `None`, with the reason printed, when there is no disk.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
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

    /// An archive with busybox, and the beginning of a script that speaks on the first console.
    pub fn archive(&self) -> Result<(Archive, String)> {
        let mut archive = Archive::default();
        for name in ["bin", "dev"] {
            archive.folder(name);
        }
        archive.file("bin/busybox", &fs::read(&self.busybox)?);
        let script = "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n\
            exec </dev/tty1 >/dev/tty1 2>&1\nexport TERM=linux\n";
        Ok((archive, script.to_owned()))
    }
}

/// A `newc` cpio archive, as the kernel unpacks it.
#[derive(Default)]
pub struct Archive {
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

    pub fn folder(&mut self, name: &str) {
        if !self.folders.iter().any(|other| other == name) {
            self.folders.push(name.to_owned());
            self.entry(name, 0o040_755, &[]);
        }
    }

    pub fn file(&mut self, name: &str, content: &[u8]) {
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at]);
        }
        self.entry(name, 0o100_755, content);
    }

    /// A program of the host, and its libraries.
    pub fn program(&mut self, name: &str) -> Result<()> {
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
    pub fn whiptail(&mut self) -> Result<()> {
        self.program("whiptail")?;
        for folder in ["lib/terminfo/l", "usr/share/terminfo/l", "etc/terminfo/l"] {
            if let Ok(description) = fs::read(format!("/{folder}/linux")) {
                self.file(&format!("{folder}/linux"), &description);
            }
        }
        Ok(())
    }

    /// Writes the initrd, with this script as its first program; gives its path.
    pub fn initrd(mut self, folder: &Path, script: &str) -> Result<String> {
        self.file("init", script.as_bytes());
        self.entry("TRAILER!!!", 0, &[]);
        let path = folder.join("initrd");
        fs::write(&path, self.bytes)?;
        Ok(path.display().to_string())
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
