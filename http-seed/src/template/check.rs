//! Finds what a template uses and nobody gives it, before anything is rendered.
//!
//! The whole syntax tree is walked, branches that would not be taken included. A loop's variable is checked against
//! every element of what it runs over where that is known. What depends on values made while rendering is left to
//! tera, which refuses an undefined name in `{{ }}` itself.

use std::collections::BTreeMap;

use serde_json::Value;
use tera::Tera;
use tera::ast::{Expr, ExprVal, Forloop, FunctionCall, If, Node, Set};

use super::bounds::EXPANSIONS;
use super::path::{Step, split};
use super::scan::Tag;
use super::{Problem, ProblemKind};

/// Functions that a template may call: the others reach the environment.
const FUNCTIONS: [&str; 2] = ["range", "throw"];
/// Filters that tera knows without having registered them.
const BUILT_IN_FILTERS: [&str; 2] = ["default", "safe"];
/// What a loop tells about itself.
const LOOP: [&str; 4] = ["index", "index0", "first", "last"];

/// A name made by the template itself, with all values it may have, where they are known.
#[derive(Clone, Debug)]
struct Local<'a> {
    name: String,
    values: Option<Vec<&'a Value>>,
}

/// What a path leads to.
enum Found<'a> {
    /// Nothing.
    Missing,
    /// One of these, or something that is only known when rendering.
    Values(Option<Vec<&'a Value>>),
}

pub(super) struct Check<'a> {
    tera: &'a Tera,
    /// `None` within a macro, which sees its arguments only.
    values: Option<&'a Value>,
    tags: &'a [Tag<'a>],
    at: usize,
    scope: Vec<Local<'a>>,
    macros: Vec<Macro<'a>>,
    /// Whether a macro's definition is walked: the last of `macros`.
    in_macro: bool,
    problems: Vec<Problem>,
}

/// A macro with the macros that it calls.
struct Macro<'a> {
    name: String,
    tag: Tag<'a>,
    calls: Vec<String>,
}

