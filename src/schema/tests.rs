//! The lists of keys against the readers, key by key and in both directions, and the schemas against a validator that
//! somebody else wrote.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{File, schema};
use crate::config::reader::ASKED;
use crate::config::variables::Given;
use crate::config::{load_profile, site};

/// A step from a table to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item,
}

fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).expect("the definition is there"),
        None => node,
    }
}

/// What a value may be, its alternatives one by one.
fn alternatives<'a>(root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    let node = resolved(root, node);
    let several = ["anyOf", "oneOf"].iter().find_map(|word| node[word].as_array());
    match several {
        Some(several) => several.iter().flat_map(|each| alternatives(root, each)).collect(),
        None => vec![node],
    }
}

/// Every key of a schema, with the way to it; boot steps within boot steps are gone into once.
fn keys(root: &Value) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    walk(root, root, &mut Vec::new(), &mut found);
    found
}

fn walk(root: &Value, node: &Value, way: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    let steps = way.iter().filter(|step| **step == Step::Key("steps".into())).count();
    let listed = ["vars", "seal"].iter().any(|name| way.last() == Some(&Step::Key((*name).to_owned())));
    // What is below comes from the lists of the seeds and the seal themselves.
    if steps > 1 || listed {
        return;
    }
    for node in alternatives(root, node) {
        if node["items"].is_object() {
            way.push(Step::Item);
            walk(root, &node["items"], way, found);
            way.pop();
        }
        if node["additionalProperties"].is_object() {
            way.push(Step::Key("any".into()));
            walk(root, &node["additionalProperties"], way, found);
            way.pop();
        }
        for (key, inner) in node["properties"].as_object().into_iter().flatten() {
            way.push(Step::Key(key.clone()));
            if !found.contains(way) {
                found.push(way.clone());
            }
            walk(root, inner, way, found);
            way.pop();
        }
    }
}

/// What has to stand beside a key for its reader to come to it.
fn company(way: &[Step]) -> &'static str {
    let names: Vec<&str> = way
        .iter()
        .filter_map(|step| match step {
            Step::Key(name) => Some(name.as_str()),
            Step::Item => None,
        })
        .collect();
    match names.as_slice() {
        [
            ..,
            "provision",
            "groups"
            | "host-alias"
            | "extra-arguments"
            | "galaxy-file"
            | "roles-path"
            | "collections-path"
            | "vault-password-file",
        ] => "ansible = \"x\", ",
        [.., "provision", "playbook-dir"] => "ansible-local = \"x\", ",
        [.., "match" | "areas"] => "needle = \"x\", ",
        _ => "",
    }
}

/// A document that has a date at the end of a way: no setting takes one, and none is left unread.
fn document(way: &[Step], beside: &str) -> String {
    fn value(way: &[Step], beside: &str) -> String {
        match way {
            [] => "1979-05-27".to_owned(),
            [Step::Item, rest @ ..] => format!("[{}]", value(rest, beside)),
            [Step::Key(key), rest @ ..] => {
                let company = if rest.is_empty() { beside } else { "" };
                format!("{{ {company}{key} = {} }}", value(rest, beside))
            }
        }
    }
    let [Step::Key(first), rest @ ..] = way else { panic!("{way:?}") };
    format!("{first} = {}\n", value(rest, beside))
}

/// Every key of a document, with the way to it; items of arrays are gone into.
fn keys_of(document: &Value, way: &str, found: &mut BTreeSet<String>) {
    for (key, inner) in document.as_object().into_iter().flatten() {
        let way = format!("{way}.{key}");
        keys_of(inner, &way, found);
        found.insert(way);
    }
    document.as_array().into_iter().flatten().for_each(|each| keys_of(each, way, found));
}

