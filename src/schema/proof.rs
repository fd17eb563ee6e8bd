//! The schema of `proof.json`, for programs that read evidence.

use serde_json::{Map, Value, json};

/// A table of which these keys are always there, and others may be.
fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        required.iter().chain(optional).map(|(name, form)| ((*name).to_owned(), form.clone())).collect();
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

fn text(meaning: &str) -> Value {
    json!({ "type": "string", "description": meaning })
}

fn whole(meaning: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": meaning })
}

fn digest(meaning: &str) -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": meaning })
}

fn list(of: &Value, meaning: &str) -> Value {
    json!({ "type": "array", "items": of, "description": meaning })
}

/// The schema.
pub(super) fn schema() -> Value {
    let file = object(&[("path", text("its path, as it was named")), ("sha256", digest("its SHA-256"))], &[]);
    let stage = object(
        &[
            ("name", text("its name")),
            ("took-ms", whole("how long it took, in milliseconds")),
            ("result", text("what came out, in words")),
        ],
        &[],
    );
    let vm = object(&[("id", text("its VMID")), ("node", text("the node that holds it"))], &[]);
    let kind = |word: &str| json!({ "const": word });
    let template = object(&[("kind", kind("template")), ("vm", vm), ("name", text("its name"))], &[]);
    let image = json!({ "type": "array", "minItems": 3, "maxItems": 3,
        "items": [text("its path"), digest("its SHA-256"), whole("its size in bytes")] });
    let files = object(&[("kind", kind("files")), ("files", list(&image, "the images"))], &[]);
    let repository = object(
        &[
            ("commit", text("the commit that was checked out")),
            ("dirty", json!({ "type": "boolean", "description": "whether something differed from it" })),
        ],
        &[],
    );
    let run = object(
        &[
            ("service", json!({ "enum": ["Jenkins", "GitHub Actions", "GitLab"] })),
            ("number", text("the run's number")),
            ("url", text("the run's page")),
        ],
        &[],
    );
    let mut whole_of_it = object(
        &[
            ("version", json!({ "const": 1 })),
            ("chain-id", text("the chain id of the build")),
            ("profile", text("the profile's name")),
            ("profile-files", list(&file, "the profile's files, the profile itself first")),
            ("target", text("the target's name")),
            ("product", text("the target's product and version")),
            ("forge", text("forge's version")),
            ("started", json!({ "type": "string", "format": "date-time" })),
            ("took-ms", whole("how long it took, in milliseconds")),
            ("plan", digest("the SHA-256 of the plan")),
            (
                "artefact",
                json!({ "anyOf": [template, files, { "type": "null" }], "description": "what was made" }),
            ),
            ("stages", list(&stage, "each stage, in its order")),
            ("warnings", list(&json!({ "type": "string" }), "the warnings")),
        ],
        &[("origin", object(&[], &[("repository", repository), ("ci", run)]))],
    );
    if let Value::Object(members) = &mut whole_of_it {
        members.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        members.insert("title".to_owned(), json!("The proof of a build by forge (proof.json)"));
    }
    whole_of_it
}
