//! Answer files of installers: Subiquity, Anaconda, the Debian installer, Windows Setup, AutoYaST and Agama.
//!
//! A kind has templates ([`Kind::templates`]), of which a profile may replace each by one of its own, and takes the
//! typed settings of [`Settings`]. What depends on the build (user, key, names) comes in with [`Build`]; the same
//! settings and build give the same bytes.

mod addresses;
mod agama;
mod arguments;
mod context;
mod forms;
mod images;
mod settings;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use images::{network_config, takes_repositories, user_data};
pub use settings::{Form, Problem, SPECS, Settings, Spec};

use crate::disc;
use crate::lint;
use crate::set::SeedSet;
use crate::template::{Finding, RenderError, lint as lint_template, render_mapped};

/// What tells a program that a text is UTF-8.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A kind of seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// cloud-init's NoCloud, for images that are installed already ([`crate::nocloud`]).
    Nocloud,
    /// Ubuntu's Subiquity.
    Autoinstall,
    /// Anaconda: Fedora, RHEL and their kin.
    Kickstart,
    /// The Debian installer.
    Preseed,
    /// Windows Setup.
    Autounattend,
    /// YaST: openSUSE Leap 15 and SLES 15.
    Autoyast,
    /// Agama: openSUSE Leap 16 and SLES 16.
    Agama,
}

macro_rules! template {
    ($kind:literal, $name:literal) => {
        ($name, include_str!(concat!("../../templates/", $kind, "/", $name, ".tera")))
    };
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Nocloud,
        Self::Autoinstall,
        Self::Kickstart,
        Self::Preseed,
        Self::Autounattend,
        Self::Autoyast,
        Self::Agama,
    ];

    /// Its name in a profile.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nocloud => "nocloud",
            Self::Autoinstall => "autoinstall",
            Self::Kickstart => "kickstart",
            Self::Preseed => "preseed",
            Self::Autounattend => "autounattend",
            Self::Autoyast => "autoyast",
            Self::Agama => "agama",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The built-in templates, by the names of the files that they make.
    #[must_use]
    pub fn templates(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nocloud => &crate::nocloud::TEMPLATES,
            Self::Autoinstall => &[
                template!("autoinstall", "meta-data"),
                template!("autoinstall", "user-data"),
                template!("autoinstall", "vendor-data"),
            ],
            Self::Kickstart => &[template!("kickstart", "ks.cfg")],
            Self::Preseed => &[template!("preseed", "preseed.cfg")],
            Self::Autounattend => &[
                template!("autounattend", "Autounattend.xml"),
                template!("autounattend", "forge.ps1"),
                template!("autounattend", "sysprep.xml"),
            ],
            Self::Autoyast => &[template!("autoyast", "autoinst.xml")],
            Self::Agama => &[template!("agama", "autoinst.json")],
        }
    }

    /// The file that the installer asks for first.
    #[must_use]
    pub fn main_file(self) -> &'static str {
        match self {
            Self::Nocloud | Self::Autoinstall => "user-data",
            Self::Kickstart => "ks.cfg",
            Self::Preseed => "preseed.cfg",
            Self::Autounattend => "Autounattend.xml",
            Self::Autoyast => "autoinst.xml",
            Self::Agama => "autoinst.json",
        }
    }

    /// The label of a disc on which the installer finds its answers by itself; `None` when it must be told.
    ///
    /// Windows Setup looks at the root of every removable medium and knows no label. The Debian installer looks at
    /// none: it is told a file or URL on the kernel's line.
    #[must_use]
    pub fn disc_label(self) -> Option<&'static str> {
        match self {
            Self::Nocloud | Self::Autoinstall => Some(disc::CIDATA),
            Self::Kickstart | Self::Autoyast | Self::Agama => Some(disc::OEMDRV),
            Self::Autounattend => Some("FORGE_SEED"),
            Self::Preseed => None,
        }
    }

    /// Whether the installer looks at a floppy by itself. Windows Setup looks at the root of all removable media
    /// (Microsoft, "Windows Setup Automation Overview": those that can be written to before those that can't); of the others
    /// none promises to.
    #[must_use]
    pub fn reads_floppy(self) -> bool {
        self == Self::Autounattend
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a build tells its answer files. Debug leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Build {
    /// The user that the build logs in as.
    pub user: String,
    /// Whether the installer makes that user.
    pub create_user: bool,
    /// The key it logs in with, in OpenSSH's form.
    pub public_key: String,
    /// The host name during the build.
    pub hostname: Option<String>,
    /// The build's nonce: salts depend on it.
    pub nonce: String,
    /// A random password, for systems that make no user without one (Windows).
    pub random_password: String,
    /// Whether and how a Windows has to answer over WinRM.
    pub winrm: Option<WinRm>,
}

/// How a Windows has to answer over WinRM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WinRm {
    /// With TLS, by a certificate that it makes itself.
    pub tls: bool,
    /// Whether it takes the password itself.
    pub basic: bool,
    /// The port.
    pub port: u16,
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Build")
            .field("user", &self.user)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

impl Build {
    /// A build that stands for any, to render and check files by before there is one.
    #[must_use]
    pub fn sample(user: &str, create_user: bool, hostname: Option<&str>) -> Self {
        Self {
            user: user.to_owned(),
            create_user,
            public_key:
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeKeyOfNobodyForRenderingOnlyAAAAAAAAAAAA forge-build"
                    .into(),
            hostname: hostname.map(str::to_owned),
            nonce: "0000000000000000".into(),
            random_password: "Made-for-each-build-0".into(),
            winrm: None,
        }
    }
}

/// A template with the name that findings give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TemplateFile {
    /// What findings call it: a path, or `kickstart/ks.cfg` for one of forge's own.
    pub shown: String,
    /// Its text; nothing is filled in when it is no template.
    pub text: String,
    /// Whether values are filled in.
    pub template: bool,
}

