//! Which routes were called, by whom.
//!
//! Each lab adds its calls to a file when it ends, if `FORGE_LAB_COVERAGE` names a folder; `cargo lab test` sets it and
//! prints the table of all of them. Who calls is told by the client's own name (`User-Agent`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::RequestRecord;

/// The variable that names the folder.
pub const VARIABLE: &str = "FORGE_LAB_COVERAGE";

/// Calls by route and client.
pub type Coverage = BTreeMap<String, BTreeMap<&'static str, usize>>;

/// The clients that are told apart, as the table names them.
pub const CLIENTS: [&str; 5] = ["forge", "proxmoxer", "Packer", "noVNC", "lab"];

fn client(agent: &str) -> &'static str {
    let known = [
        ("forge/", "forge"),
        ("python-requests", "proxmoxer"),
        ("Go-http-client", "Packer"),
        ("Mozilla", "noVNC"),
    ];
    known.iter().find(|(start, _)| agent.starts_with(start)).map_or("lab", |(_, name)| name)
}

/// The folder where `cargo lab test` keeps the calls of its last run.
pub fn folder() -> PathBuf {
    crate::images::target_dir().join("lab-coverage")
}

/// Adds a lab's calls to the folder that the environment names. What can't be written is not worth a failure.
pub fn record(requests: &[RequestRecord]) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let Some(folder) = std::env::var_os(VARIABLE) else { return };
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    // 501 is a route that the lab does not have.
    let answered = |request: &&RequestRecord| request.status.is_some_and(|status| status != 501);
    for request in requests.iter().filter(answered) {
        if let Some(route) = &request.route {
            *counts.entry((format!("{} {route}", request.method), client(&request.agent))).or_default() += 1;
        }
    }
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let name = format!("{}-{number}-{:x}.tsv", std::process::id(), u64::from_le_bytes(crate::ids::bytes()));
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::File::create(Path::new(&folder).join(name)))
        .and_then(|mut file| {
            counts
                .iter()
                .try_for_each(|((route, client), count)| writeln!(file, "{route}\t{client}\t{count}"))
        });
    if let Err(error) = written {
        tracing::debug!(%error, "the coverage is not kept");
    }
}

/// Adds up what a folder holds.
///
/// # Errors
/// The folder can't be read.
pub fn read(folder: &Path) -> std::io::Result<Coverage> {
    let mut all = Coverage::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        for line in std::fs::read_to_string(entry.path())?.lines() {
            let mut parts = line.split('\t');
            let (Some(route), Some(client), Some(count)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let Some(client) = CLIENTS.iter().find(|known| **known == client) else { continue };
            *all.entry(route.to_owned()).or_default().entry(client).or_default() +=
                count.parse().unwrap_or(0);
        }
    }
    Ok(all)
}

/// The table as Markdown: one line per route, a number of calls per client.
pub fn table(coverage: &Coverage) -> String {
    let mut text = format!("| route | {} |\n|---|{}\n", CLIENTS.join(" | "), "--:|".repeat(CLIENTS.len()));
    let mut routes: Vec<(&str, &str, &BTreeMap<&'static str, usize>)> = coverage
        .iter()
        .filter_map(|(route, counts)| {
            let (method, path) = route.split_once(' ')?;
            Some((path, method, counts))
        })
        .collect();
    routes.sort_by_key(|(path, method, _)| (*path, *method));
    for (path, method, counts) in routes {
        let cells: Vec<String> =
            CLIENTS.iter().map(|client| counts.get(client).map_or(String::new(), usize::to_string)).collect();
        text.push_str(&format!("| `{method} {path}` | {} |\n", cells.join(" | ")));
    }
    let called: BTreeSet<&str> = coverage.values().flat_map(|counts| counts.keys().copied()).collect();
    let sums = CLIENTS.iter().filter(|client| called.contains(*client)).map(|name| {
        format!("{name} {}", coverage.values().filter(|counts| counts.contains_key(*name)).count())
    });
    let sums: Vec<String> = sums.collect();
    text.push_str(&format!("\n{} routes were called: {}.\n", coverage.len(), sums.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_route_and_client() {
        assert_eq!(
            [client("forge/0.1.0"), client("Go-http-client/1.1"), client("")],
            ["forge", "Packer", "lab"]
        );
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.tsv"), "GET /version\tforge\t2\nGET /version\tlab\t1\n")
            .expect("written");
        std::fs::write(folder.path().join("b.tsv"), "GET /version\tforge\t3\n").expect("written");
        let table = table(&read(folder.path()).expect("read"));
        assert!(table.contains("| `GET /version` | 5 |  |  |  | 1 |"), "{table}");
        assert!(table.ends_with("1 routes were called: forge 1, lab 1.\n"), "{table}");
    }
}
