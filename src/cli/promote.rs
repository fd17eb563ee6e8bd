//! `forge promote` and `forge rollback`: another template of a profile becomes the `latest`.

use std::path::PathBuf;

use clap::Args;
use forge_machine::{Hypervisor, PortError, TAG_LATEST, VmRef};
use serde::Serialize;

use super::build::REPLAY_LIMIT;
use super::list::{Which, chosen, open, tell_error};
use super::options::Global;
use super::{INCOMPLETE, REFUSED, prepare};
use crate::catalogue::{Entry, UNFIT, Wanted};
use crate::config::Finding;
use crate::engine::error::chain;
use crate::engine::journal::{Journal, JournalError, Record};
use crate::engine::publish::{Move, move_latest, retire};
use crate::event::Redactor;
use crate::ui;

/// Options of `forge promote`.
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// The template: its VMID, its name, or the chain id of its build
    #[arg(value_name = "TEMPLATE")]
    template: String,
    /// The target of the site file [default: its default-target, or the only one]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

/// Options of `forge rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    which: Which,
}

/// What was moved, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Moved<'a> {
    latest: &'a Entry,
    before: Vec<&'a Entry>,
}

/// Makes a template the `latest` of its profile; gives the exit code.
pub async fn promote(global: &Global, args: &PromoteArgs) -> u8 {
    let redactor = Redactor::default();
    let wanted = Wanted::default();
    let pick = |all: &[Entry]| named(all, &args.template);
    run(global, args.target.as_deref(), &wanted, pick, &redactor).await
}

/// Makes the template before the `latest` of a profile the `latest`; gives the exit code.
pub async fn rollback(global: &Global, args: &RollbackArgs) -> u8 {
    let redactor = Redactor::default();
    let wanted = args.which.wanted(false);
    let tags = wanted.tags.clone();
    // The tags are those of the one to go back to.
    let wanted = Wanted { tags: Vec::new(), ..wanted };
    run(global, args.which.target(), &wanted, |all| before(all, &tags), &redactor).await
}

async fn run(
    global: &Global,
    target: Option<&str>,
    wanted: &Wanted,
    pick: impl Fn(&[Entry]) -> Result<Entry, Finding>,
    redactor: &Redactor,
) -> u8 {
    let hypervisor = match open(global, target, redactor).await {
        Ok(hypervisor) => hypervisor,
        Err(code) => return code,
    };
    // What a dead process left half-moved is moved first.
    super::gc::replay_quietly(&global.journals(), &hypervisor, REPLAY_LIMIT).await;
    let hypervisor = hypervisor.as_ref();
    let all = match chosen(hypervisor, &Wanted::default(), redactor).await {
        Ok(all) => all,
        Err(code) => return code,
    };
    let meant: Vec<Entry> = all.iter().filter(|entry| wanted.takes(entry)).cloned().collect();
    let to = match pick(&meant) {
        Ok(to) => to,
        Err(finding) => {
            prepare::tell(&[finding], redactor);
            return REFUSED;
        }
    };
    let bearers = all.iter().filter(|entry| entry.profile == to.profile && entry.bears(TAG_LATEST));
    let from: Vec<&Entry> = bearers.filter(|entry| entry.vmid != to.vmid).collect();
    if from.is_empty() && to.bears(TAG_LATEST) {
        ui::say(&format!("{} (VM {}) is the latest already", to.name, to.vmid));
        return tell(global, &to, &from);
    }
    let step = Move {
        to: to.vm(),
        made_by: to.chain_id.clone(),
        from: from.iter().map(|entry| entry.vm()).collect::<Vec<VmRef>>(),
    };
    match moved(global, hypervisor, &to, step, Rivals::Stay, redactor).await {
        Ok(()) => tell(global, &to, &from),
        Err(code) => code,
    }
}

