//! A lab with a folder that points the real `forge` at it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use forge_lab::{ImportVm, LEAST_PRIVILEGES_PVE9, Lab, LabConfig, VmView, images};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The token that forge uses.
pub const TOKEN: &str = "forge@pve!build";
/// The variable that holds its secret.
pub const SECRET_VARIABLE: &str = "PROXMOX_TOKEN_SECRET";
/// The VM that profiles clone.
pub const BOOT_VM: u32 = 9000;
/// A template that an earlier build made: nothing may harm it.
pub const OLD: u32 = 8999;
/// The first of the ids that forge may take.
pub const FIRST_ID: u32 = 9001;
/// How long anything may take: far beyond what it needs, so that only a hang is an error.
pub const LIMIT: Duration = Duration::from_secs(900);

/// A profile that the tiny guest, and a VM in name only, can be built from.
pub const PROFILE: &str = r#"schema = 1
name = "tiny"

[os]
family = "linux"

[template]
name = "tpl-tiny"

[source]
clone = "boot-vm"

[deadlines]
connect = "15m"

[[provision]]
name = "hello"
shell = ["echo hello from $(hostname)"]
"#;

/// A lab and the folder that forge runs in: `forge.toml`, `tiny.toml`, `state/`, `output/`.
#[derive(Debug)]
pub struct LabSite {
    /// The lab.
    pub lab: Lab,
    /// The token's secret.
    pub secret: String,
    folder: TempDir,
}

