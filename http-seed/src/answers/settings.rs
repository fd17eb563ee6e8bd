//! The settings that every kind of answer file takes, typed: `[seed.vars]` of a profile.
//!
//! One table ([`SPECS`]) says what there is, what it may be, and for which kinds. A template sees each under its name
//! with `_` for `-`, given or not, so that a name it does not know is an error.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use super::forms::Form;
use super::forms::is_url;
use super::{Kind, addresses};

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name in a profile.
    pub name: &'static str,
    /// What it may be.
    pub form: Form,
    /// Its default, as JSON.
    pub default: &'static str,
    /// The kinds that take it; empty for all.
    pub kinds: &'static [Kind],
    /// What it is for.
    pub description: &'static str,
}

const fn spec(
    name: &'static str,
    form: Form,
    default: &'static str,
    kinds: &'static [Kind],
    description: &'static str,
) -> Spec {
    Spec { name, form, default, kinds, description }
}

const LINUX: &[Kind] = &[Kind::Autoinstall, Kind::Kickstart, Kind::Preseed, Kind::Autoyast, Kind::Agama];
const NOT_NOCLOUD: &[Kind] =
    &[Kind::Autoinstall, Kind::Kickstart, Kind::Preseed, Kind::Autounattend, Kind::Autoyast, Kind::Agama];
const CLOUD: &[Kind] =
    &[Kind::Nocloud, Kind::Autoinstall, Kind::Kickstart, Kind::Preseed, Kind::Autoyast, Kind::Agama];
const WINDOWS: &[Kind] = &[Kind::Autounattend];
const EVERY: &[Kind] = &[];

