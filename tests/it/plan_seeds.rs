//! Which boot steps a plan takes, by the way of its seed and the firmware; by the real program.

use crate::support::local_site::LocalSite;

const PROFILE: &str = r#"schema = 1
name = "steps"

[os]
distribution = "debian"
version = "12"

[source]
iso = "medium.iso"
kernel = "vmlinuz"
cmdline = "{{ seed.arguments }} ---"

[vm]
memory = "256MiB"
disks = [{ slot = "scsi0", size = "1GiB" }]
FIRMWARE

[seed]
kind = "preseed"
delivery = [DELIVERY]

[boot]
steps = [
  { wait-for = "menu", when = "typed" },
  { type = "install {{ seed.arguments }}", when = ["typed", "bios"] },
  { type = "linux {{ seed.arguments }}", when = ["typed", "uefi"] },
]
"#;

fn plan(delivery: &str, firmware: &str) -> String {
    let site = LocalSite::new();
    site.write("medium.iso", "a medium");
    site.write("vmlinuz", "a kernel");
    site.write("steps.toml", &PROFILE.replace("DELIVERY", delivery).replace("FIRMWARE", firmware));
    site.succeeds(&["plan", "steps.toml"])
}

#[test]
fn a_kernel_that_is_told_its_seed_needs_no_boot_steps() {
    let told = plan("\"kernel\", \"typed\"", "");
    assert!(told.contains("told: <seed.arguments> ---"), "{told}");
    assert!(told.contains("seed       kernel:"), "{told}");
    assert!(!told.contains("menu"), "no step waits for a menu that does not come: {told}");
}

#[test]
fn a_seed_that_is_typed_takes_the_steps_of_its_firmware_and_the_medium_starts_by_itself() {
    let told = plan("\"typed\"", "");
    assert!(told.contains("install <seed.arguments>") && !told.contains("linux <seed"), "{told}");
    assert!(!told.contains("starts the kernel"), "the medium's menu is typed at: {told}");
    let told = plan("\"typed\"", "bios = \"ovmf\"");
    assert!(told.contains("linux <seed.arguments>") && !told.contains("install <seed"), "{told}");
}

#[test]
fn the_medium_of_another_system_is_refused() {
    let site = LocalSite::new();
    let mut medium = vec![0; 40 * 2048];
    medium[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\x01CD001");
    medium[16 * 2048 + 40..16 * 2048 + 72].copy_from_slice(b"Ubuntu-Server 24.04.3 LTS amd64 ");
    std::fs::write(site.path().join("medium.iso"), medium).expect("written");
    site.write("vmlinuz", "a kernel");
    site.write("steps.toml", &PROFILE.replace("DELIVERY", "\"typed\"").replace("FIRMWARE", ""));
    let said = site.run(&["plan", "steps.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("steps.toml:9:") && said.text.contains("another medium"), "{}", said.text);
    assert!(said.text.contains("Ubuntu-Server 24.04.3 LTS amd64"), "{}", said.text);
}

#[test]
fn the_rendered_disc_and_floppy_hold_what_lies_beside_them() {
    let site = LocalSite::new();
    site.succeeds(&["render", "rocky-9", "-o", "seed", "--disc", "--floppy"]);
    let answers = std::fs::read(site.path().join("seed/ks.cfg")).expect("rendered");
    let read = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).current_dir(site.path()).output();
        output.map(|output| output.stdout)
    };
    let found = [
        read("mtype", &["-i", "seed/seed.img", "::ks.cfg"]),
        read("isoinfo", &["-R", "-x", "/ks.cfg", "-i", "seed/seed.iso"]),
    ];
    for found in found {
        match found {
            Ok(found) => assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&answers)),
            Err(error) => eprintln!("skipped: mtools or isoinfo can't be run: {error}"),
        }
    }
}

