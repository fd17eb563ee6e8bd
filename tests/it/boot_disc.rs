//! Builds on the lab that install a guest without a key being pressed: a disc of forge's starts the medium's own loader.

use forge::event::{Envelope, Event};
use forge_lab::{LEAST_PRIVILEGES_PVE9, images};

use crate::support::lab_site::{FIRST_ID, LabSite, TOKEN};

const PROFILE: &str = r#"schema = 1
name = "tiny"

[os]
family = "linux"

[template]
name = "tpl-tiny"

[source]
# The guest's kernel has no driver for the other drives of a q35 board.
iso = { file = "medium.iso", slot = "scsi1" }
kernel = { iso = "/boot/vmlinuz" }
initrd = { iso = "/boot/initrd" }
cmdline = "quiet no_timer_check console=ttyS0 console=tty0 answers={{ seed.url }}answers"

[vm]
memory = "512MiB"
disks = [{ slot = "scsi0", size = "1GiB", discard = true }]
bios = "ovmf"
machine = "q35"
efi-disk = { pre-enrolled-keys = true }

[access]
user = "root"
create = false

[seed]
kind = "kickstart"
delivery = ["kernel", "boot-disc"]
hostname = "installed"
lint = false
files = { answers = "answers.tera" }

[deadlines]
connect = "15m"

[[provision]]
name = "look"
shell = ["echo installed $(test -e /etc/installed-by-medium && echo by the medium)", "dmesg | grep -i 'secure boot'"]
"#;

async fn site() -> anyhow::Result<Option<LabSite>> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(None) };
    let more: &[&str] = &["Datastore.AllocateTemplate", "Datastore.Allocate"];
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, more].concat())]);
    let cache = images::default_cache_root();
    let medium = tokio::task::spawn_blocking(move || images::install_signed(&cache)).await??;
    std::os::unix::fs::symlink(&medium.iso, site.path().join("medium.iso"))?;
    site.write("answers.tera", "hostname={{ hostname }}\nkey={{ user.key }}\nafter=reboot\n");
    Ok(Some(site))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_installed_with_secure_boot_on_by_a_boot_disc_and_no_key_is_pressed()
-> anyhow::Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    site.write("tiny.toml", PROFILE);
    let plan = site.run(&["plan", "tiny.toml"]).await;
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    for words in [
        "boot-disc: a boot disc has the medium's own loader start its kernel",
        "not kernel: Proxmox VE starts no kernel without a boot loader",
        "a boot disc starts /boot/vmlinuz of the medium with /boot/initrd by the medium's own loader",
    ] {
        assert!(plan.stdout.contains(words), "{words}: {}", plan.stdout);
    }
    let done = site.run(&["build", "tiny.toml", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, site.lab.serial_log(FIRST_ID));
    let events: Vec<Envelope> = done.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let boot: Vec<&Event> = events
        .iter()
        .map(|each| &each.event)
        .filter(|event| matches!(event, Event::Doing { what, .. } if what.contains("typing") || what.contains("pressing")))
        .collect();
    assert!(boot.is_empty(), "{boot:?}");
    for words in ["installed by the medium", "Secure boot enabled"] {
        assert!(done.stdout.contains(words), "{words}: {}", done.stdout);
    }
    site.assert_template_only(FIRST_ID);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    let cd = template.config.iter().find(|(_, value)| value.contains("media=cdrom"));
    assert_eq!(cd, None, "medium and boot disc are gone with their drives");
    assert_eq!(template.config["boot"], "order=scsi0");
    site.close().await;
    Ok(())
}

/// What is missing is told before a VM is made; where no boot disc can be made at all, the plan says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_medium_from_which_no_boot_disc_can_be_made_is_told_before_there_is_a_vm() -> anyhow::Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    site.write("tiny.toml", &PROFILE.replace("/boot/vmlinuz", "/casper/vmlinuz"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for words in [
        "no boot disc can be made for",
        "medium.iso has no file /casper/vmlinuz; in / it has:",
        "`seed.delivery`",
    ] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
    site.assert_nothing_left();
    let on_storage =
        PROFILE.replace("{ file = \"medium.iso\", slot = \"scsi1\" }", "\"local:iso/there.iso\"");
    std::fs::write(site.path().join("there.iso"), vec![0; 4096])?;
    site.lab.import_iso("local", "there.iso", &site.path().join("there.iso"))?;
    for (profile, why) in [
        (
            PROFILE.replace("bios = \"ovmf\"", "").replace("efi-disk = { pre-enrolled-keys = true }", ""),
            "it takes `vm.bios = \"ovmf\"`",
        ),
        (
            on_storage,
            "forge can't read local:iso/there.iso, whose loader it needs: name the medium's file or URL",
        ),
        (PROFILE.replace("{{ seed.url }}answers", ""), "no `source.cmdline` with `{{ seed.url }}`"),
    ] {
        site.write("tiny.toml", &profile);
        let done = site.run(&["plan", "tiny.toml"]).await;
        assert_eq!(done.code, Some(3), "{}", done.stderr);
        assert!(done.stderr.contains("boot-disc: ") && done.stderr.contains(why), "{why}: {}", done.stderr);
    }
    site.close().await;
    Ok(())
}
