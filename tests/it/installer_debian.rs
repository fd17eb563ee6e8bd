//! Debian's own installer, from its package `debian-installer-12-netboot-amd64`, started by forge on local QEMU with forge's
//! profile: it fetches the preseed and follows it to the mirror and its list of components, and asks nothing before.
//!
//! The mirror is the test's own and has no components, so the installer ends there with a question of its own.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::support::local_site::LocalSite;
use crate::support::web::{Page, Web};

/// Where the package lays kernel and initrd.
const NETBOOT: &str = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64";
/// What the installer shows when the mirror has nothing for its kernel (anna's `no_kernel_modules`).
const END: &str = "No kernel modules were found";

const PROFILE: &str = r#"schema = 1
name = "netboot"
extends = "base-preseed.toml"

[os]
version = "12"

[output]
formats = ["qcow2"]

[source]
kernel = "NETBOOT/linux"
initrd = "NETBOOT/initrd.gz"
# The mirror's list is signed by nobody, and text on the screen is to be read.
cmdline = "{{ seed.arguments }} debian-installer/allow_unauthenticated=true vga=normal fb=false mitigations=off"

[vm]
memory = "1GiB"
disks = [{ slot = "scsi0", size = "4GiB" }]

[seed]
hostname = "by-the-installer"

[seed.vars]
mirror = "MIRROR"
timezone = "Europe/Berlin"
keyboard = "de"
STATIC

[boot]
steps = [
  { expect = [{ text = "END", fail = "the installer has come to the end of this mirror" }], within = "15m" },
]

[deadlines]
boot = "15m"
"#;

/// A mirror with nothing on it: what choose-mirror and net-retriever ask for.
async fn mirror() -> Web {
    let packages = "";
    let list = "main/debian-installer/binary-amd64/Packages";
    let hash: String = Sha256::digest(packages).iter().map(|byte| format!("{byte:02x}")).collect();
    let release = format!(
        "Origin: Debian\nLabel: Debian\nSuite: stable\nVersion: 12.0\nCodename: bookworm\nArchitectures: amd64\n\
         Components: main\nSHA256:\n {hash} {} {list}\n",
        packages.len()
    );
    let release = Page::new(release);
    let arch = Page::new("Archive: stable\nOrigin: Debian\nComponent: main\nArchitecture: amd64\n");
    Web::with([
        ("debian/dists/bookworm/Release", release.clone()),
        ("debian/dists/stable/Release", release),
        // By these choose-mirror sees which architectures there are.
        ("debian/dists/bookworm/main/binary-amd64/Release", arch.clone()),
        ("debian/dists/stable/main/binary-amd64/Release", arch),
        ("debian/dists/bookworm/main/debian-installer/binary-amd64/Packages", Page::new(packages)),
    ])
    .await
}

/// Runs the installer, with more settings of the seed.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
async fn run(settings: &str) -> Option<(LocalSite, String)> {
    if std::env::var_os("FORGE_LAB").is_none() || !Path::new(NETBOOT).is_dir() {
        eprintln!("skipped: it needs a real guest and {NETBOOT}; `cargo lab test` runs it");
        return None;
    }
    let mirror = mirror().await;
    let url = mirror.url("debian").replace("127.0.0.1", "10.0.2.2");
    let site = LocalSite::new();
    let profile = PROFILE
        .replace("NETBOOT", NETBOOT)
        .replace("MIRROR", &url)
        .replace("STATIC", settings)
        .replace("END", END);
    site.write("netboot.toml", &profile);
    let command = site.command(&["build", "netboot.toml"]);
    let said = tokio::process::Command::from(command).output().await.expect("forge can be run");
    let said = crate::support::local_site::Said::from(said);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("the installer has come to the end of this mirror"), "{}", said.text);
    let asked: Vec<String> = mirror.gets().into_iter().map(|call| call.uri).collect();
    for file in ["Release", "main/debian-installer/binary-amd64/Packages"] {
        assert!(asked.iter().any(|path| path.ends_with(file)), "{file}: {asked:?}");
    }
    site.assert_nothing_left();
    Some((site, said.text))
}

/// Every text that the screen has shown.
fn screens(site: &LocalSite) -> Vec<String> {
    let evidence = std::fs::read_dir(site.path().join("output/netboot")).expect("evidence");
    let indices = evidence.flatten().map(|entry| entry.path().join("recording/frames.jsonl"));
    let lines: Vec<String> = indices
        .filter_map(|index| std::fs::read_to_string(index).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let text = |line: &String| {
        let shot: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let rows =
            shot["text"].as_array()?.iter().map(|row| row.as_str().unwrap_or_default()).collect::<Vec<_>>();
        Some(rows.join("\n"))
    };
    lines.iter().filter_map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debian_installer_follows_the_preseed_to_the_mirror_and_asks_nothing() {
    let Some((site, _said)) = run("").await else { return };
    let screens = screens(&site);
    assert!(screens.iter().any(|text| text.contains(END)), "{screens:?}");
    for text in screens.iter().filter(|text| !text.contains(END)) {
        // newt's buttons stand in angle brackets: a screen that has one asks.
        assert!(!text.contains("<Go Back>") && !text.contains("<Continue>"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debian_installer_takes_a_static_address_from_its_command_line() {
    let settings = "address = \"10.0.2.77/24\"\ngateway = \"10.0.2.2\"\nnameservers = [\"10.0.2.3\"]";
    let Some((site, _said)) = run(settings).await else { return };
    let shown = screens(&site).join("\n");
    assert!(!shown.contains("DHCP"), "the network is not asked for an address: {shown}");
}

/// `cargo lab soak install-debian`: from the machine's own mirror, to the end.
#[test]
#[ignore = "it installs a whole Debian over the network"]
fn soak_install_debian() -> anyhow::Result<()> {
    let site = LocalSite::new();
    let profile = PROFILE
        .replace("NETBOOT", NETBOOT)
        .replace("MIRROR", forge_lab::images::mirror()?.trim_end_matches('/'))
        .replace("debian-installer/allow_unauthenticated=true ", "")
        .replace("STATIC", "");
    // The installer marks what it asks by exclamation marks.
    let asks = r#"{ regex = '\[!!?\]', fail = "the installer asks" }, { text = "login:" }"#;
    let steps = profile.find("[boot]").expect("it has steps");
    let steps_of_it =
        format!("[boot]\nsteps = [{{ expect = [{asks}], within = \"4h\" }}]\n[deadlines]\nboot = \"60m\"\n");
    site.write("netboot.toml", &format!("{}{steps_of_it}", &profile[..steps]));
    let said = site.run(&["build", "netboot.toml"]);
    eprintln!("{}", said.text);
    if let Some(last) = screens(&site).last() {
        eprintln!("the screen at the end:\n{last}");
    }
    assert_eq!(said.code, Some(0), "the system was installed, logged in to and sealed");
    Ok(())
}
