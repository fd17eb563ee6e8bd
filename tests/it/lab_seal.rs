//! Sealing real guests on the lab: what no failure may spoil.

use std::sync::Arc;

use forge::engine::effect::{Effect, When};
use forge::stages::connect::SshConnector;
use forge_proxmox::ProxmoxHypervisor;

use crate::lab_matrix::{config_of, plan_for};
use crate::support::fake_build::Blow;
use crate::support::lab_site::{FIRST_ID, LabSite};
use crate::support::workbench::Workbench;

/// In the moment between the end of the seal and its record nobody can log in to the guest any more, and nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_was_sealed_when_forge_died_is_sealed_again_and_becomes_the_template()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let mut plan = plan_for(FIRST_ID + 98);
    plan.seed.address = Some("10.0.2.2".into());
    plan.seal = forge::seal::enabled(&[].into(), false);
    let config = config_of(&site.lab.url(), site.lab.fingerprint(), &site.secret);
    let open = move || -> Arc<dyn forge_machine::Hypervisor> {
        Arc::new(ProxmoxHypervisor::connect(config.clone()).expect("its settings are sound"))
    };
    let mut bench = Workbench::new(plan, Box::new(open));
    bench.connector = Arc::new(SshConnector::default());

    let ending = bench.build_with(Some((Effect::Seal, When::After, Blow::Die))).await;
    assert_eq!(ending, None, "it died");
    let [vm] = site.others().try_into().expect("one VM");
    assert!(vm.running && !vm.template, "{vm:?}");
    // Without gc before: the guest still runs, and has no user.
    let ending = bench.finish().await;
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    let [vm] = site.others().try_into().expect("one VM");
    assert!(vm.template && !vm.running, "{vm:?}");
    let smbios = vm.config.get("smbios1").map(String::as_str).unwrap_or_default();
    assert!(!smbios.contains("serial="), "the seed's address is still there: {smbios}");
    assert_eq!(bench.journal_files(), [""; 0]);
    site.close().await;
    Ok(())
}
