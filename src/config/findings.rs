//! What is wrong with a file: each finding with its place, told all at once, in the order of the files.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::names::elsewhere;
use super::place::Place;

/// Something that is wrong with a file or a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// The file; `None` for what came from the command line, the environment or the target.
    pub file: Option<PathBuf>,
    /// The line, from 1; 0 when there is none.
    pub line: usize,
    /// The column, from 1; 0 when there is none.
    pub column: usize,
    /// The dotted name of the setting; may be empty.
    pub setting: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether the build can't go on.
    pub fatal: bool,
}

impl Finding {
    /// A fatal finding at a place.
    pub fn at(place: &Place, setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: Some(place.file.as_ref().clone()),
            line: place.line,
            column: place.column,
            setting: setting.into(),
            message: message.into(),
            help: None,
            fatal: true,
        }
    }

    /// A fatal finding about a whole file.
    pub fn in_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..Self::general(message) }
    }

    /// A fatal finding without a file.
    pub fn general(message: impl Into<String>) -> Self {
        Self {
            file: None,
            line: 0,
            column: 0,
            setting: String::new(),
            message: message.into(),
            help: None,
            fatal: true,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Only told; the build goes on.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.fatal = false;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        if !self.fatal {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        if !self.setting.is_empty() && !self.message.contains(&self.setting) {
            write!(f, " (`{}`)", self.setting)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n    help: {help}")?;
        }
        Ok(())
    }
}

/// Puts findings into the order in which they are told: file by file, from top to bottom, what has no place last. What
/// was found twice is told once.
#[must_use]
pub fn in_order(findings: Vec<Finding>) -> Vec<Finding> {
    let mut files: Vec<Option<PathBuf>> = Vec::new();
    for finding in &findings {
        if finding.file.is_some() && !files.contains(&finding.file) {
            files.push(finding.file.clone());
        }
    }
    let rank = |finding: &Finding| files.iter().position(|file| *file == finding.file).unwrap_or(files.len());
    let mut ordered: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        if !ordered.contains(&finding) {
            ordered.push(finding);
        }
    }
    ordered.sort_by_key(|finding| (rank(finding), finding.line, finding.column));
    ordered
}

/// The nearest of some known words, when it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.replace('_', "-").to_lowercase();
    known
        .into_iter()
        .map(|each| (strsim::damerau_levenshtein(&folded, each), each))
        .filter(|(distance, each)| *distance <= 1 + each.len().min(folded.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, each)| each)
}

/// `did you mean …?`, or the list of what there is.
#[must_use]
pub fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none".into(),
        None => format!("there is: {}", known.join(", ")),
    }
}

/// The same for a key of the table at `path`, which may be another tool's name for a setting.
#[must_use]
pub fn suggest_key(key: &str, path: &str, known: &[&str]) -> String {
    let elsewhere = elsewhere(key);
    let here = elsewhere.and_then(|setting| {
        let (table, last) = setting.rsplit_once('.').unwrap_or((path, setting));
        (known.contains(&last) && path.ends_with(table)).then_some(last)
    });
    match (here.or_else(|| nearest(key, known.iter().copied())), elsewhere) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some(setting)) => format!("that is `{setting}` here"),
        (None, None) => suggest(key, known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_leads_to_the_one_that_was_meant() {
        let known = ["cores", "cpu", "memory", "cloud-init"];
        for (key, help) in [
            ("cpus", "did you mean `cores`?"),
            ("core", "did you mean `cores`?"),
            ("Memory", "did you mean `memory`?"),
            ("cloud_init", "did you mean `cloud-init`?"),
            ("ssh_username", "that is `access.user` here"),
            ("colour", "there is: cores, cpu, memory, cloud-init"),
        ] {
            assert_eq!(suggest_key(key, "vm", &known), help, "{key}");
        }
    }

    #[test]
    fn findings_are_told_from_top_to_bottom_and_once() {
        let at = |line, message: &str| Finding { line, ..Finding::in_file("a.toml", message) };
        let told = in_order(vec![Finding::general("b"), at(9, "d"), at(2, "c"), at(9, "d")]);
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["a.toml:2:0: c", "a.toml:9:0: d", "b"]);
    }
}
