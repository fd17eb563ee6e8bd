//! The template's name beside that of its source. Names of VMs need not be unique on Proxmox VE.

use forge_machine::{CloneSelector, SourceFacts};

use super::make::located;
use crate::config::Finding;
use crate::config::profile::Profile;

/// What is wrong with a template that bears its source's name. By its tags a source is asked for by who builds on the last
/// template each time, and means it.
pub(super) fn finding(profile: &Profile, source: &SourceFacts, name: &str) -> Option<Finding> {
    let by_id = matches!(profile.source.clone, Some(CloneSelector::Vmid(_))) && name == source.name;
    let doubted = by_id.then(|| {
        let message = format!("{} is called `{name}` too", source.vm);
        let help = "who asks for a VM of that name gets the newest template, or is told that there are two: give the template \
                    another name";
        located(profile, "template.name", message).help(help).warning()
    });
    doubted.or_else(|| by_name(profile, name))
}

/// As [`finding`], of a source that is asked for by its name.
pub(super) fn by_name(profile: &Profile, name: &str) -> Option<Finding> {
    let same = matches!(&profile.source.clone, Some(CloneSelector::Name(asked)) if asked == name);
    same.then(|| {
        let message = format!("the template would bear the name of its source, `{name}`");
        let help = "the next build would clone this template instead, or find two VMs of that name: give it another name, or \
                    name the source by its VMID; who means to build on the last template each time asks for it by its tags, \
                    clone = { tags = [\"…\"] }";
        located(profile, "template.name", message).help(help)
    })
}
