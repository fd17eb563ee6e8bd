//! The files that an init writes: the site file, and the secret's, which only its owner may read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::known::{self, Known};
use super::private::Draft;
use super::record::{InitProof, WrittenFile, sum};
use super::site::{Fate, Table};
use super::talk::Talk;
use super::{InitError, Options, dotenv};
use crate::config::site::{SecretRef, TargetKind};

/// Of files that hold a secret.
const OWNER_ONLY: u32 = 0o600;
/// Of the site file, which holds none.
const EVERYBODY: u32 = 0o644;

/// The file that the secret is kept in.
#[must_use]
pub fn of_secret(options: &Options) -> PathBuf {
    options.env_file.clone().unwrap_or_else(|| known::secret_file(options))
}

/// The text of a file; nothing when it is not there.
///
/// # Errors
/// When it can't be read.
pub fn read(file: &Path) -> Result<Option<String>, InitError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(InitError::because(format!("{} can't be read", file.display()), error)),
    }
}

/// Looks at the links among the files that will be written. A site file may be one, which leads to the file that is
/// written; a secret goes through none.
///
/// # Errors
/// When a link leads nowhere, or a secret would go through one.
pub fn check_links(options: &Options, talk: &Talk) -> Result<(), InitError> {
    let secret = of_secret(options);
    if secret.is_symlink() {
        let what =
            format!("{} is a link{}, and a secret is written through none", secret.display(), leads(&secret));
        return Err(InitError::refused(what).help("remove it, or name another file with --env-file"));
    }
    if options.site.is_symlink() {
        let place = place(&options.site)?;
        talk.say(&format!("note       {} is a link to {}", options.site.display(), place.display()));
    }
    Ok(())
}

fn leads(link: &Path) -> String {
    std::fs::read_link(link).map(|to| format!(" to {}", to.display())).unwrap_or_default()
}

/// The file that is really written: what a link leads to.
fn place(file: &Path) -> Result<PathBuf, InitError> {
    if !file.is_symlink() {
        return Ok(file.to_owned());
    }
    let there = std::fs::canonicalize(file).ok().filter(|place| place.is_file());
    there.ok_or_else(|| {
        InitError::refused(format!("{} is a link{}, and there is no such file", file.display(), leads(file)))
            .help("remove the link, or name another file with --config")
    })
}

fn draft(file: &Path, mode: u32) -> Result<Draft, InitError> {
    Draft::open(file, mode).map_err(|error| unwritten(file, error))
}

fn unwritten(file: &Path, error: std::io::Error) -> InitError {
    InitError::because(format!("{} can't be written", file.display()), error)
}

/// Opens the file for a secret that is about to be told.
///
/// # Errors
/// When it can't be made.
pub fn open(options: &Options) -> Result<Draft, InitError> {
    draft(&of_secret(options), OWNER_ONLY)
}

/// What the file of the secret becomes; `None` when it says all of it already.
fn secret_text(options: &Options, table: &Table, secret: Option<&str>) -> Result<Option<String>, InitError> {
    let file = of_secret(options);
    let existing = read(&file)?;
    match (&options.env_file, secret) {
        (Some(_), secret) => {
            let wanted = dotenv::variables(table, secret, options.http_port);
            dotenv::fate(&file, existing.as_deref(), &wanted, options.force)
        }
        (None, Some(secret)) => {
            Ok((existing.as_deref().map(str::trim) != Some(secret)).then(|| format!("{secret}\n")))
        }
        (None, None) => Ok(None),
    }
}

/// Keeps a secret that was just told.
///
/// # Errors
/// When it can't be written: the secret is lost then.
pub fn keep(
    options: &Options,
    table: &Table,
    draft: Draft,
    secret: &str,
    proof: &mut InitProof,
) -> Result<(), InitError> {
    let file = of_secret(options);
    if let Some(text) = secret_text(options, table, Some(secret))? {
        draft.write(&text).map_err(|error| unwritten(&file, error))?;
        proof.files.push(WrittenFile { path: file, sha256: None });
    }
    Ok(())
}

