//! Tries a template as a user would: clones it with settings for its own cloud-init drive, boots the clone, and logs in
//! with the key that the drive gave it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::Method;
use tokio::process::Command;

use super::api::Api;
use super::output;
use super::site::TOKEN_ID;
use crate::Lab;

/// The user that the cloud-init drive names.
const USER: &str = "tester";
/// The number of the clone; a build takes one below.
const CLONE: u32 = 9100;
/// How long the clone has until it answers on SSH; a quiet machine needs half a minute.
const SSH_LIMIT: Duration = Duration::from_secs(600);
/// How long one try of a login may take.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// How often a port that refuses is tried again.
const RETRY: Duration = Duration::from_millis(300);

/// Tries a template of the lab with the token of its user, and says what came of it. The folder is for a key.
///
/// # Errors
/// The clone can't be made or doesn't answer, or can't be removed.
pub async fn run(lab: &Lab, secret: &str, template: u32, folder: &Path) -> anyhow::Result<()> {
    let api = Api::new(lab, &format!("{TOKEN_ID}={secret}"))?;
    let started = Instant::now();
    let said = Trial { lab, api: &api, template, clone: CLONE, folder }.run().await;
    output::print(&format!(
        "trial     {:.1} s: a linked clone booted and let its own key in: {}",
        started.elapsed().as_secs_f64(),
        said.context("the trial")?
    ));
    Ok(())
}

/// The template, the clone's number, and where the trial may write.
struct Trial<'a> {
    /// The lab that holds both.
    lab: &'a Lab,
    /// A client with the right to clone and start.
    api: &'a Api,
    /// The template.
    template: u32,
    /// The number of the clone, free now.
    clone: u32,
    /// A folder for the key.
    folder: &'a Path,
}

impl Trial<'_> {
    /// Runs it and removes the clone, whatever happened. Returns what the clone said of itself.
    ///
    /// # Errors
    /// The clone can't be made or doesn't answer, or can't be removed.
    async fn run(&self) -> anyhow::Result<String> {
        let node = self.lab.vm(self.template).context("the template is gone")?.node;
        let base = format!("nodes/{node}/qemu");
        let result = self.boot_and_log_in(&base).await;
        if self.lab.vm(self.clone).is_some() {
            let path = format!("{base}/{}", self.clone);
            if self.lab.vm(self.clone).is_some_and(|vm| vm.running) {
                self.api.task(Method::POST, &format!("{path}/status/stop"), &[]).await?;
            }
            self.api.task(Method::DELETE, &format!("{path}?purge=1"), &[]).await?;
        }
        result
    }

    async fn boot_and_log_in(&self, base: &str) -> anyhow::Result<String> {
        let (key, public) = self.key().await?;
        let id = self.clone.to_string();
        let clone = [("newid", id.as_str()), ("name", "forge-demo-trial"), ("full", "0")];
        self.api.task(Method::POST, &format!("{base}/{}/clone", self.template), &clone).await?;
        // Proxmox wants the keys URL-encoded inside the value, besides the form's own encoding.
        let keys =
            percent_encoding::utf8_percent_encode(&public, percent_encoding::NON_ALPHANUMERIC).to_string();
        let settings = [("ciuser", USER), ("sshkeys", keys.as_str()), ("ipconfig0", "ip=dhcp")];
        self.api.call(Method::PUT, &format!("{base}/{id}/config"), &settings).await?;
        self.api.task(Method::POST, &format!("{base}/{id}/status/start"), &[]).await?;
        let address = self.lab.ssh_address(self.clone).context("the clone has no address")?;
        output::say(&format!(
            "the linked clone {id} of {} boots; waiting for SSH on {address}",
            self.template
        ));
        self.log_in(address, &key).await
    }

    /// Makes a key pair; returns its file and its public line.
    async fn key(&self) -> anyhow::Result<(PathBuf, String)> {
        let file = self.folder.join("trial-key");
        for old in [file.clone(), file.with_extension("pub")] {
            match std::fs::remove_file(&old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "trial", "-f"]).arg(&file);
        let status = keygen.status().await.context("ssh-keygen can't be run")?;
        if !status.success() {
            bail!("ssh-keygen failed ({status})");
        }
        let public = std::fs::read_to_string(file.with_extension("pub"))?.trim().to_owned();
        Ok((file, public))
    }

    /// Logs in with OpenSSH's client until that succeeds; a wait that fails quotes the last try.
    async fn log_in(&self, address: SocketAddr, key: &Path) -> anyhow::Result<String> {
        let started = Instant::now();
        let mut seen = "nothing".to_owned();
        while started.elapsed() < SSH_LIMIT {
            if !self.lab.vm(self.clone).is_some_and(|vm| vm.running) {
                let log = self.lab.serial_log(self.clone);
                let mut lines: Vec<&str> = log.lines().rev().take(20).collect();
                lines.reverse();
                bail!(
                    "the clone stopped before it answered on SSH; last seen: {seen}; its console's last lines:\n{}",
                    lines.join("\n")
                );
            }
            let mut ssh = Command::new("ssh");
            ssh.arg("-i").arg(key).args(["-p", &address.port().to_string(), "-l", USER]);
            for option in [
                "BatchMode=yes",
                "IdentitiesOnly=yes",
                "StrictHostKeyChecking=no",
                "UserKnownHostsFile=/dev/null",
                "GlobalKnownHostsFile=/dev/null",
                "LogLevel=ERROR",
                "ConnectTimeout=10",
            ] {
                ssh.args(["-o", option]);
            }
            ssh.args(["-F", "/dev/null"]).arg(address.ip().to_string());
            ssh.arg("cloud-init status --wait >/dev/null; . /etc/os-release; echo \"$PRETTY_NAME, $(hostname), $(id -un)\"");
            ssh.kill_on_drop(true);
            match tokio::time::timeout(LOGIN_LIMIT, ssh.output()).await {
                Err(_) => seen = "a login that did not end".to_owned(),
                Ok(output) => {
                    let output = output.context("ssh can't be run")?;
                    if output.status.success() {
                        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
                    }
                    seen = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        bail!("the clone did not answer on SSH within {} s; last seen: {seen}", SSH_LIMIT.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_linked_clone_of_a_template_boots_and_lets_the_key_of_its_cloud_init_drive_in() {
        if std::env::var_os("FORGE_LAB").is_none() {
            eprintln!("skipped: it needs a real guest; cargo lab test runs it");
            return;
        }
        let root = crate::images::default_cache_root();
        let disk =
            tokio::task::spawn_blocking(move || crate::images::tiny(&root)).await.unwrap().unwrap().disk;
        let lab = Lab::start(LabConfig::default()).await.unwrap();
        lab.import_vm(ImportVm {
            vmid: 9001,
            name: "tpl-tiny".into(),
            disk: Some(disk),
            cloudinit_drive: true,
            template: true,
            ..ImportVm::default()
        })
        .await
        .unwrap();
        let secret = lab.add_token(TOKEN_ID, &[("/", LEAST_PRIVILEGES_PVE9)]);
        let api = Api::new(&lab, &format!("{TOKEN_ID}={secret}")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let trial = Trial { lab: &lab, api: &api, template: 9001, clone: 9100, folder: folder.path() };
        let said = trial.run().await.unwrap();
        assert_eq!(said, "Tiny guest of the forge lab, forge-demo-trial, tester");
        assert!(lab.vm(9100).is_none(), "the clone is removed");
        lab.stop().await;
    }
}
