//! `forge doctor` before the first build: what is wrong with a site is named, each with what to do.

use forge_lab::{Fault, Gate, ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig, PveVersion, StorageConfig};
use serde_json::Value;

use crate::support::fresh::Fresh;
use crate::support::lab_site::{Done, FIRST_ID, LabSite, PROFILE, TOKEN, reached};

/// The checks of a run with `--json`: name, health, what was found, what to do.
fn checks(done: &Done) -> Vec<[String; 4]> {
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", done.stdout, done.stderr);
    });
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let list = report["checks"].as_array().expect("a list");
    let checks: Vec<[String; 4]> =
        list.iter().map(|each| ["check", "health", "found", "help"].map(|key| text(each, key))).collect();
    // What is not right is told with what to do about it, whatever it is.
    for [check, health, found, help] in &checks {
        assert!(!found.is_empty() && (health == "pass" || !help.is_empty()), "{check}: {found}: {help}");
    }
    checks
}

/// The checks of that health.
fn of(checks: &[[String; 4]], health: &str) -> Vec<[String; 4]> {
    checks.iter().filter(|check| check[1] == health).cloned().collect()
}

async fn site_of(version: PveVersion) -> anyhow::Result<(LabSite, Vec<&'static str>)> {
    let config = LabConfig { version, run_guests: false, ..LabConfig::default() };
    let site = LabSite::with(config, ImportVm::default()).await?;
    let least: Vec<&str> = LEAST_PRIVILEGES_PVE9
        .iter()
        .map(|each| match (version, *each) {
            (PveVersion::V8, "VM.GuestAgent.Audit") => "VM.Monitor",
            (_, other) => other,
        })
        .chain(["Sys.Audit"])
        .collect();
    site.lab.set_token_access(TOKEN, &[("/", &least)]);
    Ok((site, least))
}