/// Everything that answer files are made of but the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answers {
    /// The kind.
    pub kind: Kind,
    /// The settings.
    pub settings: Settings,
    /// `debian`, `rocky`, …
    pub distribution: String,
    /// Its version.
    pub version: String,
    /// Further user-data for the installed system's cloud-init (autoinstall).
    pub user_data: Option<Value>,
    /// The profile's own variables, as `var.NAME` in templates.
    pub variables: Map<String, Value>,
    /// Templates by the names of the files that they make, over the built-in ones.
    pub templates: BTreeMap<String, TemplateFile>,
}

impl Answers {
    /// The password of the user that Windows' answers make: the settings' own, else the build's random one.
    #[must_use]
    pub fn account_password<'a>(&'a self, random: &'a str) -> &'a str {
        match self.settings.text("password") {
            "" => random,
            own => own,
        }
    }

    /// The hash that the files have in the password's place, where they have one; it is the same each time.
    #[must_use]
    pub fn password_hash(&self, build: &Build) -> Option<String> {
        let given = !self.settings.text("password").is_empty();
        // Agama makes no user without a password.
        let (hashed, otherwise) = match self.kind {
            Kind::Autounattend => (false, ""),
            Kind::Agama => (true, build.random_password.as_str()),
            _ => (given, ""),
        };
        hashed.then(|| context::hash_of(self, build, otherwise).ok()).flatten()
    }

    /// The templates that are rendered.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, TemplateFile> {
        let built_in = self.kind.templates().iter().map(|(name, text)| {
            let shown = format!("{}/{name}", self.kind);
            ((*name).to_owned(), TemplateFile { shown, text: (*text).to_owned(), template: true })
        });
        let mut files: BTreeMap<String, TemplateFile> = built_in.collect();
        files.extend(self.templates.clone());
        files
    }

    /// Renders the files.
    ///
    /// # Errors
    /// Everything that keeps a template from being rendered.
    pub fn render(&self, build: &Build) -> Result<SeedSet, Vec<RenderError>> {
        let context = context::context(self, build)
            .map_err(|why| vec![RenderError::Value { template: self.kind.to_string(), why }])?;
        let mut set = SeedSet::default();
        let mut errors = Vec::new();
        for (name, file) in self.files() {
            let rendered = if file.template {
                crate::template::render(&file.shown, &file.text, &context)
                    .map(|text| self.with_byte_order_mark(&name, text))
            } else {
                Ok(file.text)
            };
            match rendered.and_then(|text| Ok(set.add(&name, text)?)) {
                Ok(()) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(set) } else { Err(errors) }
    }

    /// A script for Windows PowerShell 5, which takes a file without a byte order mark for the system's code page
    /// (about_Character_Encoding): one with characters beyond ASCII gets it.
    fn with_byte_order_mark(&self, name: &str, text: String) -> String {
        let needs = self.kind == Kind::Autounattend && name.ends_with(".ps1") && !text.is_ascii();
        if needs && !text.starts_with(BYTE_ORDER_MARK) { format!("{BYTE_ORDER_MARK}{text}") } else { text }
    }

    /// What is wrong with the files, by the lines of their templates; nothing of it needs a target or a network.
    #[must_use]
    pub fn lint(&self, build: &Build) -> Vec<Finding> {
        let in_file = |file: &str, line, message: String, help: String| Finding {
            file: file.to_owned(),
            line,
            column: 1,
            message,
            help,
        };
        let context = match context::context(self, build) {
            Ok(context) => context,
            Err(why) => return vec![in_file(self.kind.name(), 1, why, String::new())],
        };
        let mut findings = Vec::new();
        for (name, file) in self.files() {
            let own = self.templates.contains_key(&name);
            // forge's own templates are linted by its tests, not again by each build.
            if own && file.template {
                findings.extend(lint_template(&file.shown, &file.text));
            }
            let (text, lines) = if file.template {
                match render_mapped(&file.shown, &file.text, &context) {
                    Ok((text, lines)) => (self.with_byte_order_mark(&name, text), lines),
                    Err(error) => {
                        findings.extend(error.findings());
                        continue;
                    }
                }
            } else {
                let lines = (1..=file.text.lines().count()).collect();
                (file.text.clone(), lines)
            };
            for found in lint::lint(self.kind, &name, &text, &self.distribution, &self.version) {
                let line = lines.get(found.line.saturating_sub(1)).copied().unwrap_or(1);
                let finding = in_file(&file.shown, line, found.message, found.help);
                // A loop writes its lines, and what is wrong with them, more than once.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod arguments_tests;
#[cfg(test)]
mod settings_tests;
#[cfg(test)]
mod tests;
