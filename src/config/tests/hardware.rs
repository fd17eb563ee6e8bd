//! The settings of `[vm]` that are Proxmox's.

use super::{least, load, sound};

#[test]
fn hardware_has_settings_of_its_own_that_become_proxmox_s_keys() {
    let text = r#"
[vm]
bios = "ovmf"
machine = "q35"
scsihw = "virtio-scsi-single"
ostype = "l26"
numa = true
kvm = false
hotplug = "network,disk"
balloon = "512MiB"
boot-order = ["scsi0", "net0"]
vga = { type = "virtio", memory = 64 }
serials = ["socket"]
rng = { source = "/dev/urandom", max_bytes = 1024 }
pci-devices = [{ mapping = "gpu", pcie = true }]
efi-disk = { storage = "fast", pre-enrolled-keys = true }
tpm = true
storage = "lvm"
pool = "builds"
cloud-init = { slot = "ide2", ciuser = "ops", sshkeys = ["ssh-ed25519 A b", "ssh-ed25519 C d"], ipconfig = ["ip=dhcp", { ip = "192.0.2.5/24" }], nameserver = ["192.0.2.53", "192.0.2.54"], searchdomain = "example.org", cicustom = { vendor = "local:snippets/v.yaml" }, ciupgrade = false }
disks = [{ slot = "scsi0", size = "20GiB", storage = "fast", cache = "none", iothread = true, options = { mbps_wr = 1.5 } }]
networks = [{ mac = "bc:24:11:00:00:01", firewall = true, mtu = 1, queues = 4, link-down = true }]
proxmox = { watchdog = { model = "i6300esb", action = "reset" }, tablet = false }
"#;
    let profile = sound(&[("p/a.toml", &least(text))]);
    let vm = &profile.vm;
    let keys: Vec<String> = vm.proxmox.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    insta::assert_snapshot!(keys.join("\n"), @r"
    balloon: 512
    bios: ovmf
    boot: order=scsi0;net0
    cicustom: vendor=local:snippets/v.yaml
    ciupgrade: 0
    ciuser: ops
    hostpci0: mapping=gpu,pcie=1
    hotplug: network,disk
    ipconfig0: ip=dhcp
    ipconfig1: ip=192.0.2.5/24
    kvm: 0
    machine: q35
    nameserver: 192.0.2.53 192.0.2.54
    numa: 1
    ostype: l26
    rng0: source=/dev/urandom,max_bytes=1024
    scsihw: virtio-scsi-single
    searchdomain: example.org
    serial0: socket
    sshkeys: ssh-ed25519 A b
    ssh-ed25519 C d
    tablet: 0
    vga: type=virtio,memory=64
    watchdog: model=i6300esb,action=reset
    ");
    let options = |options: &std::collections::BTreeMap<String, String>| format!("{options:?}");
    assert_eq!(options(&vm.disks[0].options), r#"{"cache": "none", "iothread": "1", "mbps_wr": "1.5"}"#);
    assert_eq!(vm.disks[0].storage.as_deref(), Some("fast"));
    assert_eq!(
        options(&vm.networks[0].options),
        r#"{"firewall": "1", "link_down": "1", "mtu": "1", "queues": "4"}"#
    );
    assert_eq!(vm.networks[0].mac.as_deref(), Some("BC:24:11:00:00:01"));
    let state: Vec<String> = vm
        .state_disks
        .iter()
        .map(|disk| format!("{} {:?} {}", disk.slot, disk.storage, options(&disk.options)))
        .collect();
    assert_eq!(
        state,
        [
            r#"efidisk0 Some("fast") {"efitype": "4m", "pre-enrolled-keys": "1"}"#,
            r#"tpmstate0 None {"version": "v2.0"}"#
        ]
    );
    assert_eq!((vm.storage.as_deref(), vm.pool.as_deref()), (Some("lvm"), Some("builds")));
    assert_eq!(profile.setting("vm.proxmox.ciuser"), "vm.cloud-init.ciuser");
    assert_eq!(profile.setting("vm.proxmox.scsihw"), "vm.scsihw");
    assert!(profile.place("vm.proxmox.scsihw").is_some_and(|place| place.line > 5));
}

#[test]
fn the_password_of_the_templates_user_comes_from_a_variable_and_is_a_secret_either_way() {
    for (variables, said) in
        [("[variables.pw]\ndefault = \"open-sesame\"\n", "{{ var.pw }}"), ("", "open-sesame")]
    {
        let text = format!("{variables}[vm.cloud-init]\ncipassword = \"{said}\"\n");
        let profile = sound(&[("p/a.toml", &least(&text))]);
        assert_eq!(profile.vm.proxmox["cipassword"], "open-sesame");
        assert_eq!(profile.secrets.iter().collect::<Vec<_>>(), ["open-sesame"]);
        assert_eq!(profile.setting("vm.proxmox.cipassword"), "vm.cloud-init.cipassword");
    }
    let (_, told) = load(&[("p/a.toml", &least("[vm.cloud-init]\ncipassword = \"\"\n"))]);
    assert!(told.contains("an empty password is none"), "{told}");
}

#[test]
fn hardware_that_can_not_be_is_told() {
    let text = r#"
[vm]
machine = "q35"
serials = "socket"
balloon = "much"
networks = [{ mac = "BC:24:11:00:00" }, { mac = "01:24:11:00:00:01" }]
proxmox = { machine = "pc" }
"#;
    let (_, told) = load(&[("p/a.toml", &least(text))]);
    for message in [
        "this and `vm.proxmox.machine` set the same (`vm.machine`)",
        "expected an array, found a string (`vm.serials`)",
        "`much` is no size",
        "`BC:24:11:00:00` is no MAC address",
        "`01:24:11:00:00:01` is no MAC address",
    ] {
        assert!(told.contains(message), "{message}: {told}");
    }
}

#[test]
fn arguments_of_qemu_are_a_line_for_a_shell_or_a_list_of_which_each_is_one() {
    let args = |said: &str| {
        let profile = sound(&[("p/a.toml", &least(&format!("[vm]\nargs = {said}\n")))]);
        let line = profile.vm.proxmox.get("args").expect("there").clone();
        (shlex::split(&line).expect("whole"), line)
    };
    let (words, line) = args(r#"["-fw_cfg", "name=opt/x,string=hello world; it's", "-s"]"#);
    assert_eq!(words, ["-fw_cfg", "name=opt/x,string=hello world; it's", "-s"]);
    assert!(line.starts_with("-fw_cfg "), "what needs no quotes has none: {line}");
    let (words, line) = args(r#""-device 'a b' -s""#);
    assert_eq!(
        (words, line.as_str()),
        (["-device", "a b", "-s"].map(str::to_owned).to_vec(), "-device 'a b' -s")
    );
}

#[test]
fn a_firmware_that_is_none_an_open_quote_and_no_format_at_all_are_told() {
    let text = "[vm]\nbios = \"uefi\"\nargs = \"-device 'a\"\n[output]\nformats = []\n";
    let (_, told) = load(&[("p/a.toml", &least(text))]);
    for words in [
        "`uefi` is no firmware (`vm.bios`)",
        "there are: seabios (BIOS), ovmf (UEFI)",
        "a quote in it is not closed (`vm.args`)",
        "no format is named, so nothing would be written (`output.formats`)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
