//! Renders answer-file templates with tera, strictly.
//!
//! * An undefined variable is an error, in `{% if %}` and filter arguments too: the syntax tree is walked before
//!   anything is rendered.
//! * A value goes in through a filter for the language of the file (`|yaml`, `|yaml_document`, `|sh`, `|ks`,
//!   `|debconf`, `|xml`, `|json`), so that no value can break out of its place; [`lint`] tells bare insertions.
//! * A template can't reach files, the environment or the clock.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use tera::ast::{Expr, ExprVal, FunctionCall, MacroCall, Node, StringConcat};
use tera::{Context, Tera};
use thiserror::Error;

/// A template could not be rendered.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The template's syntax is wrong.
    #[error("the template {template} can't be read")]
    Syntax {
        /// The template's name.
        template: String,
        /// tera's own words, with line and column.
        #[source]
        source: Box<tera::Error>,
    },
    /// The template names variables that nobody gives it.
    #[error("the template {template} uses what is not defined: {}", names.join(", "))]
    Undefined {
        /// The template's name.
        template: String,
        /// The variables.
        names: Vec<String>,
    },
    /// A filter refused a value.
    #[error("the template {template} can't be rendered")]
    Render {
        /// The template's name.
        template: String,
        /// tera's own words.
        #[source]
        source: Box<tera::Error>,
    },
}

/// The filters through which a value may go in.
pub const ESCAPES: [&str; 7] = ["yaml", "yaml_document", "sh", "ks", "debconf", "xml", "json"];

/// Renders a template with the values of an object.
///
/// # Errors
/// When its syntax is wrong, it uses something undefined, or a filter refuses a value.
pub fn render(name: &str, text: &str, values: &Value) -> Result<String, RenderError> {
    let tera = parse(name, text)?;
    let known: BTreeSet<&str> =
        values.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let mut names: Vec<String> = used(&tera, name)
        .into_iter()
        .filter(|path| {
            let root = path.split(['.', '[']).next().unwrap_or_default();
            !known.contains(root) || !defined(values, path)
        })
        .collect();
    names.dedup();
    if !names.is_empty() {
        return Err(RenderError::Undefined { template: name.to_owned(), names });
    }
    let render =
        |source: tera::Error| RenderError::Render { template: name.to_owned(), source: Box::new(source) };
    let context = Context::from_value(values.clone()).map_err(render)?;
    tera.render(name, &context).map_err(render)
}

/// Bare insertions: expressions whose last filter is no escape, each as the template's own words for it.
///
/// # Errors
/// When the template's syntax is wrong.
pub fn lint(name: &str, text: &str) -> Result<Vec<String>, RenderError> {
    let tera = parse(name, text)?;
    let mut found = Vec::new();
    if let Ok(template) = tera.get_template(name) {
        bare(&template.ast, &mut found);
    }
    Ok(found)
}

fn parse(name: &str, text: &str) -> Result<Tera, RenderError> {
    let mut tera = Tera::default();
    tera.autoescape_on(Vec::new());
    tera.register_filter("yaml", yaml);
    tera.register_filter("yaml_document", yaml_document);
    tera.register_filter("json", |value: &Value, _: &HashMap<String, Value>| {
        Ok(Value::String(value.to_string()))
    });
    tera.register_filter("sh", sh);
    tera.register_filter("ks", one_line);
    tera.register_filter("debconf", one_line);
    tera.register_filter("xml", xml);
    tera.add_raw_template(name, text)
        .map_err(|source| RenderError::Syntax { template: name.to_owned(), source: Box::new(source) })?;
    Ok(tera)
}

fn plain(value: &Value) -> tera::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(tera::Error::msg(format!("`{other}` is no text, number or truth value"))),
    }
}

/// A value within a line of YAML: quoted where YAML would read it as something else.
fn yaml(value: &Value, _: &HashMap<String, Value>) -> tera::Result<Value> {
    let text = plain(value)?;
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(simple);
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let safe = word && !reserved.contains(&text.to_ascii_lowercase().as_str());
    let quoted = if value.is_string() && !safe { yaml_quoted(&text) } else { text };
    Ok(Value::String(quoted))
}

/// JSON's strings are YAML's double-quoted ones, but for the characters that YAML does not count as printable
/// (YAML 1.2.2, production 1).
fn yaml_quoted(text: &str) -> String {
    let mut out = String::new();
    for character in Value::String(text.to_owned()).to_string().chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out
}

