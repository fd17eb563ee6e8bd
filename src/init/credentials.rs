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

/// Logs in: by the key that is named, else by the agent's, then by one's own keys, else by a password.
///
/// # Errors
/// When the host does not let us in.
pub async fn login(
    destination: &Destination,
    key: &HostKey,
    named: Option<&Path>,
    talk: &Talk,
) -> Result<Host, InitError> {
    let mut turns = keys(named, talk).await?;
    let password = std::env::var(PASSWORD).ok().filter(|text| !text.is_empty());
    if let Some(password) = &password {
        talk.redactor().hide(password);
        turns.push(vec![Method::Password(Password::new(password.as_str()))]);
    }
    let mut refused: Option<HostError> = None;
    let last = turns.len();
    for (number, methods) in turns.into_iter().enumerate() {
        match by(destination, key, methods).await {
            Ok(host) => return Ok(host),
            Err(error) => {
                refused = Some(also(refused, error, number + 1 == last).map_err(|error| failed(&error))?);
            }
        }
    }
    if password.is_some()
        && let Some(error) = &refused
    {
        return Err(failed(error));
    }
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

/// What a turn has come to beside those before it; an error is one that ends the login. A server that closes the connection
/// has had enough of refusing, and the next turn is another connection.
fn also(before: Option<HostError>, now: HostError, is_last: bool) -> Result<HostError, HostError> {
    match (before, now) {
        (Some(HostError::Refused { detail: first, .. }), HostError::Refused { host, user, detail }) => {
            Ok(HostError::Refused { host, user, detail: format!("{first}; {detail}") })
        }
        (_, now @ HostError::Refused { .. }) => Ok(now),
        (_, now @ HostError::Broken { .. }) if !is_last => Ok(now),
        (Some(before @ HostError::Refused { .. }), HostError::Broken { .. }) => Ok(before),
        (_, now) => Err(now),
    }
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

/// The keys to try, in turns: a server takes a few refusals only, so the agent's keys have a connection of their own.
async fn keys(named: Option<&Path>, talk: &Talk) -> Result<Vec<Vec<Method>>, InitError> {
    if let Some(path) = named {
        return Ok(vec![vec![read_key(path, talk).await?]]);
    }
    let mut turns = Vec::new();
    if std::env::var_os("SSH_AUTH_SOCK").is_some_and(|socket| !socket.is_empty()) {
        turns.push(vec![Method::Agent(None)]);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let usual = ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| home.join(".ssh").join(name));
    // What is encrypted or no key is left out: nobody has named it.
    let open = usual.iter().filter_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(Method::Key(Arc::new(decode_secret_key(&text, None).ok()?)))
    });
    let own: Vec<Method> = open.collect();
    if !own.is_empty() {
        turns.push(own);
    }
    Ok(turns)
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
