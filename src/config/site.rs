//! The site file `forge.toml`: the targets, and how to reach them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_http_seed::network::Network;

use super::findings::{Finding, in_order, suggest};
use super::place::{Node, Spot, parse};
use super::reader::Reader;
pub use super::secrets::Secret;

/// Where a secret comes from. The secret itself is only read when it is needed, and never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// A variable of the environment.
    Env(String),
    /// A file; line ends around the secret are left out.
    File(PathBuf),
    /// What a command prints on its standard output.
    Command(Vec<String>),
    /// A value of the environment or an `--env-file` that was read already.
    Given(Secret),
}

/// Which server certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfig {
    /// Those that the roots of this machine vouch for.
    System,
    /// Those that an authority's PEM file vouches for.
    CaFile(PathBuf),
    /// Those with one of these SHA-256 fingerprints.
    Fingerprint(Vec<String>),
    /// Any.
    Insecure,
}

/// How the seed server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedConfig {
    /// The address it listens on.
    pub bind: String,
    /// The address that guests are given; `None` finds the one that routes to the target.
    pub address: Option<String>,
    /// The network interface of this machine whose address they are given instead.
    pub interface: Option<String>,
    /// The ports it may use, inclusive; `(0, 0)` for any.
    pub ports: (u16, u16),
    /// The only networks that are answered; empty for all.
    pub allowed_networks: Vec<String>,
}

impl Default for SeedConfig {
    fn default() -> Self {
        Self {
            bind: "0.0.0.0".into(),
            address: None,
            interface: None,
            ports: (0, 0),
            allowed_networks: Vec::new(),
        }
    }
}

/// A Proxmox VE target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxmoxTarget {
    /// `https://host:8006`, with or without `/api2/json`; several endpoints of one cluster, in their order.
    pub urls: Vec<String>,
    /// The proxy on the way: `http://host:port`, or `none`; `None` takes the environment's.
    pub proxy: Option<String>,
    /// `user@realm!token`, or `user@realm` for a login by password.
    pub token_id: String,
    /// The role that it has there, for the commands that findings propose; `None` is forge's own.
    pub role: Option<String>,
    /// The token's UUID, or the password.
    pub token_secret: SecretRef,
    /// Which server certificates are accepted.
    pub tls: TlsConfig,
    /// The nodes forge may use; empty for all.
    pub nodes: Vec<String>,
    /// The storage for disks.
    pub disk_storage: Option<String>,
    /// The storage for install media.
    pub iso_storage: Option<String>,
    /// The storage for cloud-init drives; `None` takes that of the disks.
    pub cloud_init_storage: Option<String>,
    /// The storage for archives of templates that go.
    pub archive_storage: Option<String>,
    /// The bridge for network adapters.
    pub bridge: Option<String>,
    /// The VMIDs forge may use, inclusive.
    pub vmids: Option<(u32, u32)>,
    /// The resource pool.
    pub pool: Option<String>,
}

/// The local QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuTargetConfig {
    /// `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// The QEMU binary.
    pub binary: PathBuf,
    /// The folder that images are written to.
    pub images: PathBuf,
    /// The ports of this machine that may lead to the guests' SSH, inclusive; `None` for any.
    pub ssh_ports: Option<(u16, u16)>,
    /// The bridge of this machine that guests are on; `None` for QEMU's user network.
    pub bridge: Option<String>,
}

/// What kind of target it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A Proxmox VE cluster.
    Proxmox(Box<ProxmoxTarget>),
    /// The local QEMU.
    Qemu(QemuTargetConfig),
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// How the seed server is reached from its guests.
    pub seed: SeedConfig,
}

/// The site file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The targets by name.
    pub targets: BTreeMap<String, Target>,
    /// The one that is taken when none is named.
    pub default_target: Option<String>,
    /// Where this was read from, for messages.
    pub origin: String,
}

impl Site {
    /// The target of a name, or the default, or the only one.
    ///
    /// # Errors
    /// A finding that names what there is.
    pub fn target(&self, name: Option<&str>) -> Result<&Target, Finding> {
        let known: Vec<&str> = self.targets.keys().map(String::as_str).collect();
        let name = name.or(self.default_target.as_deref());
        match (name, known.as_slice()) {
            (Some(name), _) => self.targets.get(name).ok_or_else(|| {
                Finding::general(format!("{} has no target `{name}`", self.origin)).help(suggest(name, &known))
            }),
            (None, [only]) => self.targets.get(*only).ok_or_else(|| Finding::general("no target")),
            (None, []) => Err(Finding::general(format!("{} names no target", self.origin))
                .help("write a forge.toml with `[targets.NAME]`, or set PROXMOX_URL, PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET")),
            (None, several) => Err(Finding::general(format!("{} has several targets and no `default-target`", self.origin))
                .help(format!("choose one with --target: {}", several.join(", ")))),
        }
    }
}

