//! Everything that is decided before the first change: what is picked, what is to be done, which certificate is pinned, what
//! becomes of the files.

use super::files;
use super::known::{self, Known};
use super::pick::{Picked, pick};
use super::site::{Fate, SecretPlace, Table};
use super::talk::Talk;
use super::{InitError, Options, dotenv};
use crate::backends::setup::{
    Change, Door, Land, Standing, Step, Wanted, certificate, discover, lacking, paths, steps,
};
use crate::backends::{ARCHIVING, ROLE, bare};
use crate::engine::error::chain;

/// Everything that is decided before the first change.
pub struct Decided {
    /// Who is to build, with which rights.
    pub wanted: Wanted,
    /// What there is of users and rights.
    pub standing: Standing,
    /// What is to be done about it.
    pub steps: Vec<Step>,
    /// The target's table.
    pub table: Table,
    /// What is known of the token's secret.
    pub known: Known,
    /// What becomes of the site file.
    pub site: Fate,
    /// The certificate that is pinned.
    pub fingerprint: Option<String>,
    /// Whether the API can be asked from here.
    pub reachable: bool,
}

impl Decided {
    /// The changes, in their order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|step| &step.changes)
    }

    /// Whether a secret will be told.
    pub fn makes_token(&self) -> bool {
        self.changes().any(|change| matches!(change, Change::AddToken { .. }))
    }

    /// What the role must hold.
    pub fn privileges(&self) -> Vec<String> {
        self.wanted.privileges(self.standing.major)
    }
}

/// A fingerprint without its form.
pub fn bare_hex(text: &str) -> String {
    text.replace(':', "").to_ascii_uppercase()
}

/// The API's address.
pub fn address(options: &Options) -> String {
    let named = options.url.as_deref().map(|url| url.trim_end_matches('/').trim_end_matches("/api2/json"));
    named.map_or_else(
        || {
            // By SSH the port is SSH's own.
            let port = options.destination.port.filter(|_| options.api).unwrap_or(8006);
            format!("https://{}:{port}", options.destination.in_url())
        },
        str::to_owned,
    )
}

/// Asks, and decides. Nothing is changed.
///
/// # Errors
/// What speaks against it.
pub async fn decide(
    door: &dyn Door,
    options: &Options,
    shown: Option<String>,
    talk: &Talk,
) -> Result<Decided, InitError> {
    let failed =
        |error| InitError::because(format!("{} does not tell what there is", door.describe()), error);
    let land = discover(door, options.nodes.first().filter(|name| *name != "auto").map(String::as_str));
    let land = land.await.map_err(failed)?;
    let standing = Standing::read(door, &options.user).await.map_err(failed)?;
    talk.say(&format!("found      Proxmox VE {}, node {}", standing.version, land.node));
    let picked = pick(options, &land)?;
    for note in &picked.notes {
        talk.say(&format!("note       {note}"));
    }
    let wanted = wanted(options, &picked, &land, standing.major);
    let steps = steps(&wanted, &standing)
        .map_err(|conflict| InitError::refused(conflict.to_string()).help(conflict.hint()))?;
    let (fingerprint, reachable) = settle_certificate(options, &land, shown, talk).await?;
    let table = table(options, &picked, &wanted, fingerprint.clone());
    let known = match standing.tokens.contains_key(&options.token) && !options.rotate_token {
        true => known::secret(options, &wanted.token_id()).await,
        false => Known::Nothing,
    };
    files::check_links(options, talk)?;
    let existing = files::read(&options.site)?;
    let site = table.fate(&options.site, existing.as_deref(), options.force)?;
    let decided = Decided { wanted, standing, steps, table, known, site, fingerprint, reachable };
    check_known(options, &decided, talk).await?;
    if let Some(file) = &options.env_file {
        // What speaks against it is told now, not after the changes.
        let wanted = dotenv::variables(&decided.table, None, options.http_port);
        dotenv::fate(file, files::read(file)?.as_deref(), &wanted, options.force)?;
    }
    Ok(decided)
}