/// Writes what is not yet as it should be.
///
/// # Errors
/// When a file can't be written.
pub fn write(
    options: &Options,
    table: &Table,
    site: &Fate,
    secret: Option<&str>,
    talk: &Talk,
    proof: &mut InitProof,
) -> Result<(), InitError> {
    let file = of_secret(options);
    // Without a file of variables the secret has a file only if the site file is going to say so.
    let is_named = options.env_file.is_some() || matches!(site, Fate::Becomes(..));
    if is_named && let Some(text) = secret_text(options, table, secret)? {
        draft(&file, OWNER_ONLY)?.write(&text).map_err(|error| unwritten(&file, error))?;
        proof.files.push(WrittenFile { path: file.clone(), sha256: None });
    }
    tighten(&file, talk)?;
    match site {
        Fate::Stays(others) => {
            for other in others {
                talk.say(&format!("note       {} stays: {other}", options.site.display()));
            }
            tell_place(options, &file, talk);
        }
        Fate::Becomes(text, _) => {
            let place = place(&options.site)?;
            let draft = draft(&place, EVERYBODY)?;
            draft
                .keep_mode()
                .and_then(|draft| draft.write(text))
                .map_err(|error| unwritten(&options.site, error))?;
            proof.files.push(WrittenFile { path: options.site.clone(), sha256: Some(sum(text)) });
        }
    }
    for file in &proof.files {
        talk.say(&format!("wrote      {}", file.path.display()));
    }
    Ok(())
}

/// A file with a secret that others may read is closed to them.
fn tighten(file: &Path, talk: &Talk) -> Result<(), InitError> {
    let Ok(there) = std::fs::metadata(file) else { return Ok(()) };
    if there.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(OWNER_ONLY))
            .map_err(|error| unwritten(file, error))?;
        talk.say(&format!("closed     {} to others: it holds a secret", file.display()));
    }
    Ok(())
}

/// A new secret is of no use where the site file looks for it elsewhere.
fn tell_place(options: &Options, file: &Path, talk: &Talk) {
    let Some(TargetKind::Proxmox(target)) = known::target(options).map(|target| target.kind) else { return };
    let fits = match &target.token_secret {
        SecretRef::Env(name) => options.env_file.is_some() && name == dotenv::SECRET,
        SecretRef::File(named) => named == file,
        SecretRef::Command(_) | SecretRef::Given(_) => false,
    };
    if !fits && file.exists() {
        talk.warn(&format!(
            "{} looks for the token's secret elsewhere; it is in {}",
            options.site.display(),
            file.display()
        ));
    }
}

/// Tells what would be written, and gives the files.
///
/// # Errors
/// When a file that is there can't be read, or says something else.
pub fn told(
    options: &Options,
    table: &Table,
    site: &Fate,
    known: &Known,
    makes_token: bool,
    talk: &Talk,
) -> Result<Vec<PathBuf>, InitError> {
    let mut files = Vec::new();
    let secret = match known {
        Known::Secret(secret, _) => Some(secret.expose()),
        Known::Elsewhere(_) | Known::Nothing => None,
    };
    let is_named = options.env_file.is_some() || matches!(site, Fate::Becomes(..));
    if makes_token || is_named && secret_text(options, table, secret)?.is_some() {
        let file = of_secret(options);
        talk.say(&format!("would write {} (for its owner only):", file.display()));
        if options.env_file.is_some() {
            for (name, value) in dotenv::variables(table, Some("<secret>"), options.http_port) {
                talk.say(&format!("    {name}={value}"));
            }
        } else {
            talk.say("    <secret>");
        }
        files.push(file);
    }
    if let Fate::Becomes(_, why) = site {
        talk.say(&format!("would write {} ({why}):", options.site.display()));
        for line in table.text().lines() {
            talk.say(&format!("    {line}"));
        }
        files.push(options.site.clone());
    }
    Ok(files)
}
