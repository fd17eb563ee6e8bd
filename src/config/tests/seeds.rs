//! `[seed]`: what can't be rendered is told when the profile is read, and what settings come to in a cloud image.

use super::{least, load, sound};
use crate::config::beside::Content;
use crate::config::load_profile;
use crate::config::profile::BootStep;
use crate::config::variables::Given;

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
    let text = "schema = 1\nname = \"x\"\nextends = \"rocky-9-cloud.toml\"\n[seed.vars]\nsecurity-mirror = \"http://m.example.org/\"\n";
    let (_, told) = load(&[("a.toml", text)]);
    assert!(told.contains("`security-mirror` is for images with apt"), "{told}");
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

const NOCLOUD: &str = "[variables.who]\ndefault = \"world\"\n[seed]\ndirectory = \"web\"\n[seed.files]\n\
                       hello = { content = \"hello {{ var.who }}\" }\n\"a/b\" = \"one.txt\"\n";

#[test]
fn files_and_whole_folders_go_beside_a_seed_with_their_digests() {
    let files = [
        ("p/a.toml", &*least(NOCLOUD)),
        ("p/one.txt", "one"),
        ("p/web/x/y.txt", "why"),
        ("p/web/hello", "the folder's own"),
    ];
    let profile = sound(&files);
    let told: Vec<String> = profile
        .seed
        .files
        .iter()
        .map(|file| match &file.content {
            Content::Text(text) => format!("{}: {text}", file.name),
            Content::File { path, bytes, sha256 } => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                format!("{}: {} ({bytes}, {})", file.name, name.unwrap_or_default(), &sha256[..8])
            }
        })
        .collect();
    assert_eq!(told, ["a/b: one.txt (3, 7692c3ad)", "hello: hello world", "x/y.txt: y.txt (3, 2be23c58)"]);
    assert!(!profile.seed.more_than_a_user && profile.seed.disc.is_none());
}

#[test]
fn answers_of_the_profile_s_own_are_taken_from_a_folder_too_and_what_is_no_text_goes_beside_them() {
    let text = least(
        "[os]\ndistribution = \"rocky\"\nversion = \"9\"\n[seed]\nkind = \"kickstart\"\nlint = false\ndirectory = \"http\"\n\
         files = { \"post.sh\" = \"post.sh\" }\n",
    );
    let files =
        [("a.toml", text.as_str()), ("http/ks.cfg", "# ours {{ as it is }}\n"), ("post.sh", "true\n")];
    let folder = super::folder(&files);
    std::fs::write(folder.path().join("http/updates.img"), [0xff, 0xfe]).expect("written");
    let (profile, findings) = load_profile(&folder.path().join("a.toml"), &Given::default());
    let profile = profile.unwrap_or_else(|| panic!("{findings:?}"));
    let rendered = crate::cli::render::files(&profile, None).expect("renders");
    let text = |name: &str| rendered.get(name).and_then(|file| file.text()).unwrap_or_default().to_owned();
    assert_eq!((text("ks.cfg"), text("post.sh")), ("# ours {{ as it is }}\n".into(), "true\n".into()));
    let beside: Vec<&str> = profile.seed.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(beside, ["updates.img"]);
}

