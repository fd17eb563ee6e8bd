//! `forge.toml`: the target's table in it. Pure.
//!
//! What others have written stays: a table is added at the end, and an existing one of the target's name is only replaced
//! by `--force`. What a person may have changed in it since (storages, bridge, seed) is no reason to.

use std::path::{Path, PathBuf};

use super::InitError;
use super::table;
use crate::config::site::{self, TargetKind, TlsConfig};

/// The table that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The target's name.
    pub name: String,
    /// The API's address.
    pub url: String,
    /// `user@realm!token`.
    pub token_id: String,
    /// Where the secret is: a variable, or a file beside the site file.
    pub secret: SecretPlace,
    /// The certificate's fingerprint.
    pub fingerprint: Option<String>,
    /// The nodes; empty for all.
    pub nodes: Vec<String>,
    /// The storage for disks.
    pub disks: Option<String>,
    /// The storage for install media.
    pub isos: Option<String>,
    /// The storage for archives of templates.
    pub archives: Option<String>,
    /// The bridge.
    pub bridge: Option<String>,
    /// The VMIDs that builds may use.
    pub vmids: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The role, when it is not forge's own.
    pub role: Option<String>,
    /// A range of VMIDs that nobody has taken yet, to be proposed when none is given.
    pub free_vmids: Option<String>,
}

/// Where the secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// In a variable.
    Env(&'static str),
    /// In a file.
    File(PathBuf),
}

impl Default for SecretPlace {
    fn default() -> Self {
        Self::Env("PROXMOX_TOKEN_SECRET")
    }
}

/// What becomes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is; what it says otherwise than would be written now.
    Stays(Vec<String>),
    /// It becomes this, for this reason.
    Becomes(String, &'static str),
}

