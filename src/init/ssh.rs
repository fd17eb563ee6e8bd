//! The door by SSH: `pvesh` and `pveum` on a node's shell.

use async_trait::async_trait;
use serde_json::Value;

use super::talk::Talk;
use super::{Destination, InitError};
use crate::backends::setup::{Ask, Change, Door, DoorError};
use crate::remote::{Host, HostError, Ran, quote};

/// Asks and changes by commands.
#[derive(Debug)]
pub struct SshDoor<'a> {
    host: Host,
    name: String,
    talk: &'a Talk,
}

impl<'a> SshDoor<'a> {
    /// Makes sure that commands of Proxmox VE can be run there, as root.
    ///
    /// # Errors
    /// When they can't.
    pub async fn open(host: Host, destination: &Destination, talk: &'a Talk) -> Result<Self, InitError> {
        let door = Self { host, name: destination.to_string(), talk };
        let lost = |error: HostError| InitError::refused(error.to_string());
        let id = door.ran("id -u").await.map_err(lost)?;
        let mut missing = Vec::new();
        for program in ["pveum", "pvesh"] {
            let found = door.ran(&format!("command -v {program}")).await.map_err(lost)?;
            if found.code != 0 {
                missing.push(program);
            }
        }
        if !missing.is_empty() {
            let what =
                format!("{} is no Proxmox VE node: it has no {}", destination.host, missing.join(" and no "));
            return Err(InitError::refused(what).help("name a node of the cluster"));
        }
        if id.code != 0 || id.stdout.trim() != "0" {
            let what = format!(
                "{} is not root on {}, and only root may run pveum",
                destination.user, destination.host
            );
            let hint = format!(
                "forge init proxmox root@{}, or --api with a user who may change users",
                destination.host
            );
            return Err(InitError::refused(what).help(hint));
        }
        Ok(door)
    }

    async fn ran(&self, line: &str) -> Result<Ran, HostError> {
        self.talk.note(&format!("$ {line}"));
        let ran = self.host.run(line).await?;
        for said in ran.stderr.lines().filter(|line| !line.trim().is_empty()) {
            self.talk.note(&format!("  {said}"));
        }
        if ran.code != 0 {
            self.talk.note(&format!("  exit status {}", ran.code));
        }
        Ok(ran)
    }

    async fn answer(&self, line: String) -> Result<String, DoorError> {
        match self.ran(&line).await {
            Ok(ran) if ran.code == 0 => Ok(ran.stdout),
            Ok(ran) => {
                let said: Vec<&str> =
                    ran.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                let said =
                    if said.is_empty() { format!("exit status {}", ran.code) } else { said.join("; ") };
                Err(DoorError::Refused { what: line, said })
            }
            Err(error) => Err(DoorError::Broken { what: line, source: Box::new(error) }),
        }
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.host.close().await;
    }
}

/// The words as one line that a shell takes apart again.
fn line(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quote::sh(word)).collect();
    words.join(" ")
}

#[async_trait]
impl Door for SshDoor<'_> {
    fn describe(&self) -> String {
        format!("{} by SSH", self.name)
    }

    fn asks(&self, ask: &Ask) -> String {
        line(&ask.words())
    }

    fn makes(&self, change: &Change) -> String {
        line(&change.words())
    }

    async fn ask(&self, ask: &Ask) -> Result<Value, DoorError> {
        let what = self.asks(ask);
        let answer = self.answer(what.clone()).await?;
        serde_json::from_str(&answer)
            .map_err(|error| DoorError::Unclear { what, why: format!("it is no JSON ({error})") })
    }

    async fn change(&self, change: &Change) -> Result<Value, DoorError> {
        let what = self.makes(change);
        let answer = self.answer(what.clone()).await?;
        if !matches!(change, Change::AddToken { .. }) {
            return Ok(Value::Null);
        }
        serde_json::from_str(&answer)
            .map_err(|error| DoorError::Unclear { what, why: format!("it is no JSON ({error})") })
    }
}