#[test]
fn files_that_can_not_be_given_to_a_guest_are_told_with_their_lines() {
    let seed = "[seed]\ndirectory = \"one.txt\"\n[seed.files]\n\"../x\" = \"one.txt\"\n\"/etc/passwd\" = \"one.txt\"\nnosuch = \"gone\"\n\
                user-data = \"one.txt\"\nodd = \"odd\"\nt = \"t.tera\"\nnothing = {}\nnumber = 3\nempty = \"empty\"\n\
                [seed.disc]\nlabel = \"A LABEL\"\nfiles = { a = \"one.txt\", \"a/b\" = \"one.txt\" }\ndirectory = \"none\"\n";
    let text = least(seed);
    let files = [
        ("x.toml", text.as_str()),
        ("one.txt", "one"),
        ("odd/a b.txt", "odd"),
        ("t.tera", "{{ locale | yaml }}"),
    ];
    let folder = super::folder(&files);
    std::fs::create_dir(folder.path().join("empty")).expect("made");
    let (profile, findings) = load_profile(&folder.path().join("x.toml"), &Given::default());
    assert!(profile.is_none());
    insta::assert_snapshot!(super::told(&findings, folder.path()), @r#"
    x.toml:5:13: one.txt is no folder (`seed.directory`)
        help: name a file in `files`: "NAME" = "PATH"
    x.toml:7:10: `../x` can't be the name of a seed's file: letters, digits, `.`, `_`, `-`, `+`, `~`, `@` and single `/` between them (`seed.files.../x`)
    x.toml:8:17: `/etc/passwd` can't be the name of a seed's file: letters, digits, `.`, `_`, `-`, `+`, `~`, `@` and single `/` between them (`seed.files./etc/passwd`)
    x.toml:9:10: gone can't be read: No such file or directory (os error 2) (`seed.files.nosuch`)
    x.toml:10:13: `user-data` of a NoCloud seed is written by forge (`seed.files.user-data`)
        help: add to it with [seed.user-data] or [seed.network-config]
    x.toml:11:7: odd/a b.txt: `odd/a b.txt` can't be the name of a seed's file: letters, digits, `.`, `_`, `-`, `+`, `~`, `@` and single `/` between them (`seed.files.odd`)
        help: rename it, or give it a name that can be asked for in `files`
    x.toml:12:5: nothing fills in a template beside a NoCloud seed (`seed.files.t`)
        help: `{ content = "…" }` in its place takes `{{ var.NAME }}`
    x.toml:13:11: the file's `content` is missing (`seed.files.nothing.content`)
        help: or write its path: "NAME" = "PATH"
    x.toml:14:10: expected the path of a file or folder, or { content = "…" }, found an integer (`seed.files.number`)
    x.toml:15:9: warning: there is no file in empty (`seed.files.empty`)
    x.toml:17:9: `A LABEL` can't be the label of a disc: 1 to 16 letters, digits, `_` and `-` (`seed.disc.label`)
    x.toml:18:9: `a` can't be the name of a file on a disc: a folder has this name (`seed.disc.files`)
    x.toml:19:13: none can't be read: No such file or directory (os error 2) (`seed.disc.directory`)
    "#);
}

#[test]
fn files_that_can_not_be_on_a_floppy_are_told_with_their_lines() {
    let sound = sound(&[
        ("a.toml", &*least("[seed.floppy]\nlabel = \"drivers\"\ndirectory = \"on-it\"\n")),
        ("on-it/viostor/w11/viostor.inf", "a driver"),
    ]);
    let floppy = sound.seed.floppy.expect("there is one");
    assert_eq!(floppy.label.as_deref(), Some("drivers"));
    assert_eq!(floppy.files.iter().map(|file| &file.name).collect::<Vec<_>>(), ["viostor/w11/viostor.inf"]);
    let text = least(
        "[seed.floppy]\nlabel = \"TWELVE_CHARS\"\ndirectory = \"on-it\"\n\n[seed.disc]\ndirectory = \"on-it\"\n",
    );
    let large = "x".repeat(1_500_000);
    let (profile, told) = load(&[("a.toml", text.as_str()), ("on-it/large", large.as_str())]);
    assert!(profile.is_none());
    assert_eq!(told.lines().count(), 2, "a disc holds it: {told}");
    assert!(told.contains("`TWELVE_CHARS` can't be the label of a floppy: 1 to 11 letters"), "{told}");
    assert!(told.contains("the files have 1500160 bytes, and a floppy holds 1457664"), "{told}");
}

#[test]
fn more_than_can_be_held_for_a_guest_is_told_before_it_is_read() {
    let text = least("[seed]\ndirectory = \"web\"\n");
    let folder = super::folder(&[("x.toml", text.as_str()), ("web/small", "x")]);
    let large = std::fs::File::create(folder.path().join("web/large")).expect("made");
    large.set_len(64 << 20).expect("it has holes");
    let (profile, findings) = load_profile(&folder.path().join("x.toml"), &Given::default());
    let told = super::told(&findings, folder.path());
    assert!(profile.is_none());
    assert!(told.contains("these files come to 64.0 MiB, and 64.0 MiB are the most"), "{told}");
    // A folder that lies in itself ends too.
    std::fs::remove_file(folder.path().join("web/large")).expect("ours");
    std::os::unix::fs::symlink(".", folder.path().join("web/again")).expect("made");
    let (_, findings) = load_profile(&folder.path().join("x.toml"), &Given::default());
    let told = super::told(&findings, folder.path());
    assert!(told.contains("lies deeper than 16 folders, or in itself"), "{told}");
}
