//! The user fields of the finished template's cloud-init drive, its password among them, by the real program.

use std::path::Path;

use forge_lab::Fault;

use crate::support::lab_site::{Done, FIRST_ID, LabSite, PROFILE};

const PASSWORD: &str = "open-Sesame/7 it's";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeKeyOfNobodyForTestingOnlyAAAAAAAAAAAAAA ops@site";

/// A profile whose template has every user field, the password by a variable.
fn profile() -> String {
    let fields = format!(
        r#"[variables.password]
type = "string"
secret = true

[vm.cloud-init]
slot = "ide2"
ciuser = "ops"
cipassword = "{{{{ var.password }}}}"
sshkeys = ["{KEY}"]
ipconfig = ["ip=192.0.2.5/24,gw=192.0.2.1", {{ ip6 = "auto" }}]
nameserver = ["192.0.2.53", "192.0.2.54"]
searchdomain = "site.example"
cicustom = {{ vendor = "local:snippets/vendor.yaml" }}
ciupgrade = false
citype = "nocloud"

[deadlines]"#
    );
    PROFILE.replace("[deadlines]", &fields)
}

/// Asserts that no file below a folder holds the password.
fn assert_hidden(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
        if entry.path().is_dir() {
            assert_hidden(&entry.path());
        } else {
            let bytes = std::fs::read(entry.path()).expect("it is there");
            assert!(!String::from_utf8_lossy(&bytes).contains("Sesame"), "{}", entry.path().display());
        }
    }
}

fn assert_shown_nowhere(site: &LabSite, runs: &[&Done]) {
    for done in runs {
        assert!(!done.stdout.contains("Sesame") && !done.stderr.contains("Sesame"), "{done:?}");
    }
    for folder in ["output", "state"] {
        assert_hidden(&site.path().join(folder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guests_template_has_every_user_field_of_the_profile_and_its_password_is_shown_nowhere()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    site.write("tiny.toml", &profile());
    let password = format!("password={PASSWORD}");
    let planned = site.run(&["plan", "tiny.toml", "--json", "--var", &password]).await;
    assert_eq!(planned.code, Some(0), "{}{}", planned.stdout, planned.stderr);
    assert!(planned.stdout.contains(r#""cipassword": "***""#), "{}", planned.stdout);
    let done = site.run(&["build", "tiny.toml", "--var", &password]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    let config = site.lab.vm(FIRST_ID).expect("it is there").config;
    let keys = forge_proxmox::api::encode::escape(KEY);
    for (key, value) in [
        ("ciuser", "ops"),
        ("cipassword", PASSWORD),
        ("sshkeys", keys.as_str()),
        ("ipconfig0", "ip=192.0.2.5/24,gw=192.0.2.1"),
        ("ipconfig1", "ip6=auto"),
        ("nameserver", "192.0.2.53 192.0.2.54"),
        ("searchdomain", "site.example"),
        ("cicustom", "vendor=local:snippets/vendor.yaml"),
        ("ciupgrade", "0"),
        ("citype", "nocloud"),
    ] {
        assert_eq!(config.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(config["ide2"].contains("cloudinit"), "{config:?}");
    assert_shown_nowhere(&site, &[&planned, &done]);
    site.close().await;
    Ok(())
}

/// The plan that a kept build is finished by was read from its evidence, which has stars in the password's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_build_of_a_tiny_guest_gives_its_template_the_password_and_not_the_stars_of_its_plan()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    site.write("tiny.toml", &profile());
    let password = format!("password={PASSWORD}");
    let refused = Fault::Refuse { status: 500, reason: "got no worker upid - start worker failed".into() };
    site.lab.faults().on("POST", "/nodes/*/qemu/*/template").then(refused);
    let kept = site.run(&["build", "tiny.toml", "--var", &password]).await;
    assert_eq!(kept.code, Some(1), "{}", kept.stderr);
    let id = FIRST_ID.to_string();
    let without = site.run(&["finish", &id]).await;
    assert_eq!(without.code, Some(3), "{}", without.stderr);
    assert!(without.stderr.contains("password"), "{}", without.stderr);
    let done = site.run(&["finish", &id, "--var", &password]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    let config = site.lab.vm(FIRST_ID).expect("it is there").config;
    assert_eq!(config.get("cipassword").map(String::as_str), Some(PASSWORD));
    assert_shown_nowhere(&site, &[&kept, &without, &done]);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn debian_with_a_cloud_init_drive_gets_the_seed_s_host_key_another_way_and_a_tiny_guest_that_ignores_it_is_given_up()
-> anyhow::Result<()> {
    let given = PROFILE.replace("[deadlines]", "[access]\nhost-key = \"seed\"\n\n[deadlines]");
    let not_the_drive = "not cloud-init-drive: the drive has no place for a host key";
    let Some(site) = LabSite::with_debian(true).await? else { return Ok(()) };
    site.write("tiny.toml", &given);
    let planned = site.run(&["plan", "tiny.toml"]).await;
    assert!(planned.stdout.contains(not_the_drive), "{}{}", planned.stdout, planned.stderr);
    // Whoever is logged in to has shown that very key.
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("delivered by smbios"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;

    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    site.write("tiny.toml", &given);
    let began = std::time::Instant::now();
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    assert!(began.elapsed() < std::time::Duration::from_secs(600), "{:?}", began.elapsed());
    for words in ["did not take the seed's host key: for 6", "SHA256:", "leave `access.host-key` out"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
