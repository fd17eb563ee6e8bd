//! What each setting comes to in each kind of answer file.

use serde_json::{Value, json};

use super::tests::{SYSTEMS, answers, awkward};
use super::*;
use crate::set::SeedFile;

fn build() -> Build {
    Build::sample("forge", true, Some("build"))
}

/// All files of a kind in one text, and what its installer's kernel is told.
fn rendered(answers: &Answers) -> String {
    let files = answers.render(&build()).unwrap_or_else(|errors| panic!("{}: {errors:?}", answers.kind));
    let texts: Vec<&str> = files.texts().map(|(_, text)| text).collect();
    texts.join("\n") + &answers.kernel_arguments("http://192.0.2.1/s/", None, false)
}

#[test]
fn what_every_setting_comes_to_in_each_kind() {
    let six = json!({
        "address6": "2001:db8::10/64", "gateway6": "2001:db8::1", "nameservers": ["2001:db8::53"],
        "layout": "plain", "swap": false,
    });
    for (kind, distribution, version) in SYSTEMS {
        for (name, vars, uefi) in [("everything", awkward(), true), ("ipv6-alone", six.clone(), false)] {
            let mut answers = answers(kind, distribution, version, vars);
            answers.settings.set_firmware(uefi);
            let files = answers.render(&build()).unwrap_or_else(|errors| panic!("{kind}: {errors:?}"));
            let mut text = String::new();
            for (file, content) in
                files.texts().filter(|(file, _)| !file.ends_with("-data") || *file == "user-data")
            {
                text.push_str(&format!("=== {file}\n{content}"));
            }
            insta::assert_snapshot!(format!("{name}-{kind}-{version}"), text);
        }
    }
}

/// Another value than the default, or than [`ground`]'s.
fn other(name: &str, windows: bool) -> Value {
    match name {
        "locale" if windows => "de-DE".into(),
        "locale" => "de_DE.UTF-8".into(),
        "keyboard" => "de".into(),
        "timezone" => "Europe/Berlin".into(),
        "packages" | "base-packages" => json!(["tmux"]),
        "late-commands" => json!(["echo late"]),
        "mirror" => "http://other.example.org/x/".into(),
        "security-mirror" => "http://security.example.org/x/".into(),
        "repositories" => json!(["more=http://other.example.org/more/"]),
        "proxy" => "http://proxy.example.org:3128".into(),
        "ntp" => json!(["one.example.org", "two.example.org"]),
        "address" => "192.0.2.11/24".into(),
        "gateway" => "192.0.2.1".into(),
        "address6" => "2001:db8::11/64".into(),
        "gateway6" => "2001:db8::1".into(),
        "nameservers" => json!(["192.0.2.53"]),
        "interface" => "ens18".into(),
        "disk" => "vdb".into(),
        "layout" => "lvm".into(),
        "swap" | "fips" => true.into(),
        "kernel-arguments" => "quiet".into(),
        "selinux" => "permissive".into(),
        "password" => "another".into(),
        "password-hash" => "yescrypt".into(),
        "source-id" => "ubuntu-server".into(),
        "drivers" => "2k19".into(),
        "product-key" => "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE".into(),
        "image-name" | "organization" => "another".into(),
        other => panic!("what would be another value for {other}?"),
    }
}

/// What some settings need to mean anything.
fn ground() -> Value {
    json!({
        "address": "192.0.2.10/24", "address6": "2001:db8::10/64", "password": "one",
        "mirror": "http://mirror.example.org/here",
    })
}

#[test]
fn no_setting_that_a_kind_takes_is_without_effect() {
    let mut without = Vec::new();
    for (kind, distribution, version) in SYSTEMS {
        let before = rendered(&answers(kind, distribution, version, ground()));
        // `partitions` need a layout, in each installer's own language; the firmware is the VM's.
        for name in Settings::names(kind).filter(|name| !["partitions", "firmware"].contains(name)) {
            let mut vars = ground();
            vars[name] = other(name, kind == Kind::Autounattend);
            let answers = answers(kind, distribution, version, vars.clone());
            let after = rendered(&answers);
            if after == before {
                without.push(format!("{kind} {version}: {name}"));
            }
            // Nothing of a list is lost.
            for item in vars[name].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let item = item.rsplit_once('=').map_or(item, |(_, url)| url);
                assert!(after.contains(item), "{kind} {version}: {name} lacks {item}");
            }
        }
    }
    for distribution in ["debian", "rocky", "opensuse-leap"] {
        let of = |vars: &Value| {
            let given = vars.as_object().expect("an object");
            let settings = Settings::read(Kind::Nocloud, given).expect("sound settings");
            (user_data(&settings, given, distribution), network_config(&settings, None))
        };
        let ground = json!({ "address": "192.0.2.10/24", "address6": "2001:db8::10/64" });
        for name in Settings::names(Kind::Nocloud) {
            // The profile's reader refuses what means nothing to the packages of an image.
            let other_tool =
                if takes_repositories(distribution) { "security-mirror" } else { "repositories" };
            let mut vars = ground.clone();
            vars[name] = other(name, false);
            if of(&vars) == of(&ground) && name != other_tool {
                without.push(format!("nocloud {distribution}: {name}"));
            }
        }
    }
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn the_kernels_arguments_of_an_installed_ubuntu_are_those_that_were_given() {
    let given = "console=ttyS0 a=\"b c\" d=$e f=`g` h=i\\\\j k='l'";
    let answers = answers(Kind::Autoinstall, "ubuntu", "24.04", json!({ "kernel-arguments": given }));
    let files = answers.render(&build()).expect("renders");
    let text = files.get("user-data").and_then(SeedFile::text).expect("text");
    let data: Value = serde_yaml::from_str(text).expect("YAML");
    let commands = data["autoinstall"]["late-commands"].as_array().expect("a list");
    let script = commands.iter().find_map(|each| each[2].as_str().filter(|text| text.contains("grub.d")));
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().display();
    let script = script.expect("it is there").replace("/target", &target.to_string());
    let file = folder.path().join("etc/default/grub.d/60-forge.cfg");
    let script = format!(
        "{script}; GRUB_CMDLINE_LINUX=before; . {}; printf %s \"$GRUB_CMDLINE_LINUX\"",
        file.display()
    );
    let output = std::process::Command::new("sh").args(["-ec", &script]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("before {given}"));
}

#[test]
fn what_every_setting_comes_to_for_a_cloud_image_passes_the_lint() {
    for distribution in ["debian", "ubuntu", "rocky", "opensuse-leap"] {
        let mut vars = awkward();
        let known: Vec<&str> = Settings::names(Kind::Nocloud).collect();
        let table = vars.as_object_mut().expect("an object");
        table.retain(|name, _| known.contains(&name.as_str()));
        let settings = Settings::read(Kind::Nocloud, table).expect("sound settings");
        for (mac, user) in [(None, false), (Some("02:00:00:00:00:01"), true)] {
            let files = crate::nocloud::NoCloud {
                instance_id: "sample".into(),
                hostname: Some("build".into()),
                user: user.then(|| crate::nocloud::BuildUser::sudoer("forge", "ssh-ed25519 AAAA forge")),
                host_key: None,
                user_data: user_data(&settings, table, distribution),
                network_config: network_config(&settings, mac),
            };
            for (name, text) in files.files().expect("renders").texts() {
                let found = crate::lint::lint(Kind::Nocloud, name, text, distribution, "");
                assert_eq!(found, [], "{distribution} {name}: {text}");
            }
        }
    }
}
