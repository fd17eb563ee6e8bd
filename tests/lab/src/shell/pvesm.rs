//! `pvesm`: storages, in columns only.

use serde_json::{Map, Value};

use super::programs::{Line, refused};
use super::{Node, Printed};

/// Runs it.
pub async fn run(node: &Node, words: &[&str]) -> Printed {
    let Some((command, rest)) = words.split_first() else {
        return Printed::failed(
            255,
            "ERROR: no command specified\nUSAGE: pvesm <COMMAND> [ARGS] [OPTIONS]\n",
        );
    };
    let (usage, needed) = match *command {
        "status" => ("pvesm status  [OPTIONS]", 0),
        "list" => ("pvesm list <storage> [OPTIONS]", 1),
        "path" => ("pvesm path <volume>", 1),
        other => {
            let text =
                format!("ERROR: unknown command 'pvesm {other}'\nUSAGE: pvesm <COMMAND> [ARGS] [OPTIONS]\n");
            return Printed::failed(255, text);
        }
    };
    // It has no other output than its columns, and no such option.
    if rest.iter().any(|word| word.trim_start_matches('-').starts_with("output-format")) {
        let text = format!("Unknown option: output-format\n400 unable to parse option\n{usage}\n");
        return Printed::failed(255, text);
    }
    let line = match Line::read(rest) {
        Ok(line) => line,
        Err(text) => return Printed::failed(255, format!("{text}{usage}\n")),
    };
    let amount = match line.positional.len() {
        given if given < needed => "not enough",
        given if given > needed => "too many",
        _ => "",
    };
    if !amount.is_empty() {
        return Printed::failed(255, format!("400 {amount} arguments\n{usage}\n"));
    }
    let first = line.positional.first().copied().unwrap_or_default();
    let here = &node.cluster.config.nodes[0];
    let (path, parameters): (String, Map<String, Value>) = match *command {
        "status" => (format!("/nodes/{here}/storage"), line.parameters),
        "list" => (format!("/nodes/{here}/storage/{first}/content"), line.parameters),
        _ => {
            let storage = first.split(':').next().unwrap_or_default();
            (format!("/nodes/{here}/storage/{storage}/content/{first}"), Map::new())
        }
    };
    match node.call("GET", &path, parameters).await {
        None => Printed::failed(255, format!("{usage}\n")),
        Some(Err(error)) => refused(&error, usage),
        Some(Ok(answer)) => Printed::out(match *command {
            "status" => status(&answer),
            "list" => list(&answer),
            _ => format!("{}\n", answer["path"].as_str().unwrap_or_default()),
        }),
    }
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

fn status(answer: &Value) -> String {
    let entries: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    let width = entries.iter().map(|entry| text(entry, "storage").len()).max().unwrap_or_default().max(4) + 1;
    let row = |name: &str, kind: &str, state: &str, figures: [&str; 3], share: &str| {
        let [total, used, free] = figures;
        format!("{name:<width$} {kind:>10} {state:>10} {total:>15} {used:>15} {free:>15} {share:>8}\n")
    };
    let mut lines = row("Name", "Type", "Status", ["Total (KiB)", "Used (KiB)", "Available (KiB)"], "%");
    for entry in entries {
        let kib = |key: &str| (entry[key].as_u64().unwrap_or_default() / 1024).to_string();
        let share = format!("{:.2}%", entry["used_fraction"].as_f64().unwrap_or_default() * 100.0);
        let figures = [kib("total"), kib("used"), kib("avail")];
        let figures = [figures[0].as_str(), figures[1].as_str(), figures[2].as_str()];
        lines += &row(text(entry, "storage"), text(entry, "type"), "active", figures, &share);
    }
    lines
}

fn list(answer: &Value) -> String {
    let entries: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    let width = entries.iter().map(|entry| text(entry, "volid").len()).max().unwrap_or_default().max(5);
    let mut lines = format!("{:<width$} {:<7} {:<8} {:>7} VMID\n", "Volid", "Format", "Type", "Size");
    for entry in entries {
        let vmid = entry["vmid"].as_u64().map(|vmid| vmid.to_string()).unwrap_or_default();
        let size = entry["size"].as_u64().unwrap_or_default();
        let (volid, format, content) = (text(entry, "volid"), text(entry, "format"), text(entry, "content"));
        let row = format!("{volid:<width$} {format:<7} {content:<8} {size:>7} {vmid}");
        lines += &format!("{}\n", row.trim_end());
    }
    lines
}
