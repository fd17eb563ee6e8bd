//! Ansible from this machine: the real `ansible-playbook`, the guest's real address, the build's real key, and an
//! inventory for the time of the run. Nothing is put between Ansible and the guest.
//!
//! The guest's host key of the build's own login is the only one that `ssh` may accept: another machine at the guest's
//! address is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::local::{parts, program};
use super::perform::Around;
use super::{AnsibleWork, LocalStep, OutputObserver, ProvisionError, StepOutcome};
use crate::remote::quote::sh;

/// The guest's name in the list of known hosts.
const HOST_KEY_ALIAS: &str = "forge-guest";

/// Runs the playbook, after the roles and collections that it asks for were installed.
pub(super) async fn run(
    around: &Around<'_>,
    work: &AnsibleWork,
    step: &LocalStep,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    if around.guest.host_public_key().is_none() {
        let how = format!("logs in by SSH, and this guest is reached as {}", around.guest.describe());
        return Err(ProvisionError::LocalFailed { how, allowed: "SSH".into(), tail: String::new() });
    }
    let failed = |source| ProvisionError::Local { what: "the inventory can't be written".into(), source };
    let folder = tempfile::Builder::new().prefix("forge-").tempdir().map_err(failed)?;
    let inventory = folder.path().join("inventory.json");
    let ssh = ssh_arguments(around, folder.path()).map_err(failed)?;
    std::fs::write(&inventory, inventory_of(around, work, &ssh).to_string()).map_err(failed)?;
    let env = environment(work, step, folder.path());

    if let Some(file) = &work.galaxy_file {
        for words in galaxy(work, file)? {
            program(around, step, (&words, &env), Vec::new(), observer).await?;
        }
    }
    let mut words = vec!["ansible-playbook".to_owned(), "-i".into(), text_of(&inventory)];
    if work.become_root {
        words.push("--become".into());
    }
    if let Some(file) = &work.vault_password_file {
        words.extend(["--vault-password-file".to_owned(), text_of(file)]);
    }
    words.extend(work.extra_arguments.iter().cloned());
    words.push(text_of(&work.playbook));
    program(around, step, (&words, &env), Vec::new(), observer).await
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The settings that are Ansible's own variables; those that the profile's `env` sets are left to it.
fn environment(work: &AnsibleWork, step: &LocalStep, folder: &Path) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        // Without a locale of UTF-8 it refuses to start, and CI services have none.
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
        ("ANSIBLE_NOCOLOR".into(), "1".into()),
        ("ANSIBLE_RETRY_FILES_ENABLED".into(), "0".into()),
        // One connection for a file and its command instead of three.
        ("ANSIBLE_PIPELINING".into(), "1".into()),
        // The shared connection ends soon after the run: sealing removes the user behind it.
        ("ANSIBLE_SSH_ARGS".into(), "-C -o ControlMaster=auto -o ControlPersist=5s".into()),
        ("ANSIBLE_SSH_CONTROL_PATH_DIR".into(), text_of(folder)),
    ]);
    let paths: [(&str, &Option<PathBuf>); 2] =
        [("ANSIBLE_ROLES_PATH", &work.roles_path), ("ANSIBLE_COLLECTIONS_PATH", &work.collections_path)];
    for (name, path) in paths {
        if let Some(path) = path {
            env.insert(name.to_owned(), text_of(path));
        }
    }
    env.retain(|name, _| !step.env.contains_key(name));
    env
}

/// What a file of requirements asks for, as `ansible-galaxy` names the kinds. A list is of roles, the older form; what can't
/// be read is left to `ansible-galaxy`, which tells why.
///
/// # Errors
/// When the file can't be read.
pub(super) fn required(file: &Path) -> Result<Vec<&'static str>, ProvisionError> {
    let text = std::fs::read_to_string(file).map_err(|source| ProvisionError::Local {
        what: format!("the requirements in {} can't be read", file.display()),
        source,
    })?;
    let asked = match serde_yaml::from_str::<Value>(&text) {
        Ok(Value::Object(table)) => table,
        Ok(Value::Array(_)) => return Ok(vec!["role"]),
        _ => return Ok(vec!["role", "collection"]),
    };
    let kinds = [("roles", "role"), ("collections", "collection")];
    Ok(kinds.into_iter().filter(|(key, _)| asked.contains_key(*key)).map(|(_, kind)| kind).collect())
}

/// How roles and collections are installed. `ansible-galaxy` goes to the network unless the file names archives.
///
/// # Errors
/// When the file can't be read.
fn galaxy(work: &AnsibleWork, file: &Path) -> Result<Vec<Vec<String>>, ProvisionError> {
    let install = |kind: &str, path: &Option<PathBuf>| {
        let mut words: Vec<String> =
            ["ansible-galaxy", kind, "install", "-r"].into_iter().map(str::to_owned).collect();
        words.push(text_of(file));
        words.extend(path.iter().flat_map(|path| ["-p".to_owned(), text_of(path)]));
        words
    };
    let kinds = required(file)?.into_iter().map(|kind| match kind {
        "role" => install(kind, &work.roles_path),
        _ => install(kind, &work.collections_path),
    });
    Ok(kinds.collect())
}

/// What `ssh` is told: the key alone, where there is one as a file, and the guest's host key alone.
fn ssh_arguments(around: &Around<'_>, folder: &Path) -> std::io::Result<Vec<String>> {
    let known = folder.join("known-hosts");
    let key = around.guest.host_public_key().unwrap_or_default();
    // By a name of its own: the address may change with a reboot, and the port is no part of it then.
    std::fs::write(&known, format!("{HOST_KEY_ALIAS} {key}\n"))?;
    let options = [
        "StrictHostKeyChecking=yes".to_owned(),
        format!("HostKeyAlias={HOST_KEY_ALIAS}"),
        format!("UserKnownHostsFile={}", text_of(&known)),
        "GlobalKnownHostsFile=/dev/null".into(),
    ];
    // Without a file it is the ssh-agent's keys that open the guest.
    let alone = around.key_file.map(|_| "IdentitiesOnly=yes".to_owned());
    Ok(alone.into_iter().chain(options).flat_map(|option| ["-o".to_owned(), option]).collect())
}

fn inventory_of(around: &Around<'_>, work: &AnsibleWork, ssh: &[String]) -> Value {
    let (user, host, port) = parts(&around.guest.describe());
    let ssh: Vec<String> = ssh.iter().map(|word| sh(word).into_owned()).collect();
    let mut variables = json!({
        "ansible_host": host,
        "ansible_port": port,
        "ansible_user": user,
        "ansible_ssh_common_args": ssh.join(" "),
    });
    if let Some(path) = around.key_file {
        variables["ansible_ssh_private_key_file"] = text_of(path).into();
    }
    of_one(variables, work, around.env)
}

/// An inventory of the guest alone, by its alias and in its groups, with the build's variables beside these.
pub(super) fn of_one(mut variables: Value, work: &AnsibleWork, env: &BTreeMap<String, String>) -> Value {
    for (name, value) in env {
        if let Some(name) = name.strip_prefix("FORGE_") {
            variables[format!("forge_{}", name.to_lowercase())] = value.clone().into();
        }
    }
    let alias = work.host_alias.as_str();
    let mut all = json!({"hosts": {alias: variables}});
    for group in &work.groups {
        all["children"][group.as_str()] = json!({"hosts": {alias: {}}});
    }
    json!({"all": all})
}
