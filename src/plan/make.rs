//! Makes a plan: profile + site + facts + moment → plan, or everything that is wrong. Pure.

use std::collections::BTreeMap;

use forge_machine::facts::SourceFacts;
use forge_machine::{
    Capabilities, CloudInitDrive, DiskSpec, Facts, FactsQuery, Finish, Hardware, MachineSpec, NetworkSpec,
    SourceSelector, SourceSpec, TAGS_OF_TRIALS,
};

use super::hardware::{hardware, without_effect};
use super::seeding::{boot_disc, seed, starts_kernel};
use super::steps::step;
use super::{AccessPlan, AfterInstall, Deadlines, Moment, Plan, Purpose, UNTRIABLE, VERSION};
use crate::catalogue::NOTES_HEAD;
use crate::config::profile::{self, CloudInit, Profile};
use crate::config::site::ProxmoxTarget;
use crate::config::template::PlanName;
use crate::config::{Finding, Target, TargetKind};
use crate::remote::Via;

/// What must be asked of the target to plan a profile.
///
/// # Errors
/// When the profile has no source for this kind of target.
pub fn query(profile: &Profile, target: &Target) -> Result<FactsQuery, Finding> {
    let wanted = &profile.source;
    let clone = || wanted.clone.clone().map(SourceSelector::Clone);
    let image = || wanted.image.clone().map(SourceSelector::Image);
    let install = || (!wanted.isos.is_empty() || wanted.kernel.is_some()).then_some(SourceSelector::New);
    // A profile may name a source for each kind of target.
    let (source, help) = match &target.kind {
        TargetKind::Proxmox(_) => {
            (clone().or_else(install).or_else(image), "write `clone = \"boot-vm\"` in `[source]`")
        }
        TargetKind::Qemu(_) => (
            image().or_else(install),
            "write `image = \"disk.qcow2\"` or `iso = \"installer.iso\"` in `[source]`",
        ),
    };
    let source = source.ok_or_else(|| {
        let message = format!("the profile names nothing that the target `{}` can start from", target.name);
        located(profile, "source", message).help(help)
    })?;
    let (storages, bridges, nodes, pool) = match &target.kind {
        TargetKind::Proxmox(proxmox) => {
            let drive = match &profile.vm.cloud_init {
                CloudInit::Add { storage, .. } => {
                    storage.clone().or_else(|| proxmox.cloud_init_storage.clone())
                }
                CloudInit::Inherit => None,
            };
            let of_disks = profile.vm.storage.clone().or_else(|| proxmox.disk_storage.clone());
            let full = profile.source.full.then_some(of_disks).flatten();
            let all_disks = profile.vm.disks.iter().chain(&profile.vm.state_disks);
            let mut bridges: Vec<String> =
                profile.vm.networks.iter().filter_map(|each| each.bridge.clone()).collect();
            let is_new = !matches!(source, SourceSelector::Clone(_));
            let plain = is_new && profile.vm.networks.is_empty();
            if plain || profile.vm.networks.iter().any(|each| each.bridge.is_none()) {
                bridges.extend(proxmox.bridge.clone());
            }
            bridges.sort();
            bridges.dedup();
            let named = all_disks.filter_map(|disk| disk.storage.clone());
            let mut storages: Vec<String> = Vec::new();
            for storage in full.into_iter().chain(drive).chain(named) {
                if !storages.contains(&storage) {
                    storages.push(storage);
                }
            }
            let pool = profile.vm.pool.clone().or_else(|| proxmox.pool.clone());
            (storages, bridges, proxmox.nodes.clone(), pool)
        }
        TargetKind::Qemu(_) => (Vec::new(), Vec::new(), Vec::new(), None),
    };
    let node = profile.vm.node.clone().or_else(|| match nodes.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    });
    let gated = profile.test && matches!(target.kind, TargetKind::Proxmox(_));
    let of_gate = TAGS_OF_TRIALS.iter().filter(|_| gated).map(|tag| (*tag).to_owned());
    Ok(FactsQuery {
        source,
        isos: wanted.isos.clone(),
        storages,
        bridges,
        node,
        vmid: profile.vm.vmid,
        memory_mib: profile.vm.memory_mib,
        placed: Vec::new(),
        pool,
        tags: tags(profile).into_iter().chain(of_gate).collect(),
        needs_console: !profile.boot.is_empty() || profile.access.via.contains(&Via::Serial),
        needs_agent: profile.access.via.contains(&Via::Agent),
    })
}

