//! Finds insertions that a value could break out of, before any value is known.

use std::fmt;

use serde::Serialize;
use tera::ast::{Expr, ExprVal, Node};

use super::filters::ESCAPES;
use super::scan::{Tag, outside_tags};

/// Something wrong with a template, for whoever writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The template's name.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

pub(super) struct Lint<'a> {
    pub(super) file: &'a str,
    pub(super) tags: &'a [Tag<'a>],
    pub(super) at: usize,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Lint<'a> {
    fn tag(&mut self) -> Tag<'a> {
        let tag = self.tags.get(self.at).copied();
        self.at += 1;
        tag.unwrap_or(Tag { text: "", line: 1, column: 1, before: "", at: 0 })
    }

    fn finding(&mut self, tag: Tag<'a>, message: String, help: impl Into<String>) {
        let (file, line, column) = (self.file.to_owned(), tag.line, tag.column);
        self.findings.push(Finding { file, line, column, message, help: help.into() });
    }

    /// `escaped`: a filter around the whole section makes everything in it safe.
    pub(super) fn nodes(&mut self, nodes: &[Node], escaped: bool) {
        for node in nodes {
            match node {
                Node::Text(_) | Node::Raw(..) | Node::Comment(..) => {}
                Node::VariableBlock(_, expr) => {
                    let tag = self.tag();
                    if !escaped {
                        self.insertion(expr, tag);
                    }
                }
                Node::FilterSection(_, section, _) => {
                    let tag = self.tag();
                    let name = &section.filter.name;
                    let escapes = ESCAPES.contains(&name.as_str());
                    if !escapes && !escaped {
                        let message =
                            format!("the filter `{name}` changes values that were made safe before it");
                        self.finding(
                            tag,
                            message,
                            "use the filter on the value, before the filter for the language",
                        );
                    }
                    self.nodes(&section.body, escaped || escapes);
                    self.tag();
                }
                Node::Forloop(_, forloop, _) => {
                    self.tag();
                    self.nodes(&forloop.body, escaped);
                    if let Some(body) = &forloop.empty_body {
                        self.tag();
                        self.nodes(body, escaped);
                    }
                    self.tag();
                }
                Node::If(condition, _) => {
                    for (_, _, body) in &condition.conditions {
                        self.tag();
                        self.nodes(body, escaped);
                    }
                    if let Some((_, body)) = &condition.otherwise {
                        self.tag();
                        self.nodes(body, escaped);
                    }
                    self.tag();
                }
                Node::Block(_, block, _) => {
                    self.tag();
                    self.nodes(&block.body, escaped);
                    self.tag();
                }
                Node::MacroDefinition(_, definition, _) => {
                    self.tag();
                    self.nodes(&definition.body, false);
                    self.tag();
                }
                Node::Extends(..) | Node::Include(..) | Node::ImportMacro(..) => {
                    let tag = self.tag();
                    let message = "a template can't take in another one".to_owned();
                    self.finding(tag, message, "write what it needs into this file");
                }
                _ => {
                    self.tag();
                }
            }
        }
    }

    fn insertion(&mut self, expr: &Expr, tag: Tag<'a>) {
        let last = expr.filters.last().map(|filter| filter.name.as_str());
        match last.filter(|name| ESCAPES.contains(name)) {
            Some(escape) => self.surroundings(escape, tag),
            None if is_harmless(expr) => {}
            None => {
                let shown: String = tag.text.split_whitespace().collect::<Vec<_>>().join(" ");
                let message = format!("`{shown}` goes in as it is, so its value can break out of its place");
                let help = "end it with the filter for the file's language: `| yaml`, `| sh`, `| ks`, `| debconf`, \
                            `| xml` or `| json`";
                self.finding(tag, message, help);
            }
        }
    }

    /// These filters bring their own quotes: between others they would end those.
    fn surroundings(&mut self, escape: &str, tag: Tag<'a>) {
        if !matches!(escape, "yaml" | "sh" | "ks" | "json") {
            return;
        }
        let before = outside_tags(tag.before);
        if ends_within_quotes(&before) {
            let message =
                format!("the filter `{escape}` puts quotes where they are needed, and these end its own");
            self.finding(tag, message, "take the quotes around the insertion away");
        } else if escape == "yaml" && !begins_a_yaml_value(&before) {
            let message =
                "this insertion stands within a YAML value, where its quotes mean nothing".to_owned();
            self.finding(
                tag,
                message,
                "let it be the whole value: join texts within it, `{{ \"text \" ~ name | yaml }}`",
            );
        }
    }
}

/// Whether no value from outside goes in: a literal, a number made by the loop, or a macro's own text.
fn is_harmless(expr: &Expr) -> bool {
    match &expr.val {
        ExprVal::String(_) | ExprVal::Int(_) | ExprVal::Float(_) | ExprVal::Bool(_) => true,
        ExprVal::MacroCall(_) => expr.filters.is_empty(),
        ExprVal::Ident(name) => name.starts_with("loop."),
        ExprVal::Math(math) => is_harmless(&math.lhs) && is_harmless(&math.rhs),
        _ => false,
    }
}

fn ends_within_quotes(before: &str) -> bool {
    let mut quote = None;
    let mut characters = before.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None | Some('"'), '\\') => {
                characters.next();
            }
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            _ => {}
        }
    }
    quote.is_some()
}

fn begins_a_yaml_value(before: &str) -> bool {
    let trimmed = before.trim_end();
    match trimmed.chars().next_back() {
        None | Some('[' | '{' | ',') => true,
        Some(':' | '-' | '?') => trimmed.len() < before.len(),
        Some(_) => false,
    }
}
