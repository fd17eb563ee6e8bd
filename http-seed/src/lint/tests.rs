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
        8: cloud-init has no key `paccages` (did you mean `packages`?)
        "##);
    let text = "users: []\n";
    insta::assert_snapshot!(told(&lint(Kind::Nocloud, "user-data", text, "", "")), @r##"
        1: the first line is not `#cloud-config` (cloud-init tells user-data by it)
        "##);
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
