//! `[[provision]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Load, beside};
use crate::config::findings::Finding;
use crate::config::place::{Node, Place, Spot};
use crate::config::profile::{Provisioner, ProvisionerKind};
use crate::config::reader::Reader;
use crate::provision::{AnsibleWork, Condition, Direction};
use crate::remote::Become;

/// How much of a command names a step that has no name.
const NAME_LENGTH: usize = 40;

/// The keys of a provisioner.
const KEYS: [&str; 43] = [
    "name",
    "enabled",
    "shell",
    "script",
    "scripts",
    "powershell",
    "execution-policy",
    "use-pwsh",
    "windows-restart",
    "windows-update",
    "shell-local",
    "exec",
    "ansible",
    "ansible-local",
    "playbook-dir",
    "groups",
    "host-alias",
    "extra-arguments",
    "galaxy-file",
    "roles-path",
    "collections-path",
    "vault-password-file",
    "upload",
    "download",
    "content",
    "destination",
    "mode",
    "reboot",
    "wait-for",
    "breakpoint",
    "env",
    "become",
    "interpreter",
    "work-dir",
    "valid-exit-codes",
    "timeout",
    "expect-disconnect",
    "pause-before",
    "max-retries",
    "start-retry",
    "on-error",
    "only",
    "except",
];

/// The keys of scripts for the guest.
const SCRIPTS: [&str; 4] = ["shell", "script", "scripts", "powershell"];

/// The keys that say what a provisioner is; `content` stands for a file of a few lines.
const KINDS: [&str; 15] = [
    "shell",
    "script",
    "scripts",
    "powershell",
    "windows-restart",
    "windows-update",
    "shell-local",
    "exec",
    "ansible",
    "ansible-local",
    "upload",
    "download",
    "reboot",
    "wait-for",
    "breakpoint",
];

/// What a provisioner runs.
enum Script {
    Inline(String),
    Files(Vec<(String, Place)>),
}