fn wanted(options: &Options, picked: &Picked, land: &Land, major: u32) -> Wanted {
    let everywhere = paths(
        major,
        options.pool.as_deref(),
        &options.boot_vms,
        &picked.storages(),
        picked.bridge.as_ref().map(|bridge| land.sdn_path(bridge)).as_deref(),
    );
    // Only sites that archive have backups made.
    let more = picked.archives.as_ref().map(|_| ARCHIVING.to_owned());
    Wanted {
        user: options.user.clone(),
        token: options.token.clone(),
        role: options.role.clone(),
        more: more.into_iter().chain(options.privileges.iter().cloned()).collect(),
        pool: options.pool.clone(),
        paths: if options.paths.is_empty() { everywhere } else { options.paths.clone() },
        rotate: options.rotate_token,
        force: options.force,
    }
}

fn table(options: &Options, picked: &Picked, wanted: &Wanted, fingerprint: Option<String>) -> Table {
    Table {
        name: options.target.clone(),
        url: address(options),
        token_id: wanted.token_id(),
        secret: match options.env_file {
            Some(_) => SecretPlace::default(),
            None => SecretPlace::File(known::secret_file(options).file_name().unwrap_or_default().into()),
        },
        fingerprint,
        nodes: picked.nodes.clone(),
        disks: picked.disks.clone(),
        isos: picked.isos.clone(),
        archives: picked.archives.clone(),
        bridge: picked.bridge.clone(),
        vmids: options.vmids.clone(),
        pool: options.pool.clone(),
        role: (options.role != ROLE).then(|| options.role.clone()),
        free_vmids: picked.free_vmids.clone(),
    }
}

/// What is pinned: the certificate that the API shows, if the node says that it is its own.
async fn settle_certificate(
    options: &Options,
    land: &Land,
    shown: Option<String>,
    talk: &Talk,
) -> Result<(Option<String>, bool), InitError> {
    let of_nodes: Vec<&str> = land.nodes.iter().filter_map(|node| node.fingerprint.as_deref()).collect();
    let own = land.nodes.iter().find(|node| node.name == land.node).and_then(|node| node.fingerprint.clone());
    let given = options.fingerprint.clone();
    if let Some(shown) = shown {
        return Ok((Some(shown), true));
    }
    let url = address(options);
    match certificate(&bare(&url, None, "", "")).await {
        Ok(shown) => {
            let shown = shown.to_string();
            let vouched =
                given.as_deref().into_iter().chain(of_nodes).any(|text| bare_hex(text) == bare_hex(&shown));
            if vouched {
                return Ok((Some(shown), true));
            }
            let what = format!(
                "{url} shows a certificate that no node of the cluster calls its own: {shown}{}",
                own.map(|own| format!(", not {own}")).unwrap_or_default()
            );
            Err(InitError::refused(what).help(format!(
                "if a reverse proxy is between, give --fingerprint {shown}; else somebody is in between, or --url names another server"
            )))
        }
        Err(error) => {
            talk.warn(&format!(
                "{} from here, so neither its certificate nor the token can be tried; the node's own word is taken",
                chain(&error)
            ));
            Ok((given.or(own), false))
        }
    }
}

/// A token that is there is used with its own secret or not at all.
async fn check_known(options: &Options, decided: &Decided, talk: &Talk) -> Result<(), InitError> {
    if decided.makes_token() {
        return Ok(());
    }
    let id = decided.wanted.token_id();
    let rotate = "or --rotate-token makes it anew (whoever uses the old secret is locked out), or --token names another";
    match &decided.known {
        Known::Secret(secret, place) => {
            talk.redactor().hide(secret.expose());
            talk.note(&format!("the secret of {id} is in {place}"));
            if !decided.reachable {
                return Ok(());
            }
            let config = bare(&decided.table.url, decided.fingerprint.as_deref(), &id, secret.expose());
            match lacking(&config, decided.standing.major, &[], &[]).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    Err(InitError::because(format!("the secret of {id} in {place} does not open it"), error)
                        .help(format!("put the right one there, {rotate}")))
                }
            }
        }
        Known::Elsewhere(place) => {
            talk.warn(&format!("the token's secret is kept by {place}, and was not tried"));
            Ok(())
        }
        Known::Nothing => {
            let file = options.env_file.clone().unwrap_or_else(|| known::secret_file(options));
            Err(InitError::refused(format!("the token {id} exists, and its secret is known nowhere here"))
                .help(format!(
                    "Proxmox VE tells a secret only once: set {} to it (it is then kept in {}), {rotate}",
                    dotenv::SECRET,
                    file.display()
                )))
        }
    }
}
