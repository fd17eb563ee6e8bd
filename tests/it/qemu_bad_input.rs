//! What goes wrong with a local QEMU, by the real program: it is told in QEMU's own words, nothing is left running, and
//! no file has a final name. No guest is needed for it: the disk boots nothing.

use std::process::Command;

use forge_lab::images;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::local_site::{LocalSite, Said, UnderWay};

const PROFILE: &str = r#"schema = 1
name = "bare"

[os]
family = "linux"

[source]
image = "blank.raw"

[vm]
memory = "64MiB"
"#;

/// With a guest that answers; its script goes on for longer than any test.
const ANSWERS: &str = r#"schema = 1
name = "bare"

[os]
family = "linux"

[source]
image = IMAGE

[vm]
memory = "256MiB"
disks = [{ slot = "virtio0" }]

[deadlines]
connect = "15m"

[[provision]]
name = "long"
shell = ["echo long work has begun", "sleep 900"]
"#;

/// A folder with a disk that boots nothing; `None`, with the reason printed, where there is no QEMU.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn site() -> Option<LocalSite> {
    let there = |program| Command::new(program).arg("--version").output().is_ok();
    if !there("qemu-system-x86_64") || !there("qemu-img") {
        eprintln!("skipped: QEMU is not installed");
        return None;
    }
    let site = LocalSite::new();
    std::fs::write(site.path().join("blank.raw"), vec![0; 1 << 20]).expect("written");
    site.write("bare.toml", PROFILE);
    set_target(&site, "accel = \"tcg\"");
    Some(site)
}

fn set_target(site: &LocalSite, more: &str) {
    site.write("forge.toml", &format!("[targets.local]\ntype = \"qemu\"\nimages = \"images\"\n{more}\n"));
}

/// Asserts that a build was refused before it began.
fn assert_refused(site: &LocalSite, words: &[&str]) {
    let said = site.run(&["build", "bare.toml"]);
    assert_failed(site, &said, 3, words);
    assert!(!site.path().join("output").exists(), "no evidence of a build that never began");
}

fn assert_failed(site: &LocalSite, said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, Some(code), "{}", said.text);
    for word in words {
        assert!(said.text.contains(word), "{word}: {}", said.text);
    }
    assert_eq!(site.images(), Vec::<String>::new(), "no image");
    site.assert_nothing_left();
}

/// The pid of the only VM's QEMU.
fn qemu_pid(site: &LocalSite) -> Pid {
    let folders = std::fs::read_dir(site.path().join("state/qemu/local")).expect("there").flatten();
    let pids: Vec<i32> = folders
        .filter_map(|folder| std::fs::read_to_string(folder.path().join("qemu.pid")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .collect();
    let [pid] = pids.as_slice() else { panic!("one VM: {pids:?}") };
    Pid::from_raw(*pid)
}

#[test]
fn what_a_local_qemu_lacks_is_told_before_anything_is_made() {
    let Some(site) = site() else { return };
    set_target(&site, "binary = \"no-such-qemu\"");
    assert_refused(&site, &["`no-such-qemu` is not installed", "install it"]);

    set_target(&site, "accel = \"tcg\"");
    let uefi = "memory = \"64MiB\"\nmachine = \"i440fx\"\nefi-disk = { pre-enrolled-keys = true }";
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"", uefi));
    assert_refused(&site, &["no UEFI firmware with enrolled keys", "Secure Boot needs"]);

    site.write("bare.toml", &PROFILE.replace("image =", "iso = \"no-such.iso\" #"));
    assert_refused(&site, &["no-such.iso can't be opened", "the installer has no disk to write to"]);
}

#[test]
fn a_folder_for_images_that_cant_be_written_to_is_told_before_a_build_begins_and_by_doctor() {
    let Some(site) = site() else { return };
    // A file is where the folder would be: root can write to any folder.
    site.write("occupied", "");
    site.write(
        "forge.toml",
        "[targets.local]\ntype = \"qemu\"\nimages = \"occupied/images\"\naccel = \"tcg\"\n",
    );
    assert_refused(&site, &["occupied can't be written to"]);
    let said = site.run(&["doctor"]);
    assert!(said.code != Some(0) && said.text.contains("occupied can't be written to"), "{said:?}");
}

