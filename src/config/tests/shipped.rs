//! The profiles that come with forge.

use std::path::PathBuf;

use forge_http_seed::answers::Kind;

use crate::config::profile::{BootStep, CloudInit, Tested, Wanted};
use crate::config::variables::Given;
use crate::config::{Profile, load_profile};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("os-profiles")
}

pub(super) fn shipped(name: &str) -> Profile {
    let (profile, findings) = load_profile(&folder().join(name), &Given::default());
    assert!(findings.is_empty(), "{}", super::told(&findings, &folder()));
    profile.expect("a profile without findings")
}

#[test]
fn the_debian_profile_is_what_the_demo_builds() {
    let debian = shipped("debian-12.toml");
    assert_eq!(debian.template_name.to_string(), "tpl-debian-12");
    assert_eq!(debian.source.clone, Some(forge_machine::CloneSelector::Name("boot-vm".into())));
    assert_eq!((debian.vm.cores, debian.vm.memory_mib), (Some(2), Some(1024)));
    assert!(matches!(debian.vm.cloud_init, CloudInit::Add { .. }));
    assert!(debian.seed.delivery.is_empty() && debian.boot.is_empty(), "forge chooses the delivery");
    assert!(debian.seal.values().all(|on| *on));
    assert!(debian.provision.iter().all(|step| !step.script.contains("apt")), "no network");
}

#[test]
fn the_typed_profile_types_a_quoted_address_and_keeps_the_rest() {
    let (typed, debian) = (shipped("debian-12-typed.toml"), shipped("debian-12.toml"));
    assert_eq!(typed.seed.delivery, ["typed"]);
    assert_eq!(typed.tags, ["debian-12", "typed"]);
    assert_eq!(typed.provision.len(), debian.provision.len());
    let typing = typed.boot.iter().find_map(|step| match step {
        BootStep::Type { text, .. } => Some(text.to_string()),
        _ => None,
    });
    assert_eq!(typing.as_deref(), Some(" \"ds=nocloud;s={{ seed.url }};dsmode=net\""));
}

#[test]
fn every_shipped_profile_is_sound_or_a_base() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        if path.extension().is_some_and(|ending| ending == "toml") && !name.starts_with("base-") {
            assert_eq!(format!("{}.toml", shipped(&name).name), name, "a profile is called like its file");
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

/// What each way of the seed is: the disc's label, what the kernel is told, and the boot steps of each firmware.
fn ways(profile: &Profile) -> String {
    let url = "http://192.0.2.1:8800/SECRET/";
    let answers = profile.seed.answers.as_ref();
    let hostname = profile.seed.hostname.as_deref();
    let mut text = String::new();
    // What forge chooses from when the profile does not say.
    let auto = ["cloud-init-drive", "smbios", "disc", "typed"].map(str::to_owned);
    let all = if profile.seed.delivery.is_empty() { &auto[..] } else { &profile.seed.delivery };
    for delivery in all {
        let what = match delivery.as_str() {
            "cloud-init-drive" => Some(profile.seed.ip_config.clone().unwrap_or_else(|| "ip=dhcp".into())),
            "smbios" => Some(forge_http_seed::serial::smbios_serial(url)),
            "disc" => profile.seed.kind.disc_label().map(|label| format!("a disc labelled {label}")),
            "kernel" | "boot-disc" => answers.map(|answers| answers.kernel_arguments(url, hostname, false)),
            "typed" if answers.is_none() => Some(forge_http_seed::serial::kernel_argument(url)),
            "typed" => answers.map(|answers| answers.kernel_arguments(url, hostname, true)),
            _ => None,
        };
        text.push_str(&format!("* {delivery}: {}\n", what.unwrap_or_default()));
        for firmware in ["bios", "uefi"] {
            for step in crate::plan::boot::taken(&profile.boot, firmware, delivery) {
                text.push_str(&format!("  {firmware}: {}\n", in_words(&step)));
            }
        }
    }
    text
}

fn in_words(step: &BootStep) -> String {
    match step {
        BootStep::WaitFor { sight, within, or_after, .. } => {
            let how = if *or_after { "or after" } else { "within" };
            let wanted = match &sight.wanted {
                Wanted::Text(text) => text.to_string(),
                other => format!("{other:?}"),
            };
            format!("wait for {wanted} {how} {} s", within.as_secs())
        }
        BootStep::Keys(keys) => format!("keys {keys}"),
        BootStep::Type { text, enter, .. } => {
            format!("type {text}{}", if *enter { " and Enter" } else { "" })
        }
        other => format!("{other:?}"),
    }
}

/// Each profile's files by delivery and firmware, equal ones once.
fn rendered(profile: &Profile) -> String {
    let mut by_text: Vec<(String, Vec<String>)> = Vec::new();
    for uefi in [false, true] {
        let mut profile = profile.clone();
        if let Some(answers) = &mut profile.seed.answers {
            answers.settings.set_firmware(uefi);
        }
        let files = crate::cli::render::files(&profile, None).expect("renders");
        let firmware = if uefi { "uefi" } else { "bios" };
        for (name, text) in files.texts() {
            // The installers' own long sameness is a matter of http-seed's tests.
            let body = format!("=== {name}\n{text}");
            match by_text.iter_mut().find(|(other, _)| *other == body) {
                Some((_, where_)) => where_.push(firmware.to_owned()),
                None => by_text.push((body, vec![firmware.to_owned()])),
            }
        }
    }
    let delivery =
        if profile.seed.delivery.is_empty() { "auto".into() } else { profile.seed.delivery.join(", ") };
    let mut text = format!("delivery: {delivery}\n");
    text.push_str(&ways(profile));
    for (body, firmware) in by_text {
        let (head, rest) = body.split_once('\n').unwrap_or((&body, ""));
        text.push_str(&format!("{head} ({})\n{rest}", firmware.join(", ")));
    }
    text
}

#[test]
fn every_shipped_profile_renders_as_it_did() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| {
        for name in crate::config::embedded::names() {
            insta::assert_snapshot!(name, rendered(&shipped(&format!("{name}.toml"))));
        }
    });
}

