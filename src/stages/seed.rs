//! Renders the seed and opens its server, before the VM exists: what can't be served must not be built.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use forge_http_seed::answers::{Build, Kind, WinRm};
use forge_http_seed::network::Network;
use forge_http_seed::nocloud::{BuildUser, HostKey, NoCloud};
use forge_http_seed::server::{Fetch, SeedObserver, SeedServer, SeedToken, ServerOptions};
use forge_http_seed::{SeedSet, address, crypt, disc, serial};
use forge_machine::{Attachments, CloudInitSettings, Finish, SourceSpec};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::beside::{self, BesideError};
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Event, Events, Region, Stage};
use crate::plan::late::LateName;
use crate::plan::{Delivery, Plan, SeedPlan};
use crate::remote::{BuildKey, GivenHostKey, Hints, Via, WinRmAuth};

/// The seed is rendered, and served where the delivery needs it.
#[derive(Debug)]
pub struct Seeded {
    /// The key made for this build.
    pub key: Arc<BuildKey>,
    /// The hash of the password for the serial console, where one is made.
    password_hash: Option<String>,
    /// The host key that the guest is given, where the profile wants it.
    host_key: Option<GivenHostKey>,
    /// Where the guest may be, by its seed and by who has fetched it.
    pub hints: Hints,
    server: Option<SeedServer>,
    /// Whom it answers; empty for all.
    allowed_networks: Vec<Network>,
    disc: Option<Vec<u8>>,
    floppy: Option<Vec<u8>>,
    /// What a kernel that is started without a boot loader is told.
    arguments: String,
    stop: CancellationToken,
}