impl<'a> Check<'a> {
    /// Everything wrong with a template's names.
    pub(super) fn run(
        tera: &'a Tera,
        nodes: &[Node],
        values: &'a Value,
        tags: &'a [Tag<'a>],
    ) -> Vec<Problem> {
        let mut check = Self {
            tera,
            values: Some(values),
            tags,
            at: 0,
            scope: Vec::new(),
            macros: Vec::new(),
            in_macro: false,
            problems: Vec::new(),
        };
        check.nodes(nodes);
        check.expansions();
        check.problems.dedup();
        check.problems
    }

    fn tag(&mut self) -> Tag<'a> {
        let tag = self.tags.get(self.at).copied();
        self.at += 1;
        tag.unwrap_or(Tag { text: "", line: 1, column: 1, before: "", at: 0 })
    }

    fn problem(&mut self, tag: Tag<'a>, name: &str, kind: ProblemKind) {
        let (line, column) = tag.place_of(name);
        self.problems.push(Problem { name: name.to_owned(), line, column, kind });
    }

    fn local(&mut self, name: &str, values: Option<Vec<&'a Value>>) {
        self.scope.push(Local { name: name.to_owned(), values });
    }

    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            match node {
                Node::Text(_) | Node::Raw(..) | Node::Comment(..) => {}
                Node::Break(_) | Node::Continue(_) | Node::Super => {
                    self.tag();
                }
                Node::VariableBlock(_, expr) => {
                    let tag = self.tag();
                    self.expr(expr, tag);
                }
                Node::Set(_, set) => self.set(set),
                Node::FilterSection(_, section, _) => {
                    let tag = self.tag();
                    self.filter(&section.filter, tag);
                    self.nodes(&section.body);
                    self.tag();
                }
                Node::Forloop(_, forloop, _) => self.forloop(forloop),
                Node::If(condition, _) => self.condition(condition),
                Node::Block(_, block, _) => {
                    self.tag();
                    self.nodes(&block.body);
                    self.tag();
                }
                Node::MacroDefinition(_, definition, _) => {
                    let tag = self.tag();
                    self.macros.push(Macro { name: definition.name.clone(), tag, calls: Vec::new() });
                    self.in_macro = true;
                    let (values, outside) = (self.values.take(), std::mem::take(&mut self.scope));
                    definition.args.keys().for_each(|name| self.local(name, None));
                    self.nodes(&definition.body);
                    (self.values, self.scope) = (values, outside);
                    self.in_macro = false;
                    self.tag();
                }
                Node::Extends(..) => self.other_file("extends"),
                Node::Include(..) => self.other_file("include"),
                Node::ImportMacro(..) => self.other_file("import"),
            }
        }
    }

    /// A macro that leads back to itself would never end, and calls within calls multiply.
    fn expansions(&mut self) {
        if let Some(one) = self.macros.get(EXPANSIONS) {
            let (tag, name) = (one.tag, one.name.clone());
            return self.problem(tag, &name, ProblemKind::Expansion);
        }
        // What a call of each comes to, from those that call nothing on.
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let mut left: Vec<&Macro<'a>> = self.macros.iter().collect();
        loop {
            let before = left.len();
            left.retain(|each| {
                let mut sum = Some(1_usize);
                for call in &each.calls {
                    // A macro that is not there is told by tera.
                    let there = self.macros.iter().any(|other| other.name == *call);
                    let more = if there { known.get(call.as_str()).copied() } else { Some(1) };
                    sum = sum.zip(more).map(|(sum, more)| sum.saturating_add(more));
                }
                if let Some(sum) = sum {
                    known.insert(&each.name, sum);
                }
                sum.is_none()
            });
            if left.len() == before {
                break;
            }
        }
        let mut told: Vec<(Tag<'a>, String, ProblemKind)> = Vec::new();
        for each in &self.macros {
            match known.get(each.name.as_str()) {
                None => told.push((each.tag, each.name.clone(), ProblemKind::Recursion)),
                Some(sum) if *sum > EXPANSIONS => {
                    told.push((each.tag, each.name.clone(), ProblemKind::Expansion));
                    break;
                }
                Some(_) => {}
            }
        }
        told.into_iter().for_each(|(tag, name, kind)| self.problem(tag, &name, kind));
    }

    fn other_file(&mut self, word: &str) {
        let tag = self.tag();
        self.problem(tag, word, ProblemKind::OtherFile);
    }

    fn set(&mut self, set: &Set) {
        let tag = self.tag();
        let values = self.expr(&set.value, tag);
        if set.global {
            // Set in a loop, seen after it: what the name meant before is no longer all it may mean.
            let known = self.scope.iter_mut().filter(|local| local.name == set.key);
            known.for_each(|local| local.values = None);
        }
        self.local(&set.key, values.filter(|_| !set.global));
    }

    fn forloop(&mut self, forloop: &Forloop) {
        let tag = self.tag();
        let container = self.expr(&forloop.container, tag);
        let mut elements = Some(Vec::new());
        for value in container.iter().flatten() {
            match (value, &mut elements) {
                (Value::Array(items), Some(elements)) => elements.extend(items),
                (Value::Object(table), Some(elements)) => elements.extend(table.values()),
                _ => elements = None,
            }
        }
        let outside = self.scope.len();
        self.local("loop", None);
        self.local(&forloop.value, container.and(elements));
        if let Some(key) = &forloop.key {
            self.local(key, None);
        }
        self.nodes(&forloop.body);
        self.scope.truncate(outside);
        if let Some(body) = &forloop.empty_body {
            self.tag();
            self.nodes(body);
            self.scope.truncate(outside);
        }
        self.tag();
    }

    /// After the condition a name is known when every way through it sets it.
    fn condition(&mut self, condition: &If) {
        let outside = self.scope.len();
        let mut ways: Vec<Vec<String>> = Vec::new();
        for (_, expr, body) in &condition.conditions {
            let tag = self.tag();
            self.expr(expr, tag);
            self.nodes(body);
            ways.push(self.scope.drain(outside..).map(|local| local.name).collect());
        }
        if let Some((_, body)) = &condition.otherwise {
            self.tag();
            self.nodes(body);
            ways.push(self.scope.drain(outside..).map(|local| local.name).collect());
            let (first, others) = ways.split_first().map_or((&[][..], &[][..]), |(a, b)| (a.as_slice(), b));
            let always: Vec<&String> =
                first.iter().filter(|name| others.iter().all(|way| way.contains(name))).collect();
            always.into_iter().for_each(|name| self.local(name, None));
        }
        self.tag();
    }

    /// The values that an expression may have, where they are known.
    fn expr(&mut self, expr: &Expr, tag: Tag<'a>) -> Option<Vec<&'a Value>> {
        let may_lack = expr.filters.first().is_some_and(|filter| filter.name == "default");
        let values = self.value(&expr.val, tag, may_lack);
        expr.filters.iter().for_each(|filter| self.filter(filter, tag));
        values.filter(|_| expr.filters.is_empty() && !expr.negated)
    }

    fn filter(&mut self, filter: &FunctionCall, tag: Tag<'a>) {
        let known =
            BUILT_IN_FILTERS.contains(&filter.name.as_str()) || self.tera.get_filter(&filter.name).is_ok();
        if !known {
            self.problem(tag, &filter.name, ProblemKind::NoFilter);
        }
        filter.args.values().for_each(|argument| {
            self.expr(argument, tag);
        });
    }

    fn both(&mut self, lhs: &Expr, rhs: &Expr, tag: Tag<'a>) {
        self.expr(lhs, tag);
        self.expr(rhs, tag);
    }

    fn value(&mut self, value: &ExprVal, tag: Tag<'a>, may_lack: bool) -> Option<Vec<&'a Value>> {
        match value {
            ExprVal::Ident(path) => return self.ident(path, tag, may_lack),
            ExprVal::Math(math) => self.both(&math.lhs, &math.rhs, tag),
            ExprVal::Logic(logic) => self.both(&logic.lhs, &logic.rhs, tag),
            ExprVal::In(within) => self.both(&within.lhs, &within.rhs, tag),
            ExprVal::Test(test) => {
                // `is defined` is for a table's optional member; the table itself must be given.
                self.ident(&test.ident, tag, matches!(test.name.as_str(), "defined" | "undefined"));
                if self.tera.get_tester(&test.name).is_err() {
                    self.problem(tag, &test.name, ProblemKind::NoTest);
                }
                test.args.iter().for_each(|argument| {
                    self.expr(argument, tag);
                });
            }
            ExprVal::MacroCall(call) => {
                if let Some(within) = self.macros.last_mut().filter(|_| self.in_macro) {
                    within.calls.push(call.name.clone());
                }
                call.args.values().for_each(|argument| {
                    self.expr(argument, tag);
                });
            }
            ExprVal::FunctionCall(call) => {
                if !FUNCTIONS.contains(&call.name.as_str()) {
                    self.problem(tag, &call.name, ProblemKind::NoFunction);
                }
                call.args.values().for_each(|argument| {
                    self.expr(argument, tag);
                });
            }
            ExprVal::Array(items) => items.iter().for_each(|item| {
                self.expr(item, tag);
            }),
            ExprVal::StringConcat(concat) => concat.values.iter().for_each(|value| {
                self.value(value, tag, false);
            }),
            ExprVal::String(_) | ExprVal::Int(_) | ExprVal::Float(_) | ExprVal::Bool(_) => {}
        }
        None
    }

    fn ident(&mut self, path: &str, tag: Tag<'a>, may_lack: bool) -> Option<Vec<&'a Value>> {
        let (root, steps) = split(path);
        for step in &steps {
            if let Step::Dynamic(inner) = step {
                self.ident(inner, tag, false);
            }
        }
        match self.resolve(root, &steps, may_lack) {
            Found::Values(values) => values,
            Found::Missing => {
                self.problem(tag, path, ProblemKind::Undefined);
                None
            }
        }
    }

    fn resolve(&self, root: &str, steps: &[Step<'_>], may_lack: bool) -> Found<'a> {
        let local = self.scope.iter().rev().find(|local| local.name == root);
        if let (Some(_), "loop") = (local, root) {
            let known = matches!(steps, [Step::Name(name)] if LOOP.contains(name));
            return if known { Found::Values(None) } else { Found::Missing };
        }
        let start = match (local, self.values.and_then(|values| values.get(root))) {
            (Some(local), _) => local.values.clone(),
            (None, Some(value)) => Some(vec![value]),
            (None, None) => return Found::Missing,
        };
        let Some(mut values) = start else { return Found::Values(None) };
        for step in steps {
            let mut next = Vec::with_capacity(values.len());
            for value in values {
                match (step, value) {
                    (Step::Name(name), Value::Object(table)) => match table.get(*name) {
                        Some(value) => next.push(value),
                        None if may_lack => return Found::Values(None),
                        None => return Found::Missing,
                    },
                    // `null` is given, and empty. What an index leads to is left to the rendering.
                    (Step::Name(_), Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
                        return if may_lack { Found::Values(None) } else { Found::Missing };
                    }
                    _ => return Found::Values(None),
                }
            }
            values = next;
        }
        Found::Values(Some(values))
    }
}
