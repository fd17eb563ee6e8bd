//! What is built on, of what there is: as the command line says, else the usual. Pure.

use super::{InitError, Options};
use crate::backends::setup::{Land, Storage};

/// What was picked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// The nodes; empty for all of them.
    pub nodes: Vec<String>,
    /// The storage for disks.
    pub disks: Option<String>,
    /// The storage for install media.
    pub isos: Option<String>,
    /// The storage for archives of templates.
    pub archives: Option<String>,
    /// The bridge.
    pub bridge: Option<String>,
    /// VMIDs that are free: a range to propose.
    pub free_vmids: Option<String>,
    /// What else there would have been, in words.
    pub notes: Vec<String>,
}

impl Picked {
    /// The storages, each once.
    #[must_use]
    pub fn storages(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in self.disks.iter().chain(&self.isos).chain(&self.archives) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }
}

/// Picks.
///
/// # Errors
/// When what is named is not there, or does not fit.
pub fn pick(options: &Options, land: &Land) -> Result<Picked, InitError> {
    let mut picked = Picked { free_vmids: land.free_vmids(), ..Picked::default() };
    let known: Vec<&str> = land.nodes.iter().map(|node| node.name.as_str()).collect();
    picked.nodes = match options.nodes.as_slice() {
        [] => vec![land.node.clone()],
        [all] if all == "auto" => Vec::new(),
        named => named.to_vec(),
    };
    if let Some(stranger) = picked.nodes.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(not_there("node", stranger, &known));
    }
    if options.nodes.is_empty() && known.len() > 1 {
        picked
            .notes
            .push(format!("the cluster has the nodes {}; --nodes names others, or auto", known.join(", ")));
    }
    picked.disks = storage(
        land,
        options.disks.as_deref(),
        "images",
        land.for_disks(),
        "--storage-disks",
        &mut picked.notes,
    )?;
    picked.isos =
        storage(land, options.isos.as_deref(), "iso", land.for_isos(), "--storage-isos", &mut picked.notes)?;
    if let Some(named) = options.archives.as_deref() {
        let notes = &mut picked.notes;
        picked.archives = storage(land, Some(named), "backup", None, "--storage-archives", notes)?;
    }
    let bridges: Vec<&str> = land.bridges.iter().map(|bridge| bridge.name.as_str()).collect();
    picked.bridge = match &options.bridge {
        Some(named) if !bridges.contains(&named.as_str()) => {
            return Err(not_there("bridge", named, &bridges));
        }
        Some(named) => Some(named.clone()),
        None => land.bridge().map(|bridge| bridge.name.clone()),
    };
    match (&picked.bridge, bridges.len()) {
        (None, _) => picked.notes.push("the node has no bridge that is up: builds need one".to_owned()),
        (Some(_), 2..) if options.bridge.is_none() => {
            picked
                .notes
                .push(format!("the node has the bridges {}; --bridge names another", bridges.join(", ")));
        }
        _ => {}
    }
    Ok(picked)
}

fn storage(
    land: &Land,
    named: Option<&str>,
    content: &str,
    usual: Option<&Storage>,
    option: &str,
    notes: &mut Vec<String>,
) -> Result<Option<String>, InitError> {
    let fitting: Vec<&str> = land.that_take(content).map(|storage| storage.name.as_str()).collect();
    match (named, usual) {
        (Some(named), _) if fitting.contains(&named) => Ok(Some(named.to_owned())),
        (Some(named), _) => {
            let exists = land.storages.iter().any(|storage| storage.name == named);
            if !exists {
                let all: Vec<&str> = land.storages.iter().map(|storage| storage.name.as_str()).collect();
                return Err(not_there("storage", named, &all));
            }
            let what = format!("the storage {named} on {} does not take `{content}`", land.node);
            Err(InitError::refused(what).help(format!("those that do: {}", list(&fitting))))
        }
        (None, None) => {
            notes.push(format!("no storage on {} takes `{content}`", land.node));
            Ok(None)
        }
        (None, Some(usual)) => {
            if fitting.len() > 1 {
                notes.push(format!("`{content}` is taken by {}; {option} names another", fitting.join(", ")));
            }
            Ok(Some(usual.name.clone()))
        }
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn not_there(kind: &str, name: &str, known: &[&str]) -> InitError {
    InitError::refused(format!("there is no {kind} `{name}`")).help(format!("there are: {}", list(known)))
}