impl Drop for Seeded {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Tells the fetches to whoever watches the build, and who asked to whoever looks for the guest.
struct Tell(Events, Hints);

impl SeedObserver for Tell {
    fn fetched(&self, fetch: &Fetch) {
        // Nobody else knows the path of a file that is there.
        if fetch.status == 200 {
            self.1.asked(fetch.peer.ip());
        }
        self.0.emit(Event::Fetched {
            path: fetch.path.clone(),
            status: fetch.status,
            bytes: fetch.bytes,
            peer: fetch.peer.ip().to_string(),
        });
    }
}

/// Renders and serves the seed.
///
/// # Errors
/// When no port is free, no address of ours routes to the target, or the seed can't be rendered.
pub async fn seed(cx: &mut Cx, key: Arc<BuildKey>) -> Result<Seeded, StageError> {
    let plan = cx.plan.clone();
    cx.bindings.bind(LateName::BuildNonce, cx.mark.nonce.as_str());
    cx.bindings.bind(LateName::AccessPublicKey, key.public_openssh());
    let password_hash = console_password(cx, &key)?;
    let host_key = given_host_key(cx, &key)?;
    let stop = CancellationToken::new();
    let drive = plan.seed.delivery == Delivery::CloudInitDrive;
    let hints = Hints::given_by(
        drive.then_some(plan.seed.ip_config.as_str()),
        plan.seed.network_config.as_ref().filter(|_| !drive),
    );
    let mut seeded = Seeded {
        key,
        password_hash,
        host_key,
        hints: hints.clone(),
        server: None,
        allowed_networks: Vec::new(),
        disc: None,
        floppy: None,
        arguments: String::new(),
        stop: stop.clone(),
    };
    // A boot disc is made when the medium is at hand.
    if plan.seed.disc.is_some() && !matches!(plan.seed.delivery, Delivery::Disc | Delivery::BootDisc) {
        seeded.disc = Some(disc_of(&plan.seed, SeedSet::default())?);
    }
    if plan.seed.floppy.is_some() && plan.seed.delivery != Delivery::Floppy {
        seeded.floppy = Some(floppy_of(&plan.seed, SeedSet::default())?);
    }
    if matches!(plan.seed.delivery, Delivery::CloudInitDrive | Delivery::None) {
        return Ok(seeded);
    }
    let mut set = files(cx, &seeded)?;
    let folder = if cx.region == Region::Building { "seed" } else { "seed-again" };
    for (name, text) in set.texts() {
        if let Err(error) = cx.evidence.write_text(&format!("{folder}/{name}"), text) {
            cx.warn(crate::engine::error::chain(&error), "");
        }
    }
    beside::add_to(&mut set, &plan.seed.files).map_err(no_file)?;
    if plan.seed.delivery == Delivery::Disc {
        seeded.disc = Some(disc_of(&plan.seed, set)?);
        return Ok(seeded);
    }
    if plan.seed.delivery == Delivery::Floppy {
        seeded.floppy = Some(floppy_of(&plan.seed, set)?);
        return Ok(seeded);
    }
    cx.doing(Stage::Seed, "opening the seed server");
    let allowed_networks: Vec<Network> =
        plan.seed.allowed_networks.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(
            |error| StageError::caused("`seed.allowed-networks` of the target can't be read", error),
        )?;
    seeded.allowed_networks.clone_from(&allowed_networks);
    let events = cx.events.clone();
    let server = cx
        .cancellable_effect(Effect::ServeSeed, async {
            let listener = listen(&plan.seed.bind, plan.seed.ports).await?;
            SeedServer::start(
                listener,
                set,
                ServerOptions { token: SeedToken::generate(), allowed_networks },
                Arc::new(Tell(events, hints)),
                stop,
            )
            .map_err(|error| StageError::caused("the seed server could not be started", error))
        })
        .await?;
    // Whoever knows the path can read the seed, so no output shows it.
    cx.evidence.redactor().add_shown(server.token().expose());
    let guest_address = guest_address(&plan.seed)?;
    let port = server.local_addr().port();
    let url = server.url(guest_address);
    cx.bindings.bind(LateName::SeedAddress, guest_address.to_string());
    cx.bindings.bind(LateName::SeedPort, port.to_string());
    cx.bindings.bind(LateName::SeedUrl, url.as_str());
    cx.bindings.bind(LateName::SeedArguments, arguments(&plan.seed, &url, true));
    seeded.arguments = arguments(&plan.seed, &url, false);
    seeded.server = Some(server);
    Ok(seeded)
}

/// The disc, with what it holds besides the profile's own files.
fn disc_of(seed: &SeedPlan, mut set: SeedSet) -> Result<Vec<u8>, StageError> {
    beside::add_to(&mut set, seed.on_disc()).map_err(no_file)?;
    disc::iso(seed.disc_label(), &set)
        .map_err(|error| StageError::caused("the disc for the guest could not be made", error))
}

/// The floppy, likewise.
fn floppy_of(seed: &SeedPlan, mut set: SeedSet) -> Result<Vec<u8>, StageError> {
    beside::add_to(&mut set, seed.on_floppy()).map_err(no_file)?;
    disc::floppy(seed.floppy_label(), &set)
        .map_err(|error| StageError::caused("the floppy for the guest could not be made", error))
}

fn no_file(error: BesideError) -> StageError {
    StageError::caused("a file of the profile can't be given to the guest", error)
        .hint("leave the files alone while they are built from, and start the build anew")
}

/// The seed of a kept guest: the build's user and key, and nothing else. What else the first seed brought is in the guest
/// already, and the plan of a kept build, read back from its evidence, has stars where it had secrets.
///
/// # Errors
/// As [`seed`].
pub async fn seed_user(cx: &mut Cx, key: Arc<BuildKey>) -> Result<Seeded, StageError> {
    let whole = cx.plan.clone();
    let mut plan = Plan::clone(&whole);
    plan.seed.user_data = None;
    plan.seed.answers = None;
    plan.seed.files.clear();
    plan.seed.disc = None;
    plan.seed.floppy = None;
    cx.plan = Arc::new(plan);
    let seeded = seed(cx, key).await;
    cx.plan = whole;
    seeded
}

/// The hash of the password for the serial console, when the build logs in there as a user of its own; password and hash
/// are masked from here on.
fn console_password(cx: &Cx, key: &BuildKey) -> Result<Option<String>, StageError> {
    if !cx.plan.access.makes_console_password() {
        return Ok(None);
    }
    let password = key.console_password();
    let salt = crypt::salt(cx.mark.nonce.as_str(), "console");
    let hash = crypt::Scheme::Sha512
        .hash(&password, &salt)
        .map_err(|error| StageError::caused("the password for the serial console can't be made", error))?;
    cx.evidence.redactor().add_passing(&password);
    cx.evidence.redactor().add_passing(&hash);
    Ok(Some(hash))
}

/// The host key that the guest is given, where the profile wants it; masked from here on, and looked for in what is sealed.
fn given_host_key(cx: &Cx, key: &BuildKey) -> Result<Option<GivenHostKey>, StageError> {
    if !cx.plan.access.ssh.host_key_in_seed {
        return Ok(None);
    }
    let given = key.host_key().map_err(|error| StageError::caused("the guest has no host key", error))?;
    // The first line of the text is the same in all keys of this kind, which a guest may well hold.
    let lines: Vec<&str> = given.private.lines().filter(|line| !line.starts_with("-----")).skip(1).collect();
    cx.evidence.redactor().add_passing(&lines.join("\n"));
    Ok(Some(given))
}

/// The seed's files.
fn files(cx: &mut Cx, seeded: &Seeded) -> Result<SeedSet, StageError> {
    let (plan, key) = (cx.plan.clone(), &seeded.key);
    let Some(answers) = &plan.seed.answers else {
        return nocloud(cx, seeded)
            .files()
            .map_err(|error| StageError::caused("the seed could not be rendered", error));
    };
    let build = of_build(cx, key);
    if let Some(hash) = answers.password_hash(&build) {
        let redactor = cx.evidence.redactor();
        // An account that the build does not make is the system's own, and its password is meant to stay.
        match plan.access.create {
            true => redactor.add(&hash),
            false => redactor.hide(&hash),
        }
    }
    answers.render(&build).map_err(|errors| match errors.into_iter().next() {
        Some(error) => StageError::caused("the seed could not be rendered", error),
        None => StageError::new("the seed could not be rendered"),
    })
}

/// What answer files are told of the build.
fn of_build(cx: &Cx, key: &BuildKey) -> Build {
    let plan = &cx.plan;
    // Of the key, so that whoever goes on with the build can log in with it too.
    let random_password = key.windows_password();
    cx.evidence.redactor().add_passing(&random_password);
    Build {
        user: plan.access.user.clone(),
        create_user: plan.access.create,
        public_key: key.public_openssh().to_owned(),
        hostname: plan.seed.hostname.clone(),
        nonce: cx.mark.nonce.to_string(),
        random_password,
        winrm: plan.access.via.contains(&Via::WinRm).then(|| WinRm {
            tls: plan.access.winrm.use_ssl,
            basic: plan.access.winrm.auth == WinRmAuth::Basic,
            port: plan.access.winrm.port(),
        }),
    }
}

/// The answers for the clones of a Windows, of the profile's own seed; `None` where it has none.
pub(super) fn sysprep(cx: &Cx, key: &BuildKey) -> Option<String> {
    let set = cx.plan.seed.answers.as_ref()?.render(&of_build(cx, key)).ok()?;
    set.get("sysprep.xml")?.text().map(str::to_owned)
}

/// What the installer's kernel is told, or that of an image with cloud-init; `grub` when a boot loader reads it first.
fn arguments(seed: &SeedPlan, url: &str, grub: bool) -> String {
    let nocloud = match &seed.answers {
        Some(answers) => return answers.kernel_arguments(url, seed.hostname.as_deref(), grub),
        None if grub => serial::kernel_argument(url),
        None => serial::smbios_serial(url),
    };
    // Before 24.3 cloud-init reads no network configuration over HTTP (its pull request 5566), and later ones come to it when
    // the network is up; that of the kernel's line stands before all others (cloud-init docs, "Network configuration sources").
    match &seed.network_config {
        None => nocloud,
        Some(config) => {
            let config = base64::engine::general_purpose::STANDARD.encode(config.to_string());
            format!("{nocloud} network-config={config}")
        }
    }
}

/// The seed's content.
fn nocloud(cx: &Cx, seeded: &Seeded) -> NoCloud {
    let plan = &cx.plan;
    let user = || BuildUser {
        password_hash: seeded.password_hash.clone(),
        ..BuildUser::sudoer(&plan.access.user, seeded.key.public_openssh())
    };
    NoCloud {
        // A new instance for cloud-init whatever the source has seen before.
        instance_id: format!("forge-{}", cx.mark.nonce),
        hostname: plan.seed.hostname.clone(),
        user: plan.access.create.then(user),
        host_key: seeded
            .host_key
            .as_ref()
            .map(|given| HostKey { private: given.private.clone(), public: given.public.clone() }),
        user_data: plan.seed.user_data.clone(),
        network_config: plan.seed.network_config.clone(),
    }
}

/// A client whose first answer broke off asks again within seconds.
const RETRY: Duration = Duration::from_secs(10);

/// How often answers are read before an installer that reads them again has started again: linuxrc reads them before
/// YaST does, and what cloud-init's kin have installed may find the seed still named in the SMBIOS tables.
fn reads(seed: &SeedPlan) -> usize {
    match seed.answers.as_ref().map(|answers| answers.kind) {
        None | Some(Kind::Nocloud | Kind::Autoyast | Kind::Agama) => 2,
        Some(Kind::Autoinstall) if seed.delivery == Delivery::Smbios => 2,
        Some(Kind::Autoinstall | Kind::Kickstart | Kind::Preseed | Kind::Autounattend) => 1,
    }
}

/// See [`Seeded::read_again`]: only the file that was read first counts, since others may be read at any time.
fn read_again(fetches: &[Fetch], reads: usize) -> Option<(String, u64)> {
    let mut whole = fetches.iter().filter(|fetch| fetch.status == 200 && fetch.bytes > 0);
    let first = whole.next()?;
    let mut read = first.at_ms;
    let mut times = 1;
    for fetch in whole.filter(|fetch| fetch.path == first.path) {
        if Duration::from_millis(fetch.at_ms.saturating_sub(read)) > RETRY {
            times += 1;
            read = fetch.at_ms;
        }
    }
    (times > reads).then(|| (first.path.clone(), read.saturating_sub(first.at_ms) / 1000))
}

/// Binds the first free port of the range.
async fn listen(bind: &str, ports: (u16, u16)) -> Result<TcpListener, StageError> {
    let address: IpAddr = bind.parse().map_err(|error| {
        StageError::caused(format!("`{bind}` is not an address the seed server can bind"), error)
    })?;
    let mut last = None;
    for port in ports.0..=ports.1 {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let what = format!("no port of {}-{} is free on {bind} for the seed server", ports.0, ports.1);
    let error =
        last.map_or_else(|| StageError::new(what.clone()), |last| StageError::caused(what.clone(), last));
    Err(error.hint(
        "set `seed.ports` of the target in forge.toml to a range that is free and open in the firewall",
    ))
}

/// The address that the guest is given.
fn guest_address(seed: &SeedPlan) -> Result<IpAddr, StageError> {
    if let Some(name) = &seed.interface {
        return address_of(name).map_err(|why| {
            StageError::new(why).hint("name one of them in `seed.interface` of the target in forge.toml")
        });
    }
    if let Some(given) = &seed.address {
        return given.parse().map_err(|error| {
            StageError::caused(format!("`seed.address` is `{given}`, which is no IP address"), error)
        });
    }
    let advice =
        "set `seed.address` of the target in forge.toml to the address at which guests reach this machine";
    let endpoint: SocketAddr =
        seed.endpoint.as_deref().and_then(|text| text.parse().ok()).ok_or_else(|| {
            StageError::new("the address at which guests reach this machine is not known").hint(advice)
        })?;
    address::local_address_towards(endpoint).map_err(|error| {
        StageError::caused(format!("no address of this machine routes to {endpoint}"), error).hint(advice)
    })
}

/// The address of a network interface of this machine: its IPv4 address, else an IPv6 one that leads further than the link.
///
/// # Errors
/// In words: there is no such interface, or it has no address; with those that have one.
pub fn address_of(interface: &str) -> Result<IpAddr, String> {
    let all = nix::ifaddrs::getifaddrs();
    let all = all.map_err(|error| format!("the network interfaces can't be listed: {error}"))?;
    let mut known: Vec<(String, IpAddr)> = Vec::new();
    for each in all {
        let Some(address) = each.address else { continue };
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        known.push((each.interface_name, address));
    }
    // IPv4 first, each kind in the system's order.
    known.sort_by_key(|(_, address)| address.is_ipv6());
    if let Some((_, address)) = known.iter().find(|(name, _)| name == interface) {
        return Ok(*address);
    }
    let known: Vec<String> = known.into_iter().map(|(name, address)| format!("{name} ({address})")).collect();
    Err(format!("no network interface `{interface}` has an address; there are {}", known.join(", ")))
}

impl Seeded {
    /// What the VM itself carries of the seed.
    ///
    /// # Errors
    /// When a late value is missing.
    pub fn attachments(&self, cx: &Cx) -> Result<Attachments, StageError> {
        let access = &cx.plan.access;
        let cmdline = self.kernel_cmdline(cx)?.filter(|_| cx.plan.boot_disc.is_none());
        let attachments = match cx.plan.seed.delivery {
            Delivery::CloudInitDrive => Attachments {
                cloud_init: Some(CloudInitSettings {
                    user: access.user.clone(),
                    password_hash: self.password_hash.clone(),
                    ssh_keys: vec![self.key.public_openssh().to_owned()],
                    ip_config: cx.plan.seed.ip_config.clone(),
                }),
                ..Attachments::default()
            },
            Delivery::Smbios => {
                let url = cx.bindings.get(LateName::SeedUrl).unwrap_or_default();
                Attachments { smbios_serial: Some(serial::smbios_serial(url)), ..Attachments::default() }
            }
            Delivery::BootDisc
            | Delivery::Disc
            | Delivery::Floppy
            | Delivery::Kernel
            | Delivery::Typed
            | Delivery::None => Attachments::default(),
        };
        let (seed_disc, floppy) = (self.disc.clone(), self.floppy.clone());
        Ok(Attachments { kernel_cmdline: cmdline, seed_disc, floppy, ..attachments })
    }

    /// What the kernel is told that no boot loader of the medium's own menu starts; `None` where the profile says nothing.
    ///
    /// # Errors
    /// When a late value is missing.
    pub(super) fn kernel_cmdline(&self, cx: &Cx) -> Result<Option<String>, StageError> {
        let own = Some((LateName::SeedArguments, self.arguments.as_str()));
        let cmdline = cx.plan.kernel_cmdline.as_ref();
        Ok(cmdline.map(|text| cx.bindings.resolve_with(text, own)).transpose()?)
    }

    /// What is cloned, in words.
    #[must_use]
    pub fn source_in_words(&self, cx: &Cx) -> String {
        match &cx.plan.machine.source {
            SourceSpec::Clone { vm, name, full, .. } => {
                format!("cloning {name} ({}, {})", vm.id, if *full { "full" } else { "linked" })
            }
            SourceSpec::Image { image, .. } if matches!(cx.plan.finish, Finish::Template { .. }) => {
                format!("importing {image}")
            }
            SourceSpec::Image { image, copy: false } => format!("making an overlay of {image}"),
            SourceSpec::Image { image, copy: true } => format!("copying {image}"),
            SourceSpec::New => "making a new VM".to_owned(),
        }
    }

    /// The file of the seed that an installer has begun to read once more than it does, and how many seconds after the
    /// first time.
    #[must_use]
    pub fn read_again(&self, plan: &SeedPlan) -> Option<(String, u64)> {
        // What lies beside the answers may be read at any time.
        let of_seed = |fetch: &Fetch| !plan.files.iter().any(|file| file.name == fetch.path);
        let fetches: Vec<Fetch> = self.server.as_ref()?.fetches().into_iter().filter(of_seed).collect();
        read_again(&fetches, reads(plan))
    }

    /// What the guest has fetched so far, in words; empty when nothing is served.
    #[must_use]
    pub fn fetched_in_words(&self) -> String {
        let Some(server) = &self.server else { return String::new() };
        let fetches: Vec<String> =
            server.fetches().iter().filter(|f| f.status < 400).map(|f| f.path.clone()).collect();
        if fetches.is_empty() {
            "no seed file fetched yet".into()
        } else {
            format!("seed fetched: {}", fetches.join(", "))
        }
    }

    /// The addresses that asked and are in none of the allowed networks, each once.
    #[must_use]
    pub fn strangers(&self) -> Vec<IpAddr> {
        let fetches = self.server.as_ref().map(SeedServer::fetches).unwrap_or_default();
        let stranger = |peer: &IpAddr| !self.allowed_networks.iter().any(|network| network.contains(*peer));
        let peers = fetches.iter().map(|fetch| fetch.peer.ip());
        let all: BTreeSet<IpAddr> =
            peers.filter(|peer| !self.allowed_networks.is_empty() && stranger(peer)).collect();
        all.into_iter().collect()
    }

    /// Closes the server: the guest has what it needs, and nobody else may ask. Closing it twice is no error.
    pub fn close(&self) {
        if let Some(server) = &self.server {
            server.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_an_interface_is_found_and_without_one_those_that_have_one_are_named() {
        assert_eq!(address_of("lo"), Ok(IpAddr::from([127, 0, 0, 1])));
        let why = address_of("nope0").expect_err("it is not there");
        assert!(why.contains("`nope0`") && why.contains("lo (127.0.0.1)"), "{why}");
    }

    #[test]
    fn an_installer_that_reads_its_answers_long_after_the_first_time_has_started_again() {
        let fetch = |at_ms, path: &str, status, bytes| Fetch {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            path: path.into(),
            status,
            bytes,
            user_agent: None,
            at_ms,
        };
        let first = fetch(1_000, "ks.cfg", 200, 900);
        for (further, expected) in [
            (vec![], None),
            // The first answer broke off; another file; a name that is not there.
            (vec![fetch(5_000, "ks.cfg", 200, 900)], None),
            (vec![fetch(90_000, "post.sh", 200, 10), fetch(91_000, "updates.img", 404, 9)], None),
            (
                vec![fetch(2_000, "ks.cfg", 200, 900), fetch(300_000, "ks.cfg", 200, 900)],
                Some(("ks.cfg".to_owned(), 299)),
            ),
        ] {
            let all = [vec![first.clone()], further].concat();
            assert_eq!(read_again(&all, 1), expected, "{all:?}");
        }
        assert_eq!(read_again(&[fetch(1, "ks.cfg", 404, 0), fetch(60_000, "ks.cfg", 404, 0)], 1), None);
        let thrice = [1, 60_000, 63_000, 120_000].map(|at| fetch(at, "meta-data", 200, 9));
        assert_eq!(read_again(&thrice[..3], 2), None, "what was installed may read it too");
        assert_eq!(read_again(&thrice, 2), Some(("meta-data".to_owned(), 119)));
    }
}
