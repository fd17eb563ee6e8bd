//! `forge list` and `forge latest`.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use forge_machine::{Hypervisor, PortError, TAG_LATEST};

use super::REFUSED;
use super::options::Global;
use super::prepare;
use crate::catalogue::{Entry, TAG_VALIDATED, Wanted, choose, latest as latest_of};
use crate::config::Finding;
use crate::engine::error::{chain, hint};
use crate::event::Redactor;
use crate::ui::{self, table::table};

/// Which templates.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// The target of the site file [default: its default-target, or the only one]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Only of this system (`debian-12`)
    #[arg(long, value_name = "NAME")]
    os: Option<String>,
    /// Only of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only what a trial found right (`forge test --mark`, `forge build --test`): with the tag `validated`
    #[arg(long)]
    validated: bool,
}

impl Which {
    /// The target by name.
    pub(super) fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// What a template must be.
    pub(super) fn wanted(&self, all: bool) -> Wanted {
        let validated = self.validated.then(|| TAG_VALIDATED.to_owned());
        Wanted {
            os: self.os.clone(),
            profile: self.profile.clone(),
            name: self.name.clone(),
            tags: self.tag.iter().cloned().chain(validated).collect(),
            all,
        }
    }
}

/// Options of `forge list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Templates that forge did not build, too
    #[arg(long)]
    all: bool,
}

/// How `forge latest` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The VMID alone
    Vmid,
    /// The name alone
    Name,
    /// A table
    Table,
    /// JSON
    Json,
    /// Variables for Terraform: template_vmid, template_name, template_node
    Tfvars,
}

/// Options of `forge latest`.
#[derive(Clone, Debug, Args)]
pub struct LatestArgs {
    #[command(flatten)]
    which: Which,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t = Format::Vmid)]
    output: Format,
}

/// Lists templates, newest first; gives the exit code.
pub async fn list(global: &Global, args: &ListArgs) -> u8 {
    match entries(global, &args.which, args.all).await {
        Ok(entries) => {
            ui::data(&if global.json { lines(&entries) } else { rows(&entries) });
            0
        }
        Err(code) => code,
    }
}

/// Prints the newest template that is published as `latest`; gives the exit code.
pub async fn latest(global: &Global, args: &LatestArgs) -> u8 {
    let redactor = Redactor::default();
    let everything = Wanted { all: false, ..Wanted::default() };
    let known = match open(global, args.which.target.as_deref(), &redactor).await {
        Ok(hypervisor) => chosen(hypervisor.as_ref(), &everything, &redactor).await,
        Err(code) => return code,
    };
    let known = match known {
        Ok(known) => known,
        Err(code) => return code,
    };
    let wanted = args.which.wanted(false);
    let Some(newest) = latest_of(known.iter().filter(|entry| wanted.takes(entry)).cloned().collect()) else {
        ui::say(&redactor.text(&format!("error: {}", none_such(&wanted, &known))));
        return REFUSED;
    };
    let format = if global.json { Format::Json } else { args.output };
    ui::data(&match format {
        Format::Vmid => format!("{}\n", newest.vmid),
        Format::Name => format!("{}\n", newest.name),
        Format::Table => rows(&[newest]),
        Format::Json => lines(&[newest]),
        Format::Tfvars => format!(
            "template_vmid = {}\ntemplate_name = {:?}\ntemplate_node = {:?}\n",
            newest.vmid, newest.name, newest.node
        ),
    });
    0
}

/// That no template is what was asked for, and of what there are some.
fn none_such(wanted: &Wanted, known: &[Entry]) -> String {
    let given = [("os", &wanted.os), ("profile", &wanted.profile), ("name", &wanted.name)];
    let mut asked: Vec<String> =
        given.iter().filter_map(|(key, value)| Some(format!("{key} `{}`", value.as_ref()?))).collect();
    asked.extend(wanted.tags.iter().map(|tag| format!("the tag `{tag}`")));
    let asked = if asked.is_empty() { String::new() } else { format!(" with {}", asked.join(" and ")) };
    let mut systems: Vec<&str> =
        known.iter().map(|entry| entry.os.as_str()).filter(|os| !os.is_empty()).collect();
    systems.sort_unstable();
    systems.dedup();
    let there = match systems.as_slice() {
        [] => "forge has built none on this target: `forge build PROFILE` does".to_owned(),
        systems => {
            format!("there are templates of: {}; `forge list` shows them with their tags", systems.join(", "))
        }
    };
    format!("no template{asked} is published as `{TAG_LATEST}`\n    help: {there}")
}

async fn entries(global: &Global, which: &Which, all: bool) -> Result<Vec<Entry>, u8> {
    let redactor = Redactor::default();
    let hypervisor = open(global, which.target.as_deref(), &redactor).await?;
    chosen(hypervisor.as_ref(), &which.wanted(all), &redactor).await
}

/// Opens the target whose templates are meant. What is wrong is told.
///
/// # Errors
/// The exit code.
pub(super) async fn open(
    global: &Global,
    target: Option<&str>,
    redactor: &Redactor,
) -> Result<Arc<dyn Hypervisor>, u8> {
    let refused = |finding: Finding| {
        prepare::tell(&[finding], redactor);
        REFUSED
    };
    let (site, findings) = prepare::site(global);
    if prepare::tell(&findings, redactor) {
        return Err(REFUSED);
    }
    let target = site.target(target).map_err(refused)?;
    let hypervisor = prepare::open(target, global, redactor).await.map_err(refused)?;
    prepare::has_templates(target, hypervisor.as_ref()).map_err(refused)?;
    Ok(hypervisor)
}

/// The templates that are wanted, newest first. What is wrong is told.
///
/// # Errors
/// The exit code.
pub(super) async fn chosen(
    hypervisor: &dyn Hypervisor,
    wanted: &Wanted,
    redactor: &Redactor,
) -> Result<Vec<Entry>, u8> {
    match hypervisor.templates(None).await {
        Ok(templates) => Ok(choose(&templates, wanted)),
        Err(error) => {
            tell_error(&error, redactor);
            Err(REFUSED)
        }
    }
}

/// Tells what went wrong at the target, with what to do about it.
pub(super) fn tell_error(error: &PortError, redactor: &Redactor) {
    let finding = Finding::general(chain(error));
    let finding = hint(error).map_or_else(|| finding.clone(), |hint| finding.clone().help(hint));
    prepare::tell(&[finding], redactor);
}

fn lines(entries: &[Entry]) -> String {
    let lines: Vec<String> = entries.iter().filter_map(|each| serde_json::to_string(each).ok()).collect();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn rows(entries: &[Entry]) -> String {
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.name.clone(),
                entry.vmid.clone(),
                entry.node.clone(),
                entry.os.clone(),
                entry.built.clone(),
                entry.tags.join(","),
                entry.chain_id.clone(),
            ]
        })
        .collect();
    table(&["NAME", "VMID", "NODE", "OS", "BUILT", "TAGS", "CHAIN ID"], &rows)
}
