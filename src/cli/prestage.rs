//! `forge prestage`: the media of profiles, brought to where their builds read them, and nothing else.
//!
//! For a QEMU target that is this machine's cache. For Proxmox VE it is the storage of each node that a build may be on:
//! on a shared storage the second node finds what the first has brought.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use clap::Args;
use forge_machine::{
    FactsQuery, Fetch, Growth, Hypervisor, Location, MachineSpec, Medium, PortError, SourceSelector,
    SourceSpec,
};
use serde_json::json;

use super::options::{Global, Selection};
use super::prepare::{self, tell};
use super::{INTERRUPTED, REFUSED};
use crate::config::{Finding, Profile, Target, TargetKind};
use crate::engine::error::{chain, hint};
use crate::event::Redactor;
use crate::event::phrase::time;
use crate::media::{Brought, How, Store, Watch, settle, size};
use crate::plan::make;
use crate::ui::table::table;
use crate::ui::transfer::Transfers;
use crate::ui::{self, Style};

/// Options of `forge prestage`.
#[derive(Clone, Debug, Args)]
pub struct PrestageArgs {
    #[command(flatten)]
    selection: Selection,
}

/// A medium of some profiles, and a node that is to have it.
struct Errand {
    profile: String,
    node: String,
    medium: Medium,
    /// A disk image; else a medium for a drive.
    image: bool,
    mirrors: Vec<String>,
}

/// A medium that is where it should be.
struct Row {
    name: String,
    place: String,
    size: Option<u64>,
    how: &'static str,
}

/// Brings the media; gives the exit code.
pub async fn prestage(global: &Global, args: &PrestageArgs) -> u8 {
    let redactor = Redactor::default();
    let transfers = Transfers::new(Style::choose(global.json, global.quiet), redactor.clone());
    let work = run(global, &args.selection, &redactor, &transfers);
    let code = tokio::select! {
        code = work => code,
        _signal = tokio::signal::ctrl_c() => {
            transfers.tell("interrupted: what was downloaded so far is kept, and gone on with the next time");
            INTERRUPTED
        }
    };
    transfers.finish();
    code
}

