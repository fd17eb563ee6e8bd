//! The VM that a build clones, or a trial tries: by VMID, by name, or the newest by its tags.

use forge_machine::facts::SourceDisk;
use forge_machine::{
    CloneSelector, Finding, Ownership, SourceFacts, TAG_DEPRECATED, TAG_FAILED, TAG_UNTESTED, VmRef,
};

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::types::{ResourceEntry, StatusCurrent};
use crate::discovery::did_you_mean;
use crate::params::TAG_LATEST;
use crate::sweep::Sweep;
use crate::vmconfig::VmConfig;

pub(crate) async fn find_source(
    client: &Client,
    selector: &CloneSelector,
    resources: &[ResourceEntry],
    findings: &mut Vec<Finding>,
) -> Result<Option<SourceFacts>, ApiError> {
    let vms: Vec<&ResourceEntry> = resources.iter().filter(|entry| entry.kind != "lxc").collect();
    let may_match = |entry: &&&ResourceEntry| match selector {
        CloneSelector::Vmid(vmid) => entry.vmid == u64::from(*vmid),
        // New VMs have no name yet, and a build VM may just have been renamed to a template.
        CloneSelector::Name(name) => {
            entry.name.as_deref().is_none_or(|known| known == name || known.starts_with("forge-"))
        }
        CloneSelector::Tags(tags) => {
            entry.name.is_none()
                || entry.tags().any(|tag| tag == crate::params::TAG_BUILD)
                || tags.iter().all(|wanted| entry.tags().any(|tag| tag.eq_ignore_ascii_case(wanted)))
        }
    };
    let mut matches: Vec<(VmRef, VmConfig)> = Vec::new();
    let mut sweep = Sweep::new(client);
    for entry in vms.iter().filter(may_match) {
        let at = VmRef::new(entry.vmid.to_string(), entry.node.as_str());
        let Some(config) = sweep.config(&at).await? else { continue };
        let is_it = match selector {
            CloneSelector::Vmid(_) => true,
            CloneSelector::Name(name) => config.name() == name,
            CloneSelector::Tags(tags) => {
                let has = |wanted: &String| config.tags().any(|tag| tag.eq_ignore_ascii_case(wanted));
                config.is_template() && tags.iter().all(has)
            }
        };
        if is_it && config.lock() != Some("clone") && config.lock() != Some("create") {
            matches.push((at, config));
        }
    }
    if let Some(left_out) = sweep.left_out() {
        let help = "when the source that is meant is there, the node has to come back first";
        findings.push(Finding::warning("source.clone", left_out, help));
    }
    // A name goes over to the newest template that is published under it; older ones keep it.
    let is_published = |config: &VmConfig| config.is_template() && config.tags().any(|tag| tag == TAG_LATEST);
    let named = matches!(selector, CloneSelector::Name(_));
    if named && matches.len() > 1 && matches.iter().all(|(_, config)| config.is_template()) {
        let published: Vec<_> = matches.iter().filter(|(_, config)| is_published(config)).cloned().collect();
        if !published.is_empty() {
            matches = published;
            matches.sort_by_key(|(at, config)| (age_key(config), at.id.parse::<u64>().unwrap_or(0)));
            matches = matches.pop().into_iter().collect();
        }
    }
    if let CloneSelector::Tags(asked) = selector {
        matches.sort_by_key(|(at, config)| (age_key(config), at.id.parse::<u64>().unwrap_or(0)));
        matches = match newest_by_tags(matches, asked) {
            Ok(newest) => newest.into_iter().collect(),
            Err(finding) => {
                findings.push(finding);
                return Ok(None);
            }
        };
    }
    if matches.len() > 1 {
        let places: Vec<String> = matches.iter().map(|(at, _)| at.to_string()).collect();
        findings.push(Finding::fatal(
            "source.clone",
            format!("{} VMs are called {selector}: {}", places.len(), places.join(", ")),
            "name the one you mean by its VMID: clone = { vmid = … }",
        ));
        return Ok(None);
    }
    let Some((at, config)) = matches.pop() else {
        findings.push(missing_source(selector, &vms));
        return Ok(None);
    };
    findings.extend(doubtful(&at, &config, selector));
    let status_path = path(&["nodes", &at.node, "qemu", &at.id, "status", "current"]);
    let status: StatusCurrent = client.get(&status_path, &Params::new()).await?;
    Ok(Some(source_facts(at, &config, status.status == "running")))
}

