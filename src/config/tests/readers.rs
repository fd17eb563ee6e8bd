//! The installers' own readers on what the shipped profiles render: cloud-init, pykickstart, debconf, libxml2.
//!
//! What is not installed is skipped with a word; `cargo lab test` installs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::shipped::shipped;
use crate::config::Profile;
use crate::config::embedded;
use forge_http_seed::answers::{Kind, Settings};

/// A program of the path, or of the Python environment that `cargo lab test` sets up.
fn program(name: &str) -> Option<PathBuf> {
    let own = Some(forge_lab::setup::python::folder().join("bin").join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = own
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("FORGE_LAB").is_none(), "{name} is not here: `cargo lab test` wants it");
        eprintln!("skipped: there is no {name} here");
    }
    found
}

/// A file of each shipped profile of a kind, for both kinds of firmware.
fn rendered(kind: Kind, name: &str) -> Vec<(Profile, tempfile::TempDir, PathBuf)> {
    let mut out = Vec::new();
    for profile in
        embedded::names().map(|name| shipped(&format!("{name}.toml"))).filter(|p| p.seed.kind == kind)
    {
        for uefi in [false, true] {
            let mut profile = profile.clone();
            if let Some(answers) = &mut profile.seed.answers {
                answers.settings.set_firmware(uefi);
            }
            let files = crate::cli::render::files(&profile, None).expect("renders");
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join(name.replace('/', "-"));
            std::fs::write(&file, files.get(name).expect("there").bytes()).expect("written");
            out.push((profile, folder, file));
        }
    }
    assert!(!out.is_empty(), "{kind}: there are profiles");
    out
}

#[track_caller]
fn accepts(program: &Path, arguments: &[&str], file: &Path, profile: &Profile) {
    // pykickstart leaves what it works on in the folder for temporary files.
    let folder = file.parent().expect("it is in a folder");
    let output =
        Command::new(program).args(arguments).arg(file).env("TMPDIR", folder).output().expect("it runs");
    let words =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {words}", profile.name);
    assert!(
        !words.to_lowercase().contains("warning") && !words.contains("rror:"),
        "{}: {words}",
        profile.name
    );
}

#[test]
fn cloud_init_accepts_the_user_data_of_every_profile() {
    let Some(cloud_init) = program("cloud-init") else { return };
    // What they render differs by little, and each start of cloud-init takes a second.
    let mut seen = Vec::new();
    for kind in [Kind::Nocloud, Kind::Autoinstall] {
        for (profile, _folder, file) in rendered(kind, "user-data") {
            let text = std::fs::read(&file).expect("read");
            if !seen.contains(&text) {
                accepts(&cloud_init, &["schema", "--config-file"], &file, &profile);
                seen.push(text);
            }
        }
    }
}

#[test]
fn pykickstart_accepts_the_kickstart_of_every_profile_for_its_release() {
    let Some(ksvalidator) = program("ksvalidator") else { return };
    let mut seen = Vec::new();
    for (profile, _folder, file) in rendered(Kind::Kickstart, "ks.cfg") {
        let release = match (profile.os.distribution.as_str(), profile.os.version.as_str()) {
            ("fedora", version) => format!("F{version}"),
            (_, version) => format!("RHEL{version}"),
        };
        let text = (release.clone(), std::fs::read(&file).expect("read"));
        if !seen.contains(&text) {
            accepts(&ksvalidator, &["-v", &release], &file, &profile);
            seen.push(text);
        }
    }
}

#[test]
fn debconf_accepts_the_preseed_of_every_profile() {
    let Some(debconf) = program("debconf-set-selections") else { return };
    for (profile, _folder, file) in rendered(Kind::Preseed, "preseed.cfg") {
        accepts(&debconf, &["--checkonly"], &file, &profile);
    }
}

#[test]
fn libxml_finds_every_xml_well_formed() {
    let Some(xmllint) = program("xmllint") else { return };
    for (kind, name) in [
        (Kind::Autounattend, "Autounattend.xml"),
        (Kind::Autounattend, "sysprep.xml"),
        (Kind::Autoyast, "autoinst.xml"),
    ] {
        for (profile, _folder, file) in rendered(kind, name) {
            accepts(&xmllint, &["--noout", "--nonet"], &file, &profile);
        }
    }
}