#[test]
fn settings_that_only_proxmox_has_are_told_with_their_lines() {
    let Some(site) = site() else { return };
    let vm = r#"memory = "64MiB"
balloon = "32MiB"
hotplug = "disk"
vga = "virtio"
numa = true
node = "pve1"
disks = [{ slot = "virtio0", storage = "local-lvm", iothread = true }]
serials = ["socket", "/dev/ttyS0"]
cloud-init = { slot = "ide2", ciuser = "ops" }
"#;
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"", vm));
    let said = site.run(&["plan", "bare.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    for (line, setting) in [
        (12, "vm.balloon"),
        (13, "vm.hotplug"),
        (16, "vm.node"),
        (17, "vm.disks[0].storage"),
        (17, "vm.disks[0].iothread"),
        (18, "vm.serials"),
        (19, "vm.cloud-init.ciuser"),
    ] {
        let told =
            said.text.lines().filter(|told| told.contains(&format!("`{setting}`"))).collect::<Vec<_>>();
        assert!(
            matches!(told.as_slice(), [one] if one.contains(&format!("bare.toml:{line}:"))),
            "{setting}: {}",
            said.text
        );
    }
    assert!(!said.text.contains("`vm.vga`") && !said.text.contains("`vm.numa`"), "{}", said.text);
    assert!(said.text.contains("an image file has no cloud-init drive"), "{}", said.text);
}

#[test]
fn files_that_are_there_already_are_told_before_a_build_begins_those_of_further_disks_too() {
    let Some(site) = site() else { return };
    let disks = "memory = \"64MiB\"\nbios = \"ovmf\"\n\
        disks = [{ slot = \"virtio0\" }, { slot = \"virtio1\", size = \"1MiB\" }]";
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"", disks));
    std::fs::create_dir(site.path().join("images")).expect("made");
    for name in ["tpl-bare-1.qcow2", "tpl-bare.efivars.fd"] {
        let file = site.image(name);
        std::fs::write(&file, "precious").expect("written");
        let said = site.run(&["build", "bare.toml"]);
        assert_eq!(said.code, Some(3), "{}", said.text);
        assert!(said.text.contains(&format!("{name} exists")), "{}", said.text);
        assert!(said.text.contains("--force") && !site.path().join("output").exists(), "{}", said.text);
        assert_eq!(std::fs::read(&file).expect("there"), b"precious");
        std::fs::remove_file(&file).expect("there");
    }
    site.write(
        "twin.toml",
        &PROFILE.replace("name = \"bare\"", "name = \"twin\"\n[template]\nname = \"tpl-bare\""),
    );
    site.write("bare.toml", PROFILE);
    let said = site.run(&["build", "--force", "bare.toml", "twin.toml"]);
    assert_failed(&site, &said, 3, &["two of these builds would make", "tpl-bare.qcow2"]);
}

#[test]
fn a_corrupt_image_is_told_in_the_words_of_qemu_img() {
    let Some(site) = site() else { return };
    let mut corrupt = b"QFI\xfb\0\0\0\x03".to_vec();
    corrupt.resize(4096, 0xff);
    std::fs::write(site.path().join("blank.raw"), corrupt).expect("written");
    assert_refused(&site, &["blank.raw is no disk image that can be read", "qemu-img: Could not open"]);
}

#[test]
fn an_image_that_is_not_what_its_checksum_says_is_not_built_from() {
    let Some(site) = site() else { return };
    let sum = "0".repeat(64);
    let image = format!("image = {{ file = \"blank.raw\", checksum = \"sha256:{sum}\" }}");
    site.write("bare.toml", &PROFILE.replace("image = \"blank.raw\"", &image));
    let said = site.run(&["build", "bare.toml"]);
    let words = ["blank.raw is not what its checksum says: sha256 is 30e14955", &sum, "do not trust it"];
    assert_failed(&site, &said, 1, &words);
}

/// `auto` is tried by a guest: here, as on any machine, the plan says what came of it.
#[test]
fn the_plan_says_which_accelerator_was_found_to_work_and_why() {
    let Some(site) = site() else { return };
    set_target(&site, "accel = \"auto\"");
    let plan = site.succeeds(&["plan", "bare.toml"]);
    let line = plan.lines().find(|line| line.contains("accelerator ")).unwrap_or_default().trim();
    let reason = line.strip_prefix("accelerator TCG: KVM is no use: ");
    let reason = reason.or_else(|| line.strip_prefix("accelerator TCG: /dev/kvm can't be opened: "));
    let works = line == "accelerator KVM: a 64-bit guest ran under KVM";
    assert!(works || reason.is_some_and(|reason| reason.len() > 5), "{plan}");
}

/// As a download that broke off, or an error page that was saved as the image.
#[test]
fn an_image_that_is_not_whole_is_refused_before_anything_is_made() {
    let Some(site) = site() else { return };
    let blank = site.path().join("blank.raw");
    let mut made = std::process::Command::new("qemu-img");
    made.args(["create", "-q", "-f", "qcow2"]);
    assert!(made.arg(&blank).arg("1G").status().expect("it runs").success());
    let file = std::fs::OpenOptions::new().write(true).open(&blank).expect("opened");
    file.set_len(200).expect("cut off");
    assert_refused(
        &site,
        &["blank.raw can't be built from: it is damaged", "errors were found", "`checksum`"],
    );
}