#[test]
fn files_of_the_profile_s_own_are_rendered_beside_the_seed_and_onto_its_disc() {
    let site = LocalSite::new();
    std::fs::create_dir_all(site.path().join("web/deep")).expect("made");
    let binary = [0xff_u8, 0x00, 0xfe].repeat(3000);
    std::fs::write(site.path().join("web/deep/tool"), &binary).expect("written");
    let own = "schema = 1\nname = \"own\"\n[source]\nclone = \"boot-vm\"\n[seed]\nkind = \"nocloud\"\ndirectory = \"web\"\n\
               disc = { label = \"CIDATA\", files = { \"on-disc.txt\" = { content = \"only on the disc\" } } }\n";
    // What nobody would find on it is refused, as a plan refuses it.
    for (was, is, words) in [
        ("CIDATA", "OWN", "its reader looks for one that is labelled `cidata` (`seed.disc.label`)"),
        (
            "on-disc.txt",
            "user-data",
            "`user-data` is a file of the seed already, which is on this disc (`seed.disc`)",
        ),
    ] {
        site.write("own.toml", &own.replace(was, is));
        let said = site.run(&["render", "own.toml", "-o", "seed", "--disc"]);
        assert_eq!(said.code, Some(3), "{}", said.text);
        assert!(said.text.contains(words) && !site.path().join("seed").exists(), "{}", said.text);
    }
    site.write("own.toml", own);
    site.succeeds(&["render", "own.toml", "-o", "seed", "--disc"]);
    let read = |name: &str| std::fs::read(site.path().join("seed").join(name)).expect("it is rendered");
    assert_eq!(read("deep/tool"), binary);
    assert!(!site.path().join("seed/on-disc.txt").exists(), "it is not served");
    let disc = read("seed.iso");
    let holds = |bytes: &[u8]| disc.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(&binary) && holds(b"only on the disc") && holds(b"#cloud-config"));
    assert_eq!(&disc[16 * 2048 + 40..][..6], b"CIDATA");
    // What is gone is told before anything is written.
    std::fs::remove_dir_all(site.path().join("web")).expect("removed");
    let said = site.run(&["validate", "own.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(
        said.text.contains("own.toml:7:13: web can't be read: No such file or directory"),
        "{}",
        said.text
    );
}

#[test]
fn a_key_that_is_private_or_none_does_not_come_into_a_rendered_seed() {
    let site = LocalSite::new();
    site.write(
        "p.toml",
        "schema = 1\nname = \"p\"\n[source]\nclone = \"boot-vm\"\n[seed]\nkind = \"nocloud\"\n",
    );
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", "mine"])
        .current_dir(site.path())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: ssh-keygen is not here");
        return;
    }
    site.write("garbage", "garbage\n");
    for (key, words) in [
        ("mine", "mine is a private key, which stays with you: give the public one (mine.pub)"),
        ("garbage", "garbage is no public key as OpenSSH writes it"),
        ("gone", "the key gone can't be read: No such file or directory"),
    ] {
        let said = site.run(&["render", "p.toml", "-o", "seed", "--key", key]);
        assert!(said.code == Some(3) && said.text.contains(words), "{}", said.text);
        assert!(!site.path().join("seed").exists(), "nothing is written");
    }
    site.succeeds(&["render", "p.toml", "-o", "seed", "--key", "mine.pub"]);
    let data = std::fs::read_to_string(site.path().join("seed/user-data")).expect("it is rendered");
    assert!(data.contains("ssh-ed25519 AAAA"), "{data}");
}

#[test]
fn a_seed_that_can_not_give_the_guest_a_host_key_is_told_in_the_plan() {
    let site = LocalSite::new();
    site.write("disk.raw", "a disk");
    let told = |more: &str| {
        let head = "schema = 1\nname = \"given\"\n[source]\nimage = \"disk.raw\"\n";
        site.write("given.toml", &format!("{head}[access]\nhost-key = \"seed\"\n{more}"));
        site.run(&["plan", "given.toml"]).text
    };
    for (more, why) in [
        ("via = [\"agent\"]\n", "nothing asks for it without SSH"),
        ("[seed]\ndelivery = [\"none\"]\n", "nothing carries a seed to the guest"),
        (
            "[seed]\nuser-data = { ssh_keys = { rsa_private = \"x\" } }\n",
            "`seed.user-data` gives it `ssh_keys` of its own",
        ),
    ] {
        let said = told(more);
        assert!(said.contains(&format!("the seed can't give the guest a host key: {why}")), "{said}");
    }
    let fine = told("");
    assert!(!fine.contains("a host key"), "{fine}");
}

#[test]
fn ansible_with_a_login_that_its_own_ssh_can_not_make_is_told_in_the_plan() {
    let told = |access: &str| {
        let site = LocalSite::new();
        site.write("medium.iso", "a medium");
        site.write("vmlinuz", "a kernel");
        site.write("site.yml", "[]\n");
        let profile = PROFILE.replace("DELIVERY", "\"typed\"").replace("FIRMWARE", "");
        let step = "[[provision]]\nname = \"book\"\nansible = \"site.yml\"\n";
        site.write("steps.toml", &format!("{profile}\n[access]\n{access}\n{step}"));
        site.succeeds(&["plan", "steps.toml"])
    };
    let words = "`book`: Ansible logs in to the guest itself, and the guest does not know the build's key";
    let password = "user = \"me\"\ncreate = false\npassword = { command = [\"echo\", \"a word of it\"] }";
    let said = told(password);
    assert!(said.contains(words) && said.contains("`access.agent-auth = true`"), "{said}");
    for fine in ["user = \"me\"".to_owned(), format!("{password}\nagent-auth = true")] {
        assert!(!told(&fine).contains("Ansible logs in"), "{fine}");
    }
}