/// A finding about a setting of a profile, with its file and line.
#[must_use]
pub fn located(profile: &Profile, setting: &str, message: impl Into<String>) -> Finding {
    match profile.place(setting) {
        Some(place) => Finding::at(place, profile.setting(setting), message),
        None => Finding { setting: setting.to_owned(), ..Finding::general(message) },
    }
}

/// What a backend found about a setting, with its file and line.
fn of_backend(profile: &Profile, setting: &str, found: &forge_machine::Finding) -> Finding {
    let finding = located(profile, setting, found.message.clone());
    let help = (!found.help.is_empty()).then(|| found.help.clone());
    Finding { help, fatal: found.fatal, ..finding }
}

/// What is wrong with a profile wherever on Proxmox VE it is built. Nobody is asked.
#[must_use]
pub fn offline(profile: &Profile) -> Vec<Finding> {
    let wrong = crate::backends::wrong_on_proxmox(profile);
    let of_backend = wrong.iter().map(|found| of_backend(profile, &found.setting, found));
    // A name with a date or a number in it is that of no source.
    let name = profile.template_name.to_text(|_| "\0".to_owned()).unwrap_or_default();
    of_backend.chain(super::naming::by_name(profile, &name)).collect()
}

/// Where what a backend found is set: backends know neither the files nor which of them names a storage.
fn setting_of(profile: &Profile, target: &Target, found: &forge_machine::Finding) -> String {
    let named = |name: &Option<String>| {
        name.as_ref().is_some_and(|name| found.message.contains(&format!("`{name}`")))
    };
    let in_target = |key: &str| format!("targets.{}.{key}", target.name);
    match found.setting.as_str() {
        "storage" => match &profile.vm.cloud_init {
            CloudInit::Add { storage, .. } if named(storage) => "vm.cloud-init.storage".into(),
            _ if named(&profile.vm.storage) => "vm.storage".into(),
            _ => match profile.vm.disks.iter().position(|disk| named(&disk.storage)) {
                Some(index) => format!("vm.disks[{index}].storage"),
                None => in_target("storage"),
            },
        },
        "bridge" => match profile.vm.networks.iter().position(|each| named(&each.bridge)) {
            Some(index) => format!("vm.networks[{index}].bridge"),
            None => in_target("bridge"),
        },
        "pool" if named(&profile.vm.pool) => "vm.pool".into(),
        "pool" => in_target("pool"),
        "target.token" => in_target("token-id"),
        other => other.to_owned(),
    }
}

/// What planning needs beside the profile.
#[derive(Debug)]
pub struct Input<'a> {
    /// The target.
    pub target: &'a Target,
    /// What its backend can do.
    pub capabilities: &'a Capabilities,
    /// What was found out about it.
    pub facts: &'a Facts,
    /// What the backend found wrong for this build.
    pub findings: Vec<forge_machine::Finding>,
    /// The moment.
    pub moment: &'a Moment,
}

