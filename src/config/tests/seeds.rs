//! `[seed]`: what can't be rendered is told when the profile is read, and what settings come to in a cloud image.

use super::{least, load, sound};
use crate::config::profile::BootStep;

#[test]
fn what_can_not_be_rendered_is_told_without_lint_too() {
    let text = least(
        "[seed]\nkind = \"preseed\"\nlint = false\nfiles = { \"preseed.cfg\" = \"mine.tera\" }\n\
         [os]\ndistribution = \"debian\"\nversion = \"12\"\n",
    );
    let files =
        [("a.toml", text.as_str()), ("mine.tera", "# mine\nd-i mirror {{ mirror_parts.host | debconf }}\n")];
    let (profile, told) = load(&files);
    assert!(profile.is_none());
    assert!(told.contains("mine.tera:"), "{told}");
    let files = [("a.toml", text.as_str()), ("mine.tera", "# mine\n{{ mirrr | debconf }}\n")];
    let (_, told) = load(&files);
    assert_eq!(told.trim(), "mine.tera:2:4: `mirrr` is not defined");
    let files = [("a.toml", text.as_str()), ("mine.tera", "d-i nonsense {{ locale | debconf }}\n")];
    assert!(load(&files).0.is_some(), "what is only odd is not told then");
}

#[test]
fn a_debian_install_without_a_mirror_takes_everything_from_its_medium() {
    for more in ["", "lint = false\n"] {
        let text = least(&format!(
            "[seed]\nkind = \"preseed\"\n{more}[os]\ndistribution = \"debian\"\nversion = \"12\"\n"
        ));
        let profile = sound(&[("a.toml", &text)]);
        let files = crate::cli::render::files(&profile, None).expect("renders");
        let preseed = files.get("preseed.cfg").and_then(|file| file.text()).expect("text");
        assert!(preseed.contains("d-i apt-setup/use_mirror boolean false"), "{preseed}");
        assert!(!preseed.contains("mirror/http"), "{preseed}");
    }
}

/// The user-data of a profile over a base, with mirrors and a proxy.
fn user_data(base: &str) -> String {
    let text = format!(
        "schema = 1\nname = \"x\"\nextends = \"{base}.toml\"\n[seed.vars]\nmirror = \"http://mirror.example.org/base/\"\n\
         proxy = \"http://proxy.example.org:3128\"\n{}\n",
        if base.starts_with("debian") {
            ""
        } else {
            "repositories = [\"extra=http://mirror.example.org/extra/\"]"
        }
    );
    let profile = sound(&[("a.toml", &text)]);
    let files = crate::cli::render::files(&profile, None).expect("renders");
    let text = files.get("user-data").and_then(|file| file.text()).expect("text");
    let from =
        |key: &str| text.find(&format!("\n{key}:")).map(|at| &text[at..]).unwrap_or_default().to_owned();
    ["apt", "bootcmd", "yum_repos", "zypper"]
        .iter()
        .map(|key| from(key))
        .max_by_key(String::len)
        .unwrap_or_default()
}

#[test]
fn mirrors_and_proxies_of_a_cloud_image_are_told_in_the_words_of_its_packages() {
    let debian = user_data("debian-12-cloud");
    assert!(debian.contains("uri: \"http://mirror.example.org/base/\""), "{debian}");
    assert!(debian.contains("http_proxy: \"http://proxy.example.org:3128\""), "{debian}");
    let rocky = user_data("rocky-9-cloud");
    for words in
        ["cloud-init-per", "/etc/yum.repos.d/*.repo", "proxy=%s", "yum_repos:", "forge-mirror:", "extra:"]
    {
        assert!(rocky.contains(words), "{words}: {rocky}");
    }
    let suse = user_data("opensuse-leap-15.6-cloud");
    for words in [
        "/etc/zypp/repos.d/*.repo",
        "/etc/sysconfig/proxy",
        "zypper:",
        "baseurl: \"http://mirror.example.org/extra/\"",
    ] {
        assert!(suse.contains(words), "{words}: {suse}");
    }
}

#[test]
fn repositories_that_nothing_reads_are_told() {
    let text = "schema = 1\nname = \"x\"\nextends = \"debian-12-cloud.toml\"\n[seed.vars]\nrepositories = [\"a=http://m.example.org/\"]\n";
    let (_, told) = load(&[("a.toml", text)]);
    assert!(told.contains("`repositories` is for images with dnf or zypper"), "{told}");
}

#[test]
fn a_boot_step_may_be_for_some_builds_alone() {
    let steps = "[boot]\nsteps = [{ keys = \"<esc>\", when = [\"typed\", \"bios\"] }, { keys = \"c\", when = \"uefi\" }]\n";
    let profile = sound(&[("a.toml", &least(steps))]);
    let [first, second] = profile.boot.as_slice() else { panic!("{:?}", profile.boot) };
    assert!(
        matches!(first, BootStep::When { conditions, .. } if conditions == &["typed", "bios"]),
        "{first:?}"
    );
    assert!(matches!(second, BootStep::When { conditions, .. } if conditions == &["uefi"]), "{second:?}");
    let (_, told) = load(&[("a.toml", &least("[boot]\nsteps = [{ keys = \"c\", when = \"efi\" }]\n"))]);
    assert!(told.contains("`efi` is no firmware and no way to deliver a seed"), "{told}");
}
