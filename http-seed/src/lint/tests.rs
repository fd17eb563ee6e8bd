use super::*;

fn told(found: &[Found]) -> String {
    let line = |found: &Found| {
        let help = if found.help.is_empty() { String::new() } else { format!(" ({})", found.help) };
        format!("{}: {}{help}", found.line, found.message)
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn kickstart_by_release() {
    let text = "auth --x\nurl --mirorlist=x\nlang en\nkeyboard us\ntimezone UTC --isUtc\nrootpw --lock\nautopart\n\
                timesource --ntp-server='a --b c'\n%packages\n--x\n%post\necho\n%end\n%pst\n%end\n";
    insta::assert_snapshot!(told(&lint(Kind::Kickstart, "ks.cfg", text, "rocky", "10.1")), @r##"
        1: `auth` is no command of this release's kickstart (el10) (pykickstart's `ksvalidator` says since when)
        2: `url` has no option `--mirorlist` (did you mean `mirrorlist`?)
        5: `timezone` of this release (el10) has no option `--isUtc`
        9: `%packages` has no `%end`
        14: there is no section `%pst` (did you mean `%post`?)
        "##);
}

#[test]
fn kickstart_values_that_anaconda_stops_at() {
    let text = "cdrom\nlang # en\nkeyboard\ntimezone\nrootpw --lock\nnetwork --device=link --bootproto=dhpc\n\
                network --bootproto zzz\nnetwork --bootproto='static' --ip=192.0.2.1\nautopart --type=btrfs --nohome\n\
                keyboard --xlayouts=us # --type=x\ntimezone --utc\nautopart --type=THINP\nlang \"\"\n";
    insta::assert_snapshot!(told(&lint(Kind::Kickstart, "ks.cfg", text, "rocky", "9")), @r##"
        2: `lang` says nothing (such as `lang en_US.UTF-8`)
        3: `keyboard` says nothing (such as `keyboard --xlayouts=us`)
        4: `timezone` says nothing (such as `timezone Europe/Berlin --utc`)
        6: `--bootproto` of `network` is one of dhcp, bootp, static, query, ibft, not `dhpc`
        7: `--bootproto` of `network` is one of dhcp, bootp, static, query, ibft, not `zzz`
        9: `--type` of `autopart` is one of lvm, plain, thinp, not `btrfs`
        13: `lang` says nothing (such as `lang en_US.UTF-8`)
        "##);
    let text = "cdrom\nlang en\nkeyboard us\ntimezone UTC\nrootpw --lock\nautopart --type=btrfs\n";
    assert_eq!(told(&lint(Kind::Kickstart, "ks.cfg", text, "fedora", "43")), "");
}

#[test]
fn unattend_values_that_setup_stops_at() {
    let text = r#"<unattend xmlns="urn:schemas-microsoft-com:unattend">
<settings pass="oobeSystem">
<component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
<OOBE><HideEULAPage>yes</HideEULAPage>
<ProtectYourPC>5</ProtectYourPC></OOBE>
<AutoLogon><Enabled>True</Enabled>
<LogonCount>one</LogonCount></AutoLogon>
</component>
<component name="Microsoft-Windows-Setup" processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
<DiskConfiguration><WillShowUI>Nver</WillShowUI><Disk><CreatePartitions><CreatePartition>
<Type>Primry</Type>
<Size>big</Size>
<Extend>1</Extend></CreatePartition></CreatePartitions></Disk></DiskConfiguration>
<UserData>
<AcceptEula>yes</AcceptEula></UserData>
</component>
</settings>
</unattend>"#;
    let found = told(&lint(Kind::Autounattend, "Autounattend.xml", text, "", ""));
    let values: Vec<&str> = found.lines().filter(|line| line.contains(", not `")).collect();
    insta::assert_snapshot!(values.join("\n"), @r##"
        4: <HideEULAPage> is true or false, not `yes`
        5: <ProtectYourPC> is one of 1, 2, 3, not `5`
        7: <LogonCount> is a number, not `one`
        10: <WillShowUI> is one of Always, OnError, Never, not `Nver` (did you mean `Never`?)
        11: <Type> is one of Primary, EFI, Extended, Logical, MSR, not `Primry` (did you mean `Primary`?)
        12: <Size> is a number, not `big`
        13: <Extend> is true or false, not `1`
        15: <AcceptEula> is true or false, not `yes`
        "##);
}

#[test]
fn autoyast_types_and_loaders_are_those_that_yast_has() {
    let text = "<profile xmlns=\"http://www.suse.com/1.0/yast2ns\" xmlns:config=\"http://www.suse.com/1.0/configns\">\n<bootloader>\n\
                <loader_type>grubb</loader_type>\n<global><timeout config:type=\"integer\">soon</timeout>\n\
                <append config:type=\"sting\">x</append></global>\n</bootloader>\n<general><mode>\n\
                <confirm t=\"bolean\">false</confirm></mode></general>\n</profile>";
    insta::assert_snapshot!(told(&lint(Kind::Autoyast, "autoinst.xml", text, "", "")), @r##"
        3: `grubb` is no loader (default, none, grub2, grub2-efi, grub2-bls, systemd-boot) (did you mean `grub2`?)
        4: <timeout> is a number, not `soon`
        5: <append> has the type `sting`, and there are boolean, integer, string, symbol, list, map (did you mean `string`?)
        8: <confirm> has the type `bolean`, and there are boolean, integer, string, symbol, list, map (did you mean `boolean`?)
        "##);
}

#[test]
fn preseed_questions() {
    let text = "d-i debian-installer/local string x\nd-i time/zone text UTC\nd-i partman/confirm boolean yes\n\
                d-i clock-setup/ntp string true\nd-i passwd/username sting x\nd-i x\ntasksel tasksel/first multiselect\n";
    insta::assert_snapshot!(told(&lint(Kind::Preseed, "preseed.cfg", text, "debian", "12")), @r##"
        1: the installer asks no question `debian-installer/local` (did you mean `debian-installer/locale`?)
        3: `partman/confirm` is true or false, not `yes`
        4: `clock-setup/ntp` is a boolean, not a string
        5: `sting` is no type of debconf (did you mean `string`?)
        6: a line has an owner, a question, a type and a value (see B.3 of the guide)
        7: `debian-installer/locale` is not answered: the installer would ask the language
        7: `keyboard-configuration/xkb-keymap` is not answered: the installer would ask the keyboard
        7: `netcfg/get_hostname` is not answered: the installer would ask the host name
        7: `mirror/http/proxy` is not answered: the installer would ask the proxy
        7: `partman-auto/method` is not answered: the installer would ask how to divide the disk
        7: `grub-installer/bootdev` is not answered: the installer would ask where the boot loader goes
        "##);
}

#[test]
fn autoinstall_keys() {
    let text = "#cloud-config\nautoinstall:\n  version: 2\n  storag: {}\n  late-commands: x\n  shutdown: halt\n  \
                keyboard: {layot: us}\n  user-data: {user: 1, paccages: []}\n";
    insta::assert_snapshot!(told(&lint(Kind::Autoinstall, "user-data", text, "ubuntu", "24.04")), @r##"
        3: `version` must be 1
        4: autoinstall has no key `storag` (did you mean `storage`?)
        5: `late-commands` is a list
        6: `shutdown` is one of reboot, poweroff, not "halt"
        7: `keyboard` has no key `layot` (did you mean `layout`?)
        8: `user` is a string or a table
        8: cloud-init has no key `paccages` (did you mean `packages`?)
        "##);
    let text = "users: []\n";
    insta::assert_snapshot!(told(&lint(Kind::Nocloud, "user-data", text, "", "")), @r##"
        1: the first line is not `#cloud-config` (cloud-init tells user-data by it)
        "##);
}

#[test]
fn what_is_in_the_keys_of_user_data_is_judged_by_cloud_inits_schema() {
    let text = "#cloud-config\nusers:\n- default\n- name: a\n  sudo: null\n- name: b\n  lock_passwd: maybe\n  shel: /bin/sh\n\
                write_files:\n- path: /a\n  encoding: base65\n- paht: /b\n  permissions: 420\nntp:\n  enabled: x\n  servers: a\n\
                ssh_pwauth: 3\ndisk_setup: []\npower_state:\n  mode: rebot\nchpasswd:\n  expire: off\n  users:\n  - {name: a, type: txt}\n\
                growpart:\n  mode: off\napt:\n  primary:\n  - uri: http://a/\n  source: {}\npackages: []\n";
    insta::assert_snapshot!(told(&lint(Kind::Nocloud, "user-data", text, "", "")), @r##"
        7: `users[2].lock_passwd` is true or false
        8: `users[2]` has no key `shel` (did you mean `shell`?)
        11: `write_files[0].encoding` is one of gz, gzip, gz+base64, gzip+base64, gz+b64, gzip+b64, b64, base64, text/plain, not `base65` (did you mean `base64`?)
        12: `write_files[1]` has no key `paht` (there are: path, content, source, owner, permissions, encoding, append, defer)
        12: `write_files[1]` lacks `path`
        13: `write_files[1].permissions` is a string
        15: `ntp.enabled` is true or false
        16: `ntp.servers` is a list
        17: `ssh_pwauth` is true or false or a string
        18: `disk_setup` is a table
        20: `power_state.mode` is one of poweroff, reboot, halt, not `rebot` (did you mean `reboot`?)
        24: `chpasswd.users[0].type` is one of hash, text, RANDOM, not `txt` (did you mean `text`?)
        29: `apt.primary[0]` lacks `arches`
        30: `apt` has no key `source` (did you mean `sources`?)
        "##);
    let sound = "#cloud-config\nusers:\n- {name: a, groups: [b, c], uid: 1000, ssh_authorized_keys: [k]}\nntp:\n\
                 apt:\n  http_proxy: http://a/\n  sources: {x: {source: deb a}}\npower_state: {mode: reboot, delay: +5}\n\
                 write_files:\n- {path: /a, content: b, permissions: '0644', append: yes}\nuser: {name: x}\n";
    assert_eq!(told(&lint(Kind::Nocloud, "user-data", sound, "", "")), "");
}

#[test]
fn a_network_configuration_is_judged_by_the_schema_of_its_version() {
    let network = |text: &str| told(&lint(Kind::Nocloud, "network-config", text, "", ""));
    for (text, wrong) in [
        ("version: 3\n", "1: `version` of a network configuration is 1 or 2, not 3"),
        ("ethernets: {}\n", "1: a network configuration has a `version`: 1 or 2"),
        ("- a\n", "1: a network configuration is a table"),
        (
            "version: 2\nethernets:\n  eth0:\n    dhcp: true\n",
            "4: `ethernets.eth0` has no key `dhcp` (did you mean `dhcp4`?)",
        ),
        (
            "network:\n  version: 2\n  ethernet: {}\n",
            "3: there is no key `ethernet` (did you mean `ethernets`?)",
        ),
        ("version: 2\nethernets:\n  a: {dhcp4: ja}\n", "3: `ethernets.a.dhcp4` is true or false"),
        (
            "version: 2\nethernets:\n  a:\n    match: {mac: x}\n    nameservers: [192.0.2.1]\n",
            "4: `ethernets.a.match` has no key `mac` (there are: name, macaddress, driver)\n5: `ethernets.a.nameservers` is a table",
        ),
        ("version: 1\n", "1: `config` is missing"),
        (
            "version: 1\nconfig:\n- type: physical\n  name: a\n  subnets:\n  - type: dchp\n- type: physcal\n- {}\n",
            "6: `config[0].subnets[0].type` is one of dhcp4, dhcp, dhcp6, static, static6, ipv6_dhcpv6-stateful, \
             ipv6_dhcpv6-stateless, ipv6_slaac, manual, not `dchp`\n\
             7: `type` of an entry of `config` is one of physical, bond, bridge, vlan, nameserver, route, not `physcal` \
             (did you mean `physical`?)\n8: an entry of `config` has a `type`",
        ),
    ] {
        assert_eq!(network(text), wrong, "{text}");
    }
    for text in [
        "# nothing\n",
        "network: {config: disabled}\n",
        "version: 2\nrenderer: networkd\nethernets:\n  all:\n    match: {name: \"e*\"}\n    dhcp4: yes\n    dhcp6: false\n    \
         addresses: [192.0.2.1/24]\n    routes: [{to: default, via: 192.0.2.9, on-link: true}]\n    critical: true\n    link-local: []\n",
        "network:\n  version: 1\n  config:\n  - {type: physical, name: a, mtu: null, subnets: [{type: static, address: 192.0.2.1/24}]}\n  \
         - {type: nameserver, address: [192.0.2.3]}\n",
    ] {
        assert_eq!(network(text), "", "{text}");
    }
    let autoinstall = |network: &str| {
        let text = format!(
            "#cloud-config\nautoinstall:\n  version: 1\n  network:\n{network}  identity: {{}}\n  late-commands: []\n"
        );
        told(&lint(Kind::Autoinstall, "user-data", &text, "ubuntu", "24.04"))
    };
    assert_eq!(autoinstall("    version: 9\n"), "5: `version` of a network configuration is 2, not 9");
    assert_eq!(
        autoinstall("    version: 2\n    ethernets:\n      a:\n        dhcp5: ja\n"),
        "8: `ethernets.a` has no key `dhcp5` (did you mean `dhcp4`?)"
    );
    assert_eq!(autoinstall("    network:\n      version: 2\n      wifis: {}\n"), "");
}

#[test]
fn unattend_passes_and_components() {
    let text = r#"<unattend xmlns="urn:schemas-microsoft-com:unattend">
<settings pass="windowsPE">
<component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
<TimeZon>UTC</TimeZon>
<ComputerName>a-name-that-is-too-long</ComputerName>
</component>
<component name="Microsoft-Windows-Setp" processorArchitecture="x64" publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS"/>
</settings>
<settings pass="windowsPE"/>
<settings pass="oobe"/>
</unattend>"#;
    insta::assert_snapshot!(told(&lint(Kind::Autounattend, "Autounattend.xml", text, "", "")), @r##"
        1: <AcceptEula> is missing: Windows Setup would ask for the licence
        1: <DiskConfiguration> is missing: Windows Setup would ask for the disk
        1: <InstallTo> is missing: Windows Setup would ask for where to install
        1: no image is chosen (<MetaData>) (Windows Setup would ask)
        3: Microsoft-Windows-Shell-Setup is not valid in the pass windowsPE (it is in generalize, specialize, auditSystem, auditUser, oobeSystem)
        4: Microsoft-Windows-Shell-Setup has no setting <TimeZon> (did you mean `TimeZone`?)
        5: the computer name `a-name-that-is-too-long` has more than 15 characters
        7: Microsoft-Windows-Setp: processorArchitecture is `x64`, not amd64 or x86 or arm64 or wow64 (Windows passes over components it can't tell)
        7: forge knows no component `Microsoft-Windows-Setp` (did you mean `Microsoft-Windows-Setup`?)
        9: the pass `windowsPE` is there twice (put both in one)
        10: there is no pass `oobe`
        "##);
    insta::assert_snapshot!(told(&lint(Kind::Autounattend, "Autounattend.xml", "<a>\n<b>\n</a>", "", "")), @r##"
        3: this is no well-formed XML: ill-formed document: expected `</b>`, but `</a>` was found
        "##);
    insta::assert_snapshot!(told(&lint(Kind::Autounattend, "forge.ps1", "ok\n'é'\n", "", "")), @r##"
        2: a character that is not ASCII, which Windows PowerShell 5 reads as others (save the file as UTF-8 with a byte order mark, or write it in ASCII)
        "##);
}

#[test]
fn a_script_with_a_byte_order_mark_may_hold_any_character() {
    assert_eq!(lint(Kind::Autounattend, "own.ps1", "\u{feff}ok\n'é'\n", "", ""), []);
}

#[test]
fn autoyast_sections() {
    let text = "<profile xmlns=\"http://www.suse.com/1.0/yast2ns\">\n<sofware/>\n<software>\n<packages><package>a</package></packages>\n</software>\n</profile>";
    insta::assert_snapshot!(told(&lint(Kind::Autoyast, "autoinst.xml", text, "", "")), @r##"
        1: <profile> lacks xmlns:config="http://www.suse.com/1.0/configns" (AutoYaST reads nothing outside of its namespaces)
        2: AutoYaST has no section <sofware> (did you mean `software`?)
        4: <packages> is a list and does not say so (write config:type="list")
        "##);
}

#[test]
fn autoyast_elements_stand_where_its_schema_has_them() {
    let text = "<profile xmlns=\"http://www.suse.com/1.0/yast2ns\" xmlns:config=\"http://www.suse.com/1.0/configns\">\n<general>\n\
                <mode><confrm config:type=\"boolean\">false</confrm></mode>\n<proxy/>\n</general>\n<partitioning config:type=\"list\">\n\
                <drive><type config:type=\"symbol\">LVM</type>\n<partitions/>\n</drive>\n</partitioning>\n</profile>";
    insta::assert_snapshot!(told(&lint(Kind::Autoyast, "autoinst.xml", text, "", "")), @r##"
        3: there is no <confrm> within <mode> (did you mean `confirm`?)
        4: there is no <proxy> within <general> (it is a section of its own)
        7: `LVM` is no type of a drive
        8: <partitions> is a list and does not say so (write config:type="list")
        "##);
}

#[test]
fn agama_sections() {
    let text = "{\n\"sofware\": {},\n\"user\": {\n\"userName\": \"a\",\n\"passwd\": \"b\"\n},\n\"network\": {\n\"connections\": [{\n\"method5\": \"auto\"\n}]\n}\n}";
    insta::assert_snapshot!(told(&lint(Kind::Agama, "autoinst.json", text, "", "")), @r"
    1: `product/id` is not answered: Agama would ask the product
    1: `storage` is not answered: Agama would ask what to do with the disks
    1: `questions.policy` is not `auto`: a question would wait for somebody
    2: Agama has no section `sofware` (did you mean `software`?)
    3: `user` lacks `fullName`
    3: `user` lacks `password`
    5: `user` has no `passwd` (did you mean `password`?)
    8: a connection has no `id`
    9: `network.connections` has no `method5` (did you mean `method4`?)
    ");
    let broken = lint(Kind::Agama, "autoinst.json", "{\n\"a\": }", "", "");
    assert!(broken[0].line == 2 && broken[0].message.starts_with("this is no JSON"), "{broken:?}");
}

#[test]
fn a_file_that_is_no_answer_file_at_all_is_told_in_short() {
    let deep = "<a>".repeat(100_000) + &"</a>".repeat(100_000);
    let found = lint(Kind::Autounattend, "Autounattend.xml", &deep, "", "");
    assert_eq!(told(&found), "1: more than 100 elements within each other");
    let found = lint(Kind::Kickstart, "ks.cfg", &"nonsense\n".repeat(2_000), "rocky", "9");
    assert_eq!((found.len(), found.last().map(|last| last.line)), (101, Some(101)));
    assert!(
        found.last().is_some_and(|last| last.message == "1906 more findings are left out"),
        "{:?}",
        found.last()
    );
    let large = "x".repeat(2 << 20);
    let found = lint(Kind::Preseed, "preseed.cfg", &large, "debian", "12");
    assert_eq!(
        found.first().map(|one| &*one.message),
        Some("the file has 2097152 bytes; at most 1048576 are judged")
    );
    assert_eq!(lint(Kind::Preseed, "packages.tar", &large, "debian", "12"), []);
    let many: String =
        std::iter::once("<profile>\n".to_owned()).chain((0..2_000).map(|n| format!("<a{n}/>\n"))).collect();
    assert_eq!(lint(Kind::Autoyast, "autoinst.xml", &(many + "</profile>"), "", "").len(), 101);
}
