//! Boot steps of real builds when the guest's start is not as it was: a menu without a countdown and in another order, and a
//! machine eight times as slow; and a screen from which nothing comes any more, which ends the build by its name.

use std::path::Path;
use std::time::{Duration, Instant};

use forge_lab::images;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::local_site::{LocalSite, Said, UnderWay};
use crate::support::raw_disk::RawDisk;

/// The seed's address is typed: the build succeeds only when the right entry was found and the line arrived whole.
const PROFILE: &str = r#"schema = 1
name = "menu"

[os]
family = "linux"

[output]
formats = ["qcow2"]

[source]
image = { file = "disk.raw" }

[vm]
memory = "384MiB"
machine = "i440fx"
disks = [{ slot = "virtio0" }]

[seed]
delivery = ["typed"]

[boot]
steps = [
  { wait-for = "Press enter to boot", within = "15m" },
  { keys = "<home>" },
  { until = { regex = '\*tiny *[^ \w]*$' }, press = "<down>", within = "3m" },
  { keys = "e" },
  { wait-for = "vmlinuz", within = "15m", still-for = "300ms" },
  { keys = "<down><down><end>" },
  { type = ' "ds=nocloud;s={{ seed.url }}"' },
  { keys = "<leftCtrlOn>x<leftCtrlOff>" },
]

[deadlines]
connect = "30m"
"#;

const HEAD: &str = "terminal_input console\nterminal_output console\nset gfxpayload=text\n";
const TINY: &str = "menuentry \"tiny\" {\n    linux /boot/vmlinuz rw quiet no_timer_check console=ttyS0 console=tty0 mitigations=off\n    initrd /boot/initrd\n}\n";
const OTHER: &str = "menuentry \"a memory test\" {\n    echo nothing to test\n}\n";

/// A site whose disk is the tiny guest with this menu; `None`, with the reason printed, where there can be none.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn site(menu: &str) -> anyhow::Result<Option<(LocalSite, RawDisk)>> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    }
    let disk = images::tiny(&images::default_cache_root())?.disk;
    let site = LocalSite::new();
    site.write("menu.toml", PROFILE);
    let disk = RawDisk::of(&site, &disk);
    disk.replace("/boot/grub/grub.cfg", &format!("{HEAD}{menu}"));
    Ok(Some((site, disk)))
}

fn assert_built(site: &LocalSite, said: &Said) {
    assert_eq!(said.code, Some(0), "{}{}", said.text, site.serial());
    assert!(site.images().contains(&"tpl-menu.qcow2".to_owned()), "{:?}", site.images());
    site.assert_nothing_left();
}

#[test]
fn a_tiny_guest_whose_menu_has_no_countdown_and_another_order_is_built() -> anyhow::Result<()> {
    let menu = format!("set default=0\n{OTHER}{OTHER}{TINY}");
    let Some((site, _)) = site(&menu)? else { return Ok(()) };
    assert_built(&site, &site.run(&["build", "menu.toml"]));
    Ok(())
}

#[test]
fn a_tiny_guest_whose_menu_comes_and_is_typed_at_on_a_machine_eight_times_as_slow_is_built()
-> anyhow::Result<()> {
    let menu = format!("set default=0\nset timeout=30\n{OTHER}{TINY}{OTHER}{OTHER}");
    let Some((site, _)) = site(&menu)? else { return Ok(()) };
    let mut build = UnderWay::start(site.command(&["build", "menu.toml"]));
    let mut times = 0_u32;
    build.until("the guest is waited for", |said| {
        times += u32::from(hold_up(site.path()));
        said.contains("waiting for SSH")
    });
    assert!(times > 20, "QEMU was held up many times: {times}");
    assert_built(&site, &build.ended());
    Ok(())
}

/// Lets QEMU run for 10 ms of 80 ms; `false` when there is none.
fn hold_up(folder: &Path) -> bool {
    let vm = std::fs::read_dir(folder.join("state/qemu/local")).ok().and_then(|mut vms| vms.next()?.ok());
    let pid = vm.and_then(|vm| std::fs::read_to_string(vm.path().join("qemu.pid")).ok());
    let Some(pid) = pid.and_then(|pid| pid.trim().parse().ok()).map(Pid::from_raw) else { return false };
    // It may have ended since.
    let held = kill(pid, Signal::SIGSTOP).is_ok();
    std::thread::sleep(Duration::from_millis(70));
    let _ = kill(pid, Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(10));
    held
}

