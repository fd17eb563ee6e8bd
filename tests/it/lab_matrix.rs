//! The fault matrix with the Proxmox builder on the lab: the same list of effects over real HTTP, tasks and locks, with
//! VMs that run in name only and a guest that answers at once.

use std::sync::Arc;
use std::time::Duration;

use forge::plan::{AfterInstall, Plan};
use forge_lab::{Fault, Gate};
use forge_machine::{
    BuildState, Checksum, DiskSpec, Location, Medium, Ownership, PortError, SourceSpec, VmRef,
};
use forge_proxmox::api::task::STALL;
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, TlsChoice};

use crate::support::fake_build;
use crate::support::lab_site::{BOOT_VM, FIRST_ID, LabSite, OLD, TOKEN};
use crate::support::matrix::{self, Scene};
use crate::support::workbench::Workbench;

/// A lab with a boot VM.
pub struct OnLab {
    pub site: LabSite,
    pub bench: Workbench,
}

impl OnLab {
    pub async fn new() -> Self {
        Self::with(plan_for(FIRST_ID + 98), STALL).await
    }

    /// An installer that is given its media and rids the VM of them.
    pub async fn installing() -> Self {
        let medium = Location::Volume("local:iso/installer.iso".into());
        let medium = Medium { location: medium, checksum: Checksum::None };
        let scene = Self::with(install_of(medium), STALL).await;
        let file = scene.site.path().join("installer.iso");
        std::fs::write(&file, "an installer".repeat(100)).expect("the folder is ours");
        scene.site.lab.import_iso("local", "installer.iso", &file).expect("put there");
        scene
    }

    /// A build that gives tasks up after that time without a word from them.
    pub async fn with(plan: Plan, stall: Duration) -> Self {
        let site = LabSite::in_name_only().await.expect("a lab");
        Self::on(site, plan, move |config| {
            ProxmoxHypervisor::connect(config).map(|target| target.stalling_after(stall))
        })
        .await
    }

    /// A build on a lab of any kind, by a client of any kind.
    pub async fn on(
        site: LabSite,
        plan: Plan,
        connect: impl Fn(ProxmoxConfig) -> Result<ProxmoxHypervisor, PortError> + Send + Sync + 'static,
    ) -> Self {
        let site = site.with_old_template("fake").await.expect("a template");
        let config = config_of(&site.lab.url(), site.lab.fingerprint(), &site.secret);
        let open = move || -> Arc<dyn forge_machine::Hypervisor> {
            Arc::new(connect(config.clone()).expect("its settings are sound"))
        };
        Self { site, bench: Workbench::new(plan, Box::new(open)) }
    }
}

/// How a test reaches a lab.
pub fn config_of(url: &str, fingerprint: &str, secret: &str) -> ProxmoxConfig {
    ProxmoxConfig {
        target: "lab".into(),
        url: url.into(),
        more_urls: Vec::new(),
        proxy: forge_proxmox::ProxyChoice::None,
        token_id: TOKEN.into(),
        role: None,
        token_secret: secret.into(),
        tls: TlsChoice::Fingerprint(fingerprint.into()),
        nodes: vec!["pve".into()],
        disk_storage: Some("local".into()),
        iso_storage: Some("local".into()),
        bridge: Some("vmbr0".into()),
    }
}

/// A plan for a lab, with VMIDs up to that one.
pub fn plan_for(last: u32) -> Plan {
    let mut plan = fake_build::plan();
    plan.target = "lab".into();
    plan.machine.node = "pve".into();
    plan.machine.ids = Some((FIRST_ID, last));
    plan.machine.source = SourceSpec::Clone {
        vm: VmRef::new(BOOT_VM.to_string(), "pve"),
        name: "boot-vm".into(),
        full: true,
        storage: None,
    };
    plan.deadlines.boot = Duration::from_secs(600);
    plan.deadlines.connect = Duration::from_secs(600);
    plan
}