#[test]
fn the_binary_holds_every_file_of_the_folder() {
    let mut there: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    there.sort();
    let mut embedded: Vec<&str> = crate::config::embedded::files().collect();
    embedded.sort_unstable();
    assert_eq!(embedded, there);
}

#[test]
fn a_name_finds_the_embedded_profile_and_its_bases() {
    let (profile, findings) = load_profile(std::path::Path::new("rocky-9"), &Given::default());
    assert!(findings.is_empty(), "{findings:?}");
    let profile = profile.expect("a profile");
    let files: Vec<String> = profile.files.iter().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(files[..2], ["forge:rocky-9.toml", "forge:base-kickstart.toml"]);
    let mine = tempfile::tempdir().expect("a folder");
    let file = mine.path().join("mine.toml");
    let text = "schema = 1\nname = \"mine\"\nextends = \"base-linux.toml\"\nsource = { clone = \"x\" }\n";
    std::fs::write(&file, text).expect("written");
    let (profile, findings) = load_profile(&file, &Given::default());
    assert!(profile.is_some(), "a base that is not beside it comes from the binary: {findings:?}");
}

#[test]
fn a_profile_that_was_not_built_here_says_so() {
    for name in crate::config::embedded::names() {
        let profile = shipped(&format!("{name}.toml"));
        assert!(profile.os.tested.is_some(), "{name} does not say how far it was tried");
    }
}

#[test]
fn a_profile_says_reader_where_a_reader_accepts_it_and_only_there() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("the page");
    for name in crate::config::embedded::names() {
        let profile = shipped(&format!("{name}.toml"));
        // Those whose files `readers.rs` gives to the installer's own parser.
        let read = match profile.seed.kind {
            Kind::Nocloud | Kind::Autoinstall | Kind::Kickstart | Kind::Preseed => Tested::Reader,
            Kind::Autounattend | Kind::Autoyast | Kind::Agama => Tested::Read,
        };
        let tested = profile.os.tested.expect("each says it");
        assert!(tested == read || (tested, read) == (Tested::Real, Tested::Reader), "{name}: {tested:?}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect("a row");
        assert!(row.ends_with(&format!("| {} |", tested.name())), "{row}");
        assert!(row.contains(&format!("| {} |", profile.seed.kind)), "{row}");
        assert!(row.contains(&format!("| `{}` |", profile.template_name)), "{row}");
    }
}

#[test]
fn each_profile_has_its_expected_size_and_its_section_on_the_page() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("the page");
    let (_, rest) = page.split_once("## What each makes, and what was tried\n").expect("the part");
    let (part, _) = rest.split_once("\n## ").expect("its end");
    let sections: Vec<&str> = part.split("\n### ").skip(1).collect();
    for name in crate::config::embedded::names() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect("a row");
        let size = row.rsplit(" | ").nth(1).expect("a size");
        let known = size.strip_suffix(" GB").is_some_and(|number| number.parse::<f32>().is_ok());
        assert!(known || size == "–", "{row}");
        let of_it: Vec<&&str> =
            sections.iter().filter(|section| section.contains(&format!("`{name}`"))).collect();
        assert_eq!(of_it.len(), 1, "{name}: {of_it:?}");
        // A section says what was done, and what not.
        let tried = ["tests", "accept", "judged", "checked"].iter().any(|word| of_it[0].contains(word));
        let untried = ["not", "No medium", "None"].iter().any(|word| of_it[0].contains(word));
        let real = shipped(&format!("{name}.toml")).os.tested == Some(Tested::Real);
        assert!(tried && (real || untried), "{name}: {}", of_it[0]);
    }
}

