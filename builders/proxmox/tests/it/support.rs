//! A lab, a token for it, and specs that fit it.

use std::time::Duration;

use forge_lab::{ImportVm, LEAST_PRIVILEGES_PVE9, Lab, LabConfig};
use forge_machine::{
    BuildState, ChainId, CloneSelector, FactsQuery, Hypervisor as _, MachineSpec, Nonce, Ownership,
    SourceSelector, SourceSpec, StopLadder, VmRef,
};
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, Secret, TlsChoice};

pub const TOKEN: &str = "forge@pve!build";
/// The boot VM that every lab of these tests has.
pub const SOURCE: u32 = 100;

pub struct Bench {
    pub lab: Lab,
    pub pve: ProxmoxHypervisor,
    pub config: ProxmoxConfig,
}

/// A lab whose guests run in name only.
pub async fn bench() -> Bench {
    bench_with(LabConfig { run_guests: false, ..LabConfig::default() }).await
}

pub async fn bench_with(config: LabConfig) -> Bench {
    let lab = Lab::start(config).await.expect("the lab starts");
    let secret = lab.add_token(TOKEN, &[("/", LEAST_PRIVILEGES_PVE9)]);
    let source = ImportVm { vmid: SOURCE, tags: "boot;base".into(), ..ImportVm::default() };
    lab.import_vm(source).await.expect("imported");
    let config = ProxmoxConfig {
        target: "lab".into(),
        url: lab.url(),
        more_urls: Vec::new(),
        proxy: forge_proxmox::ProxyChoice::None,
        token_id: TOKEN.into(),
        role: None,
        token_secret: Secret::new(secret),
        tls: TlsChoice::Fingerprint(lab.fingerprint().to_owned()),
        nodes: Vec::new(),
        disk_storage: Some("local".into()),
        iso_storage: None,
        bridge: Some("vmbr0".into()),
    };
    let pve = ProxmoxHypervisor::connect(config.clone()).expect("sound settings");
    Bench { lab, pve, config }
}

impl Bench {
    /// Another client of the same lab.
    pub fn client(&self, change: impl FnOnce(&mut ProxmoxConfig)) -> ProxmoxHypervisor {
        let mut config = self.config.clone();
        change(&mut config);
        ProxmoxHypervisor::connect(config).expect("sound settings")
    }

    /// The same with a token that may also put media on the storages, and let the nodes download them.
    pub fn with_media(&self, download: bool) -> ProxmoxHypervisor {
        let mut privileges = [LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate"]].concat();
        if download {
            privileges.push("Sys.AccessNetwork");
        }
        let id = format!("forge@pve!media{}", u8::from(download));
        let secret = self.lab.add_token(&id, &[("/", &privileges)]);
        self.client(|config| {
            config.token_id = id;
            config.token_secret = Secret::new(secret);
            config.iso_storage = Some("local".into());
        })
    }

    /// A build VM, cloned and waited for.
    pub async fn clone_vm(&self, mark: &Ownership) -> VmRef {
        let at = self.pve.propose_id(&spec(), &[]).await.expect("an id");
        let task = self.pve.submit_create(&spec(), &at, mark).await.expect("submitted");
        self.pve.wait(&task).await.expect("cloned");
        at
    }

    pub fn config_of(&self, at: &VmRef, key: &str) -> Option<String> {
        let vm = self.lab.vm(at.id.parse().expect("a number")).expect("it exists");
        vm.config.get(key).cloned()
    }
}

pub fn query() -> FactsQuery {
    FactsQuery {
        source: SourceSelector::Clone(CloneSelector::Name("boot-vm".into())),
        isos: Vec::new(),
        storages: vec!["local".into()],
        bridges: vec!["vmbr0".into()],
        node: None,
        vmid: None,
        memory_mib: None,
        placed: Vec::new(),
        pool: None,
        tags: Vec::new(),
        needs_console: true,
        needs_agent: false,
    }
}

pub fn spec() -> MachineSpec {
    MachineSpec {
        ids: Some((9000, 9009)),
        ..MachineSpec::new(
            SourceSpec::Clone {
                vm: VmRef::new(SOURCE.to_string(), "pve"),
                name: "boot-vm".into(),
                full: true,
                storage: Some("local".into()),
            },
            "pve",
        )
    }
}

pub fn mark(byte: u8) -> Ownership {
    Ownership {
        nonce: Nonce::from_bytes([byte; 8]),
        chain_id: ChainId::new("CHAIN-20261121T040506Z-debian-12"),
        owner: "ops@ci".into(),
        started: "2026-11-21T04:05:06Z".parse().expect("valid"),
        heartbeat: "2026-11-21T04:05:06Z".parse().expect("valid"),
        state: BuildState::Building,
        memory_mib: None,
    }
}

pub fn ladder(seconds: u64, power_off: bool) -> StopLadder {
    StopLadder { agent: Duration::from_secs(seconds), acpi: Duration::ZERO, power_off }
}