/// A plan for a new VM that is installed from a medium.
pub fn install_of(medium: Medium) -> Plan {
    let mut plan = plan_for(FIRST_ID + 98);
    plan.machine.source = SourceSpec::New;
    plan.machine.isos = vec![medium];
    plan.machine.disks = vec![DiskSpec { slot: "scsi0".into(), size: Some(1 << 30), ..DiskSpec::default() }];
    plan.after_install = Some(AfterInstall::Reboot);
    plan
}

impl Scene for OnLab {
    fn bench(&self) -> &Workbench {
        &self.bench
    }

    fn assert_nothing_left(&self, case: &str) {
        assert_eq!(self.site.others(), [], "{case}");
        self.site.assert_nothing_left();
        self.site.assert_old_template(true, case);
    }

    fn assert_template(&self, case: &str) {
        let left = self.site.others();
        assert_eq!(left.len(), 1, "{case}: {left:?}");
        let vm = &left[0];
        assert!(vm.template && !vm.running && vm.lock.is_none(), "{case}: {vm:?}");
        assert_eq!(vm.name, "tpl-fake", "{case}");
        let smbios = vm.config.get("smbios1").map(String::as_str).unwrap_or_default();
        assert!(!smbios.contains("serial="), "{case}: the seed's address is still there: {smbios}");
        assert_eq!(vm.tags, "forge;latest", "{case}");
        self.site.assert_old_template(false, case);
    }

    fn assert_kept(&self, case: &str) {
        let left = self.site.others();
        assert_eq!(left.len(), 1, "{case}: {left:?}");
        let vm = &left[0];
        assert!(!vm.template && !vm.running && vm.lock.is_none(), "{case}: {vm:?}");
        let mark = Ownership::from_description(&vm.description).expect("marked");
        assert_eq!(mark.state, BuildState::Kept, "{case}");
        assert!(vm.tags.contains("forge-kept"), "{case}: {}", vm.tags);
        self.site.assert_old_template(true, case);
    }

    async fn close(self) {
        self.site.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_on_the_lab_without_faults_makes_exactly_the_template() {
    matrix::without_faults(OnLab::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_or_interruption_at_any_effect_on_the_lab_leaves_what_its_region_says() {
    matrix::failures_and_interruptions(OnLab::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_death_at_any_effect_on_the_lab_gc_leaves_what_its_region_says() {
    matrix::deaths(OnLab::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_any_moment_of_publishing_forge_latest_names_a_whole_template() {
    let scene = OnLab::new().await;
    let lab = &scene.site.lab;
    let (before, renaming, untagging) = (Gate::new(), Gate::new(), Gate::new());
    lab.faults().on("POST", "/nodes/*/qemu/*/template").then(Fault::HoldAfter(before.clone()));
    let put = "/nodes/*/qemu/*/config";
    lab.faults().on("PUT", &format!("/nodes/*/qemu/{OLD}/config")).then(Fault::Hold(untagging.clone()));
    let watch = async {
        let latest = || async {
            let done = scene.site.run(&["latest", "--profile", "fake", "-o", "vmid"]).await;
            (done.code, done.stdout.trim().to_owned())
        };
        before.reached().await;
        lab.faults().on("PUT", put).then(Fault::Hold(renaming.clone()));
        assert_eq!(latest().await, (Some(0), OLD.to_string()), "made, not published");
        before.release();
        renaming.reached().await;
        assert_eq!(latest().await, (Some(0), OLD.to_string()), "about to be published");
        renaming.release();
        untagging.reached().await;
        assert_eq!(lab.vm(OLD).map(|vm| vm.tags), Some("forge;latest".into()), "two bear it");
        assert_eq!(latest().await, (Some(0), FIRST_ID.to_string()), "published");
        untagging.release();
    };
    let (ending, ()) = tokio::join!(scene.bench.build_with(None), watch);
    assert_eq!(ending.expect("it lives").exit_code(), 0);
    scene.assert_template("published");
    let done = scene.site.run(&["latest", "--profile", "fake"]).await;
    assert_eq!(done.stdout.trim(), FIRST_ID.to_string(), "{}", done.stderr);
    scene.close().await;
}
