//! The JSON Schemas of profiles and of the site file (`forge schema`), for editors that complete and check them, and of
//! `proof.json`, for programs that read it.
//!
//! [`profile`] and [`site`] list the keys with their forms and meanings; the tests try each of them on the readers of `config`. A schema says less than the readers: what
//! depends on other keys, on files or on variables only `forge validate` knows. Draft 7, which editors' TOML plug-ins
//! read.

mod profile;
mod proof;
mod site;
#[cfg(test)]
mod tests;

use forge_http_seed::answers::SPECS;
use serde_json::{Map, Value, json};

/// What a key's value may be.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A string.
    Text,
    /// True or false.
    Flag,
    /// An integer.
    Whole,
    /// An integer between two.
    Integer(u32, u32),
    /// An array of strings.
    Texts,
    /// A time such as `90s`.
    Time,
    /// A size such as `4GiB`, or an integer in the key's own unit.
    Size,
    /// One of some words.
    Word(&'static [&'static str]),
    /// An array of some words.
    Words(&'static [&'static str]),
    /// Whatever: Proxmox's own values, cloud-init's own data.
    Any,
    /// A table with these keys and no others.
    Table(Keys),
    /// An array of such tables.
    Tables(Keys),
    /// A table whose keys are free, with values of this form.
    Map(&'static Form),
    /// One of several forms.
    Either(&'static [Form]),
    /// An array of values of this form.
    List(&'static Form),
    /// A target of the site file.
    Target,
    /// Boot steps, which may hold boot steps.
    Steps,
    /// The settings of answer files.
    SeedVars,
    /// The seal operations.
    Seal,
}

/// The keys of a table: name, form, meaning.
type Keys = &'static [(&'static str, Form, &'static str)];

/// Which file a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A profile.
    Profile,
    /// The site file.
    Site,
    /// The proof of a build.
    Proof,
}

/// The schema of a file.
#[must_use]
pub fn schema(file: File) -> Value {
    let (title, keys, required) = match file {
        File::Proof => return proof::schema(),
        File::Profile => ("A profile of forge", profile::ROOT, json!(["schema"])),
        File::Site => ("The site file of forge (forge.toml)", site::ROOT, json!([])),
    };
    let mut schema = table(keys);
    let whole = Map::from_iter([
        ("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#")),
        ("title".to_owned(), json!(title)),
    ]);
    let mut whole = Value::Object(whole);
    if let (Value::Object(whole), Value::Object(own)) = (&mut whole, &mut schema) {
        whole.append(own);
        whole.insert("required".to_owned(), required);
        let definitions = match file {
            File::Profile => json!({ "step": table(profile::STEP) }),
            File::Site | File::Proof => json!({ "target": site::target() }),
        };
        whole.insert("definitions".to_owned(), definitions);
    }
    whole
}

fn table(keys: Keys) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|(name, form, meaning)| ((*name).to_owned(), described(form_schema(*form), meaning)))
        .collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn described(mut schema: Value, meaning: &str) -> Value {
    if let (Value::Object(schema), false) = (&mut schema, meaning.is_empty()) {
        schema.insert("description".to_owned(), json!(meaning));
    }
    schema
}

fn form_schema(form: Form) -> Value {
    match form {
        Form::Text => json!({ "type": "string" }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Whole => json!({ "type": "integer" }),
        Form::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Form::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Form::Time => json!({ "type": "string", "pattern": "^\\s*([0-9]+(ms|s|m|min|h|d))+\\s*$" }),
        Form::Size => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^\\s*[0-9]+\\s*(K|KiB|M|MiB|G|GiB|T|TiB)\\s*$" },
        ] }),
        Form::Word(words) => json!({ "type": "string", "enum": words }),
        Form::Words(words) => json!({ "type": "array", "items": { "type": "string", "enum": words } }),
        Form::Any => json!({}),
        Form::Table(keys) => table(keys),
        Form::Tables(keys) => json!({ "type": "array", "items": table(keys) }),
        Form::Map(values) => json!({ "type": "object", "additionalProperties": form_schema(*values) }),
        Form::Either(forms) => {
            let forms: Vec<Value> = forms.iter().map(|form| form_schema(*form)).collect();
            json!({ "anyOf": forms })
        }
        Form::List(items) => json!({ "type": "array", "items": form_schema(*items) }),
        Form::Target => json!({ "$ref": "#/definitions/target" }),
        Form::Steps => json!({ "type": "array", "items": { "$ref": "#/definitions/step" } }),
        Form::SeedVars => {
            let vars =
                SPECS.iter().map(|spec| (spec.name.to_owned(), json!({ "description": spec.description })));
            json!({ "type": "object", "additionalProperties": false, "properties": Map::from_iter(vars) })
        }
        Form::Seal => {
            let flag = |meaning: &str| json!({ "type": "boolean", "description": meaning });
            let all = crate::seal::WINDOWS_OPERATIONS.iter().chain(crate::seal::OPERATIONS);
            let mut properties: Map<String, Value> =
                all.map(|each| (each.name.to_owned(), flag(each.about))).collect();
            properties.insert("dry-run".to_owned(), flag("only tell what would be removed and changed"));
            json!({ "type": "object", "additionalProperties": false, "properties": properties })
        }
    }
}
