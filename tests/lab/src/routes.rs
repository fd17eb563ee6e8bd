//! What each route is like beside a real server's: the table in `tests/lab/README.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

/// The marks between which a table lies in the README.
const ROUTES: [&str; 2] = ["<!-- routes -->", "<!-- /routes -->"];
const CALLS: [&str; 2] = ["<!-- calls -->", "<!-- /calls -->"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    route: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    routes: Vec<String>,
    #[serde(rename = "as")]
    like: Like,
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Like {
    Faithful,
    Simplified,
}

fn document() -> anyhow::Result<Document> {
    Ok(toml::from_str(include_str!("../routes.toml"))?)
}

/// The table of routes as Markdown.
///
/// # Errors
/// `routes.toml` is wrong.
pub fn table() -> anyhow::Result<String> {
    let mut rows: BTreeMap<(String, String), (Like, String)> = BTreeMap::new();
    for entry in document()?.route {
        for route in &entry.routes {
            let (method, path) = route.split_once(' ').with_context(|| format!("{route:?} is no route"))?;
            let row = (entry.like, entry.why.clone());
            if rows.insert((path.to_owned(), method.to_owned()), row).is_some() {
                anyhow::bail!("{route:?} is in routes.toml twice");
            }
        }
    }
    let mut text = "| route | the lab is | why, and how far |\n|---|---|---|\n".to_owned();
    for ((path, method), (like, why)) in rows {
        let like = match like {
            Like::Faithful => "faithful",
            Like::Simplified => "simplified",
        };
        text.push_str(&format!("| `{method} {path}` | {like} | {why} |\n"));
    }
    Ok(text)
}

/// The README.
pub fn readme() -> PathBuf {
    crate::images::workspace_dir().join("tests/lab/README.md")
}

/// The README's text with the two tables put in; `calls` stays as it is when it is `None`.
///
/// # Errors
/// A mark is missing.
pub fn fill(readme: &str, routes: &str, calls: Option<&str>) -> anyhow::Result<String> {
    let filled = between(readme, ROUTES, routes)?;
    match calls {
        Some(calls) => between(&filled, CALLS, calls),
        None => Ok(filled),
    }
}

fn between(text: &str, [begin, end]: [&str; 2], table: &str) -> anyhow::Result<String> {
    let start = text.find(begin).with_context(|| format!("the README lacks {begin}"))? + begin.len();
    let stop = text.find(end).with_context(|| format!("the README lacks {end}"))?;
    Ok(format!("{}\n\n{}\n{}", &text[..start], table, &text[stop..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::api::{Call, dispatch};
    use crate::auth::Caller;
    use crate::schema::{Param, Params, schema};
    use crate::{ImportVm, Lab, LabConfig};

    #[test]
    fn the_readme_has_the_table_of_routes_as_it_is_now() {
        let readme = std::fs::read_to_string(readme()).expect("the README is there");
        let filled = fill(&readme, &table().expect("a table"), None).expect("marks");
        assert!(filled == readme, "tests/lab/README.md is not up to date: run `cargo lab routes --write`");
    }

    /// Whether the lab answers a route: what it answers does not matter here.
    async fn answers(method: &str, template: &str) -> bool {
        let lab = Lab::start(LabConfig {
            run_guests: false,
            agent_ping: Duration::ZERO,
            lock_timeout: Duration::ZERO,
            ..LabConfig::default()
        })
        .await
        .expect("a lab");
        lab.import_vm(ImportVm { vmid: 100, ..ImportVm::default() }).await.expect("a VM");
        let params = [("node", "pve"), ("vmid", "100"), ("storage", "local"), ("snapname", "none")];
        let one = |(name, value): &(&str, &str)| ((*name).to_owned(), Param::One((*value).to_owned()));
        let call = Call {
            cluster: Arc::clone(lab.cluster()),
            caller: Caller(crate::auth::ROOT.to_owned()),
            params: Params(params.iter().map(one).collect()),
            faults: Vec::new(),
            headers: http::HeaderMap::new(),
            upgrade: None,
            upload: None,
        };
        // A call that waits for something is answered.
        let answer = tokio::time::timeout(Duration::from_millis(500), dispatch(method, template, call)).await;
        let is_there = answer.is_err() || answer.is_ok_and(|answer| answer.is_some());
        lab.stop().await;
        is_there
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_route_that_the_lab_answers_is_in_the_table_and_no_other() {
        let table = table().expect("a table");
        let mut wrong = BTreeSet::new();
        for (method, template) in schema().routes() {
            let listed = table.contains(&format!("| `{method} {template}` |"));
            if answers(method, template).await != listed {
                wrong.insert(format!("{method} {template} (in routes.toml: {listed})"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
