//! Whole builds of the tiny guest on the lab, by the real program: what they leave when they succeed, and what they say
//! when they fail.

use std::path::{Path, PathBuf};

use forge::event::{Ending, Envelope, Event, Region, Stage};
use forge_console::{Recording, Screen, Shot};
use sha2::{Digest as _, Sha256};

use crate::support::lab_site::{BOOT_VM, Done, FIRST_ID, LabSite, PROFILE};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
        match entry.file_type().expect("it is there") {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Asserts that `SHA256SUMS` names every other file of the evidence, with its sum.
fn assert_sums(evidence: &Path) {
    let sums = std::fs::read_to_string(evidence.join("SHA256SUMS")).expect("there are sums");
    let mut named = Vec::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("sha256sum's form");
        let bytes = std::fs::read(evidence.join(name)).expect("what is named is there");
        let real: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, real, "{name}");
        named.push(evidence.join(name));
    }
    let mut there = files(evidence);
    there.retain(|path| !path.ends_with("SHA256SUMS"));
    there.sort();
    named.sort();
    assert_eq!(named, there);
}

/// Asserts that no secret is in what forge wrote: evidence, output, journals. The guest's serial console is not forge's.
fn assert_no_secret(site: &LabSite, done: &Done) {
    let mut secrets = vec![site.secret.clone(), "PRIVATE KEY".to_owned()];
    secrets.extend(seed_paths(site));
    let mut texts =
        vec![("stdout".to_owned(), done.stdout.clone()), ("stderr".to_owned(), done.stderr.clone())];
    for folder in ["output", "state"] {
        for path in files(&site.path().join(folder)) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).expect("it is there")).into_owned();
            texts.push((path.display().to_string(), text));
        }
    }
    for (name, text) in texts {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} holds {secret}");
        }
    }
}

/// The secret part of the seed's address, as the guest's kernel or seed reader may have printed it.
fn seed_paths(site: &LabSite) -> Vec<String> {
    let serial = site.lab.serial_log(FIRST_ID);
    let words = serial.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    words
        .filter(|word| word.len() >= 22 && serial.contains(&format!("/{word}/")))
        .map(str::to_owned)
        .collect()
}