/// A whole value as a document of YAML.
fn yaml_document(value: &Value, _: &HashMap<String, Value>) -> tera::Result<Value> {
    // Keys and commands stay on one line, as people and simple readers expect them.
    let options = serde_yaml::ser_options! { prefer_block_scalars: false };
    let text = serde_yaml::to_string_with_options(value, options)
        .map_err(|error| tera::Error::msg(error.to_string()))?;
    Ok(Value::String(text.trim_end().to_owned()))
}

/// A single word of the shell.
fn sh(value: &Value, _: &HashMap<String, Value>) -> tera::Result<Value> {
    let text = plain(value)?;
    if text.contains('\0') {
        return Err(tera::Error::msg("a shell word can't hold a NUL character"));
    }
    Ok(Value::String(format!("'{}'", text.replace('\'', r"'\''"))))
}

/// A value of a file whose lines are commands (kickstart, preseed): nothing that would begin another line.
fn one_line(value: &Value, _: &HashMap<String, Value>) -> tera::Result<Value> {
    let text = plain(value)?;
    if text.chars().any(char::is_control) {
        return Err(tera::Error::msg(format!(
            "{text:?} holds control characters, which would begin another line"
        )));
    }
    Ok(Value::String(text))
}

/// Text or an attribute's value in XML.
fn xml(value: &Value, _: &HashMap<String, Value>) -> tera::Result<Value> {
    let text = plain(value)?;
    if let Some(bad) = text.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(tera::Error::msg(format!("XML can't hold the character {bad:?}")));
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            other => out.push(other),
        }
    }
    Ok(Value::String(out))
}

/// Whether a dotted path leads to something in the values (`null` counts: it is given, and empty).
fn defined(values: &Value, path: &str) -> bool {
    let mut at = values;
    for piece in path.split('.') {
        let name = piece.split('[').next().unwrap_or_default();
        match at.get(name) {
            Some(next) => at = next,
            // Only what can have names can lack one; an index is left to the rendering.
            None => return at.is_array() || piece.contains('['),
        }
    }
    true
}

/// The variables that a template takes from outside.
fn used(tera: &Tera, name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if let Ok(template) = tera.get_template(name) {
        let mut scope = vec!["loop".to_owned()];
        walk(&template.ast, &mut scope, &mut names);
    }
    names
}

fn walk(nodes: &[Node], scope: &mut Vec<String>, names: &mut BTreeSet<String>) {
    for node in nodes {
        match node {
            Node::VariableBlock(_, expr) => in_expr(expr, scope, names),
            Node::Set(_, set) => {
                in_expr(&set.value, scope, names);
                scope.push(set.key.clone());
            }
            Node::FilterSection(_, section, _) => {
                in_call(&section.filter, scope, names);
                walk(&section.body, scope, names);
            }
            Node::Forloop(_, forloop, _) => {
                in_expr(&forloop.container, scope, names);
                let outside = scope.len();
                scope.push(forloop.value.clone());
                scope.extend(forloop.key.clone());
                walk(&forloop.body, scope, names);
                scope.truncate(outside);
                if let Some(body) = &forloop.empty_body {
                    walk(body, scope, names);
                }
            }
            Node::If(condition, _) => {
                for (_, expr, body) in &condition.conditions {
                    in_expr(expr, scope, names);
                    walk(body, scope, names);
                }
                if let Some((_, body)) = &condition.otherwise {
                    walk(body, scope, names);
                }
            }
            Node::Block(_, block, _) => walk(&block.body, scope, names),
            Node::MacroDefinition(_, definition, _) => {
                let outside = scope.len();
                scope.extend(definition.args.keys().cloned());
                walk(&definition.body, scope, names);
                scope.truncate(outside);
            }
            _ => {}
        }
    }
}

fn in_expr(expr: &Expr, scope: &[String], names: &mut BTreeSet<String>) {
    in_value(&expr.val, scope, names);
    for filter in &expr.filters {
        in_call(filter, scope, names);
    }
}

fn in_call(call: &FunctionCall, scope: &[String], names: &mut BTreeSet<String>) {
    for argument in call.args.values() {
        in_expr(argument, scope, names);
    }
}

fn in_macro(call: &MacroCall, scope: &[String], names: &mut BTreeSet<String>) {
    for argument in call.args.values() {
        in_expr(argument, scope, names);
    }
}

