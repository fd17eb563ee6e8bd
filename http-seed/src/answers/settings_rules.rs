//! What settings are refused, and how they are told.

use super::*;

fn read(kind: Kind, given: &Value) -> Result<Settings, Vec<Problem>> {
    Settings::read(kind, given.as_object().expect("an object"))
}

fn wrong(kind: Kind, given: &Value) -> String {
    let problems = read(kind, given).expect_err("something is wrong");
    problems.iter().map(|p| format!("{}: {}", p.name, p.message)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_default_fits_its_form_and_each_name_is_there_once() {
    for (index, spec) in SPECS.iter().enumerate() {
        let default: Value = serde_json::from_str(spec.default).expect("JSON");
        assert!(spec.form.fits(Kind::Preseed, &default), "{}", spec.name);
        assert!(SPECS.iter().skip(index + 1).all(|other| other.name != spec.name), "{}", spec.name);
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let given = json!({
        "timezon": "UTC", "fips": true, "address": "192.0.2.10", "packages": ["a\nb"],
        "layout": "zfs", "mirror": "mirror.example.org/debian", "nameservers": ["x"],
        "locale": "-x", "disk": "/dev/sda",
    });
    insta::assert_snapshot!(wrong(Kind::Preseed, &given), @r#"
    timezon: there is no setting `timezon`
    fips: a seed of kind `preseed` takes no `fips`
    locale: expected a name of letters, digits and `_-+./:@,`, found "-x"
    packages: expected an array of names of packages, found ["a\nb"]
    mirror: expected a URL (http, https or ftp), found "mirror.example.org/debian"
    address: expected an IPv4 address with its prefix (192.0.2.10/24), found "192.0.2.10"
    nameservers: expected an array of IP addresses, found ["x"]
    disk: expected the name of a device without /dev/ (sda), found "/dev/sda"
    layout: expected one of plain, lvm, custom, found "zfs"
    "#);
}

#[test]
fn a_value_that_an_installer_or_package_manager_would_not_take_is_refused() {
    let image = json!({ "image-name": "Windows Server 2022 SERVERSTANDARDCORE" });
    let with = |kind: Kind, name: &str, value: &Value| {
        let mut given = if kind == Kind::Autounattend { image.clone() } else { json!({}) };
        given[name] = value.clone();
        read(kind, &given)
    };
    for kind in Kind::ALL {
        let windows = kind == Kind::Autounattend;
        let zones = ["", "Mars Base", "a: b # c", "Europe//Berlin", "/UTC", "../x", "-UTC"];
        let bad_zones =
            zones.iter().filter(|zone| !windows || !["Mars Base", "Europe//Berlin"].contains(zone));
        let packages = ["", "a;b", "$(id)", "-x", "a b", "a\"b", "a`b`", "a\tb", "a\nb", "=1"];
        let bad = bad_zones
            .map(|zone| ("timezone", json!(zone)))
            .chain(packages.iter().map(|item| ("packages", json!(["vim", item]))))
            .chain(packages.iter().map(|item| ("base-packages", json!([item]))));
        for (name, value) in bad {
            let problems = with(kind, name, &value).expect_err(&format!("{kind}: {name} = {value}"));
            assert_eq!(problems.iter().map(|each| &*each.name).collect::<Vec<_>>(), [name], "{kind}");
        }
        let zone = if windows { "W. Europe Standard Time" } else { "America/Argentina/Buenos_Aires" };
        assert!(with(kind, "timezone", &json!(zone)).is_ok(), "{kind}");
    }
    for zone in ["UTC", "Etc/GMT+5", "EST5EDT", "US/East-Indiana", "America/Port-au-Prince", "GMT-0"] {
        assert!(with(Kind::Preseed, "timezone", &json!(zone)).is_ok(), "{zone}");
    }
    for zone in ["UTC-11", "Pacific Standard Time (Mexico)", "Mid-Atlantic Standard Time_dstoff"] {
        assert!(with(Kind::Autounattend, "timezone", &json!(zone)).is_ok(), "{zone}");
    }
    let linux = [
        "vim",
        "g++",
        "libstdc++6:i386",
        "nginx=1.24.0-1~deb12u1",
        "kernel-0:5.14-1.el9.x86_64",
        "@core",
        "@^minimal-environment",
        "@nodejs:18/common",
        "texlive-*",
        "ubuntu-server^",
        "task/bookworm-backports",
        "/usr/bin/vim",
        "pattern:base",
        "lib[0-9]?",
    ];
    for kind in
        [Kind::Nocloud, Kind::Kickstart, Kind::Preseed, Kind::Autoinstall, Kind::Autoyast, Kind::Agama]
    {
        assert!(with(kind, "packages", &json!(linux)).is_ok(), "{kind}");
    }
    assert!(with(Kind::Nocloud, "packages", &json!(["perl(DBI)", "@Development Tools"])).is_ok());
    let capabilities = json!(["OpenSSH.Server~~~~0.0.1.0", "Language.Basic~~~en-US~0.0.1.0"]);
    assert!(with(Kind::Autounattend, "packages", &capabilities).is_ok());
    assert!(with(Kind::Autounattend, "packages", &json!(["@core"])).is_err());
    for server in
        ["a b", "", "-x", "x-", "a..b", "192.0.2", "192.0.2.256", "http://a", "a;b", "ntp.example.org iburst"]
    {
        assert!(with(Kind::Kickstart, "ntp", &json!([server])).is_err(), "{server}");
    }
    let servers = json!(["0.pool.ntp.org", "ntp", "ntp.example.org.", "192.0.2.1", "2001:db8::1"]);
    assert!(with(Kind::Preseed, "ntp", &servers).is_ok());
    for key in
        ["AAAA", "AAAAA-BBBBB-CCCCC-DDDDD", "AAAAA-BBBBB-CCCCC-DDDDD-EEEE!", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE-"]
    {
        assert!(with(Kind::Autounattend, "product-key", &json!(key)).is_err(), "{key}");
    }
    for (name, value, told) in [
        ("drivers", json!("xp"), "expected one of 2k16, 2k19, 2k22, 2k25, w10, w11, found \"xp\""),
        ("product-key", json!("x"), "expected a product key of 5 times 5 letters and digits, found \"x\""),
        (
            "timezone",
            json!("a: b"),
            "expected a time zone as Windows names it (W. Europe Standard Time), found \"a: b\"",
        ),
        (
            "packages",
            json!(["@a"]),
            "expected an array of names of capabilities (OpenSSH.Server~~~~0.0.1.0), found [\"@a\"]",
        ),
    ] {
        let problems = with(Kind::Autounattend, name, &value).expect_err(name);
        assert_eq!(problems.first().map(|each| &*each.message), Some(told));
    }
}

#[test]
fn kernel_arguments_that_would_leave_their_quotes_are_refused_where_nothing_escapes_them() {
    for (value, c) in [("a=\"b c\"", '"'), ("a=$x", '$'), ("a=`id`", '`'), ("a\\b", '\\')] {
        for kind in [Kind::Kickstart, Kind::Preseed, Kind::Autoyast, Kind::Agama] {
            let told =
                format!("kernel-arguments: a seed of kind `{kind}` takes no `{c}` in `kernel-arguments`");
            assert_eq!(wrong(kind, &json!({ "kernel-arguments": value })), told);
        }
        assert!(read(Kind::Autoinstall, &json!({ "kernel-arguments": value })).is_ok(), "{value}");
    }
    assert!(wrong(Kind::Preseed, &json!({ "kernel-arguments": "a=!b" })).contains("no `!`"));
    for kind in [Kind::Kickstart, Kind::Autoyast, Kind::Agama] {
        let sound = json!({ "kernel-arguments": "console=ttyS0,115200n8 a='b c' d=!e" });
        assert!(read(kind, &sound).is_ok(), "{kind}");
    }
}

#[test]
fn a_gateway_lies_in_the_network_of_its_address() {
    let out = json!({ "address": "192.0.2.10/24", "gateway": "198.51.100.1" });
    assert_eq!(
        wrong(Kind::Kickstart, &out),
        "gateway: the gateway 198.51.100.1 is not in the network of 192.0.2.10/24"
    );
    let alone = json!({ "gateway6": "2001:db8::1" });
    assert_eq!(wrong(Kind::Kickstart, &alone), "gateway6: a gateway without a static `address6`");
    let link = json!({ "address6": "2001:db8::10/64", "gateway6": "fe80::1" });
    assert!(read(Kind::Kickstart, &link).is_ok(), "a router's link-local address is its usual one");
}

#[test]
fn a_static_address_comes_with_its_netmask() {
    let settings = read(
        Kind::Preseed,
        &json!({ "address": "192.0.2.10/23", "mirror": "http://m.example.org:8080/debian/x" }),
    );
    let context = settings.expect("sound").context();
    assert_eq!(context["ipv4"]["netmask"], "255.255.254.0");
    assert_eq!(context["ipv6"], Value::Null);
    assert_eq!(context["mirror_parts"]["host"], "m.example.org:8080");
    assert_eq!(context["mirror_parts"]["directory"], "/debian/x");
    assert_eq!(
        (netmask("0").as_deref(), netmask("32").as_deref()),
        (Some("0.0.0.0"), Some("255.255.255.255"))
    );
}

#[test]
fn a_custom_layout_and_its_partitions_go_together() {
    assert!(wrong(Kind::Kickstart, &json!({ "layout": "custom" })).contains("needs `partitions`"));
    assert!(wrong(Kind::Kickstart, &json!({ "partitions": "x" })).contains("only read with"));
    assert!(wrong(Kind::Autounattend, &json!({})).contains("image-name"));
}

#[test]
fn a_repository_has_a_name_in_every_kind_that_takes_it() {
    for kind in [Kind::Nocloud, Kind::Kickstart, Kind::Autoyast, Kind::Agama] {
        for bad in [
            "x",
            "http://m.example.org/oss/",
            "http://m.example.org/?a=http://b.example.org",
            "=http://m/",
            "a b=http://m/",
        ] {
            let told = wrong(kind, &json!({ "repositories": ["ok-1=http://m.example.org/", bad] }));
            assert_eq!(told, format!("repositories: `{bad}` is no repository"), "{kind}");
        }
    }
}

#[test]
fn a_mirror_by_ftp_is_refused_where_nothing_would_come_of_it() {
    let mirror = json!({ "mirror": "ftp://m.example.org/debian", "image-name": "x" });
    for kind in [Kind::Preseed, Kind::Autounattend] {
        let mut given = mirror.clone();
        if kind == Kind::Preseed {
            given.as_object_mut().expect("a table").remove("image-name");
        }
        let told = format!("mirror: a seed of kind `{kind}` takes no mirror by FTP");
        assert_eq!(wrong(kind, &given), told);
    }
    assert!(read(Kind::Kickstart, &json!({ "mirror": "ftp://m.example.org/os/" })).is_ok());
}

#[test]
fn a_wrong_password_is_not_repeated() {
    assert!(!wrong(Kind::Preseed, &json!({ "password": "hush\nhush" })).contains("hush"));
}
