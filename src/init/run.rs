//! The way of an init: reads, decisions, changes, files, proof.

use jiff::Timestamp;

use super::decide::{Decided, address, bare_hex, decide};
use super::known::{self, Known};
use super::record::{InitProof, WrittenFile, write};
use super::ssh::SshDoor;
use super::talk::{Talk, ask_line, ask_secret};
use super::{InitError, Options, Summary, credentials, files, host_key};
use crate::backends::bare;
use crate::backends::setup::{ApiDoor, Change, Door, certificate, lacking};
use crate::cli::prepare;
use crate::engine::error::chain;

/// Makes a Proxmox VE ready, or tells what that would take.
///
/// # Errors
/// Why it could not be done, and whether something was changed before.
pub async fn run(options: &Options, talk: &Talk) -> Result<Summary, InitError> {
    let started = Timestamp::now();
    let mut proof = InitProof {
        version: 1,
        kind: "init",
        chain_id: prepare::moment(&options.output).chain_id(&format!("init-{}", options.target)).to_string(),
        forge: env!("CARGO_PKG_VERSION").to_owned(),
        started: started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        target: options.target.clone(),
        ..InitProof::default()
    };
    talk.note(&format!("{} forge {} {}", proof.chain_id, proof.forge, proof.started));
    let outcome = match options.api {
        true => by_api(options, talk, &mut proof).await,
        false => by_ssh(options, talk, &mut proof).await,
    };
    if options.dry_run {
        return outcome;
    }
    if let Err(error) = &outcome {
        talk.note(&format!("error: {}", chain(error)));
    }
    // A failed one leaves its log, and no proof.
    let written = write(&options.output, &proof.chain_id, outcome.as_ref().ok().map(|_| &proof), talk);
    match (outcome, written) {
        (Ok(summary), Ok(folder)) => Ok(Summary { evidence: Some(folder), ..summary }),
        (Ok(summary), Err(error)) => {
            talk.warn(&format!("the evidence is not complete: {}", chain(&error)));
            Ok(summary)
        }
        (Err(error), Ok(folder)) => {
            Err(error.help(format!("the log is {}", folder.join("init.log").display())))
        }
        (Err(error), Err(_)) => Err(error),
    }
}

async fn by_ssh(options: &Options, talk: &Talk, proof: &mut InitProof) -> Result<Summary, InitError> {
    let destination = &options.destination;
    // A dry run leaves no trace.
    let known_hosts = (!options.dry_run).then(|| options.state.join("known_hosts"));
    let given = options.host_key.as_deref();
    let key = host_key::settle(destination, given, known_hosts.as_deref(), talk).await?;
    proof.host_key = Some(key.fingerprint.clone());
    let host = credentials::login(destination, &key, options.ssh_key.as_deref(), talk).await?;
    let door = SshDoor::open(host, destination, talk).await?;
    let outcome = through(&door, options, None, talk, proof).await;
    door.close().await;
    outcome
}

async fn by_api(options: &Options, talk: &Talk, proof: &mut InitProof) -> Result<Summary, InitError> {
    let destination = &options.destination;
    let url = address(options);
    let shown = certificate(&bare(&url, None, "", "")).await.map_err(|error| {
        InitError::because("the API's certificate can't be looked at", error)
            .help("is it Proxmox VE's address? --url names another than https://HOST:8006")
    })?;
    let shown = shown.to_string();
    talk.say(&format!("certificate {shown}"));
    match &options.fingerprint {
        Some(given) if bare_hex(given) != bare_hex(&shown) => {
            let what = format!("{url} shows another certificate than --fingerprint says: {shown}");
            return Err(
                InitError::refused(what).help("compare it with `pvenode cert info` on the node's console")
            );
        }
        Some(_) => {}
        None => {
            let question =
                "is this the certificate's fingerprint? compare it on the node's console; yes or no:";
            if !matches!(ask_line(question).await.as_deref().map(str::trim), Some("yes" | "y")) {
                let what = format!("nobody vouches for the certificate of {url}: {shown}");
                let hint = format!(
                    "compare it with `pvenode cert info` on the node, and give --fingerprint {shown}"
                );
                return Err(InitError::refused(what).help(hint));
            }
        }
    }
    let user = match destination.user.contains('@') {
        true => destination.user.clone(),
        false => format!("{}@pam", destination.user),
    };
    let password = match std::env::var("PROXMOX_PASSWORD").ok().filter(|text| !text.is_empty()) {
        Some(password) => password,
        None => ask_secret(&format!("password of {user}:")).await.ok_or_else(|| {
            InitError::refused(format!("there is no password for {user}")).help("set PROXMOX_PASSWORD")
        })?,
    };
    talk.redactor().hide(&password);
    let door = ApiDoor::new(&bare(&url, Some(&shown), &user, &password))
        .map_err(|error| InitError::because("the API can't be used", error))?;
    through(&door, options, Some(shown), talk, proof).await
}

