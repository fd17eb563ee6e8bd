//! `extends`.

use super::{load, sound};

const BASE: &str = r#"schema = 1
[template]
tags = ["base"]
[source]
clone = { vmid = 9000 }
[vm]
cores = 1
cpu = "host"
disks = [{ slot = "scsi0" }]
[seal]
logs = false
[[provision]]
name = "update"
shell = ["update"]
[[provision]]
name = "harden"
script = "harden.sh"
[[provision]]
shell = ["unnamed"]
"#;

#[test]
fn tables_merge_values_replace_and_provisioners_and_tags_append() {
    let over = r#"
schema = 1
name = "child"
extends = "shared/base.toml"
[template]
tags = ["child"]
[source]
clone = { tags = ["newest"] }
[vm]
cores = 4
disks = [{ slot = "virtio0" }]
[[provision]]
name = "update"
shell = ["other update"]
[[provision]]
name = "own"
shell = ["own"]
"#;
    let profile =
        sound(&[("child.toml", over), ("shared/base.toml", BASE), ("shared/harden.sh", "harden\n")]);
    assert_eq!(profile.tags, ["base", "child"]);
    assert_eq!(profile.source.clone, Some(forge_machine::CloneSelector::Tags(vec!["newest".into()])));
    assert_eq!((profile.vm.cores, profile.vm.cpu.as_deref()), (Some(4), Some("host")));
    assert_eq!(profile.vm.disks.len(), 1);
    assert_eq!(profile.vm.disks[0].slot, "virtio0");
    assert!(!profile.seal["logs"]);
    let scripts: Vec<_> = profile.provision.iter().map(|step| step.script.as_str()).collect();
    assert_eq!(scripts, ["other update", "harden\n", "unnamed", "own"]);
    let files: Vec<_> = profile.files.iter().filter_map(|(file, _)| file.file_name()?.to_str()).collect();
    assert_eq!(files, ["child.toml", "base.toml"]);
    assert!(profile.files.iter().all(|(_, digest)| digest.len() == 64));
}

#[test]
fn a_provisioner_of_the_base_is_dropped_and_then_need_not_be_whole() {
    let over = r#"
schema = 1
name = "child"
extends = "base.toml"
[[provision]]
name = "harden"
enabled = false
"#;
    // The dropped one's script does not exist.
    let profile = sound(&[("child.toml", over), ("base.toml", BASE)]);
    let scripts: Vec<_> = profile.provision.iter().map(|step| step.script.as_str()).collect();
    assert_eq!(scripts, ["update", "unnamed"]);
}

#[test]
fn findings_point_into_the_file_that_has_the_mistake() {
    let over = "schema = 1\nname = \"child\"\nextends = \"base.toml\"\n[vm]\ncors = 4\n[[provision]]\nname = \"hardn\"\nenabled = false\n";
    let base = BASE.replace("cores = 1", "cores = \"1\"");
    let (_, told) = load(&[("child.toml", over), ("base.toml", &base)]);
    insta::assert_snapshot!(told, @r#"
    child.toml:5:1: unknown key `vm.cors`
        help: did you mean `cores`?
    child.toml:6:1: there is no provisioner `hardn` to drop
        help: did you mean `harden`?
    base.toml:7:9: expected an integer, found a string (`vm.cores`)
        help: leave the quotes out
    base.toml:17:10: the script harden.sh can't be read: No such file or directory (os error 2) (`provision[1].script`)
        help: paths are relative to the file that names them
    "#);
}

#[test]
fn files_that_extend_each_other_in_a_circle_are_told() {
    let (_, told) =
        load(&[("a.toml", "extends = \"b.toml\"\n"), ("b.toml", "schema = 1\nextends = \"./a.toml\"\n")]);
    insta::assert_snapshot!(told, @r#"b.toml:2:11: ./a.toml extends itself, by way of other files or at once"#);
}

#[test]
fn a_base_that_is_missing_or_broken_is_told_where_it_is_named() {
    let (_, told) = load(&[("a.toml", "name = \"a\"\nextends = \"bse.toml\"\n"), ("base.toml", "")]);
    let (_, broken) = load(&[("a.toml", "extends = \"base.toml\"\n"), ("base.toml", "x = \n")]);
    let (_, typed) = load(&[("a.toml", "extends = [\"base.toml\"]\n")]);
    insta::assert_snapshot!(format!("{told}{broken}{typed}"), @r#"
    a.toml:2:11: bse.toml can't be read: No such file or directory (os error 2) (`extends`)
        help: did you mean `base.toml`?
    base.toml:1:5: this is not TOML: string values must be quoted, expected literal string
    a.toml:1:11: expected a string, found an array (`extends`)
    "#);
}
