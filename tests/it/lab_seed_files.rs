//! Files of the profile's own beside a seed and on a disc, by the real program and a real guest.

use forge_lab::LEAST_PRIVILEGES_PVE9;
use sha2::{Digest as _, Sha256};

use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE, TOKEN};

/// What a disc takes beside the least: it is sent, and removed at the end.
fn may_send_media(site: &LabSite) {
    let more: &[&str] = &["Datastore.AllocateTemplate", "Datastore.Allocate"];
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, more].concat())]);
}

/// Loads what drives discs, and mounts the one with that label.
fn mount(label: &str) -> String {
    format!(
        "for m in ata_piix sr_mod isofs; do modprobe $m; done; for n in 1 2 3 4 5 6 7 8 9; do findfs LABEL={label} && break; sleep 1; done; \
         mount -o ro $(findfs LABEL={label}) /mnt"
    )
}

fn in_folder(site: &LabSite, name: &str, bytes: &[u8]) {
    let path = site.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
    std::fs::write(path, bytes).expect("the folder is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_finds_texts_binaries_and_folders_beside_its_seed_and_on_a_disc_with_a_label_of_its_own()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    may_send_media(&site);
    // No text, and larger than a packet, a page and a write.
    let tool: Vec<u8> =
        (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
    in_folder(&site, "tool.bin", &tool);
    in_folder(&site, "web/deep/er/file.txt", b"from the deep");
    in_folder(&site, "web/hello.txt", b"the folder's, which the named one replaces");
    in_folder(&site, "tools/drivers/net.inf", b"a driver");
    let more = format!(
        r#"[variables.who]
default = "world"

[seed]
directory = "web"

[seed.files]
"hello.txt" = {{ content = "hello {{{{ var.who }}}}" }}
"bin/tool_1.0+b~a" = "tool.bin"
"more" = "tools"

[seed.disc]
label = "TOOLS"
directory = "tools"
files = {{ "note.txt" = {{ content = "a note" }} }}

[[provision]]
name = "ask"
become = true
shell = [
  "url=$(sed 's/.*;s=\\([^;]*\\).*/\\1/' /sys/class/dmi/id/product_serial)",
  "echo served $(wget -qO- ${{url}}hello.txt), $(wget -qO- ${{url}}deep/er/file.txt), $(wget -qO- ${{url}}more/drivers/net.inf)",
  "echo tool $(wget -qO- ${{url}}bin/tool_1.0+b~a | sha256sum)",
  "{}",
  "echo disc $(cd /mnt && find . -type f | sort | xargs tail -n 1)",
]

[[provision]]
name = "anew"
reboot = true
timeout = "15m"
"#,
        mount("TOOLS")
    );
    // The served ones are asked for while the seed's server is open: a guest that is started anew may read its seed again.
    site.write("tiny.toml", &format!("{PROFILE}\n{more}"));
    let planned = site.run(&["plan", "tiny.toml"]).await;
    assert_eq!(planned.code, Some(0), "{}{}", planned.stdout, planned.stderr);
    for words in ["beside it 4 files, 293.0 KiB", "a disc `TOOLS`: 2 files, 14 bytes"] {
        assert!(planned.stdout.contains(words), "`{words}` is not in {}", planned.stdout);
    }
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let digest: String = Sha256::digest(&tool).iter().map(|byte| format!("{byte:02x}")).collect();
    for words in [
        "served hello world, from the deep, a driver",
        format!("tool {digest}").as_str(),
        "disc ==> ./drivers/net.inf <== a driver ==> ./note.txt <== a note",
    ] {
        assert!(done.stderr.contains(words), "`{words}` is not in {}", done.stderr);
    }
    site.assert_template_only(FIRST_ID);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    assert!(!template.config.values().any(|value| value.contains("media=cdrom")), "{:?}", template.config);
    assert_eq!(site.media_files(), Vec::<std::path::PathBuf>::new(), "the disc is gone from the storage");

    // What is another than when the build was planned is not given to the guest.
    let plan = std::fs::read_to_string(site.evidence().join("plan.json"))?;
    assert!(plan.contains(&digest), "the plan names what was served: {plan}");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_whose_seed_goes_by_disc_finds_the_profile_s_files_on_that_disc() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    may_send_media(&site);
    let more = format!(
        "[seed]\ndelivery = [\"disc\"]\nhostname = \"by-disc\"\nfiles = {{ \"beside.txt\" = {{ content = \"beside\" }} }}\n\
         disc = {{ files = {{ \"more.txt\" = {{ content = \"and more\" }} }} }}\n\
         [[provision]]\nname = \"ask\"\nbecome = true\nshell = [\"{}\", \"echo found $(cat /mnt/beside.txt /mnt/more.txt) as $(hostname)\"]\n",
        mount("cidata")
    );
    site.write("tiny.toml", &format!("{PROFILE}\n{more}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("found besideand more as by-disc"), "{}", done.stderr);
    assert!(!done.stderr.contains("opening the seed server"), "nothing is served: {}", done.stderr);
    site.assert_template_only(FIRST_ID);
    assert_eq!(site.media_files(), Vec::<std::path::PathBuf>::new(), "the disc is gone from the storage");
    site.close().await;
    Ok(())
}

/// The findings of a plan on the lab.
async fn refused(site: &LabSite, seed: &str, words: &[&str]) {
    site.write("tiny.toml", &format!("{PROFILE}\n{seed}"));
    let done = site.run(&["plan", "tiny.toml"]).await;
    assert_eq!(done.code, Some(3), "{seed}: {}{}", done.stdout, done.stderr);
    for words in words {
        assert!(done.stderr.contains(words), "{seed}: `{words}` is not in {}", done.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_can_not_reach_the_guest_the_way_its_seed_goes_are_findings_of_the_plan()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let label = "disc = { label = \"TOOLS\", files = { a = { content = \"x\" } } }\n";
    refused(&site, &format!("[seed]\n{label}"), &["no disc can be made", "lacks Datastore.AllocateTemplate"])
        .await;
    may_send_media(&site);
    refused(
        &site,
        &format!("[seed]\ndelivery = [\"disc\"]\n{label}"),
        &["tiny.toml:22:", "its reader looks for one that is labelled `cidata`", "leave `label` out"],
    )
    .await;
    refused(
        &site,
        "[seed]\ndelivery = [\"disc\"]\ndisc = { files = { user-data = { content = \"x\" } } }\n",
        &["`user-data` is a file of the seed already, which is on this disc"],
    )
    .await;
    refused(&site, "[seed]\ndisc = { label = \"EMPTY\" }\n", &["there is nothing on this disc"]).await;
    refused(
        &site,
        "[seed]\nfloppy = { files = { a = { content = \"x\" } } }\n",
        &["no floppy can be made: Proxmox VE gives a VM no floppy drive", "on a disc (`seed.disc`)"],
    )
    .await;
    let files = "files = { a = { content = \"x\" } }\n";
    for (rung, why) in [
        ("cloud-init-drive", "boot-vm has no cloud-init drive"),
        ("floppy", "nothing looks for this seed on a floppy"),
        ("none", "nothing would carry the files of the profile"),
    ] {
        let seed = format!("[seed]\ndelivery = [\"{rung}\"]\n{files}");
        refused(&site, &seed, &["the seed can't reach the guest in any way that is allowed", why]).await;
    }
    site.close().await;
    Ok(())
}
