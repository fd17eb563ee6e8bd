//! `[access]`: by what the build logs in, and on which way.

use super::{least, load, sound};
use crate::remote::{ProxyKind, SecretSource};

#[test]
fn credentials_bastions_and_proxies_are_read() {
    let access = sound(&[(
        "x.toml",
        &least(
            r#"
[access]
user = "admin"
create = false
key-file = "keys/admin"
key-passphrase = { env = "PASSPHRASE" }
password = { command = ["pass", "guest"] }
host = "192.0.2.7"
port = 2222
host-key = "SHA256:DY7cKz4TJg3UJ/5Ri0tbyGPt3xxW+p6fHvdv/TOe4Wg"
old-algorithms = true
bastions = [{ host = "jump.example.org", user = "me", agent-auth = true }]
proxy = { type = "http", host = "proxy.example.org" }
"#,
        ),
    )])
    .access;
    let ssh = access.ssh;
    assert!(ssh.credentials.key_file.is_some_and(|path| path.ends_with("keys/admin")));
    assert_eq!(ssh.credentials.key_passphrase, Some(SecretSource::Env("PASSPHRASE".into())));
    assert_eq!((ssh.host.as_deref(), ssh.port, ssh.old_algorithms), (Some("192.0.2.7"), Some(2222), true));
    assert!(ssh.bastions[0].port == 22 && ssh.bastions[0].credentials.agent_auth);
    let proxy = ssh.proxy.unwrap();
    assert_eq!((proxy.kind, proxy.port), (ProxyKind::Http, 8080));
}

#[test]
fn the_seed_may_bring_the_guest_its_host_key() {
    let access = sound(&[("x.toml", &least("[access]\nhost-key = \"seed\"\n"))]).access;
    assert!(access.ssh.host_key_in_seed && access.ssh.host_key.is_none());
    // A bastion has no seed.
    let bastion =
        "[access]\nbastions = [{ host = \"jump\", user = \"me\", agent-auth = true, host-key = \"seed\" }]\n";
    let (_, told) = load(&[("x.toml", &least(bastion))]);
    assert!(told.contains("`seed` is no fingerprint of a host key"), "{told}");
}

#[test]
fn a_word_that_is_nearly_the_one_for_the_seed_s_host_key_is_told_which() {
    let (_, told) = load(&[("x.toml", &least("[access]\nhost-key = \"seeds\"\n"))]);
    assert!(
        told.contains("`seeds` is no fingerprint of a host key") && told.contains("did you mean `seed`?"),
        "{told}"
    );
}

#[test]
fn winrm_for_a_linux_is_told_without_a_target() {
    let (_, told) = load(&[("x.toml", &least("[access]\nvia = [\"winrm\"]\n"))]);
    assert!(
        told.contains("WinRM is Windows' own, and the profile's family is linux (`access.via`)"),
        "{told}"
    );
}

#[test]
fn a_user_whom_nobody_gave_a_key_is_told_without_a_target() {
    let words =
        "`me` is not made by the build, and nothing says how to log in as that user (`access.create`)";
    let none = "[access]\nuser = \"me\"\ncreate = false\n";
    let (_, told) = load(&[("x.toml", &least(none))]);
    assert!(told.contains(words) && told.contains("name `key-file`, `agent-auth` or `password`"), "{told}");
    for known in [
        "agent-auth = true\n",
        "password = { env = \"WORD\" }\n",
        "via = [\"agent\"]\n",
        "[boot]\nsteps = [{ type = \"echo '{{ access.public-key }}'\" }]\n",
    ] {
        let (profile, told) = load(&[("x.toml", &least(&format!("{none}{known}")))]);
        assert!(profile.is_some() && !told.contains(words), "{known}: {told}");
    }
}

#[test]
fn what_is_wrong_with_the_access_is_told_at_once() {
    let (_, told) = load(&[(
        "x.toml",
        &least(
            r#"
[access]
password = "hunter2"
certificate-file = "c"
host-key = "ab:cd"
ssh_bastion_host = "jump"
bastions = [{ host = "jump", port = 0 }]
"#,
        ),
    )]);
    for part in [
        "a secret does not belong in this file (`access.password`)",
        "`certificate-file` belongs to a `key-file`",
        "`ab:cd` is no fingerprint of a host key",
        "unknown key `access.ssh_bastion_host`",
        "`access.bastions[0].user` is missing",
        "nothing says how to log in to this bastion",
        "0 is not between 1 and 65535",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}