fn ending(envelopes: &[Envelope]) -> &Ending {
    match envelopes.last().map(|envelope| &envelope.event) {
        Some(Event::BuildFinished { ending, .. }) => ending,
        other => panic!("the last event is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_becomes_a_template_with_evidence_and_without_a_secret_anywhere() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let before = site.lab.vm(BOOT_VM);
    // The guest says what it was given, so that the masking has something to mask.
    let tell = "\n[[provision]]\nname = \"tell\"\nbecome = true\nshell = [\"cat /sys/class/dmi/id/product_serial\", \"cat /run/cloud-init/source\", \"echo $FORGE_CHAIN_ID\"]\n";
    let about = "family = \"linux\"\ndistribution = \"alpha\"\nversion = \"3\"";
    let template = "name = \"tpl-tiny\"\ntags = [\"base\", \"web\"]\ndescription = \"\"\"\nOurs, of TASK-{{ build_number }}.\nAsk ops.\"\"\"";
    let profile = PROFILE.replace("family = \"linux\"", about).replace("name = \"tpl-tiny\"", template);
    site.write("tiny.toml", &format!("{profile}{tell}"));
    let done = site.run(&["build", "tiny.toml", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    assert_eq!(site.lab.vm(BOOT_VM), before, "the boot VM is as it was");

    // stdout is events and nothing else, in order and without gaps.
    let envelopes: Vec<Envelope> = done.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(done.stderr, "");
    for (number, envelope) in envelopes.iter().enumerate() {
        assert_eq!((envelope.v, envelope.seq), (1, u64::try_from(number)?));
        assert_ne!(envelope.event, Event::Unknown);
    }
    assert!(matches!(ending(&envelopes), Ending::Done { .. }));
    let finished: Vec<Stage> = envelopes
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::StageFinished { stage, .. } => Some(*stage),
            _ => None,
        })
        .collect();
    assert_eq!(finished, Stage::ALL);
    let regions: Vec<Region> = envelopes
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Entered { region } => Some(*region),
            _ => None,
        })
        .collect();
    assert_eq!(regions, [Region::Keeping, Region::Committed]);
    let said: Vec<&str> = envelopes
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Output { line, .. } => Some(line.as_str()),
            _ => None,
        })
        .collect();
    let chain_id = envelopes[0].build.to_string();
    assert!(said.iter().any(|line| line.starts_with("hello from ")), "{said:?}");
    assert!(said.contains(&"dmi") && said.contains(&chain_id.as_str()), "{said:?}");
    let masked =
        said.iter().find(|line| line.starts_with("ds=nocloud")).expect("the guest told its serial number");
    assert!(masked.contains("10.0.2.2") && !masked.ends_with("10.0.2.2/"), "{masked}");

    let evidence = site.evidence();
    assert!(evidence.ends_with(&chain_id));
    for name in [
        "README.md",
        "proof.json",
        "plan.json",
        "plan.txt",
        "events.jsonl",
        "build.log",
        "seed/user-data",
        "seed/meta-data",
    ] {
        let text = std::fs::read_to_string(evidence.join(name))?;
        assert!(!text.trim().is_empty(), "{name} is empty");
    }
    assert_sums(&evidence);
    assert_eq!(std::fs::read_link(site.path().join("output/tiny/latest"))?, PathBuf::from(&chain_id));
    assert_eq!(
        std::fs::read_to_string(evidence.join("events.jsonl"))?,
        done.stdout,
        "the evidence has the same events"
    );
    let proof: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(evidence.join("proof.json"))?)?;
    assert_eq!(proof["chain-id"], chain_id.as_str());
    assert_eq!(proof["stages"].as_array().map(Vec::len), Some(Stage::ALL.len()));
    assert_no_secret(&site, &done);
    let done = site.run(&["evidence", "verify", "output/tiny/latest"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.contains(&format!("{chain_id}: template tpl-tiny is VM 9001")), "{}", done.stdout);
    let done = site.run(&["report", "output/tiny/latest", "-o", "-"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for words in
        [&chain_id, "template tpl-tiny", "hello from ", "data:image/png;base64,", "files have the checksums"]
    {
        assert!(done.stdout.contains(words), "`{words}` is not in the report");
    }
    let done = site.run(&["screen", "show", "output/tiny/latest"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.contains("00001.png") && done.stdout.contains(" text ──"), "{}", done.stdout);
    let done = site.run(&["screen", "show", "output/tiny/latest", "--json", "--at", "1"]).await;
    assert_eq!(done.stdout.lines().count(), 1, "{}{}", done.stdout, done.stderr);
    assert!(serde_json::from_str::<Shot>(&done.stdout).is_ok(), "{}", done.stdout);
    let done = site.run(&["screen", "show", "output/tiny"]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    std::fs::write(evidence.join("build.log"), "forged")?;
    let done = site.run(&["evidence", "verify", "output/tiny/latest"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stdout);
    assert!(done.stderr.contains("build.log was changed"), "{}", done.stderr);

    // The template carries the chain id, and nothing of the build.
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    let forge = format!("* forge: {}", env!("CARGO_PKG_VERSION"));
    for row in [
        "Ours, of TASK-001.\nAsk ops.\n\nTemplate built by forge.",
        &format!("* chain id: {chain_id}"),
        "* profile: tiny",
        "* os: alpha 3",
        "* type: base web",
        "* builder: forge",
        "* built: 20",
        "* build number: 001",
        "* source: boot-vm (9000)",
        &forge,
    ] {
        assert!(template.description.contains(row), "{row}: {}", template.description);
    }
    assert!(!template.config["smbios1"].contains("serial"), "{}", template.config["smbios1"]);
    assert!(!template.tags.contains("forge-building"), "{}", template.tags);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_seeded_by_the_cloud_init_drive_of_its_source() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let tell =
        "\n[[provision]]\nname = \"tell\"\nshell = [\"echo seeded by $(cat /run/cloud-init/source)\"]\n";
    site.write("tiny.toml", &format!("{PROFILE}{tell}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("delivered by cloud-init-drive"), "{}", done.stderr);
    assert!(done.stderr.contains("seeded by disc"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    assert!(template.config["ide2"].contains("cloudinit"), "the template keeps a drive for its clones");
    for key in ["sshkeys", "ciuser"] {
        assert!(!template.config.contains_key(key), "{key} was the build's: {:?}", template.config);
    }
    assert_no_secret(&site, &done);
    assert_sums(&site.evidence());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_gets_and_gives_files_and_is_the_same_after_a_reboot() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let steps = r#"
[[provision]]
content = "from the profile\n"
destination = "/tmp/greeting"
[[provision]]
name = "before"
shell = ["cp /proc/sys/kernel/random/boot_id /tmp/first", "cat /tmp/greeting"]
[[provision]]
download = "/tmp/first"
destination = "first"
[[provision]]
reboot = true
[[provision]]
wait-for = { file = "/proc/sys/kernel/random/boot_id" }
[[provision]]
download = "/proc/sys/kernel/random/boot_id"
destination = "second"
"#;
    site.write("tiny.toml", &format!("{PROFILE}{steps}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("from the profile"), "{}", done.stderr);
    let boot_id = std::fs::read_to_string(site.path().join("first"))?;
    assert_eq!(boot_id.trim().len(), 36, "{boot_id}: {}", done.stderr);
    let second = std::fs::read_to_string(site.path().join("second"))?;
    assert!(second.trim().len() == 36 && second != boot_id, "{boot_id} {second}");
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provisioner_that_fails_in_a_tiny_guest_is_quoted_and_no_vm_stays() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let fail = "\n[[provision]]\nname = \"install it\"\nshell = [\"echo preparing\", \"echo no such package: nginz >&2\", \"exit 42\"]\n\n[[provision]]\nname = \"never\"\nshell = [\"echo never reached\"]\n";
    site.write("tiny.toml", &format!("{PROFILE}{fail}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for words in [
        "error in stage provision",
        "install it",
        "status 42",
        "no such package: nginz",
        "nothing is left on the target",
    ] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    assert!(!done.stderr.contains("never reached"));
    site.assert_nothing_left();
    let evidence = site.evidence();
    assert_screenshot(&evidence);
    assert!(std::fs::read_to_string(evidence.join("README.md"))?.contains("no such package: nginz"));
    assert!(!evidence.join("proof.json").exists());
    assert!(!site.path().join("output/tiny/latest").exists(), "`latest` is the newest success");
    assert_sums(&evidence);
    assert_no_secret(&site, &done);
    site.close().await;
    Ok(())
}

fn assert_screenshot(evidence: &Path) {
    let pictures = files(&evidence.join("screens"));
    assert!(!pictures.is_empty(), "the evidence has the screen");
    for picture in pictures {
        let bytes = std::fs::read(&picture).expect("it is there");
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.len() > 100, "{}", picture.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_refuses_the_key_fails_the_build_with_what_was_last_seen() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    // The seed does not make this user, and the image does not have it.
    site.write(
        "tiny.toml",
        &PROFILE
            .replace("connect = \"15m\"", "connect = \"100s\"")
            .replace("[deadlines]", "[access]\nuser = \"nobody-here\"\ncreate = false\npassword = { command = [\"echo\", \"no-such-word\"] }\n\n[deadlines]"),
    );
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for words in
        ["error in stage connect", "nobody-here", "SSH-2.0-dropbear", "nothing is left on the target"]
    {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    site.assert_nothing_left();
    assert_screenshot(&site.evidence());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_never_fetches_its_seed_is_told_where_it_should_have_asked() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    // 10.0.2.99 is nobody in the guest's network.
    site.write("forge.toml", &site.forge_toml().replace("10.0.2.2", "10.0.2.99"));
    site.write("tiny.toml", &PROFILE.replace("connect = \"15m\"", "connect = \"30s\""));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for words in [
        "error in stage connect",
        "no seed file fetched yet",
        "the guest never asked for its seed: can it reach 10.0.2.99:",
    ] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    site.assert_nothing_left();
    assert_screenshot(&site.evidence());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_cuts_its_own_connection_to_a_tiny_guest_is_a_failure() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    // Every sshd dies, that of this session too; init starts a new one.
    let cut = "\n[[provision]]\nname = \"cut\"\nbecome = true\nshell = [\"echo cutting\", \"killall -9 dropbear\", \"sleep 60\"]\n";
    site.write("tiny.toml", &format!("{PROFILE}{cut}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for words in [
        "error in stage provision",
        "the connection to the guest was lost before the script had ended",
        "cutting",
    ] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    site.assert_nothing_left();
    assert_screenshot(&site.evidence());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_goes_down_while_it_is_awaited_fails_the_build_at_once() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    site.write("forge.toml", &site.forge_toml().replace("10.0.2.2", "10.0.2.99"));
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    for pid in site.lab.qemu_pids() {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(pid)?),
            nix::sys::signal::Signal::SIGKILL,
        )?;
    }
    let done = build.ended().await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("the VM stopped before the guest answered"), "{}", done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_the_plan_and_changes_nothing() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    for arguments in [&["plan", "tiny.toml"][..], &["build", "tiny.toml", "--dry-run"]] {
        let done = site.run(arguments).await;
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
        assert!(done.stdout.contains("<seed.url>") || done.stdout.contains("smbios"), "{}", done.stdout);
    }
    assert!(site.lab.requests().iter().all(|request| request.method == "GET"));
    assert!(!site.path().join("output").exists());
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_guest_gets_its_whole_seed_address_typed_at_its_boot_menu() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_debian(false).await? else { return Ok(()) };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("os-profiles/debian-12-typed.toml");
    let profile = format!(
        "schema = 1\nname = \"typed\"\nextends = \"{}\"\n[template]\nname = \"tpl-tiny\"\n\n[[provision]]\nname = \"tell\"\nbecome = true\n\
         shell = [\"cat /proc/cmdline >/dev/ttyS0\", \"id forge\"]\n",
        shipped.display()
    );
    site.write("typed.toml", &profile);
    let done = site.run(&["build", "typed.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    // The shipped profiles are gated: a clone was tried before this became the latest.
    assert_eq!(site.others()[0].tags, "debian-12;forge;latest;typed;validated", "{}", done.stderr);

    // All of the address is on the kernel's command line, and nowhere in what forge wrote.
    let serial = site.lab.serial_log(FIRST_ID);
    let line =
        serial.lines().find(|line| line.contains("ds=nocloud;s=http://")).expect("the guest told its line");
    let url = line.split("ds=nocloud;s=").nth(1).and_then(|rest| rest.split(';').next()).expect("an address");
    let path = url.trim_end_matches('/').rsplit('/').next().expect("a path");
    assert!(path.len() == 32 && path.chars().all(|c| c.is_ascii_hexdigit()), "{url}");
    assert!(line.contains(";dsmode=net"), "{line}");
    for file in files(&site.path().join("output")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
        assert!(!text.contains(path), "{} holds the seed's path", file.display());
    }
    assert!(!done.stderr.contains(path), "{}", done.stderr);
    let evidence = site.path().join("output/typed/latest");
    assert!(files(&evidence.join("screens")).len() >= 7, "a picture at each boot step");

    // The recording has what was typed, and no piece of the secret path can be read on any of its pictures.
    let recording = Recording::open(&evidence.join("recording"))?;
    let texts: Vec<&String> =
        recording.shots.iter().filter_map(|shot| shot.text.as_ref()).flatten().collect();
    assert!(texts.iter().any(|line| line.contains("ds=nocloud;s=http://")), "{texts:?}");
    assert!(texts.iter().any(|line| line.contains("******")), "{texts:?}");
    let mut pieces: Vec<&str> = (0..=path.len() - 6).filter_map(|at| path.get(at..at + 6)).collect();
    pieces.sort_unstable();
    for shot in &recording.shots {
        let picture = recording.picture(shot)?.expect("nothing was typed that can't be read");
        let screen = Screen::read(&picture).to_string();
        for seen in [shot.text.as_ref().map(|rows| rows.join("\n")).unwrap_or_default(), screen] {
            let piece = pieces.iter().find(|piece| seen.contains(**piece));
            assert_eq!(piece, None, "{:?}\n{seen}", shot.file);
        }
    }
    Ok(())
}

/// A Debian that is built with its seed on Proxmox's drive, and the line that tells its address.
async fn seeded_by_drive(vars: &str) -> anyhow::Result<Option<(LabSite, String)>> {
    let Some(site) = LabSite::with_debian(true).await? else { return Ok(None) };
    let block = "\n[[provision]]\nname = \"seeded\"\nbecome = true\nshell = [\"cloud-init status --wait\", \"cloud-id\", \"ls -l /dev/disk/by-label/\", \"ip -o -4 address\"]\n";
    site.write("tiny.toml", &format!("{PROFILE}{block}{vars}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    for words in ["delivered by cloud-init-drive", "nocloud", "cidata"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    let address = done.stderr.lines().find(|line| line.contains("inet 10.0.2.15/24")).expect("an address");
    Ok(Some((site, address.to_owned())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_guest_takes_its_user_from_proxmox_s_drive_and_its_address_by_dhcp() -> anyhow::Result<()> {
    let Some((site, address)) = seeded_by_drive("").await? else { return Ok(()) };
    assert!(address.contains("dynamic"), "leased: {address}");
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_guest_is_seeded_by_proxmox_s_cloud_init_drive_and_keeps_it_as_a_template()
-> anyhow::Result<()> {
    let vars = "[seed.vars]\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\n";
    let Some((site, address)) = seeded_by_drive(vars).await? else { return Ok(()) };
    site.assert_template_only(FIRST_ID);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    let drives = template.config.values().filter(|value| value.contains("cloudinit")).count();
    assert_eq!(drives, 1, "its own drive, and no second: {:?}", template.config);
    assert!(!template.config.contains_key("sshkeys"), "the build's key is gone: {:?}", template.config);
    // The address was said, not leased, and was the build's alone.
    assert!(!address.contains("dynamic"), "{address}");
    assert!(template.config.values().all(|value| !value.contains("10.0.2.15")), "{:?}", template.config);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_a_tiny_guest_is_tried_and_its_clone_removed_whatever_the_checks_say()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let built = site.others();
    site.write(
        "checks.toml",
        "[[check]]\nname = \"good\"\nshell = [\"echo fine\"]\n\n[[check]]\nname = \"bad\"\nshell = [\"echo it is not so\", \"exit 1\"]\n\n\
         [[check]]\nname = \"none\"\nshell = [\"echo nothing here\", \"exit 75\"]\n",
    );
    std::fs::create_dir(site.path().join("baselines"))?;
    site.write("baselines/tiny.json", "{ \"ports\": { \"tcp/99\": \"\" }, \"users\": {} }");
    let done = site.run(&["test", "tpl-tiny", "--checks", "checks.toml", "--junit", "junit.xml"]).await;
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    let verdict = |name: &str| {
        let line = done.stdout.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
        line[name.len()..].split_whitespace().next().unwrap_or_default().to_owned()
    };
    for name in [
        "host name",
        "user",
        "guest agent",
        "inventory",
        "second boot",
        "guest agent again",
        "the same machine again",
        "good",
    ] {
        assert_eq!(verdict(name), "passed", "{name}:\n{}{}", done.stdout, done.stderr);
    }
    assert_eq!((verdict("bad").as_str(), verdict("none").as_str()), ("failed", "skipped"), "{}", done.stdout);
    assert!(done.stdout.contains("it is not so"), "{}", done.stdout);
    assert!(done.stderr.contains("2 failed"), "{}", done.stderr);
    assert_eq!(verdict("no drift"), "failed", "{}", done.stdout);
    assert!(done.stdout.contains("-port tcp/99, +port tcp"), "{}", done.stdout);
    let junit = std::fs::read_to_string(site.path().join("junit.xml"))?;
    assert!(
        junit.contains("failures=\"2\"") && junit.contains("<failure message=\"it is not so\"/>"),
        "{junit}"
    );
    assert_eq!(site.others(), built, "the template is as it was, and the clone is gone");
    assert_eq!(site.journals(), Vec::<String>::new());
    let latest = site
        .run(&["report", &format!("output/test-tpl-tiny/{}", only_folder(&site, "test-tpl-tiny")), "-o", "-"])
        .await;
    assert!(latest.stdout.contains("it is not so"), "{}", latest.stderr);

    let done = site.run(&["diff", "tpl-tiny", "tpl-tiny", "--exit-code"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{}", done.stderr);
    let trial = site.path().join("output/test-tpl-tiny").join(only_folder(&site, "test-tpl-tiny"));
    let inventory = std::fs::read_to_string(trial.join("inventory.json"))?;
    assert!(inventory.contains("/22\"") && inventory.contains("\"/etc/"), "{inventory}");
    site.write("other.json", &inventory.replace("/22\"", "/2222\""));
    let done = site.run(&["diff", "tpl-tiny", "other.json", "--only", "ports", "--exit-code"]).await;
    let lines = |start: &str| done.stdout.lines().filter(|line| line.starts_with(start)).count();
    assert!(done.code == Some(1) && lines("-") > 0 && lines("-") == lines("+"), "{}", done.stdout);

    // What a green trial finds can be made the baseline, and is none of the profile's drift from then on.
    let done = site.run(&["test", "tpl-tiny", "--no-second-boot", "--accept", "--mark"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let baseline = std::fs::read_to_string(site.path().join("baselines/tiny.json"))?;
    assert!(baseline.contains("/22\"") && !baseline.contains("\"/etc/"), "{baseline}");
    let tags: Vec<String> = site.others().into_iter().map(|vm| vm.tags).collect();
    assert_eq!(tags, ["forge;latest;validated"], "the clone is gone, and the template tagged");
    let done = site.run(&["list", "--validated", "--json"]).await;
    assert!(done.stdout.contains("\"vmid\":\"9001\""), "{}{}", done.stdout, done.stderr);

    let done = site.run(&["latest", "--profile", "tiny"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "9001\n"), "{}", done.stderr);
    let done = site.run(&["list", "--json"]).await;
    let entry: serde_json::Value = serde_json::from_str(&done.stdout)?;
    assert_eq!((entry["name"].as_str(), entry["forge"].as_bool()), (Some("tpl-tiny"), Some(true)), "{entry}");
    let done = site.run(&["latest", "--os", "plan-9"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stderr);

    for (template, words) in [("boot-vm", "is no template"), ("nosuch", "nosuch")] {
        let done = site.run(&["test", template]).await;
        assert_eq!(done.code, Some(3), "{template}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{template}: {}", done.stderr);
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_a_tiny_guest_that_fails_its_trial_is_tagged_and_the_one_before_it_stays_the_latest()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let site = site.with_old_template("tiny").await?;
    site.write("tiny.toml", &PROFILE.replace("name = \"tpl-tiny\"", "name = \"tpl-tiny\"\ntest = true"));
    std::fs::create_dir(site.path().join("baselines"))?;
    site.write("baselines/tiny.json", "{ \"ports\": { \"tcp/99\": \"\" } }");
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(5), "{}{}", done.stdout, done.stderr);
    for words in ["no drift", "-port tcp/99", "failed its test, and is not published", "forge promote 9001"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    site.assert_template_only(FIRST_ID);
    assert_eq!(site.others()[0].tags, "forge;test-failed");
    site.assert_old_template(true, "it was not replaced");
    let done = site.run(&["latest", "--profile", "tiny"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "8999\n"), "{}", done.stderr);
    site.close().await;
    Ok(())
}

/// The name of the only folder of evidence of a profile.
fn only_folder(site: &LabSite, profile: &str) -> String {
    let entries = std::fs::read_dir(site.path().join("output").join(profile)).expect("there is evidence");
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].clone()
}