/// Reads a site file's text.
#[must_use]
pub fn read(file: &Path, text: &str) -> (Site, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut site = Site { origin: file.display().to_string(), ..Site::default() };
    let table = match parse(file, text) {
        Ok(table) => table,
        Err(findings) => return (site, findings),
    };
    let place = super::place::Place { file: std::sync::Arc::new(file.to_owned()), line: 1, column: 1 };
    let mut root = Reader::new(&table, "", place);
    site.default_target = root.text("default-target", &mut findings);
    if let Some(targets) = root.table("targets", &mut findings) {
        for (name, place, spot) in targets.entries() {
            match &spot.node {
                Node::Table(inner) => {
                    let reader = Reader::new(inner, targets.name(name), place.clone());
                    if let Some(target) = target(name, reader, file, &mut findings) {
                        site.targets.insert(name.to_owned(), target);
                    }
                }
                node => findings.push(Finding::at(
                    place,
                    targets.name(name),
                    format!("expected a table, found {}", node.kind()),
                )),
            }
        }
    }
    if let Some(name) = &site.default_target {
        let named: Vec<&str> = match table.get("targets").map(|spot| &spot.node) {
            Some(Node::Table(targets)) => targets.entries.iter().map(|(key, ..)| key.as_str()).collect(),
            _ => Vec::new(),
        };
        if !named.contains(&name.as_str()) {
            let finding = root.finding("default-target", format!("there is no target `{name}`"));
            findings.push(finding.help(suggest(name, &named)));
        }
    }
    root.done(&mut findings);
    (site, in_order(findings))
}

fn target(name: &str, mut reader: Reader<'_>, file: &Path, findings: &mut Vec<Finding>) -> Option<Target> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let kind = match reader.word("type", &["proxmox", "qemu"], findings).as_deref() {
        Some("proxmox") => TargetKind::Proxmox(Box::new(proxmox(&mut reader, folder, findings))),
        Some(_) => TargetKind::Qemu(qemu(&mut reader, folder, findings)),
        None => {
            if reader.entries().all(|(key, ..)| key != "type") {
                let setting = reader.name("type");
                let finding = Finding::at(reader.place(), setting.clone(), format!("`{setting}` is missing"));
                findings.push(finding.help("write type = \"proxmox\" or type = \"qemu\""));
            }
            return None;
        }
    };
    let seed = reader.table("seed", findings).map(|reader| seed(reader, findings)).unwrap_or_default();
    reader.done(findings);
    Some(Target { name: name.to_owned(), kind, seed })
}

fn proxmox(reader: &mut Reader<'_>, folder: &Path, findings: &mut Vec<Finding>) -> ProxmoxTarget {
    let urls = match reader.any("url").map(|spot| &spot.node) {
        Some(Node::List(_)) => reader.texts("url", findings).unwrap_or_default(),
        _ => vec![reader.required("url", findings)],
    };
    if urls.is_empty() {
        findings.push(reader.finding("url", "no address is named").help("url = \"https://HOST:8006\""));
    }
    for url in urls.iter().filter(|url| !url.is_empty() && !url.starts_with("https://")) {
        let finding = reader.finding("url", format!("`{url}` is no https:// address"));
        findings.push(finding.help("Proxmox's API is at https://HOST:8006"));
    }
    let proxy = reader.text("proxy", findings);
    if proxy.as_deref().is_some_and(|proxy| proxy.contains('@')) {
        let finding = reader.finding("proxy", "a login does not belong in this file");
        findings.push(finding.help("set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT and leave `proxy` out"));
    } else if proxy.as_deref().is_some_and(|proxy| proxy != "none" && !proxy.starts_with("http://")) {
        let finding = reader.finding("proxy", "this is neither an http:// address nor \"none\"");
        findings.push(
            finding.help("TLS goes through an HTTP proxy from end to end: proxy = \"http://HOST:PORT\""),
        );
    }
    let (token_id, token_secret) = login(reader, folder, findings);
    let tls = reader.table("tls", findings).map_or(TlsConfig::System, |reader| tls(reader, folder, findings));
    let nodes = match reader.any("nodes").map(|spot| &spot.node) {
        Some(Node::Text(text)) if text == "auto" => Vec::new(),
        Some(Node::Text(_)) => {
            let finding = reader.finding("nodes", "this is neither \"auto\" nor an array of nodes");
            findings.push(finding.help("nodes = [\"pve1\"]"));
            Vec::new()
        }
        Some(_) => reader.texts("nodes", findings).unwrap_or_default(),
        None => Vec::new(),
    };
    let mut storage = reader.table("storage", findings);
    let mut pick = |key| storage.as_mut().and_then(|reader| reader.text(key, findings));
    let (disk_storage, iso_storage, cloud_init_storage) = (pick("disks"), pick("isos"), pick("cloud-init"));
    let archive_storage = pick("archives");
    if let Some(storage) = storage {
        storage.done(findings);
    }
    let bridge = reader.text("bridge", findings);
    let vmids = range(reader, "vmids", 100, 999_999_999, findings);
    let pool = reader.text("pool", findings);
    let role = role(reader, findings);
    ProxmoxTarget {
        urls,
        proxy,
        token_id,
        token_secret,
        tls,
        nodes,
        disk_storage,
        iso_storage,
        cloud_init_storage,
        archive_storage,
        bridge,
        vmids,
        pool,
        role,
    }
}

