//! How the build gets into the guest, as plan data: by which credentials, through which machines. The secrets are
//! named by their source and read when the build begins.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Certificate, PrivateKey, decode_secret_key};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::process::Command;

use crate::backends::TlsChoice;

use super::credentials::{Method, Password};
use super::route::{Hop, Proxy, ProxyKind, Route};
use super::winrm::{PORTS, WinRmAuth};

/// Where a secret is read from; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A variable of the environment.
    Env(String),
    /// A file of this machine; a line break at its end does not count.
    File(PathBuf),
    /// The output of a program, likewise.
    Command(Vec<String>),
}

/// Credentials besides the build's own key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CredentialPlan {
    /// The password; it also answers the questions of `keyboard-interactive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// A private key: OpenSSH's form, PEM (PKCS #1, PKCS #8, SEC 1) or PuTTY's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The passphrase of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_passphrase: Option<SecretSource>,
    /// An OpenSSH certificate for that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Whether the keys of the running ssh-agent are tried (`SSH_AUTH_SOCK`). The agent itself is never forwarded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub agent_auth: bool,
}

impl CredentialPlan {
    /// Whether nothing is named, so that the build's own key has to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is tried, in words and in its order.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(file) = &self.key_file {
            let with = if self.certificate_file.is_some() { " with its certificate" } else { "" };
            words.push(format!("the key {}{with}", file.display()));
        }
        if self.agent_auth {
            words.push("the keys of ssh-agent".into());
        }
        if self.password.is_some() {
            words.push("a password".into());
        }
        words
    }
}

/// A machine on the way to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BastionPlan {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in there.
    pub user: String,
    /// Its host key's fingerprint (`SHA256:…`); `None` accepts the first one and keeps to it.
    pub host_key: Option<String>,
    /// By what.
    pub credentials: CredentialPlan,
}

/// A proxy on the way to the guest, or to the first bastion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProxyPlan {
    /// Its protocol.
    pub kind: ProxyKind,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// By which password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
}

/// Everything about SSH that is not the user and the build's own key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SshPlan {
    /// Credentials besides the build's key.
    #[serde(flatten)]
    pub credentials: CredentialPlan,
    /// The guest's address, when it is not to be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The guest's interface whose addresses count alone, by the guest's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The guest's port, when it is not 22.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The guest's host key (`SHA256:…`), when it is known in advance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Whether the seed gives the guest its host key, one that is made for the build.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_key_in_seed: bool,
    /// Whether algorithms are allowed that only old servers need (SHA-1, CBC).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub old_algorithms: bool,
    /// How often a silent connection is checked; four checks without an answer end it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Duration>,
    /// Machines to go through, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bastions: Vec<BastionPlan>,
    /// A proxy to go through before them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyPlan>,
}

impl SshPlan {
    /// Whether it says nothing beyond the defaults.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything about WinRM that is not the user, the password and the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct WinRmPlan {
    /// The port, when it is not 5985, or 5986 with TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether TLS is spoken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_ssl: bool,
    /// Whether any certificate will do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The SHA-256 fingerprint of the one certificate that will do, when it is known in advance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How the guest is told who asks.
    pub auth: WinRmAuth,
}

impl WinRmPlan {
    /// Whether it says nothing beyond the defaults.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Which certificates are believed.
    #[must_use]
    pub fn certificate(&self) -> TlsChoice {
        match (&self.fingerprint, self.insecure) {
            (Some(fingerprint), _) => TlsChoice::Fingerprint(fingerprint.clone()),
            (None, true) => TlsChoice::Insecure,
            (None, false) => TlsChoice::System,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        let (plain, tls) = PORTS;
        self.port.unwrap_or(if self.use_ssl { tls } else { plain })
    }
}

/// The plan with its secrets read: what a login needs.
#[derive(Clone, Debug, Default)]
pub struct SshAccess {
    /// Credentials besides the build's key, in the order in which they are tried.
    pub methods: Vec<Method>,
    /// Whether the build's own key is offered; it is not where the guest can't know it.
    pub without_build_key: bool,
    /// Whether old algorithms are allowed.
    pub old_algorithms: bool,
    /// How often a silent connection is checked, when not as usual.
    pub keep_alive: Option<Duration>,
    /// The guest's address, when it is not to be asked for.
    pub host: Option<String>,
    /// The guest's port, when it is not the one that the target tells.
    pub port: Option<u16>,
    /// The guest's host key, when it is known in advance.
    pub host_key: Option<String>,
    /// The way there.
    pub route: Arc<Route>,
    /// Whether the guest is a Windows, whose files go by PowerShell.
    pub windows: bool,
    /// For how long somebody else may answer at the guest's address before it does.
    pub patience: Patience,
}

/// What another host key than the known one means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// Another machine has the guest's address: the end, as soon as it is certain.
    #[default]
    None,
    /// The guest has not read its seed yet, which gives it the key. When all this time the same other key was shown, it
    /// will not.
    Seed(Duration),
    /// An installer's own sshd, which is waited out.
    Installer,
}

impl SshAccess {
    /// The password, where one is named.
    #[must_use]
    pub fn password(&self) -> Option<String> {
        self.methods.iter().find_map(|method| match method {
            Method::Password(password) => Some(password.expose().to_owned()),
            _ => None,
        })
    }
}

