//! What `build`, `plan` and `finish` do before anything is changed: read files, ask targets, plan. Everything that is
//! wrong is told at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forge_machine::{Facts, FactsQuery, Hypervisor, Medium, Nonce, PortError, SourceSelector};
use jiff::Timestamp;
use rand::RngExt as _;

use super::first_contact;
use super::named::expand;
use super::options::{Global, Selection};
use super::{REFUSED, USAGE};
use crate::config::site::{SecretRef, Site, Target, TargetKind};
use crate::config::{Finding, Profile, SiteSearch, load_given, load_profile, load_site};
use crate::engine::error::{chain, hint};
use crate::event::Redactor;
use crate::media::{Store, Watch, label, settle};
use crate::plan::origin::{CiRun, Origin, Repository};
use crate::plan::{AccessPlan, Moment, Plan, make};
use crate::remote::{SshAccess, via};
use crate::stages::connect::{Connector, SshConnector};
use crate::stages::ways::Ways;

/// A build that could begin.
pub struct Prepared {
    /// What to do.
    pub plan: Plan,
    /// The node, and the memory that it takes there, in MiB.
    pub takes: (String, u32),
    /// Where.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// How the guest is reached.
    pub connector: Arc<dyn Connector>,
    /// Its moment: nonce, owner, time.
    pub moment: Moment,
}

/// Reads the keys and secrets by which the guest is reached.
///
/// # Errors
/// A finding about the first that can't be had.
pub async fn connector(access: &AccessPlan, redactor: &Redactor) -> Result<Arc<dyn Connector>, Finding> {
    match SshAccess::resolve(&access.ssh, access.create, &|secret| redactor.hide(secret)).await {
        Ok(ssh) => {
            let ssh = SshConnector { access: SshAccess { windows: access.windows, ..ssh } };
            Ok(if via::is_usual(&access.via) {
                Arc::new(ssh)
            } else {
                let (via, winrm) = (access.via.clone(), access.winrm.clone());
                Arc::new(Ways { via, ssh, winrm })
            })
        }
        Err(error) => Err(Finding::general(chain(&error))),
    }
}

/// Why nothing could be prepared: the findings were told, this is the exit code.
pub struct Refusal(pub u8);

/// The environment as text; what is not text can't be a setting of forge's.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads the site.
#[must_use]
pub fn site(global: &Global) -> (Site, Vec<Finding>) {
    load_site(&SiteSearch {
        config: global.config.clone(),
        env_file: global.env_file.clone(),
        environment: environment(),
    })
}

/// Whether a target has templates, for commands that are about them.
///
/// # Errors
/// The finding that it makes files.
pub(super) fn has_templates(target: &Target, hypervisor: &dyn Hypervisor) -> Result<(), Finding> {
    if hypervisor.capabilities().templates {
        return Ok(());
    }
    let words =
        format!("target `{}` is a local QEMU: it makes image files, and has no templates", target.name);
    Err(Finding::general(words).help("name a Proxmox VE target with --target"))
}

/// Opens a target, resolving its secret.
///
/// # Errors
/// A finding about the secret or the settings.
pub async fn open(
    target: &Target,
    global: &Global,
    redactor: &Redactor,
) -> Result<Arc<dyn Hypervisor>, Finding> {
    let secret = match &target.kind {
        TargetKind::Proxmox(proxmox) => {
            let secret = resolve(&proxmox.token_secret).await.map_err(|message| {
                let (what, key) = match proxmox.token_id.contains('!') {
                    true => ("the token's secret", "token-secret"),
                    false => ("the password", "password"),
                };
                let name = &target.name;
                Finding::general(format!("{what} of target `{name}`: {message}"))
                    .help(format!("`targets.{name}.{key}` of the site file says where it is read from"))
            })?;
            redactor.hide(&secret);
            Some(secret)
        }
        TargetKind::Qemu(_) => None,
    };
    let accepted = first_contact::meet(target, secret.as_deref(), global).await?;
    let target = accepted.as_ref().unwrap_or(target);
    crate::backends::open(target, secret.as_deref(), &global.state()).map_err(|error| {
        let finding = Finding::general(chain(&error));
        hint(&error).map_or_else(|| finding.clone(), |hint| finding.clone().help(hint))
    })
}

