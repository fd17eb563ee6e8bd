//! A lab that has nobody but root, and an empty folder: where `forge init` begins.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use forge_lab::{ImportVm, Lab, LabConfig, PveVersion, Shell, ShellConfig, images};
use tempfile::TempDir;
use tokio::process::Command;

use super::lab_site::{BOOT_VM, Done, LIMIT, guest};

/// The password of root.
pub const PASSWORD: &str = "ein langes Wort";

/// A lab with root alone, its shell, and an empty folder.
pub struct Fresh {
    /// The lab.
    pub lab: Lab,
    /// Its shell.
    pub shell: Shell,
    folder: TempDir,
}

impl Fresh {
    /// With a lab, a shell and a boot VM of any kind.
    pub async fn with(config: LabConfig, shell: ShellConfig, boot_vm: ImportVm) -> anyhow::Result<Self> {
        let lab = Lab::start(LabConfig { auth_delay: Duration::ZERO, ..config }).await?;
        lab.set_password("root@pam", PASSWORD);
        lab.import_vm(ImportVm { vmid: BOOT_VM, name: "boot-vm".into(), ..boot_vm }).await?;
        let shell = lab.serve_shell(shell).await?;
        let folder = tempfile::Builder::new().prefix("forge-init-").tempdir()?;
        Ok(Self { lab, shell, folder })
    }

    /// VMs run in name only.
    pub async fn new(version: PveVersion) -> anyhow::Result<Self> {
        let config = LabConfig { version, run_guests: false, ..LabConfig::default() };
        Self::with(config, root(), ImportVm::default()).await
    }

    /// With the tiny guest as boot VM; `None`, with the reason printed, where it can't be had.
    pub async fn with_tiny_guest(version: PveVersion) -> anyhow::Result<Option<Self>> {
        let tiny = |cache: &Path| images::tiny(cache).map(|image| image.disk);
        let Some(boot_vm) = guest(ImportVm::default(), tiny).await? else { return Ok(None) };
        let config = LabConfig { version, ..LabConfig::default() };
        Ok(Some(Self::with(config, root(), boot_vm).await?))
    }

    /// What guests reach forge by is the lab's own affair: it is written into the only target of the site file.
    pub fn tell_how_guests_reach_forge(&self) {
        let site = self.read("forge.toml") + "seed = { bind = \"127.0.0.1\", address = \"10.0.2.2\" }\n";
        std::fs::write(self.path("forge.toml"), site).expect("the folder is ours");
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text of a file of the folder.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Runs forge with a clean environment but for these variables.
    pub async fn forge(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command
            .args(["--state-dir", "state"])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output = output.expect("forge ends").expect("forge can be run");
        Done {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `forge init` over SSH with the password of root.
    pub async fn init(&self, more: &[&str]) -> Done {
        let (host, url) = (format!("root@{}", self.shell.address()), self.lab.url());
        let arguments = ["init", "proxmox", &host, "--url", &url, "--host-key", self.shell.host_key()];
        self.forge(&[&arguments, more].concat(), &[("FORGE_SSH_PASSWORD", PASSWORD)]).await
    }

    /// Every file that forge wrote but those for the secret, by name and text.
    pub fn written(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
                let path = entry.path();
                if path.is_symlink() {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((
                        path.clone(),
                        String::from_utf8_lossy(&std::fs::read(&path).expect("there")).into(),
                    ));
                }
            }
        }
        found
    }
}

/// A shell that root may log in to by password.
pub fn root() -> ShellConfig {
    ShellConfig { password: Some(PASSWORD.into()), ..ShellConfig::default() }
}

/// The mode of a file.
pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}