/// A role's name as Proxmox VE takes it (pve-access-control): it ends in commands for a shell.
fn role(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    let role = reader.text("role", findings)?;
    let sound = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if role.is_empty() || !role.chars().all(sound) {
        let finding = reader.finding("role", format!("`{role}` is no role's name"));
        findings
            .push(finding.help("letters, digits, - _ and . ; `pveum role list` shows those that are there"));
        return None;
    }
    Some(role)
}

/// A token, or a user with a password.
fn login(reader: &mut Reader<'_>, folder: &Path, findings: &mut Vec<Finding>) -> (String, SecretRef) {
    if let Some(user) = reader.text("user", findings) {
        if reader.any("token-id").is_some() {
            let finding = reader.finding("token-id", "a user is named too");
            findings.push(finding.help("log in by a token, or by `user` and `password`"));
        }
        let whole = user.rsplit_once('@').is_some_and(|(name, realm)| !name.is_empty() && !realm.is_empty());
        if !whole || user.contains('!') {
            let finding = reader.finding("user", format!("`{user}` is no user"));
            findings.push(
                finding.help("it has the form user@realm, such as ops@pve; a token goes into `token-id`"),
            );
        }
        return (user, secret(reader, "password", folder, findings));
    }
    let token_id = reader.required("token-id", findings);
    if !token_id.is_empty() && !is_token_id(&token_id) {
        let finding = reader.finding("token-id", format!("`{token_id}` is no token id"));
        findings.push(finding.help("it has the form user@realm!token, as Proxmox shows it"));
    }
    (token_id, secret(reader, "token-secret", folder, findings))
}

/// 32 pairs of hexadecimal digits, colons allowed.
pub(super) fn is_fingerprint(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_hexdigit).count();
    text.chars().all(|c| c.is_ascii_hexdigit() || c == ':') && digits == 64
}

/// `user@realm!token`.
pub(super) fn is_token_id(text: &str) -> bool {
    text.split_once('!').is_some_and(|(user, token)| {
        user.split_once('@').is_some_and(|(name, realm)| !name.is_empty() && !realm.is_empty())
            && !token.is_empty()
    })
}

fn qemu(reader: &mut Reader<'_>, folder: &Path, findings: &mut Vec<Finding>) -> QemuTargetConfig {
    QemuTargetConfig {
        accel: reader
            .word("accel", &["auto", "kvm", "hvf", "tcg"], findings)
            .unwrap_or_else(|| "auto".into()),
        binary: reader.text("binary", findings).map_or_else(|| "qemu-system-x86_64".into(), PathBuf::from),
        images: folder.join(reader.text("images", findings).unwrap_or_else(|| "images".into())),
        ssh_ports: range(reader, "ssh-ports", 1, 65_535, findings)
            .and_then(|(low, high)| u16::try_from(low).ok().zip(u16::try_from(high).ok())),
        bridge: reader.text("bridge", findings),
    }
}

fn secret(
    reader: &mut Reader<'_>,
    key: &'static str,
    folder: &Path,
    findings: &mut Vec<Finding>,
) -> SecretRef {
    let advice = "write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"…\"] }";
    let missing = SecretRef::Env(String::new());
    match reader.any(key) {
        None => {
            let setting = reader.name(key);
            findings.push(
                Finding::at(reader.place(), setting.clone(), format!("`{setting}` is missing")).help(advice),
            );
            missing
        }
        Some(Spot { node: Node::Text(_), place }) => {
            let message = format!("`{}`: a secret does not belong in this file", reader.name(key));
            findings.push(Finding::at(place, reader.name(key), message).help(advice));
            missing
        }
        Some(_) => {
            let Some(mut table) = reader.table(key, findings) else { return missing };
            let given =
                (table.text("env", findings), table.text("file", findings), table.texts("command", findings));
            let place = table.place().clone();
            table.done(findings);
            match given {
                (Some(name), None, None) => SecretRef::Env(name),
                (None, Some(file), None) => SecretRef::File(folder.join(file)),
                (None, None, Some(command)) if !command.is_empty() => SecretRef::Command(command),
                _ => {
                    findings.push(
                        Finding::at(&place, reader.name(key), "one source of the secret is needed")
                            .help(advice),
                    );
                    missing
                }
            }
        }
    }
}

