//! Reads `[access]`: who logs in, by what, and on which way.

use std::time::Duration;

use super::super::findings::{Finding, nearest};
use super::super::place::Node;
use super::super::profile::{Access, Profile};
use super::super::reader::Reader;
use super::super::template::Template;
use super::{Load, beside, is_user_name};
use crate::backends::tls::Fingerprint;
use crate::plan::boot::types;
use crate::plan::late::LateName;
use crate::plan::make::located;
use crate::remote::access::{BastionPlan, CredentialPlan, ProxyPlan};
use crate::remote::winrm::PORTS;
use crate::remote::{ProxyKind, SecretSource, SshPlan, Via, WinRmAuth, WinRmPlan, via};

/// The port of SSH.
const SSH_PORT: u16 = 22;

/// Whether Windows takes it as the name of a user, maybe with its domain ("Naming conventions in Active Directory").
fn is_windows_user(user: &str) -> bool {
    let name = user.split_once('\\').map_or(user, |(_, name)| name);
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    !name.is_empty()
        && name.chars().count() <= 20
        && !name.chars().any(|c| c.is_control() || "\"/\\[]:;|=,+*?<>@".contains(c))
}

/// What is wrong when nothing says how to log in: a user whom the build does not make knows no key that is made for the
/// build. An installer's answers may bring it, and boot steps may type it.
pub(super) fn no_login(profile: &Profile) -> Option<Finding> {
    let Profile { access, seed, boot, source, .. } = profile;
    let key = LateName::AccessPublicKey;
    let told = |cmdline: &Template| cmdline.to_late(|_| String::new()).names().any(|name| name == key);
    let brought = seed.answers.is_some()
        || !seed.files.is_empty()
        || types(boot, key)
        || source.kernel.as_ref().is_some_and(|kernel| told(&kernel.cmdline));
    let given = access.create || !access.ssh.credentials.is_empty() || access.via.contains(&Via::Agent);
    if brought || given {
        return None;
    }
    let message =
        format!("`{}` is not made by the build, and nothing says how to log in as that user", access.user);
    let help = "name `key-file`, `agent-auth` or `password` in `[access]`; a user that the build makes knows its key";
    Some(located(profile, "access.create", message).help(help))
}

