//! `forge gc`, and the quiet replay at the start of a build.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use forge_machine::Hypervisor;
use jiff::Timestamp;

use super::options::Global;
use super::{INCOMPLETE, REFUSED, prepare};
use crate::config::Site;
use crate::config::reader::parse_time;
use crate::engine::JournalDir;
use crate::engine::error::chain;
use crate::engine::journal::DeadJournal;
use crate::event::Redactor;
use crate::gc::{Found, IN_FLIGHT, in_flight, remove_kept, remove_left, remove_orphan, replay};
use crate::ui::{self, table::table};

/// Options of `forge gc`.
#[derive(Clone, Debug, Args)]
pub struct GcArgs {
    /// The target whose orphans are looked for [default: as for build]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Also removes VMs that bear forge's mark and have no journal here (another machine's, a CI container's)
    #[arg(long)]
    orphans: bool,
    /// Also removes VMs that `--on-error` left to be looked at
    #[arg(long)]
    left: bool,
    /// Also gives up builds that were kept because their scripts had succeeded, and removes their VMs: all, or that of this id
    #[arg(long, value_name = "VMID", num_args = 0..=1, default_missing_value = "")]
    kept: Option<String>,
    /// Only orphans whose build gave no sign of life for so long
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = parse_age)]
    older_than: Duration,
}

fn parse_age(text: &str) -> Result<Duration, String> {
    parse_time(text).ok_or_else(|| "write it like 30m, 6h or 90s".to_owned())
}

/// Looks after what dead builds left; gives the exit code.
pub async fn gc(global: &Global, args: &GcArgs) -> u8 {
    let redactor = Redactor::default();
    let (site, findings) = prepare::site(global);
    if prepare::tell(&findings, &redactor) {
        return REFUSED;
    }
    let mut found = match journals(global, args, &site, &redactor).await {
        Ok(found) => found,
        Err(code) => return code,
    };
    if args.orphans {
        match orphans(global, args, &site, &redactor).await {
            Ok(more) => found.extend(more),
            Err(code) => return code,
        }
    }
    if global.json {
        let text = serde_json::to_string_pretty(&found).unwrap_or_default();
        ui::data(&redactor.text(&format!("{text}\n")));
    } else if found.is_empty() {
        ui::say("nothing was left by dead builds");
    } else {
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|each| vec![each.build.clone(), each.target.clone(), each.what.clone(), each.result.clone()])
            .collect();
        ui::data(&redactor.text(&table(&["BUILD", "TARGET", "WHAT", "RESULT"], &rows)));
    }
    if found.iter().all(|each| each.ok) { 0 } else { INCOMPLETE }
}

async fn journals(
    global: &Global,
    args: &GcArgs,
    site: &Site,
    redactor: &Redactor,
) -> Result<Vec<Found>, u8> {
    let dead = global.journals().dead().map_err(|error| {
        ui::say(&format!("error: {}", chain(&error)));
        REFUSED
    })?;
    let mut found = Vec::new();
    let mut kept_is_met = false;
    for dead in dead {
        let dead = match dead {
            Ok(dead) => dead,
            Err(error) => {
                found.push(lost("?", "?", chain(&error)));
                continue;
            }
        };
        let story = dead.story.clone();
        let kept = story.kept.as_ref().map(|kept| kept.vm.id.as_str());
        let named = args.kept.as_deref().filter(|id| !id.is_empty());
        kept_is_met |= named.is_some() && named == kept;
        let Some(target) = site.targets.get(&story.target) else {
            let words =
                format!("{} has no target `{}`: name the site file with --config", site.origin, story.target);
            found.push(lost(story.chain_id.as_str(), &story.target, words));
            continue;
        };
        match prepare::open(target, global, redactor).await {
            Ok(hypervisor) => {
                tell_of_waiting(&dead);
                let hypervisor = hypervisor.as_ref();
                let given_up = args.kept.as_deref().is_some_and(|id| id.is_empty() || Some(id) == kept);
                found.extend(if given_up {
                    remove_kept(dead, hypervisor, IN_FLIGHT).await
                } else if args.left {
                    remove_left(dead, hypervisor, IN_FLIGHT).await
                } else {
                    replay(dead, hypervisor, IN_FLIGHT).await
                });
            }
            Err(finding) => found.push(lost(story.chain_id.as_str(), &story.target, finding.to_string())),
        }
    }
    if let Some(id) = args.kept.as_deref().filter(|id| !id.is_empty() && !kept_is_met) {
        let result =
            "no build of this machine keeps a VM of that id: `forge gc --kept` alone gives all of them up"
                .to_owned();
        let (build, target) = ("-".to_owned(), "-".to_owned());
        found.push(Found { build, target, what: format!("VM {id}"), result, ok: false });
    }
    Ok(found)
}

/// Says why it may take a while, before it does.
fn tell_of_waiting(dead: &DeadJournal) {
    if let Some(left) = in_flight(&dead.story, Timestamp::now()) {
        ui::say(&format!(
            "{} died when it had just asked for its VM, and the request may still be on its way: looking for it for at most {} s",
            dead.story.chain_id,
            left.as_secs() + 1
        ));
    }
}

fn lost(build: &str, target: &str, result: String) -> Found {
    Found { build: build.into(), target: target.into(), what: "its journal".into(), result, ok: false }
}

async fn orphans(global: &Global, args: &GcArgs, site: &Site, redactor: &Redactor) -> Result<Vec<Found>, u8> {
    let opened = match site.target(args.target.as_deref()) {
        Ok(target) => prepare::open(target, global, redactor).await,
        Err(finding) => Err(finding),
    };
    let hypervisor = opened.map_err(|finding| {
        prepare::tell(&[finding], redactor);
        REFUSED
    })?;
    let orphans = hypervisor.orphans().await.map_err(|error| {
        ui::say(&redactor.text(&format!("error: orphans can't be looked for: {}", chain(&error))));
        REFUSED
    })?;
    // A living build of this machine renews its mark, but its journal is the better witness.
    let living = global.journals().living();
    let mut found = Vec::new();
    for orphan in orphans {
        if living.contains(&orphan.mark.chain_id) {
            continue;
        }
        found.push(
            remove_orphan(&orphan, args.older_than, args.left, Timestamp::now(), hypervisor.as_ref()).await,
        );
    }
    Ok(found)
}

/// Replays the journals of dead builds of a target before a new build begins, for a limited time; what can't be done
/// is left for `forge gc`.
pub async fn replay_quietly(journals: &JournalDir, hypervisor: &Arc<dyn Hypervisor>, limit: Duration) {
    let Ok(dead) = journals.dead() else { return };
    let work = async {
        for dead in dead.into_iter().flatten() {
            if dead.story.target != hypervisor.target() {
                continue;
            }
            tell_of_waiting(&dead);
            for found in replay(dead, hypervisor.as_ref(), IN_FLIGHT).await {
                ui::say(&format!("left by {}: {}: {}", found.build, found.what, found.result));
            }
        }
    };
    if tokio::time::timeout(limit, work).await.is_err() {
        ui::say("some of what dead builds left is still there: `forge gc` does the rest");
    }
}