/// Who keeps the tag when others got it at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rivals {
    /// Somebody has named this one: it loses nothing to them, nor they to it.
    Stay,
    /// The newest of all that bear it by then.
    Settle,
}

/// Moves the tag, with the journal knowing of it.
pub(super) async fn moved(
    global: &Global,
    hypervisor: &dyn Hypervisor,
    to: &Entry,
    step: Move,
    rivals: Rivals,
    redactor: &Redactor,
) -> Result<(), u8> {
    let journal = opened(global, hypervisor, to, &step).map_err(|error| {
        ui::say(&format!("error: {}", chain(&error)));
        REFUSED
    })?;
    let outcome = async {
        let mut retired = move_latest(hypervisor, &step).await?;
        // Two that came to this point together knew nothing of each other: only now both bear the tag.
        if rivals == Rivals::Settle {
            retired.denied.extend(retire(hypervisor, &to.profile).await?.denied);
            retired.denied.dedup_by(|one, other| one.0 == other.0);
        }
        Ok::<_, PortError>(retired)
    };
    match outcome.await {
        Ok(retired) => {
            for (vm, error) in &retired.denied {
                ui::say(
                    &redactor.text(&format!("error: {vm} keeps the tag `{TAG_LATEST}`: {}", chain(error))),
                );
            }
            if let Err(error) = journal.close() {
                ui::say(&format!("warning: {}", chain(&error)));
            }
            if retired.denied.is_empty() { Ok(()) } else { Err(INCOMPLETE) }
        }
        Err(error) => {
            tell_error(&error, redactor);
            ui::say("    help: once that is mended, `forge gc` ends what was begun");
            Err(INCOMPLETE)
        }
    }
}

fn opened(
    global: &Global,
    hypervisor: &dyn Hypervisor,
    to: &Entry,
    step: &Move,
) -> Result<Journal, JournalError> {
    let moment = prepare::moment(&PathBuf::new());
    let chain_id = moment.chain_id(&format!("promote-{}", to.profile));
    let mut journal = global.journals().create(&chain_id)?;
    journal.write(&Record::Opened {
        version: 1,
        chain_id,
        profile: to.profile.clone(),
        target: hypervisor.target().to_owned(),
        nonce: moment.nonce,
        started: moment.now,
        evidence: PathBuf::new(),
    })?;
    journal.write(&Record::Moving(step.clone()))?;
    Ok(journal)
}

fn tell(global: &Global, to: &Entry, from: &[&Entry]) -> u8 {
    if global.json {
        let moved = Moved { latest: to, before: from.to_vec() };
        ui::data(&format!("{}\n", serde_json::to_string(&moved).unwrap_or_default()));
        return 0;
    }
    let before: Vec<String> = from.iter().map(|entry| format!("VM {}", entry.vmid)).collect();
    let before = if before.is_empty() { String::new() } else { format!(", before it {}", before.join(", ")) };
    ui::data(&format!("{} (VM {}) is the latest of {}{before}\n", to.name, to.vmid, to.profile));
    0
}

/// The template that was named.
fn named(all: &[Entry], name: &str) -> Result<Entry, Finding> {
    let is_it = |entry: &&Entry| entry.vmid == name || entry.name == name || entry.chain_id == name;
    let found: Vec<&Entry> = all.iter().filter(is_it).collect();
    match found.as_slice() {
        [one] if one.profile.is_empty() || one.chain_id.is_empty() => Err(Finding::general(format!(
            "the notes of {} do not tell which build of forge made it",
            one.name
        ))),
        [one] => Ok((*one).clone()),
        [] => Err(Finding::general(format!("there is no template `{name}` of forge's"))
            .help("`forge list` shows those that are there")),
        several => {
            let ids: Vec<&str> = several.iter().map(|entry| entry.vmid.as_str()).collect();
            Err(Finding::general(format!("{} templates are called `{name}`", several.len()))
                .help(format!("name one of them by its VMID: {}", ids.join(", "))))
        }
    }
}

