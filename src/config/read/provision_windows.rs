//! The provisioners that are for Windows alone.

use std::time::Duration;

use super::Load;
use crate::config::place::Node;
use crate::config::reader::Reader;
use crate::provision::{RESTART_COMMAND, WindowsRestart, WindowsUpdate};
use crate::remote::PowerShell;

/// How long a Windows may take to be back; Packer's five minutes are too few for one that installs something meanwhile.
const RESTART_LIMIT: Duration = Duration::from_secs(900);
/// How long updates may take, with all their restarts.
const UPDATE_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// What is looked for when nothing is said: what a person would get without asking for more.
const CRITERIA: &str = "BrowseOnly=0 and IsInstalled=0";
const FILTERS: [&str; 2] = ["exclude:$_.Title -like '*Preview*'", "include:$true"];

impl Load<'_> {
    /// How PowerShell runs scripts.
    pub(super) fn power_shell(&mut self, reader: &mut Reader<'_>) -> PowerShell {
        let policy = reader.raw_text("execution-policy", &mut self.findings);
        let mut shell = PowerShell::default();
        if let Some(text) = policy {
            match PowerShell::POLICIES.iter().find(|known| known.eq_ignore_ascii_case(&text)) {
                Some(known) => shell.execution_policy = (*known).to_owned(),
                None => {
                    let message = format!(
                        "`{text}` is no execution policy that a script without a signature can run under"
                    );
                    let finding = reader.finding("execution-policy", message);
                    self.findings
                        .push(finding.help(format!("there are: {}", PowerShell::POLICIES.join(", "))));
                }
            }
        }
        shell.pwsh = reader.flag("use-pwsh", &mut self.findings).unwrap_or(false);
        shell
    }

    fn only_true(&mut self, reader: &mut Reader<'_>, key: &'static str) {
        if reader.flag(key, &mut self.findings) == Some(false) {
            let finding = reader.finding(key, "this provisioner does nothing");
            self.findings.push(finding.help("leave it out, or say `enabled = false`"));
        }
    }

    /// `windows-restart = true`, or a table.
    pub(super) fn windows_restart(&mut self, reader: &mut Reader<'_>) -> WindowsRestart {
        let mut work = WindowsRestart { command: RESTART_COMMAND.into(), check: None, limit: RESTART_LIMIT };
        if !matches!(reader.any("windows-restart").map(|spot| &spot.node), Some(Node::Table(_))) {
            self.only_true(reader, "windows-restart");
        } else if let Some(mut table) = reader.table("windows-restart", &mut self.findings) {
            work.command = table
                .raw_text("restart-command", &mut self.findings)
                .unwrap_or_else(|| RESTART_COMMAND.into());
            work.check = table.raw_text("restart-check-command", &mut self.findings);
            work.limit = table.time("restart-timeout", &mut self.findings).unwrap_or(RESTART_LIMIT);
            table.done(&mut self.findings);
        }
        work
    }

    /// `windows-update = true`, or a table.
    pub(super) fn windows_update(&mut self, reader: &mut Reader<'_>) -> WindowsUpdate {
        let mut work = WindowsUpdate {
            search_criteria: CRITERIA.into(),
            filters: FILTERS.map(str::to_owned).to_vec(),
            update_limit: 1000,
            limit: UPDATE_LIMIT,
        };
        if !matches!(reader.any("windows-update").map(|spot| &spot.node), Some(Node::Table(_))) {
            self.only_true(reader, "windows-update");
            return work;
        }
        let Some(mut table) = reader.table("windows-update", &mut self.findings) else { return work };
        if let Some(text) = table.raw_text("search-criteria", &mut self.findings) {
            work.search_criteria = text;
        }
        if let Some(filters) = table.texts("filters", &mut self.findings) {
            for filter in filters.iter().filter(|text| {
                !matches!(text.split_once(':'), Some(("include" | "exclude", rest)) if !rest.trim().is_empty())
            }) {
                let finding = table.finding("filters", format!("`{filter}` is no filter"));
                self.findings.push(finding.help("`include:` or `exclude:` and an expression about `$_`"));
            }
            work.filters = filters;
        }
        if let Some(limit) = table.integer("update-limit", 1, 1000, &mut self.findings) {
            work.update_limit = limit;
        }
        table.done(&mut self.findings);
        work
    }
}
