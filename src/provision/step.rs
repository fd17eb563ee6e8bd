//! A shell provisioner as data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::remote::Become;

/// What a step runs.
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
