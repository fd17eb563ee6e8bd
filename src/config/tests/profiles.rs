//! One profile: its values, and everything that can be wrong with it.

use std::time::Duration;

use forge_machine::CloneSelector;

use super::{least, load, sound};
use crate::config::profile::{BootStep, CloudInit, Wanted};

#[test]
fn many_mistakes_in_one_file_are_all_told_with_their_places() {
    let text = r#"schema = 2
name = "Rocky 9"
extend = "base-linux.toml"

[os]
family = "bsd"
version = 9

[template]
name = "tpl_{{ dat }}"
tags = ["ok", "not ok"]

[source]
clone_vm = "boot-vm"

[vm]
cpus = 2
cores = "2"
memory = "4 GB"
disks = [{ slot = "scsi31", size = 0 }, { size = "20GiB", dicard = true }]
networks = [{ modell = "virtio", vlan = 4095 }]

[seed]
kind = "kickstart"
delivery = ["smbois"]

[boot]
steps = [
  { wait-for = "Install", or-after = "60" },
  { keys = "<entr>" },
  { type = "x", keys = "y" },
  { typ = "x" },
]

[access]
user = "Forge"
ssh_timeout = "30m"

[[provision]]
shel = ["true"]

[[provision]]
script = "missing.sh"
becme = true

[seal]
machine_id = false
logs = "no"

[deadlines]
boot = "0s"
"#;
    let (profile, told) = load(&[("x.toml", text)]);
    assert!(profile.is_none());
    insta::assert_snapshot!(told, @r#"
    x.toml:1:10: this version of forge reads `schema` 1, not 2
    x.toml:2:8: `Rocky 9` is no name for a profile
        help: lower-case letters, digits, `-` and `.`, a letter or digit first, 40 at most
    x.toml:3:1: unknown key `extend`
        help: did you mean `extends`?
    x.toml:6:10: `bsd` is no value of `os.family`
        help: there is: linux, windows
    x.toml:7:11: expected a string, found an integer (`os.version`)
        help: put it into quotes
    x.toml:10:8: `{{ dat }}` is not known (`template.name`)
        help: did you mean `date`?
    x.toml:11:15: `not ok` is no tag (`template.tags`)
        help: letters, digits, `_`, `-`, `+` and `.`; a letter, digit or `_` first
    x.toml:14:1: unknown key `source.clone_vm`
        help: did you mean `clone`?
    x.toml:17:1: unknown key `vm.cpus`
        help: did you mean `cores`?
    x.toml:18:9: expected an integer, found a string (`vm.cores`)
        help: leave the quotes out
    x.toml:19:10: `4 GB` is no size (`vm.memory`)
        help: write it like "4GiB", "512MiB" or "20G" (G and GiB are both 1024 MiB)
    x.toml:20:19: `scsi31` is no slot for a disk (`vm.disks[0].slot`)
        help: scsi0-30, virtio0-15, sata0-5, ide0-3, or on QEMU nvme0-7
    x.toml:20:36: `0` is no size (`vm.disks[0].size`)
        help: write it like "4GiB", "512MiB" or "20G" (G and GiB are both 1024 MiB)
    x.toml:20:41: `vm.disks[1].slot` is missing
    x.toml:20:59: unknown key `vm.disks[1].dicard`
        help: did you mean `discard`?
    x.toml:21:15: unknown key `vm.networks[0].modell`
        help: did you mean `model`?
    x.toml:21:41: 4095 is not between 1 and 4094 (`vm.networks[0].vlan`)
    x.toml:25:13: `smbois` is no way to deliver a seed (`seed.delivery`)
        help: did you mean `smbios`?
    x.toml:29:38: `60` is no time (`boot.steps[0].or-after`)
        help: write it like "90s", "10m", "1h30m" or "500ms"
    x.toml:30:12: <entr> is no key and no wait; did you mean <enter>? to type it, write <lt>entr> (at byte 0) (`boot.steps[1].keys`)
    x.toml:31:3: a boot step does one thing, and this has type and keys (`boot.steps[2]`)
        help: write one step for each
    x.toml:32:5: unknown key `boot.steps[3].typ`
        help: did you mean `type`?
    x.toml:36:8: `Forge` is no user name (`access.user`)
        help: lower-case letters, digits, `-` and `_`, a letter or `_` first, 32 at most
    x.toml:37:1: unknown key `access.ssh_timeout`
        help: that is `deadlines.connect` here
    x.toml:40:1: unknown key `provision[0].shel`
        help: did you mean `shell`?
    x.toml:43:10: the script missing.sh can't be read: No such file or directory (os error 2) (`provision[1].script`)
        help: paths are relative to the file that names them
    x.toml:44:1: unknown key `provision[1].becme`
        help: did you mean `become`?
    x.toml:47:1: there is no seal operation `machine_id` (`seal.machine_id`)
        help: did you mean `machine-id`?
    x.toml:48:8: expected true or false, found a string (`seal.logs`)
    x.toml:51:8: this must be longer than nothing (`deadlines.boot`)
    "#);
}

#[test]
fn syntax_errors_are_told_with_their_places() {
    let (_, told) = load(&[("x.toml", "schema = 1\nname = \n[vm\ncores = 2\ncores = 3\n")]);
    insta::assert_snapshot!(told, @r#"
    x.toml:2:8: this is not TOML: string values must be quoted, expected literal string
    x.toml:3:4: this is not TOML: unclosed table, expected `]`
    "#);
}

#[test]
fn a_whole_profile_is_read() {
    let text = r#"
schema = 1
name = "rocky-9"
[os]
distribution = "rocky"
version = "9"
[template]
name = "tpl-rocky-9-{{ date }}-{{ build_number }}"
tags = ["rocky-9", "minimal"]
[source]
clone = { tags = ["base", "rocky-9"] }
full = false
[vm]
cores = 2
sockets = 1
cpu = "host"
memory = 2048
node = "pve2"
agent = true
disks = [{ slot = "scsi0", size = 20, discard = true }]
networks = [{ bridge = "vmbr1", vlan = 12 }]
cloud-init = true
proxmox = { scsihw = "virtio-scsi-single", numa = true, balloon = 0 }
[seed]
delivery = ["smbios", "typed"]
hostname = "build"
user-data = { timezone = "UTC" }
[boot]
boot-wait = "500ms"
steps = [
  { wait-for = "Rocky", within = "2m" },
  { wait-still = "1s" },
  { command = ["<up>e", "<down><end>"] },
  { type = " inst.ks={{ seed.url }}ks.cfg" },
]
[[provision]]
shell = ["true", "echo ${#a[@]} {{ not ours }}"]
env = { LEVEL = 3 }
valid-exit-codes = [0, 100]
timeout = "90s"
only = ["pve"]
[[provision]]
scripts = ["a.sh", "b.sh"]
become = true
except = ["pve"]
[deadlines]
build = "2h"
"#;
    let profile = sound(&[("p/rocky-9.toml", text), ("p/a.sh", "echo a\n"), ("p/b.sh", "echo b\n")]);
    assert_eq!(profile.template_name.to_text(|_| "7".into()).as_deref(), Some("tpl-rocky-9-7-7"));
    assert_eq!(profile.source.clone, Some(CloneSelector::Tags(vec!["base".into(), "rocky-9".into()])));
    assert!(!profile.source.full);
    assert_eq!(profile.vm.memory_mib, Some(2048));
    assert_eq!(profile.vm.disks[0].size, Some(20 << 30));
    assert_eq!((profile.vm.networks[0].model.as_str(), profile.vm.networks[0].vlan), ("virtio", Some(12)));
    assert_eq!(profile.vm.cloud_init, CloudInit::Add { slot: "ide2".into(), storage: None });
    assert_eq!(profile.vm.proxmox["numa"], "1");
    assert_eq!(profile.seed.user_data, Some(serde_json::json!({ "timezone": "UTC" })));
    let kinds: Vec<String> = profile
        .boot
        .iter()
        .map(|step| match step {
            BootStep::WaitFor { sight, within, or_after, .. } => {
                let Wanted::Text(text) = &sight.wanted else { panic!("{sight:?}") };
                format!("{text} {within:?} {or_after}")
            }
            BootStep::WaitStill { quiet, within } => format!("still {quiet:?} {within:?}"),
            BootStep::Wait(time) => format!("wait {time:?}"),
            BootStep::Keys(keys) => format!("keys {keys}"),
            BootStep::Type { text, .. } => format!("type {text}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "wait 500ms",
            "Rocky 120s false",
            "still 1s 300s",
            "keys <up>e<down><end>",
            "type  inst.ks={{ seed.url }}ks.cfg"
        ]
    );
    let names: Vec<_> =
        profile.provision.iter().map(|step| (step.name.as_str(), step.script.as_str())).collect();
    assert_eq!(
        names,
        [("true", "true\necho ${#a[@]} {{ not ours }}"), ("a.sh", "echo a\n"), ("b.sh", "echo b\n")]
    );
    assert_eq!(profile.provision[0].env["LEVEL"], "3");
    assert_eq!(profile.provision[0].valid_exit_codes, [0, 100]);
    let on = |target: &str| profile.provision.iter().filter(|step| step.is_for(target, "web")).count();
    assert_eq!((on("pve"), on("local")), (1, 2));
    assert_eq!(profile.deadlines.build, Some(Duration::from_secs(7200)));
    assert_eq!(profile.deadlines.connect, Duration::from_secs(1800));
    assert!(profile.seal.values().all(|on| *on) && profile.seal.contains_key("machine-id"));
    assert_eq!(profile.files.len(), 1);
}

#[test]
fn later_findings_find_the_place_of_a_setting() {
    let profile =
        sound(&[("x.toml", &least("[vm]\ndisks = [\n  { slot = \"scsi0\", size = \"4GiB\" },\n]\n"))]);
    let place = |setting: &str| profile.place(setting).map(|place| (place.line, place.column));
    assert_eq!(place("vm.disks[0].size"), Some((6, 28)));
    assert_eq!(place("vm.disks[0]"), Some((6, 3)));
    assert_eq!(place("source.clone"), Some((3, 20)));
    assert_eq!(place("vm.disks[0].nosuch"), Some((6, 3)), "the nearest table around it");
    assert_eq!(place("vm.cores"), Some((4, 2)));
    assert_eq!(place("nosuch"), None);
}

#[test]
fn media_and_seeds_are_checked_as_far_as_they_go() {
    let text = "schema = 1\nname = \"x\"\n[source]\niso = { url = \"https://x/y.iso\" }\n[seed]\nkind = \"preseeed\"\n\
                vars = { timezone = \"UTC\" }\n";
    let (_, told) = load(&[("x.toml", text)]);
    insta::assert_snapshot!(told, @r##"
    x.toml:4:7: what is downloaded needs its `checksum` (`source.iso`)
        help: checksum = "sha256:…", or "file:https://…/SHA256SUMS": the publisher's own sums
    x.toml:6:8: `preseeed` is no value of `seed.kind`
        help: did you mean `preseed`?
    "##);
    let text = "schema = 1\nname = \"x\"\n[os]\ndistribution = \"rocky\"\nversion = \"9\"\n[source]\n\
                iso = { file = \"local:iso/x.iso\", checksum = \"sha256:12\" }\n[seed]\nkind = \"kickstart\"\n\
                vars = { timezon = \"UTC\", fips = \"maybe\", address = \"192.0.2.1\" }\n\
                files = { \"../ks.cfg\" = \"ks.tera\", \"a.cfg\" = \"nosuch\" }\n";
    let (_, told) = load(&[("x.toml", text)]);
    insta::assert_snapshot!(told, @r##"
    x.toml:7:46: `sha256:12` is no checksum (`source.iso.checksum`)
        help: checksum = "sha256:…", or "file:https://…/SHA256SUMS": the publisher's own sums
    x.toml:10:20: there is no setting `timezon` (`seed.vars.timezon`)
        help: did you mean `timezone`?
    x.toml:10:34: expected true or false, found "maybe" (`seed.vars.fips`)
        help: installs in FIPS mode; from EL 10 on not by a disc
    x.toml:10:53: expected an IPv4 address with its prefix (192.0.2.10/24), found "192.0.2.1" (`seed.vars.address`)
        help: a static IPv4 address with prefix; DHCP without
    x.toml:11:25: `../ks.cfg` can't be the name of a seed's file: letters, digits, `.`, `_`, `-`, `+`, `~`, `@` and single `/` between them (`seed.files.../ks.cfg`)
    x.toml:11:46: nosuch can't be read: No such file or directory (os error 2) (`seed.files.a.cfg`)
    "##);
}

#[test]
fn a_template_of_ones_own_is_judged_by_its_lines() {
    let text = "schema = 1\nname = \"x\"\n[variables.disk]\ndefault = \"sda\"\n[os]\ndistribution = \"rocky\"\nversion = \"9\"\n\
                [source]\niso = { file = \"local:iso/x.iso\" }\n[seed]\nkind = \"kickstart\"\n\
                files = { \"ks.cfg\" = \"ks.cfg.tera\" }\n";
    let template = "text\ncdrom\nlang {{ locale | ks }}\nkeyboard us\ntimezone {{ timezone }}\nrootpw --lock\n\
                    {% if var.disk %}\nignoredisk --only={{ var.disk | ks }}\n{% endif %}\nautopart\n%packages\n";
    let (_, told) = load(&[("x.toml", text), ("ks.cfg.tera", template)]);
    insta::assert_snapshot!(told, @r##"
    ks.cfg.tera:5:10: `{{ timezone }}` goes in as it is, so its value can break out of its place
        help: end it with the filter for the file's language: `| yaml`, `| sh`, `| ks`, `| debconf`, `| xml` or `| json`
    ks.cfg.tera:8:1: `ignoredisk` has no option `--only`
    ks.cfg.tera:11:1: `%packages` has no `%end`
    "##);
    let (profile, told) =
        load(&[("x.toml", &text.replace("[seed]", "[seed]\nlint = false")), ("ks.cfg.tera", template)]);
    assert!(profile.is_some(), "{told}");
}

#[test]
fn a_static_address_goes_by_the_drive_and_by_cloud_init() {
    let seed = |vars: &str| sound(&[("x.toml", &least(&format!("[seed]\nvars = {{ {vars} }}")))]).seed;
    let four = seed("address = \"192.0.2.10/24\", gateway = \"192.0.2.1\"");
    assert_eq!(four.ip_config.as_deref(), Some("ip=192.0.2.10/24,gw=192.0.2.1"));
    assert!(!four.more_than_a_user, "the drive can carry it");
    let config = four.network_config.expect("a configuration");
    assert_eq!(config["ethernets"]["all"]["routes"][0]["via"], "192.0.2.1");
    let more = seed("address6 = \"2001:db8::1/64\", nameservers = [\"2001:db8::53\"], packages = [\"vim\"]");
    assert!(more.more_than_a_user);
    assert_eq!(more.user_data.expect("user-data")["packages"][0], "vim");
}

#[test]
fn mistakes_of_one_setting_each() {
    let cases = [
        "[template]\nname = \"{{ seed.url }}\"",
        "[template]\nname = \"{{ date \"",
        "[vm]\nmemory = \"1024\"",
        "[vm]\nmemory = \"8MiB\"",
        "[vm]\nmemory = 4.5",
        "[vm]\ncpu = \"{{ var.cpu }}\"",
        "[vm]\ncloud-init = \"ide2\"",
        "[vm]\ndisks = [{ slot = \"scsi0\" }, { slot = \"scsi0\" }]",
        "[vm]\nagent = \"true\"",
        "[vm.proxmox]\nnet0 = 2026-11-21",
        "[seed]\ndelivery = []",
        "[seed]\ndelivery = \"smbos\"",
        "[seed]\nuser-data = \"#cloud-config\"",
        "[boot]\nsteps = [\"<enter>\"]",
        "[boot]\nsteps = [{ wait-for = \"x\", within = \"1m\", or-after = \"1m\" }]",
        "[boot]\nsteps = [{ type = \"{{ seed.uri }}\" }]",
        "[boot]\nsteps = [{}]",
        "[boot]\nboot_command = [\"<enter>\"]",
        "[access]\nuser = \"root\"\ncreate = true",
        "[[provision]]\nshell = []",
        "[[provision]]\nshell = \"true\"\nscript = \"x.sh\"",
        "[[provision]]\nshell = \"true\"\nenv = { 1X = \"a\" }\nvalid-exit-codes = [256]",
        "[[provision]]\ninline = [\"true\"]",
        "[provision]\nshell = \"true\"",
        "[deadlines]\nbuild = \"soon\"",
        "[variables]\nmirror = \"x\"",
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|more| {
            let (profile, told) = load(&[("x.toml", &least(more))]);
            assert!(profile.is_none(), "{more}");
            told
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    x.toml:5:8: `seed.url` is not known here (`template.name`)
        help: it is only known in boot steps, while the build runs

    x.toml:5:8: `{{` has no `}}` (`template.name`)

    x.toml:5:10: `1024` is no size (`vm.memory`)
        help: write it like "4GiB", "512MiB" or "20G" (G and GiB are both 1024 MiB)

    x.toml:5:10: memory is 16 MiB or more, and less than 4 PiB (`vm.memory`)

    x.toml:5:10: expected a size like "4GiB", found a number with a fraction (`vm.memory`)

    x.toml:5:7: nothing is filled in in `vm.cpu`
        help: the page of profiles says which settings take `{{ … }}`

    x.toml:5:14: expected true, false or a table, found a string (`vm.cloud-init`)
        help: cloud-init = { slot = "ide2", storage = "…" }

    x.toml:5:39: `scsi0` is named twice (`vm.disks[1].slot`)

    x.toml:5:9: expected true or false, found a string (`vm.agent`)
        help: leave the quotes out

    x.toml:5:8: expected a string, number, truth value, array or table of these, found a date (`vm.proxmox.net0`)

    x.toml:5:12: this allows no way to deliver the seed (`seed.delivery`)
        help: write "auto", or name some: smbios, typed, …

    x.toml:5:12: `smbos` is no value of `seed.delivery`
        help: did you mean `smbios`?

    x.toml:5:13: expected a table, found a string (`seed.user-data`)

    x.toml:5:10: expected a table, found a string (`boot.steps`)

    x.toml:5:37: `within` and `or-after` exclude each other (`boot.steps[0].within`)
        help: `within` fails when the time is over, `or-after` goes on with a warning

    x.toml:5:19: `{{ seed.uri }}` is not known (`boot.steps[0].type`)
        help: did you mean `seed.url`?

    x.toml:5:10: this boot step does nothing (`boot.steps[0]`)
        help: give it one of: wait-for, wait-still, wait, keys, type, command, expect, until

    x.toml:5:1: unknown key `boot.boot_command`
        help: did you mean `steps`?

    x.toml:6:10: root is there already, and sealing would remove it (`access.create`)
        help: leave `create` out, or name another user

    x.toml:4:1: this provisioner runs nothing (`provision[0]`)
        help: give it one of: shell, script, scripts, powershell, windows-restart, windows-update, shell-local, exec, ansible, ansible-local, upload, download, reboot, wait-for, breakpoint, or `content` with `destination`

    x.toml:4:1: `shell`, `powershell`, `script` and `scripts` exclude each other (`provision[0]`)
        help: write one provisioner for each

    x.toml:6:9: `1X` is no name for a variable (`provision[0].env.1X`)
        help: letters, digits and `_`, no digit first
    x.toml:7:21: this is no exit code (`provision[0].valid-exit-codes`)
        help: integers from 0 to 255

    x.toml:5:1: unknown key `provision[0].inline`
        help: did you mean `shell`?

    x.toml:4:1: expected an array of tables, found a table (`provision`)
        help: write `[[provision]]`

    x.toml:5:9: `soon` is no time (`deadlines.build`)
        help: write it like "90s", "10m", "1h30m" or "500ms"

    x.toml:5:10: expected a table, found a string (`variables.mirror`)
        help: write `[variables.mirror]` with a `default`
    "#);
}

#[test]
fn a_file_that_is_not_there_leads_to_its_neighbours() {
    let folder = super::folder(&[("debian-12.toml", ""), ("rocky-9.toml", ""), ("notes.md", "")]);
    let (_, findings) =
        crate::config::load_profile(&folder.path().join("debian12.toml"), &super::Given::default());
    insta::assert_snapshot!(super::told(&findings, folder.path()), @r#"
    debian12.toml can't be read: No such file or directory (os error 2)
        help: did you mean `debian-12.toml`?
    "#);
}

#[test]
fn a_base_alone_is_said_to_be_one_and_checked_as_far_as_it_goes() {
    let (profile, told) = load(&[("base.toml", "schema = 1\n[access]\nuser = \"forge\"\n[vm]\ncors = 1\n")]);
    assert!(profile.is_none());
    insta::assert_snapshot!(told, @r#"
    base.toml:1:1: warning: this file has no `name` and no `[source]`: it builds nothing
        help: it is a base; name a profile that extends it
    base.toml:5:1: unknown key `vm.cors`
        help: did you mean `cores`?
    "#);
}

#[test]
fn a_base_may_say_what_of_a_medium_starts_and_what_it_leaves_out_is_not_told() {
    let kernel = "schema = 1\n[source]\nkernel = { iso = \"/vmlinuz\" }\ninitrd = { iso = \"/initrd\" }\n\
                  [seed]\nkind = \"preseed\"\ndelivery = [\"kernel\"]\n";
    let windows = "schema = 1\n[source]\niso = { file = \"x.iso\" }\n[seed]\nkind = \"autounattend\"\n";
    for (name, text) in [("mine.toml", kernel), ("base-mine.toml", windows)] {
        let (profile, told) = load(&[(name, text)]);
        assert!(profile.is_none());
        let first = format!("{name}:1:1: warning: this file has no `name`: it builds nothing");
        assert_eq!(told.lines().collect::<Vec<_>>()[..1], [first.as_str()], "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
    }
    let (_, told) =
        load(&[("base-mine.toml", &windows.replace("unattend\"", "unattend\"\nvars = { swap = 1 }"))]);
    assert!(told.contains("base-mine.toml:6:17: a seed of kind `autounattend` takes no `swap`"), "{told}");
}

#[test]
fn a_profile_whose_name_was_forgotten_is_still_told() {
    for source in ["clone = \"x\"", "image = \"x\"", "iso = \"x\"", "kernel = \"vmlinuz\""] {
        let (profile, told) = load(&[("mine.toml", &format!("schema = 1\n[source]\n{source}\n"))]);
        assert!(profile.is_none() && told.contains("`name` is missing"), "{source}: {told}");
        assert!(!told.contains("it builds nothing"), "{source}: {told}");
    }
}

#[test]
fn numbers_that_no_computer_holds_are_out_of_range() {
    let (_, told) = load(&[("x.toml", &least("[vm]\ncores = 99999999999999999999\nsockets = -1\n"))]);
    assert!(told.contains("x.toml:5:9: 9223372036854775807 is not between 1 and 8192"), "{told}");
}

#[test]
fn anything_can_be_read_without_a_panic() {
    for text in [
        "",
        "\u{feff}",
        "{{",
        "\r\n\r",
        "a=1\na=2",
        "é = { ü = [1, ",
        "[[x]]\n[x]",
        "x = 1e999",
        "t = 1979-05-27",
    ] {
        let (profile, _) = load(&[("x.toml", text)]);
        assert!(profile.is_none(), "{text:?}");
    }
}

#[test]
fn sources_have_all_of_their_words() {
    let text = r#"
schema = 1
name = "x"
[source]
iso = { url = "https://x/y.iso", checksum = "file:SHA256SUMS" }
additional-isos = ["drivers.iso", { file = "local:iso/tools.iso", slot = "sata1" }]
kernel = { iso = "/boot/vmlinuz" }
initrd = { urls = ["https://x/initrd", "http://y/initrd"], checksum = "none" }
cmdline = "answers={{ seed.url }}answers quiet"
"#;
    let source = sound(&[("p/x.toml", text)]).source;
    let isos: Vec<String> = source.isos.iter().map(|iso| format!("{iso} {}", iso.checksum)).collect();
    for (iso, (begin, end)) in isos.iter().zip([
        ("https://x/y.iso file:/", "/p/SHA256SUMS"),
        ("/", "/p/drivers.iso none"),
        ("local:iso/tools.iso", " none"),
    ]) {
        assert!(iso.starts_with(begin) && iso.ends_with(end), "{iso}");
    }
    assert_eq!(isos.len(), 3);
    assert_eq!(source.iso_slots, [(2, "sata1".to_owned())].into());
    let kernel = source.kernel.expect("there is one");
    assert_eq!(kernel.files.kernel.to_string(), "/boot/vmlinuz of the medium");
    assert_eq!(
        kernel.files.initrds.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["https://x/initrd"]
    );
    assert!(kernel.cmdline.to_string().contains("seed.url"), "{}", kernel.cmdline);
    assert_eq!(
        source.mirrors.get("https://x/initrd").map(Vec::as_slice),
        Some(&["http://y/initrd".to_owned()][..])
    );

    let text = r#"
schema = 1
name = "x"
[source]
image = "https://x/disk.qcow2"
iso = { url = "https://x/a", urls = ["https://x/b", "ftp://x/c", 7], checksum = "none", slot = "virtio0" }
additional-isos = "one.iso"
initrd = "initrd"
"#;
    let (_, told) = load(&[("p/x.toml", text)]);
    for message in [
        "what is downloaded needs its `checksum` (`source.image`)",
        "`url` is named too (`source.iso.urls`)",
        "`ftp://x/c` is no address of the web (`source.iso.urls`)",
        "expected a string, found an integer (`source.iso.urls`)",
        "`virtio0` is no slot for a CD-ROM drive (`source.iso.slot`)",
        "expected an array of media, found a string (`source.additional-isos`)",
        "`source.initrd` is for a `source.kernel`",
    ] {
        assert!(told.contains(message), "{message}: {told}");
    }
    let text = "schema = 1\nname = \"x\"\n[source]\niso = { file = \"a.iso\", slot = \"ide3\" }\n\
                additional-isos = [\"b.iso\", { file = \"c.iso\", slot = \"ide3\" }]\n";
    let (_, told) = load(&[("p/x.toml", text)]);
    assert!(told.contains("the slot `ide3` is named twice"), "{told}");
    let text = "schema = 1\nname = \"x\"\n[source]\nkernel = { iso = \"/vmlinuz\" }\n";
    let (_, told) = load(&[("p/x.toml", text)]);
    assert!(told.contains("is inside a medium, and there is none"), "{told}");
}