fn in_value(value: &ExprVal, scope: &[String], names: &mut BTreeSet<String>) {
    match value {
        ExprVal::Ident(path) => {
            let root = path.split(['.', '[']).next().unwrap_or_default();
            if !scope.iter().any(|local| local == root) {
                names.insert(path.clone());
            }
        }
        ExprVal::Math(math) => {
            in_expr(&math.lhs, scope, names);
            in_expr(&math.rhs, scope, names);
        }
        ExprVal::Logic(logic) => {
            in_expr(&logic.lhs, scope, names);
            in_expr(&logic.rhs, scope, names);
        }
        ExprVal::Test(test) => {
            // `is defined` asks about what may be missing: that is its purpose.
            if test.name != "defined" && test.name != "undefined" {
                in_value(&ExprVal::Ident(test.ident.clone()), scope, names);
            }
            for argument in &test.args {
                in_expr(argument, scope, names);
            }
        }
        ExprVal::MacroCall(call) => in_macro(call, scope, names),
        ExprVal::FunctionCall(call) => in_call(call, scope, names),
        ExprVal::Array(items) => items.iter().for_each(|item| in_expr(item, scope, names)),
        ExprVal::StringConcat(StringConcat { values }) => {
            values.iter().for_each(|value| in_value(value, scope, names));
        }
        ExprVal::In(within) => {
            in_expr(&within.lhs, scope, names);
            in_expr(&within.rhs, scope, names);
        }
        ExprVal::String(_) | ExprVal::Int(_) | ExprVal::Float(_) | ExprVal::Bool(_) => {}
    }
}

fn bare(nodes: &[Node], found: &mut Vec<String>) {
    for node in nodes {
        match node {
            Node::VariableBlock(_, expr) => {
                let escaped =
                    expr.filters.last().is_some_and(|filter| ESCAPES.contains(&filter.name.as_str()));
                if let (ExprVal::Ident(name), false) = (&expr.val, escaped) {
                    found.push(name.clone());
                }
            }
            Node::Forloop(_, forloop, _) => bare(&forloop.body, found),
            Node::If(condition, _) => {
                condition.conditions.iter().for_each(|(_, _, body)| bare(body, found));
                condition.otherwise.iter().for_each(|(_, body)| bare(body, found));
            }
            Node::Block(_, block, _) => bare(&block.body, found),
            Node::FilterSection(_, section, _) => bare(&section.body, found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_undefined_variable_is_an_error_wherever_it_stands() {
        for text in [
            "{{ nosuch | yaml }}",
            "{% if nosuch %}x{% endif %}",
            "{% if known and nosuch %}x{% endif %}",
            "{% for x in nosuch %}{% endfor %}",
            "{{ known | default(value=nosuch) | yaml }}",
            "{{ table.nosuch | yaml }}",
            "{% set local = nosuch %}",
        ] {
            let error = render("t", text, &json!({ "known": false, "table": {} })).expect_err(text);
            assert!(
                matches!(&error, RenderError::Undefined { names, .. } if names[0].ends_with("nosuch")),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn locals_are_no_undefined_variables() {
        let text =
            "{% set a = known %}{% for x in list %}{{ x | sh }}{{ a | sh }}{{ loop.index }}{% endfor %}";
        let out = render("t", text, &json!({ "known": "k", "list": ["1", "2"] })).expect("renders");
        assert_eq!(out, "'1''k'1'2''k'2");
    }

    #[test]
    fn a_bare_insertion_is_told() {
        let text = "{{ a }}{{ b | upper }}{{ c | yaml }}{% if a %}{{ d }}{% endif %}";
        assert_eq!(lint("t", text).expect("readable"), ["a", "b", "d"]);
    }

    #[test]
    fn a_line_break_can_not_begin_another_line_of_a_kickstart() {
        let error =
            render("t", "timezone {{ zone | ks }}", &json!({ "zone": "UTC\nreboot" })).expect_err("refused");
        assert!(matches!(error, RenderError::Render { .. }));
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_yaml(value in ".*") {
            let out = render("t", "a: {{ v | yaml }}\nb: 1\n", &json!({ "v": value })).expect("renders");
            let read: Value = serde_yaml::from_str(&out).expect("YAML");
            prop_assert_eq!(read, json!({ "a": value, "b": 1 }));
        }

        #[test]
        fn no_value_breaks_out_of_the_shell(value in "[^\0]*") {
            let out = render("t", "printf %s {{ v | sh }}", &json!({ "v": value })).expect("renders");
            let shell = std::process::Command::new("sh").arg("-c").arg(&out).output().expect("sh runs");
            prop_assert_eq!(String::from_utf8_lossy(&shell.stdout), value);
        }
    }
}