/// Every setting, in the order of the profiles' page.
pub const SPECS: [Spec; 32] = [
    spec("locale", Form::Name, r#""en_US.UTF-8""#, EVERY, "the language of the system; `en-US` on Windows"),
    spec(
        "keyboard",
        Form::Name,
        r#""us""#,
        EVERY,
        "the layout of the keyboard; on Windows a locale or `0409:00000409`",
    ),
    spec(
        "timezone",
        Form::Zone,
        r#""UTC""#,
        EVERY,
        "the time zone (`Europe/Berlin`); on Windows its own name",
    ),
    spec(
        "packages",
        Form::Packages,
        "[]",
        EVERY,
        "packages to install besides the profile's own; on Windows capabilities",
    ),
    spec("base-packages", Form::Packages, "[]", EVERY, "the profile's own packages: the baseline"),
    spec(
        "late-commands",
        Form::Lines,
        "[]",
        NOT_NOCLOUD,
        "commands at the end of the installation, as root in the new system",
    ),
    spec(
        "mirror",
        Form::Url,
        r#""""#,
        EVERY,
        "where packages come from instead of the medium or the public mirror; on Windows the WSUS server",
    ),
    spec(
        "security-mirror",
        Form::Url,
        r#""""#,
        &[Kind::Preseed, Kind::Autoinstall, Kind::Nocloud],
        "where security updates come from",
    ),
    spec(
        "repositories",
        Form::Lines,
        "[]",
        &[Kind::Nocloud, Kind::Kickstart, Kind::Autoyast, Kind::Agama],
        "further repositories, `name=URL` each; in cloud images those of dnf and zypper",
    ),
    spec("proxy", Form::Url, r#""""#, EVERY, "the proxy for downloads"),
    spec("ntp", Form::Hosts, "[]", LINUX, "time servers"),
    spec("address", Form::Cidr4, r#""""#, EVERY, "a static IPv4 address with prefix; DHCP without"),
    spec("gateway", Form::Address4, r#""""#, EVERY, "the IPv4 gateway of a static address"),
    spec(
        "address6",
        Form::Cidr6,
        r#""""#,
        EVERY,
        "a static IPv6 address with prefix; by router advertisement without",
    ),
    spec("gateway6", Form::Address6, r#""""#, EVERY, "the IPv6 gateway of a static address"),
    spec("nameservers", Form::Addresses, "[]", EVERY, "name servers of a static address"),
    spec("interface", Form::Device, r#""""#, CLOUD, "the network adapter; the first with a link without"),
    spec("disk", Form::Device, r#""""#, LINUX, "the disk to install on; the only one without"),
    spec("layout", Form::Word(&["plain", "lvm", "custom"]), r#""plain""#, LINUX, "how the disk is divided"),
    spec(
        "partitions",
        Form::Text,
        r#""""#,
        LINUX,
        "for `layout = \"custom\"`: what the installer's own language says",
    ),
    spec(
        "swap",
        Form::Flag,
        "false",
        &[Kind::Kickstart, Kind::Preseed, Kind::Autoinstall],
        "whether there is swap",
    ),
    spec("kernel-arguments", Form::Line, r#""""#, LINUX, "further arguments for the installed kernel"),
    spec(
        "fips",
        Form::Flag,
        "false",
        &[Kind::Kickstart],
        "installs in FIPS mode; from EL 10 on not by a disc",
    ),
    spec(
        "selinux",
        Form::Word(&["enforcing", "permissive", "disabled"]),
        r#""enforcing""#,
        &[Kind::Kickstart],
        "SELinux's mode",
    ),
    spec(
        "password",
        Form::Line,
        r#""""#,
        NOT_NOCLOUD,
        "a password for the build's user (give it by a secret variable); none without",
    ),
    spec("password-hash", Form::Word(&crate::crypt::Scheme::NAMES), r#""sha512""#, LINUX, "how it is hashed"),
    spec(
        "firmware",
        Form::Word(&["bios", "uefi"]),
        r#""bios""#,
        NOT_NOCLOUD,
        "the VM's firmware; forge takes it from `[vm]`",
    ),
    spec(
        "source-id",
        Form::Name,
        r#""ubuntu-server-minimal""#,
        &[Kind::Autoinstall],
        "which of the medium's variants is installed",
    ),
    spec("image-name", Form::Line, r#""""#, WINDOWS, "the image's name in install.wim"),
    spec("product-key", Form::ProductKey, r#""""#, WINDOWS, "the product key; evaluation media need none"),
    spec(
        "drivers",
        // The folders of virtio-win's disc for the systems that its tools are made for.
        Form::Word(&["2k16", "2k19", "2k22", "2k25", "w10", "w11"]),
        r#""2k22""#,
        WINDOWS,
        "the folder of virtio-win's drivers: 2k19, 2k22, 2k25, w11",
    ),
    spec("organization", Form::Line, r#""forge""#, WINDOWS, "the registered organisation"),
];

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting's name.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

/// The settings of a seed, each with a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings {
    values: Map<String, Value>,
}

impl Settings {
    /// The names that a kind takes.
    pub fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
        SPECS.iter().filter(move |spec| is_for(spec, kind)).map(|spec| spec.name)
    }

    /// Reads what a profile gives for a kind and fills in the defaults.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read(kind: Kind, given: &Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let problem = |name: &str, message: String, help: &str| Problem {
            name: name.to_owned(),
            message,
            help: help.to_owned(),
        };
        for name in given.keys() {
            match SPECS.iter().find(|spec| spec.name == name) {
                None => {
                    let known: Vec<&str> = Self::names(kind).collect();
                    let message = format!("there is no setting `{name}`");
                    problems.push(problem(name, message, &format!("there are: {}", known.join(", "))));
                }
                Some(spec) if !is_for(spec, kind) => {
                    let message = format!("a seed of kind `{}` takes no `{name}`", kind.name());
                    problems.push(problem(name, message, ""));
                }
                Some(_) => {}
            }
        }
        let mut values = Map::new();
        for spec in &SPECS {
            let default: Value = serde_json::from_str(spec.default).unwrap_or_default();
            // Where a variable is filled in there is only text.
            let spoken = match given.get(spec.name).and_then(Value::as_str) {
                Some("true") if spec.form == Form::Flag => Some(Value::Bool(true)),
                Some("false") if spec.form == Form::Flag => Some(Value::Bool(false)),
                _ => None,
            };
            let given = spoken.as_ref().or_else(|| given.get(spec.name));
            let value = match given.filter(|_| is_for(spec, kind)) {
                Some(value) if spec.form.fits(kind, value) => value.clone(),
                Some(value) => {
                    // A password is not repeated.
                    let shown =
                        if spec.name == "password" { "what is given".into() } else { value.to_string() };
                    let message = format!("expected {}, found {shown}", spec.form.expected(kind));
                    problems.push(problem(spec.name, message, spec.description));
                    default
                }
                None => default,
            };
            values.insert(spec.name.replace('-', "_"), value);
        }
        let settings = Self { values };
        settings.check_together(kind, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// What only two settings together show.
    fn check_together(&self, kind: Kind, problems: &mut Vec<Problem>) {
        let mut wrong = |name: &str, message: String, help: &str| {
            problems.push(Problem { name: name.to_owned(), message, help: help.to_owned() });
        };
        let text = |name: &str| self.text(name);
        for (address, gateway) in [("address", "gateway"), ("address6", "gateway6")] {
            let (own, via) = (text(address), text(gateway));
            if own.is_empty() && !via.is_empty() {
                wrong(gateway, format!("a gateway without a static `{address}`"), "give both, or neither");
            }
            if let Some(why) = addresses::no_host(own) {
                wrong(address, why, "an address of a host in this network that no other has");
            }
            if let Some(why) = addresses::no_gateway(own, via) {
                wrong(gateway, why, "the address of the network's router");
            }
        }
        let custom = text("layout") == "custom";
        if custom == text("partitions").is_empty() && kind != Kind::Nocloud && kind != Kind::Autounattend {
            let message = if custom {
                "`layout = \"custom\"` needs `partitions`"
            } else {
                "`partitions` is only read with `layout = \"custom\"`"
            };
            wrong("partitions", message.into(), "what the installer's own language says of the disk");
        }
        // Subiquity's answers escape them; what other installers write into /etc/default/grub they put between double quotes as it is.
        let special = |c: char| matches!(c, '"' | '$' | '`' | '\\') || (c == '!' && kind == Kind::Preseed);
        if kind != Kind::Autoinstall
            && let Some(c) = text("kernel_arguments").chars().find(|c| special(*c))
        {
            let message = format!("a seed of kind `{}` takes no `{c}` in `kernel-arguments`", kind.name());
            let help = "the installer writes it into a file of the shell unquoted; write such an argument by `late-commands`";
            wrong("kernel-arguments", message, help);
        }
        if kind == Kind::Autounattend && text("image_name").is_empty() {
            wrong("image-name", "Windows Setup needs `image-name`".into(), "as install.wim names it");
        }
        for pair in self.items("repositories") {
            if !pair.split_once('=').is_some_and(|(name, url)| is_repository(name) && is_url(url)) {
                let help = "write name=URL, with letters, digits, `.`, `_` and `-` in the name";
                wrong("repositories", format!("`{pair}` is no repository"), help);
            }
        }
        // The Debian installer asks for an FTP server by keys of its own; a WSUS server speaks HTTP.
        if text("mirror").starts_with("ftp://") && matches!(kind, Kind::Preseed | Kind::Autounattend) {
            wrong(
                "mirror",
                format!("a seed of kind `{}` takes no mirror by FTP", kind.name()),
                "http or https",
            );
        }
    }

    /// A text, empty when there is none; the name as templates write it.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A list's items; the name as templates write it.
    #[must_use]
    pub fn items(&self, name: &str) -> Vec<&str> {
        let items = self.values.get(name).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Takes the firmware of the VM.
    pub fn set_firmware(&mut self, uefi: bool) {
        self.values.insert("firmware".into(), Value::from(if uefi { "uefi" } else { "bios" }));
    }

    /// A static address with its netmask (`address`) or its prefix (`address6`).
    pub(super) fn static_address(&self, name: &str) -> Option<(&str, String)> {
        let (address, prefix) = self.text(name).split_once('/')?;
        let mask = if name == "address" { netmask(prefix)? } else { prefix.to_owned() };
        Some((address, mask))
    }

    /// The values as a template sees them: nothing is `null`, not an empty text.
    #[must_use]
    pub fn context(&self) -> Map<String, Value> {
        let mut out = self.values.clone();
        for value in out.values_mut() {
            if value.as_str() == Some("") {
                *value = Value::Null;
            }
        }
        for (name, address, gateway) in [("ipv4", "address", "gateway"), ("ipv6", "address6", "gateway6")] {
            let value = match self.text(address).split_once('/') {
                None => Value::Null,
                Some((own, prefix)) => {
                    let gateway = Some(self.text(gateway)).filter(|text| !text.is_empty());
                    json!({ "address": own, "prefix": prefix, "netmask": netmask(prefix), "gateway": gateway })
                }
            };
            out.insert(name.into(), value);
        }
        let named = |key: &str| {
            let items = self.values.get(key).and_then(Value::as_array).into_iter().flatten();
            let pairs = items.filter_map(|item| item.as_str()?.split_once('='));
            pairs.map(|(name, url)| json!({ "name": name, "url": url })).collect::<Value>()
        };
        out.insert("repositories".into(), named("repositories"));
        out.insert("mirror_parts".into(), url_parts(self.text("mirror")));
        out.insert("security_mirror_parts".into(), url_parts(self.text("security_mirror")));
        out.insert(
            "lang".into(),
            Value::from(self.text("locale").split(['.', '@']).next().unwrap_or_default()),
        );
        out
    }
}

fn is_for(spec: &Spec, kind: Kind) -> bool {
    spec.kinds.is_empty() || spec.kinds.contains(&kind)
}

/// What is a name to every installer: a section of dnf's files, an alias of zypper's.
fn is_repository(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// `24` → `255.255.255.0`.
fn netmask(prefix: &str) -> Option<String> {
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    Some(Ipv4Addr::from(mask).to_string())
}

/// A URL as the Debian installer wants it: protocol, host with port, directory.
fn url_parts(url: &str) -> Value {
    let Some((protocol, rest)) = url.split_once("://") else {
        return json!({ "protocol": null, "host": null, "directory": null });
    };
    let (host, directory) =
        rest.split_once('/').map_or((rest, "/".to_owned()), |(h, d)| (h, format!("/{d}")));
    json!({ "protocol": protocol, "host": host, "directory": directory })
}

#[cfg(test)]
#[path = "settings_rules.rs"]
mod tests;
