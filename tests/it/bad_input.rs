//! What bad input gets: every finding in one run, with file and line, what to do, and no effect on the target.

use forge_lab::LEAST_PRIVILEGES_PVE9;

use crate::support::lab_site::{Done, LabSite, PROFILE, TOKEN};

/// Asserts that forge only looked, and masks what differs from run to run.
fn refused(site: &LabSite, done: &Done, code: i32) -> String {
    assert_eq!(done.code, Some(code), "{}", done.stderr);
    assert_eq!(done.stdout, "", "findings are talk, not data");
    let changing: Vec<_> =
        site.lab.requests().into_iter().filter(|request| request.method != "GET").collect();
    assert!(changing.is_empty(), "{changing:?}");
    assert!(!site.path().join("output").exists(), "no evidence of a build that never began");
    site.assert_nothing_left();
    assert!(!done.stderr.contains(&site.secret), "the token's secret is masked");
    let fingerprint = site.lab.fingerprint();
    done.stderr
        .replace(&site.lab.address().to_string(), "127.0.0.1:PORT")
        .replace(fingerprint, "FINGERPRINT")
        .replace(&fingerprint.replace(':', "").to_lowercase(), "FINGERPRINT")
        .replace(&site.path().display().to_string(), "FOLDER")
}

async fn build(site: &LabSite) -> Done {
    site.run(&["build", "tiny.toml"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_with_several_typos_is_told_all_of_them_at_once() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write(
        "tiny.toml",
        r#"schema = 1
name = "Tiny Box"
extend = "base-linux.toml"

[template]
name = "tpl_{{ dat }}"

[source]
clon = "boot-vm"

[vm]
cores = "two"
memory = "1 gig"

[boot]
steps = [{ keys = "<entr>" }, { wait-for = "login", witin = "5s" }]

[[provision]]
name = "x"
shel = ["true"]
timeout = "soon"

[seal]
logz = false
"#,
    );
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_file_with_typos_is_told_all_of_them_at_once_with_those_of_the_profile() -> anyhow::Result<()>
{
    let site = LabSite::in_name_only().await?;
    site.write(
        "forge.toml",
        r#"default-target = "labb"

[targets.lab]
type = "proxmox"
url = "http://127.0.0.1:8006"
token-id = "forge@pve"
token-secret = "0d5ee4a4-0000-4000-8000-000000000000"
tls = { fingerprint = "AB:CD" }
node = ["pve"]
storage = { disk = "local" }
vmids = "9099-9001"
seed = { bind = "localhost", ports = "88000" }
"#,
    );
    site.write("tiny.toml", &PROFILE.replace("clone =", "cloen ="));
    let done = build(&site).await;
    assert!(!done.stderr.contains("0d5ee4a4"), "a secret in the wrong place is not repeated");
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_does_not_have_is_told_with_what_it_has() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write(
        "forge.toml",
        &site
            .forge_toml()
            .replace("disks = \"local\"", "disks = \"ceph\"")
            .replace("bridge = \"vmbr0\"", "bridge = \"vmbr7\""),
    );
    site.write(
        "tiny.toml",
        &PROFILE.replace("[deadlines]", "[vm]\nnetworks = [{ model = \"virtio\" }]\ncloud-init = { slot = \"ide2\", storage = \"zfs\" }\ndisks = [{ slot = \"scsi1\", size = \"4GiB\" }]\n\n[deadlines]"),
    );
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_clone_source_is_told_with_its_line() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("tiny.toml", &PROFILE.replace("clone = \"boot-vm\"", "clone = \"boot-wm\""));
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_certificate_is_refused_and_both_fingerprints_are_told() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let other = vec!["AB"; 32].join(":");
    site.write("forge.toml", &site.forge_toml().replace(site.lab.fingerprint(), &other));
    let done = build(&site).await;
    assert!(site.lab.requests().is_empty(), "the token is not shown to a stranger");
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_root_vouches_for_is_refused_with_its_fingerprint() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let unpinned = site
        .forge_toml()
        .lines()
        .filter(|line| !line.starts_with("tls"))
        .fold(String::new(), |text, line| text + line + "\n");
    site.write("forge.toml", &unpinned);
    let done = build(&site).await;
    assert!(site.lab.requests().is_empty(), "the token is not shown to a stranger");
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_is_named() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    // Bound and let go: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    site.write("forge.toml", &site.forge_toml().replace(&site.lab.address().to_string(), &nobody));
    let told = refused(&site, &build(&site).await, 3).replace(&nobody, "127.0.0.1:NOBODY");
    insta::assert_snapshot!(told, @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_an_address_is_named() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("forge.toml", &site.forge_toml().replace(&site.lab.url(), "https://pve.invalid:8006"));
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_of_the_token_is_told_without_repeating_it() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let wrong = "11111111-2222-4333-8444-555555555555";
    let done = site.start_with_secret(&["build", "tiny.toml"], Some(wrong)).ended().await;
    assert!(!done.stderr.contains(wrong));
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    let done = site.start_with_secret(&["build", "tiny.toml"], None).ended().await;
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_privilege_is_named_with_its_path() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let without = |left_out: &[&str]| -> Vec<&'static str> {
        LEAST_PRIVILEGES_PVE9.iter().copied().filter(|privilege| !left_out.contains(privilege)).collect()
    };
    site.lab.set_token_access(TOKEN, &[("/", &without(&["VM.Config.HWType"]))]);
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.lab.set_token_access(TOKEN, &[("/", &without(&["VM.Clone", "Datastore.AllocateSpace", "SDN.Use"]))]);
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.lab.set_token_access(TOKEN, &[]);
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_without_a_value_is_told_with_how_to_give_it_one() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write(
        "tiny.toml",
        &format!("{}\n[variables.domain]\ntype = \"string\"\ndescription = \"the DNS domain\"\n\n[variables.size]\ntype = \"integer\"\n", PROFILE.replace("tpl-tiny", "tpl-{{ var.domain }}-{{ var.site }}")),
    );
    let done = site.run(&["build", "tiny.toml", "--var", "size=big", "--var", "domian=x"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_does_not_exist_is_told_and_so_is_wrong_usage() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let done = site.run(&["build", "tinny.toml"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    let done = site.run(&["build", "tiny.toml", "--config", "forg.toml"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    let done = site.run(&["build", "tiny.toml", "--target", "lba"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    let done = site.run(&["build"]).await;
    insta::assert_snapshot!(refused(&site, &done, 2), @"");
    let done = site.run(&["build", "tiny.toml", "--var", "novalue"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @"");
    site.close().await;
    Ok(())
}