/// Reads a secret from where the site file says it is.
///
/// # Errors
/// Why it can't be had, in words.
pub async fn resolve(secret: &SecretRef) -> Result<String, String> {
    let text = match secret {
        SecretRef::Given(secret) => secret.expose().to_owned(),
        SecretRef::Env(name) => {
            std::env::var(name).map_err(|_unset| format!("the environment variable {name} is not set"))?
        }
        SecretRef::File(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("{} can't be read: {error}", path.display()))?,
        SecretRef::Command(words) => {
            let (program, arguments) = words.split_first().ok_or("the command is empty")?;
            let output = tokio::process::Command::new(program)
                .args(arguments)
                .stdin(std::process::Stdio::null())
                .output()
                .await
                .map_err(|error| format!("`{program}` can't be run: {error}"))?;
            if !output.status.success() {
                let words = String::from_utf8_lossy(&output.stderr);
                return Err(format!("`{program}` ended with {}: {}", output.status, words.trim()));
            }
            String::from_utf8(output.stdout).map_err(|_not_text| format!("`{program}` printed no text"))?
        }
    };
    let text = text.trim().to_owned();
    if text.is_empty() { Err("it is empty".into()) } else { Ok(text) }
}

/// Prints findings on stderr, masked; gives whether one of them is fatal.
pub fn tell(findings: &[Finding], redactor: &Redactor) -> bool {
    for finding in findings {
        let tone = if finding.fatal { "error: " } else { "" };
        crate::ui::say(&redactor.text(&format!("{tone}{finding}")));
    }
    findings.iter().any(|finding| finding.fatal)
}

/// Reads the profiles of a selection.
#[must_use]
pub fn profiles(selection: &Selection, redactor: &Redactor) -> (Vec<Profile>, Vec<Finding>) {
    let (files, mut findings) = each_profile(selection, redactor);
    let mut profiles = Vec::new();
    for (_, profile, wrong) in files {
        findings.extend(wrong);
        profiles.extend(profile);
    }
    (profiles, findings)
}

/// A file, the profile in it, and what is wrong with it.
pub(super) type ProfileFile = (PathBuf, Option<Profile>, Vec<Finding>);

/// Reads the profiles of a selection, file by file; and what is wrong with the selection itself.
pub(super) fn each_profile(selection: &Selection, redactor: &Redactor) -> (Vec<ProfileFile>, Vec<Finding>) {
    let (given, mut findings) = load_given(&selection.vars, &selection.var_files, environment());
    let files = expand(&selection.profiles, &mut findings);
    let read = |file: PathBuf| {
        let (profile, wrong) = load_profile(&file, &given);
        if let Some(profile) = &profile {
            profile.secrets.iter().for_each(|secret| redactor.add(secret));
        }
        (file, profile, wrong)
    };
    (files.into_iter().map(read).collect(), findings)
}

