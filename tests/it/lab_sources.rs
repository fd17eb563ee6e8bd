//! Builds of the tiny guest on the lab that install it from a medium, under BIOS and UEFI.

use forge::event::{Envelope, Event};
use forge_lab::images;

use crate::support::lab_site::{Done, FIRST_ID, LabSite};

/// A profile that installs the tiny guest: `SOURCE` and `VM` are filled in.
const INSTALL: &str = r#"schema = 1
name = "tiny"

[os]
family = "linux"

[template]
name = "tpl-tiny"

[source]
SOURCE

[vm]
memory = "512MiB"
disks = [{ slot = "scsi0", size = "1GiB", discard = true }]
VM

[access]
user = "root"
create = false

[seed]
kind = "kickstart"
delivery = "typed"
hostname = "installed"
lint = false
files = { answers = "answers.tera" }

[boot]
steps = [
  { wait-for = "Install the tiny guest", within = "10m" },
  { keys = "c" },
  { wait-for = { regex = '^\s*grub>\s*$' }, within = "5m" },
  { type = "linux /boot/vmlinuz quiet no_timer_check console=ttyS0 console=tty0 answers={{ seed.url }}answers", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' }, within = "5m" },
  { type = "initrd /boot/initrd", enter = true },
  { wait-for = { regex = '^\s*grub>\s*$' }, within = "5m" },
  { type = "boot", enter = true },
]

[deadlines]
connect = "15m"

[[provision]]
name = "hello"
shell = ["echo hello from $(hostname), installed $(test -e /etc/installed-by-medium && echo by the medium)"]
"#;

/// A site with the install medium on its storage; `None` where there can't be one.
async fn with_medium(uefi: bool) -> anyhow::Result<Option<LabSite>> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(None) };
    let cache = images::default_cache_root();
    let make = if uefi { images::install_uefi } else { images::install };
    let medium = tokio::task::spawn_blocking(move || make(&cache)).await??;
    site.lab.import_iso("local", "install.iso", &medium.iso)?;
    Ok(Some(site))
}

fn profile(site: &LabSite, source: &str, vm: &str, after: &str) {
    site.write("tiny.toml", &INSTALL.replace("SOURCE", source).replace("VM", vm));
    let answers = format!("hostname={{{{ hostname }}}}\nkey={{{{ user.key }}}}\nafter={after}\n");
    site.write("answers.tera", &answers);
}

/// Asserts that a template was made, without the media.
fn assert_installed(site: &LabSite, done: &Done) {
    let serial = site.lab.serial_log(FIRST_ID);
    assert_eq!(done.code, Some(0), "{}\n{serial}", done.stderr);
    assert!(done.stderr.contains("hello from installed, installed by the medium"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    let cd = template.config.iter().find(|(_, value)| value.contains("media=cdrom"));
    assert_eq!(cd, None, "the media are gone with their drives");
    assert_eq!(template.config["boot"], "order=scsi0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_installed_from_a_medium_by_typing_and_becomes_a_template() -> anyhow::Result<()> {
    let Some(site) = with_medium(false).await? else { return Ok(()) };
    profile(&site, "iso = \"local:iso/install.iso\"", "", "reboot");
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_installed(&site, &done);
    site.assert_boots_as_a_clone(FIRST_ID).await;
    site.close().await;
    Ok(())
}

/// Its medium says that it is done by switching the VM off, which is started anew without the medium.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_whose_medium_powers_off_is_started_without_it_and_becomes_a_template()
-> anyhow::Result<()> {
    let Some(site) = with_medium(false).await? else { return Ok(()) };
    profile(&site, "iso = \"local:iso/install.iso\"\nafter-install = \"poweroff\"", "", "poweroff");
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_installed(&site, &done);
    assert!(done.stderr.contains("the installer is done"), "{}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_installed_under_uefi_by_typing_and_becomes_a_template() -> anyhow::Result<()> {
    let Some(site) = with_medium(true).await? else { return Ok(()) };
    profile(&site, "iso = \"local:iso/install.iso\"", "bios = \"ovmf\"\nefi-disk = {}", "reboot");
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_installed(&site, &done);
    let template = site.lab.vm(FIRST_ID).expect("it is there");
    assert_eq!(template.config["bios"], "ovmf");
    assert!(template.config.contains_key("efidisk0"), "{:?}", template.config);
    site.assert_boots_as_a_clone(FIRST_ID).await;
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_whose_installer_starts_again_is_given_up_and_removed() -> anyhow::Result<()> {
    let Some(site) = with_medium(false).await? else { return Ok(()) };
    profile(&site, "iso = \"local:iso/install.iso\"", "boot-order = \"order=ide2;scsi0\"", "reboot");
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("the installer has started a second time"), "{}", done.stderr);
    assert!(done.stderr.contains("its first screen is shown again"), "{}", done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

/// No menu is shown the second time: only its answers tell that the installer is at work again.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_whose_installer_fetches_its_answers_again_is_given_up_and_removed() -> anyhow::Result<()>
{
    let Some(site) = with_medium(false).await? else { return Ok(()) };
    profile(&site, "iso = \"local:iso/install.iso\"", "", "again");
    let done = site.run(&["build", "tiny.toml", "--json"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stdout);
    let words = ["started a second time", "answers was fetched again", "was a boot loader for this firmware"];
    for words in words {
        assert!(done.stdout.contains(words), "{words}: {}", done.stdout);
    }
    // It would go on for ever: that it ended is due to the first fetch that is no retry of the one before (on a fast
    // machine the guest is back within the seconds of a retry), and to nothing later.
    let envelopes: Vec<Envelope> = done.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of_answers =
        |event: &Event| matches!(event, Event::Fetched { path, status: 200, .. } if path == "answers");
    let fetches: Vec<usize> = (0..envelopes.len()).filter(|at| of_answers(&envelopes[*at].event)).collect();
    let [first, retries @ .., last] = fetches.as_slice() else { panic!("{fetches:?}: {}", done.stdout) };
    let later = |at: &usize| envelopes[*at].t_ms - envelopes[*first].t_ms;
    assert!(
        later(last) > 9_500 && retries.iter().all(|at| later(at) < 10_500),
        "{fetches:?}: {}",
        done.stdout
    );
    let begun = |event: &Event| matches!(event, Event::StageStarted { .. } | Event::StageFinished { .. });
    let after: Vec<&Event> = envelopes.iter().skip(last + 1).map(|each| &each.event).collect();
    assert!(!after.iter().any(|event| begun(event)), "no stage ends or begins after it: {after:?}");
    assert!(matches!(after.last(), Some(Event::BuildFinished { .. })), "{after:?}");
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
