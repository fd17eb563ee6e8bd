//! `forge validate`.

use std::path::Path;

use clap::Args;

use super::REFUSED;
use super::options::{Global, Selection};
use super::prepare;
use crate::config::Finding;
use crate::config::site::TargetKind;
use crate::event::Redactor;
use crate::ui::{self, table::table};

/// Options of `forge validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    selection: Selection,
}

/// A profile, and how much is wrong with it.
struct Row {
    name: String,
    file: String,
    errors: usize,
    warnings: usize,
    /// Whether it is a base: sound as far as it goes, and none that is built.
    base: bool,
}

impl Row {
    fn new(name: &str, file: &Path, findings: &[Finding], read: bool) -> Self {
        let errors = findings.iter().filter(|finding| finding.fatal).count();
        let (name, file) = (name.to_owned(), file.display().to_string());
        Self { name, file, errors, warnings: findings.len() - errors, base: !read && errors == 0 }
    }

    fn cells(&self) -> Vec<String> {
        let verdict = if self.errors == 0 { "sound" } else { "wrong" };
        let (errors, warnings) = (self.errors.to_string(), self.warnings.to_string());
        vec![self.name.clone(), self.file.clone(), errors, warnings, verdict.to_owned()]
    }
}

/// Checks files without asking anybody; gives the exit code.
pub fn validate(global: &Global, args: &ValidateArgs) -> u8 {
    let redactor = Redactor::default();
    let selection = &args.selection;
    let (files, mut findings) = prepare::each_profile(selection, &redactor);
    // A profile is checked without a target too; a site file that is there is checked with it.
    let (site, wrong) = prepare::site(global);
    findings.extend(wrong);
    let named = site.target(selection.target.as_deref());
    let asked = global.config.is_some() || selection.target.is_some() || !site.targets.is_empty();
    let target = match named {
        Ok(target) => Some(target),
        Err(finding) => {
            findings.extend(asked.then_some(finding));
            None
        }
    };
    let name = target.map(|target| target.name.as_str());
    let (mut rows, mut profiles, mut unread) = (Vec::new(), Vec::new(), false);
    for (file, profile, mut wrong) in files {
        let of_file = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let own = profile.as_ref().map_or(of_file, |profile| profile.name.clone());
        if profile.is_some() && !selection.takes(&own, name) {
            profiles.extend(profile);
            findings.extend(wrong);
            continue;
        }
        if let (Some(profile), Some(target), true) = (&profile, target, asked) {
            wrong.extend(crate::plan::make::query(profile, target).err());
        }
        // A source that is cloned is on Proxmox VE, whichever the target is called.
        let on_proxmox = target.map(|target| matches!(target.kind, TargetKind::Proxmox(_)));
        if let Some(profile) = profile.as_ref().filter(|it| on_proxmox.unwrap_or(it.source.clone.is_some())) {
            wrong.extend(crate::plan::make::offline(profile));
        }
        let row = Row::new(&own, &file, &wrong, profile.is_some());
        unread |= row.errors > 0;
        rows.push(row);
        profiles.extend(profile);
        findings.extend(wrong);
    }
    // What can't be read may be the one that is meant.
    let mut about = Vec::new();
    if !unread {
        prepare::selected(profiles, selection, name, &mut about);
    }
    findings.extend(about);
    let fatal = findings.iter().any(|finding| finding.fatal);
    if global.json {
        let text = serde_json::to_string_pretty(&findings).unwrap_or_default();
        ui::data(&redactor.text(&format!("{text}\n")));
        return if fatal { REFUSED } else { 0 };
    }
    prepare::tell(&findings, &redactor);
    match rows.as_slice() {
        _ if global.quiet => {}
        [] => {}
        [one] if fatal || one.base => {}
        [one] => ui::say(&format!("{}: sound", one.name)),
        several => {
            let cells: Vec<Vec<String>> = several.iter().map(Row::cells).collect();
            ui::data(&redactor.text(&table(&["PROFILE", "FILE", "ERRORS", "WARNINGS", "VERDICT"], &cells)));
            let profiles = several.iter().filter(|row| !row.base);
            let sound = profiles.clone().filter(|row| row.errors == 0).count();
            ui::say(&format!("{sound} of {} profiles are sound", profiles.count()));
        }
    }
    if fatal { REFUSED } else { 0 }
}
