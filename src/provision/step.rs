//! Provisioners as data: what a plan says of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::remote::{Become, PowerShell};

/// A provisioner: what it does, and what holds for all kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// What it is called in output and messages.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// How long to wait before it, for guests that need it.
    pub pause_before: Option<Duration>,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// Whether it runs only when another provisioner failed, before the build is taken back.
    pub on_error: bool,
}

impl Step {
    /// A step without a pause and without retries.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self { name: name.into(), action, pause_before: None, retries: 0, on_error: false }
    }

    /// Whether the guest may be started anew under it.
    #[must_use]
    pub fn may_reboot(&self) -> bool {
        match &self.action {
            Action::Shell(step) => step.expect_disconnect,
            Action::Reboot { .. } | Action::WindowsRestart(_) | Action::WindowsUpdate(_) => true,
            _ => false,
        }
    }

    /// What kind it is, and what is worth knowing of it, in words for the plan.
    #[must_use]
    pub fn in_words(&self) -> String {
        let root = |become_root: Become| if become_root == Become::No { "" } else { ", as root" };
        let mut words = match &self.action {
            Action::Shell(step) if step.power_shell.is_some() => {
                let rights = if step.become_root == Become::No { "" } else { ", as SYSTEM" };
                format!("{} (PowerShell{rights})", self.name)
            }
            Action::Shell(step) => format!("{}{}", self.name, root(step.become_root)),
            Action::Local(step) => match &step.what {
                LocalWork::Shell(_) => format!("{} (on this machine)", self.name),
                LocalWork::Exec(words) => {
                    let program = words.first().map_or("", String::as_str);
                    format!("{} (runs {program} on this machine)", self.name)
                }
                LocalWork::Ansible(work) => {
                    let rights = if work.become_root { ", as root" } else { "" };
                    format!("{}: ansible-playbook {}{rights}", self.name, work.playbook.display())
                }
            },
            Action::AnsibleLocal { work, .. } => {
                let rights = if work.become_root { ", as root" } else { "" };
                format!("{}: ansible-playbook {} in the guest{rights}", self.name, work.playbook.display())
            }
            Action::File(step) => {
                let (arrow, near) = match step.direction {
                    Direction::Upload => ("to", step.local.display()),
                    Direction::Download => ("from", step.local.display()),
                };
                let near = if step.content.is_some() { "a text".to_owned() } else { near.to_string() };
                format!("{}: {near} {arrow} {}{}", self.name, step.remote, root(step.become_root))
            }
            Action::Reboot { .. } => format!("{}: reboot", self.name),
            Action::WindowsRestart(_) => format!("{}: restart Windows", self.name),
            Action::WindowsUpdate(work) => {
                format!("{}: install updates ({}), with restarts", self.name, work.search_criteria)
            }
            Action::WaitFor { condition, limit } => {
                format!("{}: wait for {condition}, {} s at most", self.name, limit.as_secs())
            }
            Action::Breakpoint { .. } => format!("{}: stop until Enter is pressed", self.name),
        };
        if self.on_error {
            words.push_str(" (only when a provisioner failed)");
        }
        if self.retries > 0 {
            words.push_str(&format!(", tried again up to {} times", self.retries));
        }
        words
    }
}

/// What a provisioner does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Runs a script in the guest.
    Shell(ShellStep),
    /// Runs something on this machine.
    Local(LocalStep),
    /// Runs Ansible in the guest itself.
    #[serde(rename_all = "kebab-case")]
    AnsibleLocal {
        /// What is run.
        work: AnsibleWork,
        /// What holds for it as for every script; its lines are made when the files are there.
        script: ShellStep,
    },
    /// Carries files to or from the guest.
    File(FileStep),
    /// Starts the guest anew.
    #[serde(rename_all = "kebab-case")]
    Reboot {
        /// How root is become.
        #[serde(rename = "become")]
        become_root: Become,
        /// How long it may take to be back.
        limit: Duration,
    },
    /// Starts a Windows anew.
    WindowsRestart(WindowsRestart),
    /// Installs the updates of a Windows.
    WindowsUpdate(WindowsUpdate),
    /// Waits until something is so in the guest.
    #[serde(rename_all = "kebab-case")]
    WaitFor {
        /// What.
        condition: Condition,
        /// How long.
        limit: Duration,
    },
    /// Waits until a person presses Enter.
    #[serde(rename_all = "kebab-case")]
    Breakpoint {
        /// What the person is told.
        note: String,
    },
}

/// How a Windows is started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowsRestart {
    /// The command that does it, for PowerShell.
    pub command: String,
    /// The command that has to succeed before the step is over, likewise; `None` asks for nothing but another boot.
    pub check: Option<String>,
    /// How long it may take to be back.
    pub limit: Duration,
}

/// Which updates a Windows gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowsUpdate {
    /// What Windows Update is asked for, in its own language (`IUpdateSearcher::Search`).
    pub search_criteria: String,
    /// Which of them: `include:` or `exclude:` and an expression of PowerShell about `$_`; the first that is true decides.
    pub filters: Vec<String>,
    /// How many are installed at once.
    pub update_limit: u32,
    /// How long all of it may take, with all its restarts.
    pub limit: Duration,
}

