//! `forge evidence verify` and `forge report`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::REFUSED;
use super::options::Global;
use crate::engine::error::chain;
use crate::evidence::report::report as page;
use crate::evidence::verify::verify;
use crate::ui;

/// What to do with evidence.
#[derive(Clone, Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Checks folders of evidence: nothing changed, missing or added; asks nobody
    Verify(VerifyArgs),
}

/// Options of `forge evidence verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Folders of evidence (output/PROFILE/latest)
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
}

/// Options of `forge report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// A folder of evidence (output/PROFILE/latest)
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where the page goes; `-` prints it [default: report-CHAIN-ID.html in the folder's parent]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Works on evidence; gives the exit code.
#[must_use]
pub fn evidence(global: &Global, command: &EvidenceCommand) -> u8 {
    let EvidenceCommand::Verify(args) = command;
    let verdicts: Vec<_> = args.folders.iter().map(|folder| verify(folder)).collect();
    let all = verdicts.iter().all(|verdict| verdict.ok);
    if global.json {
        let lines: Vec<String> =
            verdicts.iter().filter_map(|each| serde_json::to_string(each).ok()).collect();
        ui::data(&format!("{}\n", lines.join("\n")));
        return if all { 0 } else { REFUSED };
    }
    for verdict in &verdicts {
        let folder = verdict.folder.display();
        if verdict.ok {
            let proves = verdict.proves.as_deref().unwrap_or("a build that made nothing");
            ui::data(&format!("{folder}: sound, {} files; {proves}\n", verdict.files));
        } else {
            for wrong in &verdict.wrong {
                ui::say(&format!("error: {folder}: {wrong}"));
            }
        }
    }
    if all { 0 } else { REFUSED }
}

/// Writes the page of a folder; gives the exit code.
#[must_use]
pub fn report(global: &Global, args: &ReportArgs) -> u8 {
    let html = match page(&args.folder) {
        Ok(html) => html,
        Err(error) => {
            ui::say(&format!("error: {}", chain(&error)));
            return REFUSED;
        }
    };
    if args.output.as_deref() == Some(Path::new("-")) {
        ui::data(&html);
        return 0;
    }
    let path = args.output.clone().unwrap_or_else(|| beside(&args.folder));
    if let Err(error) = std::fs::write(&path, html) {
        ui::say(&format!("error: {} can't be written: {error}", path.display()));
        return REFUSED;
    }
    if global.json {
        ui::data(&format!("{}\n", serde_json::json!({ "report": path })));
    } else {
        ui::data(&format!("{}\n", path.display()));
    }
    0
}

/// Beside the folder, not in it: a closed folder stays as it is.
fn beside(folder: &Path) -> PathBuf {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = real.file_name().map_or_else(|| "build".into(), |name| name.to_string_lossy().into_owned());
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).join(format!("report-{name}.html"))
}