/// A profile over a shipped one in which every setting that its kind takes is given; its main file.
fn with_everything(base: &str) -> (Profile, tempfile::TempDir, PathBuf) {
    let kind = shipped(&format!("{base}.toml")).seed.kind;
    // TOML reads JSON's strings, lists and truth values as they are.
    let all = [
        ("timezone", r#""Europe/Berlin""#),
        ("packages", r#"["vim", "tmux"]"#),
        ("late-commands", r#"["echo 'a' \"b\" $(c) `d` ]]> --> <e> & # f", "true"]"#),
        ("mirror", r#""http://mirror.example.org:8080/some/where""#),
        ("security-mirror", r#""http://mirror.example.org:8080/security""#),
        ("repositories", r#"["extra=http://mirror.example.org/extra"]"#),
        ("proxy", r#""http://proxy.example.org:3128""#),
        ("ntp", r#"["one.example.org", "two.example.org"]"#),
        ("address", r#""192.0.2.10/24""#),
        ("gateway", r#""192.0.2.1""#),
        ("address6", r#""2001:db8::10/64""#),
        ("gateway6", r#""2001:db8::1""#),
        ("nameservers", r#"["192.0.2.53", "2001:db8::53"]"#),
        ("interface", r#""ens18""#),
        ("disk", r#""sda""#),
        ("layout", r#""lvm""#),
        ("swap", "true"),
        ("kernel-arguments", r#""console=ttyS0,115200 a='b c'""#),
        ("fips", "true"),
        ("selinux", r#""permissive""#),
        ("password", r#""p'a\"s$s & <w>ord""#),
        ("organization", r#""A & B ]]> <c> 'd'""#),
        ("product-key", r#""AAAAA-BBBBB-CCCCC-DDDDD-EEEEE""#),
    ];
    let known: Vec<&str> = Settings::names(kind).collect();
    let vars: String = all
        .iter()
        .filter(|(name, _)| known.contains(name))
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    let text = format!("schema = 1\nname = \"x\"\nextends = \"{base}.toml\"\n[seed.vars]\n{vars}");
    let profile = super::sound(&[("a.toml", &text)]);
    let files = crate::cli::render::files(&profile, None).expect("renders");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(kind.main_file());
    std::fs::write(&file, files.get(kind.main_file()).expect("there").bytes()).expect("written");
    (Profile { name: base.into(), ..profile }, folder, file)
}

#[test]
fn pykickstart_accepts_every_setting_on_each_release() {
    let Some(ksvalidator) = program("ksvalidator") else { return };
    for (base, release) in
        [("rocky-9", "RHEL9"), ("rhel-9", "RHEL9"), ("rocky-10", "RHEL10"), ("fedora-43", "F43")]
    {
        let (profile, _folder, file) = with_everything(base);
        accepts(&ksvalidator, &["-v", release], &file, &profile);
    }
}

#[test]
fn debconf_accepts_every_setting() {
    let Some(debconf) = program("debconf-set-selections") else { return };
    for base in ["debian-12-iso", "debian-13-iso"] {
        let (profile, _folder, file) = with_everything(base);
        accepts(&debconf, &["--checkonly"], &file, &profile);
    }
}

#[test]
fn cloud_init_accepts_every_setting_of_a_live_server() {
    let Some(cloud_init) = program("cloud-init") else { return };
    for base in ["ubuntu-22.04", "ubuntu-24.04"] {
        let (profile, _folder, file) = with_everything(base);
        accepts(&cloud_init, &["schema", "--config-file"], &file, &profile);
    }
}

#[test]
fn libxml_finds_xml_with_every_setting_well_formed() {
    let Some(xmllint) = program("xmllint") else { return };
    for base in ["win2022", "win11", "opensuse-leap-15.6"] {
        let (profile, _folder, file) = with_everything(base);
        accepts(&xmllint, &["--noout", "--nonet"], &file, &profile);
    }
}

#[test]
fn cloud_init_accepts_mirrors_proxies_and_static_addresses_of_every_kind_of_image() {
    let Some(cloud_init) = program("cloud-init") else { return };
    for base in ["debian-12-cloud", "rocky-9-cloud", "opensuse-leap-15.6-cloud", "ubuntu-24.04"] {
        let text = format!(
            "schema = 1\nname = \"x\"\nextends = \"{base}.toml\"\n[seed.vars]\nmirror = \"http://m.example.org/x/\"\n\
             proxy = \"http://p.example.org:3128\"\naddress = \"192.0.2.10/24\"\ngateway = \"192.0.2.1\"\n\
             address6 = \"2001:db8::10/64\"\ngateway6 = \"2001:db8::1\"\nnameservers = [\"192.0.2.53\"]\n\
             timezone = \"Europe/Berlin\"\nlocale = \"de_DE.UTF-8\"\nkeyboard = \"de\"\n"
        );
        let profile = super::sound(&[("a.toml", &text)]);
        let files = crate::cli::render::files(&profile, None).expect("renders");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("user-data");
        std::fs::write(&file, files.get("user-data").expect("there").bytes()).expect("written");
        accepts(&cloud_init, &["schema", "--config-file"], &file, &profile);
    }
}