/// A run of forge that is over.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A run of forge.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl LabSite {
    /// VMs run in name only: everything up to the first login can be tried in no time.
    pub async fn in_name_only() -> anyhow::Result<Self> {
        let config = LabConfig { run_guests: false, ..LabConfig::default() };
        Self::with(config, ImportVm::default()).await
    }

    /// With the tiny guest as boot VM; `None`, with the reason printed, where it can't be had.
    pub async fn with_tiny_guest(cloudinit_drive: bool) -> anyhow::Result<Option<Self>> {
        Self::with_guest(cloudinit_drive, |cache| images::tiny(cache).map(|image| image.disk)).await
    }

    /// With a template of the tiny guest in the boot VM's place: what linked clones are made of.
    pub async fn with_tiny_template() -> anyhow::Result<Option<Self>> {
        let tiny = |cache: &Path| images::tiny(cache).map(|image| image.disk);
        let template = ImportVm { template: true, ..ImportVm::default() };
        Self::with_boot_vm(LabConfig::default(), template, tiny).await
    }

    /// The same with Debian.
    pub async fn with_debian(cloudinit_drive: bool) -> anyhow::Result<Option<Self>> {
        Self::with_guest(cloudinit_drive, |cache| images::debian(cache).map(|image| image.disk)).await
    }

    /// Three nodes with a storage that all of them reach, the tiny guest as boot VM, and nodes chosen by forge.
    pub async fn with_three_nodes() -> anyhow::Result<Option<Self>> {
        let config = LabConfig {
            nodes: ["pve", "pve2", "pve3"].map(str::to_owned).to_vec(),
            storages: vec![forge_lab::StorageConfig {
                shared: true,
                ..forge_lab::StorageConfig::everything("local")
            }],
            ..LabConfig::default()
        };
        let tiny = |cache: &Path| images::tiny(cache).map(|image| image.disk);
        let Some(site) = Self::with_guest_in(config, false, tiny).await? else { return Ok(None) };
        site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
        site.write("forge.toml", &site.forge_toml().replace(r#"nodes = ["pve"]"#, r#"nodes = "auto""#));
        Ok(Some(site))
    }

    async fn with_guest(
        cloudinit_drive: bool,
        disk: fn(&Path) -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<Option<Self>> {
        Self::with_guest_in(LabConfig::default(), cloudinit_drive, disk).await
    }

    /// With a guest of any kind as boot VM in a lab of any kind; `None`, with the reason printed, where it can't be had.
    pub async fn with_guest_in(
        config: LabConfig,
        cloudinit_drive: bool,
        disk: fn(&Path) -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<Option<Self>> {
        Self::with_boot_vm(config, ImportVm { cloudinit_drive, ..ImportVm::default() }, disk).await
    }

    async fn with_boot_vm(
        config: LabConfig,
        boot_vm: ImportVm,
        disk: fn(&Path) -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(boot_vm) = guest(boot_vm, disk).await? else { return Ok(None) };
        Ok(Some(Self::with(config, boot_vm).await?))
    }

    /// With a boot VM and a lab of any kind.
    pub async fn with(config: LabConfig, boot_vm: ImportVm) -> anyhow::Result<Self> {
        let config = LabConfig { auth_delay: Duration::ZERO, ..config };
        let lab = Lab::start(config).await?;
        lab.import_vm(ImportVm { vmid: BOOT_VM, name: "boot-vm".into(), ..boot_vm }).await?;
        let secret = lab.add_token(TOKEN, &[("/", LEAST_PRIVILEGES_PVE9)]);
        let site = Self { lab, secret, folder: tempfile::Builder::new().prefix("forge-it-").tempdir()? };
        site.write("forge.toml", &site.forge_toml());
        site.write("tiny.toml", PROFILE);
        Ok(site)
    }

    /// The site file of this lab.
    pub fn forge_toml(&self) -> String {
        format!(
            r#"[targets.lab]
type = "proxmox"
url = "{}"
token-id = "{TOKEN}"
token-secret = {{ env = "{SECRET_VARIABLE}" }}
tls = {{ fingerprint = "{}" }}
nodes = ["pve"]
storage = {{ disks = "local", isos = "local" }}
bridge = "vmbr0"
vmids = "9001-9099"
seed = {{ bind = "127.0.0.1", address = "10.0.2.2" }}
"#,
            self.lab.url(),
            self.lab.fingerprint()
        )
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    /// Starts forge with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with_secret(arguments, Some(&self.secret))
    }

    /// Starts forge with further variables in its environment.
    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let secret = [(SECRET_VARIABLE, self.secret.as_str())];
        self.start_in(arguments, &[&secret, environment].concat())
    }

    /// Starts forge with another secret, or none.
    pub fn start_with_secret(&self, arguments: &[&str], secret: Option<&str>) -> Running {
        let secret: Vec<(&str, &str)> = secret.map(|secret| (SECRET_VARIABLE, secret)).into_iter().collect();
        self.start_in(arguments, &secret)
    }

    fn start_in(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let number = std::fs::read_dir(self.path()).expect("the folder is ours").count();
        let stdout = self.path().join(format!("{number}.stdout"));
        let stderr = self.path().join(format!("{number}.stderr"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command
            .args(["--state-dir", "state"])
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("USER", "tester")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&stdout).expect("the folder is ours"))
            .stderr(std::fs::File::create(&stderr).expect("the folder is ours"))
            .kill_on_drop(true);
        Running { child: command.spawn().expect("forge can be run"), stdout, stderr }
    }

    /// Runs forge to its end.
    pub async fn run(&self, arguments: &[&str]) -> Done {
        self.start(arguments).ended().await
    }

    /// The journals (and kept keys) of builds that are not over.
    pub fn journals(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join("state/journal")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// All VMs but the boot VM and the template of an earlier build.
    pub fn others(&self) -> Vec<VmView> {
        self.lab.vms().into_iter().filter(|vm| vm.vmid != BOOT_VM && vm.vmid != OLD).collect()
    }

    /// Puts a template there as an earlier build of that profile left it.
    pub async fn with_old_template(self, profile: &str) -> anyhow::Result<Self> {
        let notes = format!(
            "Template built by forge.\n\n* chain id: CHAIN-20260101T000000Z-{profile}-0000\n* profile: {profile}\n"
        );
        let old = ImportVm {
            vmid: OLD,
            name: format!("tpl-{profile}"),
            template: true,
            tags: "forge;latest".into(),
            extra: [("description".to_owned(), notes)].into(),
            ..ImportVm::default()
        };
        self.lab.import_vm(old).await?;
        Ok(self)
    }

    /// Asserts that the template of an earlier build is what it was, and whether it still bears `latest`.
    pub fn assert_old_template(&self, is_latest: bool, case: &str) {
        let old = self.lab.vm(OLD).unwrap_or_else(|| panic!("{case}: the old template is gone"));
        let tags = if is_latest { "forge;latest" } else { "forge" };
        assert_eq!((old.tags.as_str(), old.template, old.running), (tags, true, false), "{case}");
        assert!(
            old.name.starts_with("tpl-") && old.description.contains("CHAIN-20260101"),
            "{case}: {old:?}"
        );
        assert!(old.config.contains_key("scsi0"), "{case}: {old:?}");
        let disk = self.lab.image_files().into_iter().any(|path| path.to_string_lossy().contains("/8999/"));
        assert!(disk, "{case}: its disk is gone");
    }

    /// The files that storages hold as ISOs and as disk images to import.
    pub fn media_files(&self) -> Vec<PathBuf> {
        let disk = self.lab.image_files().into_iter().next().expect("the boot VM has a disk");
        let storage = disk.ancestors().nth(3).expect("STORAGE/images/VMID/DISK");
        let folders = ["template/iso", "import"].map(|folder| std::fs::read_dir(storage.join(folder)));
        let entries = folders.into_iter().flatten().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// Asserts that a build left nothing: no VM, no disk, no guest that runs, no task, no journal.
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.others(), [], "no VM is left");
        assert!(self.lab.qemu_pids().is_empty(), "no guest runs");
        assert_eq!(self.lab.running_tasks(), [], "no task runs");
        let foreign: Vec<_> = self
            .lab
            .image_files()
            .into_iter()
            .filter(|path| {
                ![BOOT_VM, OLD].iter().any(|id| path.to_string_lossy().contains(&format!("/{id}/")))
            })
            .collect();
        assert!(foreign.is_empty(), "disks are left: {foreign:?}");
        assert_eq!(self.journals(), Vec::<String>::new(), "no journal is left");
    }

    /// Asserts that the only thing left is the template at that id.
    pub fn assert_template_only(&self, vmid: u32) {
        let others = self.others();
        assert_eq!(others.iter().map(|vm| vm.vmid).collect::<Vec<_>>(), [vmid]);
        let vm = &others[0];
        assert!(vm.template && !vm.running && vm.lock.is_none(), "{vm:?}");
        assert_eq!(vm.name, "tpl-tiny");
        assert!(self.lab.qemu_pids().is_empty(), "no guest runs");
        assert_eq!(self.journals(), Vec::<String>::new(), "no journal is left");
    }

    /// Asserts that a linked clone of the template at that id boots and lets somebody in, by `forge test`.
    pub async fn assert_boots_as_a_clone(&self, vmid: u32) {
        let tried = self.run(&["test", "tpl-tiny"]).await;
        assert_eq!(tried.code, Some(0), "{}{}", tried.stdout, tried.stderr);
        self.assert_template_only(vmid);
    }

    /// The folder of evidence of the only build of `tiny`.
    pub fn evidence(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.path().join("output/tiny")).expect("there is evidence");
        let mut folders: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_symlink()).collect();
        assert_eq!(folders.len(), 1, "one build was made: {folders:?}");
        folders.remove(0)
    }

    /// Stops the lab and asserts that no guest outlives it.
    pub async fn close(self) {
        let pids = self.lab.qemu_pids();
        self.lab.stop().await;
        for pid in pids {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            assert!(!command.contains("qemu"), "QEMU {pid} outlives the lab");
        }
    }
}