#[test]
fn a_disk_that_is_full_is_told_in_the_words_of_qemu_img_and_the_vm_is_removed() {
    let Some(site) = site() else { return };
    // It may write no more than 32 KiB: the nearest to a full disk that needs no root. QEMU takes it for a limit of the
    // format, and these are its words.
    site.stand_in("qemu-img", "trap '' XFSZ; ulimit -f 64; exec $REAL \"$@\"");
    let mut command = site.command(&["build", "bare.toml"]);
    let said = command.output().expect("forge can be run").into();
    assert_failed(&site, &said, 1, &["could not be made", "qemu-img: ", "too large", "nothing is left"]);
}

#[test]
fn a_port_that_is_taken_is_told_and_the_vm_is_removed() {
    let Some(site) = site() else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let port = listener.local_addr().expect("bound").port();
    set_target(&site, &format!("accel = \"tcg\"\nssh-ports = \"{port}-{port}\""));
    let said = site.run(&["build", "bare.toml"]);
    let words = format!("none of the ports {port}-{port} is free");
    assert_failed(&site, &said, 1, &[&words, "nothing is left"]);
    let said = site.run(&["doctor"]);
    assert!(said.code != Some(0) && said.text.contains(&words), "{said:?}");
}

#[test]
fn a_qemu_that_ends_at_once_is_told_in_its_own_words() {
    let Some(site) = site() else { return };
    let lines = "case \"$*\" in *-name*) echo 'qemu: no luck today' >&2; exit 1;; esac\nexec $REAL \"$@\"";
    site.stand_in("qemu-system-x86_64", lines);
    let said = site.run(&["build", "bare.toml"]);
    assert_failed(&site, &said, 1, &["could not be started", "qemu: no luck today", "nothing is left"]);

    // So is an argument of the profile's whose value QEMU does not know: that it tells only when it starts.
    std::fs::remove_file(site.path().join("bin/qemu-system-x86_64")).expect("there");
    let wrong = "memory = \"64MiB\"\nargs = \"-device no-such-device\"";
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"", wrong));
    let said = site.run(&["build", "bare.toml"]);
    assert_failed(&site, &said, 1, &["no-such-device", "is not a valid device model name"]);
}

#[test]
fn what_this_machine_or_its_qemu_does_not_have_is_told_with_its_line_before_anything_is_made() {
    let Some(site) = site() else { return };
    let vm = r#"memory = "1024TiB"
cores = 4096
sockets = 2
args = ["-devise", "virtio-rng-pci"]
"#;
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"\n", vm));
    assert_refused(
        &site,
        &[
            "error: bare.toml:11:10: 1048576 GiB of memory are more than this machine has, which is ",
            "error: bare.toml:12:9: the machine `q35` of this QEMU takes ",
            " CPUs at most, not 8192 (`vm.cores`)",
            "bare.toml:12:9: warning: the guest gets 8192 CPUs, and this machine has ",
            "error: bare.toml:14:8: this QEMU has no option `-devise` (`vm.args`)",
            "help: did you mean `-device`? `qemu-system-x86_64 -help` lists them all",
        ],
    );
    let lacks = "memory = \"64MiB\"\nargs = \"-device virtio-rng-pci -M\"";
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"", lacks));
    assert_refused(&site, &["error: bare.toml:12:8: `-M` lacks its argument (`vm.args`)"]);

    // An option that its help does not list is one all the same.
    let hidden = "memory = \"64MiB\"\nargs = [\"-M\", \"hpet=off\", \"-device\", \"virtio-rng-pci\"]";
    site.write("bare.toml", &PROFILE.replace("memory = \"64MiB\"", hidden));
    let said = site.run(&["plan", "bare.toml"]);
    assert_failed(&site, &said, 0, &[]);
    assert!(!said.text.contains("vm.args"), "{}", said.text);
}

#[test]
fn a_qemu_that_is_killed_in_mid_build_ends_it_and_says_how_it_ended() {
    let Some(site) = site() else { return };
    let mut build = UnderWay::start(site.command(&["build", "bare.toml"]));
    build.says("waiting for SSH as");
    kill(qemu_pid(&site), Signal::SIGKILL).expect("it runs");
    let said = build.ended();
    let words = ["the VM stopped before the guest answered", "SIGKILL", "nothing is left"];
    assert_failed(&site, &said, 1, &words);
    assert!(!said.text.contains("never asked for its seed"), "it could not ask: {}", said.text);
}

