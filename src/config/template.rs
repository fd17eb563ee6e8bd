//! Templated settings: `{{ var.x }}` and `{{ env.X }}` are filled in when loading, `{{ date }}`, `{{ build_number }}`
//! and `{{ chain_id }}` when planning, and the late values when the build runs.
//!
//! Only the settings that the profile's page marks are templated; scripts and the contents of files never are.

use std::fmt;

use serde::{Serialize, Serializer};

use super::findings::{Finding, suggest};
use super::place::Place;
use super::variables::Variables;
use crate::plan::late::{LateName, LateText, Part};

/// What is filled in when planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanName {
    /// The day, `YYYYMMDD`.
    Date,
    /// The build's number.
    BuildNumber,
    /// The chain id.
    ChainId,
}

impl PlanName {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Date, "date"), (Self::BuildNumber, "build_number"), (Self::ChainId, "chain_id")];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(name, _)| *name == self).map_or("", |(_, text)| text)
    }
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Known text.
    Text(String),
    /// Filled in when planning.
    Plan(PlanName),
    /// Filled in when the build runs.
    Late(LateName),
}

/// A templated text after loading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Segment>);

impl Template {
    /// The text of the plan, with what planning knows filled in.
    pub fn to_late(&self, known: impl Fn(PlanName) -> String) -> LateText {
        let mut parts: Vec<Part> = Vec::new();
        for segment in &self.0 {
            let text = match segment {
                Segment::Late(name) => {
                    parts.push(Part::Late(*name));
                    continue;
                }
                Segment::Text(text) => text.clone(),
                Segment::Plan(name) => known(*name),
            };
            match parts.last_mut() {
                Some(Part::Text(last)) => last.push_str(&text),
                _ => parts.push(Part::Text(text)),
            }
        }
        LateText::new(parts)
    }

    /// The text with planning's values, when no late value is in it.
    pub fn to_text(&self, known: impl Fn(PlanName) -> String) -> Option<String> {
        let late = self.to_late(known);
        late.names().next().is_none().then(|| late.to_string())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Text(text) => f.write_str(text),
            Segment::Plan(name) => write!(f, "{{{{ {} }}}}", name.as_str()),
            Segment::Late(name) => write!(f, "{{{{ {name} }}}}"),
        })
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which names a setting may use besides variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Variables and the environment, in a value that may be secret.
    Load,
    /// The same in a name, which everyone sees: no secrets.
    Name,
    /// A name that also takes what planning knows.
    Plan,
    /// A value that also takes what planning knows and the late values.
    Late,
}

/// Reads a templated text. What is wrong in it becomes findings, and is left out of the text.
pub fn parse(
    text: &str,
    scope: Scope,
    setting: &str,
    place: &Place,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) -> Template {
    let mut segments: Vec<Segment> = Vec::new();
    let mut push = |segment: Segment| match (segments.last_mut(), segment) {
        (Some(Segment::Text(last)), Segment::Text(text)) => last.push_str(&text),
        (_, segment) => segments.push(segment),
    };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        push(Segment::Text(before.to_owned()));
        let Some((inside, tail)) = after.split_once("}}") else {
            findings.push(Finding::at(place, setting, "`{{` has no `}}`"));
            return Template(segments);
        };
        rest = tail;
        match resolve(inside.trim(), scope, variables) {
            Ok(segment) => push(segment),
            Err((message, help)) => findings.push(Finding::at(place, setting, message).help(help)),
        }
    }
    push(Segment::Text(rest.to_owned()));
    segments.retain(|segment| *segment != Segment::Text(String::new()));
    Template(segments)
}

fn resolve(name: &str, scope: Scope, variables: &Variables) -> Result<Segment, (String, String)> {
    if let Some(variable) = name.strip_prefix("var.") {
        let Some(value) = variables.get(variable) else {
            let known: Vec<&str> = variables.names().collect();
            return Err((format!("the variable `{variable}` is not defined"), suggest(variable, &known)));
        };
        if variables.is_secret(variable) && matches!(scope, Scope::Name | Scope::Plan) {
            let help = "a name is seen by everyone; use another variable";
            return Err((format!("the secret variable `{variable}` can't be part of this"), help.into()));
        }
        return Ok(Segment::Text(value.to_owned()));
    }
    if let Some(variable) = name.strip_prefix("env.") {
        return match variables.environment(variable) {
            Some(value) => Ok(Segment::Text(value.to_owned())),
            None => Err((
                format!("`{variable}` is not set in the environment"),
                format!("set it, or use a variable with a default instead of `env.{variable}`"),
            )),
        };
    }
    if let Some((plan, _)) = PlanName::ALL.iter().find(|(_, text)| *text == name) {
        return match scope {
            Scope::Load | Scope::Name => Err((
                format!("`{name}` is not known here"),
                "it is only known in `template.name` and in boot steps".into(),
            )),
            Scope::Plan | Scope::Late => Ok(Segment::Plan(*plan)),
        };
    }
    if let Some(late) = LateName::parse(name) {
        return match scope {
            Scope::Late => Ok(Segment::Late(late)),
            Scope::Load | Scope::Name | Scope::Plan => Err((
                format!("`{name}` is not known here"),
                "it is only known in boot steps, while the build runs".into(),
            )),
        };
    }
    let mut known: Vec<&str> = Vec::new();
    if matches!(scope, Scope::Plan | Scope::Late) {
        known.extend(PlanName::ALL.iter().map(|(_, text)| *text));
    }
    if scope == Scope::Late {
        known.extend(LateName::ALL.iter().map(|late| late.as_str()));
    }
    known.extend(["var.NAME", "env.NAME"]);
    let help = packers(name).map_or_else(|| suggest(name, &known), str::to_owned);
    Err((format!("`{{{{ {name} }}}}` is not known"), help))
}

/// What to write for a name or function of Packer's templates.
fn packers(name: &str) -> Option<&'static str> {
    let word = name.split_whitespace().next().unwrap_or(name);
    Some(match word {
        ".HTTPIP" => {
            "Packer's `.HTTPIP` is `seed.address` here; `seed.url` is the whole address with its secret path"
        }
        ".HTTPPort" => {
            "Packer's `.HTTPPort` is `seed.port` here; `seed.url` is the whole address with its secret path"
        }
        ".Name" | "build_name" => {
            "the profile's `name` and `template.name` are texts of the file: write them out, or use a variable"
        }
        "user" => "Packer's variables are `{{ var.NAME }}` here, with `[variables.NAME]`",
        "env" => "write `{{ env.NAME }}`",
        "isotime" | "timestamp" => "write `{{ date }}`, the day as YYYY-MM-DD",
        _ => return None,
    })
}
