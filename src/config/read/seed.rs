//! `[seed]`.

use super::Load;
use crate::config::findings::{Finding, suggest};
use crate::config::place::Node;
use crate::config::profile::Seed;
use crate::config::reader::Reader;

/// The ways to deliver a seed, best first.
const RUNGS: [&str; 4] = ["cloud-init-drive", "smbios", "typed", "none"];
/// Kinds of seed that profiles will be able to name.
const LATER: [&str; 4] = ["kickstart", "preseed", "autoinstall", "autounattend"];

impl Load<'_> {
    pub(super) fn seed(&mut self, root: &mut Reader<'_>) -> Seed {
        let mut seed = Seed { delivery: Vec::new(), hostname: None, user_data: None, network_config: None };
        let Some(mut reader) = root.table("seed", &mut self.findings) else { return seed };
        if let Some(kind) = reader.text("kind", &mut self.findings).filter(|kind| kind != "nocloud") {
            let message = if LATER.contains(&kind.as_str()) {
                format!("this version of forge makes no seeds of kind `{kind}`")
            } else {
                format!("`{kind}` is no kind of seed")
            };
            self.findings.push(reader.finding("kind", message).help("there is: nocloud"));
        }
        for (key, help) in [
            ("vars", "a NoCloud seed takes its values from [seed.user-data], by cloud-init's own names"),
            ("files", "a NoCloud seed is written by forge; add to it with [seed.user-data]"),
        ] {
            if reader.any(key).is_some() {
                let message =
                    format!("`seed.{key}` is for answer files, which this version of forge does not make");
                self.findings.push(reader.finding(key, message).help(help));
            }
        }
        seed.delivery = self.delivery(&mut reader);
        seed.hostname = self.filled(&mut reader, "hostname");
        if seed.hostname.as_ref().is_some_and(|name| !super::is_dns_name(name)) {
            let finding = reader.finding("hostname", "this is no host name");
            self.findings.push(finding.help("letters, digits and `-`, at most 63 between dots"));
        }
        seed.user_data = self.cloud_data(&mut reader, "user-data");
        seed.network_config = self.cloud_data(&mut reader, "network-config");
        reader.done(&mut self.findings);
        seed
    }

    fn delivery(&mut self, reader: &mut Reader<'_>) -> Vec<String> {
        match reader.any("delivery").map(|spot| &spot.node) {
            None => Vec::new(),
            Some(Node::Text(text)) if text == "auto" => Vec::new(),
            Some(Node::Text(_)) => reader
                .word("delivery", &[&["auto"], &RUNGS[..]].concat(), &mut self.findings)
                .into_iter()
                .collect(),
            Some(Node::List(items)) => {
                let mut rungs: Vec<String> = Vec::new();
                for item in items {
                    let Node::Text(rung) = &item.node else {
                        let message = format!("expected a string, found {}", item.node.kind());
                        self.findings.push(Finding::at(&item.place, "seed.delivery", message));
                        continue;
                    };
                    if !RUNGS.contains(&rung.as_str()) {
                        let message = format!("`{rung}` is no way to deliver a seed");
                        let finding = Finding::at(&item.place, "seed.delivery", message);
                        self.findings.push(finding.help(suggest(rung, &RUNGS)));
                    }
                    rungs.push(rung.clone());
                }
                if rungs.is_empty() {
                    let finding = reader.finding("delivery", "this allows no way to deliver the seed");
                    self.findings.push(finding.help("write \"auto\", or name some: smbios, typed, …"));
                }
                rungs
            }
            Some(_) => {
                reader.texts("delivery", &mut self.findings);
                Vec::new()
            }
        }
    }

    /// A table by cloud-init's own names, with variables filled in in every string.
    fn cloud_data(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<serde_json::Value> {
        let spot = reader.any(key)?;
        if !matches!(spot.node, Node::Table(_)) {
            reader.table(key, &mut self.findings);
            return None;
        }
        Some(self.fill_in(spot, &reader.name(key)))
    }
}
