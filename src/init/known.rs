//! The secret of a token that is there already, as far as it is known here.

use std::collections::BTreeMap;
use std::path::Path;

use super::{InitError, Options};
use crate::cli::prepare;
use crate::config::environment::read_env_file;
use crate::config::secrets::Secret;
use crate::config::site::{self, SecretRef, Target, TargetKind};

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The secret, and where it was found.
    Secret(Secret, String),
    /// The site file says where it is, and it could not be read from there.
    Elsewhere(String),
    /// Nothing.
    Nothing,
}

/// What the site file says of the target now; nothing where there is no such file or target.
#[must_use]
pub fn target(options: &Options) -> Option<Target> {
    let text = std::fs::read_to_string(&options.site).ok()?;
    let (mut site, _) = site::read(&options.site, &text);
    site.targets.remove(&options.target)
}

/// The file that holds the secret when no file of variables is asked for.
#[must_use]
pub fn secret_file(options: &Options) -> std::path::PathBuf {
    let folder = options.site.parent().unwrap_or(Path::new(""));
    folder.join(format!(".{}.token", options.target))
}

/// Leaves a file alone that holds the secret of another's token.
///
/// # Errors
/// When the secret of a new token would take the place of one that this target does not name.
pub fn leave_others(options: &Options) -> Result<(), InitError> {
    let file = secret_file(options);
    let holds = std::fs::read_to_string(&file).is_ok_and(|text| !text.trim().is_empty());
    let is_ours = target(options).is_some_and(|target| match target.kind {
        TargetKind::Proxmox(proxmox) => {
            matches!(proxmox.token_secret, SecretRef::File(named) if named == file)
        }
        TargetKind::Qemu(_) => false,
    });
    if options.env_file.is_some() || options.force || !holds || is_ours {
        return Ok(());
    }
    let what = format!("{} holds a secret that {} does not name", file.display(), options.site.display());
    Err(InitError::refused(what).help(
        "--name makes a target with a file of its own, --env-file names another file, --force replaces it",
    ))
}

/// Looks for the secret of a token: in the file of variables, where the site file says, in the environment.
pub async fn secret(options: &Options, token_id: &str) -> Known {
    let variables = |file: &Path| -> BTreeMap<String, String> {
        std::fs::read_to_string(file).map(|text| read_env_file(file, &text).0).unwrap_or_default()
    };
    let of = |variables: &BTreeMap<String, String>| {
        let ours = variables.get("PROXMOX_TOKEN_ID").is_none_or(|id| id == token_id);
        variables.get("PROXMOX_TOKEN_SECRET").filter(|text| ours && !text.is_empty()).cloned()
    };
    if let Some(file) = &options.env_file
        && let Some(secret) = of(&variables(file))
    {
        return Known::Secret(Secret::new(secret), file.display().to_string());
    }
    let mut elsewhere = None;
    let named = target(options).and_then(|target| match target.kind {
        TargetKind::Proxmox(proxmox) if proxmox.token_id == token_id => Some(proxmox.token_secret),
        _ => None,
    });
    if let Some(source) = named {
        let words = in_words(&source);
        match prepare::resolve(&source).await {
            Ok(secret) => return Known::Secret(Secret::new(secret), words),
            // A variable that is not set and a file that is not there are no place where it is.
            Err(_) if matches!(source, SecretRef::Env(_) | SecretRef::File(_)) => {}
            Err(why) => elsewhere = Some(format!("{words} ({why})")),
        }
    }
    if let Some(secret) = of(&prepare::environment()) {
        return Known::Secret(Secret::new(secret), "the environment".to_owned());
    }
    let file = secret_file(options);
    if let Ok(text) = std::fs::read_to_string(&file)
        && !text.trim().is_empty()
    {
        return Known::Secret(Secret::new(text.trim()), file.display().to_string());
    }
    elsewhere.map_or(Known::Nothing, Known::Elsewhere)
}

fn in_words(source: &SecretRef) -> String {
    match source {
        SecretRef::Env(name) => format!("the variable {name}"),
        SecretRef::File(file) => file.display().to_string(),
        SecretRef::Command(words) => format!("the command `{}`", words.first().map_or("", String::as_str)),
        SecretRef::Given(_) => "the environment".to_owned(),
    }
}
