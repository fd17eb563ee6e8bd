//! `forge prestage` as a process: media by URL, into the cache of a local target.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use forge_lab::images;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::local_site::{LocalSite, checked};
use crate::support::web::{Page, Web};

/// A folder with a site file for the local QEMU; no QEMU is run.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("forge-prestage-").tempdir().expect("a folder");
        let desk = Self(folder);
        desk.write("forge.toml", "[targets.local]\ntype = \"qemu\"\n");
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    fn profile(&self, name: &str, source: &str) {
        self.write(&format!("{name}.toml"), &format!("schema = 1\nname = \"{name}\"\n[source]\n{source}\n"));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command
            .args(["--state-dir", "state", "--cache-dir", "cache"])
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        told(&self.command(arguments).output().await.expect("forge can be run"))
    }
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_prestage_the_same_media_share_one_download() {
    let content = b"an image, or so".repeat(20_000);
    let sums = format!("{}  disk.img\n{}  tools.iso\n", hex(&content), hex(b"tools"));
    let web = Web::with([
        ("disk.img", Page { gate: Some(100_000), ..Page::new(content.clone()) }),
        ("tools.iso", Page::new("tools")),
        ("SUMS", Page::new(sums)),
    ])
    .await;
    let desk = Desk::new();
    let sums = format!("checksum = \"file:{}\"", web.url("SUMS"));
    desk.profile(
        "one",
        &format!(
            "image = {{ urls = [\"{}\", \"{}\"], {sums} }}\niso = {{ url = \"{}\", {sums} }}",
            web.url("gone/disk.img"),
            web.url("disk.img"),
            web.url("tools.iso")
        ),
    );
    let start = || desk.command(&["prestage", "one.toml"]).spawn().expect("forge can be run");
    let (one, other) = (start(), start());
    // Both are here: one downloads, and waits at the gate.
    while !web.gets().iter().any(|call| call.uri == "/disk.img") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    web.open();
    let (one, other) = tokio::join!(one.wait_with_output(), other.wait_with_output());
    for (code, stdout, stderr) in [told(&one.expect("ended")), told(&other.expect("ended"))] {
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(stdout.starts_with("PROFILE  MEDIUM") && stdout.contains("tools.iso"), "{stdout}");
        assert!(stdout.contains(&format!("cache/media/sha256-{}", hex(&content))), "{stdout}");
    }
    let gets = |name: &str| web.gets().iter().filter(|call| call.uri == name).count();
    assert_eq!((gets("/disk.img"), gets("/tools.iso")), (1, 1));

    // Later it is there, for programs too.
    let (code, stdout, _) = desk.run(&["--json", "prestage", "one.toml"]).await;
    let objects: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let staged: Vec<_> = objects.iter().filter(|object| object["event"] == "prestaged").collect();
    assert_eq!((code, staged.len()), (Some(0), 2), "{stdout}");
    assert!(staged.iter().all(|object| object["how"] == "was there"), "{stdout}");
    assert_eq!((staged[0]["size"].as_u64(), gets("/disk.img")), (Some(content.len() as u64), 1));
    assert_eq!(staged[0]["checksum"], format!("sha256:{}", hex(&content)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_brought_is_told_and_what_can_is_brought() {
    let web = Web::with([("a.iso", Page::new("right")), ("SUMS", Page::new("<html>"))]).await;
    let desk = Desk::new();
    desk.profile(
        "good",
        &format!("iso = {{ url = \"{}\", checksum = \"{}\" }}", web.url("a.iso"), hex(b"right")),
    );
    let secret = web.url("a.iso").replace("http://", "http://me:geheim@");
    desk.profile("bad", &format!("iso = {{ url = \"{secret}\", checksum = \"{}\" }}", hex(b"wrong")));
    desk.profile("gone", &format!("iso = {{ url = \"{}\", checksum = \"none\" }}", web.url("b.iso")));
    desk.profile(
        "sums",
        &format!("iso = {{ url = \"{}\", checksum = \"file:{}\" }}", web.url("a.iso"), web.url("SUMS")),
    );
    desk.profile("mine", "image = \"mine.img\"");
    let (code, stdout, stderr) = desk.run(&["prestage", "bad.toml", "gone.toml", "good.toml"]).await;
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(
        stdout.contains("good") && stdout.contains("downloaded") && !stdout.contains("\nbad "),
        "{stdout}"
    );
    assert!(stderr.contains(&hex(b"right")) && stderr.contains(&hex(b"wrong")), "{stderr}");
    assert!(stderr.contains("error: gone: ") && stderr.contains("404 Not Found"), "{stderr}");
    assert!(!format!("{stdout}{stderr}").contains("geheim"), "{stderr}");
    // A file of sums without it is a fault of the profile: told with its line, and nothing is brought.
    let (code, _, stderr) = desk.run(&["prestage", "sums.toml", "good.toml"]).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("sums.toml:4:1: ") && stderr.contains("has no checksum of a.iso"), "{stderr}");
    // A file of this machine that is not there.
    let (code, _, stderr) = desk.run(&["prestage", "mine.toml"]).await;
    assert!(code == Some(1) && stderr.contains("mine.img can't be read"), "{code:?} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_is_used() {
    let proxy = Web::with([("a.iso", Page::new("by proxy"))]).await;
    let desk = Desk::new();
    desk.profile(
        "far",
        &format!("iso = {{ url = \"http://far.invalid/a.iso\", checksum = \"{}\" }}", hex(b"by proxy")),
    );
    let mut command = desk.command(&["prestage", "far.toml"]);
    command.env("http_proxy", proxy.url(""));
    let (code, stdout, stderr) = told(&command.output().await.expect("forge can be run"));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(proxy.gets()[0].uri, "http://far.invalid/a.iso");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_built_from_an_image_that_is_downloaded() -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(());
    }
    let image = tokio::task::spawn_blocking(|| images::tiny(&images::default_cache_root())).await??.disk;
    let content = std::fs::read(image)?;
    let third = content.len() / 3;
    // The connection breaks once on the way.
    let page = Page { breaks: [third].into(), ..Page::new(content.clone()) };
    let web =
        Web::with([("tiny.img", page), ("SUMS", Page::new(format!("{}  tiny.img", hex(&content))))]).await;
    let site = LocalSite::new();
    let profile = format!(
        "schema = 1\nname = \"far\"\n[source]\nimage = {{ url = \"{}\", checksum = \"file:{}\" }}\n\
         [deadlines]\nconnect = \"15m\"\n[[provision]]\nname = \"look\"\nshell = [\"echo built by $(whoami)\"]\n",
        web.url("tiny.img"),
        web.url("SUMS")
    );
    site.write("far.toml", &profile);
    let (site, web) = tokio::task::spawn_blocking(move || {
        let size = forge::media::size(content.len() as u64);
        let plan = site.succeeds(&["--cache-dir", "cache", "plan", "far.toml"]);
        assert!(plan.contains(&format!("to be fetched: {} ({size})", web.url("tiny.img"))), "{plan}");
        assert!(plan.contains(&format!("(sha256:{})", hex(&content))), "{plan}");
        let said = site.succeeds(&["--cache-dir", "cache", "build", "far.toml"]);
        assert!(said.contains("built by forge") && said.contains("going on at"), "{said}");
        let plan = site.succeeds(&["--cache-dir", "cache", "plan", "far.toml"]);
        assert!(plan.contains(&format!("in the cache: {} ({size})", web.url("tiny.img"))), "{plan}");
        (site, web)
    })
    .await?;
    assert_eq!(web.ranges().iter().flatten().count(), 1, "{:?}", web.ranges());
    checked(&site.image("tpl-far.qcow2"), "qcow2");
    site.assert_nothing_left();
    Ok(())
}