/// Whether a template bears a tag that nobody asked for.
fn bears(config: &VmConfig, tag: &str, asked: &[String]) -> bool {
    config.tags().any(|each| each.eq_ignore_ascii_case(tag))
        && !asked.iter().any(|each| each.eq_ignore_ascii_case(tag))
}

/// Of templates that have the tags, oldest first, the newest that may be taken. What failed its trial is never taken but by
/// that tag, nor is what waits for its trial: it may fail it. What is to go is taken where there is no other.
fn newest_by_tags(
    matches: Vec<(VmRef, VmConfig)>,
    asked: &[String],
) -> Result<Option<(VmRef, VmConfig)>, Finding> {
    let why = |config: &VmConfig| {
        let published = config.tags().any(|tag| tag == TAG_LATEST);
        match () {
            () if bears(config, TAG_FAILED, asked) => Some(format!("failed its test (`{TAG_FAILED}`)")),
            () if bears(config, TAG_UNTESTED, asked) && !published => {
                Some(format!("waits for its test (`{TAG_UNTESTED}`)"))
            }
            () => None,
        }
    };
    let (unfit, mut fit): (Vec<_>, Vec<_>) =
        matches.into_iter().partition(|(_, config)| why(config).is_some());
    if fit.iter().any(|(_, config)| !bears(config, TAG_DEPRECATED, asked)) {
        fit.retain(|(_, config)| !bears(config, TAG_DEPRECATED, asked));
    }
    let newest = fit.pop();
    if newest.is_some() || unfit.is_empty() {
        return Ok(newest);
    }
    let named = unfit
        .iter()
        .rev()
        .map(|(at, config)| format!("{} ({at}) {}", config.name(), why(config).unwrap_or_default()));
    let named: Vec<String> = named.collect();
    let id = unfit.last().map(|(at, _)| at.id.clone()).unwrap_or_default();
    Err(Finding::fatal(
        "source.clone",
        format!("no template with the tags {} may be taken: {}", asked.join(", "), named.join("; ")),
        format!(
            "`forge test {id} --mark` tries it (again); to take one all the same, ask for its tag too, or name it: \
             clone = {{ vmid = {id} }}"
        ),
    ))
}

/// What is told of a source that was named, or taken for want of another, and is not as it should be.
fn doubtful(at: &VmRef, config: &VmConfig, selector: &CloneSelector) -> Option<Finding> {
    let asked = match selector {
        CloneSelector::Tags(tags) => tags.as_slice(),
        CloneSelector::Name(_) | CloneSelector::Vmid(_) => &[],
    };
    let (tag, words) =
        [(TAG_FAILED, "failed its test"), (TAG_UNTESTED, "waits for its test"), (TAG_DEPRECATED, "is to go")]
            .into_iter()
            .find(|(tag, _)| config.is_template() && bears(config, tag, asked))?;
    let message = format!("{} ({at}) {words}: it bears the tag `{tag}`", config.name());
    Some(Finding::warning("source.clone", message, "`forge list` shows the others, with their tags"))
}

/// When a template was made: its own mark knows; Proxmox's creation time is inherited by clones.
fn age_key(config: &VmConfig) -> i64 {
    match Ownership::from_description(config.description()) {
        Some(mark) => mark.started.as_second(),
        None => config.creation_time().and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
    }
}

fn missing_source(selector: &CloneSelector, vms: &[&ResourceEntry]) -> Finding {
    let names: Vec<&str> = vms.iter().filter_map(|entry| entry.name.as_deref()).collect();
    let (message, help) = match selector {
        CloneSelector::Name(name) => {
            (format!("no VM called `{name}` is visible to the token"), did_you_mean(name, &names, "VMs"))
        }
        CloneSelector::Vmid(vmid) => {
            let known: Vec<String> = vms.iter().map(|entry| entry.vmid.to_string()).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            (format!("no VM {vmid} is visible to the token"), did_you_mean(&vmid.to_string(), &known, "VMs"))
        }
        CloneSelector::Tags(tags) => {
            let mut known: Vec<&str> =
                vms.iter().filter(|entry| entry.template).flat_map(|entry| entry.tags()).collect();
            known.sort_unstable();
            known.dedup();
            let listed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            (
                format!("no template with the tags {} is visible to the token", tags.join(", ")),
                format!("tags of the templates there are: {listed}"),
            )
        }
    };
    Finding::fatal("source.clone", message, help)
}