#[test]
fn what_was_not_built_here_types_last_and_goes_on_by_itself() {
    for name in crate::config::embedded::names() {
        let profile = shipped(&format!("{name}.toml"));
        if profile.os.tested == Some(Tested::Real) {
            continue;
        }
        let ways = &profile.seed.delivery;
        let typed = ways.iter().position(|way| way == "typed");
        assert!(typed.is_none_or(|at| at > 0 && at + 1 == ways.len()), "{name}: {ways:?}");
        for (way, firmware) in ways.iter().flat_map(|way| [(way, "bios"), (way, "uefi")]) {
            // A text that nobody has seen is waited for, and not relied on.
            let first = crate::plan::boot::taken(&profile.boot, firmware, way).into_iter().next();
            let goes_on = matches!(first, None | Some(BootStep::WaitFor { or_after: true, .. }));
            assert!(goes_on, "{name} by {way} on {firmware}: {first:?}");
        }
    }
}

#[test]
fn no_boot_step_expects_a_prompt_at_the_very_left() {
    // A firmware's text screen may be wider than what stands on it, and then it stands in the middle.
    for name in crate::config::embedded::names() {
        let profile = shipped(&format!("{name}.toml"));
        for step in &profile.boot {
            let step = format!("{step:?}");
            let left =
                step.match_indices(r#"Regex("^"#).any(|(at, _)| !step[at..].starts_with(r#"Regex("^\\s*"#));
            assert!(!left, "{name}: {step}");
        }
    }
}

#[test]
fn every_windows_profile_brings_the_drivers_its_disk_needs() {
    let mut seen = 0;
    for name in crate::config::embedded::names() {
        let profile = shipped(&format!("{name}.toml"));
        if profile.os.family != "windows" {
            continue;
        }
        let foreign = profile
            .vm
            .disks
            .iter()
            .any(|disk| !disk.slot.starts_with("sata") && !disk.slot.starts_with("ide"));
        assert_eq!(profile.source.isos.len(), if foreign { 2 } else { 1 }, "{name}");
        let states: Vec<&str> = profile.vm.state_disks.iter().map(|disk| disk.slot.as_str()).collect();
        assert!(states.contains(&"efidisk0"), "{name}: its firmware forgets what it is told");
        assert_eq!(states.contains(&"tpmstate0"), name == "win11", "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn the_worked_example_of_the_page_is_sound_and_renders_what_it_says() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("the page");
    let (_, example) = page.split_once("## Adding an operating system").expect("the section");
    let (_, example) = example.split_once("```toml\n").expect("the example");
    let (example, _) = example.split_once("```").expect("its end");
    let profile = super::sound(&[("rocky-9-site.toml", example)]);
    let files = crate::cli::render::files(&profile, None).expect("renders");
    let text = files.get("ks.cfg").and_then(|file| file.text()).expect("text");
    for words in [
        "--ip=192.0.2.10 --netmask=255.255.255.0 --gateway=192.0.2.1",
        "--nameserver=192.0.2.53",
        "autopart --type=lvm",
        "keyboard --xlayouts=de",
        "timezone Europe/Berlin",
        "url --url=http://mirror.example.org/rocky/9/BaseOS/x86_64/os/",
        "repo --name=appstream --baseurl=http://mirror.example.org/rocky/9/AppStream/x86_64/os/",
        "\nvim-enhanced\n",
        "sh -c 'systemctl disable kdump'",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn the_page_of_profiles_names_every_profile_and_setting() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("the page");
    for name in crate::config::embedded::names() {
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
    for spec in &forge_http_seed::answers::SPECS {
        assert!(page.contains(&format!("`{}`", spec.name)), "{} is not on the page", spec.name);
    }
}

#[test]
fn the_page_of_profiles_names_every_seal_operation() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("the page");
    for operation in crate::seal::OPERATIONS.iter().chain(crate::seal::WINDOWS_OPERATIONS) {
        assert!(page.contains(&format!("`{}`", operation.name)), "{} is not on the page", operation.name);
    }
}