/// The profiles that `--only` and `--except` leave; a pattern that names none of them is a finding.
pub(super) fn selected(
    profiles: Vec<Profile>,
    selection: &Selection,
    target: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Vec<Profile> {
    let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
    let there = format!("there are: {}", names.join(", "));
    // A profile that can't be read may be the one that is meant.
    if findings.iter().all(|finding| !finding.fatal) {
        findings.extend(selection.idle(&names, target).into_iter().map(|pattern| {
            Finding::general(format!("no profile that was given is called `{pattern}`")).help(there.clone())
        }));
    }
    let some = !names.is_empty();
    let left: Vec<Profile> =
        profiles.into_iter().filter(|profile| selection.takes(&profile.name, target)).collect();
    if left.is_empty() && some && findings.iter().all(|finding| !finding.fatal) {
        findings.push(Finding::general("--only and --except leave no profile").help(there));
    }
    left
}

/// Reads, asks and plans everything that was selected. Findings are told. `test` is whether templates are tried, where
/// that is not left to the profiles.
///
/// # Errors
/// The exit code, when something keeps a build from beginning.
pub async fn prepare(
    global: &Global,
    selection: &Selection,
    test: Option<bool>,
    evidence_root: &Path,
    redactor: &Redactor,
) -> Result<Vec<Prepared>, Refusal> {
    let (site, mut findings) = site(global);
    let (profiles, wrong) = profiles(selection, redactor);
    findings.extend(wrong);
    let target = match site.target(selection.target.as_deref()) {
        Ok(target) => Some(target),
        Err(finding) => {
            // A site file with faults of its own may lack the target because of them.
            if findings.iter().all(|each| !each.fatal) || selection.target.is_some() {
                findings.push(finding);
            }
            None
        }
    };
    let mut profiles =
        selected(profiles, selection, target.map(|target| target.name.as_str()), &mut findings);
    if tell(&findings, redactor) {
        return Err(Refusal(REFUSED));
    }
    let Some(target) = target else { return Err(Refusal(REFUSED)) };
    let hypervisor = match open(target, global, redactor).await {
        Ok(hypervisor) => hypervisor,
        Err(finding) => {
            tell(&[finding], redactor);
            return Err(Refusal(REFUSED));
        }
    };
    let mut prepared: Vec<Prepared> = Vec::new();
    let mut refused = false;
    let store = global.media();
    for profile in &mut profiles {
        profile.test = test.unwrap_or(profile.test);
        hide_passwords(profile, redactor);
        refused |= tell(&settle::sums(profile, &store, &Aloud(redactor)).await, redactor);
        let profile = &*profile;
        // The target knows nothing yet of what was planned a moment ago.
        let placed = prepared.iter().map(|each| each.takes.clone()).collect();
        match plan_one(profile, target, &hypervisor, &store, evidence_root, placed).await {
            Ok((plan, takes, moment, findings)) => {
                refused |= tell(&findings, redactor);
                let Some(plan) = plan else { continue };
                match connector(&plan.access, redactor).await {
                    Ok(connector) => {
                        prepared.push(Prepared {
                            plan,
                            takes,
                            hypervisor: hypervisor.clone(),
                            connector,
                            moment,
                        });
                    }
                    Err(finding) => refused |= tell(&[finding], redactor),
                }
            }
            Err(findings) => {
                tell(&findings, redactor);
                refused = true;
                break;
            }
        }
    }
    if refused {
        return Err(Refusal(REFUSED));
    }
    if prepared.is_empty() { Err(Refusal(USAGE)) } else { Ok(prepared) }
}

/// Passwords in the addresses of media are shown nowhere, nor is a user without a password: that is a token.
pub fn hide_passwords(profile: &mut Profile, redactor: &Redactor) {
    let firsts = settle::urls(&mut profile.source);
    for url in profile.source.mirrors.values().flatten().chain(&firsts) {
        if let Some(secret) = forge_machine::source::login(url).map(secret_of) {
            redactor.hide(secret);
        }
    }
}

/// What of a URL's user and password proves who asks.
fn secret_of(login: &str) -> &str {
    match login.split_once(':') {
        Some((user, "")) => user,
        Some((_, password)) => password,
        None => login,
    }
}

/// Tells on stderr what is wrong with a publisher's sums, and nothing else.
pub struct Aloud<'a>(pub &'a Redactor);

impl Watch for Aloud<'_> {
    fn doing(&self, _what: &str) {}

    fn progress(&self, _name: &str, _done: u64, _total: Option<u64>) {}

    fn warn(&self, what: &str) {
        crate::ui::say(&self.0.text(&format!("warning: {what}")));
    }
}

pub(super) type Planned = (Option<Plan>, (String, u32), Moment, Vec<Finding>);