#[test]
fn a_disk_that_boots_nothing_is_told_by_its_screen_and_not_by_its_network() {
    let Some(site) = site() else { return };
    let said = site.run(&["build", "bare.toml"]);
    let words = ["the guest will not come up: the firmware found nothing to boot", "No bootable device"];
    assert_failed(&site, &said, 1, &words);
    assert!(!said.text.contains("never asked for its seed"), "it could not ask: {}", said.text);
}

/// Builds with the tiny guest until these words are said, kills QEMU, and gives what the build says then; `None`, with the
/// reason printed, where there can be no guest.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn killed_when_it_says(profile: &str, words: &str) -> anyhow::Result<Option<(LocalSite, Said)>> {
    let Some(site) = site().filter(|_| std::env::var_os("FORGE_LAB").is_some()) else {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    };
    let image = images::tiny(&images::default_cache_root())?.disk;
    site.write("bare.toml", &profile.replace("IMAGE", &format!("{:?}", image.display().to_string())));
    set_target(&site, "");
    let mut build = UnderWay::start(site.command(&["build", "bare.toml"]));
    build.says(words);
    kill(qemu_pid(&site), Signal::SIGKILL)?;
    let said = build.ended();
    Ok(Some((site, said)))
}

#[test]
fn a_qemu_that_is_killed_while_a_script_runs_in_a_tiny_guest_is_what_the_build_says() -> anyhow::Result<()> {
    let Some((site, said)) = killed_when_it_says(ANSWERS, "long work has begun")? else { return Ok(()) };
    let words = [
        "provisioner 1 of 1 (`long`) failed: the VM does not run any more",
        "ended with signal: 9 (SIGKILL)",
        "the connection to the guest was lost before the script had ended",
        "nothing is left",
    ];
    assert_failed(&site, &said, 1, &words);
    assert!(!said.text.contains("expect-disconnect"), "no advice that can't help: {}", said.text);
    Ok(())
}

#[test]
fn a_qemu_that_is_killed_while_a_tiny_guest_is_sealed_is_what_the_build_says() -> anyhow::Result<()> {
    let (profile, _) = ANSWERS.split_once("[[provision]]").expect("it has one");
    let Some((site, said)) = killed_when_it_says(profile, " operations")? else { return Ok(()) };
    let words = [
        "the guest could not be sealed: the VM does not run any more",
        "ended with signal: 9 (SIGKILL)",
        "the work is not lost",
    ];
    assert_eq!(said.code, Some(1), "{}", said.text);
    for word in words {
        assert!(said.text.contains(word), "{word}: {}", said.text);
    }
    assert_eq!(site.images(), Vec::<String>::new(), "no image");
    assert_eq!(site.processes(), Vec::<String>::new(), "what is kept does not run");
    Ok(())
}

/// As with Packer's `-on-error=abort`: what the guest has written can be looked at.
#[test]
fn a_build_that_failed_leaves_its_disk_where_it_says_when_it_shall() {
    let Some(site) = site() else { return };
    let said = site.run(&["build", "--on-error", "keep", "bare.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let (_, folder) = said.text.split_once("the disks and serial.log stay in ").expect("it says so");
    let folder = std::path::Path::new(folder.lines().next().expect("a line").trim());
    assert!(folder.join("disk.qcow2").is_file() && folder.join("serial.log").is_file(), "{}", said.text);
    site.assert_nothing_runs();
    let said = site.run(&["gc", "--left"]);
    assert_failed(&site, &said, 0, &["vm-"]);
}

#[test]
fn what_a_killed_build_left_is_removed_by_gc_and_its_qemu_is_gone_already() {
    let Some(site) = site() else { return };
    let mut build = UnderWay::start(site.command(&["build", "bare.toml"]));
    build.says("waiting for SSH as");
    build.signal(Signal::SIGKILL);
    build.ended();
    site.assert_nothing_runs();
    let left = std::fs::read_dir(site.path().join("state/qemu/local")).expect("there").count();
    assert_eq!(left, 1, "the VM's folder is left");
    let said = site.run(&["gc"]);
    assert_failed(&site, &said, 0, &["vm-"]);
}

#[test]
fn what_is_about_templates_says_that_a_local_qemu_has_none() {
    let Some(site) = site() else { return };
    let commands: [&[&str]; 6] = [
        &["list"],
        &["latest"],
        &["promote", "tpl-x"],
        &["rollback"],
        &["prune", "--keep", "1"],
        &["test", "tpl-x"],
    ];
    for command in commands {
        let said = site.run(command);
        let words = ["target `local` is a local QEMU", "has no templates", "--target"];
        assert_failed(&site, &said, 3, &words);
    }
}