#[test]
fn the_schema_of_the_proof_has_the_keys_of_proofs_and_another_validator_accepts_these() {
    use forge_machine::{Artefact, VmRef};

    use crate::evidence::proof::{ProfileFile, Proof, StageProof};
    use crate::plan::origin::{CiRun, Origin, Repository};

    let proof = |artefact, origin| {
        let proof = Proof {
            version: 1,
            chain_id: "CHAIN-1".into(),
            profile: "web".into(),
            profile_files: vec![ProfileFile { path: "web.toml".into(), sha256: "ab".repeat(32) }],
            target: "pve".into(),
            product: "Proxmox VE 9.2.11".into(),
            forge: "0.1.0".into(),
            started: "2026-11-22T10:00:00Z".into(),
            took_ms: 7,
            plan: "cd".repeat(32),
            origin,
            artefact,
            stages: vec![StageProof { name: "create".into(), took_ms: 3, result: "VM 9001".into() }],
            warnings: vec!["one".into()],
        };
        serde_json::to_value(proof).expect("JSON")
    };
    let origin = Origin {
        repository: Some(Repository { commit: "12ab".into(), dirty: true }),
        ci: Some(CiRun { service: "Jenkins".into(), number: "9".into(), url: "https://ci/9".into() }),
    };
    let template = Artefact::Template { vm: VmRef::new("9001", "pve"), name: "tpl-web".into() };
    let files = Artefact::Files { files: vec![("web.qcow2".into(), "ef".repeat(32), 5)] };
    let proofs =
        [proof(Some(template), origin.clone()), proof(Some(files), origin), proof(None, Origin::default())];
    let mut written = BTreeSet::new();
    proofs.iter().for_each(|proof| keys_of(proof, "", &mut written));
    let told: BTreeSet<String> = keys(&schema(File::Proof))
        .iter()
        .map(|way| {
            let names = way.iter().filter_map(|step| match step {
                Step::Key(name) => Some(format!(".{name}")),
                Step::Item => None,
            });
            names.collect()
        })
        .collect();
    assert_eq!(written, told);
    let mut wrong = proofs[0].clone();
    wrong["artefact"]["kind"] = json!("disk");
    let mut more = proofs[0].clone();
    more["plan-b"] = json!("x");
    let documents: Vec<Value> = proofs.into_iter().chain([wrong, more]).collect();
    if let Some(said) = validate(File::Proof, &documents) {
        let sound: Vec<bool> = said.iter().map(String::is_empty).collect();
        assert_eq!(sound, [true, true, true, false, false], "{said:?}");
    }
}

/// The path of a reader as the schema has it: without numbers.
fn properties_at(root: &Value, path: &str) -> Option<BTreeSet<String>> {
    let mut nodes = vec![root];
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, items) =
            part.split_once('[').map_or((part, 0), |(name, rest)| (name, rest.matches(']').count()));
        let mut next = Vec::new();
        for node in nodes.into_iter().flat_map(|node| alternatives(root, node)) {
            match &node["properties"][name] {
                Value::Null if node["additionalProperties"].is_object() => {
                    next.push(&node["additionalProperties"]);
                }
                Value::Null => {}
                inner => next.push(inner),
            }
        }
        for _ in 0..items {
            let lists: Vec<&Value> = next.into_iter().flat_map(|node| alternatives(root, node)).collect();
            next = lists.into_iter().map(|node| &node["items"]).filter(|items| items.is_object()).collect();
        }
        nodes = next;
    }
    let nodes: Vec<&Value> = nodes.into_iter().flat_map(|node| alternatives(root, node)).collect();
    let tables: Vec<&serde_json::Map<String, Value>> =
        nodes.iter().filter_map(|node| node["properties"].as_object()).collect();
    (!tables.is_empty()).then(|| tables.into_iter().flat_map(|table| table.keys().cloned()).collect())
}

fn profiles() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("os-profiles");
    let entries = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("readable").path());
    let files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(files.len() > 30, "{files:?}");
    files
}

/// What a profile's reader says of a text.
fn read_profile(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.toml");
    std::fs::write(&file, text).expect("written");
    let (_, findings) = load_profile(&file, &Given::default());
    findings.into_iter().map(|finding| finding.message).collect()
}

