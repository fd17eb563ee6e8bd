//! Looks after what dead builds left: journals first, then VMs that bear forge's mark and have no journal.
//!
//! Only what bears a build's nonce is ever touched, and never a template. A build that was past its keep point is
//! stopped and marked, not removed.

use std::time::Duration;

use forge_machine::{BuildState, Finish, Hypervisor, Orphan, Ownership, Power, Standing, TAG_LATEST, VmRef};
use jiff::Timestamp;
use serde::Serialize;

use crate::engine::error::chain;
use crate::engine::journal::{DeadJournal, KeptBuild, OpenUndo, Story, UndoAction};
use crate::engine::publish::{end_move, retire};
use crate::engine::reclaim::{Creation, reclaim};
use crate::engine::set_aside;

/// How long one undo may take.
const UNDO_LIMIT: Duration = Duration::from_secs(120);

/// How long the creating request of a process that died may still be on its way: Proxmox cuts a call off after 30 s,
/// forge after 40 s.
pub const IN_FLIGHT: Duration = Duration::from_secs(45);

/// What became of one thing that a dead build left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    /// The build.
    pub build: String,
    /// The target's name.
    pub target: String,
    /// The thing, in words.
    pub what: String,
    /// What became of it, in words.
    pub result: String,
    /// Whether nothing is left to do about it.
    pub ok: bool,
}

/// Looks after one dead build.
///
/// `in_flight` is how long after it was recorded its creating request may still reach the target ([`IN_FLIGHT`]): a
/// build that died so recently is waited for that long.
pub async fn replay(dead: DeadJournal, hypervisor: &dyn Hypervisor, in_flight: Duration) -> Vec<Found> {
    let story = dead.story.clone();
    if let Some(moving) = &story.moving {
        let ended = end_move(hypervisor, moving).await.map_err(|error| chain(&error));
        let mut found = vec![told(&story, format!("{} as the latest", moving.to), ended)];
        if found.iter().all(|each| each.ok) {
            close(dead, &story, &mut found);
        }
        return found;
    }
    match (story.kept.clone(), &story.left) {
        (Some(kept), _) => replay_kept(dead, &story, &kept, hypervisor).await,
        (None, Some(vm)) => {
            let words = "left as it was, by --on-error: `forge gc --left` removes it";
            vec![told(&story, vm.to_string(), Ok(words.to_owned()))]
        }
        (None, None) => replay_undos(dead, &story, hypervisor, in_flight).await,
    }
}

/// Looks after a dead build like [`replay`], and removes its VM also when it was left to be looked at.
pub async fn remove_left(dead: DeadJournal, hypervisor: &dyn Hypervisor, in_flight: Duration) -> Vec<Found> {
    let story = dead.story.clone();
    match (&story.kept, &story.left) {
        (None, Some(_)) => replay_undos(dead, &story, hypervisor, in_flight).await,
        _ => replay(dead, hypervisor, in_flight).await,
    }
}

/// Looks after a dead build like [`replay`], but gives a kept build up: its VM is removed, with all that its scripts did.
pub async fn remove_kept(dead: DeadJournal, hypervisor: &dyn Hypervisor, in_flight: Duration) -> Vec<Found> {
    let story = dead.story.clone();
    let Some(kept) = story.kept.clone().filter(|_| story.moving.is_none()) else {
        return replay(dead, hypervisor, in_flight).await;
    };
    let removal = reclaim(hypervisor, &kept.vm, &story.nonce, &[], Creation::Answered, true);
    let result = match tokio::time::timeout(UNDO_LIMIT, removal).await {
        Ok(reclaimed) => reclaimed.map(|reclaimed| reclaimed.to_string()).map_err(|error| chain(&error)),
        Err(_elapsed) => Err(format!("not done within {} s", UNDO_LIMIT.as_secs())),
    };
    if result.is_err() {
        return vec![told(&story, kept.vm.to_string(), result)];
    }
    let mut found = vec![told(&story, format!("remove {}, which was kept", kept.vm), result)];
    // What is left of it is as when somebody else had removed it.
    found.extend(replay_kept(dead, &story, &kept, hypervisor).await.into_iter().skip(1));
    found
}

