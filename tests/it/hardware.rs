//! Hardware, sources and media of Proxmox builds by the real program: what the guest finds and what the template keeps.

use std::path::Path;

use forge_lab::{LabConfig, StorageConfig, images};

use crate::support::lab_site::{BOOT_VM, FIRST_ID, LabSite, PROFILE};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_the_hardware_that_the_profile_names() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let vm = r#"[vm]
cores = 2
memory = "768MiB"
machine = "q35"
vga = "std"
rng = { source = "/dev/urandom" }
onboot = true
disks = [{ slot = "scsi0", cache = "unsafe" }, { slot = "scsi3", size = "3GiB", discard = true }]
networks = [{ model = "virtio" }, { model = "virtio", mac = "BC:24:11:00:00:07", link-down = true }]

[deadlines]"#;
    let ask = r#"
[[provision]]
name = "ask"
shell = [
  "for n in 1 2 3 4 5 6 7 8 9; do [ $(ls -d /sys/block/sd* | wc -l) -ge 2 ] || sleep 1; done",
  "echo disks $(cat /sys/block/sd*/size | sort -n | tail -n 1)",
  "echo adapter $(cat /sys/class/net/*/address | grep -c bc:24:11:00:00:07)",
  "echo cores $(cat /sys/devices/system/cpu/present)",
]
"#;
    let boot_vm = site.lab.vm(BOOT_VM);
    site.write("tiny.toml", &format!("{}{ask}", PROFILE.replace("[deadlines]", vm)));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for words in ["disks 6291456", "adapter 1", "cores 0-1"] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
    site.assert_template_only(FIRST_ID);
    assert_eq!(site.lab.vm(BOOT_VM), boot_vm, "the boot VM is as it was");
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    assert_eq!((template.config["machine"].as_str(), template.config["onboot"].as_str()), ("q35", "1"));
    assert!(template.config["scsi3"].contains("discard=on"), "{:?}", template.config);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_a_medium_in_its_drive_and_the_template_does_not_keep_it() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let medium = site.path().join("tools.iso");
    std::fs::write(&medium, format!("{:<4096}", "the tools of this site"))?;
    site.lab.import_iso("local", "tools.iso", &medium)?;
    let ask = "\n[[provision]]\nname = \"ask\"\nbecome = true\nshell = [\"for m in ata_piix sr_mod; do modprobe $m; done; for n in 1 2 3 4 5 6 7 8 9; do [ -e /dev/sr0 ] || sleep 1; done; echo found $(head -c 22 /dev/sr0)\"]\n";
    let source = "clone = \"boot-vm\"\niso = \"local:iso/tools.iso\"";
    site.write("tiny.toml", &format!("{}{ask}", PROFILE.replace("clone = \"boot-vm\"", source)));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("found the tools of this site"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    assert!(!template.config.values().any(|value| value.contains("tools.iso")), "{:?}", template.config);
    site.assert_boots_as_a_clone(FIRST_ID).await;
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_finds_several_media_and_the_template_keeps_of_them_what_the_profile_says()
-> anyhow::Result<()> {
    const ASK: &str = "\n[[provision]]\nname = \"ask\"\nbecome = true\nshell = [\"for m in ata_piix sr_mod; do modprobe $m; done; for n in 1 2 3 4 5 6 7 8 9; do [ -e /dev/sr1 ] || sleep 1; done; echo found $(head -c 14 /dev/sr0) and $(head -c 14 /dev/sr1)\"]\n";
    let kept = |config: &std::collections::BTreeMap<String, String>| -> Vec<String> {
        let drive =
            |slot: &str| config.get(slot).map(|value| value.split(',').next().unwrap_or("").to_owned());
        ["ide2", "ide0"].into_iter().filter_map(drive).collect()
    };
    for (drives, expected) in
        [("keep", vec!["local:iso/one.iso", "local:iso/two.iso"]), ("empty", vec!["none", "none"])]
    {
        let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
        for name in ["one", "two"] {
            let medium = site.path().join(format!("{name}.iso"));
            std::fs::write(&medium, format!("{:<4096}", format!("the medium {name}")))?;
            site.lab.import_iso("local", &format!("{name}.iso"), &medium)?;
        }
        let source = format!(
            "clone = \"boot-vm\"\niso = \"local:iso/one.iso\"\nadditional-isos = [{{ file = \"local:iso/two.iso\", slot = \"ide0\" }}]\n\
             iso-drives = \"{drives}\""
        );
        site.write("tiny.toml", &format!("{}{ASK}", PROFILE.replace("clone = \"boot-vm\"", &source)));
        let done = site.run(&["build", "tiny.toml"]).await;
        assert_eq!(done.code, Some(0), "{drives}: {}", done.stderr);
        let found = ["found the medium one and the medium two", "found the medium two and the medium one"];
        assert!(found.iter().any(|words| done.stderr.contains(words)), "{drives}: {}", done.stderr);
        site.assert_template_only(FIRST_ID);
        let template = site.lab.vm(FIRST_ID).expect("it is there");
        assert_eq!(kept(&template.config), expected, "{drives}: {:?}", template.config);
        if drives == "keep" {
            site.assert_boots_as_a_clone(FIRST_ID).await;
        }
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_looked_for_on_the_interface_that_the_profile_names() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let named = |interface: &str| {
        site.write("tiny.toml", &format!("{PROFILE}\n[access]\ninterface = \"{interface}\"\n"));
    };
    named("eth7");
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("nobody tells the address of eth7: ").await;
    build.says("eth7 has no address; the guest has ").await;
    assert!(build.said().contains("eth0 with "), "{}", build.said());
    build.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));
    site.assert_nothing_left();
    named("eth0");
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("the guest's eth0, told by the guest agent"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_clone_of_a_tiny_guest_becomes_a_template_that_boots_as_a_clone() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_template().await? else { return Ok(()) };
    let source = "clone = \"boot-vm\"\nfull = false";
    site.write("tiny.toml", &PROFILE.replace("clone = \"boot-vm\"", source));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    let disk = site.lab.vm(FIRST_ID).expect("it is there").config["scsi0"].clone();
    assert!(disk.contains(&format!("base-{BOOT_VM}-disk-0")), "it lies on the boot VM's disk: {disk}");
    site.assert_boots_as_a_clone(FIRST_ID).await;
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_becomes_a_template_at_the_id_that_the_profile_names_and_nothing_replaces_it()
-> anyhow::Result<()> {
    const NAMED: u32 = 9042;
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    site.write("tiny.toml", &PROFILE.replace("[deadlines]", &format!("[vm]\nvmid = {NAMED}\n\n[deadlines]")));
    let planned = site.run(&["plan", "tiny.toml"]).await;
    assert!(planned.stdout.contains(&format!("on node pve, id {NAMED}")), "{}", planned.stdout);
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.assert_template_only(NAMED);
    let (template, calls) = (site.lab.vm(NAMED), site.lab.requests().len());
    for arguments in [&["build", "tiny.toml"][..], &["build", "tiny.toml", "--force"]] {
        let refused = site.run(arguments).await;
        assert_eq!(refused.code, Some(3), "{arguments:?}: {}", refused.stderr);
        let told = format!("VMID {NAMED} is taken: the template tpl-tiny on pve has it");
        for words in [told.as_str(), "tiny.toml:14:8", "not with `--force` either"] {
            assert!(refused.stderr.contains(words), "{arguments:?}: {words}: {}", refused.stderr);
        }
    }
    let changes = site.lab.requests().into_iter().skip(calls).filter(|call| call.method != "GET");
    assert_eq!(changes.count(), 0, "it is told before anything is done");
    assert_eq!(site.lab.vm(NAMED), template, "the template is as it was");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_the_disk_of_its_clone_grown_on_the_storage_that_the_profile_names()
-> anyhow::Result<()> {
    const ASK: &str =
        "\n[[provision]]\nname = \"ask\"\nshell = [\"echo sizes $(cat /sys/block/sd*/size)\"]\n";
    for vm in [
        "storage = \"fast\"\ndisks = [{ slot = \"scsi0\", size = \"3GiB\" }]",
        "disks = [{ slot = \"scsi0\", size = \"3GiB\", storage = \"fast\" }]",
    ] {
        let config = LabConfig {
            storages: vec![StorageConfig::everything("local"), StorageConfig::of("fast", &["images"])],
            ..LabConfig::default()
        };
        let tiny = |cache: &Path| images::tiny(cache).map(|image| image.disk);
        let Some(site) = LabSite::with_guest_in(config, false, tiny).await? else { return Ok(()) };
        let before = site.lab.vm(BOOT_VM);
        let disk = before.as_ref().expect("it is there").config["scsi0"].clone();
        assert!(disk.starts_with("local:") && !disk.contains("size=3G"), "{disk}");
        site.write(
            "tiny.toml",
            &format!("{}{ASK}", PROFILE.replace("[deadlines]", &format!("[vm]\n{vm}\n\n[deadlines]"))),
        );
        let done = site.run(&["build", "tiny.toml"]).await;
        assert_eq!(done.code, Some(0), "{vm}: {}", done.stderr);
        // In sectors of 512 bytes, and no other disk.
        assert!(done.stderr.contains("| sizes 6291456\n"), "{vm}: {}", done.stderr);
        site.assert_template_only(FIRST_ID);
        let template = site.lab.vm(FIRST_ID).expect("it is there");
        let disk = &template.config["scsi0"];
        assert!(disk.starts_with("fast:") && disk.contains("size=3G"), "{vm}: {disk}");
        assert!(!template.config.keys().any(|key| key.starts_with("unused")), "{vm}: {:?}", template.config);
        assert_eq!(site.lab.vm(BOOT_VM), before, "{vm}: the boot VM is as it was");
        site.assert_boots_as_a_clone(FIRST_ID).await;
        site.close().await;
    }
    Ok(())
}
