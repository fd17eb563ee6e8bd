//! `forge render`: writes the files of a seed, for reading and for other tools.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use forge_http_seed::SeedSet;
use forge_http_seed::answers::{Build, Kind};
use forge_http_seed::disc::{self, DiscError};
use forge_http_seed::nocloud::{BuildUser, NoCloud};

use super::options::{Global, Selection};
use super::{REFUSED, prepare};
use crate::config::Profile;
use crate::config::beside::{self, OwnMedium};
use crate::engine::error::chain;
use crate::event::Redactor;
use crate::ui;

/// Options of `forge render`.
#[derive(Clone, Debug, Args)]
pub struct RenderArgs {
    #[command(flatten)]
    selection: Selection,
    /// The folder for the files; several profiles get one each within it
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Who may log in: a file with a public key in OpenSSH's form [default: a key that nobody has]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Also writes seed.iso, labelled as the installer looks for it
    #[arg(long)]
    disc: bool,
    /// Also writes seed.img, a floppy (FAT12, 1.44 MB) for systems that look for their answers there
    #[arg(long)]
    floppy: bool,
}

/// Writes the files; gives the exit code.
pub fn render(global: &Global, args: &RenderArgs) -> u8 {
    let redactor = Redactor::default();
    let (profiles, findings) = prepare::profiles(&args.selection, &redactor);
    if prepare::tell(&findings, &redactor) {
        return REFUSED;
    }
    let key = match args.key.as_deref().map(public_key).transpose() {
        Ok(key) => key,
        Err(message) => return refuse(&message, &redactor),
    };
    let several = profiles.len() > 1;
    let mut written = Vec::new();
    for profile in &profiles {
        let folder = if several { args.output.join(&profile.name) } else { args.output.clone() };
        let files = files(profile, key.as_deref()).and_then(|mut files| {
            let added = beside::add_to(&mut files, &profile.seed.files);
            added.map_err(|error| chain(&error)).map(|()| files)
        });
        let files = match files {
            Ok(files) => files,
            Err(message) => return refuse(&format!("{}: {message}", profile.name), &redactor),
        };
        let mut outputs: Vec<(PathBuf, Vec<u8>)> =
            files.files().map(|(name, file)| (folder.join(name), file.bytes().to_vec())).collect();
        if args.disc {
            let own = profile.seed.disc.as_ref();
            match medium(profile, files.clone(), ("disc", own), disc::CIDATA, disc::iso) {
                Ok(image) => outputs.push((folder.join("seed.iso"), image)),
                Err(message) => return refuse(&format!("{}: {message}", profile.name), &redactor),
            }
        }
        if args.floppy {
            let own = profile.seed.floppy.as_ref();
            match medium(profile, files, ("floppy", own), "FORGE_SEED", disc::floppy) {
                Ok(image) => outputs.push((folder.join("seed.img"), image)),
                Err(message) => return refuse(&format!("{}: {message}", profile.name), &redactor),
            }
        }
        for (path, bytes) in outputs {
            if let Err(error) = write(&path, &bytes) {
                return refuse(&format!("{} can't be written: {error}", path.display()), &redactor);
            }
            written.push(path);
        }
    }
    if global.json {
        ui::data(&format!("{}\n", serde_json::to_string_pretty(&written).unwrap_or_default()));
    } else if !global.quiet {
        for path in &written {
            ui::say(&path.display().to_string());
        }
    }
    0
}

/// A public key in OpenSSH's form, of a file; a private one does not belong into a seed.
///
/// # Errors
/// In words, when it is none.
fn public_key(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("the key {shown} can't be read: {error}"))?;
    let text = text.trim();
    match russh::keys::PublicKey::from_openssh(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text.contains("PRIVATE KEY") => {
            Err(format!("{shown} is a private key, which stays with you: give the public one ({shown}.pub)"))
        }
        Err(error) => {
            Err(format!("{shown} is no public key as OpenSSH writes it (`ssh-ed25519 AAAA…`): {error}"))
        }
    }
}

fn refuse(message: &str, redactor: &Redactor) -> u8 {
    ui::say(&redactor.text(&format!("error: {message}")));
    REFUSED
}

/// The disc or floppy as a build would make it of a seed that goes that way.
fn medium(
    profile: &Profile,
    mut files: SeedSet,
    (name, own): (&str, Option<&OwnMedium>),
    otherwise: &str,
    make: fn(&str, &SeedSet) -> Result<Vec<u8>, DiscError>,
) -> Result<Vec<u8>, String> {
    if let Some(own) = own {
        if let Some((key, message, help)) = own.unfit_for(&profile.seed, name).into_iter().next() {
            return Err(format!("{message} (`seed.{name}{key}`)\n    help: {help}"));
        }
        beside::add_to(&mut files, &own.files).map_err(|error| chain(&error))?;
    }
    let of_seed = profile.seed.kind.disc_label().unwrap_or(otherwise);
    let label = own.and_then(|own| own.label.as_deref()).unwrap_or(of_seed);
    make(label, &files).map_err(|error| error.to_string())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Password hashes, and Windows' passwords themselves, are for whoever rendered them.
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// The files of a profile's seed for a build that stands for any.
///
/// # Errors
/// What keeps them from being rendered, in words.
pub fn files(profile: &Profile, key: Option<&str>) -> Result<SeedSet, String> {
    let seed = &profile.seed;
    let mut build = Build::sample(&profile.access.user, profile.access.create, seed.hostname.as_deref());
    if let Some(key) = key {
        key.clone_into(&mut build.public_key);
    }
    match &seed.answers {
        Some(answers) => answers
            .render(&build)
            .map_err(|errors| errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ")),
        None => {
            debug_assert_eq!(seed.kind, Kind::Nocloud);
            NoCloud {
                instance_id: format!("forge-{}", build.nonce),
                hostname: seed.hostname.clone(),
                user: build.create_user.then(|| BuildUser::sudoer(&build.user, &build.public_key)),
                // Another in each build.
                host_key: None,
                user_data: seed.user_data.clone(),
                network_config: seed.network_config.clone(),
            }
            .files()
            .map_err(|error| error.to_string())
        }
    }
}
