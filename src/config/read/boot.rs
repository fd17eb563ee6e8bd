//! `[boot]`.

use std::time::Duration;

use base64::Engine as _;
use forge_console::boot_command;
use forge_console::keymap::Layout;

use super::{Load, beside};
use crate::config::place::Node;
use crate::config::profile::{BootStep, EchoWish, NeedleWish, Outcome, Sight, Wanted};
use crate::config::reader::Reader;
use crate::config::template::{Scope, Template};
use crate::plan::late::Part as LatePart;

/// First and last line or column, from 1.
type Part = Option<(usize, usize)>;

/// What a boot step can do.
const KINDS: [&str; 8] = ["wait-for", "wait-still", "wait", "keys", "type", "command", "expect", "until"];
/// What says more about it.
const DETAILS: [&str; 11] = [
    "within",
    "or-after",
    "still-for",
    "lines",
    "columns",
    "press",
    "every",
    "echo",
    "enter",
    "layout",
    "when",
];
/// What a step may be for: a firmware, besides the ways to deliver the seed.
const FIRMWARE: [&str; 2] = ["bios", "uefi"];
/// How long a step waits for the screen when it does not say.
const WITHIN: Duration = Duration::from_secs(300);
/// How often `until` presses its key when it does not say.
const EVERY: Duration = Duration::from_secs(1);
/// How well a needle must match when it does not say, in percent.
const DEFAULT_MATCH: u8 = 98;
/// The largest picture that a plan carries, in bytes.
const LARGEST_NEEDLE: usize = 256 * 1024;