/// Of one profile's templates, newest first, the newest that is older than the one that is the latest now.
fn before(all: &[Entry], tags: &[String]) -> Result<Entry, Finding> {
    let mut profiles: Vec<&str> = all.iter().map(|entry| entry.profile.as_str()).collect();
    profiles.sort_unstable();
    profiles.dedup();
    if profiles.len() > 1 {
        return Err(Finding::general(format!("templates of {} profiles are meant", profiles.len()))
            .help(format!("name one with --profile: {}", profiles.join(", "))));
    }
    let at = all.iter().position(|entry| entry.bears(TAG_LATEST)).ok_or_else(|| {
        Finding::general(format!("no such template bears the tag `{TAG_LATEST}`"))
            .help("`forge list` shows those that are there, `forge promote` makes one of them the latest")
    })?;
    let now = all.get(at).map(|entry| format!("{} (VM {})", entry.name, entry.vmid)).unwrap_or_default();
    // What failed its test, waits for it, or is to go, is gone back to only by its tag.
    let unfit =
        |entry: &Entry| UNFIT.iter().any(|tag| entry.bears(tag) && !tags.iter().any(|asked| asked == tag));
    let older =
        all.iter().skip(at + 1).find(|entry| tags.iter().all(|tag| entry.bears(tag)) && !unfit(entry));
    older.cloned().ok_or_else(|| {
        let with =
            if tags.is_empty() { String::new() } else { format!(" with the tags {}", tags.join(", ")) };
        Finding::general(format!("there is no template{with} older than {now}, which is the latest"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(vmid: &str, profile: &str, tags: &[&str]) -> Entry {
        Entry {
            name: format!("tpl-{profile}"),
            vmid: vmid.into(),
            profile: profile.into(),
            forge: true,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            chain_id: format!("CHAIN-{vmid}"),
            ..Entry::default()
        }
    }

    #[test]
    fn going_back_takes_the_one_before_the_latest_and_the_tags_are_its_own() {
        let line = [
            entry("4", "web", &["forge"]),
            entry("3", "web", &["forge", "latest"]),
            entry("6", "web", &["forge", "test-failed"]),
            entry("5", "web", &["forge", "deprecated"]),
            entry("2", "web", &["forge"]),
            entry("1", "web", &["forge", "validated"]),
        ];
        let id =
            |found: Result<Entry, Finding>| found.map(|entry| entry.vmid).map_err(|found| found.to_string());
        assert_eq!(id(before(&line, &[])), Ok("2".into()));
        assert_eq!(id(before(&line, &["validated".into()])), Ok("1".into()));
        assert_eq!(id(before(&line, &["deprecated".into()])), Ok("5".into()), "it is asked for");
        assert!(
            id(before(&line, &["gold".into()]))
                .is_err_and(|words| words.contains("older than tpl-web (VM 3)"))
        );
        assert!(id(before(&line[5..], &[])).is_err_and(|words| words.contains("bears the tag")));
        let two = [line[0].clone(), entry("7", "db", &["forge", "latest"])];
        assert!(id(before(&two, &[])).is_err_and(|words| words.contains("--profile: db, web")));
    }

    #[test]
    fn a_template_is_named_by_vmid_name_or_chain_id_and_only_if_there_is_one() {
        let all = [entry("4", "web", &[]), entry("3", "web", &[]), entry("2", "db", &[])];
        let id = |name| named(&all, name).map(|entry| entry.vmid).map_err(|found| found.to_string());
        assert_eq!(id("3"), Ok("3".into()));
        assert_eq!(id("CHAIN-4"), Ok("4".into()));
        assert_eq!(id("tpl-db"), Ok("2".into()));
        assert!(id("tpl-web").is_err_and(|words| words.contains("VMID: 4, 3")));
        assert!(id("tpl-x").is_err_and(|words| words.contains("forge list")));
    }
}
