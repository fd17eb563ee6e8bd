//! `[seed]`.

use std::path::PathBuf;

use forge_http_seed::answers::{self, Answers, Build, Kind, Settings};
use forge_http_seed::nocloud::NoCloud;
use forge_http_seed::template::{self, RenderError};
use forge_http_seed::{disc, lint};
use serde_json::{Map, Value};

use super::Load;
use crate::config::findings::{Finding, suggest};
use crate::config::place::Node;
use crate::config::profile::{Access, Os, Seed, Vm};
use crate::config::reader::Reader;

/// The ways to deliver a seed, best first.
pub(crate) const RUNGS: [&str; 8] =
    ["cloud-init-drive", "smbios", "kernel", "boot-disc", "disc", "floppy", "typed", "none"];

impl Load<'_> {
    pub(super) fn seed(&mut self, root: &mut Reader<'_>, os: &Os, vm: &Vm, access: &Access) -> Seed {
        let mut seed = Seed {
            kind: Kind::Nocloud,
            answers: None,
            ip_config: None,
            more_than_a_user: false,
            delivery: Vec::new(),
            hostname: None,
            user_data: None,
            network_config: None,
            files: Vec::new(),
            disc: None,
            floppy: None,
        };
        let Some(mut reader) = root.table("seed", &mut self.findings) else { return seed };
        let kinds = Kind::ALL.map(Kind::name);
        let kind = reader.word("kind", &kinds, &mut self.findings);
        let known_kind = kind.as_deref().map_or(Some(Kind::Nocloud), Kind::from_name);
        seed.kind = known_kind.unwrap_or(Kind::Nocloud);
        seed.delivery = self.delivery(&mut reader);
        seed.hostname = self.filled(&mut reader, "hostname");
        if seed.hostname.as_ref().is_some_and(|name| !super::is_dns_name(name)) {
            let finding = reader.finding("hostname", "this is no host name");
            self.findings.push(finding.help("letters, digits and `-`, at most 63 between dots"));
        }
        seed.user_data = self.cloud_data(&mut reader, "user-data");
        seed.network_config = self.cloud_data(&mut reader, "network-config");
        self.only_for_cloud_init(&reader, seed.kind);
        let linted = reader.flag("lint", &mut self.findings).unwrap_or(true);
        if linted {
            self.fits(root, &reader, seed.kind, os);
        }
        let sound = self.findings.len();
        let given = self.vars(&mut reader);
        // What could not be filled in would be told again as a value that does not fit.
        let filled_in = self.findings.len() == sound;
        let (templates, beside) = self.own_files(&mut reader, seed.kind);
        seed.files = beside;
        seed.disc = self.own_medium(&mut reader, "disc", disc::iso);
        seed.floppy = self.own_medium(&mut reader, "floppy", disc::floppy);
        let settings =
            known_kind.filter(|_| filled_in).and_then(|kind| self.settings(&mut reader, kind, &given));
        if let Some(mut settings) = settings {
            let uefi = vm.proxmox.get("bios").is_some_and(|bios| bios == "ovmf");
            if !given.contains_key("firmware") {
                settings.set_firmware(uefi);
            }
            if seed.kind == Kind::Nocloud {
                if given.contains_key("repositories") && !answers::takes_repositories(&os.distribution) {
                    let finding = reader.finding("vars", "`repositories` is for images with dnf or zypper");
                    self.findings
                        .push(finding.help("give apt's sources in [seed.user-data], by cloud-init's names"));
                }
                if given.contains_key("security-mirror") && answers::takes_repositories(&os.distribution) {
                    let finding = reader.finding("vars", "`security-mirror` is for images with apt");
                    self.findings.push(finding.help("name each repository in `repositories`, `name=URL`"));
                }
                let mac = vm.networks.first().and_then(|network| network.mac.as_deref());
                let mac = mac.filter(|mac| mac.split(':').count() == 6);
                let named = mac.is_some() || !settings.text("interface").is_empty();
                let fixed = ["address", "address6"].iter().any(|name| !settings.text(name).is_empty());
                let only_drive = seed.delivery == ["cloud-init-drive"];
                if fixed
                    && !named
                    && !only_drive
                    && os.distribution != "ubuntu"
                    && seed.network_config.is_none()
                {
                    let message = "nothing says which adapter the static address is for";
                    let finding = reader.finding("vars", message).warning();
                    self.findings.push(finding.help(
                        "images without netplan need `seed.vars.interface`, or `mac` in `vm.networks`; Proxmox's own drive does not",
                    ));
                }
                nocloud(&mut seed, &settings, &given, &os.distribution, mac);
            } else {
                seed.answers = Some(Answers {
                    kind: seed.kind,
                    settings,
                    distribution: os.distribution.clone(),
                    version: os.version.clone(),
                    user_data: seed.user_data.clone(),
                    variables: self.variables.to_json(),
                    templates,
                });
            }
        }
        // What is wrong already would be told again, by files that follow from it.
        if !self.base && self.findings.iter().all(|finding| !finding.fatal) {
            // What can't be rendered can't be built, whatever the lint would say of it.
            if linted { self.lint(&reader, &seed, access) } else { self.renders(&seed, access) }
        }
        reader.done(&mut self.findings);
        seed
    }

    /// Cloud-init's own tables say nothing to an installer that is none.
    fn only_for_cloud_init(&mut self, reader: &Reader<'_>, kind: Kind) {
        let takers: [(&str, &[Kind], &str); 2] = [
            (
                "user-data",
                &[Kind::Nocloud, Kind::Autoinstall],
                "`packages`, `late-commands` and others of `[seed.vars]` say it in the installer's language; `[seed.files]` takes \
                 answers of your own",
            ),
            (
                "network-config",
                &[Kind::Nocloud],
                "`address`, `gateway`, `nameservers` and others of `[seed.vars]` say it in the installer's language",
            ),
        ];
        for (key, kinds, help) in takers {
            if !kinds.contains(&kind) && reader.entries().any(|(name, ..)| name == key) {
                let message = format!("a seed of kind `{}` takes no `{key}`", kind.name());
                self.findings.push(reader.finding(key, message).help(help));
            }
        }
    }

    /// Whether the system's installer goes by answers of this kind.
    fn fits(&mut self, root: &mut Reader<'_>, seed: &Reader<'_>, kind: Kind, os: &Os) {
        let Some(misfit) = super::system::misfit(kind, os).filter(|_| !self.base) else { return };
        let finding = match root.table("os", &mut Vec::new()) {
            Some(table) if misfit.key != "kind" => table.finding(misfit.key, misfit.message),
            _ => seed.finding("kind", misfit.message),
        };
        let finding = finding.help(misfit.help);
        self.findings.push(if misfit.fatal { finding } else { finding.warning() });
    }

    /// `[seed.vars]` with variables filled in.
    fn vars(&mut self, reader: &mut Reader<'_>) -> Map<String, Value> {
        let Some(spot) = reader.any("vars") else { return Map::new() };
        if !matches!(spot.node, Node::Table(_)) {
            reader.table("vars", &mut self.findings);
            return Map::new();
        }
        match self.fill_in(spot, &reader.name("vars")) {
            Value::Object(given) => given,
            _ => Map::new(),
        }
    }

    fn settings(
        &mut self,
        reader: &mut Reader<'_>,
        kind: Kind,
        given: &Map<String, Value>,
    ) -> Option<Settings> {
        let problems = match Settings::read(kind, given) {
            Ok(settings) => return Some(settings),
            Err(problems) => problems,
        };
        let table = match reader.any("vars").map(|spot| &spot.node) {
            Some(Node::Table(table)) => Some(table),
            _ => None,
        };
        let known: Vec<&str> = Settings::names(kind).collect();
        // A base may leave to those that extend it what they have to say.
        for problem in problems.into_iter().filter(|each| !self.base || given.contains_key(&each.name)) {
            let setting = reader.name(&format!("vars.{}", problem.name));
            let place = table
                .and_then(|table| table.entries.iter().find(|(name, ..)| *name == problem.name))
                .map_or_else(|| reader.place_of("vars").clone(), |(_, _, spot)| spot.place.clone());
            let unknown = !answers::SPECS.iter().any(|spec| spec.name == problem.name);
            let help = if unknown { suggest(&problem.name, &known) } else { problem.help };
            let finding = Finding::at(&place, setting, problem.message);
            self.findings.push(if help.is_empty() { finding } else { finding.help(help) });
        }
        None
    }

    /// Asserts that a build could make the files.
    fn renders(&mut self, seed: &Seed, access: &Access) {
        let build = Build::sample(&access.user, access.create, seed.hostname.as_deref());
        let rendered = seed.answers.as_ref().map(|answers| answers.render(&build));
        if let Some(Err(errors)) = rendered {
            self.findings.extend(errors.iter().flat_map(RenderError::findings).map(of_template));
        }
    }

    /// Judges the files as a build would make them.
    fn lint(&mut self, reader: &Reader<'_>, seed: &Seed, access: &Access) {
        let build = Build::sample(&access.user, access.create, seed.hostname.as_deref());
        if let Some(answers) = &seed.answers {
            self.findings.extend(answers.lint(&build).into_iter().map(of_template));
        } else if seed.user_data.is_some() || seed.network_config.is_some() {
            let nocloud = NoCloud {
                instance_id: "sample".into(),
                hostname: None,
                user: None,
                host_key: None,
                user_data: seed.user_data.clone(),
                network_config: seed.network_config.clone(),
            };
            let files = nocloud.files().unwrap_or_default();
            for name in ["user-data", "network-config"] {
                let text = files.get(name).and_then(|file| file.text()).unwrap_or_default();
                for found in lint::lint(Kind::Nocloud, name, text, "", "") {
                    let finding = reader.finding(name, found.message);
                    self.findings.push(if found.help.is_empty() {
                        finding
                    } else {
                        finding.help(found.help)
                    });
                }
            }
        }
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

/// What is wrong with a template, as a finding.
fn of_template(found: template::Finding) -> Finding {
    Finding {
        file: Some(PathBuf::from(found.file)),
        line: found.line,
        column: found.column,
        setting: String::new(),
        message: found.message,
        help: Some(found.help).filter(|help| !help.is_empty()),
        fatal: true,
    }
}

/// What the settings say to an installed image's cloud-init, under what the profile says by cloud-init's own names.
fn nocloud(
    seed: &mut Seed,
    settings: &Settings,
    given: &Map<String, Value>,
    distribution: &str,
    mac: Option<&str>,
) {
    seed.more_than_a_user = seed.user_data.is_some() || seed.network_config.is_some();
    if let Some(mut data) = answers::user_data(settings, given, distribution) {
        seed.more_than_a_user = true;
        if let Some(own) = &seed.user_data {
            forge_http_seed::nocloud::merge(&mut data, own);
        }
        seed.user_data = Some(data);
    }
    if let Some(network) = answers::network_config(settings, mac)
        && seed.network_config.is_none()
    {
        seed.network_config = Some(network);
        seed.ip_config = ip_config(settings);
        // The drive's name servers are settings of their own, which forge does not touch.
        seed.more_than_a_user |= !settings.items("nameservers").is_empty();
    }
}

/// A static address by Proxmox's own names (`ipconfig0`, qemu-server's Cloudinit).
fn ip_config(settings: &Settings) -> Option<String> {
    let names = [("address", "ip"), ("gateway", "gw"), ("address6", "ip6"), ("gateway6", "gw6")];
    let parts: Vec<String> = names
        .into_iter()
        .filter(|(name, _)| !settings.text(name).is_empty())
        .map(|(name, key)| format!("{key}={}", settings.text(name)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(","))
}
