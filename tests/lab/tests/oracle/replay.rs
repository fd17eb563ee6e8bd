//! Replays what a real PVE 9.2.11 was asked, and compares what it answered: status line, error body, data, the end of
//! the task.
//!
//! `replay/*.jsonl` holds one call a line, in the order in which they were made. Data is compared member by member; what
//! changes from call to call (times, digests, addresses, figures) is not in it, `{mac}` stands for any address and
//! `{task}` for any task. `"differs"` says why a line is made but not compared.

use forge_lab::{Lab, LabConfig};
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Reply};
use super::lab_with;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    call: String,
    #[serde(default)]
    form: String,
    line: String,
    data: Option<Value>,
    body: Option<Value>,
    exit: Option<String>,
    differs: Option<String>,
}

/// What is wrong with an answer, when something is.
fn difference(entry: &Entry, reply: &Reply) -> Option<String> {
    if reply.line() != entry.line {
        return Some(format!("{} instead of {}", reply.line(), entry.line));
    }
    match (&entry.body, &entry.data) {
        (Some(body), _) if reply.json() != *body => Some(format!("{} instead of {body}", reply.body)),
        (_, Some(data)) => differs("data", data, &reply.data()),
        _ => None,
    }
}

fn differs(path: &str, wanted: &Value, seen: &Value) -> Option<String> {
    match (wanted, seen) {
        (Value::Object(wanted), Value::Object(seen)) => wanted.iter().find_map(|(key, wanted)| {
            differs(&format!("{path}.{key}"), wanted, seen.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(wanted), Value::Array(seen)) => {
            let missing =
                wanted.iter().find(|wanted| seen.iter().all(|seen| differs("", wanted, seen).is_some()));
            missing.map(|missing| format!("{path}: {missing} is not in {seen:?}"))
        }
        (Value::String(wanted), Value::String(seen)) => {
            let same = match wanted.as_str() {
                "{task}" => seen.starts_with("UPID:"),
                wanted if path.ends_with(".content") => sorted(wanted) == sorted(seen),
                wanted => masked(seen) == wanted,
            };
            (!same).then(|| format!("{path}: {seen:?} instead of {wanted:?}"))
        }
        _ if wanted == seen => None,
        _ => Some(format!("{path}: {seen} instead of {wanted}")),
    }
}

fn sorted(list: &str) -> Vec<&str> {
    let mut list: Vec<&str> = list.split(',').collect();
    list.sort_unstable();
    list
}

fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(at) = text.find("BC:24:11:").or_else(|| text.find("bc:24:11:")) {
        text.replace_range(at..(at + 17).min(text.len()), "{mac}");
    }
    text
}

/// Makes the calls of a file and returns what is wrong, by line.
async fn replay(client: &Client, text: &str) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry: Entry = serde_json::from_str(line)?;
        let (method, path) = entry.call.split_once(' ').unwrap_or_default();
        let reply = client.call(method, path, &entry.form).await?;
        let mut found = difference(&entry, &reply);
        if reply.status == 200 && reply.data().as_str().is_some_and(|data| data.starts_with("UPID:")) {
            let exit = client.task(&reply).await?.0;
            if let Some(wanted) = entry.exit.as_ref().filter(|wanted| **wanted != exit) {
                found = found.or(Some(format!("the task ends with {exit:?} instead of {wanted:?}")));
            }
        }
        match (found, &entry.differs) {
            (Some(found), None) => {
                wrong.push(format!("line {}: {} {}: {found}", index + 1, entry.call, entry.form));
            }
            (None, Some(_)) => {
                wrong.push(format!("line {}: {} does not differ any more", index + 1, entry.call));
            }
            _ => {}
        }
    }
    Ok(wrong)
}

async fn lab_of(folder: &std::path::Path) -> anyhow::Result<(Lab, Client)> {
    let iso = folder.join("storage/pve/local/template/iso");
    std::fs::create_dir_all(&iso)?;
    for name in ["seed.iso", "seed6.iso", "tiny.iso", "disk.img"] {
        std::fs::write(iso.join(name), vec![0; 100_000])?;
    }
    let import = folder.join("storage/pve/local/import");
    std::fs::create_dir_all(&import)?;
    std::fs::write(import.join("disk.raw"), vec![0; 100_000])?;
    std::fs::write(iso.join("d.iso"), vec![0; 200_000])?;
    std::fs::File::create(import.join("img.qcow2"))?.set_len(64 << 20)?;
    lab_with(LabConfig {
        run_guests: false,
        // That server was a virtual machine itself, without KVM.
        kvm: false,
        auth_delay: std::time::Duration::ZERO,
        agent_ping: std::time::Duration::ZERO,
        state_dir: Some(folder.to_path_buf()),
        ..LabConfig::default()
    })
    .await
}

/// Replays files one after the other on one lab, each with the rights that its caller had.
async fn replay_files(files: &[(&str, &str, &[&str])]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (lab, client) = lab_of(folder.path()).await?;
    let mut wrong = Vec::new();
    for (name, text, access) in files {
        lab.set_token_access(super::TOKEN, &[("/", access)]);
        wrong.extend(replay(&client, text).await?.into_iter().map(|wrong| format!("{name} {wrong}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    lab.stop().await;
    Ok(())
}

/// The rights of the image builder's role on that server.
fn builder() -> Vec<&'static str> {
    let mut access = forge_lab::LEAST_PRIVILEGES_PVE9.to_vec();
    access.push("Datastore.AllocateTemplate");
    access
}

macro_rules! file {
    ($name:literal, $access:expr) => {
        ($name, include_str!(concat!("replay/", $name, ".jsonl")), $access)
    };
}

#[tokio::test]
async fn errors_of_the_http_layer_are_those_of_a_real_server() -> anyhow::Result<()> {
    replay_files(&[file!("http-auth-errors", builder().as_slice())]).await
}

#[tokio::test]
async fn a_vm_is_created_configured_cloned_and_removed_as_on_a_real_server() -> anyhow::Result<()> {
    let builder = builder();
    let builder = builder.as_slice();
    let all = forge_lab::ALL_PRIVILEGES_PVE9;
    let files = [
        file!("create-2", builder),
        file!("config-power", builder),
        file!("cloudinit-snapshot", all),
        file!("clone-template-delete", all),
    ];
    replay_files(&files).await
}

#[tokio::test]
async fn a_vm_starts_where_there_is_no_kvm_and_takes_keys_as_on_a_real_server() -> anyhow::Result<()> {
    let builder = builder();
    let builder = builder.as_slice();
    let files = [
        file!("create-1", builder),
        file!("create-2", builder),
        file!("start", builder),
        file!("sendkey-vnc", builder),
    ];
    replay_files(&files).await
}

#[tokio::test]
async fn images_are_imported_as_on_a_real_server() -> anyhow::Result<()> {
    replay_files(&[file!("import", builder().as_slice())]).await
}

#[tokio::test]
async fn pools_and_tasks_answer_as_on_a_real_server() -> anyhow::Result<()> {
    replay_files(&[file!("pools-and-tasks", forge_lab::ALL_PRIVILEGES_PVE9)]).await
}