impl Running {
    /// Waits for its end.
    pub async fn ended(mut self) -> Done {
        let waited = tokio::time::timeout(LIMIT, self.child.wait()).await;
        let stdout = std::fs::read_to_string(&self.stdout).unwrap_or_default();
        let stderr = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let status = match waited {
            Ok(status) => status.expect("the child is ours"),
            Err(_elapsed) => panic!("forge did not end within {} s:\n{stdout}\n{stderr}", LIMIT.as_secs()),
        };
        Done { code: status.code(), stdout, stderr }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it still runs");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it still runs");
    }

    /// Waits for its end; gives also the most memory that it had, in KiB.
    pub async fn ended_with_peak(self) -> (Done, u64) {
        let status = format!("/proc/{}/status", self.child.id().expect("it still runs"));
        let ended = tokio::spawn(self.ended());
        let mut peak = 0;
        while !ended.is_finished() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok());
            peak = peak.max(kib.unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (ended.await.expect("nobody panicked"), peak)
    }

    /// `kill -9`, and waits for its end.
    pub async fn kill(mut self) {
        self.child.start_kill().expect("it still runs");
        self.child.wait().await.expect("the child is ours");
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits until it has said something on standard error.
    pub async fn says(&mut self, words: &str) {
        let waited = async {
            while !self.said().contains(words) {
                if let Some(status) = self.child.try_wait().expect("the child is ours") {
                    assert!(
                        self.said().contains(words),
                        "it ended ({status}) and never said `{words}`:\n{}",
                        self.said()
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(LIMIT, waited).await.is_err() {
            panic!("it never said `{words}`:\n{}", self.said());
        }
    }
}

/// A boot VM with a real guest on its disk; `None`, with the reason printed, where it can't be had.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
pub async fn guest(
    boot_vm: ImportVm,
    disk: fn(&Path) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Option<ImportVm>> {
    if std::env::var_os("FORGE_LAB").is_none() && std::env::var_os("FORGE_LAB_CACHE").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    }
    let cache = images::default_cache_root();
    let disk = tokio::task::spawn_blocking(move || disk(&cache)).await??;
    Ok(Some(ImportVm { disk: Some(disk), memory: 1024, ..boot_vm }))
}

/// Waits at a gate until a build has come to it.
pub async fn reached(gate: &forge_lab::Gate, running: &mut Running) {
    let ended = async {
        while running.child.try_wait().expect("the child is ours").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let came = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            () = gate.reached() => true,
            () = ended => false,
        }
    });
    match came.await {
        Ok(true) => {}
        other => panic!("the build never came to the gate ({other:?}):\n{}", running.said()),
    }
}
