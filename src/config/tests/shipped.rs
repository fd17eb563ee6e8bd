//! The profiles that come with forge.

use std::path::PathBuf;

use crate::config::profile::{BootStep, CloudInit};
use crate::config::variables::Given;
use crate::config::{Profile, load_profile};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("os-profiles")
}

fn shipped(name: &str) -> Profile {
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
        BootStep::Type(text) => Some(text.to_string()),
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

#[test]
fn the_page_of_profiles_names_every_seal_operation() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("the page");
    for operation in crate::seal::OPERATIONS {
        assert!(page.contains(&format!("`{}`", operation.name)), "{} is not on the page", operation.name);
    }
}