/// What is waited for in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// A TCP port on which something listens.
    Port(u16),
    /// A file or folder that exists.
    File(String),
    /// A command that succeeds.
    Command(String),
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(port) => write!(f, "TCP port {port}"),
            Self::File(path) => write!(f, "the file {path}"),
            Self::Command(line) => write!(f, "`{line}` to succeed"),
        }
    }
}

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the guest.
    Upload,
    /// From the guest.
    Download,
}

/// A file or folder to be carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileStep {
    /// Which way.
    pub direction: Direction,
    /// The path on this machine; a `/` at its end is kept, it has a meaning (see [`super::file`]).
    pub local: PathBuf,
    /// The path in the guest.
    pub remote: String,
    /// A text that is uploaded instead of a file.
    pub content: Option<String>,
    /// The permission bits that the file gets; `None` keeps those of this machine's file for an upload (0644 for a text),
    /// and leaves a downloaded one to the umask.
    pub mode: Option<u32>,
    /// Whether and how root is become, for paths that are not the user's.
    #[serde(rename = "become")]
    pub become_root: Become,
    /// Whether the guest is a Windows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub windows: bool,
}

/// Something to be run on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LocalStep {
    /// What.
    pub what: LocalWork,
    /// Variables set for it, on top of the build's own.
    pub env: BTreeMap<String, String>,
    /// The exit statuses that mean success.
    pub valid_exit_codes: Vec<i32>,
    /// How long it may take; `None` is no limit.
    pub timeout: Option<Duration>,
    /// The folder it runs in: the profile's.
    pub dir: PathBuf,
}

/// What is run on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalWork {
    /// Lines for `/bin/sh -e`.
    Shell(String),
    /// A program with its arguments, which gets the build as JSON on its standard input.
    Exec(Vec<String>),
    /// Ansible, which logs in to the guest by itself.
    Ansible(AnsibleWork),
}

/// A run of `ansible-playbook`, on this machine or in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AnsibleWork {
    /// The playbook.
    pub playbook: PathBuf,
    /// What the guest is called in the inventory.
    pub host_alias: String,
    /// The groups of the inventory that it is in.
    pub groups: Vec<String>,
    /// More arguments for `ansible-playbook`.
    pub extra_arguments: Vec<String>,
    /// Roles and collections to install first (`ansible-galaxy`).
    pub galaxy_file: Option<PathBuf>,
    /// Where roles are, and are installed to.
    pub roles_path: Option<PathBuf>,
    /// Where collections are, and are installed to.
    pub collections_path: Option<PathBuf>,
    /// The file with the vault's password, or a program that prints it.
    pub vault_password_file: Option<PathBuf>,
    /// The folder that goes to the guest with the playbook in it, where Ansible runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playbook_dir: Option<PathBuf>,
    /// Whether everything is done as root.
    pub become_root: bool,
}

/// What a shell step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShellSource {
    /// Lines written in the profile.
    Inline(Vec<String>),
    /// A file beside the profile.
    #[serde(rename_all = "kebab-case")]
    Script {
        /// Where it was read from.
        path: PathBuf,
        /// Its text, as it was when the plan was made.
        content: String,
    },
}

impl ShellSource {
    /// The script's text.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Inline(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
            Self::Script { content, .. } => content.clone(),
        }
    }
}

/// A script to be run in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShellStep {
    /// What it is called in output and messages.
    pub name: String,
    /// What it runs.
    pub source: ShellSource,
    /// Variables set for it, on top of the build's own.
    pub env: BTreeMap<String, String>,
    /// Whether and how it becomes root.
    #[serde(rename = "become")]
    pub become_root: Become,
    /// The exit statuses that mean success.
    pub valid_exit_codes: Vec<i32>,
    /// How long it may take; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Whether the guest may go away under it: then the step ends when the same guest is back.
    pub expect_disconnect: bool,
    /// The program that runs it, with its arguments; `None` takes the script's `#!` line, else `/bin/sh -e`.
    pub interpreter: Option<String>,
    /// The folder it runs in; `None` is the home of the user it runs as.
    pub work_dir: Option<String>,
    /// For how long it is tried again when it can't even be begun; `None` is no second try.
    pub start_retry: Option<Duration>,
    /// That it is for PowerShell, and how that runs it; `interpreter` does not matter then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_shell: Option<PowerShell>,
}

impl ShellStep {
    /// A step that runs lines as the user who is logged in, and nothing else.
    pub fn inline(name: impl Into<String>, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(name, ShellSource::Inline(lines.into_iter().map(Into::into).collect()))
    }

    /// A step with everything else at its default.
    pub fn new(name: impl Into<String>, source: ShellSource) -> Self {
        Self {
            name: name.into(),
            source,
            env: BTreeMap::new(),
            become_root: Become::No,
            valid_exit_codes: vec![0],
            timeout: None,
            expect_disconnect: false,
            interpreter: None,
            work_dir: None,
            start_retry: None,
            power_shell: None,
        }
    }

    /// The program that runs it, with its arguments.
    #[must_use]
    pub fn interpreter(&self) -> Vec<String> {
        let text = match (&self.interpreter, &self.source) {
            (Some(text), _) => text.clone(),
            (None, ShellSource::Script { content, .. }) if content.starts_with("#!") => {
                // As the kernel reads it: one program and at most one argument, which is fine to be split further.
                content.lines().next().unwrap_or_default().trim_start_matches("#!").to_owned()
            }
            (None, _) => "/bin/sh -e".to_owned(),
        };
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() { vec!["/bin/sh".into(), "-e".into()] } else { words }
    }
}
