//! Renders answer-file templates with tera, strictly.
//!
//! * An undefined variable is an error, in `{% if %}`, `{% for %}` and filter arguments too: the syntax tree is
//!   walked before anything is rendered. What is optional is given as `null`.
//! * A value goes in through a filter for the language of the file ([`ESCAPES`]), so that no value can break out of its
//!   place; [`lint`] tells bare insertions, and quotes around one that brings its own.
//! * A template can't reach files, other templates, the environment or the clock: the same values give the same
//!   bytes.
//! * A template can't go on for ever, nor fill the memory ([`bounds`]): what it may take is bounded.

mod bounds;
mod check;
mod filters;
mod lint;
mod path;
mod scan;

use std::fmt;

use serde_json::Value;
use tera::{Context, Tera};
use thiserror::Error;

pub use filters::ESCAPES;
pub(crate) use filters::escaped;
pub use lint::Finding;

use crate::set::{NameError, SeedSet};

/// What a template names and nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name as the template writes it.
    pub name: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What the name should have been.
    pub kind: ProblemKind,
}

/// What a name that nobody knows should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A variable, or a table's member.
    Undefined,
    /// A filter.
    NoFilter,
    /// A test (`is …`).
    NoTest,
    /// A function; those that reach the environment or the clock are none here.
    NoFunction,
    /// Another template taken in, which is not possible.
    OtherFile,
    /// A macro that leads back to itself.
    Recursion,
    /// A macro whose calls come to too many, or one macro too many.
    Expansion,
}

impl ProblemKind {
    /// What to do; may be empty.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Recursion => "it would never end: write it as a loop",
            Self::Expansion => "calls within calls multiply: write them as a loop",
            _ => "",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, line, column, kind } = self;
        write!(f, "{line}:{column}: ")?;
        match kind {
            ProblemKind::Undefined => write!(f, "`{name}` is not defined"),
            ProblemKind::NoFilter => write!(f, "there is no filter `{name}`"),
            ProblemKind::NoTest => write!(f, "there is no test `{name}`"),
            ProblemKind::NoFunction => write!(f, "there is no function `{name}`"),
            ProblemKind::OtherFile => write!(f, "`{name}`: a template can't take in another one"),
            ProblemKind::Recursion => write!(f, "the macro `{name}` leads back to itself"),
            ProblemKind::Expansion => {
                write!(f, "with the macro `{name}` there are more than {} calls", bounds::EXPANSIONS)
            }
        }
    }
}

/// A template could not be rendered.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The template's syntax is wrong.
    #[error("{template}:{line}:{column}: the template can't be read")]
    Syntax {
        /// The template's name.
        template: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// tera's own words.
        #[source]
        source: Box<tera::Error>,
    },
    /// The template would take too much to read or to render.
    #[error("{template}:{line}:{column}: {why}")]
    TooMuch {
        /// The template's name.
        template: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// Of what there is too much.
        why: String,
        /// What to do.
        help: &'static str,
    },
    /// The template names what nobody gives it.
    #[error("{}", problems.iter().map(|problem| format!("{template}:{problem}")).collect::<Vec<_>>().join("; "))]
    Undefined {
        /// The template's name.
        template: String,
        /// Each name with its place.
        problems: Vec<Problem>,
    },
    /// A filter refused a value, or a value made while rendering lacks what is asked of it.
    #[error("the template {template} can't be rendered")]
    Render {
        /// The template's name.
        template: String,
        /// tera's own words.
        #[source]
        source: Box<tera::Error>,
    },
    /// A value is not what the templates of its kind take.
    #[error("{template}: {why}")]
    Value {
        /// The kind.
        template: String,
        /// What is wrong.
        why: String,
    },
    /// The template's name can't be the name of a file of a seed.
    #[error("the template can't be served")]
    Name(#[from] NameError),
}

/// Renders a template with the values of an object.
///
/// # Errors
/// When its syntax is wrong, it uses something undefined (all of it is told at once), it would take too much, or a filter
/// refuses a value.
pub fn render(name: &str, text: &str, values: &Value) -> Result<String, RenderError> {
    let tera = parse(name, text)?;
    let failed =
        |source: tera::Error| RenderError::Render { template: name.to_owned(), source: Box::new(source) };
    let tags = scan::tags(text);
    let template = tera.get_template(name).map_err(failed)?;
    let problems = check::Check::run(&tera, &template.ast, values, &tags);
    if !problems.is_empty() {
        return Err(RenderError::Undefined { template: name.to_owned(), problems });
    }
    fill_in(name, text, values)
}

/// Renders a template that is checked, within bounds.
fn fill_in(name: &str, text: &str, values: &Value) -> Result<String, RenderError> {
    let failed =
        |source: tera::Error| RenderError::Render { template: name.to_owned(), source: Box::new(source) };
    let account = bounds::Account::default();
    let mut tera = empty();
    account.register(&mut tera, text);
    tera.add_raw_template(name, &bounds::with_filter(text)).map_err(failed)?;
    let context = Context::from_value(values.clone()).map_err(failed)?;
    let mut out = bounds::Bounded::default();
    match tera.render_to(name, &context, &mut out) {
        Ok(()) => Ok(out.text()),
        Err(source) => Err(match account.stopped() {
            Some(far) => too_much(name, far),
            None => failed(source),
        }),
    }
}

