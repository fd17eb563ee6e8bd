//! The login against OpenSSH itself: its `sshd` serves each connection of a listener on loopback, as an ordinary user
//! in a user namespace of its own whose accounts are the test's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use forge_machine::{ExecOutcome, Guest as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::access::{BastionPlan, CredentialPlan, ProxyPlan};
use super::{
    BuildKey, ProxyKind, SecretSource, SshAccess, SshGuest, SshPlan, WaitError, WaitInput, wait_for_guest,
};

const SSHD: &str = "/usr/sbin/sshd";
const PASSWORD: &str = "ein langes Wort";
/// Long enough for a busy machine; nothing waits it out but what must be refused.
const LIMIT: Duration = Duration::from_secs(90);
const REFUSAL: Duration = Duration::from_secs(8);

/// The accounts and keys of a server.
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

fn keygen(words: &[&str]) {
    let output = Command::new("ssh-keygen").arg("-q").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

impl Site {
    /// `None`, with the reason printed, where OpenSSH or user namespaces are missing.
    pub(crate) fn new() -> Option<Self> {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        let allowed =
            || Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
        if !Path::new(SSHD).exists() || !allowed().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: it takes {SSHD} and user namespaces");
            return None;
        }
        std::fs::set_permissions(site.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        keygen(&["-t", "ed25519", "-N", "", "-f", site.text("host").as_str()]);
        keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", site.text("host-rsa").as_str()]);
        keygen(&["-t", "ed25519", "-N", "", "-f", site.text("user").as_str()]);
        keygen(&["-t", "ed25519", "-N", "", "-f", site.text("ca").as_str()]);
        let hash = Command::new("openssl").args(["passwd", "-6", PASSWORD]).output().unwrap();
        let hash = String::from_utf8(hash.stdout).unwrap();
        site.write("passwd", &format!("forge:x:1000:1000::{}:/bin/sh\n", site.text("")));
        site.write("shadow", &format!("forge:{}:19000:0:99999:7:::\n", hash.trim()));
        site.write("group", "forge:x:1000:\n");
        site.write("authorized_keys", &std::fs::read_to_string(site.path("user.pub")).unwrap());
        std::fs::create_dir(site.path("pam.d")).unwrap();
        site.write(
            "pam.d/sshd",
            "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
        );
        Some(site)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The fingerprint of the host key, by `ssh-keygen`.
    fn fingerprint(&self, key: &str) -> String {
        let output = Command::new("ssh-keygen").args(["-l", "-f", &self.text(key)]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    /// Serves with these lines of `sshd_config`; a host key is among them.
    pub(crate) async fn serve(&self, lines: &str) -> Served {
        self.serve_at(IpAddr::V4(Ipv4Addr::LOCALHOST), lines).await.unwrap()
    }

    async fn serve_at(&self, address: IpAddr, lines: &str) -> std::io::Result<Served> {
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let name = format!("config-{}", address.port());
        let common = format!(
            "StrictModes no\nPidFile none\nLogLevel VERBOSE\nSubsystem sftp internal-sftp\nAuthorizedKeysFile {}\n",
            self.text("authorized_keys")
        );
        let host_key = if lines.contains("HostKey ") {
            String::new()
        } else {
            format!("HostKey {}\n", self.text("host"))
        };
        self.write(&name, &format!("{common}{host_key}{lines}"));
        let binds: Vec<String> = ["passwd", "shadow", "group", "pam.d"]
            .map(|file| format!("mount --bind {} /etc/{file}", self.text(file)))
            .into();
        let script = format!(
            "{} && exec unshare --user --map-user=1000 --map-group=1000 {SSHD} -i -e -f {}",
            binds.join(" && "),
            self.text(&name)
        );
        let log = self.path(&format!("{name}.log"));
        let logged = log.clone();
        let task = tokio::spawn(async move {
            let mut children = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = stream.into_std().unwrap();
                stream.set_nonblocking(false).unwrap();
                let again: OwnedFd = stream.try_clone().unwrap().into();
                let log = std::fs::OpenOptions::new().create(true).append(true).open(&logged).unwrap();
                let mut command = tokio::process::Command::new("unshare");
                command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
                command.stdin(Stdio::from(again)).stdout(Stdio::from(OwnedFd::from(stream))).stderr(log);
                children.push(command.kill_on_drop(true).spawn().unwrap());
            }
        });
        Ok(Served { address, log, task })
    }
}

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    log: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    /// What `sshd` says of this, so that a failed test can be understood.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn login(server: &Served, plan: &SshPlan, limit: Duration) -> Result<Arc<SshGuest>, WaitError> {
    login_by(server, SshAccess::resolve(plan, false, &|_| {}).await.unwrap(), limit).await
}

async fn login_by(server: &Served, access: SshAccess, limit: Duration) -> Result<Arc<SshGuest>, WaitError> {
    let key = Arc::new(BuildKey::generate().unwrap());
    let source = Arc::new(server.address);
    let input = WaitInput { source, user: "forge".into(), key, access, host_key: None, limit };
    wait_for_guest(input, &|_| {}).await
}

/// Logs in and runs a command.
pub(crate) async fn works(server: &Served, plan: &SshPlan) -> Arc<SshGuest> {
    let guest = login(server, plan, LIMIT).await.unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
    let mut output = Vec::new();
    let command = forge_machine::Command::new("id -un; cat");
    let command = forge_machine::Command { stdin: b"in".to_vec(), ..command };
    assert_eq!(guest.exec(&command, &mut output).await.unwrap(), ExecOutcome::Exited(0));
    assert_eq!(String::from_utf8(output).unwrap(), "forge\nin");
    guest
}

async fn refused(server: &Served, plan: &SshPlan) -> String {
    match login(server, plan, REFUSAL).await {
        Ok(_) => panic!("let in: {}", server.log()),
        Err(error) => error.to_string(),
    }
}

fn by(credentials: CredentialPlan) -> SshPlan {
    SshPlan { credentials, ..SshPlan::default() }
}

pub(crate) fn key_file(path: PathBuf) -> SshPlan {
    by(CredentialPlan { key_file: Some(path), ..CredentialPlan::default() })
}

fn password(site: &Site) -> CredentialPlan {
    site.write("password", &format!("{PASSWORD}\n"));
    CredentialPlan { password: Some(SecretSource::File(site.path("password"))), ..CredentialPlan::default() }
}

pub(crate) const KEYS_ONLY: &str = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n";

#[tokio::test]
async fn openssh_lets_in_key_files_of_each_form_and_an_encrypted_one_by_its_passphrase() {
    let Some(site) = Site::new() else { return };
    let server = site.serve(KEYS_ONLY).await;
    site.write("passphrase", "a passphrase");
    let mut authorized = std::fs::read_to_string(site.path("authorized_keys")).unwrap();
    let forms: [(&str, &[&str]); 6] = [
        ("ed25519", &["-t", "ed25519"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("ecdsa", &["-t", "ecdsa", "-b", "384"]),
        ("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
        ("ecdsa-pem", &["-t", "ecdsa", "-b", "256", "-m", "PEM"]),
    ];
    for (name, words) in forms {
        for locked in [false, true] {
            // PEM's own encryption rests on MD5; OpenSSH still writes it.
            let file = format!("{name}-{locked}");
            let passphrase = if locked { "a passphrase" } else { "" };
            keygen(&[words, &["-N", passphrase, "-f", &site.text(&file)]].concat());
            authorized.push_str(&std::fs::read_to_string(site.path(&format!("{file}.pub"))).unwrap());
        }
    }
    site.write("authorized_keys", &authorized);
    for (name, _) in forms {
        works(&server, &key_file(site.path(&format!("{name}-false")))).await;
    }
    for name in ["ed25519", "rsa", "ecdsa", "rsa-pem", "rsa-pkcs8"] {
        let mut plan = key_file(site.path(&format!("{name}-true")));
        let locked = SshAccess::resolve(&plan, false, &|_| {}).await.unwrap_err().to_string();
        assert!(locked.ends_with("is encrypted: name its passphrase in `access.key-passphrase`"), "{locked}");
        plan.credentials.key_passphrase = Some(SecretSource::File(site.path("passphrase")));
        works(&server, &plan).await;
        site.write("wrong", "another passphrase");
        plan.credentials.key_passphrase = Some(SecretSource::File(site.path("wrong")));
        let wrong = SshAccess::resolve(&plan, false, &|_| {}).await.unwrap_err().to_string();
        assert!(wrong.contains("does not open with `access.key-passphrase`"), "{wrong}");
    }
    keygen(&["-t", "ed25519", "-N", "", "-f", &site.text("stranger")]);
    let told = refused(&server, &key_file(site.path("stranger"))).await;
    assert!(told.contains("login refused (key refused; offered: publickey)"), "{told}");
}

#[tokio::test]
async fn openssh_lets_in_a_password_the_answer_to_its_questions_and_both_a_key_and_a_password() {
    let Some(site) = Site::new() else { return };
    let plan = by(password(&site));
    let plain = "PubkeyAuthentication no\nKbdInteractiveAuthentication no\nPasswordAuthentication yes\n";
    works(&site.serve(plain).await, &plan).await;
    let asking =
        "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\n";
    let server = site.serve(asking).await;
    works(&server, &plan).await;
    assert!(server.log().contains("Accepted keyboard-interactive/pam"), "{}", server.log());
    let server = site.serve("PasswordAuthentication yes\nAuthenticationMethods publickey,password\n").await;
    let both = CredentialPlan { key_file: Some(site.path("user")), ..password(&site) };
    works(&server, &by(both)).await;
    let told = refused(&server, &key_file(site.path("user"))).await;
    assert!(told.contains("login refused (key accepted; more is asked for; offered: password)"), "{told}");
    site.write("password", "another word");
    let told = refused(&site.serve(plain).await, &plan).await;
    assert!(told.contains("login refused (password refused; offered: password)"), "{told}");
}

#[tokio::test]
async fn openssh_lets_in_a_certificate_whose_authority_it_trusts() {
    let Some(site) = Site::new() else { return };
    keygen(&["-t", "ed25519", "-N", "", "-f", &site.text("signed")]);
    keygen(&[
        "-s",
        &site.text("ca"),
        "-I",
        "build",
        "-n",
        "forge",
        "-V",
        "-5m:+1h",
        &site.text("signed.pub"),
    ]);
    let server = site.serve(&format!("{KEYS_ONLY}TrustedUserCAKeys {}\n", site.text("ca.pub"))).await;
    let mut plan = key_file(site.path("signed"));
    let told = refused(&server, &plan).await;
    assert!(told.contains("key refused"), "{told}");
    plan.credentials.certificate_file = Some(site.path("signed-cert.pub"));
    works(&server, &plan).await;
    assert!(server.log().contains("Accepted publickey for forge") && server.log().contains("ED25519-CERT"));
}

#[tokio::test]
async fn openssh_lets_in_a_key_that_only_the_agent_has() {
    let Some(site) = Site::new() else { return };
    let server = site.serve(KEYS_ONLY).await;
    let socket = site.path("agent");
    let agent =
        Command::new("ssh-agent").args(["-D", "-a", &site.text("agent")]).stdout(Stdio::null()).spawn();
    let mut agent = agent.unwrap();
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let access = || SshAccess {
        methods: vec![super::Method::Agent(Some(socket.clone()))],
        without_build_key: true,
        ..SshAccess::default()
    };
    let told = login_by(&server, access(), REFUSAL).await.unwrap_err().to_string();
    keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", &site.text("other")]);
    for key in ["other", "user"] {
        let mut add = Command::new("ssh-add");
        assert!(add.args(["-q", &site.text(key)]).env("SSH_AUTH_SOCK", &socket).status().unwrap().success());
    }
    let end = login_by(&server, access(), LIMIT).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(told.contains("ssh-agent: it holds no keys"), "{told}");
    end.unwrap();
    assert!(server.log().contains("Accepted publickey for forge"), "{}", server.log());
}

/// An agent that holds these keys of the site.
struct KeyAgent(std::process::Child, PathBuf);

impl KeyAgent {
    async fn with(site: &Site, keys: &[String]) -> Self {
        let socket = site.path("many");
        let agent =
            Command::new("ssh-agent").args(["-D", "-a", &site.text("many")]).stdout(Stdio::null()).spawn();
        let agent = Self(agent.unwrap(), socket.clone());
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for key in keys {
            let mut add = Command::new("ssh-add");
            assert!(
                add.args(["-q", &site.text(key)]).env("SSH_AUTH_SOCK", &socket).status().unwrap().success()
            );
        }
        agent
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn openssh_lets_in_what_stands_behind_more_keys_than_one_login_may_offer() {
    let Some(site) = Site::new() else { return };
    let mut keys: Vec<String> = (0..8).map(|number| format!("stranger-{number}")).collect();
    for key in &keys {
        keygen(&["-t", "ed25519", "-N", "", "-f", &site.text(key)]);
    }
    let access = |agent: &KeyAgent, more: Vec<super::Method>| SshAccess {
        methods: [vec![super::Method::Agent(Some(agent.1.clone()))], more].concat(),
        ..SshAccess::default()
    };
    // The build's own key, eight strangers, and then the password.
    let agent = KeyAgent::with(&site, &keys).await;
    let word = || vec![super::Method::Password(super::Password::new(PASSWORD))];
    for tries in ["MaxAuthTries 6\n", "MaxAuthTries 2\n"] {
        let server = site.serve(&format!("PasswordAuthentication yes\n{tries}")).await;
        let guest = login_by(&server, access(&agent, word()), LIMIT).await;
        guest.unwrap_or_else(|error| panic!("{tries}: {error}\n{}", server.log()));
        assert!(server.log().contains("Accepted password for forge"), "{}", server.log());
    }
    // Nothing fits: that is a refusal, and not a broken connection.
    let server = site.serve(KEYS_ONLY).await;
    let told = login_by(&server, access(&agent, Vec::new()), REFUSAL * 2).await.unwrap_err();
    assert!(matches!(&told, WaitError::Refused { .. }), "{told}");
    drop(agent);
    std::fs::remove_file(site.path("many")).unwrap_or_default();
    // And the ninth key of an agent is found.
    keys.push("user".into());
    let agent = KeyAgent::with(&site, &keys).await;
    login_by(&server, access(&agent, Vec::new()), LIMIT).await.unwrap();
    assert!(server.log().contains("Accepted publickey for forge"), "{}", server.log());
}

#[tokio::test]
async fn a_host_key_that_is_known_in_advance_is_held_against_the_server_from_the_first_login() {
    let Some(site) = Site::new() else { return };
    let server = site.serve(KEYS_ONLY).await;
    let mut plan = key_file(site.path("user"));
    plan.host_key = Some(site.fingerprint("host.pub"));
    assert_eq!(works(&server, &plan).await.host_key(), plan.host_key);
    plan.host_key = Some(site.fingerprint("ca.pub"));
    let error = login(&server, &plan, LIMIT).await.unwrap_err();
    assert!(matches!(error, WaitError::HostKeyChanged { .. }), "{error}");
}

#[tokio::test]
async fn openssh_with_nothing_but_old_algorithms_is_refused_unless_they_are_asked_for() {
    let Some(site) = Site::new() else { return };
    let old = format!(
        "{KEYS_ONLY}HostKey {}\nHostKeyAlgorithms ssh-rsa\nKexAlgorithms diffie-hellman-group14-sha1\n\
         Ciphers aes128-cbc\nMACs hmac-sha1\nPubkeyAcceptedAlgorithms ssh-rsa\n",
        site.text("host-rsa")
    );
    keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", &site.text("rsa")]);
    site.write("authorized_keys", &std::fs::read_to_string(site.path("rsa.pub")).unwrap());
    let server = site.serve(&old).await;
    let mut plan = key_file(site.path("rsa"));
    let told = refused(&server, &plan).await;
    assert!(told.contains("handshake"), "{told}");
    plan.old_algorithms = true;
    works(&server, &plan).await;
}

#[tokio::test]
async fn openssh_is_reached_over_ipv6() {
    let Some(site) = Site::new() else { return };
    let Ok(server) = site.serve_at(IpAddr::V6(Ipv6Addr::LOCALHOST), KEYS_ONLY).await else {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let guest = works(&server, &key_file(site.path("user"))).await;
    assert_eq!(guest.describe(), format!("forge@[::1]:{}", server.address.port()));
}

fn bastion(server: &Served, credentials: CredentialPlan) -> BastionPlan {
    BastionPlan {
        host: server.address.ip().to_string(),
        port: server.address.port(),
        user: "forge".into(),
        host_key: None,
        credentials,
    }
}

#[tokio::test]
async fn two_bastions_and_a_proxy_before_them_lead_to_the_guest() {
    let Some(site) = Site::new() else { return };
    let (near, far) = (site.serve("PasswordAuthentication yes\n").await, site.serve(KEYS_ONLY).await);
    let server = site.serve(KEYS_ONLY).await;
    let mut plan = key_file(site.path("user"));
    let key = plan.credentials.clone();
    plan.bastions = vec![bastion(&near, password(&site)), bastion(&far, key.clone())];
    let guest = works(&server, &plan).await;
    guest.put(&site.text("sent"), &[7; 300_000], 0o640).await.unwrap();
    assert_eq!(guest.get(&site.text("sent"), 1 << 20).await.unwrap(), [7; 300_000]);
    let (proxy, seen) = proxy(None).await;
    plan.proxy = Some(ProxyPlan {
        kind: ProxyKind::Socks5,
        host: "127.0.0.1".into(),
        port: proxy,
        user: None,
        password: None,
    });
    works(&server, &plan).await;
    // The proxy sees the first bastion only.
    assert!(seen.lock().unwrap().iter().all(|port| *port == near.address.port()));
    let closed = site.serve(&format!("{KEYS_ONLY}AllowTcpForwarding no\n")).await;
    plan.proxy = None;
    plan.bastions = vec![bastion(&closed, key)];
    let told = refused(&server, &plan).await;
    assert!(told.contains("127.0.0.1 can't reach it"), "{told}");
}

#[tokio::test]
async fn a_socks5_and_an_http_proxy_lead_to_the_guest_with_and_without_a_password() {
    let Some(site) = Site::new() else { return };
    let server = site.serve(KEYS_ONLY).await;
    site.write("password", PASSWORD);
    for kind in [ProxyKind::Socks5, ProxyKind::Http] {
        for login in [None, Some("proxy-user")] {
            let (port, seen) = proxy(login).await;
            let mut plan = key_file(site.path("user"));
            let secret = login.map(|_| SecretSource::File(site.path("password")));
            let through = ProxyPlan {
                kind,
                host: "127.0.0.1".into(),
                port,
                user: login.map(str::to_owned),
                password: secret,
            };
            plan.proxy = Some(through.clone());
            works(&server, &plan).await;
            assert!(!seen.lock().unwrap().is_empty());
            if login.is_some() {
                plan.proxy = Some(ProxyPlan { user: Some("somebody".into()), ..through });
                let told = refused(&server, &plan).await;
                assert!(told.contains("refuses user and password"), "{told}");
            }
        }
    }
}

type Seen = Arc<std::sync::Mutex<Vec<u16>>>;

/// A proxy for both protocols that notes the ports it is asked for; with a user it wants [`PASSWORD`].
async fn proxy(user: Option<&'static str>) -> (u16, Seen) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(relay(stream, user, noted.clone()));
        }
    });
    (port, seen)
}

async fn relay(mut near: TcpStream, user: Option<&'static str>, seen: Seen) -> std::io::Result<()> {
    let first = near.read_u8().await?;
    let port = if first == 5 {
        let mut methods = vec![0; usize::from(near.read_u8().await?)];
        near.read_exact(&mut methods).await?;
        let method = if user.is_some() { 2 } else { 0 };
        near.write_all(&[5, if methods.contains(&method) { method } else { 0xff }]).await?;
        if let Some(user) = user {
            assert_eq!(near.read_u8().await?, 1);
            let mut words = Vec::new();
            for _ in 0..2 {
                let mut word = vec![0; usize::from(near.read_u8().await?)];
                near.read_exact(&mut word).await?;
                words.push(String::from_utf8(word).unwrap());
            }
            let right = words == [user, PASSWORD];
            near.write_all(&[1, u8::from(!right)]).await?;
            if !right {
                return Ok(());
            }
        }
        let mut head = [0; 10];
        near.read_exact(&mut head).await?;
        assert_eq!(head[..8], [5, 1, 0, 1, 127, 0, 0, 1]);
        let port = u16::from_be_bytes([head[8], head[9]]);
        near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        port
    } else {
        let mut request = vec![first];
        while !request.ends_with(b"\r\n\r\n") {
            request.push(near.read_u8().await?);
        }
        let request = String::from_utf8(request).unwrap();
        let authority = request.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
        let right = user.is_none_or(|user| {
            use base64::Engine as _;
            let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{PASSWORD}"));
            request.contains(&format!("\r\nProxy-Authorization: Basic {login}\r\n"))
        });
        if !right {
            near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await?;
            return Ok(());
        }
        let port = authority.rsplit(':').next().unwrap().parse().unwrap();
        near.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").await?;
        port
    };
    seen.lock().unwrap().push(port);
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}
