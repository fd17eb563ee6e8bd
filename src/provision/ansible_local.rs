//! Ansible inside the guest: the playbook and what belongs to it are carried there, and `ansible-playbook` of the guest
//! runs it on the guest itself. It takes no network, and works over every kind of connection.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_machine::Guest;
use serde_json::{Value, json};

use super::{
    AnsibleWork, Direction, FileStep, OutputObserver, ProvisionError, ShellSource, ShellStep, StepOutcome,
    ansible, file, run_patiently,
};
use crate::remote::Become;
use crate::remote::quote::sh;

/// Carries the playbook to the guest and runs it there. `shell` has what holds for every script: variables, allowed
/// statuses, the time limit.
pub(super) async fn run(
    guest: &dyn Guest,
    work: &AnsibleWork,
    shell: &ShellStep,
    env: &BTreeMap<String, String>,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let what = || format!("the playbook {} could not be carried to the guest", work.playbook.display());
    let room = file::make_room(guest).await.map_err(|why| ProvisionError::Transfer { what: what(), why })?;
    let result = async {
        let mut lines = Vec::new();
        carry(guest, &room, work, env, &mut lines, observer).await?;
        let script =
            ShellStep { source: ShellSource::Inline(lines), work_dir: Some(room.clone()), ..shell.clone() };
        run_patiently(guest, &script, env, observer).await
    };
    let result = result.await;
    file::remove_room(guest, &room).await;
    result
}

/// Carries everything, and says which lines are to be run.
async fn carry(
    guest: &dyn Guest,
    room: &str,
    work: &AnsibleWork,
    env: &BTreeMap<String, String>,
    lines: &mut Vec<String>,
    observer: &mut dyn OutputObserver,
) -> Result<(), ProvisionError> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut place = async |local: PathBuf, to: &str, mode: Option<u32>, content: Option<String>| {
        let step = FileStep {
            windows: false,
            direction: Direction::Upload,
            local,
            remote: format!("{room}/{to}"),
            content,
            mode,
            become_root: Become::No,
        };
        file::carry(guest, &step, observer).await
    };
    // A folder goes over with what is in it.
    let inside = |path: &Path| PathBuf::from(format!("{}/", path.display()));
    let playbook = match &work.playbook_dir {
        Some(folder) => {
            place(inside(folder), "playbook", None, None).await?;
            let rest = work.playbook.strip_prefix(folder).unwrap_or(&work.playbook);
            format!("playbook/{}", rest.display())
        }
        None => {
            let playbook = format!("playbook/{}", name(&work.playbook));
            place(work.playbook.clone(), &playbook, None, None).await?;
            playbook
        }
    };
    place(PathBuf::new(), "inventory.json", None, Some(inventory(work, env).to_string())).await?;
    // Without a locale of UTF-8 it refuses to start.
    let mut variables = vec!["LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1", "ANSIBLE_RETRY_FILES_ENABLED=0"];
    for (path, to, variable) in [
        (&work.roles_path, "roles", "ANSIBLE_ROLES_PATH=roles"),
        (&work.collections_path, "collections", "ANSIBLE_COLLECTIONS_PATH=collections"),
    ] {
        if let Some(path) = path {
            place(inside(path), to, None, None).await?;
        }
        if path.is_some() || work.galaxy_file.is_some() {
            variables.push(variable);
        }
    }
    lines.extend(variables.iter().map(|variable| format!("export {variable}")));
    if let Some(path) = &work.galaxy_file {
        place(path.clone(), "requirements.yml", None, None).await?;
        for kind in ansible::required(path)? {
            lines.push(format!("ansible-galaxy {kind} install -r requirements.yml -p {kind}s"));
        }
    }
    let mut words = vec!["ansible-playbook".to_owned(), "-i".into(), "inventory.json".into()];
    if work.become_root {
        words.push("--become".into());
    }
    if let Some(path) = &work.vault_password_file {
        // A program stays one.
        let mode = if is_program(path) { 0o700 } else { 0o600 };
        place(path.clone(), "vault-password", Some(mode), None).await?;
        words.extend(["--vault-password-file".to_owned(), "vault-password".into()]);
    }
    words.extend(work.extra_arguments.iter().cloned());
    words.push(playbook);
    let words: Vec<_> = words.iter().map(|word| sh(word)).collect();
    lines.push(words.join(" "));
    Ok(())
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
}

/// The guest alone, reached without a connection.
fn inventory(work: &AnsibleWork, env: &BTreeMap<String, String>) -> Value {
    ansible::of_one(json!({ "ansible_connection": "local" }), work, env)
}
