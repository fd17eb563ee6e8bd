//! What bad input of seeds and media gets from the real program: a finding with its place, exit code 3, and nothing made.

use crate::support::local_site::LocalSite;
use crate::support::web::{Page, Web};

const PROFILE: &str = r#"schema = 1
name = "bad"

[os]
distribution = "rocky"
version = "VERSION"

[source]
iso = ISO

[vm]
memory = "256MiB"
disks = [{ slot = "scsi0", size = "1GiB" }]

[seed]
kind = "kickstart"
delivery = ["typed"]
SEED

[boot]
steps = [{ type = "linux {{ seed.arguments }}", enter = true }]
"#;

/// What forge says to the profile with these parts; it ends with exit code 3 and leaves nothing.
fn refused(site: &LocalSite, version: &str, iso: &str, seed: &str, more: &str) -> String {
    let profile = PROFILE.replace("VERSION", version).replace("ISO", iso).replace("SEED", seed);
    site.write("bad.toml", &format!("{profile}{more}"));
    let said = site.run(&["build", "bad.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.text);
    site.assert_nothing_left();
    said.text
}

fn with_medium() -> LocalSite {
    let site = LocalSite::new();
    site.write("medium.iso", "no disc at all");
    site
}

const MEDIUM: &str = "\"medium.iso\"";

#[test]
fn names_that_a_template_does_not_have_are_told_with_their_place_in_it() {
    let site = with_medium();
    site.write("ks.tera", "text\n{{ var.port | ks }}\nlang {{ locale }}\n");
    let said = refused(&site, "9", MEDIUM, "files = { \"ks.cfg\" = \"ks.tera\" }", "");
    assert!(said.contains("ks.tera:2:4: `var.port` is not defined"), "{said}");
    assert!(said.contains("ks.tera:3:6: `{{ locale }}` goes in as it is"), "{said}");
}

#[test]
fn a_template_that_is_not_there_is_told_with_the_profile_s_line() {
    let said = refused(&with_medium(), "9", MEDIUM, "files = { \"ks.cfg\" = \"nothere.tera\" }", "");
    assert!(said.contains("bad.toml:18:22: nothere.tera can't be read"), "{said}");
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_its_line() {
    let more =
        "[variables.disk]\ntype = \"integer\"\ndefault = \"large\"\n[variables.port]\ntype = \"integer\"\n";
    let said = refused(&with_medium(), "9", MEDIUM, "hostname = 5", more);
    assert!(said.contains("expected an integer, found a string (`variables.disk.default`)"), "{said}");
    assert!(said.contains("the variable `port` has no value"), "{said}");
    assert!(said.contains("bad.toml:18:12: expected a string, found an integer"), "{said}");
}

#[test]
fn a_release_that_nothing_is_known_of_is_told() {
    let said = refused(&with_medium(), "99", MEDIUM, "", "");
    assert!(said.contains("bad.toml:6:11: unknown release: there is no rocky 99"), "{said}");
    assert!(said.contains("there is: 9, 10;"), "{said}");
}

#[test]
fn values_that_would_break_out_of_their_place_go_in_whole_or_are_refused() {
    let site = with_medium();
    let sharp = "a \"b\" 'c' \\ $(d) `e` # %end ]]> <f> & g";
    site.write("values.toml", &format!("banner = {sharp:?}\n"));
    site.write("ks.tera", "text\n%post\necho {{ var.banner | sh }}\n%end\n");
    let seed = "lint = false\nfiles = { \"ks.cfg\" = \"ks.tera\" }";
    let profile = PROFILE.replace("VERSION", "9").replace("ISO", MEDIUM).replace("SEED", seed);
    site.write("bad.toml", &format!("{profile}[variables.banner]\ntype = \"string\"\n"));
    site.succeeds(&["render", "bad.toml", "--var-file", "values.toml", "-o", "seed"]);
    let script = std::fs::read_to_string(site.path().join("seed/ks.cfg")).expect("it was rendered");
    let line = script.lines().find(|line| line.starts_with("echo ")).expect("the line");
    let told = std::process::Command::new("sh").args(["-c", line]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim_end(), sharp, "the shell reads the value as it is");

    site.write("values.toml", "banner = \"two\\nlines\\n%end\\nreboot\"\n");
    let said = site.run(&["render", "bad.toml", "--var-file", "values.toml", "-o", "again"]);
    assert_eq!(said.code, Some(3), "a line of it would end the section: {}", said.text);
    assert!(!site.path().join("again").exists(), "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_without_the_medium_are_told_with_what_they_have() {
    let sums = format!("{:064}  other.iso\n", 1);
    let web = Web::with([("medium.iso", Page::new("the medium")), ("SHA256SUMS", Page::new(sums))]).await;
    let iso =
        format!("{{ url = {:?}, checksum = \"file:{}\" }}", web.url("medium.iso"), web.url("SHA256SUMS"));
    let said = tokio::task::spawn_blocking(move || refused(&LocalSite::new(), "9", &iso, "", ""));
    let said = said.await.expect("it ran");
    assert!(said.contains("has no checksum of medium.iso, only of other.iso"), "{said}");
}
