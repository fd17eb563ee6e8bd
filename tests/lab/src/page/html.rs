//! The page's HTML. Its sections are made anew for each look; the script puts in those that have changed.

use std::fmt::Write as _;

use super::rows;
use crate::cluster::Cluster;
use crate::config::PveVersion;
use crate::state::{Power, Vm};

/// A text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The whole page.
pub(super) fn document(cluster: &Cluster) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>forge lab</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"/lab/page.css\">\n\
         <script src=\"/lab/page.js\" defer></script>\n</head>\n<body>\n\
         <header><h1>forge lab</h1><p>answers as Proxmox VE {}</p>\
         <p id=\"live\" role=\"status\">as of the page's loading</p></header>\n\
         <main>\n{}</main>\n</body>\n</html>\n",
        match cluster.config.version {
            PveVersion::V9 => "9.2",
            PveVersion::V8 => "8.4",
        },
        sections(cluster)
    )
}

/// What changes: one section each for nodes, VMs, tasks and calls.
pub(super) fn sections(cluster: &Cluster) -> String {
    [
        section("nodes", "Nodes", &nodes(cluster)),
        section("vms", "VMs", &vms(cluster)),
        section("tasks", "Tasks", &rows::tasks(cluster)),
        section("calls", "Calls of the last minutes", &rows::calls(cluster)),
    ]
    .concat()
}

fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\" aria-label=\"{title}\"><h2>{title}</h2>\n{body}</section>\n")
}

fn nodes(cluster: &Cluster) -> String {
    let state = cluster.state();
    let mut text = "<ul class=\"nodes\">".to_owned();
    for node in &cluster.config.nodes {
        let word = if cluster.is_online(node) { "online" } else { "offline" };
        let own: Vec<&Vm> = state.vms.values().filter(|vm| vm.node == *node).collect();
        let running = own.iter().filter(|vm| vm.is_running()).count();
        let _ = write!(
            text,
            "<li><strong>{}</strong> <span class=\"mark {word}\">{word}</span> {} VM{}, {running} running</li>",
            escape(node),
            own.len(),
            if own.len() == 1 { "" } else { "s" }
        );
    }
    text + "</ul>\n"
}

fn vms(cluster: &Cluster) -> String {
    let state = cluster.state();
    if state.vms.is_empty() {
        return "<p class=\"none\">There are none.</p>\n".to_owned();
    }
    let mut text = "<ul class=\"vms\">".to_owned();
    for vm in state.vms.values() {
        let address = match cluster.network.bridges() {
            Some(bridges) => {
                let mac = vm.get("net0").and_then(|net| crate::state::parse_net(net).1);
                mac.and_then(|mac| bridges.address_of(&mac))
            }
            None => Some(cluster.network.shown_address(vm.slot)),
        };
        text.push_str(&card(vm, &address.map_or_else(|| "no address yet".to_owned(), |ip| ip.to_string())));
    }
    text + "</ul>\n"
}

fn card(vm: &Vm, address: &str) -> String {
    let vmid = vm.vmid;
    let (word, screen) = match &vm.power {
        _ if vm.is_template() => ("template", "<span class=\"dark\">a template</span>".to_owned()),
        Power::Off => ("stopped", "<span class=\"dark\">stopped</span>".to_owned()),
        Power::Flag { .. } => ("running", "<span class=\"dark\">runs in name only</span>".to_owned()),
        Power::On(_) => (
            "running",
            format!(
                "<img data-screen=\"{vmid}\" src=\"/lab/screen/{vmid}.png\" alt=\"the screen of VM {vmid}\">"
            ),
        ),
    };
    let mut more = String::new();
    if let Some(lock) = vm.get("lock") {
        let _ = write!(more, " <span class=\"mark bad\">lock: {}</span>", escape(lock));
    }
    for tag in vm.get("tags").unwrap_or_default().split(';').filter(|tag| !tag.is_empty()) {
        let _ = write!(more, " <span class=\"mark\">{}</span>", escape(tag));
    }
    let number = |key: &str| vm.get(key).and_then(|value| value.parse::<u32>().ok()).unwrap_or(1);
    let cores = number("sockets").saturating_mul(number("cores"));
    let figures = format!(
        "{} · {cores} core{} · {} MiB{}",
        escape(&vm.node),
        if cores == 1 { "" } else { "s" },
        escape(vm.get("memory").unwrap_or("512")),
        if vm.is_running() { format!(" · {address}") } else { String::new() }
    );
    format!(
        "<li id=\"vm-{vmid}\"><div class=\"screen\">{screen}</div><p><strong>{vmid} {}</strong> \
         <span class=\"mark {word}\">{word}</span>{more}</p><p class=\"small\">{figures}</p></li>",
        escape(&vm.name())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImportVm, Lab, LabConfig};

    #[tokio::test]
    async fn what_a_client_names_things_is_no_html() {
        let lab = Lab::start(LabConfig { run_guests: false, ..LabConfig::default() }).await.expect("a lab");
        let name = "<script>alert(1)</script>&\"'".to_owned();
        lab.import_vm(ImportVm { name, tags: "<b>".to_owned(), ..ImportVm::default() }).await.expect("a VM");
        let page = document(lab.cluster());
        assert!(page.contains("100 &lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;"), "{page}");
        assert!(!page.contains("<b>"), "{page}");
        lab.stop().await;
    }
}