fn too_much(name: &str, far: bounds::TooFar) -> RenderError {
    let bounds::TooFar { line, column, why, help } = far;
    RenderError::TooMuch { template: name.to_owned(), line, column, why, help }
}

/// Begins and ends the number of a template's line in what is rendered for its lines: private-use characters.
const MARK: [char; 2] = ['\u{f0001}', '\u{f0002}'];

/// Renders a template, and tells of each line of the text which line of the template it came from.
///
/// # Errors
/// As [`render`].
pub fn render_mapped(name: &str, text: &str, values: &Value) -> Result<(String, Vec<usize>), RenderError> {
    let rendered = render(name, text, values)?;
    let marked = fill_in(name, &scan::with_line_marks(text, MARK), values);
    let mut lines: Vec<Option<usize>> = Vec::new();
    for line in marked.unwrap_or_default().lines() {
        let number = line.split_once(MARK[0]).and_then(|(_, rest)| rest.split_once(MARK[1]));
        lines.push(number.and_then(|(number, _)| number.parse().ok()));
    }
    // A line without a mark came from a value of several lines, whose template's line ends after it.
    let mut next = 1;
    for line in lines.iter_mut().rev() {
        next = line.unwrap_or(next);
        *line = Some(next);
    }
    Ok((rendered, lines.into_iter().flatten().collect()))
}

impl RenderError {
    /// The error as findings about the template.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let file = match self {
            Self::Syntax { template, .. }
            | Self::TooMuch { template, .. }
            | Self::Undefined { template, .. }
            | Self::Render { template, .. }
            | Self::Value { template, .. } => template.clone(),
            Self::Name(error) => error.name.clone(),
        };
        let one = |line, column, message: String, help: String| {
            vec![Finding { file: file.clone(), line, column, message, help }]
        };
        match self {
            Self::Syntax { .. } => vec![unreadable(&file, self)],
            Self::TooMuch { line, column, why, help, .. } => {
                one(*line, *column, why.clone(), (*help).to_owned())
            }
            Self::Undefined { problems, .. } => problems
                .iter()
                .map(|problem| {
                    let text = problem.to_string();
                    let message = text.splitn(3, ':').nth(2).unwrap_or_default().trim().to_owned();
                    let (line, column) = (problem.line, problem.column);
                    Finding { file: file.clone(), line, column, message, help: problem.kind.help().into() }
                })
                .collect(),
            Self::Render { source, .. } => one(1, 1, innermost(source), "a value does not fit".into()),
            Self::Value { why, .. } => one(1, 1, why.clone(), String::new()),
            Self::Name(error) => one(1, 1, error.to_string(), String::new()),
        }
    }
}

/// Renders the templates of a folder that the caller has read: each name's `.tera` falls away, and a file without it is
/// taken as it is.
///
/// # Errors
/// Everything that is wrong, template by template.
pub fn render_all<'a>(
    templates: impl IntoIterator<Item = (&'a str, &'a str)>,
    values: &Value,
) -> Result<SeedSet, Vec<RenderError>> {
    let mut set = SeedSet::default();
    let mut errors = Vec::new();
    for (name, text) in templates {
        let rendered = match name.strip_suffix(".tera") {
            Some(served) => render(name, text, values).map(|text| (served, text)),
            None => Ok((name, text.to_owned())),
        };
        match rendered.and_then(|(served, text)| Ok(set.add(served, text)?)) {
            Ok(()) => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(set) } else { Err(errors) }
}

/// What would let a value break out of its place, and what can't be read at all.
///
/// Quotes are judged by the insertion's own line: one that was opened on a line before is not seen.
#[must_use]
pub fn lint(template_name: &str, text: &str) -> Vec<Finding> {
    let tera = match parse(template_name, text) {
        Ok(tera) => tera,
        Err(error) => return error.findings(),
    };
    let tags = scan::tags(text);
    let mut lint = lint::Lint { file: template_name, tags: &tags, at: 0, findings: Vec::new() };
    if let Ok(template) = tera.get_template(template_name) {
        lint.nodes(&template.ast, false);
    }
    lint.findings
}

fn unreadable(file: &str, error: &RenderError) -> Finding {
    let (line, column, help) = match error {
        RenderError::Syntax { line, column, source, .. } => (*line, *column, innermost(source)),
        _ => (1, 1, String::new()),
    };
    Finding { file: file.to_owned(), line, column, message: "the template can't be read".into(), help }
}

fn innermost(error: &tera::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// What every template is given, without one.
fn empty() -> Tera {
    let mut tera = Tera::default();
    tera.autoescape_on(Vec::new());
    filters::register(&mut tera);
    tera
}

fn parse(name: &str, text: &str) -> Result<Tera, RenderError> {
    if let Some(far) = bounds::of_text(text) {
        return Err(too_much(name, far));
    }
    let mut tera = empty();
    match tera.add_raw_template(name, text) {
        Ok(()) => Ok(tera),
        // With a parent that is not there tera gives up before anything can be checked.
        Err(source) => {
            let (line, column) = place(&innermost(&source));
            Err(RenderError::Syntax { template: name.to_owned(), line, column, source: Box::new(source) })
        }
    }
}

/// pest's report begins with ` --> line:column`.
fn place(report: &str) -> (usize, usize) {
    let mut numbers = report
        .split_once("--> ")
        .and_then(|(_, place)| place.lines().next())
        .unwrap_or_default()
        .split(':')
        .map_while(|number| number.trim().parse().ok());
    (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1))
}

#[cfg(test)]
mod tests;