/// Every key of the schema in a document of its own; gives the ways with what the reader said.
fn said_of_profiles() -> Vec<(String, Vec<String>)> {
    keys(&schema(File::Profile))
        .iter()
        .map(|way| {
            let own = document(way, company(way));
            let first = |name: &str| way.first() == Some(&Step::Key(name.into()));
            let schema = if first("schema") { "" } else { "schema = 1\n" };
            let name = if first("name") { "" } else { "name = \"x\"\n" };
            let source = if first("source") { "" } else { "source = { clone = \"boot-vm\" }\n" };
            let text = format!("{schema}{name}{source}{own}");
            let said = read_profile(&text);
            (text, said)
        })
        .collect()
}

fn said_of_sites() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for way in keys(&schema(File::Site)) {
        let of = |kind: &str| match way.as_slice() {
            [Step::Key(_), Step::Key(_), rest @ ..] if !rest.is_empty() => {
                let user = if rest.first() == Some(&Step::Key("password".into())) {
                    "user = \"a@pve\", "
                } else {
                    ""
                };
                let typed = rest.first() != Some(&Step::Key("type".into()));
                let beside = if typed { format!("type = \"{kind}\", {user}") } else { String::new() };
                let inner = document(rest, "");
                format!("targets = {{ any = {{ {beside}{} }} }}\n", inner.trim_end())
            }
            _ => document(&way, ""),
        };
        // A key of one kind is none of the other.
        let readings: Vec<(String, Vec<String>)> = ["proxmox", "qemu"]
            .map(|kind| {
                let text = of(kind);
                let (_, findings) = site::read(Path::new("forge.toml"), &text);
                (text, findings.into_iter().map(|finding| finding.message).collect())
            })
            .into();
        let knows =
            |reading: &&(String, Vec<String>)| !reading.1.iter().any(|said| said.starts_with("unknown key"));
        let best = readings.iter().find(knows).unwrap_or(&readings[0]);
        all.push(best.clone());
    }
    all
}

#[test]
fn every_key_of_the_schemas_is_known_to_the_readers() {
    for (text, said) in said_of_profiles().into_iter().chain(said_of_sites()) {
        assert!(!said.iter().any(|words| words.starts_with("unknown key")), "{text}{said:?}");
        assert!(!said.is_empty(), "a date is no value: {text}");
    }
}

#[test]
fn every_key_that_the_readers_ask_for_is_in_the_schemas() {
    ASKED.with_borrow_mut(Vec::clear);
    said_of_profiles();
    for file in profiles() {
        let _findings = load_profile(&file, &Given::default());
    }
    let profile = schema(File::Profile);
    let asked = ASKED.take();
    assert!(asked.len() > 500, "{}", asked.len());
    assert_asked(&profile, &asked);
    said_of_sites();
    assert_asked(&schema(File::Site), &ASKED.take());
}