/// How much longer the creating request of a dead build may be on its way; `None` when it certainly is not.
#[must_use]
pub fn in_flight(story: &Story, now: Timestamp) -> Option<Duration> {
    let left = |undo: &OpenUndo| match undo.action {
        UndoAction::DestroyVm { .. } if undo.tasks.is_empty() => {
            IN_FLIGHT.checked_sub(now.duration_since(undo.at).unsigned_abs())
        }
        _ => None,
    };
    story.undos.iter().filter_map(left).max()
}

async fn replay_undos(
    mut dead: DeadJournal,
    story: &Story,
    hypervisor: &dyn Hypervisor,
    in_flight: Duration,
) -> Vec<Found> {
    let mut found = Vec::new();
    for undo in &story.undos {
        let result = match tokio::time::timeout(
            UNDO_LIMIT,
            run_undo(undo, hypervisor, in_flight, story.left.is_some()),
        )
        .await
        {
            Ok(result) => result,
            Err(_elapsed) => Err(format!("not done within {} s", UNDO_LIMIT.as_secs())),
        };
        if result.is_ok()
            && let Err(error) = dead.settle(undo.id)
        {
            tracing::warn!(%error, "undone, but the journal does not know");
        }
        found.push(told(story, undo.action.to_string(), result));
    }
    if found.iter().all(|each| each.ok) {
        close(dead, story, &mut found);
    }
    found
}