impl Load<'_> {
    pub(super) fn boot(&mut self, root: &mut Reader<'_>) -> Vec<BootStep> {
        let Some(mut reader) = root.table("boot", &mut self.findings) else { return Vec::new() };
        let mut steps: Vec<BootStep> =
            reader.time("boot-wait", &mut self.findings).map(BootStep::Wait).into_iter().collect();
        steps.extend(self.boot_steps(&mut reader));
        reader.done(&mut self.findings);
        steps
    }

    fn boot_steps(&mut self, reader: &mut Reader<'_>) -> Vec<BootStep> {
        let steps = reader.tables("steps", &mut self.findings);
        steps.into_iter().filter_map(|step| self.boot_step(step)).collect()
    }

    fn boot_step(&mut self, mut step: Reader<'_>) -> Option<BootStep> {
        let given: Vec<&str> =
            step.entries().map(|(key, ..)| key).filter(|key| KINDS.contains(key)).collect();
        let setting = step.path().to_owned();
        let result = match given.as_slice() {
            [kind] => {
                let read = self.step_of(kind, &mut step);
                if let Some(read) = &read {
                    self.lint_step(&step, kind, read);
                }
                let conditions = self.conditions(&mut step);
                match read {
                    Some(read) if !conditions.is_empty() => {
                        Some(BootStep::When { conditions, step: Box::new(read) })
                    }
                    read => read,
                }
            }
            several => {
                let at = self.findings.len();
                // Asked for, so that only what is misspelt is told as unknown.
                for key in KINDS.into_iter().chain(DETAILS) {
                    step.any(key);
                }
                let place = step.place().clone();
                step.done(&mut self.findings);
                let (message, help) = if several.is_empty() {
                    (
                        "this boot step does nothing".to_owned(),
                        format!("give it one of: {}", KINDS.join(", ")),
                    )
                } else {
                    let message =
                        format!("a boot step does one thing, and this has {}", several.join(" and "));
                    (message, "write one step for each".to_owned())
                };
                // A misspelt key says it already.
                if self.findings.len() == at {
                    self.findings.push(crate::config::Finding::at(&place, setting, message).help(help));
                }
                return None;
            }
        };
        step.done(&mut self.findings);
        result
    }

    /// `when`: one word or several.
    fn conditions(&mut self, step: &mut Reader<'_>) -> Vec<String> {
        let items = match step.any("when") {
            None => return Vec::new(),
            Some(spot) => match &spot.node {
                Node::List(items) => items.iter().collect(),
                _ => vec![spot],
            },
        };
        let known: Vec<&str> = FIRMWARE.into_iter().chain(super::seed::RUNGS).collect();
        let mut conditions = Vec::new();
        for item in items {
            match &item.node {
                Node::Text(word) if known.contains(&word.as_str()) => conditions.push(word.clone()),
                Node::Text(word) => {
                    let message = format!("`{word}` is no firmware and no way to deliver a seed");
                    let finding = crate::config::Finding::at(&item.place, step.name("when"), message);
                    self.findings.push(finding.help(format!("there are: {}", known.join(", "))));
                }
                other => {
                    let message = format!("expected a string, found {}", other.kind());
                    self.findings.push(crate::config::Finding::at(&item.place, step.name("when"), message));
                }
            }
        }
        conditions
    }

    fn step_of(&mut self, kind: &str, step: &mut Reader<'_>) -> Option<BootStep> {
        match kind {
            "wait-for" => {
                let sight = self.sight(step, "wait-for");
                let still_for = step.time("still-for", &mut self.findings);
                let or_after = step.time("or-after", &mut self.findings);
                let within = step.time("within", &mut self.findings);
                if or_after.is_some() && within.is_some() {
                    let finding = step.finding("within", "`within` and `or-after` exclude each other");
                    let help = "`within` fails when the time is over, `or-after` goes on with a warning";
                    self.findings.push(finding.help(help));
                }
                sight.map(|sight| BootStep::WaitFor {
                    sight,
                    within: or_after.or(within).unwrap_or(WITHIN),
                    or_after: or_after.is_some(),
                    still_for,
                })
            }
            "expect" => {
                let within = step.time("within", &mut self.findings).unwrap_or(WITHIN);
                let readers = step.tables("expect", &mut self.findings);
                if readers.is_empty() {
                    let finding = step.finding("expect", "this expects nothing");
                    self.findings.push(finding.help("expect = [{ text = \"…\", steps = […] }, …]"));
                }
                let outcomes = readers.into_iter().filter_map(|reader| self.outcome(reader)).collect();
                Some(BootStep::Expect { outcomes, within })
            }
            "until" => {
                let sight = self.sight(step, "until");
                let every = step.time("every", &mut self.findings).unwrap_or(EVERY);
                let within = step.time("within", &mut self.findings).unwrap_or(WITHIN);
                if step.any("press").is_none() {
                    let finding = step.finding("until", "`until` needs the keys to be pressed until then");
                    self.findings.push(finding.help("until = \"GRUB\", press = \"<esc>\""));
                    return None;
                }
                let press = self.keys(step, "press")?;
                Some(BootStep::Until { sight: sight?, press, every, within })
            }
            "wait-still" => {
                let quiet = step.time("wait-still", &mut self.findings);
                let within = step.time("within", &mut self.findings).unwrap_or(WITHIN);
                quiet.map(|quiet| BootStep::WaitStill { quiet, within })
            }
            "wait" => step.time("wait", &mut self.findings).map(BootStep::Wait),
            "type" => {
                let echo = match step.word("echo", &["required", "if-seen", "none"], &mut self.findings) {
                    Some(word) if word == "if-seen" => EchoWish::IfSeen,
                    Some(word) if word == "none" => EchoWish::None,
                    _ => EchoWish::Required,
                };
                let enter = step.flag("enter", &mut self.findings).unwrap_or(false);
                let layout = self.layout(step);
                let text = self.late(step, "type")?;
                self.typable(step, &text, layout);
                Some(BootStep::Type { text, echo, enter, layout: layout.name().to_owned() })
            }
            "keys" => self.keys(step, "keys").map(BootStep::Keys),
            _ => self.keys(step, "command").map(BootStep::Keys),
        }
    }

    /// What an `expect` step is ready for.
    fn outcome(&mut self, mut reader: Reader<'_>) -> Option<Outcome> {
        let given = ["text", "regex", "needle"].into_iter().filter(|key| reader.any(key).is_some()).count();
        if given != 1 {
            let message = "an outcome needs a `text`, a `regex` or a `needle`, and only one";
            self.findings.push(reader.finding("text", message));
        }
        let wanted = match reader.any("text") {
            Some(_) => self.late(&mut reader, "text").map(Wanted::Text),
            None => self.picture_or_expression(&mut reader),
        };
        let (lines, columns) = self.region(&mut reader);
        let sight = self.in_a_part(&reader, "needle", wanted, lines, columns);
        let steps = self.boot_steps(&mut reader);
        let again = reader.flag("again", &mut self.findings).unwrap_or(false);
        let fail = reader.raw_text("fail", &mut self.findings);
        if fail.is_some() && (again || !steps.is_empty()) {
            let finding =
                reader.finding("fail", "`fail` ends the build: `steps` and `again` make no sense with it");
            self.findings.push(finding);
        }
        if again && steps.is_empty() && fail.is_none() {
            let finding =
                reader.finding("again", "`again` without `steps` would find the same screen at once");
            self.findings.push(finding.help("give the steps that make it go away"));
        }
        reader.done(&mut self.findings);
        Some(Outcome { sight: sight?, steps, again, fail })
    }

    /// `KEY = "text"` or `KEY = { regex = "…" }`, with `lines` and `columns` beside it.
    fn sight(&mut self, step: &mut Reader<'_>, key: &'static str) -> Option<Sight> {
        let wanted = match step.any(key).map(|spot| &spot.node) {
            Some(Node::Table(_)) => {
                let mut inner = step.table(key, &mut self.findings)?;
                let known: &[&str] =
                    if key == "wait-for" { &["regex", "needle", "serial"] } else { &["regex", "needle"] };
                let given = known.iter().filter(|key| inner.any(key).is_some()).count();
                if given != 1 {
                    let finding = inner.finding("regex", "this needs a `regex` or a `needle`, and only one");
                    let help = "write { regex = \"…\" }, { needle = \"file.png\" }, or the text itself";
                    self.findings.push(finding.help(help));
                }
                let wanted = match inner.any("serial").filter(|_| key == "wait-for") {
                    Some(_) => self.expression(&mut inner, "serial").map(Wanted::Serial),
                    None => self.picture_or_expression(&mut inner),
                };
                inner.done(&mut self.findings);
                wanted
            }
            _ => self.late(step, key).map(Wanted::Text),
        };
        let (lines, columns) = self.region(step);
        self.in_a_part(step, key, wanted, lines, columns)
    }

    /// A needle is looked for everywhere.
    fn in_a_part(
        &mut self,
        step: &Reader<'_>,
        key: &str,
        wanted: Option<Wanted>,
        lines: Part,
        columns: Part,
    ) -> Option<Sight> {
        let wanted = wanted?;
        let whole = match wanted {
            Wanted::Needle(_) => Some(("a needle", "a needle is looked for on the whole screen")),
            Wanted::Serial(_) => Some(("the serial port", "a serial port has no screen")),
            Wanted::Text(_) | Wanted::Regex(_) => None,
        };
        if let Some((what, help)) = whole.filter(|_| lines.is_some() || columns.is_some()) {
            let message = format!("`lines` and `columns` are parts of a text, and this is {what}");
            self.findings.push(step.finding(key, message).help(help));
        }
        Some(Sight { wanted, lines, columns })
    }

    fn picture_or_expression(&mut self, reader: &mut Reader<'_>) -> Option<Wanted> {
        match reader.any("needle") {
            Some(_) => self.needle(reader).map(Wanted::Needle),
            None => self.expression(reader, "regex").map(Wanted::Regex),
        }
    }

    /// `needle = "file.png"`, with `areas` and `match` beside it.
    fn needle(&mut self, reader: &mut Reader<'_>) -> Option<NeedleWish> {
        let path = reader.text("needle", &mut self.findings)?;
        let percent = match reader.any("match").map(|spot| &spot.node) {
            None => DEFAULT_MATCH,
            Some(Node::Integer(percent)) if (50..=100).contains(percent) => {
                u8::try_from(*percent).unwrap_or(DEFAULT_MATCH)
            }
            Some(_) => {
                let finding = reader.finding("match", "`match` is a whole number of percent, 50 to 100");
                self.findings.push(finding);
                return None;
            }
        };
        let mut areas = Vec::new();
        for text in reader.texts("areas", &mut self.findings).unwrap_or_default() {
            let numbers: Vec<Option<u32>> =
                text.split(',').map(|number| number.trim().parse().ok()).collect();
            let [Some(left), Some(top), Some(width), Some(height)] = *numbers.as_slice() else {
                let finding = reader.finding("areas", format!("`{text}` is no area"));
                let help = "left, top, width and height in pixels of the picture: \"120,40,80,24\"";
                self.findings.push(finding.help(help));
                return None;
            };
            areas.push([left, top, width, height]);
        }
        let file = beside(reader.place_of("needle"), &path);
        let bytes = match (self.context.read_bytes)(&file) {
            Ok(bytes) if bytes.len() <= LARGEST_NEEDLE => bytes,
            Ok(bytes) => {
                let message = format!("the needle {} has {} bytes", file.display(), bytes.len());
                let finding = reader.finding("needle", message);
                let help = format!("cut out what matters: at most {} KiB", LARGEST_NEEDLE / 1024);
                self.findings.push(finding.help(help));
                return None;
            }
            Err(error) => {
                let message = format!("the needle {} can't be read: {error}", file.display());
                let finding = reader.finding("needle", message);
                self.findings.push(finding.help("paths are relative to the file that names them"));
                return None;
            }
        };
        let png = base64::engine::general_purpose::STANDARD.encode(bytes);
        let wish = NeedleWish { name: path, png, areas, percent };
        if let Err(error) = wish.needle() {
            let message = crate::engine::error::chain(&error);
            self.findings
                .push(reader.finding("needle", message).help("a PNG of a screen, or a piece of one"));
            return None;
        }
        Some(wish)
    }

    fn expression(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<String> {
        let text = reader.raw_text(key, &mut self.findings)?;
        match forge_console::Pattern::regex(&text) {
            Ok(pattern) if pattern.is_in_blank_lines() => {
                let message = format!("`{text}` matches a blank line, and so any screen");
                self.findings.push(reader.finding(key, message).help("name words that only this screen has"));
                None
            }
            Ok(_) => Some(text),
            Err(error) => {
                let message = format!("`{text}` is no regular expression: {error}");
                self.findings.push(reader.finding(key, message));
                None
            }
        }
    }

    /// `lines = "20-25"` and `columns = "1-40"`.
    fn region(&mut self, reader: &mut Reader<'_>) -> (Part, Part) {
        let mut part = |key: &'static str| {
            let text = reader.raw_text(key, &mut self.findings)?;
            let (first, last) = text.split_once('-').unwrap_or((&text, &text));
            match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
                (Ok(first), Ok(last)) if 0 < first && first <= last => Some((first, last)),
                _ => {
                    let finding = reader.finding(key, format!("`{text}` names no {key}"));
                    self.findings.push(finding.help("count from 1: \"20-25\", or \"25\""));
                    None
                }
            }
        };
        (part("lines"), part("columns"))
    }

    fn layout(&mut self, step: &mut Reader<'_>) -> Layout {
        if let Some(Node::Text(name)) = step.any("layout").map(|spot| &spot.node)
            && let Some(layout) = Layout::by_name(name)
        {
            return layout;
        }
        step.word("layout", &Layout::NAMES, &mut self.findings);
        Layout::default()
    }

    /// Whether the layout has keys for the text; what is filled in later is typed as it comes.
    fn typable(&mut self, step: &Reader<'_>, text: &Template, layout: Layout) {
        let late = text.to_late(|_| String::new());
        let known = late.parts().iter().filter_map(|part| match part {
            LatePart::Text(text) => Some(text.chars()),
            LatePart::Late(_) => None,
        });
        if let Some(character) = known.flatten().find(|c| c.is_control() || layout.strokes(*c).is_none()) {
            let name = layout.name();
            let finding = step.finding("type", format!("no key of a keyboard {name:?} types {character:?}"));
            self.findings.push(finding.help("name the guest's `layout`, or press keys with a `keys` step"));
        }
    }

    fn late(&mut self, step: &mut Reader<'_>, key: &'static str) -> Option<Template> {
        let text = step.raw_text(key, &mut self.findings)?;
        if text.is_empty() {
            self.findings.push(step.finding(key, format!("`{}` is empty", step.name(key))));
            return None;
        }
        let place = step.place_of(key).clone();
        Some(self.templated(&text, Scope::Late, &step.name(key), &place))
    }

    /// Keys in the boot-command language; `command` also takes Packer's array of strings.
    fn keys(&mut self, step: &mut Reader<'_>, key: &'static str) -> Option<Template> {
        let template = match step.any(key).map(|spot| &spot.node) {
            Some(Node::List(_)) if key == "command" => {
                let text = step.texts(key, &mut self.findings)?.concat();
                if text.is_empty() {
                    self.findings.push(step.finding(key, format!("`{}` is empty", step.name(key))));
                    return None;
                }
                let place = step.place_of(key).clone();
                self.templated(&text, Scope::Late, &step.name(key), &place)
            }
            _ => self.late(step, key)?,
        };
        // The values that are filled in later hold no tags; a letter stands for them.
        let sample: String = template
            .to_late(|_| "x".into())
            .parts()
            .iter()
            .map(|part| match part {
                LatePart::Text(text) => text.as_str(),
                LatePart::Late(_) => "x",
            })
            .collect();
        match boot_command::parse(&sample) {
            Ok(actions) => {
                for piece in boot_command::unended(&sample) {
                    let finding = step.finding(key, format!("`{piece}` has no `>` and is typed as letters"));
                    let help = format!("write `{piece}>`, or `<lt>` for the character `<`");
                    self.findings.push(finding.warning().help(help));
                }
                self.lint_keys(step, key, &actions);
            }
            Err(mistakes) => {
                self.findings.extend(mistakes.iter().map(|mistake| step.finding(key, mistake.to_string())));
                return None;
            }
        }
        Some(template)
    }
}
