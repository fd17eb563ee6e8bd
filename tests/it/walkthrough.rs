//! The way that the README walks, from root alone over SSH to the second version of a template, in one empty folder.

use forge_lab::PveVersion;
use serde_json::Value;

use crate::support::fresh::{Fresh, mode};
use crate::support::lab_site::{BOOT_VM, Done, PROFILE};

/// The walk, and where it is.
struct Walk {
    fresh: Fresh,
}

impl Walk {
    /// One step: this exit code, and these words in what it said.
    async fn step(&self, arguments: &[&str], code: i32, words: &[&str]) -> Done {
        let done = self.fresh.forge(arguments, &[]).await;
        assert_eq!(done.code, Some(code), "{arguments:?}\n{}{}", done.stdout, done.stderr);
        for word in words {
            let said = done.stdout.contains(word) || done.stderr.contains(word);
            assert!(said, "{arguments:?}: `{word}` is not in:\n{}{}", done.stdout, done.stderr);
        }
        done
    }

    /// The templates that are there, with their tags.
    fn templates(&self) -> Vec<(u32, String)> {
        let others = self.fresh.lab.vms().into_iter().filter(|vm| vm.vmid != BOOT_VM);
        others
            .map(|vm| {
                assert!(vm.template && !vm.running && vm.lock.is_none(), "{vm:?}");
                (vm.vmid, vm.tags)
            })
            .collect()
    }

    /// The newest folder of evidence below one: chain ids begin with the time.
    fn newest(&self, profile: &str) -> String {
        let folders = std::fs::read_dir(self.fresh.path("output").join(profile)).expect("there is evidence");
        let names = folders.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let newest = names.filter(|name| name.starts_with("CHAIN-")).max();
        format!("output/{profile}/{}", newest.expect("there is a folder"))
    }
}