async fn run(global: &Global, selection: &Selection, redactor: &Redactor, transfers: &Transfers) -> u8 {
    let (site, mut findings) = prepare::site(global);
    let (profiles, wrong) = prepare::profiles(selection, redactor);
    findings.extend(wrong);
    let target = site.target(selection.target.as_deref()).map_err(|finding| findings.push(finding));
    let named = target.as_ref().ok().map(|target| target.name.as_str());
    let mut profiles = prepare::selected(profiles, selection, named, &mut findings);
    if tell(&findings, redactor) {
        return REFUSED;
    }
    let Ok(target) = target else { return REFUSED };
    let hypervisor = match prepare::open(target, global, redactor).await {
        Ok(hypervisor) => hypervisor,
        Err(finding) => {
            tell(&[finding], redactor);
            return REFUSED;
        }
    };
    let store = global.media();
    let mut errands = Vec::new();
    for profile in &mut profiles {
        prepare::hide_passwords(profile, redactor);
        let mut findings = settle::sums(profile, &store, transfers).await;
        match errands_of(profile, target, &hypervisor).await {
            Ok(more) => errands.extend(more),
            Err(finding) => findings.push(finding),
        }
        if tell(&findings, redactor) {
            return REFUSED;
        }
    }
    let mut seen = Vec::new();
    errands.retain(|errand| {
        let key = (errand.node.clone(), errand.medium.clone());
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
    if errands.is_empty() {
        transfers.tell("these profiles name no media");
    }
    let (mut rows, mut failed) = (Vec::new(), 0);
    for errand in &errands {
        let began = Instant::now();
        let result = bring(errand, hypervisor.as_ref(), &store, transfers).await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let medium = errand.medium.to_string();
        match result {
            Ok(row) => {
                transfers.object(&json!({
                    "event": "prestaged", "profile": errand.profile, "medium": medium, "node": errand.node,
                    "checksum": errand.medium.checksum.to_string(), "place": row.place, "size": row.size,
                    "how": row.how, "took-ms": took_ms,
                }));
                rows.push(vec![
                    errand.profile.clone(),
                    row.name,
                    row.size.map_or_else(String::new, size),
                    row.how.to_owned(),
                    time(took_ms),
                    if errand.node == LOCAL { row.place } else { format!("{} {}", errand.node, row.place) },
                ]);
            }
            Err(error) => {
                failed += 1;
                let words = chain(&error);
                transfers.object(&json!({
                    "event": "failed", "profile": errand.profile, "medium": medium, "node": errand.node,
                    "message": words,
                }));
                let help = hint(&error).map_or_else(String::new, |hint| format!("\n    help: {hint}"));
                transfers.tell(&format!("error: {}: {words}{help}", errand.profile));
            }
        }
    }
    transfers.finish();
    if !global.json && !rows.is_empty() {
        let header = ["PROFILE", "MEDIUM", "SIZE", "HOW", "TOOK", "PLACE"];
        ui::data(&redactor.text(&table(&header, &rows)));
    }
    u8::from(failed > 0)
}

/// The node of a target that is this machine.
const LOCAL: &str = "localhost";

async fn errands_of(
    profile: &Profile,
    target: &Target,
    hypervisor: &Arc<dyn Hypervisor>,
) -> Result<Vec<Errand>, Finding> {
    let query = make::query(profile, target)?;
    let image = match &query.source {
        SourceSelector::Image(image) => Some(image.clone()),
        SourceSelector::Clone(_) | SourceSelector::New => None,
    };
    let of_kernel = profile.source.kernel.iter().flat_map(|kernel| {
        let spec =
            MachineSpec { kernel: Some(kernel.files.clone()), ..MachineSpec::new(SourceSpec::New, "") };
        spec.media().cloned().collect::<Vec<_>>()
    });
    let mut media: Vec<(Medium, bool)> = image.into_iter().map(|image| (image, true)).collect();
    media.extend(profile.source.isos.iter().cloned().chain(of_kernel).map(|medium| (medium, false)));
    if media.is_empty() {
        return Ok(Vec::new());
    }
    let nodes = match (&target.kind, &profile.vm.node) {
        (TargetKind::Qemu(_), _) => vec![LOCAL.to_owned()],
        (TargetKind::Proxmox(_), Some(node)) => vec![node.clone()],
        (TargetKind::Proxmox(proxmox), None) if !proxmox.nodes.is_empty() => proxmox.nodes.clone(),
        (TargetKind::Proxmox(_), None) => {
            let query = FactsQuery { source: SourceSelector::New, isos: Vec::new(), ..query };
            prepare::facts(hypervisor, &query).await?.0.nodes
        }
    };
    let mut errands = Vec::new();
    for node in nodes {
        for (medium, image) in &media {
            let mirrors = match &medium.location {
                Location::Url(url) => profile.source.mirrors.get(url).cloned().unwrap_or_default(),
                Location::File(_) | Location::Volume(_) => Vec::new(),
            };
            errands.push(Errand {
                profile: profile.name.clone(),
                node: node.clone(),
                medium: medium.clone(),
                image: *image,
                mirrors,
            });
        }
    }
    Ok(errands)
}

async fn bring(
    errand: &Errand,
    hypervisor: &dyn Hypervisor,
    store: &Store,
    transfers: &Transfers,
) -> Result<Row, PortError> {
    let (source, isos) = if errand.image {
        (SourceSpec::Image { image: errand.medium.clone(), copy: false }, Vec::new())
    } else {
        (SourceSpec::New, vec![errand.medium.clone()])
    };
    let spec = MachineSpec { isos, ..MachineSpec::new(source, errand.node.as_str()) };
    let by_us = Fetching { store, errand, transfers, brought: Mutex::default(), told: Mutex::default() };
    let prepared = hypervisor.prepare_media(&spec, &by_us).await?;
    let place = prepared.media().next().map(ToString::to_string).unwrap_or_default();
    let brought = by_us.brought.into_inner().unwrap_or_else(PoisonError::into_inner);
    let told = by_us.told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let size = match (&brought, &errand.medium.location) {
        (Some(brought), _) => Some(brought.size),
        (None, Location::File(path)) => std::fs::metadata(path).map(|metadata| metadata.len()).ok(),
        (None, _) => None,
    };
    Ok(Row { name: errand.medium.file_name(), place, size, how: how(brought.as_ref(), &told) })
}

/// How a medium came to its place: by what was done here, and by what the target has told.
fn how(brought: Option<&Brought>, told: &[String]) -> &'static str {
    if told.iter().any(|words| words.starts_with("sending ")) {
        return "sent";
    }
    match brought.map(|brought| brought.how) {
        // A target that has it does not ask for it.
        None if told.iter().any(|words| words.contains(" downloads ")) => "by the node",
        None => "was there",
        Some(How::Downloaded) => "downloaded",
        Some(How::Cached) => "was there",
        Some(How::Local) => "a file here",
    }
}

/// Downloads for the target, when it asks.
struct Fetching<'a> {
    store: &'a Store,
    errand: &'a Errand,
    transfers: &'a Transfers,
    brought: Mutex<Option<Brought>>,
    /// What the target has told.
    told: Mutex<Vec<String>>,
}

#[async_trait]
impl Fetch for Fetching<'_> {
    async fn fetch(&self, medium: &Medium, growth: Option<&Growth>) -> Result<PathBuf, PortError> {
        let mirrors = &self.errand.mirrors;
        let brought = self.store.bring_growing(medium, mirrors, growth, self.transfers).await?;
        let path = brought.path.clone();
        *self.brought.lock().unwrap_or_else(PoisonError::into_inner) = Some(brought);
        Ok(path)
    }

    fn tell(&self, what: &str) {
        self.transfers.doing(what);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Percentages of the same transfer are one thing.
        let (kind, last) = (what.split(':').next(), told.last().and_then(|last| last.split(':').next()));
        if kind != last {
            told.push(what.to_owned());
        }
    }
}