/// A menu that asks first, a text that never comes, a screen at rest, a picture that is cut out of a font, and a part of the
/// screen; GRUB alone answers, and the last step ends the build.
#[test]
fn boot_steps_that_expect_go_on_and_look_at_a_part_of_the_screen_are_carried_out_at_a_menu()
-> anyhow::Result<()> {
    let menu = format!("submenu \"Are you sure?\" --hotkey=y {{\n{TINY}{OTHER}}}\n");
    let Some((site, _)) = site(&menu)? else { return Ok(()) };
    let (head, _) = PROFILE.split_once("[seed]").expect("it has one");
    let steps = r#"[boot]
steps = [
  { expect = [
    { text = "Are you sure?", steps = [{ keys = "y" }], again = true },
    { text = "a memory test", lines = "1-12" },
    { text = "a memory test", fail = "it stands in the upper half" },
  ], within = "10m" },
  { wait-for = "a text that never comes", or-after = "2s" },
  { wait-still = "1s" },
  { expect = [
    { text = "tiny", lines = "20-25", fail = "there is no such entry" },
    { regex = 'a memory test', columns = "1-40", fail = "the steps came to their end" },
  ] },
]
"#;
    site.write("menu.toml", &format!("{head}{steps}"));
    let said = site.run(&["build", "menu.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    for words in [
        "\"Are you sure?\" is on the screen",
        "boot step 2: \"a text that never comes\" was not seen within 2 s; going on",
        "the steps came to their end",
        "at boot step 4 of 4",
    ] {
        assert!(said.text.contains(words), "{words}: {}", said.text);
    }
    site.assert_nothing_left();

    // An outcome whose steps do not help is not tried for ever.
    let steps = "[boot]\nsteps = [{ expect = [{ text = \"Are you sure?\", steps = [{ wait = \"1s\" }], again = true }, { text = \"never\" }], within = \"5s\" }]\n";
    site.write("menu.toml", &format!("{head}{steps}"));
    let said = site.run(&["build", "menu.toml"]);
    assert!(said.code == Some(1) && said.text.contains("came again and again for 5 s"), "{}", said.text);
    site.assert_nothing_left();
    Ok(())
}

/// Builds, and asserts that it fails by the name of the screen long before the time of its step is over.
fn assert_named(site: &LocalSite, name: &str) {
    let said = site.run(&["build", "menu.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains(name), "{}", said.text);
    // By the build's own clock: from the last frame that was new to its failure.
    let mut builds = std::fs::read_dir(site.path().join("output/menu")).expect("there").flatten();
    let evidence = builds.next().expect("one build").path();
    let times = |file: &str, key: &str| -> Vec<u64> {
        let text = std::fs::read_to_string(evidence.join(file)).expect("there");
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.filter_map(|line| line[key].as_u64()).collect()
    };
    let [shown, ended] = [("recording/frames.jsonl", "t-ms"), ("events.jsonl", "t-ms")]
        .map(|(file, key)| times(file, key).into_iter().max().expect("one"));
    assert!(ended < shown + 60_000, "{} ms after the last new frame", ended - shown);
    site.assert_nothing_left();
}

#[test]
fn a_tiny_guest_without_its_initrd_ends_the_build_as_a_kernel_panic() -> anyhow::Result<()> {
    let menu = format!("set timeout=0\n{}", TINY.replace("    initrd /boot/initrd\n", ""));
    let Some((site, _)) = site(&menu)? else { return Ok(()) };
    assert_named(&site, "the kernel panicked");
    Ok(())
}

#[test]
fn a_tiny_guest_whose_disk_does_not_boot_ends_the_build_in_the_firmware_s_words() -> anyhow::Result<()> {
    let Some((site, disk)) = site("")? else { return Ok(()) };
    disk.wipe_start();
    assert_named(&site, "No bootable device");
    Ok(())
}

/// A profile for a disk that has no loader for UEFI, with these boot steps.
fn uefi(boot: &str) -> String {
    let (head, _) = PROFILE.split_once("[seed]").expect("it has one");
    format!("{}\n{boot}", head.replace("machine = \"i440fx\"", "bios = \"ovmf\""))
}

#[test]
fn a_tiny_guest_whose_disk_does_not_boot_with_uefi_ends_the_build_in_the_firmware_s_words()
-> anyhow::Result<()> {
    let Some((site, disk)) = site("")? else { return Ok(()) };
    disk.wipe_start();
    site.write("menu.toml", &uefi(""));
    let began = Instant::now();
    let said = site.run(&["build", "menu.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    for words in [
        "the guest will not come up: the firmware started its own shell",
        "no medium or disk booted with UEFI",
        "nothing is left",
    ] {
        assert!(said.text.contains(words), "{words}: {}", said.text);
    }
    assert!(!said.text.contains("never asked for its seed"), "{}", said.text);
    assert!(began.elapsed() < Duration::from_secs(600), "its deadline alone would have been 30 min");
    site.assert_nothing_left();
    Ok(())
}

/// Nobody types there while a boot step waits for something else.
#[test]
fn the_shell_of_the_firmware_ends_a_boot_step_that_waits_for_something_else() -> anyhow::Result<()> {
    let Some((site, disk)) = site("")? else { return Ok(()) };
    disk.wipe_start();
    site.write(
        "menu.toml",
        &uefi("[boot]\nsteps = [{ wait-for = \"Press enter to boot\", within = \"15m\" }]\n"),
    );
    assert_named(&site, "the firmware started its own shell");
    Ok(())
}

#[test]
fn the_shell_of_the_firmware_is_no_end_for_a_profile_that_types_there() -> anyhow::Result<()> {
    let Some((site, disk)) = site("")? else { return Ok(()) };
    disk.wipe_start();
    let boot = r#"[boot]
steps = [{ wait-for = "Shell>", within = "15m" }, { type = "echo still here" }, { keys = "<enter>" }]

[deadlines]
connect = "30s"
"#;
    site.write("menu.toml", &uefi(boot));
    let said = site.run(&["build", "menu.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    for words in ["error in stage connect", "the guest never asked for its seed: can it reach"] {
        assert!(said.text.contains(words), "{words}: {}", said.text);
    }
    assert!(!said.text.contains("will not come up"), "{}", said.text);
    site.assert_nothing_left();
    Ok(())
}