/// Makes the plan. Findings that are not fatal come with it; with a fatal one there is no plan.
#[must_use]
pub fn make(profile: &Profile, input: &Input<'_>) -> (Option<Plan>, Vec<Finding>) {
    let mut findings: Vec<Finding> = input
        .findings
        .iter()
        .map(|found| of_backend(profile, &setting_of(profile, input.target, found), found))
        .collect();
    if let Some(warning) = profile.os.tested.and_then(profile::Tested::warning) {
        findings.push(located(profile, "os.tested", format!("{}: {warning}", profile.name)).warning());
    }
    if profile.os.family == "windows" {
        let message = "nobody has built a Windows with forge yet: connections, scripts, updates and sealing were tried \
                       with stand-ins and independent clients only";
        let finding =
            located(profile, "os.family", message).help("look at the first template before you use it");
        findings.push(finding.warning());
    }
    let Some(source) = &input.facts.source else {
        if findings.iter().all(|finding| !finding.fatal) {
            findings.push(located(profile, "source", "what the build starts from was not found"));
        }
        return (None, findings);
    };
    let chain_id = input.moment.chain_id(&profile.name);
    let known = |name: PlanName| match name {
        PlanName::Date => input.moment.now.strftime("%Y%m%d").to_string(),
        PlanName::BuildNumber => input.moment.build_number.clone(),
        PlanName::ChainId => chain_id.to_string(),
    };
    findings.extend(super::boot::findings(profile, input.capabilities));
    let mut machine = machine(profile, input, source, &mut findings);
    let seed = seed(profile, input, &machine, source, &mut findings);
    let boot_disc = (seed.delivery == super::Delivery::BootDisc).then(|| boot_disc(profile)).flatten();
    machine.boot_disc = boot_disc.is_some();
    machine.seed_disc = seed.delivery == super::Delivery::Disc || machine.boot_disc || seed.disc.is_some();
    machine.floppy = seed.delivery == super::Delivery::Floppy || seed.floppy.is_some();
    let starts_kernel = starts_kernel(profile, input.capabilities, seed.delivery);
    if !starts_kernel {
        machine.kernel = None;
    }
    let kernel = profile.source.kernel.as_ref().filter(|_| starts_kernel || boot_disc.is_some());
    let name = profile.template_name.to_text(known).unwrap_or_default();
    if matches!(input.target.kind, TargetKind::Proxmox(_)) {
        findings.extend(super::naming::finding(profile, source, &name));
    }
    let finish = match &input.target.kind {
        TargetKind::Proxmox(_) => Finish::Template {
            name,
            tags: tags(profile),
            notes: notes(
                &profile.description.to_text(known).unwrap_or_default(),
                &about(profile, input, source, chain_id.as_str()),
            ),
        },
        TargetKind::Qemu(qemu) => Finish::Files {
            directory: qemu.images.clone(),
            name,
            formats: profile.formats.clone(),
            compress: profile.compress,
            replace: false,
            about: about(profile, input, source, chain_id.as_str())
                .into_iter()
                .chain((!profile.tags.is_empty()).then(|| ("tags", profile.tags.join(", "))))
                .map(|(name, value)| (name.replace(' ', "-"), value))
                .collect(),
        },
    };
    let mut plan = Plan {
        version: VERSION,
        purpose: Purpose::Build,
        profile: profile.name.clone(),
        profile_files: profile.files.clone(),
        target: input.target.name.clone(),
        product: input.facts.product.clone(),
        notes: notes_of_target(profile, input),
        planned: input.moment.now,
        places: super::places::places(profile),
        after_install: after_install(profile, &machine),
        machine,
        downloads: Vec::new(),
        kernel_cmdline: kernel.map(|kernel| kernel.cmdline.to_late(known)),
        boot_disc,
        boot: super::boot::steps(&super::seeding::steps(profile, seed.delivery), &known),
        seed,
        access: AccessPlan {
            user: profile.access.user.clone(),
            create: profile.access.create,
            via: profile.access.via.clone(),
            ssh: profile.access.ssh.clone(),
            winrm: profile.access.winrm.clone(),
            windows: profile.os.family == "windows",
        },
        provision: profile
            .provision
            .iter()
            .filter(|each| each.is_for(&input.target.name, &profile.name))
            .map(|each| step(each, profile.os.family == "windows"))
            .collect(),
        seal: crate::seal::enabled(&profile.seal, profile.os.family == "windows"),
        seal_dry_run: profile.seal.get("dry-run") == Some(&true),
        gate: false,
        baseline: None,
        origin: super::origin::Origin::default(),
        finish,
        deadlines: Deadlines {
            boot: profile.deadlines.boot,
            connect: profile.deadlines.connect,
            shutdown: profile.deadlines.shutdown,
            build: profile.deadlines.build,
        },
        chain_id,
    };
    if profile.test && plan.access.windows {
        let finding = located(profile, "template.test", UNTRIABLE);
        findings.push(finding.help("leave it out: the checks of `forge test` are for Linux"));
    } else if profile.test {
        plan.set_gate(true);
    }
    findings.extend(super::ways::findings(profile, &plan));
    let fatal = findings.iter().any(|finding| finding.fatal);
    ((!fatal).then_some(plan), findings)
}

