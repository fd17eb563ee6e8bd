//! Sealing real guests on the lab: what no failure may spoil.

use std::sync::Arc;

use forge::engine::effect::{Effect, When};
use forge::stages::connect::SshConnector;
use forge_proxmox::ProxmoxHypervisor;

use crate::lab_matrix::{config_of, plan_for};
use crate::support::fake_build::Blow;
use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE};
use crate::support::workbench::Workbench;

/// In the moment between the end of the seal and its record nobody can log in to the guest any more, and nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_was_sealed_when_forge_died_is_sealed_again_and_becomes_the_template()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let mut plan = plan_for(FIRST_ID + 98);
    plan.seed.address = Some("10.0.2.2".into());
    plan.seal = forge::seal::enabled(&[].into(), false);
    let config = config_of(&site.lab.url(), site.lab.fingerprint(), &site.secret);
    let open = move || -> Arc<dyn forge_machine::Hypervisor> {
        Arc::new(ProxmoxHypervisor::connect(config.clone()).expect("its settings are sound"))
    };
    let mut bench = Workbench::new(plan, Box::new(open));
    bench.connector = Arc::new(SshConnector::default());

    let ending = bench.build_with(Some((Effect::Seal, When::After, Blow::Die))).await;
    assert_eq!(ending, None, "it died");
    let [vm] = site.others().try_into().expect("one VM");
    assert!(vm.running && !vm.template, "{vm:?}");
    // Without gc before: the guest still runs, and has no user.
    let ending = bench.finish().await;
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    let [vm] = site.others().try_into().expect("one VM");
    assert!(vm.template && !vm.running, "{vm:?}");
    let smbios = vm.config.get("smbios1").map(String::as_str).unwrap_or_default();
    assert!(!smbios.contains("serial="), "the seed's address is still there: {smbios}");
    assert_eq!(bench.journal_files(), [""; 0]);
    site.close().await;
    Ok(())
}

/// A secret that no other file has.
const WORD: &str = "a-secret-that-stands-nowhere-else-4711";