async fn run_undo(
    undo: &OpenUndo,
    hypervisor: &dyn Hypervisor,
    in_flight: Duration,
    also_kept: bool,
) -> Result<String, String> {
    match &undo.action {
        UndoAction::DestroyVm { vm, nonce } => {
            let age = Timestamp::now().duration_since(undo.at).unsigned_abs();
            let creation = match in_flight.checked_sub(age) {
                Some(appears_within) if undo.tasks.is_empty() => Creation::Unanswered { appears_within },
                _ => Creation::Answered,
            };
            let reclaimed = reclaim(hypervisor, vm, nonce, &undo.tasks, creation, also_kept).await;
            reclaimed.map(|reclaimed| reclaimed.to_string()).map_err(|error| chain(&error))
        }
        UndoAction::RemoveFile { path } => match std::fs::remove_file(path) {
            Ok(()) => Ok("removed".into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("it does not exist".into()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A build that died past its keep point: its VM is stopped and marked, and its journal stays for `forge finish`.
async fn replay_kept(
    mut dead: DeadJournal,
    story: &Story,
    kept: &KeptBuild,
    hypervisor: &dyn Hypervisor,
) -> Vec<Found> {
    let vm = &kept.vm;
    let mut found = Vec::new();
    let standing = match settled(hypervisor, story, kept).await {
        Ok(standing) => standing,
        Err(error) => return vec![told(story, vm.to_string(), Err(chain(&error)))],
    };
    match standing {
        Standing::Ours { kept: true, power: Power::Stopped } => {
            found.push(told(
                story,
                vm.to_string(),
                Ok(format!(
                    "kept: `forge finish {0}` goes on with it, `forge gc --kept {0}` gives it up",
                    vm.id
                )),
            ));
        }
        Standing::Ours { .. } => {
            let mark = Ownership {
                nonce: story.nonce.clone(),
                chain_id: story.chain_id.clone(),
                owner: "forge gc".into(),
                started: story.started,
                heartbeat: Timestamp::now(),
                state: BuildState::Kept,
                memory_mib: None,
            };
            let machine = hypervisor.machine(vm);
            let result = set_aside(machine.as_ref(), &mark).await;
            let words = format!(
                "stopped and kept: `forge finish {0}` goes on with it, `forge gc --kept {0}` gives it up",
                vm.id
            );
            found.push(told(story, vm.to_string(), result.map(|()| words).map_err(|error| chain(&error))));
        }
        gone @ (Standing::Committed | Standing::Gone | Standing::Foreign { .. }) => {
            found.push(match gone {
                Standing::Committed => {
                    let result = roll_forward(story, vm, hypervisor).await;
                    told(story, vm.to_string(), result.map_err(|error| chain(&error)))
                }
                _ => told(story, vm.to_string(), Ok("the kept VM is not there any more".into())),
            });
            for undo in &story.undos {
                let result = run_undo(undo, hypervisor, Duration::ZERO, false).await;
                if result.is_ok()
                    && let Err(error) = dead.settle(undo.id)
                {
                    tracing::warn!(%error, "undone, but the journal does not know");
                }
                found.push(told(story, undo.action.to_string(), result));
            }
            if found.iter().all(|each| each.ok) {
                close(dead, story, &mut found);
            }
        }
        Standing::Busy { lock } => {
            found.push(told(story, vm.to_string(), Err(format!("locked ({lock}); try again later"))));
        }
    }
    found
}

/// The build died after its template was made: it gets its name and tags, and the ones before it lose `latest`.
async fn roll_forward(
    story: &Story,
    vm: &VmRef,
    hypervisor: &dyn Hypervisor,
) -> Result<String, forge_machine::PortError> {
    let words = "it is the template by now and stays".to_owned();
    let Some(finish @ Finish::Template { name, tags, .. }) = &story.publish else { return Ok(words) };
    hypervisor.machine(vm).publish(finish).await?;
    if tags.iter().any(|tag| tag == TAG_LATEST) {
        retire(hypervisor, &story.profile).await?;
    }
    Ok(format!("{words}, published as {name}"))
}

/// Asks what stands there until the target has finished what it was doing.
async fn settled(
    hypervisor: &dyn Hypervisor,
    story: &Story,
    kept: &KeptBuild,
) -> Result<Standing, forge_machine::PortError> {
    let mut pause = Duration::from_millis(50);
    let began = std::time::Instant::now();
    loop {
        match hypervisor.standing(&kept.vm, &story.nonce).await? {
            Standing::Busy { .. } if began.elapsed() < UNDO_LIMIT => tokio::time::sleep(pause).await,
            standing => return Ok(standing),
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn close(dead: DeadJournal, story: &Story, found: &mut Vec<Found>) {
    if let Err(error) = dead.close() {
        found.push(told(story, "the journal".into(), Err(chain(&error))));
    }
}

fn told(story: &Story, what: String, result: Result<String, String>) -> Found {
    let (ok, result) = match result {
        Ok(words) => (true, words),
        Err(words) => (false, words),
    };
    Found { build: story.chain_id.to_string(), target: story.target.clone(), what, result, ok }
}

/// Removes a VM that bears forge's mark and has no journal here, when its mark is older than a limit.
///
/// Kept VMs stay: they are somebody's finished work. Those that `--on-error` left go only when `also_left`.
pub async fn remove_orphan(
    orphan: &Orphan,
    older_than: Duration,
    also_left: bool,
    now: Timestamp,
    hypervisor: &dyn Hypervisor,
) -> Found {
    let age = now.duration_since(orphan.mark.heartbeat).unsigned_abs();
    let result = if orphan.mark.state == BuildState::Kept {
        Ok("kept after a late failure; it stays".to_owned())
    } else if orphan.mark.state == BuildState::Left && !also_left {
        Ok("left as it was, by --on-error: `forge gc --orphans --left` removes it".to_owned())
    } else if age < older_than {
        Ok(format!("its build was alive {} min ago; it stays", age.as_secs() / 60))
    } else {
        reclaim(hypervisor, &orphan.vm, &orphan.mark.nonce, &[], Creation::Answered, false)
            .await
            .map(|reclaimed| reclaimed.to_string())
            .map_err(|error| chain(&error))
    };
    let (ok, result) = match result {
        Ok(words) => (true, words),
        Err(words) => (false, words),
    };
    Found {
        build: orphan.mark.chain_id.to_string(),
        target: hypervisor.target().to_owned(),
        what: format!("{} (by {})", orphan.vm, orphan.mark.owner),
        result,
        ok,
    }
}