fn machine(
    profile: &Profile,
    input: &Input<'_>,
    source: &SourceFacts,
    findings: &mut Vec<Finding>,
) -> MachineSpec {
    let vm = &profile.vm;
    let proxmox = match &input.target.kind {
        TargetKind::Proxmox(proxmox) => Some(proxmox.as_ref()),
        TargetKind::Qemu(_) => None,
    };
    let node = vm
        .node
        .clone()
        .or_else(|| proxmox.filter(|target| target.nodes.len() == 1).map(|target| target.nodes.concat()))
        .or_else(|| input.facts.placed.clone())
        .unwrap_or_else(|| source.vm.node.clone());
    let source_spec = source_spec(profile, proxmox, source);
    disks(profile, input.capabilities, &source_spec, source, findings);
    let mut networks = vm.networks.clone();
    let is_new = proxmox.is_some() && !matches!(source_spec, SourceSpec::Clone { .. });
    // Proxmox gives a new VM no adapter of its own.
    if is_new && networks.is_empty() {
        networks.push(NetworkSpec { model: "virtio".into(), ..NetworkSpec::default() });
    }
    for (index, network) in networks.iter().enumerate() {
        if proxmox.is_none() && network.mac.as_deref() == Some("repeatable") {
            let setting = format!("vm.networks[{index}].mac");
            let finding = located(
                profile,
                &setting,
                "a repeatable address is made of a VMID, and this target has none",
            );
            findings.push(finding.help("name an address"));
        }
    }
    for network in &mut networks {
        if network.bridge.is_none() {
            network.bridge = proxmox.and_then(|target| target.bridge.clone());
        }
    }
    if proxmox.is_none() {
        findings.extend(without_effect(profile));
    }
    if let (Some(vmid), Some((first, last))) = (vm.vmid, proxmox.and_then(|target| target.vmids))
        && !(first..=last).contains(&vmid)
    {
        let message = format!("{vmid} is not in the range of the target's `vmids`, {first}-{last}");
        let help = "the token may have no rights there, and other VMs may be made at that id";
        findings.push(located(profile, "vm.vmid", message).help(help).warning());
    }
    if !profile.source.full && !source.template && matches!(source_spec, SourceSpec::Clone { .. }) {
        let message = format!("{} is no template, so it can only be cloned in full", source.name);
        findings.push(
            located(profile, "source.full", message).help("leave `full` out, or make a template of it first"),
        );
    }
    MachineSpec {
        isos: profile.source.isos.clone(),
        iso_slots: profile.source.iso_slots.clone(),
        iso_drives: profile.source.iso_drives,
        kernel: profile.source.kernel.as_ref().map(|kernel| kernel.files.clone()),
        hardware: if proxmox.is_some() { Hardware::default() } else { hardware(vm) },
        node,
        ids: proxmox.and_then(|target| vm.vmid.map(|id| (id, id)).or(target.vmids)),
        pool: proxmox.and_then(|target| vm.pool.clone().or_else(|| target.pool.clone())),
        cores: vm.cores,
        sockets: vm.sockets,
        cpu: vm.cpu.clone(),
        memory_mib: vm.memory_mib,
        disks: if proxmox.is_some() { new_disks(vm, &source_spec, is_new) } else { vm.disks.clone() },
        networks,
        agent: vm.agent,
        terminal: profile.access.via.contains(&Via::Serial),
        cloud_init: cloud_init_drive(profile, input, source, findings),
        seed_disc: false,
        boot_disc: false,
        floppy: false,
        extra: if proxmox.is_some() { keys(profile, is_new) } else { vm.qemu.clone() },
        source: source_spec,
    }
}

/// The disks on Proxmox. A new VM's are on the storage of `[vm]`; an image becomes the first, which is `scsi0` when
/// none is named.
fn new_disks(vm: &profile::Vm, source: &SourceSpec, is_new: bool) -> Vec<DiskSpec> {
    let mut disks: Vec<DiskSpec> = vm.disks.iter().chain(&vm.state_disks).cloned().collect();
    if matches!(source, SourceSpec::Image { .. }) && vm.disks.is_empty() {
        disks.insert(0, DiskSpec { slot: "scsi0".into(), ..DiskSpec::default() });
    }
    for disk in disks.iter_mut().filter(|disk| is_new && disk.storage.is_none()) {
        disk.storage.clone_from(&vm.storage);
    }
    disks
}