async fn through(
    door: &dyn Door,
    options: &Options,
    shown: Option<String>,
    talk: &Talk,
    proof: &mut InitProof,
) -> Result<Summary, InitError> {
    talk.say(&format!("asking     {}", door.describe()));
    let decided = decide(door, options, shown, talk).await?;
    proof.product = format!("Proxmox VE {}", decided.standing.version);
    proof.by = door.describe();
    proof.url.clone_from(&decided.table.url);
    proof.fingerprint.clone_from(&decided.fingerprint);
    proof.token_id = decided.wanted.token_id();
    proof.role.clone_from(&decided.wanted.role);
    proof.privileges = decided.privileges();
    proof.paths.clone_from(&decided.wanted.paths);
    for step in &decided.steps {
        let mark = if step.changes.is_empty() { "✓" } else { "+" };
        talk.say(&format!("{mark} {:<28} {}", step.thing, step.found));
        if step.changes.is_empty() {
            proof.kept.push(format!("{} {}", step.thing, step.found));
        }
    }
    let mut summary = Summary {
        target: options.target.clone(),
        url: decided.table.url.clone(),
        token_id: decided.wanted.token_id(),
        dry_run: options.dry_run,
        changes: decided.changes().map(|change| door.makes(change)).collect(),
        ..Summary::default()
    };
    if options.dry_run {
        summary.files =
            files::told(options, &decided.table, &decided.site, &decided.known, decided.makes_token(), talk)?;
        summary.unchanged = summary.changes.is_empty() && summary.files.is_empty();
        return Ok(summary);
    }
    if decided.makes_token() {
        known::leave_others(options)?;
    }
    carry_out(door, options, &decided, talk, proof, &mut summary).await?;
    summary.unchanged = summary.changes.is_empty() && summary.files.is_empty();
    Ok(summary)
}

async fn carry_out(
    door: &dyn Door,
    options: &Options,
    decided: &Decided,
    talk: &Talk,
    proof: &mut InitProof,
    summary: &mut Summary,
) -> Result<(), InitError> {
    let mut secret = match &decided.known {
        Known::Secret(secret, _) => Some(secret.expose().to_owned()),
        Known::Elsewhere(_) | Known::Nothing => None,
    };
    // A secret is told once, and an old one may be gone before: the file that keeps it is open before anything is changed.
    let mut draft = decided.makes_token().then(|| files::open(options)).transpose()?;
    for change in decided.changes() {
        let shown = door.makes(change);
        let after = |error: InitError| match proof.changed.is_empty() {
            true => error,
            false => error.after_a_change().help("run it again: what is done already stays as it is"),
        };
        let draft = if matches!(change, Change::AddToken { .. }) { draft.take() } else { None };
        let answer = door
            .change(change)
            .await
            .map_err(|error| after(InitError::because(format!("could not {}", change.in_words()), error)))?;
        if let Some(draft) = draft {
            let told = answer["value"].as_str().unwrap_or_default().to_owned();
            if told.is_empty() {
                return Err(InitError::refused(format!("`{shown}` has made the token and told no secret"))
                    .after_a_change()
                    .help("run it again with --rotate-token"));
            }
            talk.redactor().hide(&told);
            files::keep(options, &decided.table, draft, &told, proof).map_err(|error| {
                error.after_a_change().help("the secret is lost: run it again with --rotate-token")
            })?;
            secret = Some(told);
        }
        talk.say(&format!("done       {shown}"));
        proof.changed.push(shown);
    }
    let changed = !proof.changed.is_empty();
    let after = |error: InitError| if changed { error.after_a_change() } else { error };
    files::write(options, &decided.table, &decided.site, secret.as_deref(), talk, proof).map_err(&after)?;
    summary.files = proof.files.iter().map(|file: &WrittenFile| file.path.clone()).collect();
    if let (Some(secret), true) = (&secret, decided.reachable) {
        let config =
            bare(&decided.table.url, decided.fingerprint.as_deref(), &decided.wanted.token_id(), secret);
        let missing =
            lacking(&config, decided.standing.major, &decided.privileges(), &decided.wanted.paths).await;
        let missing = missing.map_err(|error| after(InitError::because("the token can't be used", error)))?;
        if !missing.is_empty() {
            let what = format!("the token still lacks {}", missing.join(", "));
            return Err(after(InitError::refused(what)
                .help("another entry for this user further down the same path hides the role: `pveum acl list` shows it")));
        }
        proof.token_checked = true;
        talk.say("✓ the token was tried: it may do all of it");
    }
    Ok(())
}