impl Load<'_> {
    pub(super) fn access(&mut self, root: &mut Reader<'_>, windows: bool) -> Access {
        let mut access = Access {
            user: "forge".into(),
            create: true,
            via: via::usual(),
            ssh: SshPlan::default(),
            winrm: WinRmPlan::default(),
        };
        let Some(mut reader) = root.table("access", &mut self.findings) else { return access };
        if let Some(user) = self.filled(&mut reader, "user") {
            if windows && !is_windows_user(&user) {
                let finding = reader.finding("user", format!("`{user}` is no user name of Windows"));
                let help =
                    "`name`, `DOMAIN\\name` or `name@domain`, the name without \" / [ ] : ; | = , + * ? < >";
                self.findings.push(finding.help(help));
            } else if !windows && !is_user_name(&user) {
                let finding = reader.finding("user", format!("`{user}` is no user name"));
                let help = "lower-case letters, digits, `-` and `_`, a letter or `_` first, 32 at most";
                self.findings.push(finding.help(help));
            }
            access.user = user;
        }
        // Windows' names of users know no case.
        let (system, is_system) = match windows {
            true => ("Administrator", access.user.eq_ignore_ascii_case("administrator")),
            false => ("root", access.user == "root"),
        };
        let elsewhere = windows && access.user.contains(['\\', '@']);
        access.create = reader.flag("create", &mut self.findings).unwrap_or(!is_system && !elsewhere);
        if access.create && elsewhere {
            let message = format!("`{}` is a domain's user, whom no answer file makes", access.user);
            let finding = reader.finding("create", message);
            self.findings.push(finding.help("leave `create` out, or name a user of the guest's own"));
        }
        if access.create && is_system {
            let message = format!("{system} is there already, and sealing would remove it");
            let finding = reader.finding("create", message);
            self.findings.push(finding.help("leave `create` out, or name another user"));
        }
        access.via = self.via(&mut reader);
        if access.via.contains(&Via::WinRm) && !windows {
            let finding = reader.finding("via", "WinRM is Windows' own, and the profile's family is linux");
            self.findings.push(finding.help("say `family = \"windows\"` in `[os]`, or leave `winrm` out"));
        }
        let host_key_in_seed = matches!(
            reader.any("host-key").map(|spot| &spot.node),
            Some(Node::Text(text)) if text == "seed"
        );
        access.ssh = SshPlan {
            credentials: self.credentials(&mut reader),
            host: self.filled(&mut reader, "host"),
            interface: self.filled(&mut reader, "interface"),
            port: self.port(&mut reader),
            host_key_in_seed,
            host_key: if host_key_in_seed { None } else { self.host_key(&mut reader, &["seed"]) },
            old_algorithms: reader.flag("old-algorithms", &mut self.findings).unwrap_or(false),
            keep_alive: self.keep_alive(&mut reader),
            bastions: self.bastions(&mut reader),
            proxy: self.proxy(&mut reader),
        };
        if access.ssh.host.is_some() && access.ssh.interface.is_some() {
            let finding = reader.finding("interface", "`host` says already where the guest is");
            self.findings.push(finding.help("leave one of them out"));
        }
        access.winrm = self.winrm(&mut reader, &access.via);
        reader.done(&mut self.findings);
        access
    }

    /// How WinRM is spoken, by Packer's names.
    fn winrm(&mut self, reader: &mut Reader<'_>, via: &[Via]) -> WinRmPlan {
        let Some(mut table) = reader.table("winrm", &mut self.findings) else { return WinRmPlan::default() };
        let auth = table.word("auth", &["ntlm", "basic"], &mut self.findings);
        let plan = WinRmPlan {
            port: self.port(&mut table),
            use_ssl: table.flag("use-ssl", &mut self.findings).unwrap_or(false),
            insecure: table.flag("insecure", &mut self.findings).unwrap_or(false),
            fingerprint: self.filled(&mut table, "fingerprint"),
            auth: if auth.as_deref() == Some("basic") { WinRmAuth::Basic } else { WinRmAuth::Ntlm },
        };
        if plan.fingerprint.as_deref().is_some_and(|text| Fingerprint::parse(text).is_none()) {
            let finding = table.finding("fingerprint", "it is no SHA-256 fingerprint of a certificate");
            self.findings.push(finding.help("64 hexadecimal digits, colons allowed"));
        }
        if plan.fingerprint.is_some() && (plan.insecure || !plan.use_ssl) {
            let why =
                if plan.insecure { "`insecure` takes any certificate" } else { "there is none without TLS" };
            let finding = table.finding("fingerprint", format!("no certificate is held against it: {why}"));
            self.findings.push(finding.help("say `use-ssl = true` and leave `insecure` out"));
        }
        if plan.insecure && !plan.use_ssl {
            let finding = table.finding("insecure", "there is no certificate to be asked about without TLS");
            self.findings.push(finding.help("say `use-ssl = true`, or leave `insecure` out"));
        }
        let (plain, tls) = PORTS;
        for (asked, other, advice) in [
            (!plan.use_ssl, tls, "say `use-ssl = true`, or name another port"),
            (plan.use_ssl, plain, "leave `use-ssl` out, or name another port"),
        ] {
            if asked && plan.port == Some(other) {
                let words = if plan.use_ssl { "without" } else { "with" };
                let finding = table.finding("port", format!("{other} is WinRM's port {words} TLS"));
                self.findings.push(finding.help(advice).warning());
            }
        }
        if plan.auth == WinRmAuth::Basic && !plan.use_ssl {
            let message =
                "with `basic` the password and all that is said go over the network for all to read";
            let finding = table.finding("auth", message).help("say `use-ssl = true`, or leave `auth` out");
            self.findings.push(finding.warning());
        }
        if !via.contains(&Via::WinRm) {
            let finding = reader.finding("winrm", "WinRM is not among the ways to the guest");
            self.findings.push(finding.help("name it: via = [\"winrm\"]"));
        }
        table.done(&mut self.findings);
        plan
    }

    /// The ways to the guest.
    fn via(&mut self, reader: &mut Reader<'_>) -> Vec<Via> {
        let Some(names) = reader.texts("via", &mut self.findings) else { return via::usual() };
        let mut ways: Vec<Via> = Vec::new();
        for name in &names {
            match Via::named(name) {
                Some(way) if ways.contains(&way) => {
                    self.findings.push(reader.finding("via", format!("`{name}` is named twice")));
                }
                Some(way) => ways.push(way),
                None => {
                    let finding = reader.finding("via", format!("`{name}` is no way to the guest"));
                    self.findings.push(finding.help(format!("there are: {}", Via::NAMES.join(", "))));
                }
            }
        }
        if names.is_empty() {
            self.findings.push(reader.finding("via", "no way to the guest is named"));
        }
        ways
    }

    fn credentials(&mut self, reader: &mut Reader<'_>) -> CredentialPlan {
        let mut path = |load: &mut Self, key| {
            let text = load.filled(reader, key)?;
            Some(beside(reader.place_of(key), &text))
        };
        let (key_file, certificate_file) = (path(self, "key-file"), path(self, "certificate-file"));
        let plan = CredentialPlan {
            key_file,
            certificate_file,
            password: self.secret(reader, "password"),
            key_passphrase: self.secret(reader, "key-passphrase"),
            agent_auth: reader.flag("agent-auth", &mut self.findings).unwrap_or(false),
        };
        for (key, given) in [
            ("certificate-file", plan.certificate_file.is_some()),
            ("key-passphrase", plan.key_passphrase.is_some()),
        ] {
            if given && plan.key_file.is_none() {
                let finding = reader.finding(key, format!("`{key}` belongs to a `key-file`"));
                self.findings.push(finding.help("name the private key's file in `key-file`"));
            }
        }
        plan
    }

    fn keep_alive(&mut self, reader: &mut Reader<'_>) -> Option<Duration> {
        let given = reader.time("keep-alive", &mut self.findings)?;
        if given < Duration::from_secs(1) || given > Duration::from_secs(3600) {
            let finding = reader.finding("keep-alive", "this is no time between two signs of life");
            self.findings.push(finding.help("from 1s to 1h"));
        }
        Some(given)
    }

    fn bastions(&mut self, reader: &mut Reader<'_>) -> Vec<BastionPlan> {
        let tables = reader.tables("bastions", &mut self.findings);
        tables
            .into_iter()
            .map(|mut reader| {
                for key in ["host", "user"] {
                    if reader.any(key).is_none() {
                        self.findings.push(reader.finding(key, format!("`{}` is missing", reader.name(key))));
                    }
                }
                let credentials = self.credentials(&mut reader);
                if credentials.is_empty() {
                    let finding = reader.finding("key-file", "nothing says how to log in to this bastion");
                    let help =
                        "the build's key is not known there: give `key-file`, `agent-auth` or `password`";
                    self.findings.push(finding.help(help));
                }
                let plan = BastionPlan {
                    host: self.filled(&mut reader, "host").unwrap_or_default(),
                    port: self.port(&mut reader).unwrap_or(SSH_PORT),
                    user: self.filled(&mut reader, "user").unwrap_or_default(),
                    host_key: self.host_key(&mut reader, &[]),
                    credentials,
                };
                reader.done(&mut self.findings);
                plan
            })
            .collect()
    }

    fn proxy(&mut self, reader: &mut Reader<'_>) -> Option<ProxyPlan> {
        let mut reader = reader.table("proxy", &mut self.findings)?;
        let http =
            reader.word("type", &["socks5", "http"], &mut self.findings).is_some_and(|kind| kind == "http");
        let (kind, usual) = if http { (ProxyKind::Http, 8080) } else { (ProxyKind::Socks5, 1080) };
        if reader.any("host").is_none() {
            self.findings.push(reader.finding("host", "`access.proxy.host` is missing"));
        }
        let plan = ProxyPlan {
            kind,
            host: self.filled(&mut reader, "host").unwrap_or_default(),
            port: self.port(&mut reader).unwrap_or(usual),
            user: self.filled(&mut reader, "user"),
            password: self.secret(&mut reader, "password"),
        };
        reader.done(&mut self.findings);
        Some(plan)
    }

    fn port(&mut self, reader: &mut Reader<'_>) -> Option<u16> {
        reader.integer("port", 1, 65535, &mut self.findings).and_then(|port| u16::try_from(port).ok())
    }

    /// A host key as `ssh-keygen -l` prints it; `words` are what may stand in its place here.
    fn host_key(&mut self, reader: &mut Reader<'_>, words: &[&'static str]) -> Option<String> {
        let text = self.filled(reader, "host-key")?;
        let hash = text.strip_prefix("SHA256:").unwrap_or_default().trim_end_matches('=');
        let fits =
            hash.len() == 43 && hash.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/'));
        if !fits {
            let finding = reader.finding("host-key", format!("`{text}` is no fingerprint of a host key"));
            self.findings.push(finding.help(match nearest(&text, words.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`ssh-keygen -l -f FILE` prints it: `SHA256:` and 43 characters; `seed` (of the guest alone) has the seed bring one".into(),
            }));
        }
        Some(format!("SHA256:{hash}"))
    }

    /// A secret's source; the secret itself does not belong in a profile.
    fn secret(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<SecretSource> {
        let advice = "write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"…\"] }";
        let spot = reader.any(key)?;
        if matches!(spot.node, Node::Text(_)) {
            let finding = Finding::at(&spot.place, reader.name(key), "a secret does not belong in this file");
            self.findings.push(finding.help(advice));
            return None;
        }
        let mut table = reader.table(key, &mut self.findings)?;
        let given = (
            table.text("env", &mut self.findings),
            table.text("file", &mut self.findings),
            table.texts("command", &mut self.findings),
        );
        let place = table.place().clone();
        table.done(&mut self.findings);
        match given {
            (Some(name), None, None) => Some(SecretSource::Env(name)),
            (None, Some(file), None) => Some(SecretSource::File(beside(&place, &file))),
            (None, None, Some(command)) if !command.is_empty() => Some(SecretSource::Command(command)),
            _ => {
                let finding = Finding::at(&place, reader.name(key), "one source of the secret is needed");
                self.findings.push(finding.help(advice));
                None
            }
        }
    }
}