impl Load<'_> {
    pub(super) fn provision(&mut self, root: &mut Reader<'_>, windows: bool) -> Vec<Provisioner> {
        let mut steps = Vec::new();
        for mut reader in root.tables("provision", &mut self.findings) {
            let enabled = reader.flag("enabled", &mut self.findings).unwrap_or(true);
            let before = self.findings.len();
            let found = self.provisioner(&mut reader, enabled, windows);
            if !enabled {
                // What is switched off need not be whole; its keys are still checked below.
                self.findings.truncate(before);
            }
            reader.done(&mut self.findings);
            steps.extend(found.into_iter().filter(|_| enabled));
        }
        steps
    }

    fn provisioner(&mut self, reader: &mut Reader<'_>, enabled: bool, windows: bool) -> Vec<Provisioner> {
        let name = reader.raw_text("name", &mut self.findings).unwrap_or_default();
        let kind = self.kind(reader, windows);
        let shell = self.power_shell(reader);
        let script = if kind.is_none() { self.script(reader) } else { None };
        let step = Provisioner {
            name,
            kind: ProvisionerKind::Shell,
            script: String::new(),
            file: None,
            env: self.env(reader),
            r#become: self.rights(reader),
            valid_exit_codes: exit_codes(reader, windows, &mut self.findings),
            timeout: reader.time("timeout", &mut self.findings),
            expect_disconnect: reader.flag("expect-disconnect", &mut self.findings).unwrap_or(false),
            pause_before: reader.time("pause-before", &mut self.findings),
            max_retries: reader.integer("max-retries", 0, 100, &mut self.findings).unwrap_or(0),
            start_retry: reader.time("start-retry", &mut self.findings),
            power_shell: reader.any("powershell").map(|_| shell.clone()),
            on_error: reader.flag("on-error", &mut self.findings).unwrap_or(false),
            interpreter: reader.raw_text("interpreter", &mut self.findings),
            work_dir: reader.raw_text("work-dir", &mut self.findings),
            only: reader.texts("only", &mut self.findings).unwrap_or_default(),
            except: reader.texts("except", &mut self.findings).unwrap_or_default(),
        };
        if let Some((kind, script, word)) = kind {
            let name = if step.name.is_empty() { first_words(&word) } else { step.name.clone() };
            return vec![Provisioner { name, kind, script, ..step }];
        }
        match script {
            Some(Script::Inline(text)) => {
                let name = if step.name.is_empty() { first_words(&text) } else { step.name.clone() };
                vec![Provisioner { name, script: text, ..step }]
            }
            Some(Script::Files(paths)) if enabled => {
                let single = paths.len() == 1;
                let named = |path: &String| match step.name.as_str() {
                    "" => path.clone(),
                    name if single => name.to_owned(),
                    name => format!("{name}: {path}"),
                };
                paths
                    .iter()
                    .map(|(path, place)| {
                        let (file, script) = self.script_file(path, place, &reader.name("script"));
                        // Elsewhere its first line says what runs it.
                        let ps1 = windows && path.to_ascii_lowercase().ends_with(".ps1");
                        let power_shell = ps1.then(|| shell.clone());
                        Provisioner {
                            name: named(path),
                            script,
                            file: Some(file),
                            power_shell,
                            ..step.clone()
                        }
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// What it is, when it is no script for the guest: the kind, a script for this machine, and what names it.
    fn kind(&mut self, reader: &mut Reader<'_>, windows: bool) -> Option<(ProvisionerKind, String, String)> {
        let given: Vec<&str> =
            reader.entries().map(|(key, ..)| key).filter(|key| KINDS.contains(key)).collect();
        let content = reader.raw_text("content", &mut self.findings);
        let destination = reader.raw_text("destination", &mut self.findings);
        let mode = self.mode(reader);
        let word = match given.as_slice() {
            [] if content.is_some() => "content",
            [] => {
                // A key that is not known is compared with these, too.
                KINDS.iter().for_each(|key| _ = reader.any(key));
                return None;
            }
            // Scripts tell their own collisions.
            all if all.iter().all(|key| SCRIPTS.contains(key)) => {
                for key in ["content", "destination", "mode"] {
                    if reader.any(key).is_some() {
                        let finding = reader.finding(key, format!("`{key}` is for `upload` and `download`"));
                        self.findings.push(finding);
                    }
                }
                return None;
            }
            [one] => one,
            [first, second, ..] => {
                let message = format!("`{first}` and `{second}` exclude each other");
                let finding = Finding::at(reader.place(), reader.path(), message);
                self.findings.push(finding.help("write one provisioner for each"));
                return None;
            }
        };
        let dir = beside(reader.place(), "");
        let place = reader.place().clone();
        let path = |text: &str| beside(&place, text);
        let found = match word {
            "shell-local" => {
                let text = self.lines(reader, "shell-local")?;
                (ProvisionerKind::ShellLocal { dir }, text.clone(), text)
            }
            "exec" => {
                let words = reader.texts("exec", &mut self.findings)?;
                let first = words.first().cloned().unwrap_or_default();
                if first.is_empty() {
                    let finding = reader.finding("exec", "this names no program");
                    self.findings.push(finding.help("exec = [\"./program\", \"argument\"]"));
                }
                (ProvisionerKind::Exec { words, dir }, String::new(), first)
            }
            "ansible" => {
                let text = reader.raw_text("ansible", &mut self.findings)?;
                (ProvisionerKind::Ansible { work: self.ansible(reader, &text), dir }, String::new(), text)
            }
            "ansible-local" => {
                let text = reader.raw_text("ansible-local", &mut self.findings)?;
                let work = self.ansible_local(reader, &text);
                (ProvisionerKind::AnsibleLocal { work }, String::new(), text)
            }
            "upload" | "content" => {
                let source = reader.raw_text("upload", &mut self.findings);
                let remote = destination.unwrap_or_default();
                if source.is_some() && content.is_some() {
                    self.findings
                        .push(reader.finding("content", "`upload` and `content` exclude each other"));
                }
                if content.is_some() && remote.ends_with('/') {
                    let finding = reader.finding("destination", "a text has no name of its own");
                    self.findings.push(finding.help("write the whole path of the file"));
                }
                let local = source.as_deref().map(path).unwrap_or_default();
                if let Some(source) = &source {
                    self.no_home(reader, "upload", source, "on this machine");
                }
                if source.is_some() && !(self.context.exists)(&local) {
                    let finding = reader.finding("upload", format!("{} does not exist", local.display()));
                    self.findings.push(finding.help("paths are relative to the file that names them"));
                }
                let kind = std::fs::metadata(&local).ok().filter(|_| source.is_some());
                if kind.is_some_and(|kind| !kind.is_file() && !kind.is_dir()) {
                    let message = format!("{} is neither a file nor a folder", local.display());
                    self.findings.push(reader.finding("upload", message));
                }
                let name = format!("upload to {remote}");
                self.needs_destination(reader, &remote);
                if windows && mode.is_some() {
                    let finding = reader.finding("mode", "a file of Windows has no permission bits");
                    self.findings.push(finding.help("leave it out").warning());
                }
                if windows {
                    self.no_home(reader, "destination", &remote, "by Windows");
                }
                let direction = Direction::Upload;
                (ProvisionerKind::File { direction, local, remote, content, mode }, String::new(), name)
            }
            "download" => {
                let remote = reader.raw_text("download", &mut self.findings)?;
                let near = destination.unwrap_or_default();
                self.needs_destination(reader, &near);
                self.no_home(reader, "destination", &near, "on this machine");
                if windows {
                    self.no_home(reader, "download", &remote, "by Windows");
                }
                let (name, local) = (format!("download {remote}"), path(&near));
                let direction = Direction::Download;
                (ProvisionerKind::File { direction, local, remote, content: None, mode }, String::new(), name)
            }
            "reboot" => {
                if reader.flag("reboot", &mut self.findings) == Some(false) {
                    let finding = reader.finding("reboot", "this provisioner does nothing");
                    self.findings.push(finding.help("leave it out, or say `enabled = false`"));
                }
                (ProvisionerKind::Reboot, String::new(), "reboot".to_owned())
            }
            "windows-restart" => {
                let work = self.windows_restart(reader);
                (ProvisionerKind::WindowsRestart(work), String::new(), "windows-restart".to_owned())
            }
            "windows-update" => {
                let work = self.windows_update(reader);
                (ProvisionerKind::WindowsUpdate(work), String::new(), "windows-update".to_owned())
            }
            "wait-for" => {
                let condition = self.condition(reader)?;
                let name = format!("wait for {condition}");
                (ProvisionerKind::WaitFor(condition), String::new(), name)
            }
            _ => {
                let note = match reader.any("breakpoint").map(|spot| &spot.node) {
                    Some(Node::Bool(true)) => String::new(),
                    _ => reader.raw_text("breakpoint", &mut self.findings)?,
                };
                (ProvisionerKind::Breakpoint(note), String::new(), "breakpoint".to_owned())
            }
        };
        Some(found)
    }

    fn ansible_local(&mut self, reader: &mut Reader<'_>, playbook: &str) -> AnsibleWork {
        let folder = reader.raw_text("playbook-dir", &mut self.findings);
        let playbook_dir = folder.map(|text| beside(reader.place(), &text));
        let work = AnsibleWork { playbook_dir, ..self.ansible(reader, playbook) };
        let given = [
            ("playbook-dir", &work.playbook_dir),
            ("roles-path", &work.roles_path),
            ("collections-path", &work.collections_path),
        ];
        for (key, path) in given {
            if let Some(path) = path.as_ref().filter(|path| !(self.context.exists)(path)) {
                let finding = reader.finding(key, format!("{} does not exist", path.display()));
                self.findings.push(finding.help("paths are relative to the file that names them"));
            }
        }
        if let Some(folder) = &work.playbook_dir
            && !work.playbook.starts_with(folder)
        {
            let message = format!("{} is not in {}", work.playbook.display(), folder.display());
            self.findings.push(
                reader.finding("playbook-dir", message).help("name the folder that holds the playbook"),
            );
        }
        work
    }

    fn ansible(&mut self, reader: &mut Reader<'_>, playbook: &str) -> AnsibleWork {
        let place = reader.place().clone();
        let mut path =
            |key: &'static str| reader.raw_text(key, &mut self.findings).map(|text| beside(&place, &text));
        let (galaxy_file, vault_password_file) = (path("galaxy-file"), path("vault-password-file"));
        let (roles_path, collections_path) = (path("roles-path"), path("collections-path"));
        let work = AnsibleWork {
            playbook: beside(&place, playbook),
            host_alias: reader.raw_text("host-alias", &mut self.findings).unwrap_or_else(|| "default".into()),
            groups: reader.texts("groups", &mut self.findings).unwrap_or_default(),
            extra_arguments: reader.texts("extra-arguments", &mut self.findings).unwrap_or_default(),
            galaxy_file,
            roles_path,
            collections_path,
            vault_password_file,
            playbook_dir: None,
            become_root: false,
        };
        let files = [
            (if reader.any("ansible").is_some() { "ansible" } else { "ansible-local" }, Some(&work.playbook)),
            ("galaxy-file", work.galaxy_file.as_ref()),
            ("vault-password-file", work.vault_password_file.as_ref()),
        ];
        for (key, path) in files {
            if let Some(path) = path.filter(|path| !(self.context.exists)(path)) {
                let finding = reader.finding(key, format!("{} does not exist", path.display()));
                self.findings.push(finding.help("paths are relative to the file that names them"));
            }
        }
        work
    }

    fn needs_destination(&mut self, reader: &Reader<'_>, path: &str) {
        if path.is_empty() {
            let finding = Finding::at(reader.place(), reader.path(), "`destination` is missing");
            self.findings.push(finding.help("say where the file goes to"));
        }
    }

    /// Tells of a `~` where nobody makes a home of it.
    fn no_home(&mut self, reader: &Reader<'_>, key: &str, path: &str, by: &str) {
        if path == "~" || path.starts_with("~/") || path.starts_with("~\\") {
            let finding = reader.finding(key, format!("`~` is not taken for a home {by}"));
            self.findings.push(finding.help("write the whole path"));
        }
    }

    fn condition(&mut self, reader: &mut Reader<'_>) -> Option<Condition> {
        let mut table = reader.table("wait-for", &mut self.findings)?;
        let port = table.integer("port", 1, 65535, &mut self.findings);
        let file = table.raw_text("file", &mut self.findings);
        let command = table.raw_text("command", &mut self.findings);
        let condition = match (port, file, command) {
            (Some(port), None, None) => u16::try_from(port).ok().map(Condition::Port),
            (None, Some(path), None) => Some(Condition::File(path)),
            (None, None, Some(line)) => Some(Condition::Command(line)),
            _ => {
                let finding =
                    reader.finding("wait-for", "exactly one of `port`, `file` and `command` is needed");
                self.findings.push(finding);
                None
            }
        };
        table.done(&mut self.findings);
        condition
    }

    /// `mode = "0644"`: octal, as a string, because a bare 0644 is no TOML and 644 would be another number.
    fn mode(&mut self, reader: &mut Reader<'_>) -> Option<u32> {
        let text = reader.raw_text("mode", &mut self.findings)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        if mode.is_none() {
            let finding = reader.finding("mode", format!("`{text}` are no permission bits"));
            self.findings.push(finding.help("write them in octal: mode = \"0755\""));
        }
        mode
    }

    /// `become`: a truth value, or the program by which root is become.
    fn rights(&mut self, reader: &mut Reader<'_>) -> Become {
        match reader.any("become").map(|spot| &spot.node) {
            Some(Node::Text(_)) => {
                match reader.word("become", &["auto", "sudo", "doas", "su"], &mut self.findings).as_deref() {
                    Some("sudo") => Become::Sudo,
                    Some("doas") => Become::Doas,
                    Some("su") => Become::Su,
                    _ => Become::Auto,
                }
            }
            _ => Become::from(reader.flag("become", &mut self.findings).unwrap_or(false)),
        }
    }

    fn lines(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<String> {
        match reader.any(key).map(|spot| &spot.node) {
            Some(Node::Text(text)) => Some(text.clone()),
            Some(_) => reader.texts(key, &mut self.findings).map(|lines| lines.join("\n")),
            None => None,
        }
    }

    /// What it runs: exactly one of `shell`, `powershell`, `script` and `scripts`.
    fn script(&mut self, reader: &mut Reader<'_>) -> Option<Script> {
        let before = self.findings.len();
        let inline: Vec<String> =
            ["shell", "powershell"].iter().filter_map(|key| self.lines(reader, key)).collect();
        let both = inline.len() > 1;
        let shell = inline.into_iter().next();
        let one = reader
            .raw_text("script", &mut self.findings)
            .map(|path| (path, reader.place_of("script").clone()));
        let several: Option<Vec<(String, Place)>> = match reader.any("scripts").map(|spot| &spot.node) {
            Some(Node::List(items)) => {
                reader.texts("scripts", &mut self.findings);
                let text = |spot: &Spot| match &spot.node {
                    Node::Text(text) => Some((text.clone(), spot.place.clone())),
                    _ => None,
                };
                Some(items.iter().filter_map(text).collect())
            }
            Some(_) => reader.texts("scripts", &mut self.findings).map(|_| Vec::new()),
            None => None,
        };
        let what = match (shell, one, several) {
            _ if both => {
                let message = "`shell` and `powershell` exclude each other";
                let finding = Finding::at(reader.place(), reader.path(), message);
                self.findings.push(finding.help("write one provisioner for each"));
                return None;
            }
            (Some(text), None, None) if text.trim().is_empty() => None,
            (Some(text), None, None) => Some(Script::Inline(text)),
            (None, Some(file), None) => Some(Script::Files(vec![file])),
            (None, None, Some(files)) if !files.is_empty() => Some(Script::Files(files)),
            (None, None, _) => None,
            _ => {
                let message = "`shell`, `powershell`, `script` and `scripts` exclude each other";
                let finding = Finding::at(reader.place(), reader.path(), message);
                self.findings.push(finding.help("write one provisioner for each"));
                return None;
            }
        };
        let misspelt = || reader.entries().any(|(key, ..)| !KEYS.contains(&key));
        if what.is_none() && self.findings.len() == before && !misspelt() {
            let finding = Finding::at(reader.place(), reader.path(), "this provisioner runs nothing");
            let help = format!("give it one of: {}, or `content` with `destination`", KINDS.join(", "));
            self.findings.push(finding.help(help));
        }
        what
    }

    fn script_file(&mut self, path: &str, place: &Place, setting: &str) -> (PathBuf, String) {
        let file = beside(place, path);
        let text = (self.context.read_file)(&file).unwrap_or_else(|error| {
            let message = format!("the script {} can't be read: {error}", file.display());
            let finding = Finding::at(place, setting, message);
            self.findings.push(finding.help("paths are relative to the file that names them"));
            String::new()
        });
        (file, text)
    }

    fn env(&mut self, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(table) = reader.table("env", &mut self.findings) else { return env };
        for (key, place, spot) in table.entries() {
            let fits = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !fits {
                let finding =
                    Finding::at(place, table.name(key), format!("`{key}` is no name for a variable"));
                self.findings.push(finding.help("letters, digits and `_`, no digit first"));
            }
            let value = match &spot.node {
                Node::Text(_) | Node::Integer(_) | Node::Bool(_) => self.fill_in(spot, &table.name(key)),
                node => {
                    let message = format!("expected a string, integer or truth value, found {}", node.kind());
                    self.findings.push(Finding::at(&spot.place, table.name(key), message));
                    continue;
                }
            };
            env.insert(key.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        env
    }
}

fn first_words(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(NAME_LENGTH).collect()
}

fn exit_codes(reader: &mut Reader<'_>, windows: bool, findings: &mut Vec<Finding>) -> Vec<i32> {
    // Installers of Windows tell with 3010 that a restart is due.
    let most = if windows { i64::from(i32::MAX) } else { 255 };
    let Some(spot) = reader.any("valid-exit-codes") else { return vec![0] };
    let Node::List(items) = &spot.node else {
        let message = format!("expected an array of integers, found {}", spot.node.kind());
        findings.push(reader.finding("valid-exit-codes", message));
        return vec![0];
    };
    let mut codes = Vec::new();
    for item in items {
        match &item.node {
            Node::Integer(code) if (0..=most).contains(code) => codes.extend(i32::try_from(*code)),
            _ => {
                let finding =
                    Finding::at(&item.place, reader.name("valid-exit-codes"), "this is no exit code");
                findings.push(finding.help(format!("integers from 0 to {most}")));
            }
        }
    }
    if codes.is_empty() { vec![0] } else { codes }
}
