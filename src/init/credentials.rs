//! By what one logs in to a node: a key, an agent's keys, a password.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::decode_secret_key;

use super::talk::{Talk, ask_secret, somebody_is_there};
use super::{Destination, InitError};
use crate::remote::{Host, HostError, HostKey, Method, Password};

/// The variable with the password for SSH.
pub const PASSWORD: &str = "FORGE_SSH_PASSWORD";
/// The variable with the passphrase of the key.
pub const PASSPHRASE: &str = "FORGE_SSH_PASSPHRASE";

/// Logs in: by the key that is named, else by the agent's or one's own keys, else by a password.
///
/// # Errors
/// When the host does not let us in.
pub async fn login(
    destination: &Destination,
    key: &HostKey,
    named: Option<&Path>,
    talk: &Talk,
) -> Result<Host, InitError> {
    let mut methods = keys(named, talk).await?;
    let password = std::env::var(PASSWORD).ok().filter(|text| !text.is_empty());
    if let Some(password) = &password {
        talk.redactor().hide(password);
        methods.push(Method::Password(Password::new(password.as_str())));
    }
    let refused = match methods.is_empty() {
        true => None,
        false => match by(destination, key, methods).await {
            Ok(host) => return Ok(host),
            Err(error @ HostError::Refused { .. }) if password.is_none() => Some(error),
            Err(error) => return Err(failed(&error)),
        },
    };
    if somebody_is_there() {
        let question = format!("password of {}@{}:", destination.user, destination.host);
        if let Some(password) = ask_secret(&question).await {
            talk.redactor().hide(&password);
            let methods = vec![Method::Password(Password::new(password))];
            return by(destination, key, methods).await.map_err(|error| failed(&error));
        }
    }
    Err(match refused {
        Some(error) => failed(&error),
        None => failed(&HostError::Refused {
            host: destination.host.clone(),
            user: destination.user.clone(),
            detail: "there is neither a key, nor an agent, nor a password to try".to_owned(),
        }),
    })
}

async fn by(destination: &Destination, key: &HostKey, methods: Vec<Method>) -> Result<Host, HostError> {
    let port = destination.port.unwrap_or(22);
    Host::login(&destination.host, port, &destination.user, methods, &key.fingerprint).await
}

fn failed(error: &HostError) -> InitError {
    let refused = InitError::refused(error.to_string());
    match error {
        HostError::Refused { .. } => refused.help(format!(
            "name a key with --ssh-key, run an ssh-agent, or set {PASSWORD} (and {PASSPHRASE} for an encrypted key)"
        )),
        HostError::HostKeyChanged { .. } => refused.help("another machine has answered the second time"),
        _ => refused,
    }
}

async fn keys(named: Option<&Path>, talk: &Talk) -> Result<Vec<Method>, InitError> {
    if let Some(path) = named {
        return Ok(vec![read_key(path, talk).await?]);
    }
    if std::env::var_os("SSH_AUTH_SOCK").is_some_and(|socket| !socket.is_empty()) {
        return Ok(vec![Method::Agent(None)]);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let usual = ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| home.join(".ssh").join(name));
    // What is encrypted or no key is left out: nobody has named it.
    let open = usual.iter().filter_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(Method::Key(Arc::new(decode_secret_key(&text, None).ok()?)))
    });
    Ok(open.collect())
}

async fn read_key(path: &Path, talk: &Talk) -> Result<Method, InitError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| InitError::because(format!("the key {shown} can't be read"), error))?;
    let without = match decode_secret_key(&text, None) {
        Ok(key) => return Ok(Method::Key(Arc::new(key))),
        Err(error) => error,
    };
    let locked = matches!(without, russh::keys::Error::KeyIsEncrypted) || text.contains("ENCRYPTED");
    if !locked {
        return Err(InitError::because(format!("{shown} is no private key that forge can read"), without));
    }
    let passphrase = match std::env::var(PASSPHRASE).ok().filter(|text| !text.is_empty()) {
        Some(passphrase) => passphrase,
        None => ask_secret(&format!("passphrase of {shown}:")).await.ok_or_else(|| {
            InitError::refused(format!("the key {shown} is encrypted"))
                .help(format!("set {PASSPHRASE}, or add the key to an ssh-agent"))
        })?,
    };
    talk.redactor().hide(&passphrase);
    decode_secret_key(&text, Some(&passphrase)).map(|key| Method::Key(Arc::new(key))).map_err(|error| {
        InitError::because(format!("the key {shown} does not open with that passphrase"), error)
    })
}