/// Keys by Proxmox's names. A new VM is told which system it is for, since Proxmox chooses devices after that.
fn keys(profile: &Profile, is_new: bool) -> BTreeMap<String, String> {
    let mut keys = profile.vm.proxmox.clone();
    if is_new && profile.os.family == "linux" {
        keys.entry("ostype".into()).or_insert_with(|| "l26".into());
    }
    keys
}

/// What the build VM starts from.
fn source_spec(profile: &Profile, proxmox: Option<&ProxmoxTarget>, source: &SourceFacts) -> SourceSpec {
    let wanted = &profile.source;
    let clone = || SourceSpec::Clone {
        vm: source.vm.clone(),
        name: source.name.clone(),
        full: wanted.full || !source.template,
        storage: proxmox
            .and_then(|target| profile.vm.storage.clone().or_else(|| target.disk_storage.clone()))
            .filter(|_| wanted.full),
    };
    let install = !wanted.isos.is_empty() || wanted.kernel.is_some();
    let image =
        wanted.image.as_ref().map(|image| SourceSpec::Image { image: image.clone(), copy: wanted.copy });
    // As `query` chose.
    match (proxmox, image) {
        (Some(_), _) if wanted.clone.is_some() => clone(),
        (Some(_), _) if install => SourceSpec::New,
        (_, Some(image)) => image,
        _ => SourceSpec::New,
    }
}

/// Disks that the source has are grown; others are made, empty.
fn disks(
    profile: &Profile,
    capabilities: &Capabilities,
    spec: &SourceSpec,
    source: &SourceFacts,
    findings: &mut Vec<Finding>,
) {
    if matches!(spec, SourceSpec::New) && profile.vm.disks.is_empty() {
        let finding = located(profile, "vm.disks", "the installer has no disk to write to");
        findings.push(finding.help("disks = [{ slot = \"scsi0\", size = \"20GiB\" }]"));
    }
    for (index, disk) in profile.vm.disks.iter().enumerate() {
        let setting = format!("vm.disks[{index}]");
        // An image is no disk of a certain slot yet: it becomes the first.
        let present = match spec {
            SourceSpec::Image { .. } if index == 0 => source.disks.first(),
            _ => source.disks.iter().find(|each| each.slot == disk.slot),
        };
        match present {
            None if capabilities.new_disks && disk.size.is_some() => {}
            None if matches!(spec, SourceSpec::New) => {
                let message = format!("{} is a new disk, and its size is not said", disk.slot);
                findings.push(located(profile, &setting, message).help("size = \"20GiB\""));
            }
            None => {
                let slots: Vec<&str> = source.disks.iter().map(|each| each.slot.as_str()).collect();
                let message = format!("{} has no disk {}", source.name, disk.slot);
                let added = if capabilities.new_disks { "; with a `size` it is added" } else { "" };
                findings.push(
                    located(profile, &setting, message).help(format!("it has: {}{added}", slots.join(", "))),
                );
            }
            Some(present) => {
                if let Some(size) = disk.size.filter(|size| *size < present.size) {
                    let message = format!(
                        "{} of {} has {} MiB, and a disk can't be made smaller than that (asked: {} MiB)",
                        disk.slot,
                        source.name,
                        present.size >> 20,
                        size >> 20
                    );
                    findings.push(located(profile, &format!("{setting}.size"), message));
                }
            }
        }
    }
}

