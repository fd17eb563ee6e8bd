//! Variables and what is filled in.

use super::{Given, least, load_with, map};

const VARIABLES: &str = r#"
[variables.boot_vm]
default = "boot-vm"
description = "the VM to clone"
[variables.release]
type = "integer"
default = 12
[variables.password]
secret = true
default = "hunter2"
[variables.mirror]
pattern = "https://.*"
default = "https://deb.example.org"
[[provision]]
shell = "true"
env = { MIRROR = "{{ var.mirror }}", PASSWORD = "{{ var.password }}", RELEASE = "{{var.release}}", HOME_OF = "{{ env.HOME }}" }
"#;

fn env_of(given: &Given) -> String {
    let (profile, told) = load_with(&[("x.toml", &least(VARIABLES))], given);
    profile.map_or(told, |profile| format!("{:?}", profile.provision[0].env.get("MIRROR")))
}

#[test]
fn the_command_line_wins_over_files_over_the_environment_over_the_default() {
    let mut given = Given { environment: map(&[("HOME", "/root")]), ..Given::default() };
    assert_eq!(env_of(&given), "Some(\"https://deb.example.org\")");
    given.environment.insert("FORGE_VAR_MIRROR".into(), "https://environment".into());
    assert_eq!(env_of(&given), "Some(\"https://environment\")");
    given.files = map(&[("mirror", "https://file")]);
    assert_eq!(env_of(&given), "Some(\"https://file\")");
    given.command_line = map(&[("mirror", "https://line")]);
    assert_eq!(env_of(&given), "Some(\"https://line\")");
}

#[test]
fn wrong_values_are_told_and_secrets_are_not_shown() {
    let given = Given {
        environment: map(&[("HOME", "/"), ("FORGE_VAR_RELEASE", "twelve")]),
        files: map(&[("miror", "https://x")]),
        command_line: map(&[("mirror", "http://x"), ("nosuch", "1")]),
    };
    let more = r#"
[access]
user = "{{ var.password }}"
[seed]
hostname = "{{ var.hostnme }}"
[boot]
steps = [{ type = "{{ env.NOSUCH }}{{ dat }}" }]
[variables.needed]
[variables.code]
secret = true
pattern = "[0-9]+"
default = "s3cret"
[variables.odd]
type = "list"
default = 1.5
"#;
    let (profile, told) = load_with(&[("x.toml", &least(&format!("{VARIABLES}{more}")))], &given);
    assert!(profile.is_none());
    assert!(!told.contains("hunter2") && !told.contains("s3cret"), "{told}");
    insta::assert_snapshot!(told, @r#"
    x.toml:8:12: the variable `release` must be an integer, and FORGE_VAR_RELEASE gives `twelve` (`variables.release`)
    x.toml:15:11: the variable `mirror`: `http://x` (from --var) does not match `https://.*` (`variables.mirror.pattern`)
    x.toml:22:8: the secret variable `password` can't be part of this (`access.user`)
        help: a name is seen by everyone; use another variable
    x.toml:24:12: the variable `hostnme` is not defined (`seed.hostname`)
        help: there is: boot_vm, code, mirror, needed, odd, password, release
    x.toml:26:19: `NOSUCH` is not set in the environment (`boot.steps[0].type`)
        help: set it, or use a variable with a default instead of `env.NOSUCH`
    x.toml:26:19: `{{ dat }}` is not known (`boot.steps[0].type`)
        help: did you mean `date`?
    x.toml:27:12: the variable `needed` has no value (`variables.needed`)
        help: give one with --var needed=…, or FORGE_VAR_NEEDED in the environment
    x.toml:30:11: the variable `code`: a secret value (from its default) does not match `[0-9]+` (`variables.code.pattern`)
    x.toml:33:8: `list` is no value of `variables.odd.type`
        help: there is: string, integer, boolean
    x.toml:34:11: expected a string, found a number with a fraction (`variables.odd.default`)
    --var: the profile has no variable `nosuch`
        help: there is: boot_vm, release, password, mirror, needed, code, odd
    --var-file: the profile has no variable `miror`
        help: did you mean `mirror`?
    "#);
}

#[test]
fn the_values_of_secret_variables_are_kept_for_masking_only() {
    let given = Given { environment: map(&[("HOME", "/")]), ..Given::default() };
    let (profile, _) = load_with(&[("x.toml", &least(VARIABLES))], &given);
    let profile = profile.expect("a sound profile");
    assert_eq!(profile.secrets.iter().collect::<Vec<_>>(), ["hunter2"]);
    assert!(!format!("{:?} {given:?}", profile.secrets).contains("hunter2"));
}

#[test]
fn var_options_and_files_are_read() {
    let folder =
        super::folder(&[("a.toml", "x = 1\ny = true\nz = \"a\"\n"), ("b.toml", "x = 2\nbad = [1]\n")]);
    let files = [folder.path().join("a.toml"), folder.path().join("b.toml"), folder.path().join("c.toml")];
    let vars = ["k=v=w".to_owned(), "novalue".to_owned()];
    let (given, findings) = crate::config::load_given(&vars, &files, map(&[]));
    assert_eq!(given.files, map(&[("x", "2"), ("y", "true"), ("z", "a")]));
    assert_eq!(given.command_line, map(&[("k", "v=w")]));
    insta::assert_snapshot!(super::told(&findings, folder.path()), @r#"
    --var novalue: this is no NAME=VALUE
    b.toml:2:1: expected a string, integer or truth value, found an array (`bad`)
    c.toml: can't be read: No such file or directory (os error 2)
    "#);
}