fn with_secret(step: &str) -> String {
    format!(
        "{PROFILE}\n[variables.token]\ntype = \"string\"\nsecret = true\n\n[[provision]]\nname = \"leave it\"\nbecome = true\n\
         env = {{ TOKEN = \"{{{{ var.token }}}}\" }}\nshell = [{step}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_provisioner_leaves_in_a_tiny_guest_fails_the_build_and_is_named_and_not_shown()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let leave = r#""mkdir -p /opt", "printf 'user:%s' \"$TOKEN\" | base64 >/opt/token""#;
    site.write("tiny.toml", &with_secret(leave));
    let word = format!("token={WORD}");
    let done = site.run(&["build", "tiny.toml", "--var", &word]).await;
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    for words in ["error in stage seal", "/opt/token holds a secret of the build", "`leak-gate = false`"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    let mut texts = vec![done.stdout, done.stderr];
    for folder in ["output", "state"] {
        texts.extend(texts_below(&site.path().join(folder))?);
    }
    assert!(texts.iter().all(|text| !text.contains(WORD)), "the secret is shown or kept");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_written_and_removed_in_a_tiny_guest_is_not_on_the_disk_of_its_template()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    // The provisioner itself brings it to no disk.
    let leave = r#""printf '%s\n' \"$TOKEN\" >/root/there", "sync", "rm /root/there", "sync""#;
    site.write("tiny.toml", &with_secret(leave));
    let word = format!("token={WORD}");
    let done = site.run(&["build", "tiny.toml", "--var", &word]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    assert!(done.stderr.contains("overwritten: there was something of the build in it"), "{}", done.stderr);
    assert_not_on_its_disks(&site).await?;
    site.close().await;
    Ok(())
}

/// Asserts that the secret is nowhere on the template's disks.
async fn assert_not_on_its_disks(site: &LabSite) -> anyhow::Result<()> {
    let own = format!("/{FIRST_ID}/");
    let disks: Vec<_> =
        site.lab.image_files().into_iter().filter(|file| file.to_string_lossy().contains(&own)).collect();
    assert!(!disks.is_empty(), "{:?}", site.lab.image_files());
    for disk in disks {
        let raw = site.path().join("disk.raw");
        let mut convert = tokio::process::Command::new("qemu-img");
        convert.args(["convert", "-O", "raw"]).arg(&disk).arg(&raw);
        assert!(convert.status().await?.success());
        let bytes = std::fs::read(&raw)?;
        assert!(!bytes.windows(WORD.len()).any(|each| each == WORD.as_bytes()), "{}", disk.display());
    }
    Ok(())
}

/// The arguments of the first command of forge's own that a message names and that begins so, as a shell takes them.
fn advised(text: &str, begins: &str) -> Vec<String> {
    let command = text.split('`').find(|part| part.starts_with(begins)).unwrap_or_else(|| panic!("{text}"));
    let words = format!("printf '%s\\n' {}", command.trim_start_matches("forge "));
    let said = std::process::Command::new("sh").args(["-c", &words]).output().expect("there is a shell");
    String::from_utf8(said.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// What the leak gate found is removed by what its message says, and the build becomes the template it was to be.
async fn mended_by_its_advice(site: LabSite, leave: &str, found: &str) -> anyhow::Result<()> {
    site.write("tiny.toml", &with_secret(leave));
    let word = format!("token={WORD}");
    let failed = site.run(&["build", "tiny.toml", "--var", &word]).await;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains(found), "{}", failed.stderr);
    // Without anything done it fails as before.
    let again = site.run(&["finish", "9001", "--var", &word]).await;
    assert!(again.code == Some(1) && again.stderr.contains(found), "{:?} {}", again.code, again.stderr);
    let advised = advised(&again.stderr, "forge finish 9001 --run ");
    let arguments: Vec<&str> = advised.iter().map(String::as_str).collect();
    let more = ["--breakpoint", "--var", &word];
    let done = site.run(&[&arguments[..], &more].concat()).await;
    assert_eq!(done.code, Some(0), "{advised:?}: {}{}", done.stdout, done.stderr);
    for words in ["provision: 1 of 2: finish: rm ", "to get in: ssh -i ", "nobody is at a terminal"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    for text in [&again.stderr, &done.stderr] {
        assert!(!text.contains("another host key"), "{text}");
    }
    site.assert_template_only(FIRST_ID);
    assert_not_on_its_disks(&site).await?;
    site.close().await;
    Ok(())
}

/// `cargo lab soak leak`; what differs from a tiny guest is that the build's user has to become root.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "five minutes of Debian: cargo lab soak leak"]
async fn soak_a_secret_in_a_debian_guest_is_removed_by_finish_as_the_leak_gate_advises() -> anyhow::Result<()>
{
    let Some(site) = LabSite::with_debian(false).await? else { return Ok(()) };
    let leave = r#""mkdir -p /opt", "echo $TOKEN >'/opt/a token'""#;
    mended_by_its_advice(site, leave, "/opt/a token holds a secret of the build").await
}

/// That one is found when the build's user is gone already, and host keys too.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_build_in_a_tiny_guest_is_removed_by_finish_as_the_leak_gate_advises()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let leave = r#""mkdir -p /opt", "cat ~forge/.ssh/authorized_keys >/opt/keys""#;
    mended_by_its_advice(site, leave, "/opt/keys holds the build's public key").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_into_the_template_of_a_tiny_guest_is_let_be_when_finish_is_told_so()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    site.write("tiny.toml", &with_secret(r#""mkdir -p /opt", "echo $TOKEN >/opt/token""#));
    let word = format!("token={WORD}");
    let failed = site.run(&["build", "tiny.toml", "--var", &word]).await;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let wrong = site.run(&["finish", "9001", "--seal", "leakgate=false"]).await;
    assert_eq!(wrong.code, Some(3), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("did you mean `leak-gate`?"), "{}", wrong.stderr);
    let advised = advised(&failed.stderr, "forge finish 9001 --seal ");
    let arguments: Vec<&str> = advised.iter().map(String::as_str).collect();
    let done = site.run(&[&arguments[..], &["--var", &word]].concat()).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("it is sealed without `leak-gate`, as --seal says"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    let evidence = site.evidence();
    let verified = site.run(&["evidence", "verify", &evidence.to_string_lossy()]).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    site.close().await;
    Ok(())
}

/// All texts below a folder.
fn texts_below(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        match entry.path() {
            path if path.is_dir() => texts.extend(texts_below(&path)?),
            path => texts.push(String::from_utf8_lossy(&std::fs::read(path)?).into_owned()),
        }
    }
    Ok(texts)
}