/// The template's cloud-init drive: the source's, or one that is added; Proxmox allows one only.
fn cloud_init_drive(
    profile: &Profile,
    input: &Input<'_>,
    source: &SourceFacts,
    findings: &mut Vec<Finding>,
) -> Option<CloudInitDrive> {
    let TargetKind::Proxmox(proxmox) = &input.target.kind else { return None };
    match (&profile.vm.cloud_init, &source.cloud_init) {
        (CloudInit::Inherit, None) => None,
        (CloudInit::Inherit, Some((slot, storage))) => {
            Some(CloudInitDrive { slot: slot.clone(), storage: storage.clone(), inherited: true })
        }
        (CloudInit::Add { slot, .. }, Some((present, storage))) => {
            if slot == present {
                return Some(CloudInitDrive {
                    slot: present.clone(),
                    storage: storage.clone(),
                    inherited: true,
                });
            }
            let message = format!(
                "{} already has a cloud-init drive on {present}, and a VM can have only one",
                source.name
            );
            findings.push(
                located(profile, "vm.cloud-init", message).help(format!("leave it out, or name {present}")),
            );
            None
        }
        (CloudInit::Add { slot, storage }, None) => {
            if source.disks.iter().any(|disk| disk.slot == *slot) {
                let message = format!("{slot} of {} is taken by a disk", source.name);
                findings.push(located(profile, "vm.cloud-init", message).help("name another slot"));
            }
            let storage = storage
                .clone()
                .or_else(|| proxmox.cloud_init_storage.clone())
                .or_else(|| proxmox.disk_storage.clone())
                .or_else(|| source.disks.first().map(|disk| disk.storage.clone()));
            if storage.is_none() {
                let finding =
                    located(profile, "vm.cloud-init", "no storage for the cloud-init drive is known");
                findings.push(finding.help("name one: cloud-init = { slot = \"ide2\", storage = \"…\" }"));
            }
            Some(CloudInitDrive { slot: slot.clone(), storage: storage?, inherited: false })
        }
    }
}

/// Few and stable tags: what the profile says, and by what it was built. No tag per build.
fn tags(profile: &Profile) -> Vec<String> {
    let mut tags: Vec<String> = profile.tags.iter().map(|tag| tag.to_lowercase()).collect();
    tags.push(crate::catalogue::TAG.into());
    tags.push(forge_machine::TAG_LATEST.into());
    tags.sort();
    tags.dedup();
    tags
}

/// What the target says of itself, and what it leaves out of the profile because it has nothing of the kind.
fn notes_of_target(profile: &Profile, input: &Input<'_>) -> Vec<String> {
    let mut notes = input.facts.notes.clone();
    let drive = !matches!(profile.vm.cloud_init, CloudInit::Inherit);
    if drive && matches!(input.target.kind, TargetKind::Qemu(_)) {
        notes.push(
            "an image file has no cloud-init drive: what starts it brings its own (`vm.cloud-init`)".into(),
        );
    }
    if profile.test && matches!(input.target.kind, TargetKind::Qemu(_)) {
        notes.push(
            "an image file is not tried: trials are of Proxmox VE's templates (`template.test`)".into(),
        );
    }
    notes
}

/// What a template's notes and an image's manifest say about the build: names and values that are not empty.
fn about(
    profile: &Profile,
    input: &Input<'_>,
    source: &SourceFacts,
    chain_id: &str,
) -> Vec<(&'static str, String)> {
    let os = &profile.os;
    let system = [os.distribution.as_str(), os.version.as_str()].join(" ");
    let rows = [
        ("chain id", chain_id.to_owned()),
        ("profile", profile.name.clone()),
        ("os", system.trim().to_owned()),
        ("type", profile.tags.join(" ")),
        ("builder", "forge".to_owned()),
        ("built", input.moment.now.strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("build number", input.moment.build_number.clone()),
        ("source", source_in_words(profile, source)),
        ("forge", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    rows.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// What the installer does when it is done. That a boot VM with media is one to install onto must be said.
fn after_install(profile: &Profile, machine: &MachineSpec) -> Option<AfterInstall> {
    profile.source.after_install.or_else(|| machine.is_install().then(AfterInstall::default))
}

/// What was started from, for those who read it later.
fn source_in_words(profile: &Profile, source: &SourceFacts) -> String {
    match profile.source.isos.first() {
        Some(iso) if source.vm.id.is_empty() => iso.to_string(),
        _ if source.vm.id.ends_with(&source.name) => source.vm.id.clone(),
        _ => format!("{} ({})", source.name, source.vm.id),
    }
}

fn notes(description: &str, about: &[(&str, String)]) -> String {
    let rows: Vec<String> = about.iter().map(|(name, value)| format!("* {name}: {value}")).collect();
    let description = description.trim();
    let gap = if description.is_empty() { "" } else { "\n\n" };
    format!("{description}{gap}{NOTES_HEAD}\n\n{}", rows.join("\n"))
}
