//! The kinds of `[[provision]]`.

use std::time::Duration;

use super::{folder, least, load, load_profile, sound};
use crate::config::profile::ProvisionerKind;
use crate::config::variables::Given;
use crate::provision::{Condition, Direction};
use crate::remote::Become;

#[test]
fn every_kind_of_provisioner_is_read() {
    let text = least(
        r#"
[[provision]]
upload = "conf/"
destination = "/etc/app"
become = "sudo"
[[provision]]
content = "hello"
destination = "/etc/motd"
mode = "0600"
[[provision]]
download = "/var/log/app.log"
destination = "logs/"
[[provision]]
shell-local = ["make", "make check"]
[[provision]]
exec = ["./tool", "x"]
[[provision]]
reboot = true
timeout = "20m"
[[provision]]
wait-for = { port = 8080 }
[[provision]]
wait-for = { command = "test -e /run/up" }
[[provision]]
breakpoint = "look at the logs"
[[provision]]
name = "why"
shell = "journalctl -b"
on-error = true
pause-before = "2s"
max-retries = 3
start-retry = "1m"
become = "doas"
interpreter = "/bin/bash -eu"
work-dir = "/srv"
"#,
    );
    let profile = sound(&[("x.toml", &text), ("conf/app.conf", "")]);
    let names: Vec<_> = profile.provision.iter().map(|each| each.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "upload to /etc/app",
            "upload to /etc/motd",
            "download /var/log/app.log",
            "make",
            "./tool",
            "reboot",
            "wait for TCP port 8080",
            "wait for `test -e /run/up` to succeed",
            "breakpoint",
            "why"
        ]
    );
    let [upload, text, download, local, exec, reboot, port, _, stop, why] = profile.provision.as_slice()
    else {
        panic!("ten steps");
    };
    assert!(matches!(&upload.kind, ProvisionerKind::File { direction: Direction::Upload, local, .. }
        if local.to_str().unwrap().ends_with("/conf/")));
    assert_eq!(upload.r#become, Become::Sudo);
    assert!(
        matches!(&text.kind, ProvisionerKind::File { content: Some(text), mode: Some(0o600), .. } if text == "hello")
    );
    assert!(matches!(&download.kind, ProvisionerKind::File { direction: Direction::Download, local, .. }
        if local.to_str().unwrap().ends_with("/logs/")));
    assert!(matches!(&local.kind, ProvisionerKind::ShellLocal { dir } if dir.is_absolute()));
    assert_eq!(local.script, "make\nmake check");
    assert!(matches!(&exec.kind, ProvisionerKind::Exec { words, .. } if words == &["./tool", "x"]));
    assert!(
        matches!(reboot.kind, ProvisionerKind::Reboot) && reboot.timeout == Some(Duration::from_secs(1200))
    );
    assert!(matches!(port.kind, ProvisionerKind::WaitFor(Condition::Port(8080))));
    assert!(matches!(&stop.kind, ProvisionerKind::Breakpoint(note) if note == "look at the logs"));
    assert!(why.on_error && why.max_retries == 3 && why.r#become == Become::Doas);
    assert_eq!(why.pause_before, Some(Duration::from_secs(2)));
    assert_eq!(why.start_retry, Some(Duration::from_secs(60)));
    assert_eq!((why.interpreter.as_deref(), why.work_dir.as_deref()), (Some("/bin/bash -eu"), Some("/srv")));
}

#[test]
fn what_is_wrong_with_a_provisioner_is_told_before_anything_is_done() {
    for (text, expected) in [
        ("upload = \"nosuch\"\ndestination = \"/x\"", "nosuch does not exist"),
        ("content = \"x\"", "`destination` is missing"),
        ("content = \"x\"\ndestination = \"/etc/\"", "a text has no name of its own"),
        ("content = \"x\"\ndestination = \"/x\"\nmode = \"rw\"", "`rw` are no permission bits"),
        ("reboot = true\nshell = \"true\"", "`reboot` and `shell` exclude each other"),
        ("wait-for = { port = 1, file = \"/x\" }", "exactly one of `port`, `file` and `command`"),
        ("wait-for = { port = 0 }", "is not between 1 and 65535"),
        ("exec = []", "this names no program"),
        ("shell = \"true\"\nmode = \"0644\"", "`mode` is for `upload` and `download`"),
        ("shell = \"true\"\nbecome = \"sud\"", "become"),
        ("reboot = false", "this provisioner does nothing"),
    ] {
        let (profile, told) = load(&[("x.toml", &least(&format!("[[provision]]\n{text}\n")))]);
        assert!(profile.is_none() && told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn files_are_relative_to_the_file_that_names_them() {
    let base = "[[provision]]\nupload = \"files\"\ndestination = \"/srv\"\n";
    let files =
        [("p/x.toml", &*least("extends = \"../base/b.toml\"\n")), ("base/b.toml", base), ("base/files", "")];
    let folder = folder(&files);
    let (profile, findings) = load_profile(&folder.path().join("p/x.toml"), &Given::default());
    let profile = profile.unwrap_or_else(|| panic!("{findings:?}"));
    assert!(matches!(&profile.provision[0].kind, ProvisionerKind::File { local, .. }
        if local.canonicalize().unwrap() == folder.path().join("base/files").canonicalize().unwrap()));
}

#[test]
fn a_tilde_that_nobody_makes_a_home_of_is_told() {
    let step = |text: &str| load(&[("x.toml", &least(&format!("[[provision]]\n{text}\n")))]).1;
    let here = "`~` is not taken for a home on this machine";
    let told = step("download = \"/etc/hostname\"\ndestination = \"~/names\"");
    assert!(told.contains(here) && told.contains("`provision[0].destination`"), "{told}");
    let told = step("upload = \"~/names\"\ndestination = \"/etc/names\"");
    assert!(told.contains(here), "{told}");
    let told = step("download = \"~/names\"\ndestination = \"names\"\nmode = \"0600\"");
    assert_eq!(told, "", "in the guest it is one, and the file here gets its mode");
}