fn assert_asked(root: &Value, asked: &[(String, Vec<&'static str>)]) {
    for (path, keys) in asked {
        let known = properties_at(root, path).unwrap_or_else(|| panic!("the schema has no table `{path}`"));
        // Keys are pressed by what the screen shows: `until` asks for the serial port's words to refuse them.
        for key in keys.iter().filter(|key| !(path.ends_with(".until") && **key == "serial")) {
            assert!(known.contains(*key), "the schema has no `{key}` in `{path}`: {known:?}");
        }
    }
}

#[test]
fn the_words_of_the_schema_are_those_of_the_readers() {
    use forge_http_seed::answers::Kind;
    let root = schema(File::Profile);
    let words = |pointer: &str| {
        let node = root.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        let words = node["enum"].as_array().unwrap_or_else(|| panic!("{pointer}: {node}"));
        words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect::<BTreeSet<_>>()
    };
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(words("/properties/seed/properties/kind"), set(&Kind::ALL.map(Kind::name)));
    let rungs = crate::config::read::RUNGS;
    assert_eq!(words("/properties/seed/properties/delivery/anyOf/1"), set(&rungs));
    let conditions: Vec<&str> = ["bios", "uefi"].into_iter().chain(rungs).collect();
    assert_eq!(words("/definitions/step/properties/when/anyOf/0"), set(&conditions));
    let formats = forge_machine::FileFormat::ALL.map(forge_machine::FileFormat::name);
    assert_eq!(words("/properties/output/properties/formats/items"), set(&formats));
}

/// Python's jsonschema, which comes with cloud-init; what it says of documents, one line for each.
fn validate(file: File, documents: &[Value]) -> Option<Vec<String>> {
    const PROGRAM: &str = "import json, sys, jsonschema\n\
        schema, documents = json.load(sys.stdin)\n\
        jsonschema.Draft7Validator.check_schema(schema)\n\
        judge = jsonschema.Draft7Validator(schema)\n\
        for document in documents:\n    \
            print(json.dumps('; '.join(error.message for error in judge.iter_errors(document))))\n";
    let has_it = |python: &&str| {
        let import = Command::new(python).args(["-c", "import jsonschema"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    let Some(python) = ["/usr/bin/python3", "python3"].iter().find(|python| has_it(python)) else {
        eprintln!(
            "skipped: there is no Python with jsonschema here; `cargo lab test` installs it with cloud-init"
        );
        return None;
    };
    let mut child = Command::new(python)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut input = child.stdin.take().expect("piped");
    let text = json!([schema(file), documents]).to_string();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it ends").expect("it reads");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    Some(said.lines().map(|line| serde_json::from_str(line).expect("a string")).collect())
}

fn from_toml(text: &str) -> Value {
    let table: toml::Table = toml::from_str(text).expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn another_validator_accepts_every_shipped_profile_and_no_misspelt_key() {
    let files = profiles();
    let documents: Vec<Value> =
        files.iter().map(|file| from_toml(&std::fs::read_to_string(file).expect("readable"))).collect();
    let Some(said) = validate(File::Profile, &documents) else { return };
    assert_eq!(said.len(), files.len());
    for (file, words) in files.iter().zip(&said) {
        assert_eq!(words, "", "{}", file.display());
    }
    let least = "schema = 1\nname = \"x\"\nsource = { clone = \"boot-vm\" }\n";
    let wrong = [
        ("[vm]\nmemmory = \"4GiB\"\n", "memmory"),
        ("[vm]\ndisks = [{ slot = \"scsi0\", sise = \"4GiB\" }]\n", "sise"),
        ("[vm]\ncores = \"2\"\n", "'2'"),
        ("[boot]\nsteps = [{ type = \"x\", entr = true }]\n", "entr"),
        ("[deadlines]\nboot = \"ten minutes\"\n", "ten minutes"),
        ("[seal]\nmachine-idd = false\n", "machine-idd"),
        ("[seed]\nvars = { time-zone = \"UTC\" }\n", "time-zone"),
    ];
    let documents: Vec<Value> = wrong.iter().map(|(text, _)| from_toml(&format!("{least}{text}"))).collect();
    let said = validate(File::Profile, &documents).expect("it is there");
    for ((text, words), said) in wrong.iter().zip(&said) {
        assert!(said.contains(words), "{text}: `{said}`");
    }
    assert!(validate(File::Profile, &[json!({ "name": "x" })]).expect("it is there")[0].contains("schema"));
}

#[test]
fn another_validator_accepts_the_site_file_of_the_page_and_no_misspelt_key() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the page");
    let sites: Vec<Value> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|text| text.contains("[targets."))
        .map(from_toml)
        .collect();
    assert!(!sites.is_empty(), "the page has a site file");
    let Some(said) = validate(File::Site, &sites) else { return };
    assert!(said.iter().all(String::is_empty), "{said:?}");
    let local = "[targets.local]\ntype = \"qemu\"\naccel = \"auto\"\n";
    let documents =
        [from_toml(local), from_toml(&local.replace("accel", "accell")), from_toml("default-taget = \"x\"")];
    let said = validate(File::Site, &documents).expect("it is there");
    assert!(said[0].is_empty() && !said[1].is_empty() && said[2].contains("default-taget"), "{said:?}");
}