/// What is said of VMIDs that nobody has asked for.
const PROPOSED: &str = "# the ids that builds take, instead of the lowest that is free";

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Table {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("[targets.{}]\ntype = \"proxmox\"\n", self.name);
        let mut line = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
        line("url", quoted(&self.url));
        line("token-id", quoted(&self.token_id));
        match &self.secret {
            SecretPlace::Env(name) => line("token-secret", format!("{{ env = {} }}", quoted(name))),
            SecretPlace::File(file) => {
                line("token-secret", format!("{{ file = {} }}", quoted(&file.to_string_lossy())));
            }
        }
        if let Some(fingerprint) = &self.fingerprint {
            line("tls", format!("{{ fingerprint = {} }}", quoted(fingerprint)));
        }
        match self.nodes.as_slice() {
            [] => line("nodes", quoted("auto")),
            nodes => {
                let nodes: Vec<String> = nodes.iter().map(|node| quoted(node)).collect();
                line("nodes", format!("[{}]", nodes.join(", ")));
            }
        }
        let storage = [("disks", &self.disks), ("isos", &self.isos), ("archives", &self.archives)];
        let storage: Vec<String> = storage
            .iter()
            .filter_map(|(key, name)| Some(format!("{key} = {}", quoted(name.as_ref()?))))
            .collect();
        if !storage.is_empty() {
            line("storage", format!("{{ {} }}", storage.join(", ")));
        }
        let named =
            [("bridge", &self.bridge), ("vmids", &self.vmids), ("pool", &self.pool), ("role", &self.role)];
        for (key, value) in named {
            if let Some(value) = value {
                line(key, quoted(value));
            }
        }
        text.extend(self.proposal().map(|proposal| format!("{proposal}\n")));
        text
    }

    /// The ids that nobody has asked for: a remark that only needs its mark taken off.
    fn proposal(&self) -> Option<String> {
        let free = self.free_vmids.as_ref().filter(|_| self.vmids.is_none())?;
        Some(format!("# vmids = {}   {PROPOSED}", quoted(free)))
    }

    /// What becomes of a site file so that it has this table.
    ///
    /// # Errors
    /// When it can't be read, or says something else of this target and is not to be forced.
    pub fn fate(&self, file: &Path, existing: Option<&str>, force: bool) -> Result<Fate, InitError> {
        let shown = file.display();
        let Some(existing) = existing else {
            return self.checked(file, self.text(), "it is not there");
        };
        let (site, findings) = site::read(file, existing);
        if let Some(finding) = findings.iter().find(|finding| finding.fatal) {
            return Err(InitError::refused(format!("{shown} has a fault of its own: {finding}"))
                .help("mend it first, or name another file with --config"));
        }
        let Some(target) = site.targets.get(&self.name) else {
            let gap = if existing.ends_with("\n\n") || existing.trim().is_empty() { "" } else { "\n" };
            let end = if existing.is_empty() || existing.ends_with('\n') { "" } else { "\n" };
            let text = format!("{existing}{end}{gap}{}", self.text());
            return self.checked(file, text, "it has no such target");
        };
        let (conflicts, others) = self.differences(&target.kind);
        if conflicts.is_empty() && (others.is_empty() || !force) {
            return Ok(Fate::Stays(others));
        }
        if force {
            let path = ["targets", self.name.as_str()];
            let text = table::replaced(existing, path, &self.text(), is_proposal).ok_or_else(|| {
                InitError::refused(format!(
                    "{shown}: the table of `{}` can't be told from the rest",
                    self.name
                ))
                .help(format!("replace it by hand by:\n{}", self.text()))
            })?;
            return self.checked(file, text, "it says something else, and --force is given");
        }
        Err(InitError::refused(format!("{shown} has a target `{}` already: {}", self.name, conflicts.join("; ")))
            .help(format!(
                "--force replaces its table, --name makes another target, --config names another file; it would be:\n{}",
                self.text()
            )))
    }

    /// The text, once it is sure that it is read as it is meant.
    fn checked(&self, file: &Path, text: String, why: &'static str) -> Result<Fate, InitError> {
        let (site, findings) = site::read(file, &text);
        let target = site.targets.get(&self.name);
        let agrees = target.is_some_and(|target| self.differences(&target.kind) == (Vec::new(), Vec::new()));
        if findings.iter().any(|finding| finding.fatal) || !agrees {
            let what = format!("the target `{}` can't be added to {}", self.name, file.display());
            return Err(InitError::refused(what).help(format!("add it by hand:\n{}", self.text())));
        }
        Ok(Fate::Becomes(text, why))
    }

    /// What keeps a target from being this one, and what else is otherwise.
    fn differences(&self, kind: &TargetKind) -> (Vec<String>, Vec<String>) {
        let TargetKind::Proxmox(there) = kind else {
            return (vec!["it is none of Proxmox VE".to_owned()], Vec::new());
        };
        let mut conflicts = Vec::new();
        let plain = |url: &str| url.trim_end_matches('/').trim_end_matches("/api2/json").to_owned();
        if !there.urls.iter().any(|url| plain(url) == plain(&self.url)) {
            conflicts.push(format!("its url is {}, not {}", there.urls.join(", "), self.url));
        }
        if there.token_id != self.token_id {
            conflicts.push(format!("its token-id is {}, not {}", there.token_id, self.token_id));
        }
        let bare = |text: &str| text.replace(':', "").to_ascii_uppercase();
        if let (TlsConfig::Fingerprint(pinned), Some(shown)) = (&there.tls, &self.fingerprint)
            && !pinned.iter().any(|text| bare(text) == bare(shown))
        {
            conflicts.push(format!("it pins another certificate than {shown}"));
        }
        let mut others = Vec::new();
        let mut compare = |key: &str, there: &Option<String>, here: &Option<String>| {
            if here.is_some() && there != here {
                let words = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
                others.push(format!("{key} is {}, not {}", words(there), words(here)));
            }
        };
        compare("storage.disks", &there.disk_storage, &self.disks);
        compare("storage.isos", &there.iso_storage, &self.isos);
        compare("storage.archives", &there.archive_storage, &self.archives);
        compare("bridge", &there.bridge, &self.bridge);
        compare("pool", &there.pool, &self.pool);
        compare("role", &there.role, &self.role);
        let range = there.vmids.map(|(first, last)| format!("{first}-{last}"));
        compare("vmids", &range, &self.vmids);
        if there.nodes != self.nodes {
            others.push("nodes are others".to_owned());
        }
        (conflicts, others)
    }
}

