use serde_json::{Value, json};

use super::tests::answers;
use super::*;

const URL: &str = "http://192.0.2.1:8800/0123/";

fn told(kind: Kind, distribution: &str, version: &str, vars: Value) -> String {
    answers(kind, distribution, version, vars).kernel_arguments(URL, Some("build"), false)
}

#[test]
fn each_kind_is_told_where_its_answers_are() {
    let all = [
        told(Kind::Autoinstall, "ubuntu", "24.04", json!({})),
        told(Kind::Kickstart, "rocky", "9", json!({})),
        told(Kind::Preseed, "debian", "12", json!({})),
        told(Kind::Autoyast, "opensuse-leap", "15.6", json!({})),
        told(Kind::Agama, "opensuse-leap", "16.0", json!({ "mirror": "http://m.example.org/oss/" })),
        told(Kind::Autounattend, "windows", "2022", json!({})),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    autoinstall ds=nocloud;s=http://192.0.2.1:8800/0123/;dsmode=net
    inst.ks=http://192.0.2.1:8800/0123/ks.cfg
    auto=true priority=critical url=http://192.0.2.1:8800/0123/preseed.cfg hostname=build domain=
    autoyast=http://192.0.2.1:8800/0123/autoinst.xml
    inst.auto=http://192.0.2.1:8800/0123/autoinst.json inst.install_url=http://m.example.org/oss/
    ");
    let grub = answers(Kind::Autoinstall, "ubuntu", "24.04", json!({})).kernel_arguments(URL, None, true);
    assert_eq!(grub, format!("autoinstall \"ds=nocloud;s={URL};dsmode=net\""), "GRUB ends a command at `;`");
}

#[test]
fn fips_mode_begins_with_the_installer_and_from_el_10_on_nowhere_else() {
    for (version, only) in [("9", false), ("10", true)] {
        let with = answers(Kind::Kickstart, "rocky", version, json!({ "fips": true }));
        assert_eq!(with.kernel_arguments(URL, None, false), format!("inst.ks={URL}ks.cfg fips=1"));
        assert_eq!(with.needs_kernel_arguments(), only, "{version}");
        assert!(!answers(Kind::Kickstart, "rocky", version, json!({})).needs_kernel_arguments());
    }
}

#[test]
fn a_static_address_is_told_before_the_answers_are_fetched() {
    let both = json!({
        "address": "192.0.2.10/23", "gateway": "192.0.2.1", "interface": "ens18",
        "address6": "2001:db8::10/64", "gateway6": "2001:db8::1", "nameservers": ["192.0.2.53", "2001:db8::53"],
    });
    let six = json!({ "address6": "2001:db8::10/64", "gateway6": "2001:db8::1" });
    let all = [
        told(Kind::Autoinstall, "ubuntu", "24.04", both.clone()),
        told(Kind::Kickstart, "rocky", "9", both.clone()),
        told(Kind::Preseed, "debian", "12", both.clone()),
        told(Kind::Preseed, "debian", "12", six),
        told(Kind::Autoyast, "opensuse-leap", "15.6", both.clone()),
        told(Kind::Agama, "opensuse-leap", "16.0", both),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    autoinstall ds=nocloud;s=http://192.0.2.1:8800/0123/;dsmode=net ip=192.0.2.10::192.0.2.1:255.255.254.0::ens18:none:192.0.2.53
    inst.ks=http://192.0.2.1:8800/0123/ks.cfg ip=192.0.2.10::192.0.2.1:255.255.254.0:build:ens18:none ip=[2001:db8::10]::[2001:db8::1]:64:build:ens18:none nameserver=192.0.2.53 nameserver=[2001:db8::53]
    auto=true priority=critical url=http://192.0.2.1:8800/0123/preseed.cfg hostname=build domain= interface=ens18 netcfg/disable_autoconfig=true netcfg/get_ipaddress=192.0.2.10 netcfg/get_netmask=255.255.254.0 netcfg/get_gateway=192.0.2.1 netcfg/get_nameservers=192.0.2.53 netcfg/confirm_static=true
    auto=true priority=critical url=http://192.0.2.1:8800/0123/preseed.cfg hostname=build domain= netcfg/disable_autoconfig=true netcfg/get_ipaddress=2001:db8::10/64 netcfg/get_gateway=2001:db8::1 netcfg/confirm_static=true
    autoyast=http://192.0.2.1:8800/0123/autoinst.xml ifcfg="ens18=192.0.2.10/23 2001:db8::10/64,192.0.2.1 2001:db8::1,192.0.2.53 2001:db8::53"
    inst.auto=http://192.0.2.1:8800/0123/autoinst.json ip=192.0.2.10::192.0.2.1:255.255.254.0:build:ens18:none ip=[2001:db8::10]::[2001:db8::1]:64:build:ens18:none nameserver=192.0.2.53 nameserver=[2001:db8::53]
    "#);
}
