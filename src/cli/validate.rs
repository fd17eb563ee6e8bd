//! `forge validate`.

use clap::Args;

use super::REFUSED;
use super::options::{Global, Selection};
use super::prepare;
use crate::event::Redactor;
use crate::ui;

/// Options of `forge validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Checks files without asking anybody; gives the exit code.
pub fn validate(global: &Global, args: &ValidateArgs) -> u8 {
    let redactor = Redactor::default();
    let (profiles, mut findings) = prepare::profiles(&args.selection, &redactor);
    // A profile is checked without a target too; a site file that is there is checked with it.
    let (site, wrong) = prepare::site(global);
    findings.extend(wrong);
    let name = site.target(args.selection.target.as_deref()).ok().map(|target| target.name.as_str());
    let profiles = prepare::selected(profiles, &args.selection, name, &mut findings);
    if global.config.is_some() || args.selection.target.is_some() || !site.targets.is_empty() {
        match site.target(args.selection.target.as_deref()) {
            Ok(target) => {
                for profile in &profiles {
                    if let Err(finding) = crate::plan::make::query(profile, target) {
                        findings.push(finding);
                    }
                }
            }
            Err(finding) => findings.push(finding),
        }
    }
    let fatal = findings.iter().any(|finding| finding.fatal);
    if global.json {
        let text = serde_json::to_string_pretty(&findings).unwrap_or_default();
        ui::data(&redactor.text(&format!("{text}\n")));
    } else {
        prepare::tell(&findings, &redactor);
        if !fatal && !global.quiet {
            for profile in &profiles {
                ui::say(&format!("{}: sound", profile.name));
            }
        }
    }
    if fatal { REFUSED } else { 0 }
}