/// Whether a line of a site file is one of forge's own remarks.
fn is_proposal(line: &str) -> bool {
    line.starts_with("# vmids = ") && line.ends_with(PROPOSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "pve".into(),
            url: "https://pve1:8006".into(),
            token_id: "forge@pve!build".into(),
            fingerprint: Some(["AB"; 32].join(":")),
            nodes: vec!["pve1".into()],
            disks: Some("local-lvm".into()),
            isos: Some("local".into()),
            bridge: Some("vmbr0".into()),
            ..Table::default()
        }
    }

    fn fate(existing: Option<&str>, force: bool) -> Result<Fate, InitError> {
        table().fate(Path::new("forge.toml"), existing, force)
    }

    #[test]
    fn a_new_file_is_read_as_it_was_meant_and_stays_as_it_is_the_next_time() {
        let Fate::Becomes(text, _) = fate(None, false).expect("possible") else { panic!("it is new") };
        let (site, findings) = site::read(Path::new("forge.toml"), &text);
        assert_eq!(findings, []);
        assert_eq!(site.targets.len(), 1);
        assert_eq!(fate(Some(&text), false).expect("possible"), Fate::Stays(Vec::new()));
        assert_eq!(fate(Some(&text), true).expect("possible"), Fate::Stays(Vec::new()));
        for secret in [SecretPlace::File("it's \"here\".token".into()), SecretPlace::default()] {
            let table = Table { secret, nodes: Vec::new(), vmids: Some("9001-9099".into()), ..table() };
            let (_, findings) = site::read(Path::new("forge.toml"), &table.text());
            assert_eq!(findings, [], "{}", table.text());
        }
    }

    #[test]
    fn what_others_wrote_stays_word_for_word() {
        let other = "# ours\n[targets.local]\ntype = \"qemu\"   # here";
        let Fate::Becomes(text, _) = fate(Some(other), false).expect("possible") else { panic!("it grows") };
        assert!(text.starts_with(&format!("{other}\n\n[targets.pve]\n")), "{text}");
        let edited = text.replace("vmbr0", "vmbr7") + "seed = { ports = \"8800-8809\" }\n";
        match fate(Some(&edited), false).expect("possible") {
            Fate::Stays(others) => assert_eq!(others, ["bridge is vmbr7, not vmbr0"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_s_target_is_only_replaced_by_force() {
        let theirs = format!(
            "{}\n[targets.pve.seed]\nports = \"8800-8809\"\n\n# kept\n[targets.local]\ntype = \"qemu\"\n",
            table().text().replace("forge@pve!build", "ci@pve!old")
        );
        let error = fate(Some(&theirs), false).expect_err("it is theirs");
        assert!(error.to_string().contains("its token-id is ci@pve!old, not forge@pve!build"), "{error}");
        assert!(error.hints()[0].contains("--force"), "{:?}", error.hints());
        let Fate::Becomes(text, _) = fate(Some(&theirs), true).expect("forced") else { panic!("it changes") };
        assert!(text.contains("forge@pve!build") && !text.contains("ci@pve!old"), "{text}");
        assert!(text.contains("[targets.local]") && !text.contains("[targets.pve.seed]"), "{text}");
        assert!(text.contains("\n\n# kept\n[targets.local]\n"), "{text}");
        let dotted = "targets.pve = { type = \"qemu\" }\n";
        assert!(fate(Some(dotted), true).is_err(), "what can't be told apart is left to people");
    }

    #[test]
    fn what_people_remarked_in_a_table_that_is_replaced_stays_at_its_keys() {
        let theirs =
            table().text().replace("bridge = \"vmbr0\"", "# rack 3\nbridge = \"vmbr7\"   # the quick one");
        let wanted = Table { free_vmids: Some("9001-9099".into()), role: Some("Builders".into()), ..table() };
        let Fate::Becomes(text, _) =
            wanted.fate(Path::new("forge.toml"), Some(&theirs), true).expect("forced")
        else {
            panic!("it changes")
        };
        let expected = "# rack 3\nbridge = \"vmbr0\"   # the quick one\nrole = \"Builders\"\n# vmids = \"9001-9099\"   # ";
        assert!(text.contains(expected), "{text}");
        let again = Table { bridge: Some("vmbr1".into()), ..wanted };
        let Fate::Becomes(text, _) = again.fate(Path::new("forge.toml"), Some(&text), true).expect("forced")
        else {
            panic!("it changes")
        };
        assert_eq!(text.matches("# vmids").count(), 1, "{text}");
        assert_eq!(text.matches("# rack 3\nbridge = \"vmbr1\"   # the quick one").count(), 1, "{text}");
    }

    #[test]
    fn a_file_with_faults_is_left_alone() {
        let error = fate(Some("[targets.x\n"), true).expect_err("it has a fault");
        assert!(error.to_string().contains("has a fault of its own"), "{error}");
    }
}
