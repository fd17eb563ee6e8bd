//! `forge test`: tries a template as its users will. A linked clone with settings of its own for cloud-init is booted,
//! checked, started anew, checked again, and removed.
//!
//! The trial is a build whose [`Purpose`] is to be tested: the same stages up to the login, with the same journal, so
//! that a clone is removed whatever happens. The checks are shell steps in the place of provisioners; all of them run,
//! whatever the others say. [`plan`] is pure.

pub mod baseline;
mod checks;
pub mod inventory;
pub mod junit;

use crate::config::site::{Target, TargetKind};
use crate::plan::{AccessPlan, Deadlines, Delivery, Moment, Plan, Purpose, SeedPlan, VERSION};
use crate::provision::{Action, ShellStep, Step};
use baseline::Baseline;
pub(crate) use checks::{AGENT, INVENTORY, INVENTORY_FILE, SKIPPED};
pub use checks::{ChecksError, built_in, from_file};
use forge_machine::{
    Capabilities, CloudInitDrive, DiskSpec, Facts, FactsQuery, Finish, MachineSpec, SourceSelector,
    SourceSpec,
};

/// The user that the clone gets.
pub const USER: &str = "forge-test";

/// By how much the clone's first disk is larger than the template's, in bytes: the guest must take it.
pub const GROWTH: u64 = 1 << 30;

/// What must be asked of the target to plan a trial.
#[must_use]
pub fn query(template: SourceSelector, target: &Target) -> FactsQuery {
    let pool = match &target.kind {
        TargetKind::Proxmox(proxmox) => proxmox.pool.clone(),
        TargetKind::Qemu(_) => None,
    };
    FactsQuery {
        source: template,
        isos: Vec::new(),
        storages: Vec::new(),
        bridges: Vec::new(),
        node: None,
        vmid: None,
        memory_mib: None,
        placed: Vec::new(),
        pool,
        tags: Vec::new(),
        needs_console: false,
        needs_agent: false,
    }
}

/// The plan of a throw-away VM: that of a profile's build up to the login, and its removal. Its seed has no scripts of the
/// profile's, and nothing is provisioned or sealed: all that is asked is whether the guest agent runs.
///
/// # Errors
/// Why such a VM would show nothing, in words: what a build installs itself is not there before.
pub fn throwaway(plan: Plan, moment: &Moment) -> Result<Plan, &'static str> {
    let cloned = matches!(plan.machine.source, SourceSpec::Clone { .. });
    if !cloned || plan.after_install.is_some() || plan.seed.answers.is_some() {
        return Err("its system is installed by the build, so no VM can be tried before");
    }
    let profile = format!("doctor-{}", plan.profile);
    Ok(Plan {
        purpose: Purpose::Test,
        chain_id: moment.chain_id(&profile),
        profile,
        machine: MachineSpec {
            seed_disc: plan.seed.delivery == Delivery::Disc,
            boot_disc: false,
            floppy: false,
            ..plan.machine
        },
        seed: SeedPlan { user_data: None, files: Vec::new(), disc: None, floppy: None, ..plan.seed },
        provision: checks::agent()
            .into_iter()
            .map(|check| Step::new(check.name.clone(), Action::Shell(check)))
            .collect(),
        seal: Vec::new(),
        gate: false,
        baseline: None,
        ..plan
    })
}

/// The plan of a trial.
///
/// # Errors
/// When the template can't be tried, in words.
pub fn plan(
    target: &Target,
    capabilities: &Capabilities,
    facts: &Facts,
    moment: &Moment,
    checks: Vec<ShellStep>,
    baseline: Option<Baseline>,
) -> Result<Plan, String> {
    let TargetKind::Proxmox(proxmox) = &target.kind else {
        return Err(format!("templates are tried on Proxmox VE, and the target `{}` is QEMU", target.name));
    };
    let source = facts.source.as_ref().ok_or("the template was not found")?;
    if !source.template {
        return Err(format!("{} ({}) is no template", source.name, source.vm));
    }
    let (delivery, why) = match &source.cloud_init {
        Some((slot, _)) => (Delivery::CloudInitDrive, format!("its own cloud-init drive on {slot}")),
        None if capabilities.smbios_serial => {
            (Delivery::Smbios, "the template has no cloud-init drive".to_owned())
        }
        None => return Err(format!("{} has no cloud-init drive, so nobody could log in", source.name)),
    };
    let grown = source.disks.first().filter(|disk| disk.size > 0).map(|disk| DiskSpec {
        slot: disk.slot.clone(),
        size: Some(disk.size + GROWTH),
        discard: None,
        ..DiskSpec::default()
    });
    let profile = format!("test-{}", source.name);
    Ok(Plan {
        version: VERSION,
        purpose: Purpose::Test,
        chain_id: moment.chain_id(&profile),
        profile,
        profile_files: Vec::new(),
        target: target.name.clone(),
        product: facts.product.clone(),
        notes: facts.notes.clone(),
        planned: moment.now,
        machine: MachineSpec {
            ids: proxmox.vmids,
            pool: proxmox.pool.clone(),
            disks: grown.into_iter().collect(),
            cloud_init: source.cloud_init.clone().map(|(slot, storage)| CloudInitDrive {
                slot,
                storage,
                inherited: true,
            }),
            ..MachineSpec::new(
                SourceSpec::Clone {
                    vm: source.vm.clone(),
                    name: source.name.clone(),
                    full: false,
                    storage: None,
                },
                source.vm.node.clone(),
            )
        },
        downloads: Vec::new(),
        places: std::collections::BTreeMap::new(),
        after_install: None,
        kernel_cmdline: None,
        boot_disc: None,
        seed: SeedPlan {
            delivery,
            why,
            bind: target.seed.bind.clone(),
            ports: target.seed.ports,
            allowed_networks: target.seed.allowed_networks.clone(),
            address: target.seed.address.clone().or_else(|| {
                let host = capabilities.host_address.filter(|_| target.seed.interface.is_none());
                host.map(|host| host.seen.to_string())
            }),
            interface: target.seed.interface.clone(),
            endpoint: facts.endpoint.clone(),
            hostname: Some(format!("forge-{}", moment.nonce)),
            user_data: None,
            network_config: None,
            answers: None,
            ip_config: "ip=dhcp".into(),
            files: Vec::new(),
            disc: None,
            floppy: None,
        },
        boot: Vec::new(),
        access: AccessPlan {
            winrm: Default::default(),
            windows: false,
            user: USER.into(),
            create: true,
            via: crate::remote::via::usual(),
            ssh: crate::remote::SshPlan::default(),
        },
        provision: checks
            .into_iter()
            .map(|check| Step::new(check.name.clone(), Action::Shell(check)))
            .collect(),
        seal: Vec::new(),
        seal_dry_run: false,
        gate: false,
        baseline,
        origin: crate::plan::origin::Origin::default(),
        // Never carried out: a trial ends with the removal of its clone.
        finish: Finish::Template { name: source.name.clone(), tags: Vec::new(), notes: String::new() },
        deadlines: Deadlines { build: None, ..Deadlines::default() },
    })
}