/// A credential could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A secret could not be had.
    #[error("`{setting}`: {detail}")]
    Secret {
        /// The setting.
        setting: &'static str,
        /// What is wrong with its source.
        detail: String,
    },
    /// A file could not be read.
    #[error("`{setting}`: {} can't be read", path.display())]
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{setting}`: {} {detail}", path.display())]
    Content {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

/// Reads a secret from its source; `told` is given it, so that it can be masked from then on.
async fn secret(
    source: &SecretSource,
    setting: &'static str,
    told: &(dyn Fn(&str) + Sync),
) -> Result<String, AccessError> {
    let wrong = |detail| AccessError::Secret { setting, detail };
    let text =
        match source {
            SecretSource::Env(name) => std::env::var(name)
                .map_err(|_unset| wrong(format!("the environment variable {name} is not set")))?,
            SecretSource::File(path) => std::fs::read_to_string(path)
                .map_err(|source| AccessError::File { setting, path: path.clone(), source })?,
            SecretSource::Command(words) => {
                let (program, arguments) =
                    words.split_first().ok_or_else(|| wrong("the command is empty".into()))?;
                let output = Command::new(program)
                    .args(arguments)
                    .stdin(std::process::Stdio::null())
                    .kill_on_drop(true)
                    .output()
                    .await
                    .map_err(|error| wrong(format!("`{program}` can't be run: {error}")))?;
                if !output.status.success() {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    return Err(wrong(format!("`{program}` ended with {}: {said}", output.status)));
                }
                String::from_utf8(output.stdout)
                    .map_err(|_not_text| wrong(format!("`{program}` printed no text")))?
            }
        };
    let text = text.trim_end_matches(['\n', '\r']).to_owned();
    if text.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    told(&text);
    Ok(text)
}

async fn methods(plan: &CredentialPlan, told: &(dyn Fn(&str) + Sync)) -> Result<Vec<Method>, AccessError> {
    let mut methods = Vec::new();
    if let Some(path) = &plan.key_file {
        let passphrase = match &plan.key_passphrase {
            Some(source) => Some(secret(source, "access.key-passphrase", told).await?),
            None => None,
        };
        let key = Arc::new(key(path, passphrase.as_deref())?);
        match &plan.certificate_file {
            Some(path) => methods.push(Method::Certificate(key, Arc::new(certificate(path)?))),
            None => methods.push(Method::Key(key)),
        }
    }
    if plan.agent_auth {
        methods.push(Method::Agent(None));
    }
    if let Some(source) = &plan.password {
        methods.push(Method::Password(Password::new(secret(source, "access.password", told).await?)));
    }
    Ok(methods)
}

fn key(path: &PathBuf, passphrase: Option<&str>) -> Result<PrivateKey, AccessError> {
    let setting = "access.key-file";
    let text = std::fs::read_to_string(path).map_err(|source| AccessError::File {
        setting,
        path: path.clone(),
        source,
    })?;
    decode_secret_key(&text, passphrase).map_err(|error| {
        let locked = matches!(error, russh::keys::Error::KeyIsEncrypted) || text.contains("ENCRYPTED");
        let detail = match passphrase {
            None if locked => "is encrypted: name its passphrase in `access.key-passphrase`".into(),
            Some(_) => format!("does not open with `access.key-passphrase`: {error}"),
            None => format!("is no private key that forge can read: {error}"),
        };
        AccessError::Content { setting, path: path.clone(), detail }
    })
}

fn certificate(path: &PathBuf) -> Result<Certificate, AccessError> {
    let setting = "access.certificate-file";
    let text = std::fs::read_to_string(path).map_err(|source| AccessError::File {
        setting,
        path: path.clone(),
        source,
    })?;
    Certificate::from_openssh(text.trim()).map_err(|error| AccessError::Content {
        setting,
        path: path.clone(),
        detail: format!("is no OpenSSH certificate: {error}"),
    })
}

impl SshAccess {
    /// Reads keys and secrets. `create` says that the seed puts the build's key into the guest; `told` is given each
    /// secret, so that it can be masked. May be dropped.
    ///
    /// # Errors
    /// The first file or secret that can't be had.
    pub async fn resolve(
        plan: &SshPlan,
        create: bool,
        told: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, AccessError> {
        let methods = self::methods(&plan.credentials, told).await?;
        let mut hops = Vec::new();
        for bastion in &plan.bastions {
            hops.push(Hop {
                host: bastion.host.clone(),
                port: bastion.port,
                user: bastion.user.clone(),
                host_key: bastion.host_key.clone(),
                methods: self::methods(&bastion.credentials, told).await?,
            });
        }
        let proxy = match &plan.proxy {
            None => None,
            Some(proxy) => Some(Proxy {
                kind: proxy.kind,
                host: proxy.host.clone(),
                port: proxy.port,
                user: proxy.user.clone().unwrap_or_default(),
                password: match &proxy.password {
                    Some(source) => Password::new(secret(source, "access.proxy.password", told).await?),
                    None => Password::default(),
                },
            }),
        };
        Ok(Self {
            without_build_key: !create && !methods.is_empty(),
            methods,
            old_algorithms: plan.old_algorithms,
            keep_alive: plan.keep_alive,
            host: plan.host.clone(),
            port: plan.port,
            host_key: plan.host_key.clone(),
            route: Arc::new(Route::new(proxy, hops, plan.old_algorithms)),
            windows: false,
            patience: Patience::None,
        })
    }
}