pub(super) async fn plan_one(
    profile: &Profile,
    target: &Target,
    hypervisor: &Arc<dyn Hypervisor>,
    store: &Store,
    evidence_root: &Path,
    placed: Vec<(String, u32)>,
) -> Result<Planned, Vec<Finding>> {
    let query = make::query(profile, target).map_err(|finding| vec![finding])?;
    let mut query = FactsQuery { placed, ..query };
    // An image that is here already can be looked into.
    if let SourceSelector::Image(image) = &mut query.source
        && let Some(path) = store.held(image)
    {
        *image = Medium::file(path);
    }
    let (facts, wrong) = facts(hypervisor, &query).await.map_err(|finding| vec![finding])?;
    let moment = moment(evidence_root);
    let capabilities = hypervisor.capabilities();
    let input =
        make::Input { target, capabilities: &capabilities, facts: &facts, findings: wrong, moment: &moment };
    let (mut plan, mut findings) = make::make(profile, &input);
    findings.extend(other_medium(profile));
    if let Some(plan) = &mut plan {
        plan.origin = origin(plan);
        let (downloads, unsure) =
            settle::downloads(plan.machine.media(), &profile.source.mirrors, store).await;
        plan.downloads = downloads;
        findings.extend(unsure);
        findings.extend(hypervisor.check(&plan.machine, &facts).into_iter().map(|found| {
            let mut finding = make::located(profile, &found.setting, found.message);
            finding.help = (!found.help.is_empty()).then_some(found.help);
            finding.fatal = found.fatal;
            finding
        }));
    }
    let fatal = findings.iter().any(|finding| finding.fatal);
    let node = plan.as_ref().map(|plan| plan.machine.node.clone()).unwrap_or_default();
    let of_source = facts.source.as_ref().map(|source| source.memory_mib);
    let memory = query.memory_mib.or(of_source).unwrap_or_default();
    Ok((plan.filter(|_| !fatal), (node, memory), moment, findings))
}

/// Where a build of these files comes from.
pub(super) fn origin(plan: &Plan) -> Origin {
    let files: Vec<&Path> = plan.profile_files.iter().map(|(file, _)| file.as_path()).collect();
    Origin { repository: Repository::of(&files), ci: CiRun::of(&environment()) }
}

/// A file of this machine that is the medium of another system, by its label.
fn other_medium(profile: &Profile) -> Option<Finding> {
    let forge_machine::Location::File(path) = &profile.source.isos.first()?.location else { return None };
    let why = label::contradicts(&label::of(path)?, &profile.os.distribution, &profile.os.version)?;
    let finding =
        make::located(profile, "source.iso", format!("{} is another medium: {why}", path.display()));
    Some(finding.help("name the right file, or say in `[os]` what it installs"))
}

/// Asks a target.
///
/// # Errors
/// A finding, when it can't be asked.
pub async fn facts(
    hypervisor: &Arc<dyn Hypervisor>,
    query: &FactsQuery,
) -> Result<(Facts, Vec<forge_machine::Finding>), Finding> {
    hypervisor.facts(query).await.map_err(|error| {
        let words = match &error {
            // These name the target and their innermost cause themselves.
            PortError::Unreachable { .. } | PortError::Untrusted { .. } | PortError::Unauthorized { .. } => {
                error.to_string()
            }
            other => format!("target `{}` can't be used: {}", hypervisor.target(), chain(other)),
        };
        let finding = Finding::general(words);
        hint(&error).map_or_else(|| finding.clone(), |hint| finding.clone().help(hint))
    })
}

/// This moment: the only place where time, randomness and the names of the CI come in.
#[must_use]
pub fn moment(evidence_root: &Path) -> Moment {
    let number = ["FORGE_BUILD_NUMBER", "BUILD_NUMBER", "GITHUB_RUN_NUMBER", "CI_PIPELINE_IID"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "001".into());
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "forge".into());
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into());
    Moment {
        now: Timestamp::now(),
        build_number: number,
        owner: format!("{user}@{host}"),
        nonce: Nonce::from_bytes(rand::rng().random()),
        evidence_root: evidence_root.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::secret_of;

    #[test]
    fn a_user_without_a_password_is_the_secret() {
        for (login, secret) in
            [("me:geheim", "geheim"), ("token", "token"), ("token:", "token"), ("a:b:c", "b:c")]
        {
            assert_eq!(secret_of(login), secret, "{login}");
        }
    }
}
