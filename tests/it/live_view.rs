//! The guest's screen in the terminal: while it is built, and afterwards from the recording.

use std::process::{Command, Stdio};

use crate::support::local_site::LocalSite;

/// A disk that boots nothing: the firmware says so.
const PROFILE: &str = r#"schema = 1
name = "bare"

[os]
family = "linux"

[source]
image = "blank.raw"

[vm]
memory = "64MiB"
"#;

/// Runs forge at a terminal of 40 lines, which `script` makes; gives all that it was sent.
fn at_a_terminal(site: &LocalSite, arguments: &str) -> String {
    let forge = env!("CARGO_BIN_EXE_forge");
    let line = format!("stty rows 40 cols 120; exec {forge} --state-dir state {arguments}");
    let shown = Command::new("script")
        .args(["-qfc", &line, "/dev/null"])
        .current_dir(site.path())
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .expect("script can be run");
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

#[test]
fn a_guests_screen_is_drawn_below_the_progress_and_played_again_from_the_recording() {
    let there = |program| Command::new(program).arg("--version").output().is_ok();
    if !["qemu-system-x86_64", "qemu-img", "script"].into_iter().all(there) {
        eprintln!("skipped: QEMU or script is not installed");
        return;
    }
    let site = LocalSite::new();
    std::fs::write(site.path().join("blank.raw"), vec![0; 1 << 20]).expect("written");
    site.write("bare.toml", PROFILE);

    let shown = at_a_terminal(&site, "build --screen bare.toml");
    for words in ["\u{2500}\u{2500} 720x400 text", "SeaBIOS", "No bootable device", "nothing is left"] {
        assert!(shown.contains(words), "{words}: {shown:?}");
    }
    // What was drawn is taken away before the last words.
    let (_, last) = shown.rsplit_once(" in stage ").expect("it failed");
    assert!(!last.contains("SeaBIOS") && !last.contains("720x400"), "{last}");

    let mut builds = std::fs::read_dir(site.path().join("output/bare")).expect("there").flatten();
    let evidence = builds.next().expect("one build").path();
    let played = at_a_terminal(&site, &format!("screen show --speed 100 {}", evidence.display()));
    assert!(played.contains("1 of ") && played.contains("after the build began"), "{played}");
    assert!(played.contains("No bootable device") && played.contains("\u{1b}["), "{played}");

    // Elsewhere than at a terminal it is said that there is nothing to draw on.
    let said = site.run(&["build", "--screen", "bare.toml"]);
    assert!(said.text.contains("--screen needs a terminal"), "{}", said.text);
    assert!(!said.text.contains("720x400"), "{}", said.text);
}
