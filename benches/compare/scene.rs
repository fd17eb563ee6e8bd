//! What all builders share: the image, the key, the seed, the script.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use forge_http_seed::nocloud::{BuildUser, NoCloud};
use forge_lab::{ImportVm, LEAST_PRIVILEGES_PVE9, Lab, LabConfig};
use tempfile::TempDir;
use tokio::process::Command;

/// The VM that is cloned.
pub const BOOT_VM: u32 = 9000;
/// The VM that is built.
pub const BUILD_VM: u32 = 9001;
/// The token that the lab's clients use.
pub const TOKEN: &str = "forge@pve!build";
/// Who logs in.
pub const USER: &str = "forge";
/// The address of the host in QEMU's user network.
pub const HOST: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 2));
/// The script's first line of output.
pub const FIRST_LINE: &str = "bench: begin";
/// The script's last line of output.
pub const LAST_LINE: &str = "bench: end";
/// The guest's memory in MiB, and its cores.
pub const MEMORY: u32 = 1024;
/// Its cores.
pub const CORES: u32 = 2;

/// What is the same in every build.
#[derive(Debug)]
pub struct Scene {
    /// The guest's disk.
    pub disk: PathBuf,
    folder: TempDir,
}

impl Scene {
    /// Makes the folder and the key.
    pub async fn new(disk: PathBuf) -> anyhow::Result<Self> {
        let scene = Self { disk, folder: tempfile::Builder::new().prefix("forge-compare-").tempdir()? };
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(scene.key());
        let status = keygen.status().await.context("ssh-keygen can't be run")?;
        ensure!(status.success(), "ssh-keygen failed ({status})");
        Ok(scene)
    }

    /// A file or folder of the scene.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The private key.
    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// The seed of the builders that don't make their own.
    pub fn seed(&self) -> anyhow::Result<NoCloud> {
        let public = std::fs::read_to_string(self.key().with_extension("pub"))?;
        Ok(NoCloud {
            instance_id: "bench".into(),
            hostname: None,
            user: Some(BuildUser::sudoer(USER, &public)),
            host_key: None,
            user_data: None,
            network_config: None,
        })
    }

    /// A lab that holds the boot VM, and its token's secret.
    pub async fn lab(&self) -> anyhow::Result<(Lab, String)> {
        let lab = Lab::start(LabConfig::default()).await?;
        lab.import_vm(ImportVm {
            vmid: BOOT_VM,
            name: "boot-vm".into(),
            disk: Some(self.disk.clone()),
            memory: MEMORY,
            cores: CORES,
            ..ImportVm::default()
        })
        .await?;
        let secret = lab.add_token(TOKEN, &[("/", LEAST_PRIVILEGES_PVE9)]);
        Ok((lab, secret))
    }

    /// A new folder, empty even if an earlier round has used it.
    pub fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        remove(&path)?;
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// A port of the loopback interface that nobody listens at now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The bytes that a file takes on the disk: holes are none.
pub fn bytes_of(path: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(path.metadata().with_context(|| format!("there is no {}", path.display()))?.blocks() * 512)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What runs in the guest: cloud-init gets to its end, as in every real build.
pub fn script() -> [String; 4] {
    [
        format!("echo '{FIRST_LINE}'"),
        "cloud-init status --wait >/dev/null || [ $? -eq 2 ]".into(),
        "uname -a".into(),
        format!("echo '{LAST_LINE}'"),
    ]
}
