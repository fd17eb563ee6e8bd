//! Clients that were written for the real thing, unmodified.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use forge_lab::{Lab, LabConfig, setup};
use tokio::process::Command;

/// How long a walk may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn proxmoxer_walks_the_api() -> anyhow::Result<()> {
    let python = setup::python::interpreter();
    if !python.is_file() {
        ensure!(
            std::env::var_os("FORGE_LAB").is_none(),
            "{} is not there: cargo lab test makes it",
            python.display()
        );
        println!("skipped: there is no {}; cargo lab test makes it", python.display());
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let lab = Lab::start(LabConfig {
        run_guests: false,
        auth_delay: Duration::from_millis(50),
        agent_ping: Duration::from_millis(50),
        ..LabConfig::default()
    })
    .await?;
    lab.set_password("root@pam", "walk-root-secret");
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, lab.ca_pem())?;
    let web = super::storage::web_server("a disc from the web", Vec::new()).await?;
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/proxmoxer_walk.py");
    let walk = Command::new(python)
        .arg(script)
        .arg(lab.address().ip().to_string())
        .arg(lab.address().port().to_string())
        .arg(&authority)
        .arg("walk-root-secret")
        .arg(format!("http://{web}"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, walk).await.context("the walk does not end")??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{said}\n{errors}\nlast calls: {:#?}",
        lab.requests().iter().rev().take(3).collect::<Vec<_>>()
    );
    ensure!(said.ends_with("walked\n"), "{said}");
    lab.stop().await;
    Ok(())
}
