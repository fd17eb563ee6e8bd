//! A cluster that takes calls and never answers them, and tickets that end in the middle of a build.

use std::time::Duration;

use forge::event::Ending;
use forge_lab::{Fault, Gate, ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig};
use forge_proxmox::ProxmoxHypervisor;
use forge_proxmox::api::limits::Limits;
use futures_util::{StreamExt as _, stream};

use crate::lab_faults::{AT_ONCE, CALLS, Call, judge, tried};
use crate::lab_matrix::{OnLab, plan_for};
use crate::support::lab_site::{FIRST_ID, LabSite};
use crate::support::matrix::Scene as _;

/// Long enough for a busy machine, and short enough for a test.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(8),
    exchange: Duration::from_secs(5),
    still: Duration::from_secs(5),
};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_is_never_answered_the_build_ends_and_names_it_and_nothing_is_left() {
    type Make = fn(Gate) -> Fault;
    let makes: [Make; 2] = [Fault::Hold, Fault::HoldAfter];
    let cases = CALLS.into_iter().flat_map(|call| makes.map(|make| (call, make)));
    let try_case = async |((method, path, number), make): (Call, Make)| {
        let site = LabSite::in_name_only().await.expect("a lab");
        let scene = OnLab::on(site, plan_for(FIRST_ID + 98), |config| {
            ProxmoxHypervisor::connect_within(config, LIMITS)
        })
        .await;
        let gate = Gate::new();
        let fault = make(gate.clone());
        let held = if matches!(fault, Fault::Hold(_)) { "before" } else { "after" };
        let case = format!("{method} {path} no. {number}, {held} its work");
        let handle = scene.site.lab.faults().on(method, path).call(number).then(fault);
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert_eq!(handle.fired(), 1, "{case}: {ending:?}");
        let words = [" was not answered within 5 s", tried((method, path, number))];
        judge(&scene, &ending, &case, &words).await;
        // Nobody waits for it any more, and a change that is made only now is not the build's.
        gate.release();
        scene.close().await;
    };
    stream::iter(cases).for_each_concurrent(AT_ONCE, try_case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_at_half_its_life_in_mid_build_is_renewed_and_the_build_succeeds() {
    const LIFE: Duration = Duration::from_secs(6);
    // One that renews it in time, and one that learns only from the server that it is over.
    for (renewed, renew_after) in [(true, LIFE / 2), (false, LIFE * 600)] {
        let config = LabConfig { run_guests: false, ticket_life: LIFE, ..LabConfig::default() };
        let site = LabSite::with(config, ImportVm::default()).await.expect("a lab");
        site.lab.set_password("ops@pve", &site.secret);
        site.lab.set_user_access("ops@pve", &[("/", LEAST_PRIVILEGES_PVE9)]);
        let scene = OnLab::on(site, plan_for(FIRST_ID + 98), move |mut config| {
            config.token_id = "ops@pve".into();
            ProxmoxHypervisor::connect(config).map(|target| target.renewing_tickets_after(renew_after))
        })
        .await;
        let lab = &scene.site.lab;
        let gate = Gate::new();
        lab.faults().on("POST", "/nodes/*/qemu/*/status/start").then(Fault::TaskHold(gate.clone()));
        let logins = || lab.requests().iter().filter(|each| each.path.ends_with("/access/ticket")).count();
        let outlive = async {
            gate.reached().await;
            // The task is asked after all the time; so many tickets last for longer than the life of the first.
            while logins() < if renewed { 4 } else { 2 } {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            gate.release();
        };
        let (ending, ()) = tokio::join!(scene.bench.build_with(None), outlive);
        let ending = ending.expect("it lives");
        assert!(matches!(ending, Ending::Done { .. }), "{renewed}: {ending:?}");
        let refused = lab.requests().iter().filter(|each| each.status == Some(401)).count();
        assert!(if renewed { refused == 0 } else { refused > 0 }, "{renewed}: {refused} calls were refused");
        scene.assert_template("by tickets");
        scene.close().await;
    }
}
