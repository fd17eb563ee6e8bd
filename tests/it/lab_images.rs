//! Builds of the tiny guest on the lab that begin with a disk image: sent, downloaded by the node, or on the target.

use std::path::PathBuf;

use forge_lab::{LEAST_PRIVILEGES_PVE9, LabConfig, PveVersion, StorageConfig, images};
use sha2::{Digest as _, Sha256};

use crate::support::lab_site::{BOOT_VM, FIRST_ID, LabSite, PROFILE, TOKEN};
use crate::support::web::{Page, Web};

/// The tiny guest's disk.
async fn disk() -> anyhow::Result<PathBuf> {
    let cache = images::default_cache_root();
    Ok(tokio::task::spawn_blocking(move || images::tiny(&cache)).await??.disk)
}

/// Writes the profile whose source is an image.
fn profile(site: &LabSite, image: &str) {
    let source = format!("image = {image}\n\n[vm]\nmemory = \"512MiB\"");
    site.write("tiny.toml", &PROFILE.replace("clone = \"boot-vm\"", &source));
}

/// Lets the token put images on storages, and more.
fn allow(site: &LabSite, more: &[&str]) {
    let privileges = [LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate"], more].concat();
    site.lab.set_token_access(TOKEN, &[("/", &privileges)]);
}

/// How often a route was called.
fn calls(site: &LabSite, end: &str) -> usize {
    site.lab.requests().iter().filter(|call| call.method == "POST" && call.path.ends_with(end)).count()
}

/// Builds, and boots a clone of what was built.
async fn builds_and_boots(site: &LabSite) {
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.assert_boots_as_a_clone(FIRST_ID).await;
}

/// A cluster as before Proxmox VE 8.4: no storage takes disk images as such.
async fn without_imports() -> anyhow::Result<Option<LabSite>> {
    let config = LabConfig {
        version: PveVersion::V8,
        storages: vec![StorageConfig::of("local", &["images", "iso"])],
        ..LabConfig::default()
    };
    let tiny = |cache: &std::path::Path| images::tiny(cache).map(|image| image.disk);
    let Some(site) = LabSite::with_guest_in(config, false, tiny).await? else { return Ok(None) };
    let of_8 = |name: &&'static str| if *name == "VM.GuestAgent.Audit" { "VM.Monitor" } else { *name };
    let privileges: Vec<&str> = LEAST_PRIVILEGES_PVE9.iter().map(of_8).collect();
    site.lab.set_token_access(TOKEN, &[("/", &privileges)]);
    Ok(Some(site))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guests_disk_image_becomes_a_template_that_boots_as_a_clone() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    allow(&site, &[]);
    profile(&site, &format!("{{ file = \"{}\" }}", disk().await?.display()));
    builds_and_boots(&site).await;
    assert_eq!((calls(&site, "/upload"), calls(&site, "/download-url")), (1, 0));
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guests_image_that_the_node_downloads_becomes_a_template_that_boots_as_a_clone()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    allow(&site, &["Sys.AccessNetwork"]);
    let bytes = tokio::fs::read(disk().await?).await?;
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let web = Web::with([("tiny.qcow2", Page::new(bytes))]).await;
    profile(&site, &format!("{{ url = \"{}\", checksum = \"sha256:{sum}\" }}", web.url("tiny.qcow2")));
    builds_and_boots(&site).await;
    assert_eq!(calls(&site, "/upload"), 0, "nothing came by way of this machine");
    assert_eq!(web.gets().len(), 1, "{:?}", web.gets());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guests_disk_on_an_older_release_is_imported_and_becomes_a_template_that_boots_as_a_clone()
-> anyhow::Result<()> {
    let Some(site) = without_imports().await? else { return Ok(()) };
    let disk = site.lab.vm(BOOT_VM).expect("it is there").config["scsi0"].clone();
    profile(&site, &format!("\"{}\"", disk.split(',').next().expect("a volume")));
    builds_and_boots(&site).await;
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guests_image_is_imported_by_its_path_on_an_older_release_by_root() -> anyhow::Result<()> {
    let Some(site) = without_imports().await? else { return Ok(()) };
    profile(&site, &format!("{{ file = \"{}\" }}", disk().await?.display()));
    // A token may not: the plan says what may.
    let refused = site.run(&["plan", "tiny.toml"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("`user = \"root@pam\"`"), "{}", refused.stderr);

    site.lab.set_password("root@pam", &site.secret);
    let toml = site.forge_toml().replace(&format!("token-id = \"{TOKEN}\""), "user = \"root@pam\"");
    site.write("forge.toml", &toml.replace("token-secret = ", "password = "));
    builds_and_boots(&site).await;
    assert_eq!(calls(&site, "/upload"), 1);
    site.close().await;
    Ok(())
}