/// From nothing but root to a pruned second version.
async fn walk(version: PveVersion) -> anyhow::Result<()> {
    let Some(fresh) = Fresh::with_tiny_guest(version).await? else { return Ok(()) };
    let walk = Walk { fresh };
    let fresh = &walk.fresh;

    // 1. `forge init`, first as a dry run.
    let done = fresh.init(&["--storage-archives", "local", "--dry-run"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("pveum user token add") && !fresh.path("forge.toml").exists());
    let done = fresh.init(&["--storage-archives", "local"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("= forge@pve!build is ready at https://"), "{}", done.stderr);
    let done = fresh.init(&["--storage-archives", "local", "--env-file", ".env.proxmox"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("wrote      .env.proxmox"), "{}", done.stderr);
    assert_eq!([".pve.token", ".env.proxmox"].map(|name| mode(&fresh.path(name))), [0o600; 2]);
    let secret = fresh.read(".pve.token").trim().to_owned();
    fresh.tell_how_guests_reach_forge();

    // 2. The first build, and what is looked at before.
    std::fs::write(fresh.path("tiny.toml"), PROFILE)?;
    std::fs::write(fresh.path("media.toml"), MEDIA)?;
    std::fs::write(fresh.path("mine.iso"), b"a medium ".repeat(10_000))?;
    walk.step(&["doctor", "tiny.toml"], 0, &["profile tiny", "boot-vm", "0 failed"]).await;
    walk.step(&["validate", "tiny.toml", "media.toml"], 0, &[]).await;
    walk.step(&["render", "tiny.toml", "-o", "rendered"], 0, &[]).await;
    walk.step(&["plan", "tiny.toml"], 0, &["full clone of boot-vm (VM 9000 on pve)", "tpl-tiny"]).await;
    for how in ["sent", "was there"] {
        walk.step(&["prestage", "media.toml"], 0, &["mine.iso", how]).await;
    }
    // As a CI does it: from a repository, in a run that has a page.
    let committed = commit(&fresh.path("tiny.toml"));
    let run =
        [("JENKINS_URL", "https://ci/"), ("BUILD_NUMBER", "9"), ("BUILD_URL", "https://ci/job/images/9/")];
    let done = fresh.forge(&["build", "tiny.toml"], &run).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("= template tpl-tiny is VM "), "{}", done.stderr);
    let [(first, tags)] = <[(u32, String); 1]>::try_from(walk.templates()).expect("one template");
    assert_eq!(tags, "forge;latest", "{}", done.stderr);
    let first_evidence = walk.newest("tiny");
    let link = std::fs::read_link(fresh.path("output/tiny/latest"))?;
    assert!(first_evidence.ends_with(&*link.to_string_lossy()), "{}", link.display());

    // 3. It is tried, and gets its mark.
    let first_id = first.to_string();
    walk.step(&["test", "tpl-tiny", "--mark", "--junit", "junit.xml"], 0, &["no drift", "second boot"]).await;
    assert_eq!(walk.templates(), [(first, "forge;latest;validated".to_owned())]);
    assert!(fresh.read("junit.xml").contains("failures=\"0\""));
    let trial = walk.newest("test-tpl-tiny");
    let link = std::fs::read_link(fresh.path("output/test-tpl-tiny/latest"))?;
    assert!(trial.ends_with(&*link.to_string_lossy()), "{}", link.display());
    let of_latest = walk.step(&["latest", "--profile", "tiny", "--validated"], 0, &[]).await;
    assert_eq!(of_latest.stdout.trim(), first_id);
    let done = walk.step(&["latest", "--profile", "tiny", "-o", "tfvars"], 0, &["template_name"]).await;
    assert!(
        done.stdout.lines().any(|line| line.starts_with("template_vmid") && line.ends_with(&first_id)),
        "{}",
        done.stdout
    );

    // 4. What was left as evidence, checked and as a page.
    walk.step(
        &["evidence", "verify", &first_evidence, &trial],
        0,
        &[&format!("template tpl-tiny is VM {first}")],
    )
    .await;
    let proof: Value = serde_json::from_str(&fresh.read(&format!("{first_evidence}/proof.json")))?;
    let chain_id = proof["chain-id"].as_str().expect("it has one").to_owned();
    assert!(first_evidence.ends_with(&chain_id), "{chain_id}");
    assert_eq!(proof["origin"]["ci"]["url"], "https://ci/job/images/9/", "{proof}");
    if let Some(commit) = committed {
        let repository = &proof["origin"]["repository"];
        assert_eq!((&repository["commit"], &repository["dirty"]), (&commit.into(), &false.into()), "{proof}");
    }
    let note = fresh.lab.vm(first).expect("there").description;
    assert!(note.contains(&chain_id), "{note}");
    walk.step(&["report", "output/test-tpl-tiny/latest", "-o", "trial.html"], 0, &[]).await;
    assert!(fresh.read("trial.html").contains("no drift"), "the page of a trial has its checks");
    walk.step(&["report", &first_evidence, "-o", "report.html"], 0, &[]).await;
    let page = fresh.read("report.html");
    assert!(page.starts_with("<!") && page.contains(&chain_id) && page.contains("template tpl-tiny"));

    // 5. The second version: by the gate, which tries it before it becomes the latest.
    let done = walk.step(&["build", "tiny.toml", "--test"], 0, &["is the latest of tiny"]).await;
    let [_, (second, tags)] = <[(u32, String); 2]>::try_from(walk.templates()).expect("two templates");
    assert_eq!(tags, "forge;latest;validated", "{}", done.stderr);
    assert_eq!(walk.templates()[0].1, "forge;validated");
    let second_id = second.to_string();
    walk.step(
        &["diff", &trial, &walk.newest("test-tpl-tiny"), "--only", "packages,ports", "--exit-code"],
        0,
        &[],
    )
    .await;

    // 6. Back and forth again, then away with the old one.
    let done = walk.step(&["rollback", "--profile", "tiny"], 0, &["is the latest of tiny"]).await;
    assert!(done.stdout.contains(&format!("VM {first}")), "{}", done.stdout);
    walk.step(&["promote", &second_id], 0, &[&format!("before it VM {first}")]).await;
    walk.step(&["prune", "--keep", "1", "--archive", "--dry-run"], 0, &[&first_id, "after it is archived"])
        .await;
    assert_eq!(walk.templates().len(), 2, "a dry run removes nothing");
    let kept = format!("archived: local:backup/vzdump-qemu-{first}-");
    walk.step(&["prune", "--keep", "1", "--archive", "--yes"], 0, &["removed", &kept]).await;
    let backups = fresh.lab.backups("pve", "local");
    let [backup] = backups.as_slice() else { panic!("one archive: {backups:?}") };
    let archive = fresh.lab.archive("pve", backup)?;
    assert!(archive.config.contains(&chain_id), "{}", archive.config);
    let disk = archive.devices.iter().find(|(name, ..)| name == "drive-scsi0").expect("its disk is kept");
    assert!(disk.1 >= 32 << 20, "{disk:?}");
    walk.step(&["gc"], 0, &[]).await;
    walk.step(&["gc", "--orphans"], 0, &[]).await;
    assert_eq!(walk.templates(), [(second, "forge;latest;validated".to_owned())]);
    let of_latest = walk.step(&["latest", "--profile", "tiny"], 0, &[]).await;
    assert_eq!(of_latest.stdout.trim(), second_id);

    // Nothing runs, nothing is journalled, and the secret is where it was put and nowhere else.
    assert!(fresh.lab.qemu_pids().is_empty() && fresh.lab.running_tasks().is_empty());
    let journals = std::fs::read_dir(fresh.path("state/journal"))?.count();
    assert_eq!(journals, 0);
    let holders: Vec<_> = fresh.written().into_iter().filter(|(_, text)| text.contains(&secret)).collect();
    let mut names: Vec<_> = holders.iter().filter_map(|(path, _)| path.file_name()).collect();
    names.sort();
    assert_eq!(names, [".env.proxmox", ".pve.token"]);
    walk.fresh.lab.stop().await;
    Ok(())
}

/// Puts a profile into a repository of its folder; the commit, where there is git.
fn commit(profile: &std::path::Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=x", "-c", "user.email=x@example.org"])
            .args(arguments)
            .current_dir(profile.parent()?)
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    git(&["init", "-q"])?;
    git(&["add", "tiny.toml"])?;
    git(&["commit", "-q", "-m", "the profile"])?;
    git(&["rev-parse", "HEAD"])
}

/// What is prestaged: a medium of this machine.
const MEDIA: &str = "schema = 1\nname = \"media\"\n[source]\nclone = \"boot-vm\"\niso = \"mine.iso\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_is_walked_with_a_tiny_guest_from_root_alone_to_the_second_version_on_pve_9()
-> anyhow::Result<()> {
    walk(PveVersion::V9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_is_walked_with_a_tiny_guest_from_root_alone_to_the_second_version_on_pve_8()
-> anyhow::Result<()> {
    walk(PveVersion::V8).await
}
