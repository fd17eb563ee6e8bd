//! What Proxmox says is told to people, by the real program on the lab with VMs in name only.

use forge_lab::Fault;

use crate::support::lab_site::{LabSite, PROFILE};

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_of_a_task_is_shown_and_a_refused_field_is_told_with_its_line() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let warning = "clone of volume is not thin any more";
    site.lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::TaskWarn { text: warning.into() });
    // The patterns of values are the server's to know.
    site.write("tiny.toml", &format!("{PROFILE}\n[vm.proxmox]\nstartdate = \"soon\"\n"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("Proxmox VE warns: {warning}")), "{}", done.stderr);
    assert!(
        done.stderr.contains("`startdate` is set by vm.proxmox.startdate (tiny.toml:21)"),
        "{}",
        done.stderr
    );
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