fn source_facts(vm: VmRef, config: &VmConfig, running: bool) -> SourceFacts {
    let disks = config.drives().filter(|(_, drive)| !drive.is_cdrom() && !drive.is_cloud_init());
    let disks = disks.map(|(slot, drive)| SourceDisk {
        slot: slot.to_owned(),
        storage: drive.storage().to_owned(),
        size: drive.size().unwrap_or(0),
    });
    let cloud_init = config.drives().find(|(_, drive)| drive.is_cloud_init());
    let networks = config.networks().into_iter().map(|(number, nic)| {
        let bridge = nic.bridge().map(|bridge| format!(",bridge={bridge}")).unwrap_or_default();
        (format!("net{number}"), format!("{}{bridge}", nic.model))
    });
    SourceFacts {
        vm,
        name: config.name().to_owned(),
        template: config.is_template(),
        running,
        disks: disks.collect(),
        cloud_init: cloud_init.map(|(slot, drive)| (slot.to_owned(), drive.storage().to_owned())),
        agent: config.agent_enabled(),
        networks: networks.collect(),
        memory_mib: config.memory_mib(),
        cores: config.cores(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::bridge_of;

    fn template(vmid: &str, tags: &str) -> (VmRef, VmConfig) {
        let config = VmConfig::from_iter([("name", "tpl-x"), ("template", "1"), ("tags", tags)]);
        (VmRef::new(vmid, "pve"), config)
    }

    #[test]
    fn what_failed_its_test_or_waits_for_it_is_taken_by_that_tag_alone() {
        let taken = |all: &[(&str, &str)], asked: &[&str]| {
            let matches = all.iter().map(|(vmid, tags)| template(vmid, tags)).collect();
            let asked: Vec<String> = asked.iter().map(|tag| (*tag).to_owned()).collect();
            newest_by_tags(matches, &asked)
                .map(|found| found.map(|(at, _)| at.id))
                .map_err(|found| found.message)
        };
        let id = |vmid: &str| Ok(Some(vmid.to_owned()));
        let (good, failed, waits, goes) =
            (("1", "x"), ("2", "x;test-failed"), ("3", "untested;x"), ("4", "deprecated;x"));
        assert_eq!(taken(&[good, failed, waits, goes], &["x"]), id("1"));
        assert_eq!(taken(&[failed, goes], &["x"]), id("4"), "it is right, and there is no other");
        assert_eq!(taken(&[good, failed], &["x", "test-failed"]), id("2"));
        assert_eq!(taken(&[good, waits], &["x", "untested"]), id("3"));
        assert_eq!(taken(&[("5", "latest;untested;x")], &["x"]), id("5"), "it was published since");
        assert_eq!(taken(&[], &["x"]), Ok(None));
        let words = taken(&[failed, waits], &["x"]).expect_err("neither may be taken");
        assert_eq!(
            words,
            "no template with the tags x may be taken: tpl-x (VM 3 on pve) waits for its test (`untested`); \
             tpl-x (VM 2 on pve) failed its test (`test-failed`)"
        );
        let (at, config) = template("2", "x;test-failed");
        let told = |selector: &CloneSelector| {
            doubtful(&at, &config, selector).map(|found| (found.message, found.fatal))
        };
        let words = "tpl-x (VM 2 on pve) failed its test: it bears the tag `test-failed`";
        assert_eq!(told(&CloneSelector::Vmid(2)), Some((words.to_owned(), false)));
        assert_eq!(told(&CloneSelector::Tags(vec!["test-failed".into()])), None);
    }

    #[test]
    fn a_source_is_described_by_its_own_configuration() {
        let config = VmConfig::from_iter([
            ("name", "boot-vm"),
            ("template", "1"),
            ("memory", "2048"),
            ("cores", "2"),
            ("agent", "1"),
            ("scsi0", "lvm:base-9000-disk-0,size=4G"),
            ("ide2", "lvm:vm-9000-cloudinit,media=cdrom"),
            ("ide3", "local:iso/x.iso,media=cdrom"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5"),
        ]);
        let facts = source_facts(VmRef::new("9000", "pve1"), &config, false);
        assert_eq!(facts.disks, [SourceDisk { slot: "scsi0".into(), storage: "lvm".into(), size: 4 << 30 }]);
        assert_eq!(facts.cloud_init, Some(("ide2".into(), "lvm".into())));
        assert_eq!(facts.networks, [("net0".to_owned(), "virtio,bridge=vmbr0".to_owned())]);
        assert!(facts.template && facts.agent && !facts.running);
        assert_eq!((facts.memory_mib, facts.cores), (2048, 2));
        assert_eq!(bridge_of(&facts.networks[0].1).as_deref(), Some("vmbr0"));
    }
}