fn tls(mut reader: Reader<'_>, folder: &Path, findings: &mut Vec<Finding>) -> TlsConfig {
    let fingerprint = match reader.any("fingerprint").map(|spot| &spot.node) {
        Some(Node::List(_)) => reader.texts("fingerprint", findings),
        _ => reader.text("fingerprint", findings).map(|one| vec![one]),
    };
    let ca_file = reader.text("ca-file", findings);
    let insecure = reader.flag("insecure", findings).unwrap_or(false);
    let place = reader.place().clone();
    let path = reader.path().to_owned();
    let shape = reader.finding("fingerprint", "this is no SHA-256 fingerprint");
    reader.done(findings);
    match (fingerprint, ca_file, insecure) {
        (Some(fingerprint), None, false) => {
            if fingerprint.is_empty() || !fingerprint.iter().all(|text| is_fingerprint(text)) {
                findings
                    .push(shape.help("it has 32 pairs of hexadecimal digits; `pvenode cert info` shows it"));
            }
            TlsConfig::Fingerprint(fingerprint)
        }
        (None, Some(file), false) => TlsConfig::CaFile(folder.join(file)),
        (None, None, true) => {
            let finding = Finding::at(
                &place,
                format!("{path}.insecure"),
                "any certificate is accepted: whoever is on the way can read the token",
            );
            findings.push(finding.help("pin the certificate with `fingerprint` instead").warning());
            TlsConfig::Insecure
        }
        (None, None, false) => TlsConfig::System,
        _ => {
            findings.push(Finding::at(&place, path, "choose one of `fingerprint`, `ca-file` and `insecure`"));
            TlsConfig::System
        }
    }
}

fn seed(mut reader: Reader<'_>, findings: &mut Vec<Finding>) -> SeedConfig {
    let default = SeedConfig::default();
    let bind = address(&mut reader, "bind", findings).unwrap_or(default.bind);
    let given = match reader.any("address").map(|spot| &spot.node) {
        Some(Node::Text(text)) if text == "auto" => None,
        Some(_) => address(&mut reader, "address", findings),
        None => None,
    };
    let interface = reader.text("interface", findings);
    if given.is_some() && interface.is_some() {
        let finding = reader.finding("interface", "`address` says already what guests are given");
        findings.push(finding.help("leave one of them out"));
    }
    let ports = range(&mut reader, "ports", 0, 65_535, findings)
        .map(|(low, high)| (u16::try_from(low).unwrap_or(0), u16::try_from(high).unwrap_or(0)))
        .unwrap_or(default.ports);
    let allowed_networks = reader.texts("allowed-networks", findings).unwrap_or_default();
    for text in &allowed_networks {
        if let Err(error) = text.parse::<Network>() {
            findings.push(reader.finding("allowed-networks", error.to_string()));
        }
    }
    reader.done(findings);
    SeedConfig { bind, address: given, interface, ports, allowed_networks }
}

fn address(reader: &mut Reader<'_>, key: &'static str, findings: &mut Vec<Finding>) -> Option<String> {
    let text = reader.text(key, findings)?;
    if text.parse::<std::net::IpAddr>().is_err() {
        findings.push(reader.finding(key, format!("`{text}` is no IP address")));
        return None;
    }
    Some(text)
}

/// `"9000-9099"`, `"8800"`, or an integer.
fn range(
    reader: &mut Reader<'_>,
    key: &'static str,
    low: u32,
    high: u32,
    findings: &mut Vec<Finding>,
) -> Option<(u32, u32)> {
    let spot = reader.any(key)?;
    let text = match &spot.node {
        Node::Integer(number) => number.to_string(),
        Node::Text(text) => text.clone(),
        _ => String::new(),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
        (Ok(first), Ok(last)) if low <= first && first <= last && last <= high => Some((first, last)),
        _ => {
            let finding = Finding::at(
                &spot.place,
                reader.name(key),
                format!("`{text}` is no range between {low} and {high}"),
            );
            findings.push(finding.help("write it like \"9000-9099\""));
            None
        }
    }
}
