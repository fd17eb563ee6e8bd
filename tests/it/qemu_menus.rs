//! Boot steps of real builds when the guest's start is not as it was: a menu without a countdown, in another order, on a
//! machine eight times as slow; and a screen from which nothing comes any more, which ends the build by its name.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use forge_lab::images;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::local_site::{LocalSite, Said};
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
    let menu = format!("set default=1\nset timeout=3\n{TINY}{OTHER}");
    let Some((site, _)) = site(&menu)? else { return Ok(()) };
    let log = site.path().join("said");
    let said = std::fs::File::create(&log)?;
    let mut build = site
        .command(&["build", "menu.toml"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let times = throttled(site.path(), || {
        !said().contains("waiting for SSH") && build.try_wait().is_ok_and(|ended| ended.is_none())
    });
    let code = build.wait()?.code();
    assert_built(&site, &Said { code, text: said() });
    assert!(times > 20, "QEMU was held up many times: {times}");
    Ok(())
}

/// Lets QEMU run for 10 ms of each 80 ms while the menu is awaited and typed at. Returns how often it was held up.
fn throttled(folder: &Path, mut goes_on: impl FnMut() -> bool) -> u32 {
    let mut times = 0;
    while goes_on() {
        let Some(pid) = qemu_pid(folder) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        // It may have ended since.
        let _ = kill(pid, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(70));
        let _ = kill(pid, Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(10));
        times += 1;
    }
    times
}

fn qemu_pid(folder: &Path) -> Option<Pid> {
    vm_file(folder, "qemu.pid")?.trim().parse().ok().map(Pid::from_raw)
}

/// A file of the only VM.
fn vm_file(folder: &Path, name: &str) -> Option<String> {
    let vm = std::fs::read_dir(folder.join("state/qemu/local")).ok()?.flatten().next()?;
    let bytes = std::fs::read(vm.path().join(name)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Builds, and asserts that it fails by the name of the screen long before the time of its step is over.
fn assert_named(site: &LocalSite, name: &str) {
    let began = Instant::now();
    let said = site.run(&["build", "menu.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains(name), "{}", said.text);
    assert!(began.elapsed() < Duration::from_secs(600), "the step alone would have waited for 15 min");
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