/// Each privilege of the role that init has made, taken away by itself, is named with the command that grants it.
async fn names_each_privilege(version: PveVersion) -> anyhow::Result<()> {
    let fresh = Fresh::new(version).await?;
    let done = fresh.init(&["--storage-archives", "local"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let proof: Value = serde_json::from_str(&fresh.read("output/init/latest/proof.json"))?;
    let list = |key: &str| -> Vec<String> {
        let all = proof[key].as_array().into_iter().flatten();
        all.filter_map(|each| each.as_str().map(str::to_owned)).collect()
    };
    let (privileges, paths) = (list("privileges"), list("paths"));
    let least = LEAST_PRIVILEGES_PVE9.len();
    assert!(privileges.len() >= least + 2, "what was measured, media and archives: {privileges:?}");
    assert!(privileges.iter().any(|each| each == "VM.Backup"), "{privileges:?}");
    let give = |held: &[&str]| {
        let access: Vec<(&str, &[&str])> = paths.iter().map(|path| (path.as_str(), held)).collect();
        fresh.lab.set_token_access(TOKEN, &access);
    };
    let all: Vec<&str> = privileges.iter().map(String::as_str).collect();
    give(&all);
    std::fs::write(fresh.path("tiny.toml"), PROFILE)?;
    let done = fresh.forge(&["doctor", "tiny.toml", "--json"], &[]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let sound = checks(&done);
    assert_eq!(of(&sound, "fail"), [[""; 4]; 0]);
    let has =
        |name: &str, words: &str| sound.iter().any(|check| check[0] == name && check[2].contains(words));
    assert!(
        has("profile tiny", "boot-vm") && has("archives on /storage/local", "may be archived"),
        "{sound:?}"
    );
    for lacking in &all {
        let rest: Vec<&str> = all.iter().copied().filter(|each| each != lacking).collect();
        give(&rest);
        let done = fresh.forge(&["doctor", "--json"], &[]).await;
        let found = checks(&done);
        let named = found.iter().find(|check| check[2].contains(&format!("lacks {lacking} on /")));
        let named = named.unwrap_or_else(|| panic!("{version:?}: {lacking} is not named: {found:?}"));
        assert!(named[3].contains("pveum acl modify /") && named[3].contains(lacking), "{named:?}");
        // Clones need no media, archives are no build's affair, and what a storage shows is seen by who may write to it.
        let spared = ["Datastore.Audit", "Datastore.AllocateTemplate", "VM.Backup"].contains(lacking)
            || lacking.starts_with("Sys.");
        let (health, code) = if spared { ("warn", 0) } else { ("fail", 3) };
        assert_eq!((named[1].as_str(), done.code), (health, Some(code)), "{version:?} {lacking}: {found:?}");
    }
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_each_privilege_that_the_role_of_init_lacks_on_pve_9() -> anyhow::Result<()> {
    names_each_privilege(PveVersion::V9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_each_privilege_that_the_role_of_init_lacks_on_pve_8() -> anyhow::Result<()> {
    names_each_privilege(PveVersion::V8).await
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_else_is_wrong_with_a_site() -> anyhow::Result<()> {
    let (site, _least) = site_of(PveVersion::V9).await?;
    let sound = site.forge_toml();
    let fingerprint = site.lab.fingerprint().to_owned();
    let other = format!("{}{}", if fingerprint.starts_with("00") { "11" } else { "00" }, &fingerprint[2..]);
    let port = site.lab.url().rsplit(':').next().unwrap_or_default().to_owned();
    for (from, to, check, words) in [
        (r#"bridge = "vmbr0""#, r#"bridge = "vmbr9""#, "bridge vmbr9", "there is no bridge `vmbr9`"),
        (r#"disks = "local""#, r#"disks = "locla""#, "storage locla", "no storage `locla`"),
        (r#"nodes = ["pve"]"#, r#"nodes = ["pve7"]"#, "nodes", "there is no node `pve7`"),
        ("9001-9099", "9000-9000", "VMIDs", "0 of the 1"),
        (fingerprint.as_str(), other.as_str(), "certificate", "not trusted"),
        ("127.0.0.1:", "nowhere.invalid:", "name", "can't be resolved"),
        (port.as_str(), "1", "connection", "can't be reached"),
        (r#"bind = "127.0.0.1""#, r#"bind = "203.0.113.7""#, "seed server", "203.0.113.7"),
    ] {
        let broken = sound.replace(from, to);
        assert_ne!(broken, sound, "{from}");
        site.write("forge.toml", &broken);
        let done = site.run(&["doctor", "--json"]).await;
        assert_eq!(done.code, Some(3), "{to}: {}{}", done.stdout, done.stderr);
        let failed = of(&checks(&done), "fail");
        let named = failed.iter().find(|each| each[0].starts_with(check) && each[2].contains(words));
        assert!(named.is_some_and(|each| !each[3].is_empty()), "{to}: {failed:?}");
    }
    site.write("forge.toml", &sound);
    let done = site
        .start_with_secret(&["doctor", "--json"], Some("00000000-0000-0000-0000-000000000000"))
        .ended()
        .await;
    let failed = of(&checks(&done), "fail");
    assert!(failed.iter().any(|each| each[0] == "login"), "{failed:?}");
    assert!(!done.stdout.contains("00000000-0000"), "the secret is told: {}", done.stdout);

    // A profile whose medium is not on the storage.
    site.write("media.toml", &PROFILE.replace("[source]\n", "[source]\niso = \"local:iso/gone.iso\"\n"));
    let done = site.run(&["doctor", "media.toml", "--json"]).await;
    let failed = of(&checks(&done), "fail");
    assert!(
        failed.iter().any(|each| each[0].starts_with("profile ") && each[2].contains("local:iso/gone.iso")),
        "{failed:?}"
    );

    // A profile whose boot VM is not there, and a clock that is wrong.
    site.write("tiny.toml", &PROFILE.replace("boot-vm", "bootvm"));
    site.lab.set_clock_skew(-600);
    let done = site.run(&["doctor", "tiny.toml"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stdout);
    let line = |words: &str| done.stdout.lines().any(|line| line.contains(words));
    assert!(line("FAIL  profile tiny") && line("did you mean `boot-vm`?"), "{}", done.stdout);
    assert!(line("behind this machine's"), "{}", done.stdout);
    assert_eq!(site.lab.vm(FIRST_ID), None, "a look changes nothing");
    let changed = site.lab.requests().iter().filter(|request| request.method != "GET").count();
    assert_eq!(changed, 0, "a look changes nothing");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_warns_of_a_storage_that_one_of_the_nodes_lacks_and_fails_where_all_do() -> anyhow::Result<()>
{
    let of_first = StorageConfig { nodes: Some(vec!["pve".into()]), ..StorageConfig::everything("fast") };
    let config = LabConfig {
        nodes: vec!["pve".into(), "pve2".into()],
        storages: vec![StorageConfig::everything("local"), of_first],
        run_guests: false,
        ..LabConfig::default()
    };
    let site = LabSite::with(config, ImportVm::default()).await?;
    let text = site.forge_toml().replace(r#"disks = "local""#, r#"disks = "fast""#);
    site.write("forge.toml", &text.replace(r#"nodes = ["pve"]"#, r#"nodes = ["pve", "pve2"]"#));
    let done = site.run(&["doctor", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let warned = of(&checks(&done), "warn");
    let named = warned.iter().find(|check| check[0] == "storage fast of pve2 for disks").expect("it is told");
    assert!(named[2].contains("pve2 has no storage `fast` that the token sees; pve does"), "{named:?}");
    site.write("forge.toml", &text.replace(r#"nodes = ["pve"]"#, r#"nodes = ["pve2"]"#));
    let done = site.run(&["doctor", "--json"]).await;
    assert_eq!(done.code, Some(3), "no node of the target has it: {}{}", done.stdout, done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_shows_by_a_throw_away_tiny_guest_that_guests_come_up_and_leaves_nothing() -> anyhow::Result<()>
{
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    // Its own user-data would run this, and its provisioner would fail.
    let profile = PROFILE.replace("echo hello from $(hostname)", "false")
        + "\n[seed.user-data]\nruncmd = [\"poweroff -f\"]\n";
    site.write("tiny.toml", &profile);
    let done = site.run(&["doctor", "--guest", "tiny.toml", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let found = checks(&done);
    let guest = found.iter().find(|check| check[0] == "guest of tiny").expect("it is told");
    assert_eq!(guest[1], "pass", "{guest:?}");
    for words in [
        "VM 9001 on pve fetched its seed (",
        "user-data",
        "let forge in as forge@127.77.",
        "its guest agent runs",
        "it is removed",
    ] {
        assert!(guest[2].contains(words), "`{words}` is not in {guest:?}");
    }
    site.assert_nothing_left();
    let evidence =
        std::fs::read_dir(site.path().join("output/doctor-tiny"))?.flatten().next().expect("it is kept");
    let seed = std::fs::read_to_string(evidence.path().join("seed/user-data"))?;
    assert!(seed.contains("ssh") && !seed.contains("runcmd"), "{seed}");

    // A seed server that guests do not reach is told with what was seen, and the VM goes all the same.
    site.write("forge.toml", &site.forge_toml().replace("10.0.2.2", "10.0.2.99"));
    site.write("tiny.toml", &PROFILE.replace("15m", "40s"));
    let done = site.run(&["doctor", "--guest", "tiny.toml", "--json"]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    let failed = of(&checks(&done), "fail");
    assert!(matches!(failed.as_slice(), [one] if one[0] == "guest of tiny"), "{failed:?}");
    assert!(failed[0][2].starts_with("connect: ") && failed[0][2].contains("no seed file"), "{failed:?}");
    assert!(failed[0][3].contains("can it reach 10.0.2.99"), "{failed:?}");
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throw_away_vm_of_a_doctor_that_is_killed_is_removed_by_gc() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let gate = Gate::new();
    let start = format!("/nodes/pve/qemu/{FIRST_ID}/status/start");
    site.lab.faults().on("POST", &start).then(Fault::Hold(gate.clone()));
    let mut doctor = site.start(&["doctor", "--guest", "tiny.toml"]);
    reached(&gate, &mut doctor).await;
    doctor.kill().await;
    site.lab.faults().clear();
    gate.release();
    assert_eq!(site.others().len(), 1, "it is left");
    let done = site.run(&["gc"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("VM 9001"), "{}", done.stdout);
    site.assert_nothing_left();
    let done = site.run(&["doctor", "--guest"]).await;
    assert_eq!(done.code, Some(2), "of which profile? {}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_the_programs_of_a_local_target() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let local = "[targets.local]\ntype = \"qemu\"\naccel = \"tcg\"\nbinary = \"qemu-that-is-not-there\"\n";
    site.write("forge.toml", local);
    let done = site.run(&["doctor", "--json"]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    let found = checks(&done);
    let failed = of(&found, "fail");
    assert!(
        failed[0][0] == "qemu-that-is-not-there" && failed[0][3].contains("qemu-system-x86"),
        "{failed:?}"
    );
    assert!(found.iter().any(|check| check[0] == "swtpm"), "{found:?}");
    site.close().await;
    Ok(())
}
