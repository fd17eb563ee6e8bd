//! The site file, and the environment in its place.

use std::path::Path;

use super::{folder, map, told};
use crate::config::environment::{from_environment, read_env_file};
use crate::config::site::{SecretRef, TlsConfig, read};
use crate::config::{Site, SiteSearch, Target, TargetKind, load_site};

fn proxmox(target: &Target) -> &crate::config::site::ProxmoxTarget {
    match &target.kind {
        TargetKind::Proxmox(proxmox) => proxmox,
        TargetKind::Qemu(_) => panic!("no Proxmox target"),
    }
}

fn only(site: &Site) -> &Target {
    site.target(None).expect("one target")
}

#[test]
fn a_whole_site_file_is_read() {
    let fingerprint = ["AB"; 32].join(":");
    let text = format!(
        r#"
default-target = "pve"
[targets.pve]
type = "proxmox"
url = "https://pve1.example.org:8006"
token-id = "forge@pve!build"
token-secret = {{ file = "secret" }}
tls = {{ fingerprint = "{fingerprint}" }}
nodes = ["pve1", "pve2"]
storage = {{ disks = "local-lvm", isos = "local", cloud-init = "local" }}
bridge = "vmbr0"
vmids = "9000-9099"
pool = "build"
seed = {{ bind = "0.0.0.0", address = "192.0.2.9", ports = "8800-8809", allowed-networks = ["192.0.2.0/24", "2001:db8::1"] }}
[targets.local]
type = "qemu"
accel = "tcg"
binary = "/usr/bin/qemu-system-x86_64"
images = "out"
"#
    );
    let (site, findings) = read(Path::new("site/forge.toml"), &text);
    assert_eq!(told(&findings, Path::new("-")), "");
    let pve = proxmox(only(&site));
    assert_eq!(pve.token_secret, SecretRef::File("site/secret".into()));
    assert_eq!(pve.tls, TlsConfig::Fingerprint(vec![fingerprint]));
    assert_eq!(pve.nodes, ["pve1", "pve2"]);
    assert_eq!(pve.vmids, Some((9000, 9099)));
    assert_eq!(only(&site).seed.ports, (8800, 8809));
    assert_eq!(only(&site).seed.allowed_networks, ["192.0.2.0/24", "2001:db8::1"]);
    assert_eq!(only(&site).seed.address.as_deref(), Some("192.0.2.9"));
    let TargetKind::Qemu(local) = &site.target(Some("local")).expect("there").kind else {
        panic!("no QEMU target")
    };
    assert_eq!((local.accel.as_str(), local.images.as_path()), ("tcg", Path::new("site/out")));
    insta::assert_snapshot!(site.target(Some("pv")).expect_err("no such target"), @r#"
    site/forge.toml has no target `pv`
        help: did you mean `pve`?
    "#);
}

#[test]
fn many_mistakes_in_a_site_file_are_all_told() {
    let text = r#"default-target = "pv"
default_node = "x"

[targets.pve]
type = "proxmox"
url = "pve1:8006"
token_id = "forge@pve!build"
token-secret = "0000"
tls = { fingerprint = "AB:CD" }
nodes = "pve1"
storage = { disk = "local-lvm" }
vmids = "9099-9000"
seed = { bind = "everywhere", ports = 70000, allowed-networks = ["192.0.2.0/33"] }

[targets.other]
type = "proxmox"
url = "https://pve2:8006"
token-id = "root"
token-secret = { env = "A", file = "b" }
tls = { insecure = true, ca-file = "ca.pem" }

[targets.third]
typ = "qemu"

[targets.local]
type = "qemu"
accel = "kmv"
url = "x"

[targets.open]
type = "proxmox"
url = "https://pve3:8006"
token-id = "forge@pve!build"
token-secret = { env = "SECRET" }
tls = { insecure = true }
"#;
    let (_, findings) = read(Path::new("forge.toml"), text);
    insta::assert_snapshot!(told(&findings, Path::new("-")), @r#"
    forge.toml:1:18: there is no target `pv` (`default-target`)
        help: did you mean `pve`?
    forge.toml:2:1: unknown key `default_node`
        help: there is: default-target, targets
    forge.toml:6:7: `pve1:8006` is no https:// address (`targets.pve.url`)
        help: Proxmox's API is at https://HOST:8006
    forge.toml:7:1: unknown key `targets.pve.token_id`
        help: did you mean `token-id`?
    forge.toml:8:16: `targets.pve.token-secret`: a secret does not belong in this file
        help: write { env = "NAME" }, { file = "PATH" } or { command = ["…"] }
    forge.toml:9:23: this is no SHA-256 fingerprint (`targets.pve.tls.fingerprint`)
        help: it has 32 pairs of hexadecimal digits; `pvenode cert info` shows it
    forge.toml:10:9: this is neither "auto" nor an array of nodes (`targets.pve.nodes`)
        help: nodes = ["pve1"]
    forge.toml:11:13: unknown key `targets.pve.storage.disk`
        help: did you mean `disks`?
    forge.toml:12:9: `9099-9000` is no range between 100 and 999999999 (`targets.pve.vmids`)
        help: write it like "9000-9099"
    forge.toml:13:17: `everywhere` is no IP address (`targets.pve.seed.bind`)
    forge.toml:13:39: `70000` is no range between 0 and 65535 (`targets.pve.seed.ports`)
        help: write it like "9000-9099"
    forge.toml:13:65: `192.0.2.0/33` is no network: an address, or one with a prefix such as 192.0.2.0/24 (`targets.pve.seed.allowed-networks`)
    forge.toml:18:12: `root` is no token id (`targets.other.token-id`)
        help: it has the form user@realm!token, as Proxmox shows it
    forge.toml:19:16: one source of the secret is needed (`targets.other.token-secret`)
        help: write { env = "NAME" }, { file = "PATH" } or { command = ["…"] }
    forge.toml:20:7: choose one of `fingerprint`, `ca-file` and `insecure` (`targets.other.tls`)
    forge.toml:22:10: `targets.third.type` is missing
        help: write type = "proxmox" or type = "qemu"
    forge.toml:27:9: `kmv` is no value of `targets.local.accel`
        help: did you mean `kvm`?
    forge.toml:28:1: unknown key `targets.local.url`
        help: there is: type, accel, binary, images, ssh-ports, bridge, seed
    forge.toml:35:7: warning: any certificate is accepted: whoever is on the way can read the token (`targets.open.tls.insecure`)
        help: pin the certificate with `fingerprint` instead
    "#);
}

#[test]
fn variables_of_the_environment_make_a_site_in_both_ways_of_writing() {
    let common = [("PROXMOX_URL", "https://pve:8006/api2/json")];
    let ours = [("PROXMOX_TOKEN_ID", "a@pve!b"), ("PROXMOX_TOKEN_SECRET", "s")];
    let packers = [("PROXMOX_USERNAME", "a@pve!b"), ("PROXMOX_TOKEN", "s")];
    for way in [ours, packers] {
        let (site, findings) = from_environment(&map(&[&common[..], &way[..]].concat()), "the environment");
        assert!(findings.is_empty(), "{findings:?}");
        let site = site.expect("a site");
        let target = proxmox(only(&site));
        assert_eq!(
            (target.urls[0].as_str(), target.token_id.as_str()),
            ("https://pve:8006/api2/json", "a@pve!b")
        );
        assert!(matches!(&target.token_secret, SecretRef::Given(secret) if secret.expose() == "s"));
        assert_eq!(target.tls, TlsConfig::System);
        assert!(!format!("{site:?}").contains("\"s\""), "Debug shows no secret");
    }
}

#[test]
fn a_user_with_a_password_takes_the_place_of_a_token() {
    let env = map(&[
        ("PROXMOX_URL", "https://pve:8006/api2/json"),
        ("PROXMOX_USERNAME", "root@pam"),
        ("PROXMOX_PASSWORD", "s"),
    ]);
    let (site, findings) = from_environment(&env, "the environment");
    assert!(findings.is_empty(), "{findings:?}");
    let site = site.expect("a site");
    let target = proxmox(only(&site));
    assert_eq!(target.token_id, "root@pam");
    assert!(matches!(&target.token_secret, SecretRef::Given(secret) if secret.expose() == "s"));
    assert!(!format!("{site:?}").contains("\"s\""), "Debug shows no secret");
}

#[test]
fn a_site_file_names_a_user_or_a_token_and_not_both() {
    let file =
        |login: &str| format!("[targets.pve]\ntype = \"proxmox\"\nurl = \"https://pve:8006\"\n{login}");
    let (site, findings) =
        read(Path::new("forge.toml"), &file("user = \"ops@pve\"\npassword = { env = \"OPS_PASSWORD\" }\n"));
    assert_eq!(told(&findings, Path::new("-")), "");
    let target = proxmox(only(&site));
    assert_eq!(target.token_id, "ops@pve");
    assert_eq!(target.token_secret, SecretRef::Env("OPS_PASSWORD".into()));
    let both = "user = \"ops\"\npassword = { env = \"P\" }\ntoken-id = \"forge@pve!build\"\ntoken-secret = { env = \"S\" }\n";
    let (_, findings) = read(Path::new("forge.toml"), &file(both));
    insta::assert_snapshot!(told(&findings, Path::new("-")), @r#"
    forge.toml:4:8: `ops` is no user (`targets.pve.user`)
        help: it has the form user@realm, such as ops@pve; a token goes into `token-id`
    forge.toml:6:12: a user is named too (`targets.pve.token-id`)
        help: log in by a token, or by `user` and `password`
    forge.toml:7:1: unknown key `targets.pve.token-secret`
        help: there is: type, url, proxy, user, token-id, password, tls, nodes, storage, bridge, vmids, pool, role, seed
    "#);
}

#[test]
fn an_env_file_is_read_as_users_write_it() {
    let text = r#"# written by init
export PROXMOX_URL="https://10.0.0.2:8006/api2/json"
export PROXMOX_TOKEN_ID='automation@pam!infra'
PROXMOX_TOKEN_SECRET=0a-1b # the secret
  export   PROXMOX_NODE=pve1
PROXMOX_SKIP_TLS_VERIFY="true"
PROXMOX_STORAGE_VM=local-lvm
PROXMOX_STORAGE_ISO="local"
PROXMOX_CLOUDINIT_STORAGE="local-lvm"
PROXMOX_BRIDGE="vmbr0"
PACKER_HTTP_BIND_ADDRESS="10.0.0.9"
PACKER_HTTP_PORT="8802"
OTHER="a \"quoted\" $HOME\n"
"#;
    let (env, findings) = read_env_file(Path::new(".env.proxmox"), text);
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(env["OTHER"], "a \"quoted\" $HOME\\n");
    let (site, findings) = from_environment(&env, ".env.proxmox");
    let site = site.expect("a site");
    let target = proxmox(only(&site));
    assert_eq!(target.token_id, "automation@pam!infra");
    assert!(matches!(&target.token_secret, SecretRef::Given(secret) if secret.expose() == "0a-1b"));
    assert_eq!(target.tls, TlsConfig::Insecure);
    assert_eq!(target.nodes, ["pve1"]);
    assert_eq!(target.disk_storage.as_deref(), Some("local-lvm"));
    assert_eq!(target.bridge.as_deref(), Some("vmbr0"));
    let seed = &only(&site).seed;
    assert_eq!(
        (seed.bind.as_str(), seed.address.as_deref(), seed.ports),
        ("10.0.0.9", Some("10.0.0.9"), (8802, 8802))
    );
    insta::assert_snapshot!(told(&findings, Path::new("-")), @r#"
    warning: .env.proxmox: PROXMOX_SKIP_TLS_VERIFY: any certificate is accepted, and whoever is on the way can read the token
        help: write a forge.toml with `tls = { fingerprint = "…" }` instead
    "#);
}

#[test]
fn mistakes_in_an_env_file_and_the_environment_are_told_without_their_values() {
    let text = "PROXMOX_URL=\"https://pve:8006\"\nPROXMOX_TOKEN_SECERT=s3cret\nPROXMOX_TOKEN_ID = x\nexport\nA=\"open s3cret\nPROXMOX_OTHER=1\n";
    let (_, mut findings) = read_env_file(Path::new("env"), text);
    for env in [
        map(&[("PROXMOX_URL", "https://pve:8006"), ("PROXMOX_PASSWORD", "s3cret")]),
        map(&[
            ("PROXMOX_URL", "pve"),
            ("PROXMOX_TOKEN_ID", "root"),
            ("PROXMOX_TOKEN", "s3cret"),
            ("PACKER_HTTP_PORT", "x"),
        ]),
        map(&[
            ("PROXMOX_URL", "https://pve"),
            ("PROXMOX_USERNAME", "a@pve!b"),
            ("PROXMOX_SKIP_TLS_VERIFY", "maybe"),
        ]),
    ] {
        let (site, more) = from_environment(&env, "the environment");
        assert!(site.is_none());
        findings.extend(more);
    }
    let told = told(&findings, Path::new("-"));
    assert!(!told.contains("s3cret"), "{told}");
    insta::assert_snapshot!(told, @r#"
    env:2:1: warning: `PROXMOX_TOKEN_SECERT` is not read
        help: did you mean `PROXMOX_TOKEN_SECRET`?
    env:3:1: this is no NAME=value
        help: one a line, `export` allowed, no spaces around `=`
    env:4:1: this is no NAME=value
        help: one a line, `export` allowed, no spaces around `=`
    env:5:1: the quotes around the value of `A` do not end
    the environment: a password is given, and PROXMOX_USERNAME (user@realm) is not
        help: set PROXMOX_TOKEN_ID (user@realm!token) and PROXMOX_TOKEN_SECRET, or in Packer's way PROXMOX_USERNAME (user@realm!token) and PROXMOX_TOKEN, or a user and PROXMOX_PASSWORD
    the environment: `pve` is no https:// address (`PROXMOX_URL`)
        help: Proxmox's API is at https://HOST:8006
    the environment: `root` is no token id (`PROXMOX_TOKEN_ID`)
        help: it has the form user@realm!token, as Proxmox shows it
    the environment: `x` is no port (`PACKER_HTTP_PORT`)
    the environment: PROXMOX_URL is set, and the token's secret is not
        help: set PROXMOX_TOKEN_ID (user@realm!token) and PROXMOX_TOKEN_SECRET, or in Packer's way PROXMOX_USERNAME (user@realm!token) and PROXMOX_TOKEN, or a user and PROXMOX_PASSWORD
    the environment: `maybe` is neither true nor false (`PROXMOX_SKIP_TLS_VERIFY`)
    "#);
}

#[test]
fn the_site_file_is_looked_for_where_people_keep_it() {
    let site_file = "[targets.mine]\ntype = \"qemu\"\n";
    let folder = folder(&[
        ("config/forge/forge.toml", site_file),
        ("home/.config/forge/forge.toml", site_file),
        ("secrets.env", "TOKEN=s\n"),
        (
            "pve.toml",
            "[targets.pve]\ntype = \"proxmox\"\nurl = \"https://p\"\ntoken-id = \"a@pve!b\"\ntoken-secret = { env = \"TOKEN\" }\n",
        ),
        ("none.env", "A=1\n"),
    ]);
    let path = |name: &str| folder.path().join(name);
    let search = |variable: &str, value: &str| SiteSearch {
        environment: map(&[(variable, path(value).to_str().expect("text"))]),
        ..SiteSearch::default()
    };
    for (variable, value) in [("XDG_CONFIG_HOME", "config"), ("HOME", "home")] {
        let (site, findings) = load_site(&search(variable, value));
        assert!(findings.is_empty() && site.targets.contains_key("mine"), "{variable}: {findings:?}");
    }
    let given = SiteSearch {
        config: Some(path("pve.toml")),
        env_file: Some(path("secrets.env")),
        ..SiteSearch::default()
    };
    let (site, findings) = load_site(&given);
    assert!(findings.is_empty(), "{findings:?}");
    let secret = &proxmox(only(&site)).token_secret;
    assert!(
        matches!(secret, SecretRef::Given(secret) if secret.expose() == "s"),
        "an env file gives the secret"
    );

    let missing = SiteSearch { config: Some(path("nosuch.toml")), ..SiteSearch::default() };
    let (_, mut findings) = load_site(&missing);
    let empty = SiteSearch { env_file: Some(path("none.env")), ..SiteSearch::default() };
    let (site, more) = load_site(&empty);
    findings.extend(more);
    findings.extend(site.target(None).err());
    insta::assert_snapshot!(told(&findings, folder.path()), @r#"
    nosuch.toml: can't be read: No such file or directory (os error 2)
    no forge.toml was found, and none.env names no target
        help: write a forge.toml with `[targets.NAME]`, or set PROXMOX_URL, PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET
    "#);
}

#[test]
fn a_cluster_may_have_several_endpoints_certificates_and_a_proxy_and_no_login_stands_in_the_file() {
    let (one, two) = ("AB:".repeat(31) + "CD", "12:".repeat(31) + "34");
    let site = |url: &str, proxy: &str| {
        let text = format!(
            "[targets.pve]\ntype = \"proxmox\"\nurl = {url}\ntoken-id = \"forge@pve!build\"\n\
             token-secret = {{ env = \"SECRET\" }}\ntls = {{ fingerprint = [\"{one}\", \"{two}\"] }}\nproxy = \"{proxy}\"\n"
        );
        read(Path::new("forge.toml"), &text)
    };
    let (sound, findings) = site(r#"["https://pve1:8006", "https://pve2:8006"]"#, "http://proxy:3128");
    assert_eq!(told(&findings, Path::new("-")), "");
    let pve = proxmox(only(&sound));
    assert_eq!(pve.urls, ["https://pve1:8006", "https://pve2:8006"]);
    assert_eq!(pve.tls, TlsConfig::Fingerprint(vec![one.clone(), two.clone()]));
    assert_eq!(pve.proxy.as_deref(), Some("http://proxy:3128"));
    assert_eq!(told(&site(r#""https://pve1:8006""#, "none").1, Path::new("-")), "");
    let wrong = site(r#"["https://pve1:8006", "pve2:8006"]"#, "http://me:s3cret@proxy:3128").1;
    let said = told(&wrong, Path::new("-"));
    assert!(
        said.contains("`pve2:8006` is no https:// address") && said.contains("a login does not belong"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    let said = told(&site("[]", "socks5://proxy:1080").1, Path::new("-"));
    assert!(said.contains("no address is named") && said.contains("neither an http:// address"), "{said}");
}

#[test]
fn guests_are_given_an_address_or_that_of_an_interface_and_not_both() {
    let target = |seed: &str| {
        let text = format!(
            "[targets.pve]\ntype = \"proxmox\"\nurl = \"https://pve1:8006\"\ntoken-id = \"forge@pve!build\"\n\
             token-secret = {{ env = \"SECRET\" }}\nseed = {{ {seed} }}\n"
        );
        read(Path::new("forge.toml"), &text)
    };
    let (site, findings) = target("interface = \"eth1\"");
    assert_eq!(findings, []);
    let seed = &only(&site).seed;
    assert_eq!((seed.interface.as_deref(), seed.address.as_deref()), (Some("eth1"), None));
    let (_, findings) = target("address = \"192.0.2.9\", interface = \"eth1\"");
    let told = told(&findings, Path::new("-"));
    assert!(
        told.contains("`address` says already what guests are given (`targets.pve.seed.interface`)"),
        "{told}"
    );
}
